//! Covey's own exchange, as a node runs it: members with records, gossip on, blobs in a store. A fetcher serves on.
//!
//! "In memory" is a store whose folder is in memory (tmpfs): there is no other store, and no run without proofs.

use super::role::{Task, say};
use super::Failure;
use covey_gossip::store::Store;
use covey_gossip::{Class, Config, Event, Events, Handle, Hint, Progress, Verdict, start};
use covey_proto::blob::BlobRef;
use covey_proto::chain::{ChainView, Member};
use covey_proto::message::PeerRecord;
use covey_proto::random::SplitMix64;
use covey_proto::{BlockNumber, Digest, HotkeyPair, RunId, Uid};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const NETUID: u16 = 3;
/// For peers to know each other, and for a fetch of any size over any line that is measured.
const PATIENCE: Duration = Duration::from_secs(60);
const FETCH_PATIENCE: Duration = Duration::from_secs(3600);
/// Bytes of an announcement: a commitment's, a signature's, and a manifest's name.
const ANNOUNCEMENT_BYTES: usize = 300;
/// How often a fetch says how far it is, from its beginning to its end.
const SAYINGS: u64 = 20;
/// Neighbours that each node at rest dials: it has about twice as many.
const NEIGHBOURS: usize = 4;

/// A running node.
pub struct Node {
    handle: Handle,
    /// What is to be fetched, for a fetcher.
    blob: Option<BlobRef>,
    /// Nodes of the run.
    members: u8,
    /// How long each announcement took, in milliseconds.
    heard: Arc<Mutex<Vec<f64>>>,
}

impl Node {
    /// Starts a node. A provider adds the source to its store; its offer is `MULTIADDR,ROOT,SIZE`. A fetcher dials all
    /// offers, and its own offer is the same blob from its address.
    pub async fn start(task: &Task) -> Result<(String, Node), Failure> {
        let store = Store::open(task.folder.join("blobs"), u64::MAX)?;
        let mut bootstrap = vec![];
        let mut blob = None;
        for offer in &task.offers {
            let (address, of) = parse(offer)?;
            bootstrap.push(address.to_owned());
            blob = Some(of);
        }
        let provided = if task.offers.is_empty() { Some(add(&store, &task.source).await?) } else { None };
        let config = config(task, &task.folder, bootstrap);
        let node = Node::join(config, store, blob, task.members, task.uid).await?;
        let address = node.handle.addresses().into_iter().next().ok_or("the node listens nowhere")?;
        let offer = match provided.or(blob) {
            Some(blob) => format!("{address},{},{}", blob.root, blob.size),
            None => address,
        };
        Ok((offer, node))
    }

    async fn join(config: Config, store: Store, blob: Option<BlobRef>, members: u8, uid: u8) -> Result<Node, Failure> {
        let (handle, events) = start(config, store).await?;
        handle.set_members(view(members));
        handle.set_record(record(uid, &handle).sign(&hotkey(uid)));
        let heard = Arc::new(Mutex::new(vec![]));
        tokio::spawn(listen(events, heard.clone()));
        Ok(Node { handle, blob, members, heard })
    }

