//! The binary as a person meets it: what it says to wrong input, and with which exit code.

#[cfg(feature = "devnet")]
mod keys;

use std::path::Path;
use std::process::{Command, Output};

fn covey(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_covey"));
    command.args(arguments).current_dir(folder).env("COVEY_CACHE", folder.join("cache")).env_remove("COVEY_LOG");
    command.output().expect("the binary starts")
}

/// It fails with code 1, says all of `words` on standard error, and never panics.
fn expect_refusal(folder: &Path, arguments: &[&str], words: &[&str]) {
    let output = covey(folder, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "covey {arguments:?} said:\n{said}");
    for word in words {
        assert!(said.contains(word), "covey {arguments:?} should mention {word:?}, but said:\n{said}");
    }
    assert!(said.starts_with("error: ") || said.contains("\nerror: "), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("a temporary file");
}

/// A text that a grammar makes: enough for the tiny preset.
fn write_text(folder: &Path) {
    let documents = covey_trainer::data::synthetic::documents(1, 300_000);
    let lines: Vec<String> =
        documents.iter().map(|document| serde_json::json!({ "text": document.text }).to_string()).collect();
    write(folder, "text.jsonl", &lines.join("\n"));
}

#[test]
fn data_that_is_not_there_or_not_text_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    expect_refusal(at, &["swarm", "--data", "missing.txt"], &["missing.txt"]);
    write(at, "empty.txt", "");
    expect_refusal(at, &["swarm", "--data", "empty.txt"], &["empty.txt", "empty"]);
    std::fs::write(at.join("bytes.txt"), b"fine so far \xff\xfe").expect("a temporary file");
    expect_refusal(at, &["swarm", "--data", "bytes.txt"], &["bytes.txt", "UTF-8"]);
    write(at, "bad.jsonl", "{\"text\": \"fine\"}\n{\"no text\": 1}\n");
    expect_refusal(at, &["data", "prepare", "--data", "bad.jsonl"], &["bad.jsonl", "2"]);
    write(at, "short.txt", "Too short to learn from.");
    expect_refusal(at, &["swarm", "--data", "short.txt"], &["text"]);
}

#[test]
fn a_run_file_with_a_wrong_key_or_number_is_refused_with_all_faults() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    write_text(at);
    expect_refusal(at, &["swarm", "--preset", "huge"], &["huge", "demo", "covenant"]);
    expect_refusal(at, &["swarm", "--preset", "none.toml"], &["none.toml"]);
    let (_, tiny, _) = covey::preset::PRESETS.into_iter().find(|(name, ..)| *name == "tiny").expect("a preset");
    write(at, "unknown.toml", &tiny.replace("[model]", "[model]\nwidht = 3"));
    expect_refusal(at, &["swarm", "--preset", "unknown.toml", "--data", "text.jsonl"], &["widht", "unknown"]);
    let wrong = tiny.replace("commit = 14", "commit = 40").replace("clip = 1.0", "clip = -1.0");
    write(at, "wrong.toml", &wrong);
    expect_refusal(at, &["swarm", "--preset", "wrong.toml", "--data", "text.jsonl"], &["clock", "inner.clip"]);
}

