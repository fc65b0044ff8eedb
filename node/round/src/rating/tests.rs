//! A rating moves as the openskill package says, and a weight as the documented formula.

use super::trials::{Dice, key, members};
use super::*;
use crate::clock::tests::bittensor;
use proptest::prelude::*;

fn ratings() -> Ratings {
    Ratings::new(&bittensor().scoring)
}

/// A round in which uid i gained `random[i]`, on its own data a tenth more; `None` failed.
fn round_of(random: &[Option<f64>]) -> Vec<Scored> {
    let evaluation = |random: &Option<f64>| match random {
        Some(random) => Evaluation::Gains { own: random + 0.1 * random.abs(), random: *random },
        None => Evaluation::Failed,
    };
    (0..).zip(random).map(|(uid, random)| Scored { peer: key(uid), evaluation: evaluation(random) }).collect()
}

fn observe(ratings: &mut Ratings, rounds: u32, random: &[Option<f64>]) {
    for _ in 0..rounds {
        let round = ratings.last().map_or(Round(0), Round::next);
        ratings.observe(round, &round_of(random)).unwrap();
    }
}

fn standing(ratings: &Ratings, uid: u8) -> Standing {
    let now = ratings.last().map_or(Round(0), Round::next);
    ratings.standings(&members(8), now)[&Uid::from(uid)]
}

fn share(ratings: &Ratings, uid: u8) -> f64 {
    ratings.shares(&members(8), 2.0).get(&Uid::from(uid)).copied().unwrap_or(0.0)
}

#[test]
fn without_evaluations_there_are_no_weights_and_all_are_unrated() {
    let ratings = ratings();
    assert!(ratings.shares(&members(4), 2.0).is_empty());
    assert!(ratings.weights(&members(4), 2.0).is_empty());
    assert_eq!(standing(&ratings, 0), Standing::Unrated);
}

#[test]
fn a_peer_of_no_use_is_bad_after_three_evaluations_and_has_no_weight_before() {
    let mut ratings = ratings();
    observe(&mut ratings, 2, &[Some(0.02), Some(0.01), Some(-0.01)]);
    assert_eq!((standing(&ratings, 2), share(&ratings, 2)), (Standing::Unrated, 0.0));
    observe(&mut ratings, 1, &[Some(0.02), Some(0.01), Some(-0.01)]);
    assert_eq!(standing(&ratings, 2), Standing::Bad);
    assert!(matches!(standing(&ratings, 1), Standing::Admitted(score) if score > 0.0));
    assert!(share(&ratings, 0) > share(&ratings, 1), "the more useful earns more");
}

#[test]
fn who_contributes_nothing_at_all_is_of_no_use() {
    let mut ratings = ratings();
    observe(&mut ratings, 3, &[Some(0.02), Some(0.01), Some(0.0)]);
    assert_eq!((standing(&ratings, 2), share(&ratings, 2)), (Standing::Bad, 0.0));
}

#[test]
fn one_bad_round_costs_little_and_is_forgotten() {
    let mut ratings = ratings();
    observe(&mut ratings, 10, &[Some(0.01), Some(0.01), Some(0.01)]);
    let before = share(&ratings, 2);
    observe(&mut ratings, 1, &[Some(0.01), Some(0.01), Some(-0.05)]);
    assert!(share(&ratings, 2) > before / 3.0, "{} of {before} is left", share(&ratings, 2));
    assert!(matches!(standing(&ratings, 2), Standing::Admitted(_)));
    observe(&mut ratings, 12, &[Some(0.01), Some(0.01), Some(0.01)]);
    assert!(share(&ratings, 2) > before * 0.9, "{} of {before} is back", share(&ratings, 2));
}

#[test]
fn who_was_bad_and_mends_is_admitted_again() {
    let mut ratings = ratings();
    observe(&mut ratings, 20, &[Some(0.01), Some(0.01), Some(-0.01)]);
    assert_eq!(standing(&ratings, 2), Standing::Bad);
    observe(&mut ratings, 5, &[Some(0.01), Some(0.01), Some(0.01)]);
    assert!(matches!(standing(&ratings, 2), Standing::Admitted(_)));
    observe(&mut ratings, 40, &[Some(0.01), Some(0.01), Some(0.01)]);
    assert!(share(&ratings, 2) > 0.2, "{}", share(&ratings, 2));
}

