//! The announcements that this peer holds, for those who missed them: the last rounds, within a byte budget.

use covey_proto::message::ANNOUNCEMENT_BYTES_MAX;
use covey_proto::record::UidSet;
use covey_proto::{Round, Uid};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of announcements in one response: half a response's limit leaves room for its form.
pub(crate) const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct KeptAnnouncements {
    rounds: BTreeMap<Round, BTreeMap<Uid, Arc<[u8]>>>,
    bytes: usize,
    rounds_max: usize,
    bytes_max: usize,
}

impl KeptAnnouncements {
    pub(crate) fn new(rounds_max: usize, bytes_max: usize) -> KeptAnnouncements {
        KeptAnnouncements { rounds: BTreeMap::new(), bytes: 0, rounds_max, bytes_max }
    }

    /// Keeps an announcement that was checked. The oldest round goes first when there is no room; an announcement that
    /// would itself be of the oldest round is not kept then.
    pub(crate) fn remember(&mut self, round: Round, uid: Uid, announcement: Vec<u8>) {
        if announcement.len() > ANNOUNCEMENT_BYTES_MAX {
            return;
        }
        let kept = self.rounds.entry(round).or_default();
        self.bytes += announcement.len();
        if let Some(before) = kept.insert(uid, announcement.into()) {
            self.bytes -= before.len();
        }
        while self.rounds.len() > self.rounds_max || self.bytes > self.bytes_max {
            let Some((_, oldest)) = self.rounds.pop_first() else {
                break;
            };
            self.bytes -= oldest.values().map(|bytes| bytes.len()).sum::<usize>();
        }
    }

    /// A round's announcements but for those in `have`, as many as one response carries. Who asks again with what came
    /// gets the rest.
    pub(crate) fn of(&self, round: Round, have: &UidSet) -> Vec<Arc<[u8]>> {
        let kept = self.rounds.get(&round).into_iter().flatten();
        let mut bytes = 0;
        kept.filter(|(uid, _)| !have.contains(**uid))
            .map(|(_, announcement)| announcement.clone())
            .take_while(|announcement| {
                bytes += announcement.len();
                bytes <= ANSWER_BYTES_MAX
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_last_rounds_and_gives_what_one_lacks() {
        let mut kept = KeptAnnouncements::new(2, 1000);
        for round in 0..3 {
            for uid in 0..3u8 {
                kept.remember(Round(round), Uid::from(uid), vec![uid; 100]);
            }
        }
        assert!(kept.of(Round(0), &UidSet::default()).is_empty());
        let have = [Uid::from(1)].into_iter().collect();
        let got: Vec<u8> = kept.of(Round(2), &have).iter().map(|bytes| bytes[0]).collect();
        assert_eq!(got, [0, 2]);
        kept.remember(Round(2), Uid::from(0), vec![9; 600]);
        assert!(kept.of(Round(1), &UidSet::default()).is_empty(), "the byte budget took the older round");
        assert_eq!(kept.bytes, 800);
    }
}
