//! What must hold of compression and the outer step together, whatever the model and the cut into shards.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod common;

use common::{ErrorFeedback, layout, noise};
use covey_proto::layout::Layout;
use covey_proto::run::Quantiser;
use covey_sparseloco::{
    CompressError, Compression, NormAccumulator, OuterStep, SparseShard, StepError, Trial, compress, decode_shard,
    outer_step, outer_step_decoding, outer_step_on, state_root,
};
use proptest::prelude::*;

/// Compresses `delta` into shards of `shard_chunks` and decodes them.
fn contribution(layout: &Layout, how: Compression, delta: &[f32]) -> Vec<SparseShard> {
    let done = ErrorFeedback::zero(layout).compress(layout, &how, delta).unwrap();
    let decode = |(number, bytes): (usize, &Vec<u8>)| {
        decode_shard(bytes, layout, layout.shard(number, how.shard_chunks), how.k, how.quantiser).unwrap()
    };
    done.shards.iter().enumerate().map(decode).collect()
}

fn stepped(layout: &Layout, theta: &[f32], sent: &[Vec<SparseShard>], step: OuterStep<'_>) -> Vec<u32> {
    let mut theta = theta.to_vec();
    outer_step(layout, &mut theta, sent, step).unwrap();
    theta.into_iter().map(f32::to_bits).collect()
}

fn scaled(values: Vec<f32>, by: f32) -> Vec<f32> {
    values.into_iter().map(|value| value * by).collect()
}

const SHAPES: &[&[usize]] = &[&[130, 100], &[5000], &[7], &[64, 192]];

