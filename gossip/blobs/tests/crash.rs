//! What a kill, a lost index, an old layout, a full disk or a folder moved away may cost.

#![allow(clippy::unwrap_used, reason = "tests")]

mod rig;

use covey_blobs::{Durability, ReceiveError, Store, StoreError};
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use rig::{GROUP, PIECE, answer, bytes, damage, feed, path, send, send_all, store};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Blobs that the killed process fetches.
const FETCHED: u64 = 3;
const FETCHED_BYTES: u64 = 20 * PIECE + 5;

/// How often it is killed.
const ROUNDS: usize = 8;

/// Random numbers from a seed that is printed.
struct Dice(blake3::OutputReader);

impl Dice {
    fn new() -> Dice {
        let given = std::env::var("COVEY_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| {
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
        });
        println!("COVEY_SEED={seed} throws these dice again");
        Dice(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }

    fn below(&mut self, limit: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % limit
    }
}

/// Not a test of its own: what the killed process does. It says what it did once that is acknowledged.
#[test]
fn the_process_that_is_killed() {
    let Ok(dir) = std::env::var("COVEY_CRASH") else { return };
    let dir = Path::new(&dir);
    let source = Store::open(dir.join("source"), 1 << 30).unwrap();
    let store = Store::open(dir.join("store"), 1 << 30).unwrap();
    let say = |what: String| {
        let mut out = std::io::stdout().lock();
        out.write_all(what.as_bytes()).and_then(|()| out.flush()).unwrap();
    };
    say("ready\n".into());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0u64.. {
                let blob =
                    store.put(&bytes(200 + n % 3 * PIECE, u64::from(std::process::id()) << 20 | n), Durability::Synced);
                let root = blob.unwrap().root;
                say(format!("put {root}\n"));
                if n % 4 == 3 {
                    store.pin(&format!("tag-{}", n % 3), &[root]).unwrap();
                    say(format!("pin tag-{}\n", n % 3));
                }
            }
        });
        for n in 0..FETCHED {
            let (source, store) = (&source, &store);
            scope.spawn(move || {
                let blob = BlobRef::of(&bytes(FETCHED_BYTES, n));
                loop {
                    let partial = store.begin(blob).unwrap();
                    say(format!("begun {n}\n"));
                    let held = partial.held();
                    for piece in (0..held.count()).filter(|piece| !held.contains(*piece)) {
                        send(source, &partial, piece);
                        say(format!("piece {n} {piece}\n"));
                    }
                    say(format!("whole {n}\n"));
                    drop(partial);
                    store.remove(&blob.root).unwrap();
                    say(format!("removed {n}\n"));
                }
            });
        }
    });
}

/// What the killed process said.
struct Said {
    puts: Vec<Digest>,
    tags: BTreeSet<String>,
    /// The good pieces of each blob that is fetched; none once it is whole, when it may be removed or not.
    pieces: Vec<Option<BTreeSet<u32>>>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u32>().unwrap();
        match words[0] {
            "put" => self.puts.push(words[1].parse().unwrap()),
            "pin" => drop(self.tags.insert(words[1].to_owned())),
            "piece" => drop(self.pieces[number(1) as usize].as_mut().map(|pieces| pieces.insert(number(2)))),
            "whole" => self.pieces[number(1) as usize] = None,
            "removed" => self.pieces[number(1) as usize] = Some(BTreeSet::new()),
            // The harness of the tests has its say, too.
            _ => {}
        }
    }
}

