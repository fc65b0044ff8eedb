//! What was sent and received: counters that the network writes and anyone reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number of things and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct TallyCounter(AtomicU64, AtomicU64);

impl TallyCounter {
    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(1, Ordering::Relaxed);
        self.1.fetch_add(bytes as u64, Ordering::Relaxed);
    }
    fn read(&self) -> Tally {
        Tally { count: self.0.load(Ordering::Relaxed), bytes: self.1.load(Ordering::Relaxed) }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }
    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! traffic {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $counter:ident,)*) => {
        /// What was sent and received since the start. Bytes are payload, as this crate hands it over, unless said
        /// otherwise: without framing, encryption and the transports' own bytes.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Traffic { $($(#[$doc])* pub $name: $type,)* }

        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: $counter,)* }

        impl Counters {
            pub(crate) fn read(&self) -> Traffic {
                Traffic { $($name: self.$name.read(),)* }
            }
        }
    };
}

traffic! {
    /// Announcements that came by gossip, each once.
    announcements_in: Tally = TallyCounter,
    /// Announcements published here. What is sent is this times the neighbours.
    announcements_out: Tally = TallyCounter,
    /// Announcements ignored because the event queue was full, or their neighbour too fast.
    announcements_ignored: u64 = Count,
    /// Announcements pulled from others, before duplicates are dropped.
    announcements_pulled: Tally = TallyCounter,
    /// Announcements given to others that pulled.
    announcements_served: Tally = TallyCounter,
    /// Messages of every topic that gossip brought, with duplicates.
    gossip_in: Tally = TallyCounter,
    /// Of them, those that were new. The rest are duplicates.
    gossip_first: u64 = Count,
    /// Blobs received that verified and were wanted.
    blobs_in: Tally = TallyCounter,
    /// Blobs received that were not wanted any more.
    blobs_surplus: Tally = TallyCounter,
    /// Blobs received that did not verify; their senders were banned.
    blobs_wrong: Tally = TallyCounter,
    /// Blobs sent.
    blobs_out: Tally = TallyCounter,
    /// Requests received.
    requests_in: u64 = Count,
    /// Requests received and not answered because there were too many.
    requests_refused: u64 = Count,
    /// Requests sent.
    requests_out: u64 = Count,
    /// Peers banned.
    bans: u64 = Count,
    /// Events lost because nobody took them.
    events_lost: u64 = Count,
    /// How often the network was rebuilt after a fault in it.
    restarts: u64 = Count,
    /// Bytes received over TCP connections, with all that libp2p adds. QUIC is not counted.
    tcp_bytes_in: u64 = Count,
    /// Bytes sent over TCP connections, with all that libp2p adds. QUIC is not counted.
    tcp_bytes_out: u64 = Count,
}
