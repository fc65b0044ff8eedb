//! The frames of the two stream protocols, as bytes: canonical, and bounded before anything waits or allocates for them.
//!
//! A frame is a length (u32, of what follows it), a kind (u8) and a body; integers are little-endian. Which kinds may come
//! depends on the protocol and on the side, so each of the four directions has a type: [`Wish`] and [`Holding`] on
//! [`HOLDINGS`], [`Order`] and [`Answer`] on [`PIECES`]. [`split`] takes the first frame off some bytes or says how many
//! it needs; whoever has the stream decides where they are kept. The bytes of a PIECE are not looked at here: they follow
//! its head on the stream.

use crate::Class;
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::{GROUP_BYTES, PARENT_BYTES, PIECES_MAX, Pieces};
use std::ops::Range;

/// Who holds what: the opener sends [`Wish`]es and gets [`Holding`]s.
pub const HOLDINGS: &str = "/covey/1/holdings";
/// Pieces themselves: the opener sends [`Order`]s and gets [`Answer`]s.
pub const PIECES: &str = "/covey/1/pieces";
/// What HELLO says.
pub const VERSION: u8 = 1;

/// Groups of a request: those of the largest piece.
pub const REQUEST_GROUPS_MAX: u64 = 64;
/// Runs of one HAVE: 8 KiB of them, which no batch needs.
pub const HAVE_RUNS_MAX: usize = 1024;
/// Bytes of a PIECE's answer: every group of the largest piece, the nodes between them, and those on the way down a tree
/// of 2³² groups, twice.
pub const ANSWER_BYTES_MAX: usize =
    (REQUEST_GROUPS_MAX * GROUP_BYTES + PARENT_BYTES * (REQUEST_GROUPS_MAX + 64)) as usize;
/// Bytes of any frame but PIECE, length and all: the largest BITFIELD.
pub const CONTROL_BYTES_MAX: usize = HEAD_BYTES + 32 + (PIECES_MAX / 8) as usize;

/// Length and kind.
const HEAD_BYTES: usize = 5;

const WANT: u8 = 0x01;
const UNWANT: u8 = 0x02;
const BITFIELD: u8 = 0x03;
const HAVE: u8 = 0x04;
const HELLO: u8 = 0x10;
const REQUEST: u8 = 0x11;
const CANCEL: u8 = 0x12;
const PIECE: u8 = 0x13;
const REJECT: u8 = 0x14;

/// Why bytes are no frame that may come here: only a peer that breaks the protocol sends them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length of zero: not even a kind.
    #[error("a frame of no bytes")]
    Empty,
    /// A kind that is none, or one of the other side.
    #[error("a frame of kind {0:#04x}, which may not come here")]
    Kind(u8),
    /// A body that this kind cannot have.
    #[error("the body of a {kind} is {got} bytes; it has {least} to {most}")]
    Length {
        /// The frame's name.
        kind: &'static str,
        /// Bytes that its length tells.
        got: usize,
        /// The fewest that it can have.
        least: usize,
        /// The most.
        most: usize,
    },
    /// Another version of the protocol.
    #[error("HELLO of version {0}; this is version {VERSION}")]
    Version(u8),
    /// A class that is none.
    #[error("HELLO of class {0}; classes are 0, 1 and 2")]
    Class(u8),
    /// A blob larger than any that is exchanged.
    #[error("a blob of {0} bytes is larger than any that is exchanged")]
    Size(u64),
    /// Groups that are none, too many, beyond the blob's end, or of two pieces.
    #[error("{count} groups from {first} are not within one piece of a blob of {size} bytes")]
    Groups {
        /// The first group.
        first: u64,
        /// How many.
        count: u16,
        /// The blob's bytes.
        size: u64,
    },
    /// Runs that are empty, do not rise, touch, or end beyond every blob.
    #[error("HAVE with a run of {count} pieces from {first}: runs are not empty, rise, and lie apart")]
    Run {
        /// The run's first piece.
        first: u32,
        /// Its pieces.
        count: u32,
    },
    /// A reason that is none.
    #[error("REJECT with code {0}; codes are 1 to 4")]
    Code(u8),
}

