//! From nothing to a registered hotkey, as an operator goes there: a wallet, a run, a node.toml, a uid, on a devnet.

use super::{covey, expect_refusal, write, write_text};
use covey::wallet::{Unlock, Wallet};
use covey_devnet::pallets::subtensor::types::{GenesisMember, GenesisSubnet};
use covey_devnet::{AccountId32, Blocks, ChainSpec, Config, Devnet, Handle};
use covey_proto::{ColdkeyPair, HotkeyPair};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const NETUID: u16 = 7;
/// The coldkey that has TAO, and the secret that it is imported from.
const SEED: [u8; 32] = [42; 32];
const FUNDS: u64 = 1_000_000_000_000;

fn account(bytes: &[u8; 32]) -> AccountId32 {
    AccountId32::new(*bytes)
}

/// A devnet with one subnet and a block each 50 ms.
async fn devnet() -> Handle {
    let founder = GenesisMember {
        hotkey: account(HotkeyPair::from_seed([1; 32]).hotkey().as_bytes()),
        coldkey: account(ColdkeyPair::from_seed([2; 32]).coldkey().as_bytes()),
        stake: FUNDS,
    };
    let chain = ChainSpec {
        accounts: vec![(account(ColdkeyPair::from_seed(SEED).coldkey().as_bytes()), FUNDS)],
        subnets: vec![GenesisSubnet { netuid: NETUID, members: vec![founder], ..GenesisSubnet::default() }],
        ..ChainSpec::default()
    };
    let blocks = Blocks::Every(Duration::from_millis(50));
    Devnet::start(Config { chain, blocks, ..Config::default() }).await.expect("a devnet starts")
}

/// It succeeds; what it printed.
fn done(folder: &Path, arguments: &[&str]) -> String {
    let output = covey(folder, arguments);
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "covey {arguments:?} said:\n{said}{error}");
    said.into_owned()
}

/// With `line` on standard input.
fn told(folder: &Path, arguments: &[&str], line: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_covey"));
    command.args(arguments).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    child.stdin.take().expect("a pipe").write_all(line.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "covey {arguments:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_comes_from_nothing_to_a_uid() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let devnet = devnet().await;
    let (url, netuid) = (devnet.url(), NETUID.to_string());
    write_text(at);
    done(at, &["data", "prepare", "--data", "text.jsonl", "--vocabulary", "512", "--out", "data"]);
    let new =
        ["run", "new", "--preset", "tiny", "--chain", &url, "--netuid", &netuid, "--start", "100", "--data", "data"];
    let made = done(at, &new);
    let shown = done(at, &["run", "show"]);
    let id = shown.lines().next().and_then(|line| line.split_whitespace().last()).expect("an id");
    assert!(id.len() == 64 && made.contains(id), "{made}{shown}");
    let found = done(at, &["run", "check", "--data", "data", "--chain", &url]);
    assert!(found.contains(id) && !found.contains("NOT "), "{found}");
    expect_refusal(at, &new, &["run.toml is there already"]);

    let seed = format!("0x{}\n", hex::encode(SEED));
    told(at, &["wallet", "import", "coldkey", "--path", "wallets", "--no-password"], &seed);
    done(at, &["wallet", "new", "--path", "wallets", "--hotkey-only"]);
    let init = ["init", "--path", "wallets", "--chain", &url, "--data", "data"];
    let initialised = done(at, &init);
    assert!(initialised.contains(id) && initialised.contains("covey register"), "{initialised}");
    expect_refusal(at, &init, &["node.toml is there already", "--force"]);

    expect_refusal(at, &["register"], &["--yes"]);
    expect_refusal(at, &["register", "--yes", "--limit", "0.000000001"], &["--limit"]);
    let registered = done(at, &["register", "--yes"]);
    assert!(registered.contains("registered: uid 1 on subnet 7"), "{registered}");
    let again = done(at, &["register"]);
    assert!(again.contains("uid 1") && !again.contains("price"), "{again}");
    let wallet = Wallet::open(&at.join("wallets"), "default").expect("a wallet");
    let hotkey = wallet.hotkey("default", &Unlock::Environment).expect("a plain hotkey").hotkey();
    assert!(again.contains(&hotkey.to_string()), "{again}");
    devnet.stop().await;
}

#[test]
fn a_run_that_is_not_the_data_s_is_found_out() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    write_text(at);
    for (name, vocabulary) in [("data", "512"), ("other", "600")] {
        done(at, &["data", "prepare", "--data", "text.jsonl", "--vocabulary", vocabulary, "--out", name]);
    }
    let genesis = "ab".repeat(32);
    let new =
        ["run", "new", "--preset", "tiny", "--genesis", &genesis, "--netuid", "3", "--start", "9", "--data", "data"];
    done(at, &new);
    let output = covey(at, &["run", "check", "--data", "other"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("NOT  data") && said.contains("ok   genesis state"), "{said}");
    let text = std::fs::read_to_string(at.join("run.toml")).expect("a run");
    write(at, "later.toml", &text.replace("start = 9", "start = 10"));
    let id = |file: &str| done(at, &["run", "show", file]).lines().next().map(str::to_owned);
    assert_ne!(id("run.toml"), id("later.toml"), "one number makes another run");
    write(at, "wrong.toml", &text.replace("start = 9", "start = 0"));
    expect_refusal(at, &["run", "show", "wrong.toml"], &["wrong.toml", "chain.start"]);
    expect_refusal(at, &["run", "check", "none.toml"], &["none.toml"]);
}

#[test]
fn keys_are_never_lost_or_shown_by_mistake() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let new = ["wallet", "new", "--path", "w", "--wallet", "alice"];
    expect_refusal(at, &new, &["BT_PW_W_ALICE_COLDKEY", "terminal"]);
    assert!(!at.join("w").exists(), "nothing was made");
    let made = done(at, &[&new[..], &["--no-password"]].concat());
    let secret = std::fs::read_to_string(at.join("w/alice/coldkey")).expect("a coldkey");
    let fields: serde_json::Value = serde_json::from_str(&secret).expect("JSON");
    let phrase = fields["secretPhrase"].as_str().expect("a phrase");
    assert!(!made.contains(phrase), "standard output is no terminal");
    expect_refusal(at, &[&new[..], &["--no-password"]].concat(), &["is there already", "--force", "--hotkey-only"]);
    assert_eq!(std::fs::read_to_string(at.join("w/alice/coldkey")).expect("a coldkey"), secret);
    let again =
        told(at, &["wallet", "import", "hotkey", "--path", "w", "--wallet", "alice", "--hotkey", "same"], phrase);
    assert!(again.contains(fields["ss58Address"].as_str().expect("an address")), "{again}");
    let listed = done(at, &["wallet", "list", "--path", "w"]);
    assert!(listed.contains("alice") && listed.contains("same") && !listed.contains(phrase), "{listed}");
    // The node would sign with a key that anybody has.
    let hotkey = at.join("w/alice/hotkeys/default");
    std::fs::set_permissions(&hotkey, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    assert!(done(at, &["wallet", "list", "--path", "w"]).contains("chmod 600"));
}
