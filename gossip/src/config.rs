//! What a node needs to start, and every bound that it keeps.

use crate::peers::admission::ConnectionLimits;
use crate::peers::bucket::Rate;
use crate::small::answers::ServeLimits;
use crate::small::terms::FetchLimits;
use covey_exchange::governor::{ByteRate, GovernorLimits};
use covey_exchange::scheduler::Limits as SchedulerLimits;
use covey_proto::{Digest, RunId};
use std::path::PathBuf;
use std::time::Duration;

/// What a node needs to start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Holds `identity.key` (created at the first start, readable by its owner only) and `peers` (at most 64
    /// peers of former lives). Created if missing.
    pub directory: PathBuf,
    /// Multiaddrs to listen on: `/ip4/0.0.0.0/tcp/4001`, `/ip4/0.0.0.0/udp/4001/quic-v1`; port 0 takes any. None: the
    /// node only dials.
    pub listen: Vec<String>,
    /// Multiaddrs to dial first, with or without `/p2p/ID`; `/dns4/NAME/tcp/PORT` and the like are looked up at each
    /// dial, `/dnsaddr` is refused. One of them that answers is enough, and none is needed by who was here before.
    pub bootstrap: Vec<String>,
    /// Whether others can reach the addresses it listens on: a public machine, a seeder, a swarm on one machine. It then
    /// answers Kademlia's look-ups and keeps records of providers for others (at most 4,096, about a kilobyte each).
    /// Otherwise it does so once two peers of different networks have dialled it at one address.
    pub reachable: bool,
    /// The chain's genesis hash.
    pub genesis: Digest,
    /// The subnet.
    pub netuid: u16,
    /// The run whose topics it joins.
    pub run: RunId,
    /// Time between gossip heartbeats. 1 s; swarms on one machine may use 200 ms.
    pub heartbeat: Duration,
    /// How connections are set up.
    pub transport: TransportOptions,
    /// Every bound.
    pub limits: Limits,
}

impl Config {
    /// A node of this run that listens on any TCP and QUIC port of every IPv4 interface, with the usual bounds.
    pub fn new(directory: impl Into<PathBuf>, genesis: Digest, netuid: u16, run: RunId) -> Config {
        Config {
            directory: directory.into(),
            listen: vec!["/ip4/0.0.0.0/tcp/0".into(), "/ip4/0.0.0.0/udp/0/quic-v1".into()],
            bootstrap: vec![],
            reachable: false,
            genesis,
            netuid,
            run,
            heartbeat: Duration::from_secs(1),
            transport: TransportOptions::default(),
            limits: Limits::default(),
        }
    }
}

/// What decides how fast TCP sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// BBR where the kernel allows it, else what the system has, and a line that says how to allow it. At 100 ms and 0.1 %
    /// loss one connection carries 92 to 97 of 104 Mbit/s with BBR and 9 with CUBIC.
    #[default]
    Bbr,
    /// What the system has: for whom shares a narrow line with others' CUBIC, which BBR crowds out.
    System,
}

/// How connections are set up.
#[derive(Clone, Debug)]
pub struct TransportOptions {
    /// What decides how fast TCP sends. QUIC has CUBIC, which libp2p does not let one choose.
    pub congestion: Congestion,
    /// Bytes that may lie in the kernel unsent, a TCP connection (`TCP_NOTSENT_LOWAT`). Gossip shares the connection and
    /// waits behind them: 512 KiB made a ping's median beside bulk 187 ms instead of 260 to 310 on 110 Mbit/s at 100 ms
    /// and cost no speed; 128 KiB was no better and slowed BBR's beginning.
    pub unsent_max: u32,
    /// Streams of one connection, both ways; a peer that opens more loses the connection. Each that nobody reads holds
    /// 256 KiB of yamux's first window, so that 64 hold 16 MiB. Gossip, requests (32), pieces and the rest need 50.
    pub streams_max: usize,
    /// After so long without a packet a QUIC connection is dead. libp2p's 10 s end connections of busy machines.
    pub quic_idle: Duration,
    /// Bytes of one QUIC stream on their way or unread: 2.5 times what is on its way on 250 Mbit/s at 100 ms. It is what a
    /// stream that nobody reads can hold in memory, so no larger.
    pub quic_stream_window: u32,
    /// The same of all streams of a QUIC connection: room for gossip and requests while a bulk stream's is full.
    pub quic_connection_window: u32,
}

impl Default for TransportOptions {
    fn default() -> Self {
        TransportOptions {
            congestion: Congestion::default(),
            unsent_max: 512 << 10,
            streams_max: 64,
            quic_idle: Duration::from_secs(60),
            quic_stream_window: 8 << 20,
            quic_connection_window: 12 << 20,
        }
    }
}

/// Bounds on the streams of the exchange.
#[derive(Clone, Debug)]
pub struct LinkLimits {
    /// A peer that does not take 64 KiB off its stream for so long is disconnected.
    pub write_timeout: Duration,
    /// New pieces are told after so long, or once there are sixteen.
    pub news_each: Duration,
    /// Bytes of pieces that may come, a second and at once; none: as the line brings them.
    pub download: Option<ByteRate>,
}

impl Default for LinkLimits {
    fn default() -> LinkLimits {
        LinkLimits { write_timeout: Duration::from_secs(30), news_each: Duration::from_millis(250), download: None }
    }
}

/// Every bound that a node keeps. The defaults suit 256 members on home lines.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections.
    pub connections: ConnectionLimits,
    /// It dials until it is connected to so many peers.
    pub peers_target: usize,
    /// Fetching small blobs.
    pub fetch: FetchLimits,
    /// Fetching pieces of large blobs.
    pub scheduler: SchedulerLimits,
    /// Answering with pieces: upload, places, memory.
    pub governor: GovernorLimits,
    /// The streams that pieces travel on, and the rate of download.
    pub links: LinkLimits,
    /// Answering requests for small blobs and announcements.
    pub serve: ServeLimits,
    /// Events that wait for the node. When three quarters are taken, announcements are ignored (and counted): whoever
    /// pulls a round's announcements gets them again. When all are, other events are lost too (and counted):
    /// [`Handle::peers`](crate::Handle::peers) has the state that they told of.
    pub events_max: usize,
    /// Gossip messages that one neighbour may bring: a round of 256 uids at once, twice over.
    pub gossip_per_peer: Rate,
    /// Peer records and requests without a blob that one peer may send.
    pub asks_per_peer: Rate,
    /// Rounds whose announcements are kept for others.
    pub rounds_max: usize,
    /// Bytes of announcements kept for others.
    pub announcements_bytes_max: usize,
    /// Peers asked for a round's announcements at a time.
    pub pull_peers_max: usize,
    /// How long a pull of announcements may take.
    pub pull_timeout: Duration,
    /// How long a peer is refused that sent wrong bytes or broke the protocol.
    pub ban: Duration,
    /// Time between repetitions of the own peer record.
    pub record_repeat: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: ConnectionLimits::default(),
            peers_target: 12,
            fetch: FetchLimits::default(),
            scheduler: SchedulerLimits::default(),
            governor: GovernorLimits::default(),
            links: LinkLimits::default(),
            serve: ServeLimits::default(),
            events_max: 1024,
            gossip_per_peer: Rate { burst: 512, refill: Duration::from_millis(50) },
            asks_per_peer: Rate { burst: 32, refill: Duration::from_secs(1) },
            rounds_max: 14,
            announcements_bytes_max: 64 << 20,
            pull_peers_max: 4,
            pull_timeout: Duration::from_secs(5),
            ban: Duration::from_secs(600),
            record_repeat: Duration::from_secs(60),
        }
    }
}