    /// Waits until every other member is known.
    pub async fn meet(&self) -> Result<(), Failure> {
        let others = usize::from(self.members) - 1;
        let all = async {
            while self.handle.peers().iter().filter(|peer| peer.uid.is_some()).count() < others {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let late = || format!("of {others} members only {} are known", self.handle.peers().len());
        tokio::time::timeout(PATIENCE, all).await.map_err(|_| late().into())
    }

    /// Fetches the blob, and says how far it is at each 5 %.
    pub async fn fetch(&mut self, task: &Task) -> Result<u64, Failure> {
        let blob = self.blob.ok_or("a provider has nothing to fetch")?;
        let hints: Vec<Hint> = (0..task.offers.len()).map(|uid| Hint::Uid(Uid::from(uid as u8))).collect();
        let mut said = 0;
        let progress = |progress: Progress| {
            if progress.bytes * SAYINGS / blob.size.max(1) > said {
                said = progress.bytes * SAYINGS / blob.size.max(1);
                say(&json!({"event": "progress", "bytes": progress.bytes}));
            }
        };
        self.handle.download(blob, Class::Round, &hints, FETCH_PATIENCE, progress).await?;
        Ok(self.handle.store().size(&blob.root).unwrap_or(0))
    }

    /// Publishes so many announcements, one each so many milliseconds; each carries the time at which it was sent.
    pub async fn publish(&self, count: usize, millis: u64) -> Result<(), Failure> {
        let mut ticks = tokio::time::interval(Duration::from_millis(millis));
        for number in 0..count {
            ticks.tick().await;
            let mut bytes = vec![0; ANNOUNCEMENT_BYTES];
            bytes[..8].copy_from_slice(&micros().to_le_bytes());
            bytes[8..16].copy_from_slice(&SplitMix64::seeded(number as u64).draw().to_le_bytes());
            self.handle.publish(bytes).await?;
        }
        Ok(())
    }

    /// How long announcements took, in milliseconds, since this was last asked.
    pub fn heard(&self) -> Vec<f64> {
        std::mem::take(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the node counted, and what its peers are.
    pub fn counters(&self) -> Value {
        let traffic = self.handle.traffic();
        json!({
            "connected": self.handle.peers().len(),
            "tcp_bytes_in": traffic.tcp_bytes_in,
            "tcp_bytes_out": traffic.tcp_bytes_out,
            "piece_bytes_in": traffic.round_in.bytes,
            "duplicate_bytes": traffic.groups_duplicate.bytes,
            "late_bytes": traffic.pieces_late.bytes,
            "requests_out": traffic.piece_requests_out,
            "requests_rejected": traffic.piece_requests_rejected,
            "bans": traffic.bans,
        })
    }
}

/// Connections of nodes at rest, each counted at both ends.
pub fn connections(nodes: &[Node]) -> Value {
    let all: usize = nodes.iter().map(|node| node.handle.peers().len()).sum();
    json!({ "connected": all })
}

/// Many nodes in this process, each connected to some others, with nothing to do.
pub async fn at_rest(task: &Task) -> Result<Vec<Node>, Failure> {
    let mut nodes: Vec<Node> = vec![];
    let mut numbers = SplitMix64::seeded(1);
    for number in 0..task.nodes {
        let folder = task.folder.join(number.to_string());
        std::fs::create_dir_all(&folder)?;
        let mut neighbours = vec![];
        for _ in 0..NEIGHBOURS.min(number) {
            let other = &nodes[numbers.draw() as usize % number];
            neighbours.extend(other.handle.addresses().into_iter().next());
        }
        let store = Store::open(folder.join("blobs"), u64::MAX)?;
        let mut config = config(task, &folder, neighbours);
        config.limits.peers_target = 2 * NEIGHBOURS;
        nodes.push(Node::join(config, store, None, task.nodes as u8, number as u8).await?);
    }
    Ok(nodes)
}

fn config(task: &Task, folder: &Path, bootstrap: Vec<String>) -> Config {
    let mut config = Config::new(folder.join("node"), genesis(), NETUID, RunId(Digest::of(b"a run of rivals")));
    config.listen = vec![format!("/ip4/{}/tcp/{}", task.listen.ip(), task.listen.port())];
    config.bootstrap = bootstrap;
    config
}

async fn add(store: &Store, source: &Path) -> Result<BlobRef, Failure> {
    let (store, source) = (store.clone(), source.to_owned());
    let added = tokio::task::spawn_blocking(move || store.add_file(&source, &mut |_| ()));
    Ok(added.await??)
}

/// The address and the blob of an offer.
fn parse(offer: &str) -> Result<(&str, BlobRef), Failure> {
    let parts: Vec<&str> = offer.split(',').collect();
    let &[address, root, size] = parts.as_slice() else {
        return Err("an offer of Covey is MULTIADDR,ROOT,SIZE".into());
    };
    Ok((address, BlobRef { root: root.parse()?, size: size.parse()? }))
}

/// Accepts every announcement, and notes how long it took: all processes read one clock.
async fn listen(mut events: Events, heard: Arc<Mutex<Vec<f64>>>) {
    while let Some(event) = events.next().await {
        if let Event::Announcement { bytes, ticket, .. } = event {
            let sent = bytes.first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk));
            let took = micros().saturating_sub(sent) as f64 / 1000.0;
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(took);
            ticket.judge(Verdict::Accept);
        }
    }
}

fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as u64)
}

fn genesis() -> Digest {
    Digest::of(b"a chain of rivals")
}

fn hotkey(uid: u8) -> HotkeyPair {
    HotkeyPair::from_seed([uid.wrapping_add(1); 32])
}

fn view(count: u8) -> Arc<ChainView> {
    let member = |uid: u8| Member {
        uid: Uid::from(uid),
        hotkey: hotkey(uid).hotkey(),
        registered_at: BlockNumber(1),
        permit: true,
        stake: 1,
    };
    Arc::new(ChainView {
        block: BlockNumber(5),
        hash: Digest::ZERO,
        members: (0..count).map(|uid| (Uid::from(uid), member(uid))).collect(),
        slots: BTreeMap::new(),
    })
}

fn record(uid: u8, handle: &Handle) -> PeerRecord {
    PeerRecord {
        genesis: genesis(),
        netuid: NETUID,
        uid: Uid::from(uid),
        hotkey: hotkey(uid).hotkey(),
        registered_at: BlockNumber(1),
        peer: handle.peer_id().to_bytes(),
        addresses: handle.addresses(),
        sequence: 1,
        expiry: BlockNumber(100),
    }
}
