//! Collecting what a round offers: announcements are matched with the chain before they are forwarded, then their shards
//! are fetched, checked and decoded.
//!
//! An announcement that comes before the commit deadline is final here waits a while: its author's chain node may be
//! ahead of ours. What gossip loses is asked for.

use crate::contribution::Contribution;
use covey_gossip::{PeerKey, Ticket, Verdict};
use covey_proto::message::{Announcement, AnnouncementError};
use covey_proto::record::UidSet;
use covey_proto::{Digest, Round, RunId, Uid};
use covey_round::engine::Collection;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an announcement waits for its commit deadline to be final here.
const EARLY_TIMEOUT: Duration = Duration::from_secs(30);
/// Announcements that wait: a run's whole subnet, once.
const EARLY_MAX: usize = 256;
/// Of them, those of one neighbour: no stranger can fill the place of the others' reveals.
const EARLY_PEER_MAX: usize = 32;

/// Something that came by gossip, or in answer to a question.
#[derive(Debug)]
pub struct Incoming {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Who handed it over.
    pub from: PeerKey,
    /// To judge it by; none if it was asked for.
    pub ticket: Option<Ticket>,
}

/// What to do about an announcement.
#[derive(Debug)]
pub enum Ruling {
    /// Committed by its author: forward it, fetch the rest.
    Accept(Box<Accepted>),
    /// Too early to say; it waits.
    Wait,
    /// No offence, no use.
    Ignore,
    /// Its sender is to blame.
    Reject(Blame),
}

/// An announcement that the chain vouches for.
#[derive(Debug)]
pub struct Accepted {
    /// What was announced.
    pub announcement: Announcement,
    /// Its name, as committed.
    pub digest: Digest,
    /// Its bytes, to be handed on.
    pub bytes: Vec<u8>,
    /// Who handed it over.
    pub from: PeerKey,
}

/// Why an announcement's sender is to blame.
#[derive(Debug, thiserror::Error)]
pub enum Blame {
    /// Not an announcement at all.
    #[error(transparent)]
    Form(#[from] AnnouncementError),
    /// Another run's.
    #[error("announced for another run")]
    OtherRun,
    /// Not what its author committed, or its author committed nothing.
    #[error("round {round}: uid {uid} did not commit to this")]
    NotCommitted {
        /// The round.
        round: Round,
        /// The uid.
        uid: Uid,
    },
}

/// What has come of one round.
pub struct Collector {
    /// What the round offers.
    pub collection: Collection,
    /// Announced, and being fetched or done.
    pub taken: UidSet,
    /// Decoded.
    pub held: BTreeMap<Uid, Arc<Contribution>>,
}

impl Collector {
    /// Nothing has come yet.
    pub fn new(collection: Collection) -> Collector {
        Collector { collection, taken: UidSet::default(), held: BTreeMap::new() }
    }

    /// The uids that nothing has come from.
    pub fn is_waiting(&self) -> bool {
        self.collection.offered.keys().any(|uid| !self.taken.contains(*uid))
    }
}

/// Rules on announcements; keeps those that are early.
#[derive(Default)]
pub struct Inbox {
    early: Vec<(Instant, Incoming)>,
}

impl Inbox {
    /// Rules on one announcement, given the round that is being collected, if one is, with what it offers, and the next
    /// round to be.
    pub fn rule(
        run_id: RunId,
        inline_max: u32,
        collected: Option<(Round, &BTreeMap<Uid, Digest>)>,
        next: Round,
        incoming: &Incoming,
    ) -> Ruling {
        let announcement = match Announcement::from_bytes(&incoming.bytes, inline_max) {
            Ok(announcement) => announcement,
            Err(error) => return Ruling::Reject(error.into()),
        };
        let (round, uid) = (announcement.manifest.round, announcement.manifest.uid);
        if announcement.manifest.run != run_id {
            return Ruling::Reject(Blame::OtherRun);
        }
        let Some((_, offered)) = collected.filter(|(collected, _)| *collected == round) else {
            return if round == next { Ruling::Wait } else { Ruling::Ignore };
        };
        let digest = announcement.manifest.digest();
        match offered.get(&uid) {
            Some(committed) if *committed == digest => Ruling::Accept(Box::new(Accepted {
                announcement,
                digest,
                bytes: incoming.bytes.clone(),
                from: incoming.from,
            })),
            _ => Ruling::Reject(Blame::NotCommitted { round, uid }),
        }
    }

    /// Keeps an early announcement; gives back those that have waited too long, and this one if it has no room.
    pub fn wait(&mut self, now: Instant, incoming: Incoming) -> Vec<Incoming> {
        let is_late = |(since, _): &mut (Instant, Incoming)| now.duration_since(*since) > EARLY_TIMEOUT;
        let mut back: Vec<Incoming> = self.early.extract_if(.., is_late).map(|(_, incoming)| incoming).collect();
        let same = self.early.iter().filter(|(_, other)| other.from == incoming.from).count();
        if self.early.len() >= EARLY_MAX || same >= EARLY_PEER_MAX {
            back.push(incoming);
        } else {
            self.early.push((now, incoming));
        }
        back
    }

    /// All that waits, in order of arrival.
    pub fn take(&mut self) -> Vec<Incoming> {
        self.early.drain(..).map(|(_, incoming)| incoming).collect()
    }
}

/// The verdict that goes with a ruling.
pub fn verdict(ruling: &Ruling) -> Option<Verdict> {
    match ruling {
        Ruling::Accept(_) => Some(Verdict::Accept),
        Ruling::Ignore => Some(Verdict::Ignore),
        Ruling::Reject(_) => Some(Verdict::Reject),
        Ruling::Wait => None,
    }
}