/// What the opener of a holdings stream sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// WANT: tell what you hold of this blob, and go on telling.
    Want(BlobRef),
    /// UNWANT: no more.
    Unwant(Digest),
}

/// What the other side of a holdings stream sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding {
    /// BITFIELD: exactly these pieces. How many bits count follows from the size that was told with WANT.
    Bitfield {
        /// The blob.
        root: Digest,
        /// A bit each piece, as [`PieceSet::as_bytes`](covey_proto::pieces::PieceSet::as_bytes) has them.
        set: Vec<u8>,
    },
    /// HAVE: these pieces too.
    Have {
        /// The blob.
        root: Digest,
        /// Runs of pieces, rising and apart, at least one.
        runs: Vec<Range<u32>>,
    },
}

/// What the opener of a pieces stream sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// HELLO, first and once: what the stream is for.
    Hello(Class),
    /// REQUEST.
    Request(Asked),
    /// CANCEL: the request of this id is not needed any more.
    Cancel(u32),
}

/// A request: some groups of one piece of one blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The requester's number for it.
    pub id: u32,
    /// The blob.
    pub blob: BlobRef,
    /// The groups: at least one, at most [`REQUEST_GROUPS_MAX`], all of one piece of the blob.
    pub groups: Range<u64>,
}

impl Asked {
    /// Checks that such groups can be asked for.
    ///
    /// # Errors
    /// A blob that is too large, or groups that are not within one of its pieces.
    pub fn new(id: u32, blob: BlobRef, first: u64, count: u16) -> Result<Asked, FrameError> {
        let pieces = Pieces::of_blob(&blob).ok_or(FrameError::Size(blob.size))?;
        let end = first.saturating_add(u64::from(count));
        // A piece has no more groups than a request may name.
        let inside = count > 0 && end <= pieces.groups() && pieces.piece_of(first) == pieces.piece_of(end - 1);
        if inside {
            Ok(Asked { id, blob, groups: first..end })
        } else {
            Err(FrameError::Groups { first, count, size: blob.size })
        }
    }

    /// Bytes of the answer.
    pub fn answer_bytes(&self) -> usize {
        Pieces::of_blob(&self.blob).map_or(0, |pieces| pieces.answer_bytes(self.groups.clone()) as usize)
    }
}

/// What the other side of a pieces stream sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// PIECE: so many bytes of verified encoding follow.
    Piece {
        /// The request's.
        id: u32,
        /// Bytes that follow.
        bytes: usize,
    },
    /// REJECT: there will be none.
    Reject {
        /// The request's.
        id: u32,
        /// Why.
        why: Reject,
    },
}

/// Why a request is not answered with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reject {
    /// Not held, or not any more.
    NotHeld,
    /// Too many requests, or too many bytes, are waiting: ask less.
    TooMuch,
    /// Not now: ask later.
    NotNow,
    /// It was cancelled before its turn.
    Cancelled,
}

impl Reject {
    /// All, by code.
    pub const ALL: [Reject; 4] = [Reject::NotHeld, Reject::TooMuch, Reject::NotNow, Reject::Cancelled];

    /// Its byte on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Reject::NotHeld => 1,
            Reject::TooMuch => 2,
            Reject::NotNow => 3,
            Reject::Cancelled => 4,
        }
    }

    fn from_code(code: u8) -> Result<Reject, FrameError> {
        Reject::ALL.into_iter().find(|why| why.code() == code).ok_or(FrameError::Code(code))
    }
}

/// What [`split`] finds at the start of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Split<F> {
    /// A frame, and how many bytes it took. A [`Answer::Piece`] takes its head's only.
    Frame(F, usize),
    /// Nothing yet: there must be so many bytes in all. Never above [`CONTROL_BYTES_MAX`].
    Need(usize),
}

