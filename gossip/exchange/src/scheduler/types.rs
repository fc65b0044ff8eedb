//! What goes into the scheduler and what comes out: events, actions, limits, and what a fetch says of itself.

use crate::Class;
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::PieceSet;
use std::ops::Range;
use std::time::Duration;

/// A request of this scheduler, never used twice in its life. On the wire the low 32 bits suffice: no two that are open
/// at once differ by 2³².
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Why a peer refused a request, as the frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// It does not hold what was asked, though it said so.
    NotHeld,
    /// More requests or bytes are open than it allows.
    TooMuch,
    /// It is busy: later perhaps.
    NotNow,
    /// The cancel came in time: the last word on a cancelled request.
    Cancelled,
}

/// What happened, in the words of the shell.
///
/// Events about requests, peers and blobs that the scheduler no longer knows are ignored, so the shell needs no
/// bookkeeping of races. See the module's documentation for what must be sent when.
#[derive(Clone, Debug)]
pub enum Event<P> {
    /// Fetch this blob. Wanted already: the sources are added, the more urgent class holds, `held` is ignored.
    Want {
        /// Name and size.
        blob: BlobRef,
        /// What it is for.
        class: Class,
        /// The pieces that the store holds; a set of another count counts as none.
        held: PieceSet,
        /// Peers said to hold it, the likeliest first: asked before others, dialled if not connected.
        sources: Vec<P>,
    },
    /// More peers said to hold a wanted blob.
    Sources {
        /// The blob.
        root: Digest,
        /// The peers.
        peers: Vec<P>,
    },
    /// Nobody waits for this blob any more, or the store cannot take it.
    Unwant {
        /// The blob.
        root: Digest,
    },
    /// A peer is connected and speaks the exchange. A peer that was up starts anew.
    Up {
        /// The peer.
        peer: P,
    },
    /// A peer is gone, and with it all its requests.
    Down {
        /// The peer.
        peer: P,
    },
    /// A peer's whole set of a blob (BITFIELD): replaces what was known.
    Holds {
        /// The peer.
        peer: P,
        /// The blob.
        root: Digest,
        /// What it holds, of as many pieces as the blob has.
        set: PieceSet,
    },
    /// Pieces that a peer has got (HAVE).
    Have {
        /// The peer.
        peer: P,
        /// The blob.
        root: Digest,
        /// Runs of pieces; what lies beyond the blob is ignored.
        runs: Vec<Range<u32>>,
    },
    /// The first byte of a request's answer came.
    First {
        /// The request.
        request: RequestId,
    },
    /// A group came, was verified and is written.
    Group {
        /// The request.
        request: RequestId,
        /// The group, counted from the blob's first.
        group: u64,
    },
    /// All of a request's answer came.
    Done {
        /// The request.
        request: RequestId,
    },
    /// The peer refused a request.
    Rejected {
        /// The request.
        request: RequestId,
        /// Why.
        why: Rejected,
    },
    /// Bytes that do not verify came in answer to a request.
    Wrong {
        /// The request.
        request: RequestId,
    },
    /// A request ended without an answer though its peer is there: its stream broke, or could not be opened.
    Failed {
        /// The request.
        request: RequestId,
    },
    /// The time of [`Scheduler::next_tick`](super::Scheduler::next_tick) has come.
    Tick,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<P> {
    /// Send WANT: have the peer say what it holds of a blob, now and from now on.
    Ask {
        /// The peer.
        peer: P,
        /// The blob.
        blob: BlobRef,
    },
    /// Send UNWANT: its holdings of a blob are of no more interest.
    Leave {
        /// The peer.
        peer: P,
        /// The blob.
        root: Digest,
    },
    /// Send REQUEST.
    Request {
        /// The request.
        request: RequestId,
        /// The peer.
        peer: P,
        /// The blob.
        blob: BlobRef,
        /// The stream's class.
        class: Class,
        /// At most 64 groups inside one piece.
        groups: Range<u64>,
    },
    /// Send CANCEL. The request stays open until its answer or refusal; groups that come still count.
    Cancel {
        /// The request.
        request: RequestId,
        /// The peer.
        peer: P,
    },
    /// Connect to this peer, if it can be: it is said to hold a wanted blob.
    Dial {
        /// The peer.
        peer: P,
    },
    /// The peer misbehaved. After [`Misdeed::WrongBytes`] nothing is asked of it before it is `Up` again: ban it.
    Punish {
        /// The peer.
        peer: P,
        /// The blob in question.
        root: Digest,
        /// What it did.
        why: Misdeed,
    },
    /// All groups of a blob came. It is forgotten; should the store lack a piece of it all the same, want it again.
    Complete {
        /// The blob.
        root: Digest,
    },
    /// No peer at hand holds some missing piece, or nothing came for a while: look for providers, and send
    /// [`Event::Sources`]. Said again from time to time while it is so.
    Stuck {
        /// The blob.
        root: Digest,
    },
    /// The blob is not fetched.
    Refused {
        /// The blob.
        blob: BlobRef,
        /// Why not.
        why: Refusal,
    },
}

/// Why a blob is not fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It cannot be cut into pieces.
    #[error("a blob of {size} bytes is larger than any that is exchanged")]
    TooLarge {
        /// Its size.
        size: u64,
    },
    /// Enough is wanted already.
    #[error("{blobs} blobs of {pieces} pieces are wanted already; wait for one to end, or raise the limits")]
    TooMuch {
        /// Blobs wanted.
        blobs: usize,
        /// Their pieces in all.
        pieces: u64,
    },
    /// The root is wanted already, as a blob of another size: one of the two sizes is wrong.
    #[error("the same root is being fetched as a blob of {size} bytes")]
    OtherSize {
        /// The size under which it is wanted.
        size: u64,
    },
}

