//! An audit finds what was changed after the fact, and says where.

use crate::rig::{Finished, Rig};
use covey::audit::AuditError;
use covey::disk::folder::Folder;
use covey::disk::{Disk, SavedState};
use covey_gossip::store::{Durability, Store};
use covey_proto::Round;
use covey_proto::blob::{BlobRef, Header, StateManifest};
use covey_proto::run::Run;
use covey_round::engine::Tip;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::fs;
use std::sync::OnceLock;

/// A swarm of three rounds, of which each test has a copy to spoil.
fn small() -> Finished {
    static ONE: OnceLock<Finished> = OnceLock::new();
    ONE.get_or_init(|| Rig::seeded(11).rounds(3).run()).copy()
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

const BLOCKS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("blocks");
const CANON: TableDefinition<'_, u32, [u8; 32]> = TableDefinition::new("canon");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// The chain's file, for somebody else's hand.
fn chain(folder: &Folder) -> Database {
    Database::open(folder.chain().join("chain.redb")).unwrap()
}

/// The block that has the longest body: there are calls in it.
fn fullest(database: &Database) -> (u32, [u8; 32], Vec<u8>) {
    let read = database.begin_read().unwrap();
    let (canon, blocks) = (read.open_table(CANON).unwrap(), read.open_table(BLOCKS).unwrap());
    let block = |entry: Result<(redb::AccessGuard<'_, u32>, redb::AccessGuard<'_, [u8; 32]>), _>| {
        let (number, hash) = entry.unwrap();
        (number.value(), hash.value(), blocks.get(hash.value()).unwrap().unwrap().value().to_vec())
    };
    canon.iter().unwrap().map(block).max_by_key(|(_, _, bytes)| bytes.len()).unwrap()
}

#[test]
fn a_changed_block_is_named_by_its_number() {
    let swarm = small();
    let database = chain(&swarm.folder);
    let (number, hash, mut bytes) = fullest(&database);
    // The last byte of a commitment, or of a signed call.
    *bytes.last_mut().unwrap() ^= 1;
    let write = database.begin_write().unwrap();
    write.open_table(BLOCKS).unwrap().insert(hash, &bytes[..]).unwrap();
    write.commit().unwrap();
    drop(database);
    let error = swarm.audit().unwrap_err();
    assert!(matches!(error, AuditError::Replay(_)), "{error}");
    assert!(error.to_string().contains(&format!("block {number}")), "{error}");
}

/// A node's folder, and what it has saved last.
fn newest(swarm: &Finished, node: &str) -> (Disk, SavedState) {
    let run = Run::from_toml(&fs::read_to_string(swarm.folder.run()).unwrap()).unwrap();
    let disk = Disk::at(swarm.folder.node(node));
    let state = disk.newest_state(run.layout().elements()).unwrap().unwrap();
    (disk, state)
}

#[test]
fn a_chain_that_ends_before_its_swarm_is_no_proof() {
    let swarm = small();
    swarm.audit().unwrap();
    let database = chain(&swarm.folder);
    let newest = database.begin_read().unwrap().open_table(CANON).unwrap().last().unwrap().unwrap().0.value();
    drop(database);
    for kept in [newest / 2, 0] {
        let database = chain(&swarm.folder);
        let write = database.begin_write().unwrap();
        write.open_table(CANON).unwrap().retain_in(kept + 1.., |_, _| false).unwrap();
        write.open_table(META).unwrap().insert("final", &kept.to_le_bytes()[..]).unwrap();
        write.commit().unwrap();
        drop(database);
        let error = swarm.audit().unwrap_err();
        let AuditError::CutOff { computed, claimed, .. } = &error else { panic!("{kept} blocks: {error}") };
        assert!(*claimed == Round(2) && *computed < Some(*claimed), "{kept} blocks: {error}");
        assert!(error.to_string().contains("state after round 2: the chain is cut off"), "{error}");
    }
}

#[test]
fn another_chain_is_no_proof() {
    let swarm = small();
    let text = fs::read_to_string(swarm.folder.run()).unwrap();
    let genesis = Run::from_toml(&text).unwrap().chain.genesis.to_string();
    fs::write(swarm.folder.run(), text.replace(&genesis, &"ab".repeat(32))).unwrap();
    let error = swarm.audit().unwrap_err();
    assert!(matches!(error, AuditError::OtherChain { .. }), "{error}");
}

#[test]
fn a_folder_without_a_chain_is_refused_and_left_as_it_is() {
    let swarm = small();
    fs::remove_dir_all(swarm.folder.chain()).unwrap();
    let error = swarm.audit().unwrap_err();
    assert!(matches!(error, AuditError::Chain(_)), "{error}");
    assert!(!swarm.folder.chain().exists(), "an audit makes nothing");
}

#[test]
fn one_node_with_another_head_is_named_whichever_it_is() {
    let swarm = small();
    for node in swarm.folder.nodes().unwrap() {
        let node = node.file_name().unwrap().to_str().unwrap();
        let (disk, state) = newest(&swarm, node);
        let forged = Tip { head: covey_proto::Digest::of(b"another"), ..state.tip };
        disk.write_state(&forged, state.root, &state.parameters).unwrap();
        let error = swarm.audit().unwrap_err().to_string();
        assert!(error.contains("round 2 differs") && error.contains(&format!("{node} has a state after")), "{error}");
        let early = Tip { round: Some(Round(9)), ..forged };
        disk.write_state(&early, state.root, &state.parameters).unwrap();
        let error = swarm.audit().unwrap_err();
        assert!(matches!(&error, AuditError::CutOff { claimed: Round(9), node: n, .. } if n == node), "{error}");
        fs::remove_file(disk.root().join("state-9.bin")).unwrap();
        disk.write_state(&state.tip, state.root, &state.parameters).unwrap();
    }
    swarm.audit().unwrap();
}

#[test]
fn a_state_that_does_not_have_its_root_is_named() {
    let swarm = small();
    let (disk, mut state) = newest(&swarm, "miner-0");
    state.parameters[0] += 1.0;
    disk.write_state(&state.tip, state.root, &state.parameters).unwrap();
    let error = swarm.audit().unwrap_err().to_string();
    assert!(error.contains("round 2 differs") && error.contains("miner-0 has saved"), "{error}");
}

#[test]
fn a_swarm_that_runs_is_left_alone() {
    let swarm = small();
    let node = swarm.folder.node("miner-0");
    let part = node.join("journal.json.part");
    fs::write(&part, b"half").unwrap();
    let store = Store::open(&node, u64::MAX).unwrap();
    let error = swarm.audit().unwrap_err();
    assert!(matches!(error, AuditError::Running(_)), "{error}");
    drop(store);
    swarm.audit().unwrap();
    assert!(part.exists(), "an audit removes nothing");
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