/// The frames of one side of one protocol.
pub trait Frame: Sized {
    /// How many bytes of a body of `body` bytes must be there to read the frame.
    ///
    /// # Errors
    /// A kind that may not come, or a length that it cannot have.
    fn needed(kind: u8, body: usize) -> Result<usize, FrameError>;

    /// Reads a frame, whose body has `body` bytes, from as many of them as [`Frame::needed`] says.
    ///
    /// # Errors
    /// A body that is none of this kind.
    fn decode(kind: u8, body: usize, bytes: &[u8]) -> Result<Self, FrameError>;

    /// Appends its bytes.
    fn encode(&self, out: &mut Vec<u8>);
}

/// Takes the first frame off `bytes`.
///
/// # Errors
/// Bytes that cannot become a frame of this side. Nothing may be read from the stream after that.
pub fn split<F: Frame>(bytes: &[u8]) -> Result<Split<F>, FrameError> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Ok(Split::Need(HEAD_BYTES));
    };
    let [a, b, c, d, kind] = *head;
    let body = (u32::from_le_bytes([a, b, c, d]) as usize).checked_sub(1).ok_or(FrameError::Empty)?;
    let needed = F::needed(kind, body)?;
    match rest.get(..needed) {
        Some(bytes) => Ok(Split::Frame(F::decode(kind, body, bytes)?, HEAD_BYTES + needed)),
        None => Ok(Split::Need(HEAD_BYTES + needed)),
    }
}

/// Appends length and kind of a frame whose body has `body` bytes.
fn begin(kind: u8, body: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(body as u32 + 1).to_le_bytes());
    out.push(kind);
}

/// `body`, if it is within the bounds of its kind.
fn within(kind: &'static str, body: usize, least: usize, most: usize) -> Result<usize, FrameError> {
    if (least..=most).contains(&body) { Ok(body) } else { Err(FrameError::Length { kind, got: body, least, most }) }
}

/// Reads a body whose length was checked; beyond its end there are zeros.
struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((taken, rest)) => {
                self.0 = rest;
                *taken
            }
            None => [0; N],
        }
    }
    fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }
    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
    fn digest(&mut self) -> Digest {
        Digest::new(self.take())
    }
}

impl Frame for Wish {
    fn needed(kind: u8, body: usize) -> Result<usize, FrameError> {
        match kind {
            WANT => within("WANT", body, 40, 40),
            UNWANT => within("UNWANT", body, 32, 32),
            _ => Err(FrameError::Kind(kind)),
        }
    }

    fn decode(kind: u8, _: usize, bytes: &[u8]) -> Result<Wish, FrameError> {
        let mut body = Body(bytes);
        let root = body.digest();
        if kind != WANT {
            return Ok(Wish::Unwant(root));
        }
        let blob = BlobRef { root, size: body.u64() };
        Pieces::of_blob(&blob).ok_or(FrameError::Size(blob.size))?;
        Ok(Wish::Want(blob))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Wish::Want(blob) => {
                begin(WANT, 40, out);
                out.extend_from_slice(blob.root.as_bytes());
                out.extend_from_slice(&blob.size.to_le_bytes());
            }
            Wish::Unwant(root) => {
                begin(UNWANT, 32, out);
                out.extend_from_slice(root.as_bytes());
            }
        }
    }
}

impl Frame for Holding {
    fn needed(kind: u8, body: usize) -> Result<usize, FrameError> {
        match kind {
            BITFIELD => within("BITFIELD", body, 33, CONTROL_BYTES_MAX - HEAD_BYTES),
            HAVE => {
                let (least, most) = (32 + 8, 32 + 8 * HAVE_RUNS_MAX);
                let body = within("HAVE", body, least, most)?;
                if body % 8 == 0 { Ok(body) } else { Err(FrameError::Length { kind: "HAVE", got: body, least, most }) }
            }
            _ => Err(FrameError::Kind(kind)),
        }
    }