#[test]
fn a_plan_that_cannot_be_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    write_text(at);
    let swarm = |more: &[&'static str]| [&["swarm", "--preset", "tiny", "--data", "text.jsonl"], more].concat();
    expect_refusal(at, &swarm(&["--miners", "0"]), &["at least one miner"]);
    expect_refusal(at, &swarm(&["--kill", "miner-9@1"]), &["miner-9", "miner-0"]);
    expect_refusal(at, &swarm(&["--rounds", "3", "--join", "3"]), &["round 3"]);
    expect_refusal(at, &swarm(&["--misbehave", "noise=9"]), &["9 miners", "4"]);
    write(at, "taken", "");
    expect_refusal(at, &swarm(&["--out", "taken"]), &["taken"]);
    // Before the data is looked at: preparing it may take a minute.
    let nothing = |more: &[&'static str]| [&["swarm", "--preset", "tiny", "--data", "missing"], more].concat();
    expect_refusal(at, &nothing(&["--kill", "miner-9@1"]), &["miner-9"]);
    expect_refusal(at, &nothing(&["--rounds", "0"]), &["--rounds must be at least 1"]);
}

/// What acts on a terminal is seen, not done.
fn expect_harmless(output: &Output) -> String {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let acts = |letter: char| letter.is_control() && !"\n\t".contains(letter) || letter == '\u{202e}';
    assert!(!said.contains(acts), "{said:?}");
    said
}

#[test]
fn foreign_text_does_not_act_on_the_terminal() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    write_text(at);
    let prepare = ["data", "prepare", "--data", "text.jsonl", "--vocabulary", "300", "--out", "data"];
    let prepared = covey(at, &prepare);
    assert_eq!(prepared.status.code(), Some(0), "{}", String::from_utf8_lossy(&prepared.stderr));
    let manifest = std::fs::read_to_string(at.join("data/dataset.json")).expect("a manifest");
    let mut manifest: covey_trainer::data::Manifest = serde_json::from_str(&manifest).expect("a manifest");
    manifest.name = "\x1b]0;mine\x07\x1b[2J\u{202e}name\n".into();
    std::fs::write(at.join("data/dataset.json"), manifest.to_bytes()).expect("a manifest");
    let said = expect_harmless(&covey(at, &["data", "show", "data"]));
    assert!(said.contains("\\u{1b}]0;mine\\u{7}\\u{1b}[2J\\u{202e}name\\u{a}\n"), "{said}");
    // An error that names what somebody else has named.
    let said = expect_harmless(&covey(at, &["data", "show", "no\x1b[2J\rfolder"]));
    assert!(said.contains("error: ") && said.contains("no\\u{1b}[2J\\u{d}folder"), "{said}");
}

/// From text to a swarm to a model that continues a prompt; then its data is damaged.
#[test]
fn a_swarm_leaves_a_report_and_a_usable_model() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    write_text(at);
    let done = |arguments: &[&str]| {
        let output = covey(at, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "covey {arguments:?} said:\n{said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    done(&["data", "prepare", "--data", "text.jsonl", "--vocabulary", "512", "--out", "data"]);
    let swarm = ["swarm", "--preset", "tiny", "--data", "data", "--rounds", "2", "--seed", "5", "--out", "out"];
    assert!(done(&swarm).contains("same state root"));
    let summary: serde_json::Value =
        serde_json::from_slice(&std::fs::read(at.join("out/summary.json")).expect("a summary")).expect("JSON");
    assert_eq!(summary["rounds"], 2);
    assert_eq!(summary["seed"], 5);
    assert_eq!(summary["roots_agree"], true);
    assert_eq!(summary["nodes"].as_array().map(Vec::len), Some(8));
    assert!(std::fs::read_to_string(at.join("out/report.html")).expect("a report").contains("<svg"));
    assert!(at.join("out/logs/miner-0.log").is_file());
    let report = || std::fs::read_to_string(at.join("out/report.html")).expect("a report");
    let first = report();
    std::fs::remove_file(at.join("out/report.html")).expect("the report");
    assert!(done(&["report", "out"]).contains("report.html"));
    assert_eq!(report(), first, "written again it is the same");
    expect_refusal(at, &["report", "data"], &["summary.json", "--out folder"]);
    assert!(done(&["audit", "out"]).contains("2 rounds computed again"));
    let verified = done(&["state", "verify", "out/nodes/miner-0"]);
    assert!(verified.contains("as expected"), "{verified}");
    let other = covey(at, &["state", "verify", "out/nodes/miner-0", "--root", &"ab".repeat(32)]);
    let said = String::from_utf8_lossy(&other.stdout).into_owned();
    assert!(other.status.code() == Some(3) && said.contains("does not have the expected"), "{said}");
    let state = newest(&at.join("out/nodes/miner-1"), "state-");
    let mut bytes = std::fs::read(&state).expect("a state");
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    std::fs::write(&state, bytes).expect("a state");
    let other = covey(at, &["state", "verify", "out/nodes/miner-1"]);
    let said = String::from_utf8_lossy(&other.stdout).into_owned();
    assert!(other.status.code() == Some(3) && said.contains("differs: elements"), "{said}");
    expect_refusal(at, &["state", "verify", "out"], &["no whole state", "nodes/NAME"]);
    done(&["export", "--from", "out", "--to", "model"]);
    let continued = |_| done(&["generate", "--model", "model", "--temperature", "0", "--tokens", "8", "the"]);
    let [first, second] = [0, 1].map(continued);
    assert!(first.starts_with("the") && first.len() > 4, "{first:?}");
    assert_eq!(first, second);
    assert_eq!(done(&["generate", "--node", "out", "--temperature", "0", "--tokens", "8", "the"]), first);
    let chat = ["generate", "--model", "model", "--chat", "--message", "hi"];
    expect_refusal(at, &chat, &["has no chat template", "chat_template.jinja"]);
    expect_refusal(at, &["serve", "--model", "nowhere"], &["nowhere", "is missing"]);
    expect_refusal(at, &["serve", "--node", "data"], &["data is no node.toml"]);

    let shard = std::fs::read_dir(at.join("data"))
        .expect("the data set")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "tok"))
        .expect("a shard");
    let bytes = std::fs::read(&shard).expect("a shard");
    std::fs::write(&shard, &bytes[..bytes.len() / 2]).expect("a shard");
    expect_refusal(at, &["swarm", "--preset", "tiny", "--data", "data"], &["covey data prepare"]);
    let weights = at.join("model/model.safetensors");
    let bytes = std::fs::read(&weights).expect("the weights");
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).expect("the weights");
    expect_refusal(at, &["generate", "--model", "model", "the"], &["model.safetensors"]);
    expect_refusal(at, &["export", "--from", "nowhere", "--to", "m"], &["nowhere", "--out folder"]);
    expect_refusal(at, &["audit", "nowhere"], &["nowhere"]);
}

