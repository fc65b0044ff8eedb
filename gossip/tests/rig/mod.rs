//! Real nodes over loopback, and the waiting that tests of them need: always for an event, never for a time.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod raw;

use covey_gossip::store::Store;
use covey_gossip::{Config, Event, Events, Handle, Ticket, start};
use covey_proto::chain::{ChainView, Member};
use covey_proto::message::PeerRecord;
use covey_proto::{BlockNumber, Digest, HotkeyPair, RunId, Uid};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// For everything that is awaited: far more than it takes.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const TCP: &str = "/ip4/127.0.0.1/tcp/0";
pub const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

pub struct Node {
    pub handle: Handle,
    pub events: Events,
    pub dir: TempDir,
}

pub fn genesis() -> Digest {
    Digest::of(b"a chain of tests")
}

pub fn config(directory: &Path, listen: &[&str], bootstrap: &[String]) -> Config {
    let mut config = Config::new(directory, genesis(), 3, RunId(Digest::of(b"a run of tests")));
    config.listen = listen.iter().map(|&address| address.to_owned()).collect();
    config.bootstrap = bootstrap.to_vec();
    config.heartbeat = Duration::from_millis(200);
    config
}

pub fn store(directory: &Path) -> Store {
    Store::open(directory.join("blobs"), 1 << 30).unwrap()
}

pub async fn node(listen: &[&str], bootstrap: &[String]) -> Node {
    node_with(listen, bootstrap, |_| ()).await
}

pub async fn node_with(listen: &[&str], bootstrap: &[String], change: impl FnOnce(&mut Config)) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), listen, bootstrap);
    change(&mut config);
    let (handle, events) = start(config, store(dir.path())).await.unwrap();
    Node { handle, events, dir }
}

/// `count` nodes that listen so, the first one everybody's bootstrap; all know all, as members with records.
pub async fn swarm(count: u8, listen: &[&str]) -> Vec<Node> {
    swarm_of(count, listen, |_| ()).await
}

/// The same, with another first node.
pub async fn swarm_of(count: u8, listen: &[&str], change_first: impl FnOnce(&mut Config)) -> Vec<Node> {
    let mut nodes: Vec<Node> = vec![node_with(listen, &[], change_first).await];
    for _ in 1..count {
        let first = nodes[0].handle.addresses();
        nodes.push(node(listen, &first[..1]).await);
    }
    for (uid, node) in nodes.iter().enumerate() {
        node.handle.set_members(members(count));
        node.handle.set_record(record(uid as u8, &node.handle, 1).sign(&hotkey(uid as u8)));
    }
    for node in &mut nodes {
        node.until_bound(usize::from(count) - 1).await;
    }
    nodes
}

pub fn hotkey(uid: u8) -> HotkeyPair {
    HotkeyPair::from_seed([uid + 1; 32])
}

pub fn members(count: u8) -> Arc<ChainView> {
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

pub fn record(uid: u8, handle: &Handle, sequence: u64) -> PeerRecord {
    PeerRecord {
        genesis: genesis(),
        netuid: 3,
        uid: Uid::from(uid),
        hotkey: hotkey(uid).hotkey(),
        registered_at: BlockNumber(1),
        peer: handle.peer_id().to_bytes(),
        addresses: handle.addresses(),
        sequence,
        expiry: BlockNumber(100),
    }
}

impl Node {
    /// The first event that `pick` takes; the ones before it are dropped.
    pub async fn until<T>(&mut self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let search = async {
            loop {
                let event = self.events.next().await.expect("the network runs");
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
    }

    pub async fn until_announcement(&mut self) -> (Vec<u8>, Ticket) {
        self.until("an announcement", |event| match event {
            Event::Announcement { bytes, ticket, .. } if !bytes.starts_with(b"hello") => Some((bytes, ticket)),
            _ => None,
        })
        .await
    }

    /// Until so many peers have uids.
    pub async fn until_bound(&mut self, count: usize) {
        let handle = self.handle.clone();
        let bound = move || handle.peers().iter().filter(|peer| peer.uid.is_some()).count();
        if bound() < count {
            self.until("bindings", |_| (bound() >= count).then_some(())).await;
        }
    }

    pub async fn until_connected(&mut self) {
        let handle = self.handle.clone();
        if handle.peers().is_empty() {
            self.until("a connection", |event| matches!(event, Event::Connected { .. }).then_some(())).await;
        }
    }

    /// Until so many neighbours listen: only those hear what is passed on.
    pub async fn until_heard_by(&self, count: usize) {
        let attempts = async {
            for n in 0u32.. {
                let hello = [b"hello".as_slice(), &n.to_le_bytes()].concat();
                if self.handle.publish(hello).await.is_ok_and(|published| published.peers >= count) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, attempts).await.expect("they listen in the end");
    }

    /// Publishes as soon as somebody listens.
    pub async fn publish(&self, bytes: &[u8]) {
        use covey_gossip::PublishError;
        let attempts = async {
            while let Err(error) = self.handle.publish(bytes.to_vec()).await {
                assert_eq!(error, PublishError::NoPeers);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, attempts).await.expect("somebody listens in the end");
    }
}
