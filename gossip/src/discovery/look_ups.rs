//! Which look-ups run: a few at a time, those that somebody here waits for, and the run's peers while there are too few.

use super::types::{AskerId, DiscoveryAction, LookUpId, Surroundings};
use crate::peers::PeerKey;
use covey_proto::Digest;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Look-ups under way, and those that wait for one to end; more are answered with nobody.
pub(super) const LOOK_UPS_MAX: usize = 4;
const WAITING_MAX: usize = 16;
/// Peers that one look-up finds.
const FOUND_MAX: usize = 64;
/// Waits between look-ups of the run's peers: the table is small at first.
const WAIT_MIN: Duration = Duration::from_secs(2);
const WAIT_MAX: Duration = Duration::from_secs(300);

#[derive(Debug)]
struct LookUp {
    found: BTreeSet<PeerKey>,
    /// None for the run's peers.
    asker: Option<AskerId>,
}

#[derive(Debug)]
pub(super) struct LookUps {
    open: BTreeMap<LookUpId, LookUp>,
    waiting: VecDeque<(Digest, AskerId)>,
    run_due: Instant,
    run_wait: Duration,
    made: u64,
}

impl LookUps {
    pub(super) fn new(now: Instant) -> LookUps {
        LookUps { open: BTreeMap::new(), waiting: VecDeque::new(), run_due: now, run_wait: WAIT_MIN, made: 0 }
    }

    /// Somebody asks who provides a key.
    pub(super) fn want(
        &mut self,
        key: Digest,
        asker: AskerId,
        around: &dyn Surroundings,
        out: &mut Vec<DiscoveryAction>,
    ) {
        if self.waiting.len() >= WAITING_MAX {
            return out.push(DiscoveryAction::Answer { asker, peers: Vec::new() });
        }
        self.waiting.push_back((key, asker));
        self.begin(around, out);
    }

    /// Begins what waits, as far as it may.
    pub(super) fn begin(&mut self, around: &dyn Surroundings, out: &mut Vec<DiscoveryAction>) {
        while self.open.len() < LOOK_UPS_MAX {
            let Some((key, asker)) = self.waiting.pop_front() else { return };
            if !around.is_gone(asker) {
                self.start(key, Some(asker), out);
            }
        }
    }

    fn start(&mut self, key: Digest, asker: Option<AskerId>, out: &mut Vec<DiscoveryAction>) {
        self.made += 1;
        let look_up = LookUpId(self.made);
        self.open.insert(look_up, LookUp { found: BTreeSet::new(), asker });
        out.push(DiscoveryAction::LookUp { look_up, key });
    }

    /// Looks up the run's peers while there are too `few`: at once, then after waits that double.
    pub(super) fn look_for_the_run(
        &mut self,
        key: Digest,
        few: bool,
        now: Instant,
        around: &mut dyn Surroundings,
        out: &mut Vec<DiscoveryAction>,
    ) {
        if !few {
            self.run_wait = WAIT_MIN;
            return;
        }
        if now < self.run_due || self.open.len() >= LOOK_UPS_MAX || !around.can_ask() {
            return;
        }
        self.run_due = now + self.run_wait;
        self.run_wait = (self.run_wait * 2).min(WAIT_MAX);
        self.start(key, None, out);
    }

    pub(super) fn is_open(&self, look_up: LookUpId) -> bool {
        self.open.contains_key(&look_up)
    }

    /// A look-up found a peer. False if it has found enough.
    pub(super) fn found(&mut self, look_up: LookUpId, peer: PeerKey) -> bool {
        let Some(open) = self.open.get_mut(&look_up).filter(|open| open.found.len() < FOUND_MAX) else { return false };
        open.found.insert(peer);
        true
    }

    /// A look-up has ended: who asked for it, and what it found.
    pub(super) fn ended(&mut self, look_up: LookUpId) -> Option<(AskerId, BTreeSet<PeerKey>)> {
        let LookUp { found, asker } = self.open.remove(&look_up)?;
        asker.map(|asker| (asker, found))
    }
}