/// What one swarm made the next goes on from, with the model's own tokenizer; and other programs can have it.
#[test]
fn a_model_is_gone_on_from_and_written_for_others() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    write_text(at);
    let done = |arguments: &[&str]| {
        let output = covey(at, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "covey {arguments:?} said:\n{said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let swarm = |more: &[&'static str]| {
        let small =
            ["swarm", "--preset", "tiny", "--data", "text.jsonl", "--miners", "1", "--validators", "1", "--rounds"];
        done(&[&small[..], more].concat())
    };
    swarm(&["1", "--out", "first"]);
    done(&["export", "--from", "first", "--to", "model", "--type", "bf16", "--shard-bytes", "40000"]);
    assert!(at.join("model/model.safetensors.index.json").is_file());
    write(at, "model/chat_template.jinja", "{{ messages }}");
    let said = swarm(&["2", "--from-model", "model", "--out", "second"]);
    assert!(said.contains("same state root"), "{said}");
    assert!(done(&["audit", "second"]).contains("2 rounds computed again"));
    done(&["export", "--from", "second", "--to", "better"]);
    assert!(at.join("better/chat_template.jinja").is_file(), "what stands beside a model is carried on");
    for kind in ["f32", "bf16", "q8_0"] {
        done(&["export", "--model", "better", "--format", "gguf", "--type", kind, "--to", "better.gguf"]);
        assert!(std::fs::read(at.join("better.gguf")).expect("a file").starts_with(b"GGUF"));
    }

    done(&["data", "prepare", "--data", "text.jsonl", "--tokenizer", "model", "--out", "data"]);
    let genesis = "cd".repeat(32);
    let new =
        ["run", "new", "--preset", "tiny", "--genesis", &genesis, "--netuid", "1", "--start", "9", "--data", "data"];
    let said = done(&[&new[..], &["--from-model", "model"]].concat());
    assert!(said.contains("covey seeder --config node.toml --genesis model"), "{said}");
    assert!(!std::fs::read_to_string(at.join("run.toml")).expect("a run").contains("seed"));
    assert!(done(&["run", "check", "run.toml"]).contains("give its folder"));
    assert!(done(&["run", "check", "run.toml", "--genesis", "model"]).contains("model gives the same"));
    let other = covey(at, &["run", "check", "run.toml", "--genesis", "better"]);
    assert_eq!(other.status.code(), Some(3), "{}", String::from_utf8_lossy(&other.stdout));

    expect_refusal(at, &["export", "--model", "better", "--type", "q8_0", "--to", "x"], &["q8_0", "--format gguf"]);
    expect_refusal(at, &["export", "--model", "data", "--to", "x"], &["data/config.json is missing"]);
    let wider = ["--from-model", "model", "--set", "model.width=64", "--out", "wide.toml"];
    expect_refusal(at, &[&new[..], &wider].concat(), &["another model", "hidden_size"]);
    let drawn = ["--from-model", "model", "--set", "model.seed=3", "--out", "drawn.toml"];
    expect_refusal(at, &[&new[..], &drawn].concat(), &["model.seed is 3", "leave one"]);
    expect_refusal(at, &["data", "prepare", "--data", "text.jsonl", "--tokenizer", "text.jsonl"], &["tokenizer.json"]);
}

