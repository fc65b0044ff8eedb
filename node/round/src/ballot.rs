//! What a validator votes for, of the contributions that it holds: its own policy, which no other node checks.
//!
//! Honest validators' ratings differ, and a contribution is applied only if voters with more than half of the stake name
//! it. So the policy is coarse. Whatever is valid and held goes on the ballot unless its author is known to be bad. A
//! score decides only where more is held than has places: the best rated come first. Newcomers, of whom nobody has a
//! rating, follow in an order that all validators share: if each chose among them for itself, none would ever get half.
//! Uids can be bought, so newcomers get no more than half as many places as the admitted, however many come: a third of
//! the ballot, which neither sets the norm that all are scaled to nor outweighs the rest. To be rated they need no place.
//! Whether bytes are valid and held is for others to say; what is fetched first, the node decides as things are offered.

use crate::clock::derive_digest;
use crate::rating::Standing;
use covey_proto::record::UidSet;
use covey_proto::{Digest, Round, RunId, Uid};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Places on a ballot before enough are admitted to fill them: newcomers may have what is left of these. A run begins with
/// newcomers alone.
pub const PLACES_AT_FIRST: usize = 4;

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

/// The ballot: of those whose contributions are `held`, valid and on the disk, at most `places` (K): the rated by score,
/// falling, then the unrated in the order that all share, half as many as the rated, or as many as there are places left of
/// [`PLACES_AT_FIRST`].
///
/// Who is not in `standings` counts as unrated. A vote with fewer than K names is no fault: the rest is not held or bad.
pub fn ballot(probation: &Probation, held: &UidSet, standings: &BTreeMap<Uid, Standing>, places: u32) -> UidSet {
    let (admitted, unrated) = ranking(probation, held, standings);
    let places = places as usize;
    let rated = admitted.len().min(places);
    let newcomers = (rated / 2).max(PLACES_AT_FIRST.saturating_sub(rated)).min(places - rated);
    admitted.into_iter().take(rated).chain(unrated.into_iter().take(newcomers)).collect()
}

/// The rated by score, falling, equals in the shared order; and the unrated in the shared order. The bad are left out.
fn ranking(probation: &Probation, held: &UidSet, standings: &BTreeMap<Uid, Standing>) -> (Vec<Uid>, Vec<Uid>) {
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
    let unrated = ranked.partition_point(|(unrated, ..)| !unrated);
    let uids = |ranked: &[(_, _, _, Uid)]| ranked.iter().map(|(.., uid)| *uid).collect();
    (uids(&ranked[..unrated]), uids(&ranked[unrated..]))
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
        let (ranked, unrated) = ranking(&probation(), &uids(1..=6), &known);
        assert_eq!(ranked, [3, 2, 4].map(Uid::from));
        let mut waiting = [5, 6].map(Uid::from);
        waiting.sort_by_key(|uid| probation().place(*uid));
        assert_eq!(unrated, waiting);
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

    /// 248 new uids beside 8 admitted ones take 4 of 12 places, not 12 of 20.
    #[test]
    fn whoever_brings_many_uids_gets_no_more_than_a_third_of_the_ballot() {
        let admitted = |count: u8| standings(&(0..count).map(|uid| (uid, Standing::Admitted(0.1))).collect::<Vec<_>>());
        let newcomers = |rated: u8, places: u32| {
            let ballot = ballot(&probation(), &uids(0..=255), &admitted(rated), places);
            ballot.iter().filter(|uid| *uid >= Uid::from(rated)).count()
        };
        assert_eq!(
            [0, 1, 2, 3, 4, 8, 13, 14, 19, 20].map(|rated| newcomers(rated, 20)),
            [4, 3, 2, 1, 2, 4, 6, 6, 1, 0]
        );
        assert_eq!(newcomers(0, 2), 2);
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
            let count = |uids: &UidSet, is: fn(&Standing) -> bool| uids.iter().filter(|uid| is(&known[uid])).count();
            let (admitted, unrated) = (|of: &Standing| matches!(of, Standing::Admitted(_)), |of: &Standing| *of == Standing::Unrated);
            let rated = count(&ballot, admitted);
            prop_assert_eq!(rated, count(&held, admitted).min(places as usize));
            let most = (rated / 2).max(PLACES_AT_FIRST.saturating_sub(rated)).min(places as usize - rated);
            prop_assert_eq!(count(&ballot, unrated), count(&held, unrated).min(most));
            prop_assert!(ballot.iter().all(|uid| held.contains(uid) && known[&uid] != Standing::Bad));
        }
    }
}
