//! What this node says that it provides, and when it says so: at once, after two seconds because Kademlia's table is small
//! at first, then less and less often.

use super::look_ups::LOOK_UPS_MAX;
use super::types::{DiscoveryAction, PublicationId, Surroundings};
use crate::peers::providers::REPEAT;
use covey_proto::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Wait before the second publication of a key; four times as long each time, up to [`REPEAT`].
const WAIT_MIN: Duration = Duration::from_secs(2);
/// A publication that reached nobody is tried again so soon.
const RETRY: Duration = Duration::from_secs(10);

/// When a key is published next, and how long after that again.
#[derive(Debug)]
struct Timetable {
    due: Instant,
    wait: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Publications {
    keys: BTreeMap<Digest, Timetable>,
    open: BTreeMap<PublicationId, Digest>,
    made: u64,
}

impl Publications {
    /// Publishes what is due of the keys that are `wanted`, as many at a time as look-ups run; ends the others.
    pub(super) fn tend(
        &mut self,
        wanted: BTreeSet<Digest>,
        now: Instant,
        around: &mut dyn Surroundings,
        out: &mut Vec<DiscoveryAction>,
    ) {
        self.keys.retain(|key, _| {
            let kept = wanted.contains(key);
            if !kept {
                out.push(DiscoveryAction::Unpublish { key: *key });
            }
            kept
        });
        for key in wanted {
            self.keys.entry(key).or_insert(Timetable { due: now, wait: WAIT_MIN });
        }
        for (key, timetable) in self.keys.iter_mut().filter(|(_, timetable)| timetable.due <= now) {
            if self.open.len() >= LOOK_UPS_MAX || !around.can_ask() {
                return;
            }
            *timetable = Timetable { due: now + timetable.wait, wait: (timetable.wait * 4).min(REPEAT) };
            self.made += 1;
            let publication = PublicationId(self.made);
            self.open.insert(publication, *key);
            out.push(DiscoveryAction::Publish { publication, key: *key });
        }
    }

    /// A publication has ended, having told so many peers.
    pub(super) fn ended(&mut self, publication: PublicationId, with: u32, now: Instant) {
        let key = self.open.remove(&publication);
        if let Some(timetable) = key.and_then(|key| self.keys.get_mut(&key))
            && with == 0
        {
            *timetable = Timetable { due: now + RETRY, wait: WAIT_MIN };
        }
    }
}