/// The last file of that folder, by name, that begins so.
fn newest(folder: &Path, beginning: &str) -> std::path::PathBuf {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let named =
        |path: &std::path::PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(beginning));
    entries.map(|entry| entry.path()).filter(named).max().expect("such a file")
}

/// A grid becomes a table; asked again, nothing is computed again; a wrong one is refused with all that is wrong.
#[test]
fn a_laboratory_leaves_a_table_and_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    write_text(at);
    write(at, "wrong.toml", "round = 1\n[[experiment]]\nname = \"a\"\nmethod = \"swram\"\n");
    expect_refusal(at, &["lab", "wrong.toml", "--out", "lab"], &["wrong.toml", "\"round\"", "\"swram\"", "diloco"]);
    expect_refusal(at, &["lab", "none.toml", "--out", "lab"], &["none.toml"]);
    let grid =
        "preset = \"tiny\"\nrounds = 1\nminers = 2\n[[experiment]]\nname = \"some\"\nmethod = [\"swarm\", \"adamw\"]\n";
    write(at, "grid.toml", grid);
    let lab = || covey(at, &["lab", "grid.toml", "--out", "lab", "--data", "text.jsonl"]);
    let (first, second) = (lab(), lab());
    let said = String::from_utf8_lossy(&first.stderr);
    assert_eq!(first.status.code(), Some(0), "{said}");
    assert!(said.contains("2/2  some, adamw, seed 1: loss "), "{said}");
    assert_eq!(String::from_utf8_lossy(&second.stdout), String::from_utf8_lossy(&first.stdout));
    assert!(String::from_utf8_lossy(&second.stderr).contains("2 runs, 2 done before"));
    for file in ["results.jsonl", "table.md", "report.html"] {
        assert!(at.join("lab").join(file).is_file(), "{file}");
    }
    for both in [&["lab", "grid.toml"][..], &["lab", "grid.toml", "--out", "lab", "--rounds", "3"]] {
        assert_eq!(covey(at, both).status.code(), Some(2), "{both:?}");
    }
}

/// A process that ends with the test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `covey` and reads its lines of JSON until one is this event.
fn start(at: &Path, arguments: &[&str], event: &str) -> (Running, Vec<serde_json::Value>) {
    start_command(Command::new(env!("CARGO_BIN_EXE_covey")).args(arguments).current_dir(at), event)
}

fn start_command(command: &mut Command, event: &str) -> (Running, Vec<serde_json::Value>) {
    use std::io::BufRead;
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("covey starts");
    let lines = std::io::BufReader::new(child.stdout.take().expect("piped")).lines();
    let running = Running(child);
    let mut events: Vec<serde_json::Value> = Vec::new();
    for line in lines {
        events.push(serde_json::from_str(&line.expect("a line")).expect("JSON"));
        if events.last().is_some_and(|last| last["event"] == event) {
            return (running, events);
        }
    }
    panic!("{command:?} ended without {event:?}: {events:?}");
}

