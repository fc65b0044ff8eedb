//! Gauntlet's evaluation of one contribution: what a share of its step alone does to the loss, on its author's data and on
//! data that nobody was given.
//!
//! The base is loaded once a round. Each contribution is tried where the parameters are and taken back, so that an
//! evaluation costs three forward passes of an evaluation set and no copy of the model.

use covey_proto::Uid;
use covey_proto::run::Run;
use covey_round::engine::Collection;
use covey_round::rating::Evaluation;
use covey_sparseloco::{CodecError, OuterStep, SparseShard, StepError};
use covey_trainer::data::Dataset;
use covey_trainer::{BackendError, Batch, BatchError, LanguageModel, LoadError, TryError};
use std::io::Read;
use std::slice::from_ref;

/// Why an evaluation failed: this machine's fault.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// The base is not to be had.
    #[error("the base: {0}")]
    Base(#[from] LoadError),
    /// The device refuses.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The data is not the model's.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The contribution cannot be applied.
    #[error(transparent)]
    Try(#[from] TryError),
}

/// What a [`Bench`] is set up with.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The training data.
    pub data: &'a Dataset,
    /// The run.
    pub run: &'a Run,
    /// The round.
    pub collection: &'a Collection,
    /// Who evaluates.
    pub voter: Uid,
}

/// One validator's evaluations of one round.
pub struct Bench<'a> {
    model: &'a mut dyn LanguageModel,
    setting: Setting<'a>,
    random: Batch,
    random_before: f64,
}

impl<'a> Bench<'a> {
    /// Loads `base`, the state that the round's contributions are based on (its parameters as bytes, to the end); draws the
    /// random data and takes its loss before.
    ///
    /// # Errors
    /// The base cannot be read, the device refuses, or the data is not the model's.
    pub fn new(
        model: &'a mut dyn LanguageModel,
        setting: Setting<'a>,
        base: &mut dyn Read,
    ) -> Result<Bench<'a>, ScoreError> {
        let Setting { data, run, collection, voter } = setting;
        let count = run.scoring.sequences as usize;
        let samples = collection.assignment.evaluation(collection.beacon, voter, count);
        let random = data.batch(&run.model, samples)?;
        model.load(base)?;
        let [random_before] = losses(model, from_ref(&random))?;
        Ok(Bench { model, setting, random, random_before })
    }

    /// Tries the contribution of `uid` alone: the base state less a share of the outer step. `shards` are its shards in
    /// order, decoded as they are asked for; `factors` what each tensor is multiplied by ([`super::Scale`]). The model holds the base again afterwards.
    ///
    /// # Errors
    /// The device refuses, the data is not the model's, or the shards are not this layout's.
    pub fn evaluate(
        &mut self,
        uid: Uid,
        factors: &[Option<f32>],
        shards: &mut dyn Iterator<Item = Result<SparseShard, CodecError>>,
    ) -> Result<Evaluation, ScoreError> {
        let Setting { data, run, collection, voter, .. } = self.setting;
        let count = run.scoring.sequences as usize;
        let Some(samples) = collection.assignment.own_samples(collection.beacon, voter, uid, count) else {
            return Ok(Evaluation::Failed);
        };
        let own = data.batch(&run.model, samples)?;
        let [own_before] = losses(self.model, from_ref(&own))?;
        let alpha = run.outer.rate.linear(f64::from(collection.round.0)) * run.scoring.rate;
        let step = OuterStep { alpha, rho: run.outer.rho, reach: &[] };
        match self.model.try_step(shards, factors, step) {
            Ok(()) => {}
            // Values so large that a parameter would not be finite: the author's fault, and no reason to rate nobody.
            Err(TryError::Step(StepError::NotFinite { .. })) => return Ok(Evaluation::Failed),
            Err(error) => return Err(error.into()),
        }
        let batches = [own, self.random.clone()];
        let after = losses(self.model, &batches);
        self.model.undo();
        // Sequences of which nothing is learnt, as a long question is, say nothing of anybody.
        let gain = |before: f64, after: f64| if before > 0.0 { (before - after) / before } else { 0.0 };
        match after {
            Ok([own, random]) => {
                Ok(Evaluation::Gains { own: gain(own_before, own), random: gain(self.random_before, random) })
            }
            // A contribution that makes the loss infinite is worth less than nothing, and no fault of this machine.
            Err(BackendError::NotFinite { .. }) => Ok(Evaluation::Failed),
            Err(error) => Err(error.into()),
        }
    }
}