/// Runs the process and kills it when it has said so much.
fn run_and_kill(dir: &Path, after: u64) -> Said {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_process_that_is_killed", "--nocapture", "--test-threads", "1"])
        .env("COVEY_CRASH", dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pieces = vec![Some(BTreeSet::new()); FETCHED as usize];
    let mut said = Said { puts: Vec::new(), tags: BTreeSet::new(), pieces };
    for (heard, line) in BufReader::new(child.stdout.take().unwrap()).lines().enumerate() {
        said.hear(&line.unwrap());
        if heard as u64 == after {
            child.kill().unwrap();
        }
    }
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(!errors.contains("panicked"), "{errors}");
    assert!(!child.wait().unwrap().success());
    said
}

#[test]
fn a_kill_at_any_time_costs_at_most_what_was_in_flight() {
    let dir = tempfile::tempdir().unwrap();
    let blobs: Vec<BlobRef> = {
        let source = Store::open(dir.path().join("source"), 1 << 30).unwrap();
        (0..FETCHED).map(|n| source.put(&bytes(FETCHED_BYTES, n), Durability::Buffered).unwrap()).collect()
    };
    let mut dice = Dice::new();
    for round in 0..ROUNDS {
        let said = run_and_kill(dir.path(), 10 + dice.below(200));
        let source = Store::open(dir.path().join("source"), 1 << 30).unwrap();
        let store = Store::open(dir.path().join("store"), 1 << 30).unwrap();
        for root in &said.puts {
            assert_eq!(store.get(root).unwrap().map(|bytes| Digest::of(&bytes)), Some(*root), "round {round}");
        }
        for tag in &said.tags {
            assert!(store.pins().contains_key(tag), "round {round}: {tag}");
        }
        for (n, (blob, said)) in blobs.iter().zip(&said.pieces).enumerate() {
            // What is claimed at once is true, without a look at it.
            if store.holdings(blob).is_empty() {
                assert!(!store.has(&blob.root));
            } else {
                assert_eq!(store.verify(&blob.root, &mut |_| {}).unwrap().damaged, [0; 0], "round {round}");
            }
            let partial = store.begin(*blob).unwrap();
            let held: BTreeSet<u32> = partial.held().iter().collect();
            if let Some(said) = said {
                assert!(held.is_superset(said), "round {round}: blob {n} lost {:?}", said.difference(&held));
            }
            assert_eq!(store.verify(&blob.root, &mut |_| {}).unwrap().damaged, [0; 0], "round {round}");
            // One is left as it is for the next round.
            if n > 0 {
                send_all(&source, &partial);
                assert!(store.get(&blob.root).unwrap().is_some());
                store.remove(&blob.root).unwrap();
            }
        }
        store.pins().keys().for_each(|tag| store.unpin(tag).unwrap());
        for root in &said.puts {
            store.remove(root).unwrap();
        }
    }
}

#[test]
fn a_lost_or_damaged_index_costs_no_blob() {
    let ((_a, from), (dir, store)) = (store(1 << 30), store(1 << 30));
    let large = from.put(&bytes(6 * PIECE, 1), Durability::Buffered).unwrap();
    let small: Vec<BlobRef> = (0..20).map(|n| store.put(&bytes(100, n), Durability::Synced).unwrap()).collect();
    store.pin("some", &[small[3].root]).unwrap();
    let partial = store.begin(large).unwrap();
    for piece in [0, 2, 5] {
        send(&from, &partial, piece);
    }
    drop((partial, store));
    let root = dir.path().join("store");
    let index = fs::read(root.join("index.redb")).unwrap();
    let mut dice = Dice::new();
    for round in 0..24 {
        match round {
            0 => fs::remove_file(root.join("index.redb")).unwrap(),
            1 => fs::write(root.join("index.redb"), b"").unwrap(),
            2 => fs::write(root.join("index.redb"), b"something else").unwrap(),
            3 => fs::write(root.join("index.redb"), &index[..index.len() / 2]).unwrap(),
            _ => {
                // Where redb has something, and anywhere.
                let mut index = index.clone();
                for _ in 0..1 + dice.below(20) {
                    let limit = if dice.below(2) == 0 { 4096 } else { index.len() as u64 };
                    let at = dice.below(limit) as usize;
                    index[at] = dice.below(256) as u8;
                }
                fs::write(root.join("index.redb"), &index).unwrap();
            }
        }
        let store = Store::open(&root, 1 << 30).unwrap_or_else(|error| panic!("round {round}: {error}"));
        for blob in &small {
            assert!(store.get(&blob.root).unwrap().is_some(), "round {round}");
        }
        let partial = store.begin(large).unwrap();
        assert_eq!(partial.held().iter().collect::<Vec<_>>(), [0, 2, 5], "round {round}");
        assert!(store.verify(&large.root, &mut |_| {}).unwrap().damaged.is_empty());
        store.pin("again", &[small[round % 20].root]).unwrap();
    }
}

#[test]
fn a_torn_piece_is_not_taken_for_a_good_one() {
    let ((_a, from), (dir, store)) = (store(1 << 30), store(1 << 30));
    let blob = from.put(&bytes(6 * PIECE, 2), Durability::Buffered).unwrap();
    let partial = store.begin(blob).unwrap();
    for piece in [0, 1, 3] {
        send(&from, &partial, piece);
    }
    feed(&partial, 64..70, &answer(&from, &blob, 64..70));
    damage(&path(&store, &blob, ".partial"), PIECE + 9 * GROUP);
    drop((partial, store));
    let root = dir.path().join("store");
    // As after a power cut: the index knows nothing of these pieces.
    fs::remove_file(root.join("index.redb")).unwrap();
    let store = Store::open(&root, 1 << 30).unwrap();
    assert!(store.holdings(&blob).is_empty(), "nothing is claimed unseen");
    let partial = store.begin(blob).unwrap();
    assert_eq!(partial.held().iter().collect::<Vec<_>>(), [0, 3]);
    // What is good of the others need not come again.
    let missing: Vec<u64> = [1, 4].into_iter().flat_map(|piece| partial.missing(piece)).flatten().collect();
    assert_eq!(missing, [25, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79]);
    assert_eq!(partial.missing(2).into_iter().flatten().count(), 16);
    let run = 25..26;
    assert!(feed(&partial, run.clone(), &answer(&from, &blob, run)).1.piece_complete);
    send_all(&from, &partial);
    assert!(store.get(&blob.root).unwrap().unwrap() == bytes(6 * PIECE, 2));
}

#[test]
fn a_store_of_the_old_layout_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let contents: Vec<Vec<u8>> = (0..5u64).map(|n| bytes(n * PIECE + 100, n)).collect();
    let names: Vec<BlobRef> = contents.iter().map(|bytes| BlobRef::of(bytes)).collect();
    for (blob, bytes) in names.iter().zip(&contents) {
        let name = blob.root.to_string();
        let prefix = root.join("blobs").join(&name[..2]);
        fs::create_dir_all(&prefix).unwrap();
        fs::write(prefix.join(name), bytes).unwrap();
    }
    fs::create_dir_all(root.join("pins")).unwrap();
    fs::create_dir_all(root.join("tmp")).unwrap();
    fs::write(root.join("tmp").join("0"), b"left over").unwrap();
    let pin = [names[0].root, names[4].root].map(|root| *root.as_bytes()).concat();
    fs::write(root.join("pins").join("round-7"), pin).unwrap();
    for _ in 0..2 {
        let store = Store::open(&root, 1 << 30).unwrap();
        assert_eq!(store.pins()["round-7"], [names[0].root, names[4].root]);
        assert!(!root.join("pins").exists());
        for (blob, bytes) in names.iter().zip(&contents) {
            assert!(store.get(&blob.root).unwrap().as_ref() == Some(bytes));
            answer(&store, blob, 0..1);
        }
        assert_eq!(store.bytes(), names.iter().map(|blob| blob.size).sum::<u64>());
    }
}