/// A blob goes from one process to another and on to a third, after the first is gone; a status port shows who is there.
#[test]
fn a_blob_goes_from_process_to_process() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let bytes: Vec<u8> = (0..1_500_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(at.join("file"), &bytes).expect("a temporary file");
    let listen = ["--listen", "/ip4/127.0.0.1/tcp/0", "--json"];
    let serve = [&["blob", "serve", "file", "--dir", "a", "--status", "127.0.0.1:0"], &listen[..]].concat();
    let (first, events) = start(at, &serve, "serving");
    let text = |value: &serde_json::Value, key: &str| value[key].as_str().expect(key).to_owned();
    let status = text(&events[0], "address");
    let (name, address) = (text(&events[1], "root"), text(&events[1], "address"));
    let get = |from: &str, to: &str, out: &str, more: &[&str]| -> Vec<String> {
        let fixed = ["blob", "get", &name, "--from", from, "--dir", to, "--out", out, "--timeout", "60"];
        [&fixed, &listen[..], more].concat().into_iter().map(str::to_owned).collect()
    };
    let arguments = get(&address, "b", "second", &["--serve-on"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (second, here) = start(at, &arguments, "fetched");
    let address = text(&here[0], "address");
    let shown = covey(at, &["peers", &status]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("blob: 1 peer connected") && shown.contains("direct"), "{shown}");
    drop(first);
    expect_refusal(at, &["peers", &status], &["no node answers", "--status"]);
    let third = get(&address, "c", "third", &[]);
    let third: Vec<&str> = third.iter().map(String::as_str).collect();
    let output = covey(at, &third);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read(at.join("third")).expect("the copy") == bytes);
    drop(second);
    // It is here: nobody is asked.
    assert_eq!(covey(at, &third).status.code(), Some(0));
    let root = name.split(':').next().expect("a root");
    expect_refusal(at, &["blob", "get", root, "--from", &address, "--dir", "d"], &["size"]);
    expect_refusal(at, &["blob", "get", &name, "--from", "/ip4/127.0.0.1/tcp/1", "--dir", "d"], &["/p2p/"]);
    expect_refusal(at, &["blob", "serve", "missing", "--dir", "d"], &["missing"]);
    let late = ["blob", "get", &name, "--from", &address, "--dir", "d", "--timeout", "1"];
    expect_refusal(at, &late, &["no peer gave", "0 are connected"]);
}

/// Sends a signal, waits for the end, gives the exit code.
fn stop(mut running: Running, signal: &str) -> Option<i32> {
    send(&running, signal);
    running.0.wait().expect("a child can be waited for").code()
}

fn send(running: &Running, signal: &str) {
    let sent = Command::new("kill").args(["-s", signal, &running.0.id().to_string()]).status();
    assert!(sent.expect("every Unix has kill").success());
}

#[test]
fn each_signal_ends_a_server_in_good_order_with_its_exit_code() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    write(at, "file", "a few words");
    let serve = ["blob", "serve", "file", "--dir", "store", "--listen", "/ip4/127.0.0.1/tcp/0", "--json"];
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let (server, _) = start(at, &serve, "serving");
        assert_eq!(stop(server, signal), Some(code), "SIG{signal}");
    }
    // As nohup starts it: nothing comes of SIGHUP.
    let mut nohup = Command::new("sh");
    nohup.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_covey")]).args(serve);
    let (server, _) = start_command(nohup.current_dir(at), "serving");
    send(&server, "HUP");
    assert_eq!(stop(server, "TERM"), Some(143));
}

/// Starts `covey devnet`; gives its first line.
fn devnet(at: &Path, more: &[&str]) -> (Running, String) {
    use std::io::BufRead;
    let mut command = Command::new(env!("CARGO_BIN_EXE_covey"));
    command.args(["devnet", "--listen", "127.0.0.1:0", "--on-demand"]).args(more).current_dir(at);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("covey starts");
    let mut lines = std::io::BufReader::new(child.stdout.take().expect("piped")).lines();
    let running = Running(child);
    (running, lines.next().expect("a line").expect("a line"))
}