#[test]
fn the_bad_may_try_once_when_nobody_looked_for_long() {
    let mut ratings = ratings();
    observe(&mut ratings, 10, &[Some(0.01), Some(0.01), Some(-0.01)]);
    observe(&mut ratings, PAROLE_ROUNDS, &[Some(0.01), Some(0.01)]);
    assert_eq!(standing(&ratings, 2), Standing::Unrated);
    let mut worse = ratings.clone();
    observe(&mut worse, 1, &[Some(0.01), Some(0.01), Some(-0.01)]);
    assert_eq!(standing(&worse, 2), Standing::Bad);
    observe(&mut ratings, 1, &[Some(0.01), Some(0.01), Some(0.01)]);
    assert!(matches!(standing(&ratings, 2), Standing::Admitted(_)));
}

#[test]
fn a_newcomer_earns_at_once_and_catches_up() {
    let mut ratings = ratings();
    observe(&mut ratings, 50, &[Some(0.01), Some(0.01), Some(0.01)]);
    observe(&mut ratings, 1, &[Some(0.01), Some(0.01), Some(0.01), Some(0.01)]);
    assert!(share(&ratings, 3) > 0.001, "{}", share(&ratings, 3));
    observe(&mut ratings, 30, &[Some(0.01), Some(0.01), Some(0.01), Some(0.01)]);
    assert!(share(&ratings, 3) > 0.15, "{}", share(&ratings, 3));
}

#[test]
fn another_holder_of_the_uid_starts_anew() {
    let mut ratings = ratings();
    observe(&mut ratings, 10, &[Some(0.01), Some(0.01)]);
    let mut subnet = members(2);
    subnet.get_mut(&Uid::from(1)).unwrap().registered_at = BlockNumber(99);
    assert_eq!(ratings.standings(&subnet, Round(10))[&Uid::from(1)], Standing::Unrated);
    assert_eq!(ratings.shares(&subnet, 2.0).get(&Uid::from(1)), None);
    let peer = PeerKey::from(&subnet[&Uid::from(1)]);
    let scored = [Scored { peer, evaluation: Evaluation::Gains { own: 0.2, random: 0.1 } }];
    ratings.observe(Round(10), &scored).unwrap();
    assert_eq!(ratings.rating(&peer).unwrap().evaluations, 1);
    assert_eq!(ratings.rating(&key(1)), None);
}

#[test]
fn failures_weigh_as_the_worst_gain() {
    let (mut failing, mut worst) = (ratings(), ratings());
    observe(&mut failing, 10, &[Some(0.02), Some(0.01), None]);
    observe(&mut worst, 10, &[Some(0.02), Some(0.01), Some(-1.0)]);
    assert_eq!(standing(&failing, 2), Standing::Bad);
    let skill = |ratings: &Ratings| ratings.rating(&key(2)).unwrap().skill;
    assert_eq!(skill(&failing), skill(&worst));
}

#[test]
fn gains_that_are_no_numbers_are_failures() {
    let (mut failing, mut broken) = (ratings(), ratings());
    observe(&mut failing, 3, &[Some(0.02), None, None, None]);
    observe(&mut broken, 3, &[Some(0.02), Some(f64::NAN), Some(f64::INFINITY), Some(f64::NEG_INFINITY)]);
    assert_eq!(failing, broken);
}

#[test]
fn a_round_in_which_nothing_could_be_evaluated_blames_nobody() {
    let mut ratings = ratings();
    observe(&mut ratings, 5, &[Some(0.02), Some(0.01)]);
    let before = share(&ratings, 1);
    observe(&mut ratings, 20, &[None, None]);
    assert_eq!(share(&ratings, 1), before);
}

#[test]
fn a_round_in_which_nobody_gains_makes_nobody_bad() {
    let mut ratings = ratings();
    observe(&mut ratings, 10, &[Some(-0.02), Some(-0.01), Some(-0.03)]);
    assert_eq!(standing(&ratings, 0), Standing::Unrated);
    observe(&mut ratings, 3, &[Some(0.02), Some(0.01), Some(-0.03)]);
    assert!(matches!(standing(&ratings, 0), Standing::Admitted(_)));
    assert_eq!(standing(&ratings, 2), Standing::Bad);
}