#[test]
fn a_fetch_into_a_folder_that_was_moved_away_is_not_acknowledged() {
    let ((_a, from), (dir, store)) = (store(1 << 30), store(1 << 30));
    let blob = from.put(&bytes(3 * PIECE, 3), Durability::Buffered).unwrap();
    let pinned = store.put(b"pinned", Durability::Synced).unwrap();
    store.pin("tag", &[pinned.root]).unwrap();
    let partial = store.begin(blob).unwrap();
    let root = dir.path().join("store");
    let aside = dir.path().join("aside");
    fs::rename(&root, &aside).unwrap();
    let (mut receive, answer) = (partial.receive(0..16), answer(&from, &blob, 0..16));
    let mut rest = &answer[..];
    let refused = loop {
        let (item, after) = rest.split_at(receive.next_len().unwrap());
        rest = after;
        if let Err(error) = receive.feed(item) {
            break error;
        }
    };
    assert!(matches!(refused, ReceiveError::Store(StoreError::Gone(_))), "{refused}");
    assert!(partial.held().is_empty());
    assert!(matches!(store.unpin("tag"), Err(StoreError::Gone(_))));
    assert!(matches!(store.begin(BlobRef { size: 3, root: Digest::of(b"abc") }), Err(StoreError::Gone(_))));
    assert!(matches!(store.remove(&Digest::of(b"abc")), Ok(false)));
    drop((partial, receive, store));
    assert!(!root.exists(), "closing does not create it again");
    fs::rename(&aside, &root).unwrap();
    let store = Store::open(&root, 1 << 30).unwrap();
    assert_eq!(store.pins()["tag"], [pinned.root]);
    send_all(&from, &store.begin(blob).unwrap());
    assert!(store.has(&blob.root));
}

