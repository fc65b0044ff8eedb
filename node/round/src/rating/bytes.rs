//! Ratings on disk: a fixed little-endian layout, checked when read back.
//!
//! `CVYRAT01` · rated u8 (0 or 1), last round u32 · count u16 · per peer by uid rising: uid u8, hotkey 32, registered_at
//! u32, μ f64, σ f64, average f64, evaluations u32, evaluated u32, absent u32, gains u8 and 8 × f64 (the rest zero).

use super::{GAINS_KEPT, PeerKey, Rating, Ratings, Skill};
use covey_proto::run::Scoring;
use covey_proto::{BlockNumber, Hotkey, Round, Uid};
use std::collections::BTreeMap;

const KIND: &[u8; 8] = b"CVYRAT01";
const HEAD_BYTES: usize = 8 + 5 + 2;
const PEER_BYTES: usize = 37 + 24 + 12 + 1 + 8 * GAINS_KEPT;
/// Bytes of the ratings of 256 peers: 35,343.
pub const BYTES_MAX: usize = HEAD_BYTES + 256 * PEER_BYTES;

/// Why bytes are no ratings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RatingsError {
    /// Another kind, version or length: a torn write, or another program's.
    #[error("{got} bytes are no ratings; move the file away to start with none")]
    Layout {
        /// Bytes that came.
        got: usize,
    },
    /// A value that ratings never hold.
    #[error("{field} of peer {index} is out of range; move the file away to start with none")]
    Value {
        /// The field.
        field: &'static str,
        /// Which peer of the file, from 0.
        index: usize,
    },
}

impl Ratings {
    /// The ratings for the disk, at most [`BYTES_MAX`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.peers.len() * PEER_BYTES);
        bytes.extend(KIND);
        bytes.push(self.last.is_some().into());
        bytes.extend(self.last.unwrap_or_default().0.to_le_bytes());
        bytes.extend(u16::try_from(self.peers.len()).expect("at most 256 uids").to_le_bytes());
        for (peer, rating) in self.peers.values() {
            bytes.push(peer.uid.index() as u8);
            bytes.extend(peer.hotkey.as_bytes());
            bytes.extend(peer.registered_at.0.to_le_bytes());
            for value in [rating.skill.mu, rating.skill.sigma, rating.average] {
                bytes.extend(value.to_le_bytes());
            }
            for value in [rating.evaluations, rating.evaluated.0, rating.absent] {
                bytes.extend(value.to_le_bytes());
            }
            bytes.push(rating.gains.len() as u8);
            for index in 0..GAINS_KEPT {
                bytes.extend(rating.gains.get(index).copied().unwrap_or(0.0).to_le_bytes());
            }
        }
        bytes
    }

    /// Ratings that [`Ratings::to_bytes`] gave.
    ///
    /// # Errors
    /// [`RatingsError`]: bytes of another length or kind, or values that ratings never hold.
    pub fn from_bytes(scoring: &Scoring, bytes: &[u8]) -> Result<Ratings, RatingsError> {
        let layout = RatingsError::Layout { got: bytes.len() };
        let mut reader = Reader(bytes);
        let head = (reader.take(), reader.take(), reader.take().map(u32::from_le_bytes), reader.take());
        let (Some(KIND), Some([rated @ (0 | 1)]), Some(last), Some(count)) = (head.0.as_ref(), head.1, head.2, head.3)
        else {
            return Err(layout);
        };
        let count = usize::from(u16::from_le_bytes(count));
        if bytes.len() > BYTES_MAX || bytes.len() != HEAD_BYTES + count * PEER_BYTES {
            return Err(layout);
        }
        let mut peers = BTreeMap::new();
        for index in 0..count {
            let (peer, rating) = reader.peer().ok_or(layout)?;
            let wrong = |field| RatingsError::Value { field, index };
            if peers.last_key_value().is_some_and(|(uid, _)| *uid >= peer.uid) {
                return Err(wrong("uid"));
            }
            check(&rating).map_err(wrong)?;
            peers.insert(peer.uid, (peer, rating));
        }
        Ok(Ratings { average: scoring.average, last: (rated == 1).then_some(Round(last)), peers })
    }
}

fn check(rating: &Rating) -> Result<(), &'static str> {
    let within = |value: f64, bound: f64| value.abs() <= bound; // false for NaN
    let skill = within(rating.skill.mu, 1e6) && rating.skill.sigma > 0.0 && rating.skill.sigma <= 1e6;
    match () {
        () if !skill => Err("skill"),
        () if !within(rating.average, 1.0) => Err("average"),
        () if !rating.gains.iter().all(|gain| within(*gain, 1.0)) => Err("gains"),
        () => Ok(()),
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn float(&mut self) -> Option<f64> {
        self.take().map(f64::from_le_bytes)
    }

    fn peer(&mut self) -> Option<(PeerKey, Rating)> {
        let [uid] = self.take()?;
        let peer = PeerKey {
            uid: Uid::from(uid),
            hotkey: Hotkey::new(self.take()?),
            registered_at: BlockNumber(self.number()?),
        };
        let skill = Skill { mu: self.float()?, sigma: self.float()? };
        let average = self.float()?;
        let (evaluations, evaluated, absent) = (self.number()?, Round(self.number()?), self.number()?);
        let [kept] = self.take()?;
        let gains = (0..GAINS_KEPT).map(|_| self.float()).collect::<Option<Vec<f64>>>()?;
        let gains = gains.get(..usize::from(kept))?.to_vec();
        Some((peer, Rating { skill, average, gains, evaluations, evaluated, absent }))
    }
}