    fn decode(kind: u8, _: usize, bytes: &[u8]) -> Result<Holding, FrameError> {
        let mut body = Body(bytes);
        let root = body.digest();
        if kind == BITFIELD {
            return Ok(Holding::Bitfield { root, set: body.0.to_vec() });
        }
        let mut runs: Vec<Range<u32>> = Vec::with_capacity(body.0.len() / 8);
        while !body.0.is_empty() {
            let (first, count) = (body.u32(), body.u32());
            let end = first.checked_add(count).filter(|end| count > 0 && u64::from(*end) <= PIECES_MAX);
            let apart = runs.last().is_none_or(|before| before.end < first);
            match end {
                Some(end) if apart => runs.push(first..end),
                _ => return Err(FrameError::Run { first, count }),
            }
        }
        Ok(Holding::Have { root, runs })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Holding::Bitfield { root, set } => {
                begin(BITFIELD, 32 + set.len(), out);
                out.extend_from_slice(root.as_bytes());
                out.extend_from_slice(set);
            }
            Holding::Have { root, runs } => {
                begin(HAVE, 32 + 8 * runs.len(), out);
                out.extend_from_slice(root.as_bytes());
                for run in runs {
                    out.extend_from_slice(&run.start.to_le_bytes());
                    out.extend_from_slice(&(run.end - run.start).to_le_bytes());
                }
            }
        }
    }
}

impl Frame for Order {
    fn needed(kind: u8, body: usize) -> Result<usize, FrameError> {
        match kind {
            HELLO => within("HELLO", body, 2, 2),
            REQUEST => within("REQUEST", body, 54, 54),
            CANCEL => within("CANCEL", body, 4, 4),
            _ => Err(FrameError::Kind(kind)),
        }
    }

    fn decode(kind: u8, _: usize, bytes: &[u8]) -> Result<Order, FrameError> {
        let mut body = Body(bytes);
        match kind {
            HELLO => {
                let (version, class) = (body.u8(), body.u8());
                if version != VERSION {
                    return Err(FrameError::Version(version));
                }
                Class::from_number(class).map(Order::Hello).ok_or(FrameError::Class(class))
            }
            REQUEST => {
                let (id, root, size) = (body.u32(), body.digest(), body.u64());
                Asked::new(id, BlobRef { root, size }, body.u64(), body.u16()).map(Order::Request)
            }
            _ => Ok(Order::Cancel(body.u32())),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Order::Hello(class) => {
                begin(HELLO, 2, out);
                out.extend_from_slice(&[VERSION, class.number()]);
            }
            Order::Request(Asked { id, blob, groups }) => {
                begin(REQUEST, 54, out);
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(blob.root.as_bytes());
                out.extend_from_slice(&blob.size.to_le_bytes());
                out.extend_from_slice(&groups.start.to_le_bytes());
                out.extend_from_slice(&((groups.end - groups.start) as u16).to_le_bytes());
            }
            Order::Cancel(id) => {
                begin(CANCEL, 4, out);
                out.extend_from_slice(&id.to_le_bytes());
            }
        }
    }
}

impl Frame for Answer {
    fn needed(kind: u8, body: usize) -> Result<usize, FrameError> {
        match kind {
            PIECE => within("PIECE", body, 4, 4 + ANSWER_BYTES_MAX).map(|_| 4),
            REJECT => within("REJECT", body, 5, 5),
            _ => Err(FrameError::Kind(kind)),
        }
    }

    fn decode(kind: u8, length: usize, bytes: &[u8]) -> Result<Answer, FrameError> {
        let mut body = Body(bytes);
        let id = body.u32();
        if kind == PIECE {
            return Ok(Answer::Piece { id, bytes: length.saturating_sub(4) });
        }
        Ok(Answer::Reject { id, why: Reject::from_code(body.u8())? })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Answer::Piece { id, bytes } => {
                begin(PIECE, 4 + bytes, out);
                out.extend_from_slice(&id.to_le_bytes());
            }
            Answer::Reject { id, why } => {
                begin(REJECT, 5, out);
                out.extend_from_slice(&id.to_le_bytes());
                out.push(why.code());
            }
        }
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