/// What a peer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misdeed {
    /// Sent bytes that do not verify: ban.
    WrongBytes,
    /// Refused, again and again, what it said it holds. May be an accident of its disk: its bits of that blob count
    /// nothing for a while, more need not follow.
    FalseHoldings,
}

/// The bounds and patience of a scheduler. Every default carries its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Blobs wanted at once: 256, what a peer's holdings stream takes.
    pub blobs_max: usize,
    /// Pieces of all wanted blobs: 4 Mi, about 10 MiB of tables.
    pub pieces_max: u64,
    /// Peers known at once: 1024, above any limit of connections.
    pub peers_max: usize,
    /// Hinted sources remembered a blob: 64.
    pub hints_max: usize,
    /// Peers asked what they hold of a blob: 32 make rarity meaningful; more cost HAVEs for nothing.
    pub wants_per_blob_max: usize,
    /// Blobs that one peer is asked about: 256, the other side's bound.
    pub wants_per_peer_max: usize,
    /// Bytes of sets kept for one peer: 2 MiB, so that 128 peers' fit 256 MiB at the very worst.
    pub set_bytes_per_peer_max: usize,
    /// Requests open with one peer: 64, the server's bound.
    pub requests_per_peer_max: usize,
    /// Bytes asked of one peer, at least what may be open: 2 MiB, two requests of 1 MiB.
    pub window_min: u64,
    /// Bytes open with one peer: 32 MiB, the server's bound, 2 × 110 ms at 1 Gbit/s and more.
    pub window_max: u64,
    /// Bytes open with all peers: 128 MiB.
    pub in_flight_max: u64,
    /// Requests of one piece's size that a new peer gets: 4.
    pub first_requests: u64,
    /// A peer without progress for so long, or for four round trips, has its requests moved: 4 s.
    pub stall: Duration,
    /// A single request without progress for so long is moved though its peer delivers others: 60 s.
    pub request_stall: Duration,
    /// Time over which a peer's rate is compared with the others': 10 s.
    pub slow_over: Duration,
    /// Per cent of the others' median below which a peer is slow: 5.
    pub slow_percent: u64,
    /// How often a peer's requests are moved before it rests: 3.
    pub strikes_max: u32,
    /// How long it rests then: 60 s.
    pub rest: Duration,
    /// Occasions on which a peer may refuse what it said it holds of a blob, before its bits count nothing: 3.
    pub false_claims_max: u32,
    /// Per cent of a blob's bytes that may be asked twice in the end game: 3.
    pub duplicate_percent: u64,
    /// Per cent of what is asked that goes to a less urgent class while a more urgent one has work: 5.
    pub trickle_percent: u64,
    /// How long nothing may come before a fetch is said to be stuck: 5 s.
    pub stuck_after: Duration,
    /// How often that is said again: 30 s.
    pub stuck_again: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        let mib = 1 << 20;
        Limits {
            blobs_max: 256,
            pieces_max: 4 << 20,
            peers_max: 1024,
            hints_max: 64,
            wants_per_blob_max: 32,
            wants_per_peer_max: 256,
            set_bytes_per_peer_max: 2 * mib as usize,
            requests_per_peer_max: 64,
            window_min: 2 * mib,
            window_max: 32 * mib,
            in_flight_max: 128 * mib,
            first_requests: 4,
            stall: Duration::from_secs(4),
            request_stall: Duration::from_secs(60),
            slow_over: Duration::from_secs(10),
            slow_percent: 5,
            strikes_max: 3,
            rest: Duration::from_secs(60),
            false_claims_max: 3,
            duplicate_percent: 3,
            trickle_percent: 5,
            stuck_after: Duration::from_secs(5),
            stuck_again: Duration::from_secs(30),
        }
    }
}

/// How a fetch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The blob.
    pub blob: BlobRef,
    /// What it is for.
    pub class: Class,
    /// Pieces held.
    pub pieces: u32,
    /// Pieces there are.
    pub pieces_all: u32,
    /// Bytes held: whole pieces, and groups of begun ones.
    pub bytes: u64,
    /// Peers asked what they hold.
    pub peers: usize,
    /// Peers of these that hold something that is missing here.
    pub holders: usize,
    /// Requests open, cancelled ones apart.
    pub requests: usize,
    /// Bytes a second that came lately.
    pub rate: u64,
    /// How many peers hold the rarest piece that is neither held nor begun; none where there is no such piece.
    pub rarest: Option<u32>,
    /// Bytes that came twice.
    pub duplicate_bytes: u64,
}