#[test]
fn a_devnet_says_where_it_is_and_keeps_its_chain() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    for _ in 0..2 {
        let (running, url) = devnet(at, &["--dir", "chain"]);
        assert!(url.starts_with("ws://127.0.0.1:"), "{url}");
        let listen = url.trim_start_matches("ws://");
        expect_refusal(at, &["devnet", "--listen", listen], &[listen, "in use"]);
        expect_refusal(at, &["devnet", "--listen", "127.0.0.1:0", "--dir", "chain"], &["chain", "another devnet runs"]);
        assert_eq!(stop(running, "TERM"), Some(143));
    }
    let (running, _) = devnet(at, &["--dir", "chain"]);
    assert_eq!(stop(running, "KILL"), None);
    drop(devnet(at, &["--dir", "chain"]));
    write(at, "other.json", "{\"slot_ms\": 5}");
    expect_refusal(at, &["devnet", "--dir", "chain", "--spec", "other.json"], &["another chain", "--spec"]);
    write(at, "wrong.json", "{\"slot\": 5}");
    expect_refusal(at, &["devnet", "--spec", "wrong.json"], &["wrong.json", "slot"]);
    expect_refusal(at, &["devnet", "--block-time", "0"], &["--block-time"]);
}

#[test]
fn a_node_that_cannot_start_says_what_it_lacks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    expect_refusal(at, &["miner"], &["node.toml"]);
    expect_refusal(at, &["status", "--status", "127.0.0.1:1"], &["no node answers", "127.0.0.1:1"]);
    expect_refusal(at, &["status", "--swarm", "nowhere"], &["nowhere", "is a swarm running there?"]);
    write(at, "node.toml", "run = \"run.toml\"\nfolder = \"node\"\n");
    expect_refusal(at, &["seeder"], &["run.toml", "node.toml names it"]);
    let (_, tiny, _) = covey::preset::PRESETS.into_iter().find(|(name, ..)| *name == "tiny").expect("a preset");
    let genesis = "ab".repeat(32);
    let chain = format!("[chain]\ngenesis = \"{genesis}\"\nnetuid = 1\nstart = 8\ngenesis_state = \"{genesis}\"\n");
    let data = format!("[data]\ndigest = \"{genesis}\"\nsamples = 9\n");
    write(at, "run.toml", &format!("{tiny}{chain}{data}"));
    let config = |more: &str| {
        write(at, "node.toml", &format!("run = \"run.toml\"\nfolder = \"node\"\nstatus = \"\"\n{more}"));
    };
    config("[wallet]\npath = \"wallets\"\n");
    expect_refusal(at, &["validator"], &["wallets"]);
    config("[chain]\nendpoints = [\"ws://127.0.0.1:1\"]\n");
    expect_refusal(at, &["seeder"], &["no endpoint", "127.0.0.1:1"]);
    let (_devnet, url) = devnet(at, &[]);
    config(&format!("[chain]\nendpoints = [\"{url}\"]\n"));
    // Another chain than the run's.
    expect_refusal(at, &["seeder"], &["genesis", &url]);
    assert!(!at.join("node").exists(), "nothing is made before all is checked");
}

#[test]
fn a_swarm_that_is_told_to_stop_leaves_its_report() {
    use std::io::BufRead;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    write_text(at);
    let swarm = ["swarm", "--preset", "tiny", "--data", "text.jsonl", "--rounds", "500", "--out", "out"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_covey"));
    command.args(swarm).current_dir(at).env("COVEY_CACHE", at.join("cache")).stderr(std::process::Stdio::piped());
    let mut child = command.stdout(std::process::Stdio::null()).spawn().expect("covey starts");
    let mut lines = std::io::BufReader::new(child.stderr.take().expect("piped")).lines();
    let running = Running(child);
    let first = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("round ")));
    assert!(first.is_some(), "the swarm ended before its first round");
    // Whatever else it says must have a reader.
    let rest = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
    watch(at);
    let code = stop(running, "TERM");
    assert_eq!(code, Some(143), "{:?}", rest.join());
    assert!(at.join("out/report.html").is_file());
    let summary = std::fs::read(at.join("out/summary.json")).expect("a summary");
    let summary: serde_json::Value = serde_json::from_slice(&summary).expect("JSON");
    assert_eq!(summary["interrupted"], true);
}

