//! A node that shares no code with ours, written from docs/protocol.md in another language, takes part: it hears an
//! announcement from a real node, holds it against the chain, and fetches what it names.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use covey_gossip::store::{Durability, Store};
use covey_gossip::{Config, Events, Handle, PublishError, start};
use covey_proto::blob::{BlobRef, Manifest};
use covey_proto::message::Announcement;
use covey_proto::record::{Contribution, Record};
use covey_proto::{Digest, HotkeyPair, Round, RunId, Uid};
use covey_tests::foreign::{NodeEnv, node_env};
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;

const INLINE_MAX: u32 = 4096;
const ROUND: Round = Round(300);
const AUTHOR: u8 = 200;
const REGISTERED_AT: u32 = 77;
/// For everything that is awaited: far more than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A real node that has a contribution of three shards, of which only the middle one is small enough to come along.
struct Origin {
    handle: Handle,
    _events: Events,
    _folder: TempDir,
    manifest: Manifest,
    announcement: Vec<u8>,
}

fn run_id() -> RunId {
    RunId(Digest::of(b"a run with a foreigner"))
}

fn author() -> HotkeyPair {
    HotkeyPair::from_seed([9; 32])
}

fn bytes(seed: u8, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    covey_proto::derive("covey test bytes", &[&[seed]]).fill(&mut bytes);
    bytes
}

async fn origin() -> Origin {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("blobs"), 1 << 30).unwrap();
    let shards = [bytes(1, 70_000), bytes(2, 1_000), bytes(3, 300_001)];
    for shard in &shards {
        store.put(shard, Durability::Buffered).unwrap();
    }
    let manifest = Manifest {
        run: run_id(),
        round: ROUND,
        uid: Uid::from(AUTHOR),
        hotkey: author().hotkey(),
        registered_at: REGISTERED_AT,
        base: Digest::of(b"a head"),
        samples: 640,
        codec: 1,
        shards: shards.iter().map(|shard| BlobRef::of(shard)).collect(),
    };
    store.put(&manifest.to_bytes(), Durability::Buffered).unwrap();
    let inline = shards.iter().filter(|shard| shard.len() <= INLINE_MAX as usize).cloned().collect();
    let announcement = Announcement { manifest: manifest.clone(), inline }.to_bytes();
    let mut config = Config::new(folder.path(), Digest::of(b"a chain"), 3, run_id());
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".into()];
    config.heartbeat = Duration::from_millis(200);
    let (handle, events) = start(config, store).await.unwrap();
    handle.remember(ROUND, Uid::from(AUTHOR), announcement.clone());
    Origin { handle, _events: events, _folder: folder, manifest, announcement }
}

impl Origin {
    /// What the author's slot holds at C.
    fn record(&self, digest: Digest) -> Vec<u8> {
        let contribution = Some(Contribution { round: ROUND, manifest: digest });
        Record { run: run_id().0.prefix(), contribution, vote: None }.to_bytes()
    }

    /// Runs the foreign node against this one, with that in the author's slot, while this one announces; what it says,
    /// and whether it was content.
    async fn meets_a_foreigner(&self, env: &NodeEnv, slot: &[u8], announcement: &[u8]) -> (bool, Value) {
        let mut command = env.command("node.js");
        command.args(["--address", &self.handle.addresses()[0], "--run", &run_id().to_string()]);
        command.args(["--round", &ROUND.0.to_string(), "--inline-max", &INLINE_MAX.to_string()]);
        command.args(["--uid", &AUTHOR.to_string(), "--hotkey", &hex::encode(author().hotkey().as_bytes())]);
        command.args(["--registered-at", &REGISTERED_AT.to_string(), "--slot", &hex::encode(slot)]);
        let foreigner = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It gives up by itself.
        let mut gone = tokio::task::spawn_blocking(|| foreigner.wait_with_output());
        let output = tokio::select! {
            output = &mut gone => output,
            () = self.announce(announcement) => gone.await,
        };
        let output = output.unwrap().unwrap();
        let (said, faults) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let line = serde_json::from_str(said.trim()).unwrap_or_else(|_| panic!("no line of JSON: {said}{faults}"));
        (output.status.success(), line)
    }

    /// Announces as soon as somebody listens.
    async fn announce(&self, announcement: &[u8]) {
        let attempts = async {
            while let Err(error) = self.handle.publish(announcement.to_vec()).await {
                assert_eq!(error, PublishError::NoPeers);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, attempts).await.expect("somebody listens in the end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_node_checks_an_announcement_against_the_chain_and_fetches_its_shards() {
    let Some(env) = node_env() else { return };
    let origin = origin().await;
    let slot = origin.record(origin.manifest.digest());
    let (content, said) = origin.meets_a_foreigner(&env, &slot, &origin.announcement).await;
    assert!(content, "{said}");
    let [first, _, last] = &origin.manifest.shards[..] else { panic!("three shards") };
    assert_eq!(said["manifest"], origin.manifest.digest().to_string());
    assert_eq!((said["uid"].as_u64(), said["round"].as_u64()), (Some(AUTHOR.into()), Some(ROUND.0.into())));
    assert_eq!(said["inline"], 1);
    assert_eq!(said["fetched"], serde_json::json!([first.root.to_string(), last.root.to_string()]));
    assert_eq!((&said["kept"], &said["absent"]), (&true.into(), &"nothing".into()));
    assert_eq!(said["protocolVersion"], "/covey/1");
    // Neither side found anything to blame the other for.
    assert_eq!(origin.handle.traffic().bans, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_node_refuses_what_was_not_committed() {
    let Some(env) = node_env() else { return };
    let origin = origin().await;
    let slot = origin.record(Digest::of(b"something else"));
    let (content, said) = origin.meets_a_foreigner(&env, &slot, &origin.announcement).await;
    assert!(!content && said["refused"] == true && said["why"].as_str().unwrap().contains("committed"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_node_refuses_a_shard_that_is_not_the_manifests() {
    let Some(env) = node_env() else { return };
    let origin = origin().await;
    // The inline shard is what an announcement ends with.
    let mut forged = origin.announcement.clone();
    *forged.last_mut().unwrap() ^= 1;
    let slot = origin.record(origin.manifest.digest());
    let (content, said) = origin.meets_a_foreigner(&env, &slot, &forged).await;
    assert!(!content && said["refused"] == true && said["why"].as_str().unwrap().contains("inline shard"), "{said}");
}
