//! The peer-to-peer half of Covey: says what exists, moves the bytes.
//!
//! Start with [`start`] and [`Handle`]: all that others see, with a stream of [`Event`]s. [`store`] keeps what was
//! verified. `exchange` decides what to ask of whom, `peers` whom to know: neither touches a socket. `swarm` is where
//! libp2p lives, and where it ends.
//!
//! # On the wire
//! Messages are those of `covey.proto`, canonical: what does not encode again to the same bytes is refused. Integers
//! outside protobuf are little-endian.
//!
//! **Connections.** libp2p over TCP (Noise, then yamux) and over QUIC v1; a peer's id is that of its ed25519 key.
//! Spoken on them: `/covey/1/get` (below), gossipsub (`/meshsub/1.3.0` down to `1.0.0`), `/ipfs/id/1.0.0` with protocol
//! version `/covey/1`, `/ipfs/ping/1.0.0`. Of two connections between two peers that both last 5 s, both sides close the
//! one that the peer of the larger id (bytes compared) dialled.
//!
//! **Requests.** `/covey/1/get`: a stream carries one request and one response, each as a u32 length and so many bytes.
//! A `Request` is at most [4,096 bytes](covey_proto::message::REQUEST_BYTES_MAX), a `Response` at most
//! [16 MiB + 1 KiB](covey_proto::message::RESPONSE_BYTES_MAX); a larger length ends the acquaintance before a byte of it
//! is read.
//! - `blob` asks for the blob of a name: `blob` with its bytes, or `nothing`.
//! - `announcements` asks for a round's announcements but for the uids of a bitmap: `announcements`, at most 8 MiB of
//!   them by uid rising, and no more than 256 less the bitmap's uids; who asks again with what it has now gets the rest.
//! - `record` shows the asker's signed peer record: `record` with the other's, or `nothing` from who has none. Sent
//!   when peers connect and when a record changes.
//! - anything else: `nothing`, so that later versions may ask more.
//!
//! A stream that is closed without a response was refused for the number of requests: ask less, later.
//!
//! **Gossip.** Topics are plain strings: `/covey/1/RUN/gradients` and `/covey/1/RUN/peers`, RUN the run id in 64
//! hexadecimal digits. Messages have no author, signature or sequence number; a message's id is the first 20 bytes of
//! BLAKE3(u32 length of the topic ‖ topic ‖ data). Subscriptions to other topics are ignored. Nothing is passed on
//! before it is judged.
//! - *gradients*: an `Announcement` of at most [512 KiB](covey_proto::message::ANNOUNCEMENT_BYTES_MAX). The node judges.
//! - *peers*: a u32 of any value and a `SignedPeerRecord` of at most
//!   [2,048 bytes](covey_proto::message::PEER_RECORD_BYTES_MAX). The u32 makes a repetition another message. A member
//!   sends its record when it changes and each minute, and introduces others to new neighbours. Bytes that are no
//!   canonical record, or a signature that does not hold, are rejected; a record of a higher sequence than known is
//!   passed on (at most 4 at once and one in 30 s a uid), a known one too (2 at once, one in 30 s); the rest is ignored.
//!
//! **Peer records.** A record binds a peer to a uid when the peer itself shows it by `record`: it names that peer, this
//! genesis and netuid, and the uid, hotkey and registration of a member at the node's last final block, and has not
//! expired. The highest sequence of a (uid, hotkey, registration) wins; two different records of one sequence void each
//! other until a higher one. A peer has one uid and a uid one peer. Records heard by gossip only say where to dial.
//!
//! **Penalties.** Wrong bytes for a blob, a response that is no canonical one or not of the kind asked for, a length
//! above the limit, more announcements than uids were left, a record with a false signature or another's peer id: the peer, and the member it speaks for, are
//! refused for ten minutes. Two rejected gossip messages take a peer's score below −200, with the same effect. A blob
//! whose bytes verify but are of another size than the asker was told costs nobody anything but the asker.

mod config;
mod event;
mod exchange;
mod handle;
mod identity;
mod links;
mod peers;
mod shared;
mod swarm;
mod traffic;

pub use config::{Config, Limits};
/// The blob store.
pub use covey_blobs as store;
pub use covey_exchange::Class;
pub use covey_exchange::governor::{ByteRate, GovernorLimits};
pub use covey_exchange::scheduler::{Limits as SchedulerLimits, Progress};
pub use event::{Event, Events, Ticket, Verdict};
pub use exchange::serve::ServeLimits;
pub use exchange::wanted::{FetchError, FetchLimits, Hint};
pub use handle::{Handle, PeerInfo, PublishError, Published};
pub use identity::IdentityError;
pub use links::LinkLimits;
pub use peers::admission::ConnectionLimits;
pub use peers::bucket::Rate;
pub use peers::{NotAPeer, PeerKey};
pub use swarm::{StartError, start};
pub use traffic::{Tally, Traffic};
