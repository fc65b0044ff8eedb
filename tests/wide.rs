//! `covey blob` over an emulated wide-area network: what it moves arrives whole, whatever the lines and kills do, and how
//! many bytes that takes. Times are printed, not judged; they mean something with real sizes on a quiet machine:
//!
//! ```text
//! COVEY_WAN_MB=500 COVEY_WAN_SLOWER=4 cargo test --release -p covey --test wide -- --nocapture --test-threads=1
//! ```

#![cfg(target_os = "linux")]

use covey_wan::scene::{self, Exchange, Heard, Outcome, Place, Scene, SceneError};
use covey_wan::{Wan, WanError};
use std::path::Path;
use std::process::Command;

const SEED: u64 = 3;

/// Covey itself, by its command line.
struct Covey;

impl Covey {
    fn blob(at: &Place, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_covey"));
        command.args(["blob", verb, "--json", "--congestion", at.congestion]);
        // What the line carries, less a little: BBR alone overfills the queue of a line that many connections share.
        if let Ok(mbit) = std::env::var("COVEY_WAN_UPLOAD") {
            command.args(["--upload", &mbit]);
        }
        command.args(["--listen", &format!("/ip4/{}/tcp/4001", at.address)]).arg("--dir").arg(at.folder.join("store"));
        command
    }
}

impl Exchange for Covey {
    fn serve(&self, at: &Place, file: &Path) -> Command {
        let mut command = Covey::blob(at, "serve");
        command.arg(file);
        command
    }

    fn fetch(&self, at: &Place, root: &str, from: &[String], file: &Path) -> Command {
        let mut command = Covey::blob(at, "get");
        command.arg("--serve-on").arg("--out").arg(file);
        for address in from {
            command.args(["--from", address]);
        }
        command.arg(root);
        command
    }

    fn heard(&self, line: &str) -> Heard {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        match line["event"].as_str() {
            Some("serving") => Heard::Serving { address: text("address"), root: text("root") },
            Some("fetched") => {
                println!("fetched {} bytes in {} s, {} twice", line["bytes"], line["seconds"], line["duplicate"]);
                Heard::Fetched
            }
            _ => Heard::Nothing,
        }
    }
}

/// 8 MB, or what the environment says.
fn bytes() -> u64 {
    let mb = std::env::var("COVEY_WAN_MB").ok().and_then(|mb| mb.parse::<u64>().ok());
    mb.unwrap_or(8) * 1_000_000
}

/// 1, or what the environment says: by how much lines are slower.
fn slower() -> u64 {
    std::env::var("COVEY_WAN_SLOWER").ok().and_then(|divisor| divisor.parse().ok()).unwrap_or(1)
}

/// Plays a scene with Covey; nothing where there can be no network, which is said.
fn play(name: &str, scene: Scene) -> Option<Outcome> {
    let scene = &scene.slower(slower());
    // Says why it is skipped, or fails where it must not be.
    drop(Wan::build_or_skip(&[scene.line], SEED)?);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let outcome = match scene::play(scene, &Covey, folder.path()) {
        Ok(outcome) => outcome,
        Err(SceneError::Wan(WanError::Unavailable { why })) => {
            println!("skipped: {why}");
            return None;
        }
        Err(error) => panic!("seed {SEED}, {name}: {error}"),
    };
    println!(
        "{name}: {:.2} s, {:.3} × the least possible; at most {:.2} % more bytes than the blob's; {:?}",
        outcome.took.iter().max().copied().unwrap_or_default().as_secs_f64(),
        outcome.ratio(),
        outcome.overhead_max() * 100.0,
        outcome.timeliness
    );
    Some(outcome)
}

/// How much more than the blob may come: of a large one so much, duplicates and what TCP sent twice included. A small one
/// is at its end before lines are known, its end game is all there is of it, and on a busy machine TCP takes late packets
/// for lost ones.
fn extra_max(outcome: &Outcome, of_large: f64) -> f64 {
    if outcome.bytes >= 100_000_000 { of_large } else { 0.6 }
}

#[test]
fn one_to_one_takes_little_more_than_the_blob() {
    let Some(outcome) = play("one to one", Scene::one_to_one(bytes(), SEED)) else { return };
    assert!(outcome.overhead_max() < extra_max(&outcome, 0.02), "seed {SEED}: {outcome:?}");
}

#[test]
fn eight_fetchers_serve_each_other() {
    let Some(outcome) = play("one to eight", Scene::one_to_eight(bytes(), SEED)) else { return };
    assert!(outcome.overhead_max() < extra_max(&outcome, 0.05), "seed {SEED}: {outcome:?}");
    // Alone, the source would send the blob eight times; a small blob is at its end before its pieces are spread.
    let sent = outcome.traffic[0].up.bytes as f64 / outcome.bytes as f64;
    assert!(sent < 6.0, "seed {SEED}: the source sent the blob {sent:.1} times: {outcome:?}");
}

#[test]
fn a_kill_half_way_costs_what_was_in_flight() {
    let Some(outcome) = play("killed half-way", Scene::killed_half_way(bytes(), SEED)) else { return };
    // What an answer that was cut off had brought, at most all that was outstanding: 32 MiB, or 2 % of a large blob.
    let most = if outcome.bytes >= 500_000_000 { 0.04 } else { 0.75 };
    assert!(outcome.overhead_max() < most, "seed {SEED}: {outcome:?}");
}

#[test]
fn without_bbr_many_sources_still_bring_it_whole() {
    let Some(outcome) = play("one to eight without BBR", Scene::without_bbr(bytes(), SEED)) else { return };
    assert!(outcome.overhead_max() < extra_max(&outcome, 0.05), "seed {SEED}: {outcome:?}");
}