/// The losses of as many batches.
fn losses<const N: usize>(model: &mut dyn LanguageModel, batches: &[Batch]) -> Result<[f64; N], BackendError> {
    let losses = model.losses(batches)?;
    // A backend that answers with another number of losses is broken.
    <[f64; N]>::try_from(losses).map_err(|losses| BackendError::Device {
        device: "the backend".to_owned(),
        message: format!("{} losses of {N} batches", losses.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoring::{Scale, norms};
    use crate::testing::{made_up_text, tiny_run};
    use covey_proto::layout::Layout;
    use covey_proto::{Digest, Round};
    use covey_round::assign::{Assignment, samples_per_member};
    use covey_sparseloco::state::as_le_bytes;
    use covey_sparseloco::{Compression, decode_shard, outer_step};
    use covey_trainer::genesis::initial_state;
    use covey_trainer::inner::train_round;
    use covey_trainer::{Backend, Device, open_backend};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    struct Rig {
        _folder: tempfile::TempDir,
        data: Dataset,
        run: Run,
        layout: Layout,
        collection: Collection,
        backend: Box<dyn Backend>,
        base: Vec<f32>,
    }

    fn uid(number: u32) -> Uid {
        Uid::new(number).unwrap()
    }

    impl Rig {
        fn new() -> Rig {
            let (folder, data) = made_up_text(5);
            let run = tiny_run(data.digest());
            let per_member = samples_per_member(&run, Round(0));
            let samples = data.samples(run.model.sequence);
            let collection = Collection {
                round: Round(0),
                base: Digest::of(b"base"),
                members: Arc::new(BTreeMap::new()),
                offered: BTreeMap::new(),
                assignment: Arc::new(Assignment::new(Digest::of(b"seed"), samples, (0..3).map(uid), per_member)),
                beacon: Digest::of(b"beacon"),
            };
            let backend = open_backend(&Device::Cpu { threads: 2 }, &run.model).unwrap();
            let (layout, base) = (run.layout(), initial_state(&run.model).unwrap());
            Rig { _folder: folder, data, run, layout, collection, backend, base }
        }

        fn setting(&self) -> Setting<'_> {
            let Rig { data, run, collection, .. } = self;
            Setting { data, run, collection, voter: uid(2) }
        }

        /// A contribution's factors where it is the only one: it is its own median.
        fn alone(&self) -> Vec<Option<f32>> {
            vec![Some(1.0); self.layout.tensors().len()]
        }

        /// What a miner with this uid would send.
        fn contribution(&self, of: u32) -> Vec<SparseShard> {
            let Rig { data, run, layout, collection, base, .. } = self;
            let mut trainer = self.backend.trainer(self.run.inner.optimizer).unwrap();
            trainer.load(&mut as_le_bytes(base)).unwrap();
            let mut samples = collection.assignment.samples_of(uid(of)).into_iter().flatten();
            let batches = |_| data.batch(&run.model, samples.by_ref().take(run.inner.batch as usize));
            train_round(&mut *trainer, run, Round(0), batches, |_, _| true).unwrap();
            let (quantiser, shard_chunks) = (run.compress.quantiser, run.compress.shard_chunks as usize);
            let how = Compression { beta: 0.95, k: 256, quantiser, shard_chunks };
            let shards = trainer.contribute(base, &how).unwrap().shards;
            let decode = |(number, shard): (usize, &Vec<u8>)| {
                decode_shard(shard, layout, layout.shard(number, shard_chunks), how.k, quantiser).unwrap()
            };
            shards.iter().enumerate().map(decode).collect()
        }

        /// The evaluation by its definition: whole states, loaded one after the other.
        fn by_definition(&self, of: u32, shards: &[SparseShard]) -> Evaluation {
            let Rig { data, run, layout, collection, base, .. } = self;
            let count = run.scoring.sequences as usize;
            let own = collection.assignment.own_samples(collection.beacon, uid(2), uid(of), count).unwrap();
            let random = collection.assignment.evaluation(collection.beacon, uid(2), count);
            let batches = [own, random].map(|samples| data.batch(&run.model, samples).unwrap());
            let mut after = base.clone();
            let alpha = run.outer.rate.linear(0.0) * run.scoring.rate;
            outer_step(layout, &mut after, &[shards], OuterStep { alpha, rho: run.outer.rho, reach: &[] }).unwrap();
            let losses = |state: &[f32]| {
                let mut model = self.backend.model().unwrap();
                model.load(&mut as_le_bytes(state)).unwrap();
                model.losses(&batches).unwrap()
            };
            let (before, after) = (losses(base), losses(&after));
            let gain = |at: usize| (before[at] - after[at]) / before[at];
            Evaluation::Gains { own: gain(0), random: gain(1) }
        }
    }

    /// One contribution after the other on one model gives what each would give on a model of its own.
    #[test]
    fn contributions_are_evaluated_in_place_as_if_each_were_the_first() {
        let rig = Rig::new();
        let sent: Vec<Vec<SparseShard>> = (0..2).map(|of| rig.contribution(of)).collect();
        let mut model = rig.backend.model().unwrap();
        let mut bench = Bench::new(&mut *model, rig.setting(), &mut as_le_bytes(&rig.base)).unwrap();
        for of in [0, 1, 0] {
            let shards = &sent[of as usize];
            let found = bench.evaluate(uid(of), &rig.alone(), &mut shards.iter().cloned().map(Ok)).unwrap();
            assert_eq!(found, rig.by_definition(of, shards));
            let Evaluation::Gains { own, random } = found else { panic!("{found:?}") };
            assert!(own > 0.0 && random > 0.0, "uid {of} learned something: {found:?}");
        }
        let stranger = bench.evaluate(uid(9), &rig.alone(), &mut sent[0].iter().cloned().map(Ok)).unwrap();
        assert_eq!(stranger, Evaluation::Failed, "who was assigned nothing is judged by nothing");
    }

    /// Who sends its honest update eightfold is tried as loud as it would be applied: as the others are.
    #[test]
    fn shouting_earns_nothing() {
        let rig = Rig::new();
        let sent: Vec<Vec<SparseShard>> = (0..2).map(|of| rig.contribution(of)).collect();
        let loud: Vec<SparseShard> = sent[1].iter().map(|shard| scaled(shard, 8.0)).collect();
        let norms_of = |shards: &[SparseShard]| norms(&rig.layout, shards.iter().cloned().map(Ok::<_, ()>)).unwrap();
        let scale = Scale::new(&rig.run, &rig.layout, Round(0), &[norms_of(&sent[0]), norms_of(&loud)]);
        let mut model = rig.backend.model().unwrap();
        let mut bench = Bench::new(&mut *model, rig.setting(), &mut as_le_bytes(&rig.base)).unwrap();
        let mut gain = |shards: &[SparseShard], factors: &[Option<f32>]| match bench
            .evaluate(uid(1), factors, &mut shards.iter().cloned().map(Ok))
            .unwrap()
        {
            Evaluation::Gains { random, .. } => random,
            other => panic!("{other:?}"),
        };
        let [honest, heard] = [&sent[1], &loud].map(|shards| gain(shards, &scale.factors(&norms_of(shards))));
        assert!((heard / honest - 1.0).abs() < 0.2, "{heard} for {honest}");
        let shouted = gain(&loud, &rig.alone());
        assert!(shouted > 2.0 * honest, "without a scale it would be worth {shouted}");
        let reached = Scale::new(&rig.run, &rig.layout, Round(0), &[]);
        let endless: Vec<SparseShard> = sent[1].iter().map(|shard| scaled(shard, 1e12)).collect();
        assert!(reached.factors(&norms_of(&endless)).iter().all(Option::is_none), "beyond any reach it is not sent");
    }

    fn scaled(shard: &SparseShard, by: f32) -> SparseShard {
        let mut scaled = SparseShard::with_capacity(shard.chunks().start, shard.chunks().len(), 0);
        for number in shard.chunks() {
            let (indices, values) = shard.chunk(number);
            scaled.push_chunk(indices, &values.iter().map(|value| value * by).collect::<Vec<_>>());
        }
        scaled
    }

    #[test]
    fn what_cannot_be_tried_is_an_error_and_leaves_the_base() {
        let rig = Rig::new();
        let sent = rig.contribution(0);
        let mut model = rig.backend.model().unwrap();
        assert!(Bench::new(&mut *model, rig.setting(), &mut as_le_bytes(&rig.base[1..])).is_err());
        let mut bench = Bench::new(&mut *model, rig.setting(), &mut as_le_bytes(&rig.base)).unwrap();
        let expected = bench.evaluate(uid(0), &rig.alone(), &mut sent.iter().cloned().map(Ok)).unwrap();
        let cut = bench.evaluate(uid(0), &rig.alone(), &mut sent[1..].iter().cloned().map(Ok));
        assert!(matches!(cut, Err(ScoreError::Try(_))));
        assert_eq!(bench.evaluate(uid(0), &rig.alone(), &mut sent.iter().cloned().map(Ok)).unwrap(), expected);
    }

    /// A step that makes the loss infinite is the contribution's fault, not this machine's.
    #[test]
    fn a_loss_that_is_not_finite_fails_the_contribution() {
        let mut rig = Rig::new();
        let mut loud = SparseShard::with_capacity(0, rig.layout.chunks(), 0);
        let last = rig.layout.tensor("model.norm.weight").unwrap().first_chunk;
        for chunk in 0..rig.layout.chunks() {
            let values: &[(u16, f32)] = if chunk == last { &[(0, 1e37), (1, 1e37)] } else { &[] };
            let (indices, values): (Vec<u16>, Vec<f32>) = values.iter().copied().unzip();
            loud.push_chunk(&indices, &values);
        }
        rig.run.scoring.rate = 30.0;
        let mut model = rig.backend.model().unwrap();
        let mut bench = Bench::new(&mut *model, rig.setting(), &mut as_le_bytes(&rig.base)).unwrap();
        let found = bench.evaluate(uid(0), &rig.alone(), &mut [Ok(loud)].into_iter()).unwrap();
        assert_eq!(found, Evaluation::Failed);
        assert!(bench.random_before.is_finite());
    }
}