fn hows() -> impl Strategy<Value = Compression> {
    let quantiser = prop_oneof![Just(Quantiser::Sign), Just(Quantiser::TwoMagnitudes), Just(Quantiser::Templar)];
    (1usize..=600, quantiser).prop_map(|(k, quantiser)| Compression { beta: 0.95, k, quantiser, shard_chunks: 100 })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_cut_into_shards_changes_no_bit(
        how in hows(), seed: u64, cut in 1usize..20, rho in 0.0f64..=1.0, alpha in 0.001f64..4.0,
    ) {
        let layout = layout(SHAPES);
        let theta = noise(seed, layout.elements());
        let deltas: Vec<Vec<f32>> = (1..4)
            .map(|uid| scaled(noise(seed ^ uid, layout.elements()), [1.0, 0.01, 30.0][uid as usize % 3]))
            .collect();
        let all = |shard_chunks| -> Vec<Vec<SparseShard>> {
            deltas.iter().map(|delta| contribution(&layout, Compression { shard_chunks, ..how }, delta)).collect()
        };
        let step = OuterStep { alpha, rho, reach: &[] };
        prop_assert_eq!(stepped(&layout, &theta, &all(100), step), stepped(&layout, &theta, &all(cut), step));
    }

    #[test]
    fn the_number_of_threads_changes_no_bit(how in hows(), seed: u64, threads in 2usize..6) {
        // More elements than one piece of work has, in matrices of whole and of ragged tiles and in a vector.
        let layout = layout(&[&[700, 1001], &[900, 1024], &[70_000]]);
        let delta = noise(seed, layout.elements());
        let how = Compression { shard_chunks: 50, ..how };
        let first = ErrorFeedback::zero(&layout).compress(&layout, &how, &delta).unwrap().feedback;
        let one = first.compress_on(1, &layout, &how, &delta).unwrap();
        let many = first.compress_on(threads, &layout, &how, &delta).unwrap();
        prop_assert_eq!(&one.shards, &many.shards);
        prop_assert_eq!(one.stats, many.stats);
        let bits = |feedback: &ErrorFeedback| -> Vec<u32> { feedback.elements().iter().map(|e| e.to_bits()).collect() };
        prop_assert_eq!(bits(&one.feedback), bits(&many.feedback));
        // The first element that is not finite is named, whoever meets it.
        let mut spoilt = delta;
        for at in [900_000, 1_500_000, 800_000] {
            spoilt[at] = f32::NAN;
        }
        let named = |threads| {
            let error = first.compress_on(threads, &layout, &how, &spoilt).map(|_| ()).unwrap_err();
            let CompressError::NotFinite { tensor, index, .. } = error else { panic!("{error}") };
            (tensor, index)
        };
        prop_assert_eq!(named(1), ("t01".to_owned(), 800_000 - 700_700));
        prop_assert_eq!(named(threads), named(1));
    }

    #[test]
    fn neither_threads_nor_holding_shards_encoded_change_a_step(
        how in hows(), seed: u64, threads in 1usize..6, cut in 1usize..500,
    ) {
        let layout = layout(&[&[700, 1001], &[900, 1024], &[70_000]]);
        let how = Compression { shard_chunks: cut, k: how.k.min(64), ..how };
        let theta = noise(seed, layout.elements());
        let deltas = (1..4).map(|uid| noise(seed ^ uid, layout.elements()));
        let zero = ErrorFeedback::zero(&layout);
        let encoded: Vec<Vec<Vec<u8>>> =
            deltas.map(|delta| zero.compress_on(2, &layout, &how, &delta).unwrap().shards).collect();
        let decode = |contributor: usize, number: usize| -> Result<SparseShard, StepError> {
            let chunks = layout.shard(number, how.shard_chunks);
            Ok(decode_shard(&encoded[contributor][number], &layout, chunks, how.k, how.quantiser).unwrap())
        };
        let all = |contributor: usize| (0..encoded[contributor].len()).map(move |number| decode(contributor, number).unwrap());
        let sent: Vec<Vec<SparseShard>> = (0..3).map(|contributor| all(contributor).collect()).collect();
        let step = OuterStep { alpha: 0.7, rho: 0.5, reach: &[] };
        let bits = |theta: Vec<f32>| theta.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
        let expected = stepped(&layout, &theta, &sent, step);
        let mut many = theta.clone();
        outer_step_on(threads, &layout, &mut many, &sent, step).unwrap();
        prop_assert!(bits(many) == expected);
        let mut late = theta;
        outer_step_decoding(threads, &layout, &mut late, (3, cut), step, decode).unwrap();
        prop_assert!(bits(late) == expected);
    }

    #[test]
    fn a_lone_contributor_moves_each_sent_coordinate_by_its_value(how in hows(), seed: u64, rho in 0.0f64..=1.0) {
        let layout = layout(SHAPES);
        let theta = noise(seed, layout.elements());
        let sent = contribution(&layout, how, &noise(!seed, layout.elements()));
        let mut expected = theta.clone();
        for shard in &sent {
            for number in shard.chunks() {
                let (indices, values) = shard.chunk(number);
                for (&index, value) in indices.iter().zip(values) {
                    expected[layout.chunk(number).position(index.into())] -= 0.5 * value;
                }
            }
        }
        // + 0.0 turns −0, which the step never leaves behind, into +0.
        let expected: Vec<u32> = expected.into_iter().map(|value| (value + 0.0).to_bits()).collect();
        prop_assert_eq!(stepped(&layout, &theta, &[sent], OuterStep { alpha: 0.5, rho, reach: &[] }), expected);
    }

    #[test]
    fn a_trial_has_the_outer_steps_bits_and_leaves_none_behind(
        how in hows(), seed: u64, rho in 0.0f64..=3.0, alpha in 0.001f64..4.0,
    ) {
        let layout = layout(SHAPES);
        // What a step has made canonical, as every base of a round is.
        let mut theta = noise(seed, layout.elements());
        let nothing = contribution(&layout, how, &vec![0.0; layout.elements()]);
        outer_step(&layout, &mut theta, &[nothing], OuterStep { alpha: 1.0, rho: 1.0, reach: &[] }).unwrap();
        let before: Vec<u32> = theta.iter().map(|value| value.to_bits()).collect();
        let mut delta = noise(!seed, layout.elements());
        delta[layout.tensors()[2].range()].fill(0.0);
        let sent = contribution(&layout, how, &delta);
        let step = OuterStep { alpha, rho, reach: &[] };
        let mut norms = NormAccumulator::new(&layout, 1);
        sent.iter().for_each(|shard| norms.add_shard(0, shard));
        let expected = stepped(&layout, &theta, std::slice::from_ref(&sent), step);
        let mut trial = Trial::default();
        for factors in [norms.factors(&[]).of_contributor(0), vec![Some(1.0); layout.tensors().len()]] {
            let shards = sent.iter().cloned().map(Ok::<_, StepError>);
            trial.begin(&layout, &mut theta, shards, &factors, step).unwrap();
            prop_assert_eq!(theta.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), expected.clone());
            trial.undo(&layout, &mut theta);
            prop_assert_eq!(theta.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), before.clone());
        }
    }

    #[test]
    fn compressing_in_place_is_compressing_the_difference(how in hows(), seed: u64, threads in 1usize..4) {
        let layout = layout(&[&[700, 1001], &[900, 1024], &[70_000]]);
        let how = Compression { shard_chunks: 300, ..how };
        let base = noise(seed, layout.elements());
        let mut kept = ErrorFeedback::zero(&layout);
        for round in 1..=3u64 {
            let mut trained = noise(seed ^ round, layout.elements());
            let delta: Vec<f32> = base.iter().zip(&trained).map(|(base, trained)| base - trained).collect();
            let expected = kept.compress(&layout, &how, &delta).unwrap();
            let done = compress(threads, &layout, &how, &base, kept.elements(), &mut trained).unwrap();
            prop_assert!(done.shards == expected.shards && done.stats == expected.stats);
            prop_assert_eq!(
                trained.iter().map(|value| value.to_bits()).collect::<Vec<_>>(),
                expected.feedback.elements().iter().map(|value| value.to_bits()).collect::<Vec<_>>()
            );
            // A round whose contribution never counted leaves the feedback as it was.
            if round != 2 {
                kept = expected.feedback;
            }
        }
    }

    #[test]
    fn four_who_send_the_same_are_as_one(how in hows(), seed: u64, rho in 0.0f64..=1.0) {
        let layout = layout(SHAPES);
        let theta = noise(seed, layout.elements());
        let sent = contribution(&layout, how, &noise(!seed, layout.elements()));
        let step = OuterStep { alpha: 1.0, rho, reach: &[] };
        let one = stepped(&layout, &theta, std::slice::from_ref(&sent), step);
        prop_assert_eq!(stepped(&layout, &theta, &vec![sent; 4], step), one);
    }

    #[test]
    fn when_all_is_sent_rho_does_not_matter(seed: u64, rho in 0.0f64..=1.0, two: bool) {
        let layout = layout(SHAPES);
        let theta = noise(seed, layout.elements());
        let quantiser = if two { Quantiser::TwoMagnitudes } else { Quantiser::Sign };
        let how = Compression { beta: 0.95, k: 4096, quantiser, shard_chunks: 4 };
        let sent: Vec<Vec<SparseShard>> =
            (1..4).map(|uid| contribution(&layout, how, &noise(seed ^ uid, layout.elements()))).collect();
        let paper = stepped(&layout, &theta, &sent, OuterStep { alpha: 1.0, rho: 1.0, reach: &[] });
        prop_assert_eq!(stepped(&layout, &theta, &sent, OuterStep { alpha: 1.0, rho, reach: &[] }), paper);
    }

    #[test]
    fn a_state_is_canonical_after_any_step(seed: u64, alpha in 0.001f64..4.0) {
        let layout = layout(SHAPES);
        let how = Compression { beta: 0.95, k: 64, quantiser: Quantiser::Sign, shard_chunks: 4 };
        let mut theta = scaled(noise(seed, layout.elements()), 1e-38);
        let sent = contribution(&layout, how, &noise(!seed, layout.elements()));
        outer_step(&layout, &mut theta, &[sent], OuterStep { alpha, rho: 1.0, reach: &[] }).unwrap();
        prop_assert!(theta.iter().all(|value| value.is_normal() || value.to_bits() == 0));
    }
}

