//! Whom a validator evaluates in a round: how many it has time for, and who comes first.

use covey_proto::run::Run;
use covey_proto::{Digest, Round, Uid, derive};
use covey_round::assign::samples_per_member;
use covey_round::engine::Collection;
use covey_round::rating::{PeerKey, Ratings};

/// Contributions that a validator may evaluate in a round: as many as fit into the stated share of the time in which a
/// miner trains.
///
/// A sequence costs a miner a forward and a backward pass, about three forward passes; a contribution costs a validator
/// three forward passes of an evaluation set (own data before and after, random data after). At least one is evaluated.
pub fn evaluations_max(run: &Run, round: Round) -> usize {
    let training = samples_per_member(run, round) as f64;
    ((run.scoring.share * training / f64::from(run.scoring.sequences)) as usize).max(1)
}

/// Whom to evaluate first: who has waited longest, ties in an order of this voter's own.
pub fn order(collection: &Collection, ratings: &Ratings, voter: Uid) -> Vec<Uid> {
    let waited = |uid: &Uid| {
        let member = collection.members.get(uid)?;
        Some(ratings.rating(&PeerKey::from(member))?.evaluated)
    };
    let tie = |uid: &Uid| {
        let parts =
            [collection.beacon.as_bytes().as_slice(), &voter.number().to_le_bytes(), &uid.number().to_le_bytes()];
        let mut bytes = [0; 32];
        derive("covey/1/look", &parts).fill(&mut bytes);
        Digest::new(bytes)
    };
    let mut uids: Vec<Uid> = collection.offered.keys().copied().collect();
    uids.sort_by_cached_key(|uid| (waited(uid), tie(uid)));
    uids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_run;
    use covey_proto::chain::Member;
    use covey_proto::run::Scoring;
    use covey_proto::{BlockNumber, HotkeyPair};
    use covey_round::assign::Assignment;
    use covey_round::rating::{Evaluation, Scored};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn uid(number: u32) -> Uid {
        Uid::new(number).unwrap()
    }

    fn collection(beacon: &[u8], offering: u32) -> Collection {
        let member = |number: u32| Member {
            uid: uid(number),
            hotkey: HotkeyPair::from_seed([number as u8 + 1; 32]).hotkey(),
            registered_at: BlockNumber(1),
            permit: false,
            stake: 0,
        };
        Collection {
            round: Round(4),
            base: Digest::of(b"base"),
            members: Arc::new((0..offering).map(|number| (uid(number), member(number))).collect::<BTreeMap<_, _>>()),
            offered: (0..offering).map(|number| (uid(number), Digest::of(b"a manifest"))).collect(),
            assignment: Arc::new(Assignment::new(Digest::of(b"seed"), 1000, (0..offering).map(uid), 10)),
            beacon: Digest::of(beacon),
        }
    }

    fn scoring() -> Scoring {
        tiny_run(Digest::ZERO).scoring
    }

    #[test]
    fn who_was_never_evaluated_comes_first_and_then_who_waited_longest() {
        let collection = collection(b"beacon", 4);
        let mut ratings = Ratings::new(&scoring());
        let gains = Evaluation::Gains { own: 0.1, random: 0.1 };
        for (round, number) in [(1, 2), (2, 0), (3, 3)] {
            let peer = PeerKey::from(&collection.members[&uid(number)]);
            ratings.observe(Round(round), &[Scored { peer, evaluation: gains }]).unwrap();
        }
        assert_eq!(order(&collection, &ratings, uid(0)), [1, 2, 0, 3].map(uid));
    }

    #[test]
    fn ties_are_every_voters_own_and_every_rounds() {
        let ratings = Ratings::new(&scoring());
        let of = |beacon: &[u8], voter| order(&collection(beacon, 12), &ratings, uid(voter));
        let one = of(b"a beacon", 0);
        assert_eq!(one, of(b"a beacon", 0));
        assert_ne!(one, of(b"a beacon", 1));
        assert_ne!(one, of(b"another", 0));
        let mut all = one;
        all.sort_unstable();
        assert_eq!(all, (0..12).map(uid).collect::<Vec<_>>());
    }

    #[test]
    fn a_validator_looks_at_what_fits_its_share_of_the_time_and_at_one_at_least() {
        let mut run = tiny_run(Digest::ZERO);
        let training = samples_per_member(&run, Round(0));
        run.scoring.sequences = (training / 8) as u32;
        run.scoring.share = 0.5;
        assert_eq!(evaluations_max(&run, Round(0)), 4);
        run.scoring.share = 0.001;
        assert_eq!(evaluations_max(&run, Round(0)), 1);
    }
}
