//! What no other crate can see of the CPU backend: buffers, ways of computing the same, and that threads change no bit.

use super::language_model::CpuModel;
use super::network::Network;
use super::passes::Passes;
use super::pool::Pool;
use super::shape::Shape;
use super::trainer::CpuTrainer;
use super::{BackendError, LanguageModel, Trainer, open};
use crate::backend::{Batch, CONTEXT, SaveError, StepHyper, TryError};
use crate::testing::{small_model, tokens};
use covey_proto::layout::Layout;
use covey_proto::run::{Model, Optimizer, Quantiser};
use covey_sparseloco::state::{as_le_bytes, as_le_bytes_mut};
use covey_sparseloco::{Compression, NormAccumulator, OuterStep, SparseShard, compress, decode_shard, outer_step};
use std::sync::Arc;

const HYPER: StepHyper = StepHyper {
    rate: 0.01,
    embed_rate: 0.01,
    momentum: 0.0,
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-8,
    weight_decay: 0.1,
    clip: 1.0,
};
const HOW: Compression = Compression { beta: 0.95, k: 300, quantiser: Quantiser::TwoMagnitudes, shard_chunks: 2 };

fn initial(model: &Model) -> Vec<f32> {
    crate::genesis::initial_state(model).unwrap()
}

fn loaded(model: &Model, threads: usize) -> CpuModel {
    let mut loaded = CpuModel::new(model, threads);
    loaded.load(&mut as_le_bytes(&initial(model))).unwrap();
    loaded
}

fn trainer(model: &Model) -> CpuTrainer {
    let mut trainer = CpuTrainer::new(model, Optimizer::AdamW, 1);
    trainer.load(&mut as_le_bytes(&initial(model))).unwrap();
    trainer
}

fn parameters(trainer: &dyn Trainer, model: &Model) -> Vec<f32> {
    let mut out = vec![0.0; Layout::of(model).elements()];
    trainer.save(&mut as_le_bytes_mut(&mut out)).unwrap();
    out
}

