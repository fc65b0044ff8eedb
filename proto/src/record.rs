//! The chain record: what a hotkey commits. One fixed little-endian layout, no trailing bytes.
//!
//! `[0]` 0xC5 · `[1]` version 1 in the high nibble, bit 0 contribution, bit 1 vote · `[2..10]` the run id's first eight
//! bytes · contribution: round u32, manifest digest 32 · vote: round u32, head 32, bitmap 32. 46, 78 or 114 bytes.

use crate::{Digest, Round, RunId, Uid};

const MAGIC: u8 = 0xC5;
const VERSION: u8 = 1 << 4;
const HAS_CONTRIBUTION: u8 = 1;
const HAS_VOTE: u8 = 2;

/// A set of uids: bit u is byte u/8, bit u mod 8.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct UidSet([u8; 32]);

impl UidSet {
    /// The set with these bits.
    pub const fn from_bytes(bytes: [u8; 32]) -> UidSet {
        UidSet(bytes)
    }
    /// Its bits.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
    /// Adds a uid.
    pub fn insert(&mut self, uid: Uid) {
        self.0[uid.index() / 8] |= 1 << (uid.index() % 8);
    }
    /// Takes a uid out.
    pub fn remove(&mut self, uid: Uid) {
        self.0[uid.index() / 8] &= !(1 << (uid.index() % 8));
    }
    /// Whether it holds a uid.
    pub fn contains(&self, uid: Uid) -> bool {
        self.0[uid.index() / 8] >> (uid.index() % 8) & 1 == 1
    }
    /// How many it holds.
    pub fn len(&self) -> usize {
        self.0.iter().map(|byte| byte.count_ones() as usize).sum()
    }
    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 32]
    }
    /// Its uids, rising.
    pub fn iter(&self) -> impl Iterator<Item = Uid> + '_ {
        (0..=u8::MAX).map(Uid::from).filter(|uid| self.contains(*uid))
    }
}

impl FromIterator<Uid> for UidSet {
    fn from_iter<I: IntoIterator<Item = Uid>>(uids: I) -> UidSet {
        let mut set = UidSet::default();
        uids.into_iter().for_each(|uid| set.insert(uid));
        set
    }
}

impl std::fmt::Debug for UidSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter().map(Uid::number)).finish()
    }
}

/// A miner's promise: this manifest, for this round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contribution {
    /// The round.
    pub round: Round,
    /// The manifest's digest.
    pub manifest: Digest,
}

/// A validator's ballot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// The round.
    pub round: Round,
    /// head(round − 1); zero: "I have none".
    pub head: Digest,
    /// The contributions that count.
    pub ballot: UidSet,
}

/// What a hotkey commits on chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The run id's first eight bytes.
    pub run: [u8; 8],
    /// As a miner.
    pub contribution: Option<Contribution>,
    /// As a validator.
    pub vote: Option<Vote>,
}

/// Why bytes in a slot are no record. Slots hold other software's bytes too: this is no offence.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordError {
    /// Another layout or version.
    #[error("not a version 1 record")]
    Foreign,
    /// The flags ask for another length.
    #[error("{got} bytes; its flags ask for {needed}")]
    Length {
        /// Bytes there.
        got: usize,
        /// Bytes its flags ask for.
        needed: usize,
    },
}

impl Record {
    /// An empty record of a run.
    pub fn of(run: RunId) -> Record {
        Record { run: run.0.prefix(), contribution: None, vote: None }
    }

    /// Whether it is this run's.
    pub fn is_of(&self, run: RunId) -> bool {
        self.run == run.0.prefix()
    }