#[test]
fn absence_costs_a_quarter_a_round_and_ends_with_the_next_contribution() {
    let mut ratings = ratings();
    observe(&mut ratings, 10, &[Some(0.01), Some(0.01)]);
    let score = |ratings: &Ratings| ratings.scores(&members(2))[&Uid::from(1)];
    let before = score(&ratings);
    for round in 10..12 {
        ratings.observe(Round(round), &[Scored { peer: key(1), evaluation: Evaluation::Absent }]).unwrap();
    }
    assert!((score(&ratings) / before - 0.5625).abs() < 1e-12);
    observe(&mut ratings, 1, &[Some(0.01), Some(0.01)]);
    assert!(score(&ratings) >= before);
}

#[test]
fn a_round_counts_once_and_two_evaluations_of_one_peer_as_one() {
    let mut ratings = ratings();
    let mut scored = round_of(&[Some(0.01), Some(0.02)]);
    scored.extend(round_of(&[Some(-0.5)]));
    ratings.observe(Round(4), &scored).unwrap();
    assert_eq!(ratings.rating(&key(0)).unwrap().gains.len(), 1);
    assert!(ratings.rating(&key(0)).unwrap().gains[0] > 0.0);
    let fault = ratings.observe(Round(4), &scored).unwrap_err();
    assert_eq!(fault.to_string(), "round 4 comes after round 4 was rated: rounds must rise");
}

#[test]
fn weights_are_scaled_to_the_largest() {
    let mut ratings = ratings();
    observe(&mut ratings, 10, &[Some(0.03), Some(0.01), Some(-0.01)]);
    let weights = ratings.weights(&members(3), 2.0);
    assert_eq!(weights.get(&Uid::from(0)), Some(&u16::MAX));
    assert!(weights.contains_key(&Uid::from(1)) && !weights.contains_key(&Uid::from(2)));
}

fn any_gain() -> impl Strategy<Value = Evaluation> {
    prop_oneof![
        (any::<f64>(), any::<f64>()).prop_map(|(own, random)| Evaluation::Gains { own, random }),
        (-1.0..1.0, -1.0..1.0).prop_map(|(own, random)| Evaluation::Gains { own, random }),
        Just(Evaluation::Failed),
        Just(Evaluation::Absent),
    ]
}

proptest! {
    #[test]
    fn whatever_is_measured_ratings_stay_sane_and_survive_their_bytes(
        rounds in proptest::collection::vec(proptest::collection::vec((0u8..12, any_gain()), 0..14), 1..20),
    ) {
        let mut ratings = ratings();
        for (round, scored) in (0..).zip(&rounds) {
            let scored: Vec<Scored> =
                scored.iter().map(|(uid, evaluation)| Scored { peer: key(*uid), evaluation: *evaluation }).collect();
            ratings.observe(Round(round), &scored).unwrap();
        }
        let shares = ratings.shares(&members(12), 2.0);
        prop_assert!(shares.values().all(|share| (0.0..=1.0).contains(share)), "{shares:?}");
        prop_assert!(shares.is_empty() || (shares.values().sum::<f64>() - 1.0).abs() < 1e-9);
        let bytes = ratings.to_bytes();
        prop_assert!(bytes.len() <= BYTES_MAX);
        prop_assert_eq!(Ratings::from_bytes(&bittensor().scoring, &bytes), Ok(ratings));
    }

    /// The order in which peers are scored is chance: it must not matter.
    #[test]
    fn the_order_of_evaluations_does_not_matter(seed: u64) {
        let (mut dice, mut one, mut other) = (Dice::seeded(seed), ratings(), ratings());
        for round in 0..5 {
            let mut scored = round_of(&std::array::from_fn::<_, 8, _>(|_| Some(dice.normal())));
            one.observe(Round(round), &scored).unwrap();
            scored.sort_by_key(|_| dice.unit().to_bits());
            other.observe(Round(round), &scored).unwrap();
        }
        prop_assert_eq!(one, other);
    }

    #[test]
    fn foreign_bytes_never_panic_and_are_read_only_as_written(
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut ratings = ratings();
        observe(&mut ratings, 3, &[Some(0.01), Some(0.02), None]);
        let mut bytes = ratings.to_bytes();
        for (index, byte) in flips {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(read) = Ratings::from_bytes(&bittensor().scoring, &bytes) {
            let shares = read.shares(&members(8), 2.0);
            prop_assert!(shares.values().all(|share| share.is_finite()));
        }
    }
}

#[test]
fn a_torn_file_says_what_to_do() {
    let fault = Ratings::from_bytes(&bittensor().scoring, b"CVYRAT01").unwrap_err();
    assert_eq!(fault.to_string(), "8 bytes are no ratings; move the file away to start with none");
}
