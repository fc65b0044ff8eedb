//! What a validator votes for, of the contributions that it holds: its own policy, which no other node checks.
//!
//! Honest validators' ratings differ, and a contribution is applied only if voters with more than half of the stake name
//! it. So the policy is coarse. Whatever is valid and held goes on the ballot unless its author is known to be bad. A
//! score decides only where more is held than has places: the best rated come first. Newcomers, of whom nobody has a
//! rating, follow in an order that all validators share: if each chose among them for itself, none would ever get half.
//! Whether bytes are valid and held is for others to say; what is fetched first, the node decides as things are offered.

use crate::clock::derive_digest;
use crate::rating::Standing;
use covey_proto::record::UidSet;
use covey_proto::{Digest, Round, RunId, Uid};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// One round's shared order of the unrated, known once C is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probation {
    /// The run.
    pub run_id: RunId,
    /// The round.
    pub round: Round,
    /// [`crate::clock::beacon`] of the commit deadline C.
    pub beacon_c: Digest,
}

impl Probation {
    /// The uid's place in the order, lowest first: `derive("covey/1/probation", run id ‖ round u32 LE ‖ beacon(C) ‖ uid
    /// u32 LE)`.
    pub fn place(&self, uid: Uid) -> Digest {
        let (round, uid) = (self.round.0.to_le_bytes(), uid.number().to_le_bytes());
        let parts = [self.run_id.0.as_bytes(), &round[..], self.beacon_c.as_bytes(), &uid[..]];
        derive_digest("covey/1/probation", &parts)
    }
}

/// The ballot: of those whose contributions are `held`, valid and on the disk, the first `places` (K): the rated by score,
/// falling, then the unrated in the order that all share.
///
/// Who is not in `standings` counts as unrated. A vote with fewer than K names is no fault: the rest is not held or bad.
pub fn ballot(probation: &Probation, held: &UidSet, standings: &BTreeMap<Uid, Standing>, places: u32) -> UidSet {
    ranking(probation, held, standings).into_iter().take(places as usize).collect()
}

/// The rated by score, falling, equals in the shared order; then the unrated in the shared order. The bad are left out.
fn ranking(probation: &Probation, held: &UidSet, standings: &BTreeMap<Uid, Standing>) -> Vec<Uid> {
    let mut ranked: Vec<(bool, Reverse<u64>, Digest, Uid)> = held
        .iter()
        .filter_map(|uid| {
            let (unrated, score) = match standings.get(&uid).copied().unwrap_or(Standing::Unrated) {
                Standing::Admitted(score) => (false, ascending_bits(score)),
                Standing::Unrated => (true, 0),
                Standing::Bad => return None,
            };
            Some((unrated, Reverse(score), probation.place(uid), uid))
        })
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(.., uid)| uid).collect()
}

/// A number that rises with the score, so that scores can be compared as integers: scores are 0 or more, and the bits of
/// such floats rise with them.
fn ascending_bits(score: f64) -> u64 {
    score.max(0.0).to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn probation() -> Probation {
        Probation { run_id: RunId(Digest::of(b"run")), round: Round(7), beacon_c: Digest::of(b"C") }
    }

    fn uids(numbers: impl IntoIterator<Item = u8>) -> UidSet {
        numbers.into_iter().map(Uid::from).collect()
    }

    fn standings(of: &[(u8, Standing)]) -> BTreeMap<Uid, Standing> {
        of.iter().map(|(uid, standing)| (Uid::from(*uid), *standing)).collect()
    }

    /// Computed by a second implementation.
    #[test]
    fn the_probation_order_is_the_documented_one() {
        let place = probation().place(Uid::from(3));
        assert_eq!(place.to_string(), "12ee222e9519c6bb8177cd907bb7f74f9ecdc484d03df01d8f50b3d4ba936076");
    }

    #[test]
    fn the_best_stand_first_then_those_who_wait_and_the_bad_not_at_all() {
        let known = standings(&[
            (1, Standing::Bad),
            (2, Standing::Admitted(0.2)),
            (3, Standing::Admitted(0.7)),
            (4, Standing::Admitted(0.0)),
        ]);
        let ranked = ranking(&probation(), &uids(1..=6), &known);
        assert_eq!(ranked[..3], [3, 2, 4].map(Uid::from));
        let mut waiting = [5, 6].map(Uid::from);
        waiting.sort_by_key(|uid| probation().place(*uid));
        assert_eq!(ranked[3..], waiting);
    }

    #[test]
    fn the_bad_get_no_vote_and_nobody_else_is_left_out_while_there_is_room() {
        let known = standings(&[(1, Standing::Bad), (2, Standing::Admitted(0.0)), (3, Standing::Unrated)]);
        assert_eq!(ballot(&probation(), &uids(1..=4), &known, 20), uids(2..=4));
        assert_eq!(ballot(&probation(), &UidSet::default(), &known, 20), UidSet::default());
    }

    #[test]
    fn when_places_run_out_the_best_stay() {
        let known =
            standings(&[(1, Standing::Admitted(0.1)), (2, Standing::Admitted(0.3)), (3, Standing::Admitted(0.2))]);
        assert_eq!(ballot(&probation(), &uids(1..=9), &known, 2), uids([2, 3]));
        assert_eq!(ballot(&probation(), &uids(1..=9), &known, 4).len(), 4);
    }

    proptest! {
        /// Whatever each thinks of the rated, validators who hold the same give the same newcomers their free places.
        #[test]
        fn validators_whose_scores_differ_give_free_places_to_the_same_newcomers(
            one in proptest::collection::vec(0.0f64..1.0, 6), other in proptest::collection::vec(0.0f64..1.0, 6),
        ) {
            let held = uids(0..30);
            let ballots = [one, other].map(|scores| {
                let rated: Vec<_> = scores.iter().enumerate().map(|(uid, score)| (uid as u8, Standing::Admitted(*score))).collect();
                ballot(&probation(), &held, &standings(&rated), 20)
            });
            prop_assert_eq!(ballots[0], ballots[1]);
        }

        #[test]
        fn a_ballot_is_held_within_its_places_and_without_the_bad(
            held: [u8; 32], kinds in proptest::collection::vec((0u8..3, any::<f64>()), 256), places in 0u32..40,
        ) {
            let known: BTreeMap<Uid, Standing> = kinds.iter().enumerate().map(|(uid, (kind, score))| {
                let standing = [Standing::Bad, Standing::Unrated, Standing::Admitted(*score)][usize::from(*kind)];
                (Uid::from(uid as u8), standing)
            }).collect();
            let held = UidSet::from_bytes(held);
            let ballot = ballot(&probation(), &held, &known, places);
            let good = held.iter().filter(|uid| known[uid] != Standing::Bad).count();
            prop_assert_eq!(ballot.len(), good.min(places as usize));
            prop_assert!(ballot.iter().all(|uid| held.contains(uid) && known[&uid] != Standing::Bad));
        }
    }
}