/// Error feedback loses nothing: with β = 1, what was sent and what is left add up to what came, to rounding.
#[test]
fn what_is_not_sent_is_sent_later() {
    let layout = layout(SHAPES);
    let how = Compression { beta: 1.0, k: 256, quantiser: Quantiser::Sign, shard_chunks: 4 };
    let delta = noise(5, layout.elements());
    let mut feedback = ErrorFeedback::zero(&layout);
    let mut theta = vec![0.0; layout.elements()];
    for round in 0..40 {
        let zero = vec![0.0; layout.elements()];
        let done = feedback.compress(&layout, &how, if round == 0 { &delta } else { &zero }).unwrap();
        let sent = done.shards.iter().enumerate().map(|(number, bytes)| {
            decode_shard(bytes, &layout, layout.shard(number, how.shard_chunks), how.k, how.quantiser).unwrap()
        });
        outer_step(&layout, &mut theta, &[sent.collect::<Vec<_>>()], OuterStep { alpha: 1.0, rho: 1.0, reach: &[] })
            .unwrap();
        feedback = done.feedback;
    }
    for ((delta, moved), left) in delta.iter().zip(&theta).zip(feedback.elements()) {
        assert!((delta + moved - left).abs() < 1e-5, "{delta} came, {} went, {left} is left", -moved);
    }
    assert_eq!(state_root(&theta, 1000), state_root(&theta.clone(), 1000));
}