    /// The bytes for the chain.
    pub fn to_bytes(&self) -> Vec<u8> {
        let flags =
            (HAS_CONTRIBUTION * u8::from(self.contribution.is_some())) | (HAS_VOTE * u8::from(self.vote.is_some()));
        let mut bytes = Vec::with_capacity(length(flags));
        bytes.extend([MAGIC, VERSION | flags]);
        bytes.extend(self.run);
        if let Some(contribution) = &self.contribution {
            bytes.extend(contribution.round.0.to_le_bytes());
            bytes.extend(contribution.manifest.as_bytes());
        }
        if let Some(vote) = &self.vote {
            bytes.extend(vote.round.0.to_le_bytes());
            bytes.extend(vote.head.as_bytes());
            bytes.extend(vote.ballot.as_bytes());
        }
        bytes
    }

    /// Reads a slot.
    ///
    /// # Errors
    /// Bytes of another layout, version or length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Record, RecordError> {
        let [MAGIC, kind, rest @ ..] = bytes else {
            return Err(RecordError::Foreign);
        };
        let flags = kind & 0x0f;
        if kind & 0xf0 != VERSION || flags == 0 || flags & !(HAS_CONTRIBUTION | HAS_VOTE) != 0 {
            return Err(RecordError::Foreign);
        }
        let wrong_length = RecordError::Length { got: bytes.len(), needed: length(flags) };
        if bytes.len() != length(flags) {
            return Err(wrong_length);
        }
        let mut rest = rest;
        let mut read = || -> Option<Record> {
            let run = take(&mut rest)?;
            let contribution = match flags & HAS_CONTRIBUTION {
                0 => None,
                _ => Some(Contribution { round: take_round(&mut rest)?, manifest: Digest::new(take(&mut rest)?) }),
            };
            let vote = match flags & HAS_VOTE {
                0 => None,
                _ => Some(Vote {
                    round: take_round(&mut rest)?,
                    head: Digest::new(take(&mut rest)?),
                    ballot: UidSet(take(&mut rest)?),
                }),
            };
            Some(Record { run, contribution, vote })
        };
        read().ok_or(wrong_length)
    }
}

fn length(flags: u8) -> usize {
    10 + if flags & HAS_CONTRIBUTION != 0 { 36 } else { 0 } + if flags & HAS_VOTE != 0 { 68 } else { 0 }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn take_round(rest: &mut &[u8]) -> Option<Round> {
    take(rest).map(|bytes| Round(u32::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_record() -> impl Strategy<Value = Record> {
        let contribution = (any::<u32>(), any::<[u8; 32]>())
            .prop_map(|(round, digest)| Contribution { round: Round(round), manifest: Digest::new(digest) });
        let vote = (any::<u32>(), any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(|(round, head, bits)| Vote {
            round: Round(round),
            head: Digest::new(head),
            ballot: UidSet(bits),
        });
        (any::<[u8; 8]>(), proptest::option::of(contribution), proptest::option::of(vote))
            .prop_map(|(run, contribution, vote)| Record { run, contribution, vote })
            .prop_filter("a record holds something", |record| record.contribution.is_some() || record.vote.is_some())
    }

    proptest! {
        #[test]
        fn a_record_survives_its_bytes(record in any_record()) {
            let bytes = record.to_bytes();
            prop_assert!([46, 78, 114].contains(&bytes.len()));
            prop_assert_eq!(Record::from_bytes(&bytes), Ok(record));
        }

        #[test]
        fn foreign_bytes_never_panic_and_have_one_reading(bytes in proptest::collection::vec(any::<u8>(), 0..130)) {
            if let Ok(record) = Record::from_bytes(&bytes) {
                prop_assert_eq!(record.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let vote = Vote {
            round: Round(3),
            head: Digest::new([9; 32]),
            ballot: [Uid::from(1), Uid::from(255)].into_iter().collect(),
        };
        let record = Record { run: [7; 8], contribution: None, vote: Some(vote) };
        let bytes = record.to_bytes();
        assert_eq!(&bytes[..14], &[0xC5, 0x12, 7, 7, 7, 7, 7, 7, 7, 7, 3, 0, 0, 0]);
        assert_eq!((bytes[46], bytes[77], bytes.len()), (2, 128, 78));
    }
}
