//! A devnet in a process of its own is killed without notice, and goes on from where it was.

#![allow(clippy::unwrap_used)] // Tests stop where something is not as they say.

mod common;

use common::*;
use covey_devnet::{Config, Devnet};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Where the child, which is this test's own program, finds its folder.
const FOLDER: &str = "COVEY_DEVNET_FOLDER";

/// Not a test of itself: the process that is killed.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(FOLDER) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = Config { dir: Some(dir.into()), chain: spec(), ..Config::default() };
        let devnet = Devnet::start(config).await.unwrap();
        println!("\nserving {}", devnet.url());
        std::future::pending::<()>().await;
    });
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(dir: &Path) -> (Killed, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(FOLDER, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = lines.map_while(Result::ok).find_map(|line| Some(line.strip_prefix("serving ")?.to_owned()));
    (Killed(child), url.expect("the child serves"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_devnet_has_the_same_head_and_state_again() {
    let dir = tempfile::tempdir().unwrap();
    let (child, url) = start(dir.path());
    let client = connect(&url).await;
    ask(&client, "covey_makeBlock", json!([70])).await;
    ask(&client, "covey_faultReorganise", json!([2])).await;
    let last = ask(&client, "covey_makeBlock", json!([])).await;
    let number = hexed(frame_support::storage::storage_prefix(b"System", b"Number"));
    let heads = ask(&client, "covey_heads", json!([])).await;
    let genesis = ask(&client, "chain_getBlockHash", json!([0])).await;
    drop(child);
    let (_child, url) = start(dir.path());
    let client = connect(&url).await;
    assert_eq!(ask(&client, "covey_heads", json!([])).await, heads);
    assert_eq!(ask(&client, "chain_getBlockHash", json!([0])).await, genesis);
    let at = ask(&client, "state_getStorage", json!([number, last["hash"]])).await;
    assert_eq!(at, hexed(72_u32.to_le_bytes()));
    let next = ask(&client, "covey_makeBlock", json!([])).await;
    assert_eq!(next["number"], 73);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_its_own_chain() {
    let dir = tempfile::tempdir().unwrap();
    let config = |slot_ms| Config {
        dir: Some(dir.path().to_owned()),
        chain: covey_devnet::ChainSpec { slot_ms, ..spec() },
        ..Config::default()
    };
    Devnet::start(config(500)).await.unwrap().stop().await;
    let error = Devnet::start(config(501)).await.err().unwrap().to_string();
    assert!(error.contains("other settings"), "{error}");
}
