//! An audit finds what was changed after the fact, and says where.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use covey::audit::AuditError;
use covey::peer::disk::Disk;
use covey_gossip::store::{Durability, Store};
use covey_proto::Round;
use covey_proto::blob::{BlobRef, Header, StateManifest};
use covey_proto::run::Run;
use covey_round::engine::Tip;
use covey_tests::{Finished, Rig};
use std::fs;

fn small() -> Finished {
    Rig::seeded(11).rounds(3).run()
}

/// Gives every node a header for the last round that claims another state, as if all had agreed on it.
fn forge_last_state(swarm: &Finished) -> (Round, usize) {
    let run = Run::from_toml(&fs::read_to_string(swarm.folder.run()).unwrap()).unwrap();
    let (elements, cut) = (run.layout().elements(), run.compress.state_elements as usize);
    let mut forged = None;
    for entry in fs::read_dir(swarm.folder.node("")).unwrap() {
        let path = entry.unwrap().path();
        let (disk, store) = (Disk::at(&path), Store::open(&path, u64::MAX).unwrap());
        let state = disk.newest_state(elements).unwrap().unwrap();
        let header = Header::from_bytes(&store.get(&state.tip.head).unwrap().unwrap()).unwrap();
        let bytes = store.get(&header.state).unwrap().unwrap();
        let mut manifest = StateManifest::from_bytes(&bytes, elements, cut).unwrap();
        manifest.shards[1] = BlobRef { root: covey_proto::Digest::of(b"another"), ..manifest.shards[1] };
        let header = Header { state: manifest.root(), ..header };
        store.put_batch(&[header.to_bytes(), manifest.to_bytes()], Durability::Buffered).unwrap();
        let tip = Tip { round: Some(header.round), head: header.digest() };
        disk.write_state(&tip, header.state, &state.parameters).unwrap();
        forged = Some((header.round, 1));
    }
    forged.unwrap()
}

#[test]
fn a_forged_state_is_named_by_round_shard_and_tensor() {
    let swarm = small();
    let (round, shard) = forge_last_state(&swarm);
    let error = swarm.audit().unwrap_err();
    assert!(matches!(error, AuditError::Differs(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("round {round} differs")), "{text}");
    assert!(text.contains(&format!("shard that differs is {shard}, of ")), "{text}");
    assert!(text.contains(".weight"), "{text}");
}

#[test]
fn a_changed_block_is_named_by_its_line() {
    let swarm = small();
    let text = fs::read_to_string(swarm.folder.ledger()).unwrap();
    let line = text.lines().position(|line| line.contains("calls")).unwrap();
    let changed: Vec<String> = text
        .lines()
        .enumerate()
        .map(
            |(number, text)| {
                if number == line { text.replacen("\"calls\":[\"0a20", "\"calls\":[\"0a21", 1) } else { text.into() }
            },
        )
        .collect();
    fs::write(swarm.folder.ledger(), changed.join("\n") + "\n").unwrap();
    let error = swarm.audit().unwrap_err().to_string();
    assert!(error.contains(&format!("line {}", line + 1)), "{error}");
}

#[test]
fn a_contribution_that_is_gone_is_named() {
    let swarm = small();
    for entry in fs::read_dir(swarm.folder.node("")).unwrap() {
        let blobs = entry.unwrap().path().join("blobs");
        fs::remove_dir_all(&blobs).unwrap();
        fs::create_dir(&blobs).unwrap();
    }
    let error = swarm.audit().unwrap_err();
    assert!(matches!(error, AuditError::Missing { .. }), "{error}");
}