fn feedback(trainer: &dyn Trainer) -> Vec<u8> {
    let mut bytes = Vec::new();
    trainer.save_feedback(&mut bytes).unwrap();
    bytes
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn decoded(layout: &Layout, shards: &[Vec<u8>]) -> Vec<SparseShard> {
    let decode = |(number, bytes): (usize, &Vec<u8>)| {
        decode_shard(bytes, layout, layout.shard(number, HOW.shard_chunks), HOW.k, HOW.quantiser).unwrap()
    };
    shards.iter().enumerate().map(decode).collect()
}

#[test]
fn probabilities_computed_again_give_the_same_gradient_as_kept_ones() {
    // Longer than two blocks of queries, and no multiple of a block.
    let model = Model { sequence: 75, ..small_model() };
    let batch = Batch::new(&model, tokens(&model, 3, 1)).unwrap();
    let [kept, again] = [true, false].map(|keep| {
        let mut trainer =
            CpuTrainer::with(&model, Optimizer::AdamW, Arc::new(Pool::new(1)), Passes::Both { keep: Some(keep) });
        trainer.load(&mut as_le_bytes(&initial(&model))).unwrap();
        let (loss, gradient) = trainer.gradient(&batch).unwrap();
        (loss, gradient.to_vec())
    });
    assert_eq!(kept.0, again.0);
    for (at, (kept, again)) in kept.1.iter().zip(&again.1).enumerate() {
        assert!((kept - again).abs() <= 1e-6, "element {at}: {kept} kept, {again} computed again");
    }
}

#[test]
fn a_batch_larger_than_the_buffers_is_the_mean_of_its_parts() {
    let model = Model { sequence: 100, ..small_model() };
    let all = tokens(&model, 24, 2);
    let mut trainer = trainer(&model);
    assert!(Network::new(&model, Passes::Forward, 1).sequences_max() < 24);
    let (loss, gradient) = trainer.gradient(&Batch::new(&model, all.clone()).unwrap()).unwrap();
    let gradient = gradient.to_vec();
    let mut mean = vec![0.0f64; gradient.len()];
    let mut mean_loss = 0.0;
    for part in all.chunks(all.len() / 4) {
        let (loss, gradient) = trainer.gradient(&Batch::new(&model, part.to_vec()).unwrap()).unwrap();
        mean_loss += loss / 4.0;
        mean.iter_mut().zip(gradient).for_each(|(mean, part)| *mean += f64::from(*part) / 4.0);
    }
    assert!((loss - mean_loss).abs() < 1e-6);
    for (at, (whole, mean)) in gradient.iter().zip(&mean).enumerate() {
        assert!((f64::from(*whole) - mean).abs() <= 1e-6, "element {at}: {whole} whole, {mean} in parts");
    }
    let judged = loaded(&model, 1).losses(&[Batch::new(&model, all).unwrap()]).unwrap();
    assert_eq!(judged, [loss], "who judges and who learns see the same");
}

#[test]
fn neither_threads_nor_other_batches_change_a_loss() {
    let model = Model { sequence: 100, ..small_model() };
    let batches: Vec<Batch> =
        [1, 13, 5].iter().map(|n| Batch::new(&model, tokens(&model, *n, *n as u64)).unwrap()).collect();
    let alone = batches.iter().map(|batch| loaded(&model, 1).losses(std::slice::from_ref(batch)).unwrap()[0].to_bits());
    let alone: Vec<u64> = alone.collect();
    for threads in [0, 1, 2, 3, 16] {
        let together = loaded(&model, threads).losses(&batches).unwrap();
        assert_eq!(together.iter().map(|loss| loss.to_bits()).collect::<Vec<_>>(), alone, "{threads} threads");
    }
    assert!(loaded(&model, 2).losses(&[]).unwrap().is_empty());
}

/// Wide enough for several blocks in every product, several tasks in every function of rows, several groups of sequences,
/// and attention over more than one block of queries.
fn wide_model(tied: bool) -> Model {
    Model { vocabulary: 300, width: 160, feed_forward: 288, sequence: 70, tied, ..small_model() }
}

#[test]
fn no_bit_of_training_depends_on_threads() {
    for tied in [true, false] {
        let model = wide_model(tied);
        let batches = [9, 3].map(|rows| Batch::new(&model, tokens(&model, rows, rows as u64)).unwrap());
        let base = initial(&model);
        let trained = |threads| {
            let mut trainer = CpuTrainer::new(&model, Optimizer::AdamW, threads);
            trainer.load(&mut as_le_bytes(&base)).unwrap();
            let steps = [0, 1, 0].map(|at: usize| trainer.step(&batches[at], &HYPER).unwrap().unwrap());
            let numbers = steps.map(|stats| (stats.loss.to_bits(), stats.gradient_norm.to_bits()));
            let (mut moments, after) = (Vec::new(), bits(&parameters(&trainer, &model)));
            trainer.save_moments(&mut moments).unwrap();
            let done = trainer.contribute(&base, &HOW).unwrap();
            (numbers, after, moments, done.shards, feedback(&trainer))
        };
        let alone = trained(1);
        for threads in [2, 3, 7, 16] {
            assert!(trained(threads) == alone, "{threads} threads, tied: {tied}");
        }
    }
}

#[test]
fn no_bit_of_a_judgement_depends_on_threads() {
    let model = wide_model(true);
    let batches = [20, 1, 4].map(|rows| Batch::new(&model, tokens(&model, rows, rows as u64)).unwrap());
    let text = &tokens(&model, 1, 5)[..67];
    let judged = |threads| {
        let mut judge = loaded(&model, threads);
        let few = judge.losses(&batches[1..2]).unwrap();
        let all = judge.losses(&batches).unwrap();
        let losses: Vec<u64> = few.into_iter().chain(all).map(f64::to_bits).collect();
        (losses, bits(&judge.logits(text).unwrap()), bits(&judge.logits(&text[..1]).unwrap()))
    };
    let alone = judged(1);
    for threads in [2, 3, 7, 16] {
        assert!(judged(threads) == alone, "{threads} threads");
    }
}

#[test]
fn the_memory_that_is_promised_is_what_is_held() {
    let shapes =
        [small_model(), Model { sequence: 75, tied: false, ..small_model() }, Model { sequence: 700, ..small_model() }];
    for model in shapes {
        for passes in [Passes::Forward, Passes::Both { keep: None }, Passes::Both { keep: Some(false) }] {
            for threads in [1, 3] {
                let held = Network::new(&model, passes, threads).held();
                let said = Network::elements(&Shape::of(&model), passes, threads);
                assert_eq!(held, said, "{passes:?}, sequence {}, {threads} threads", model.sequence);
            }
        }
        let (backend, elements) = (open(3, &model).unwrap(), Layout::of(&model).elements() as u64);
        assert_eq!(
            (backend.model_memory().parameters, backend.trainer_memory(Optimizer::AdamW).parameters),
            (4 * elements, 20 * elements)
        );
        let forward = |threads| 4 * Network::elements(&Shape::of(&model), Passes::Forward, threads) as u64;
        let activations = forward(3) + 2 * forward(1);
        assert_eq!(backend.model_memory().activations, activations);
        assert_eq!(backend.model_memory().total(), 4 * elements + activations);
    }
}

#[test]
fn numbers_that_do_not_fit_together_open_nothing() {
    for (model, what) in [
        (Model { heads: 3, ..small_model() }, "a width that its heads do not divide"),
        (Model { kv_heads: 3, ..small_model() }, "heads that its key and value heads do not divide"),
        (Model { width: 12, ..small_model() }, "heads of an odd width"),
        (Model { layers: 0, ..small_model() }, "none of something"),
    ] {
        assert_eq!(open(1, &model).map(|backend| backend.name()), Err(BackendError::Model { what }));
    }
    assert!(open(0, &small_model()).unwrap().name().ends_with("1 thread)"));
}

#[test]
fn contributions_have_the_codecs_bits_and_only_those_that_count_move_the_feedback() {
    let model = small_model();
    let layout = Layout::of(&model);
    let (mut trainer, base) = (trainer(&model), initial(&model));
    let mut e = vec![0.0; layout.elements()];
    for (round, kept) in [true, false, true, true, false].into_iter().enumerate() {
        trainer.load(&mut as_le_bytes(&base)).unwrap();
        assert_eq!(feedback(&trainer), as_le_bytes(&e), "a load forgets what is pending");
        let batch = Batch::new(&model, tokens(&model, 3, round as u64)).unwrap();
        trainer.step(&batch, &HYPER).unwrap();
        let mut trained = parameters(&trainer, &model);
        let expected = compress(1, &layout, &HOW, &base, &e, &mut trained).unwrap();
        let done = trainer.contribute(&base, &HOW).unwrap();
        assert_eq!((&done.shards, done.stats), (&expected.shards, expected.stats), "round {round}");
        assert_eq!(feedback(&trainer), as_le_bytes(&trained), "the pending feedback is what is saved");
        assert_eq!(trainer.step(&batch, &HYPER), Err(BackendError::NotLoaded));
        assert!(matches!(trainer.save(&mut Vec::new()), Err(SaveError::Backend(BackendError::NotLoaded))));
        if kept {
            trainer.keep_feedback();
            e = trained;
        } else {
            trainer.discard_feedback();
        }
        trainer.keep_feedback();
        assert_eq!(feedback(&trainer), as_le_bytes(&e), "nothing is pending any more: keeping again changes nothing");
    }
}

#[test]
fn a_contribution_that_cannot_be_leaves_the_feedback() {
    let model = small_model();
    let (mut trainer, base) = (trainer(&model), initial(&model));
    let kept: Vec<f32> = (0..base.len()).map(|at| at as f32 * 1e-3).collect();
    trainer.restore_feedback(&mut as_le_bytes(&kept)).unwrap();
    assert!(matches!(trainer.contribute(&base[1..], &HOW), Err(BackendError::Elements { .. })));
    let mut broken = base.clone();
    broken[5] = f32::NAN;
    trainer.load(&mut as_le_bytes(&broken)).unwrap();
    assert!(matches!(trainer.contribute(&base, &HOW), Err(BackendError::Compress(_))));
    trainer.keep_feedback();
    assert_eq!(feedback(&trainer), as_le_bytes(&kept));
    assert!(matches!(trainer.contribute(&base, &HOW), Err(BackendError::NotLoaded)));
    trainer.reset_feedback();
    assert!(feedback(&trainer).iter().all(|byte| *byte == 0));
}

#[test]
fn feedback_of_another_length_or_not_finite_becomes_zero() {
    let model = small_model();
    let mut trainer = trainer(&model);
    let mut kept: Vec<f32> = vec![0.5; Layout::of(&model).elements()];
    let zero = vec![0u8; kept.len() * 4];
    trainer.restore_feedback(&mut as_le_bytes(&kept)).unwrap();
    assert!(trainer.restore_feedback(&mut as_le_bytes(&kept[1..])).is_err());
    assert_eq!(feedback(&trainer), zero);
    kept[2] = f32::INFINITY;
    assert!(trainer.restore_feedback(&mut as_le_bytes(&kept)).is_err());
    assert_eq!(feedback(&trainer), zero);
}

#[test]
fn moments_come_back_and_torn_ones_are_zero() {
    let model = small_model();
    let batch = Batch::new(&model, tokens(&model, 2, 1)).unwrap();
    let mut first = trainer(&model);
    for _ in 0..3 {
        first.step(&batch, &HYPER).unwrap();
    }
    let mut file = Vec::new();
    first.save_moments(&mut file).unwrap();
    let mut second = trainer(&model);
    second.load(&mut as_le_bytes(&parameters(&first, &model))).unwrap();
    second.restore_moments(&mut file.as_slice()).unwrap();
    assert_eq!(second.steps(), 3);
    assert_eq!(first.step(&batch, &HYPER), second.step(&batch, &HYPER));
    assert_eq!(bits(&parameters(&first, &model)), bits(&parameters(&second, &model)));
    let fresh = {
        let mut bytes = Vec::new();
        trainer(&model).save_moments(&mut bytes).unwrap();
        bytes
    };
    for at in [0, 9, 17, 100, file.len() - 1] {
        let mut torn = file.clone();
        torn[at] ^= 1;
        assert!(second.restore_moments(&mut torn.as_slice()).is_err(), "byte {at}");
        let mut after = Vec::new();
        second.save_moments(&mut after).unwrap();
        assert_eq!((second.steps(), &after), (0, &fresh));
        second.restore_moments(&mut file.as_slice()).unwrap();
    }
    second.reset_moments();
    let mut after = Vec::new();
    second.save_moments(&mut after).unwrap();
    assert_eq!(after, fresh);
}

#[test]
fn a_step_that_is_not_finite_changes_nothing() {
    let model = small_model();
    let batch = Batch::new(&model, tokens(&model, 2, 1)).unwrap();
    let mut trainer = trainer(&model);
    trainer.step(&batch, &HYPER).unwrap();
    let mut broken = parameters(&trainer, &model);
    broken[0] = f32::INFINITY;
    trainer.load(&mut as_le_bytes(&broken)).unwrap();
    let mut before = Vec::new();
    trainer.save_moments(&mut before).unwrap();
    let everywhere = Batch::new(&model, vec![0; 13]).unwrap();
    assert!(matches!(trainer.step(&everywhere, &HYPER), Err(BackendError::NotFinite { .. })));
    let mut after = Vec::new();
    trainer.save_moments(&mut after).unwrap();
    assert_eq!((after, bits(&parameters(&trainer, &model))), (before, bits(&broken)));
}

#[test]
fn what_is_tried_has_the_outer_steps_loss_and_leaves_the_base() {
    let model = small_model();
    let layout = Layout::of(&model);
    let batches = [Batch::new(&model, tokens(&model, 5, 3)).unwrap()];
    let (mut trainer, base) = (trainer(&model), initial(&model));
    trainer.step(&batches[0], &HYPER).unwrap();
    let shards = decoded(&layout, &trainer.contribute(&base, &HOW).unwrap().shards);
    let step = OuterStep { alpha: 0.3, rho: 1.0, reach: &[] };
    let mut norms = NormAccumulator::new(&layout, 1);
    shards.iter().for_each(|shard| norms.add_shard(0, shard));
    let factors = norms.factors(&[]).of_contributor(0);
    let mut after = base.clone();
    outer_step(&layout, &mut after, &[&shards], step).unwrap();

    let mut judge = loaded(&model, 2);
    let before = judge.losses(&batches).unwrap();
    for _ in 0..2 {
        judge.try_step(&mut shards.iter().cloned().map(Ok), &factors, step).unwrap();
        let tried = judge.losses(&batches).unwrap();
        let mut stepped = loaded(&model, 1);
        stepped.load(&mut as_le_bytes(&after)).unwrap();
        assert_eq!(tried, stepped.losses(&batches).unwrap());
        assert!(tried[0] < before[0]);
        judge.undo();
        assert_eq!(judge.losses(&batches).unwrap(), before);
    }
    let bad = decode_shard(&[1], &layout, 0..2, HOW.k, HOW.quantiser);
    let mut shards = shards[..1].iter().cloned().map(Ok).chain([bad]);
    assert!(matches!(judge.try_step(&mut shards, &factors, step), Err(TryError::Codec { shard: 1, .. })));
    assert_eq!(judge.losses(&batches).unwrap(), before, "an attempt that fails leaves no trace");
}

#[test]
fn without_parameters_nothing_is_judged() {
    let model = small_model();
    let mut judge = CpuModel::new(&model, 1);
    let batches = [Batch::new(&model, tokens(&model, 1, 3)).unwrap()];
    assert_eq!(judge.losses(&batches), Err(BackendError::NotLoaded));
    assert_eq!(judge.logits(&[1]), Err(BackendError::NotLoaded));
    let step = OuterStep { alpha: 0.3, rho: 1.0, reach: &[] };
    let tried = judge.try_step(&mut std::iter::empty(), &[], step);
    assert_eq!(tried, Err(TryError::Backend(BackendError::NotLoaded)));
    judge.load(&mut as_le_bytes(&initial(&model))).unwrap();
    assert!(judge.load(&mut as_le_bytes(&[0.0; 3])).is_err());
    assert_eq!(judge.losses(&batches), Err(BackendError::NotLoaded), "half a load is none");
}

/// Two halves of the predictions, each learnt with the other only read, are together the whole.
#[test]
fn of_a_token_that_is_only_read_no_loss_is_taken_and_nothing_is_learnt() {
    let model = small_model();
    let all = tokens(&model, 3, 1);
    let row = model.sequence as usize + 1;
    let learnt = |at: usize, odd: usize| at % row % 3 % 2 == odd;
    let half = |odd: usize| {
        let tokens = all.iter().enumerate();
        tokens.map(move |(at, token)| if learnt(at, odd) { *token } else { token | CONTEXT })
    };
    let batches = [all.clone(), half(0).collect(), half(1).collect()].map(|tokens| Batch::new(&model, tokens).unwrap());
    let counts = batches.each_ref().map(|batch| batch.predictions() as f64);
    assert_eq!(counts[0], counts[1] + counts[2]);
    let losses = loaded(&model, 2).losses(&batches).unwrap();
    assert!((counts[0] * losses[0] - counts[1] * losses[1] - counts[2] * losses[2]).abs() < 1e-3, "{losses:?}");
    let [whole, one, other] = batches.each_ref().map(|batch| {
        let mut trainer = trainer(&model);
        trainer.gradient(batch).map(|(loss, gradient)| (loss, gradient.to_vec())).unwrap()
    });
    assert!((losses[1] - one.0).abs() < 1e-6);
    for ((whole, one), other) in whole.1.iter().zip(&one.1).zip(&other.1) {
        let sum = counts[1] * f64::from(*one) + counts[2] * f64::from(*other);
        assert!((counts[0] * f64::from(*whole) - sum).abs() < 1e-3 + 1e-3 * sum.abs(), "{whole} {one} {other}");
    }
    // Nothing at all to predict is no loss and no gradient.
    let read = Batch::new(&model, all.iter().map(|token| token | CONTEXT).collect()).unwrap();
    let mut trainer = trainer(&model);
    let (loss, gradient) = trainer.gradient(&read).unwrap();
    assert!(loss == 0.0 && gradient.iter().all(|value| *value == 0.0));
    assert_eq!(loaded(&model, 1).losses(&[read]).unwrap(), [0.0]);
}

/// A text of any length costs what its tokens cost, and says what a whole batch says.
#[test]
fn texts_of_any_length_are_judged_as_batches_are() {
    let model = small_model();
    let row = tokens(&model, 1, 3);
    let mut loaded = loaded(&model, 2);
    let whole = loaded.losses(&[Batch::new(&model, row.clone()).unwrap()]).unwrap()[0] * f64::from(model.sequence);
    let marked: Vec<u32> =
        row.iter().enumerate().map(|(at, token)| if at < 5 { token | CONTEXT } else { *token }).collect();
    let texts = [row.clone(), row[..7].to_vec(), marked[..7].to_vec(), row[..2].to_vec()];
    let found = loaded.text_losses(&texts).unwrap();
    assert!((found[0] - whole).abs() < 1e-4, "{found:?} {whole}");
    assert_eq!(found, texts.iter().map(|text| loaded.text_losses(&[text.clone()]).unwrap()[0]).collect::<Vec<_>>());
    let logits = loaded.logits(&row[..6]).unwrap();
    let vocabulary = model.vocabulary as usize;
    let nats = |at: usize| {
        let row_of = &logits[at * vocabulary..][..vocabulary];
        let sum: f64 = row_of.iter().map(|logit| f64::from(*logit).exp()).sum();
        sum.ln() - f64::from(row_of[row[at + 1] as usize])
    };
    assert!((found[1] - (0..6).map(nats).sum::<f64>()).abs() < 1e-4);
    assert!((found[2] - (4..6).map(nats).sum::<f64>()).abs() < 1e-4, "of the first five nothing counts");
    for wrong in [vec![1], vec![1; model.sequence as usize + 2], vec![1, model.vocabulary | CONTEXT]] {
        assert!(loaded.text_losses(&[wrong]).is_err());
    }
}