/// A stranger without data or model sees what the swarm in `out` does.
fn watch(at: &Path) {
    let output = covey(at, &["watch", "--config", "out/nodes/miner-1/node.toml", "--rounds", "3", "--json"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |event: &'static str| lines.iter().filter(move |line| line["event"] == event);
    assert_eq!(of("decided").count(), 3, "{said}");
    assert!(of("announced").count() > 0, "{said}");
    // Two of its three rounds were followed from their beginning.
    assert!(of("applied").any(|line| line["as_decided"] == true), "{said}");
}

/// In, listed, checked, out, pinned, removed; then its disk is damaged.
#[test]
fn files_go_into_a_blob_store_and_come_out_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let run = |arguments: &[&str], code: i32| {
        let output = covey(at, arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "covey {arguments:?} said:\n{said}{errors}");
        assert!(!errors.contains("panicked"), "{errors}");
        said
    };
    let large: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(at.join("large"), &large).expect("a temporary file");
    write(at, "small", "a few words");
    let added = run(&["blob", "add", "large", "small", "--dir", "store", "--pin", "mine"], 0);
    let names: Vec<&str> = added.lines().filter_map(|line| line.split(' ').next()).collect();
    let [large_name, small_name] = names[..] else { panic!("{added}") };
    assert!(large_name.ends_with(":12000000") && added.contains("small"), "{added}");

    let listed = run(&["blob", "ls", "--dir", "store"], 0);
    assert!(listed.contains(large_name) && listed.contains("12.0 MB") && listed.contains("pinned by mine"), "{listed}");
    assert!(listed.contains("2 blobs"), "{listed}");
    assert!(run(&["blob", "verify", "--dir", "store"], 0).contains("0 of 2 damaged"));
    run(&["blob", "get", large_name, "--out", "copy", "--dir", "store"], 0);
    assert!(std::fs::read(at.join("copy")).expect("the copy") == large);

    let root = large_name.split(':').next().expect("a root");
    expect_refusal(at, &["blob", "get", &format!("{root}:5"), "--out", "c", "--dir", "store"], &["12000000", "5"]);
    expect_refusal(at, &["blob", "get", &"ab".repeat(32), "--out", "c", "--dir", "store"], &["abab", "blob ls"]);
    expect_refusal(at, &["blob", "ls", "--dir", "nowhere"], &["nowhere", "no blob store"]);
    assert!(!at.join("nowhere").exists());
    expect_refusal(at, &["blob", "add", "missing", "--dir", "store"], &["missing"]);
    expect_refusal(at, &["blob", "rm", root, "--dir", "store"], &["mine", "unpin"]);
    run(&["blob", "gc", "--dir", "store"], 2);
    assert!(run(&["blob", "gc", "--quota", "1kB", "--dir", "store"], 0).contains("pins hold more"));

    let file = at.join("store").join("blobs").join(&root[..2]).join(root);
    let mut bytes = std::fs::read(&file).expect("the blob's file");
    bytes[7_000_000] ^= 1;
    std::fs::write(&file, bytes).expect("the blob's file");
    let found = run(&["blob", "verify", large_name, "--dir", "store"], 3);
    assert!(found.contains("pieces 6;") && found.contains("1 of 1 damaged"), "{found}");
    assert!(run(&["blob", "ls", "--dir", "store"], 0).contains("11 of 12 pieces"));
    expect_refusal(at, &["blob", "get", root, "--out", "c", "--dir", "store"], &["11 of 12"]);
    run(&["blob", "get", small_name, "--out", "words", "--dir", "store"], 0);
    // What was damaged can be added again, and removed once nothing pins it.
    run(&["blob", "add", "large", "--dir", "store"], 0);
    expect_refusal(at, &["blob", "unpin", "yours", "--dir", "store"], &["yours", "pins nothing"]);
    run(&["blob", "unpin", "mine", "--dir", "store"], 0);
    run(&["blob", "rm", small_name, "--dir", "store"], 0);
    assert!(run(&["blob", "ls", "--dir", "store"], 0).contains("1 blob,"));
    run(&["blob", "get", root, "--out", "copy", "--dir", "store"], 0);
}