/// A small file system in memory that can be full; none where it may not be mounted.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(bytes: u64) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        match mount {
            Ok(done) if done.status.success() => Some(SmallDisk(dir)),
            _ => {
                println!("skipped: a small file system can only be mounted by root");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_a_clear_error_and_harms_nothing() {
    let Some(disk) = SmallDisk::new(16 << 20) else { return };
    let (_a, from) = store(1 << 30);
    let root = disk.0.path().join("store");
    let store = Store::open(&root, 1 << 30).unwrap();
    let blob = from.put(&bytes(6 * PIECE, 4), Durability::Buffered).unwrap();
    let partial = store.begin(blob).unwrap();
    send(&from, &partial, 0);
    let kept = store.put(&bytes(PIECE + 1, 5), Durability::Synced).unwrap();
    // Something else fills the disk.
    let ballast = disk.0.path().join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    let full =
        |result: Result<(), StoreError>| assert!(matches!(result, Err(StoreError::DiskFull { .. })), "{result:?}");
    full(store.put(&bytes(PIECE, 6), Durability::Buffered).map(drop));
    full(store.put(&bytes(PIECE, 6), Durability::Synced).map(drop));
    let other = from.put(&bytes(9 * PIECE, 7), Durability::Buffered).unwrap();
    full(store.begin(other).map(drop));
    let original = _a.path().join("original");
    fs::write(&original, bytes(2 * PIECE, 8)).unwrap();
    full(store.add_file(&original, &mut |_| {}).map(drop));
    full(store.export(&kept, &disk.0.path().join("out"), &mut |_| {}));
    let mut receive = partial.receive(16..32);
    let answer_ = answer(&from, &blob, 16..32);
    let mut rest = &answer_[..];
    let refused = loop {
        let (item, after) = rest.split_at(receive.next_len().unwrap());
        rest = after;
        if let Err(error) = receive.feed(item) {
            break error;
        }
    };
    assert!(matches!(refused, ReceiveError::Store(StoreError::DiskFull { .. })), "{refused}");
    // It serves on.
    answer(&store, &blob, 0..16);
    answer(&store, &kept, 0..17);
    assert!(store.get(&kept.root).unwrap().is_some());
    let pinned = store.pin("tag", &[kept.root]);
    drop((partial, receive, store));
    let reopened = Store::open(&root, 1 << 30);
    println!("on a full disk: pin {pinned:?}, open {:?}", reopened.as_ref().map(drop));
    drop((reopened, file));
    fs::remove_file(ballast).unwrap();
    let store = Store::open(&root, 1 << 30).unwrap();
    assert_eq!(store.pins().contains_key("tag"), pinned.is_ok());
    let partial = store.begin(blob).unwrap();
    assert!(partial.held().contains(0) && partial.held().len() == 1);
    send_all(&from, &partial);
    store.pin("tag", &[blob.root, kept.root]).unwrap();
    assert!(store.get(&blob.root).unwrap().is_some() && store.get(&kept.root).unwrap().is_some());
}
