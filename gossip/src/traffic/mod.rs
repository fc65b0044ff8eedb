//! What was sent and received: counters that the network writes and anyone reads. [`meter`] counts by peer.
//!
//! A new counter is a line in the table below, and one of the page in `metrics/page.rs`, whose test says so.

mod meter;

pub(crate) use meter::{Meter, PeerBytes, PeerRate};

use crate::small::terms::FetchError;
use covey_exchange::Class;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
    /// Bytes of something that is counted once it is whole.
    pub(crate) fn add_bytes(&self, bytes: usize) {
        self.1.fetch_add(bytes as u64, Ordering::Relaxed);
    }
    pub(crate) fn add_count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
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

/// How many there are now.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
    pub(crate) fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }
    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The name of the congestion control that the newest connection runs, as the kernel says.
#[derive(Clone, Debug, Default)]
pub(crate) struct CongestionSeen(Arc<Mutex<Option<String>>>);

impl CongestionSeen {
    pub(crate) fn name(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, name: &str) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.as_deref() != Some(name) {
            *seen = Some(name.to_owned());
        }
    }
}

impl Counters {
    /// Counts how a fetch ended.
    pub(crate) fn fetched<T>(&self, result: &Result<T, FetchError>) {
        let count = match result {
            Ok(_) => &self.fetches_done,
            Err(FetchError::Timeout { .. }) => &self.fetches_timed_out,
            Err(_) => &self.fetches_failed,
        };
        count.add(1);
    }
}

/// A counter's value, for the test that shows each of them.
#[cfg(test)]
pub(crate) trait Numbered {
    fn number(n: u64) -> Self;
}
#[cfg(test)]
impl Numbered for u64 {
    fn number(n: u64) -> u64 {
        n
    }
}
#[cfg(test)]
impl Numbered for Tally {
    fn number(n: u64) -> Tally {
        Tally { count: n, bytes: n + 1000 }
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

        #[cfg(test)]
        impl Traffic {
            /// Another number in each counter, and the counters' names with them.
            pub(crate) fn numbered(first: u64) -> (Traffic, Vec<(&'static str, u64)>) {
                let mut names = Vec::new();
                let mut next = |name| {
                    names.push((name, first + names.len() as u64));
                    first + names.len() as u64 - 1
                };
                let traffic = Traffic { $($name: Numbered::number(next(stringify!($name))),)* };
                (traffic, names)
            }
        }
    };
}

impl Counters {
    /// What came and what was sent of a class.
    pub(crate) fn of(&self, class: Class) -> (&TallyCounter, &TallyCounter) {
        match class {
            Class::Round => (&self.round_in, &self.round_out),
            Class::State => (&self.state_in, &self.state_out),
            Class::Data => (&self.data_in, &self.data_out),
        }
    }
}

traffic! {
    /// Announcements that came by gossip, each once.
    announcements_in: Tally = TallyCounter,
    /// Announcements published here. What is sent is this times the neighbours.
    announcements_out: Tally = TallyCounter,
    /// Announcements published here once somebody listened, after they could not be.
    announcements_repeated: u64 = Count,
    /// Announcements that nobody could be told of in time: others have to pull them.
    announcements_failed: u64 = Count,
    /// Announcements that the node accepted in time: they went on.
    announcements_accepted: u64 = Count,
    /// Announcements that the node rejected in time: their neighbours lost score.
    announcements_rejected: u64 = Count,
    /// Announcements that the node ignored: nobody is to blame, and they did not go on.
    announcements_unheeded: u64 = Count,
    /// Announcements whose verdict came when gossip had forgotten them: they did not go on.
    announcements_late: u64 = Count,
    /// Announcements ignored because four others of their author and round were looked at.
    announcements_surplus: u64 = Count,
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
    /// Messages that were dropped because a neighbour took them too slowly.
    gossip_unsent: u64 = Count,
    /// Blobs received that verified and were wanted.
    blobs_in: Tally = TallyCounter,
    /// Blobs received that were not wanted any more.
    blobs_surplus: Tally = TallyCounter,
    /// Blobs received that did not verify; their senders were banned.
    blobs_wrong: Tally = TallyCounter,
    /// Blobs sent.
    blobs_out: Tally = TallyCounter,
    /// Fetches and downloads that ended well. Those of what was here already are not counted.
    fetches_done: u64 = Count,
    /// Fetches whose time was up.
    fetches_timed_out: u64 = Count,
    /// Fetches that ended otherwise: another size, no room, too many.
    fetches_failed: u64 = Count,
    /// Requests received.
    requests_in: u64 = Count,
    /// Requests received and not answered because there were too many.
    requests_refused: u64 = Count,
    /// Requests sent.
    requests_out: u64 = Count,
    /// Answers to requests for pieces that came for the current round, and the blobs' bytes in them, proofs apart. Bytes
    /// are counted as they verify, answers when they are whole.
    round_in: Tally = TallyCounter,
    /// The same for state.
    state_in: Tally = TallyCounter,
    /// The same for data.
    data_in: Tally = TallyCounter,
    /// Answers to requests for pieces that were sent for the current round, and their bytes, proofs included.
    round_out: Tally = TallyCounter,
    /// The same for state.
    state_out: Tally = TallyCounter,
    /// The same for data.
    data_out: Tally = TallyCounter,
    /// Pieces that became whole by what came.
    pieces_good: u64 = Count,
    /// Answers with bytes that did not verify; their senders were banned.
    pieces_wrong: u64 = Count,
    /// Groups that came and verified but were there already, and their bytes.
    groups_duplicate: Tally = TallyCounter,
    /// Answers that came whole although they had been taken back, and their bytes with proofs.
    pieces_late: Tally = TallyCounter,
    /// Requests for pieces sent.
    piece_requests_out: u64 = Count,
    /// Of them, those that peers refused, whatever the reason.
    piece_requests_rejected: u64 = Count,
    /// Of them, those that are open now.
    piece_requests_open: u64 = Gauge,
    /// Requests for pieces received.
    piece_requests_in: u64 = Count,
    /// Of them, those refused: not held, or too many.
    piece_requests_refused: u64 = Count,
    /// Of them, those that wait or are being answered now.
    piece_answers_open: u64 = Gauge,
    /// Members' peer records that were news, by gossip or in somebody's list.
    records_heard: u64 = Count,
    /// Providers' records kept for others.
    providers_in: u64 = Count,
    /// Providers' records that came and were not kept: too many, or of nobody that can be dialled.
    providers_refused: u64 = Count,
    /// Peers banned.
    bans: u64 = Count,
    /// Events lost because nobody took them.
    events_lost: u64 = Count,
    /// How often the network was rebuilt after a fault in it.
    restarts: u64 = Count,
    /// TCP connections made and accepted.
    tcp_connections: u64 = Count,
    /// Of them, those that run BBR.
    tcp_connections_bbr: u64 = Count,
    /// Bytes received over TCP connections, with all that libp2p adds. QUIC is not counted.
    tcp_bytes_in: u64 = Count,
    /// Bytes sent over TCP connections, with all that libp2p adds. QUIC is not counted.
    tcp_bytes_out: u64 = Count,
}
