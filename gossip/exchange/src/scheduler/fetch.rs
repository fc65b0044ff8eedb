//! What the scheduler remembers of each blob, peer and request. Data only; the rules are in the files beside.

use super::known::Known;
use super::link::Link;
use super::table::{self, Table};
use super::types::RequestId;
use crate::Class;
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::Pieces;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A blob that is wanted. The number under which it is kept rises with its age.
#[derive(Debug)]
pub(super) struct Fetch<P> {
    pub(super) blob: BlobRef,
    pub(super) class: Class,
    pub(super) table: Table,
    /// Peers that were asked what they hold.
    pub(super) sources: BTreeMap<P, Source>,
    /// Peers said to hold it, the likeliest first.
    pub(super) hints: Vec<P>,
    /// The peer after which the search for more sources goes on.
    pub(super) cursor: Option<P>,
    /// Live requests.
    pub(super) requests: usize,
    /// Bytes that came twice, and bytes of cancelled answers that had begun: these come all the same.
    pub(super) duplicate_bytes: u64,
    pub(super) late_bytes: u64,
    /// Bytes a second, smoothed, and the bytes since it was last brought up to date.
    pub(super) rate: u64,
    pub(super) fresh_bytes: u64,
    pub(super) last_bytes: Duration,
    /// Since when nobody at hand holds some missing piece.
    pub(super) lacking: Option<Duration>,
    /// Not called stuck again before.
    pub(super) stuck: Duration,
    /// When a source was last exchanged for another.
    pub(super) exchanged: Duration,
}

/// A peer that was asked what it holds of a blob.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) known: Known,
    pub(super) asked: Duration,
    /// Bytes of this blob that it delivered, older ones counting less.
    pub(super) bytes: u64,
    /// Occasions on which it refused what it said it holds.
    pub(super) claims: u32,
    pub(super) claimed: Duration,
    /// Its sets count nothing until it has rested.
    pub(super) ignored: bool,
}

impl Source {
    pub(super) fn new(now: Duration) -> Source {
        Source { known: Known::Nothing, asked: now, bytes: 0, claims: 0, claimed: Duration::ZERO, ignored: false }
    }
}

/// A connected peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) link: Link,
    /// Blobs it is asked about, and the bytes that its sets of them may take.
    pub(super) wants: usize,
    pub(super) set_bytes: usize,
    /// Blobs of which it may have something to ask for. One in vain is taken out when that is seen.
    pub(super) fertile: BTreeSet<(Class, u64)>,
    /// Open requests, cancelled ones too.
    pub(super) requests: BTreeSet<RequestId>,
    /// Bytes still to come of these, by class.
    pub(super) open: [u64; 3],
    /// Live requests by class.
    pub(super) live: [usize; 3],
    /// Bytes answered or given up since the start.
    pub(super) settled: u64,
    /// Requests that it takes at once, as its refusals taught.
    pub(super) requests_max: usize,
    /// Bytes that less urgent classes may claim before more urgent ones.
    pub(super) credit: [u64; 3],
    /// Sent wrong bytes.
    pub(super) punished: bool,
}

impl Peer {
    pub(super) fn new(requests_max: usize) -> Peer {
        Peer {
            link: Link::new(),
            wants: 0,
            set_bytes: 0,
            fertile: BTreeSet::new(),
            requests: BTreeSet::new(),
            open: [0; 3],
            live: [0; 3],
            settled: 0,
            requests_max,
            credit: [0; 3],
            punished: false,
        }
    }

    pub(super) fn open_bytes(&self) -> u64 {
        self.open.iter().sum()
    }

    /// Whether it may be asked at `now`.
    pub(super) fn is_ready(&self, now: Duration) -> bool {
        !self.punished && now >= self.link.pause
    }
}

/// An open request.
#[derive(Debug)]
pub(super) struct Request<P> {
    pub(super) peer: P,
    pub(super) fetch: u64,
    pub(super) root: Digest,
    pub(super) class: Class,
    pub(super) pieces: Pieces,
    pub(super) piece: u32,
    /// Groups asked that did not come yet.
    pub(super) pending: u64,
    /// Not cancelled.
    pub(super) live: bool,
    /// The other request for the same groups.
    pub(super) twin: Option<RequestId>,
    /// Whether it is the later of the two.
    pub(super) second: bool,
    pub(super) issued: Duration,
    pub(super) moved: Duration,
    pub(super) began: bool,
    /// What its peer will have settled once this is answered.
    pub(super) mark: u64,
    /// When it should be answered.
    pub(super) due: Duration,
}

impl<P> Request<P> {
    pub(super) fn pending_bytes(&self) -> u64 {
        table::bytes(self.pieces, self.piece, self.pending)
    }
}
