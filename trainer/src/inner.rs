//! One round of inner steps: how many, at which learning rate. Where batches come from and when time is up is the
//! caller's decision.

use crate::backend::{BackendError, Batch, Rates, StepHyper, StepStats, Trainer};
use covey_proto::Round;
use covey_proto::run::Run;
use std::collections::VecDeque;

/// What a round's training came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundReport {
    /// Steps made.
    pub steps: u32,
    /// Sequences trained on.
    pub samples: u32,
    /// Tokens predicted.
    pub tokens: u64,
    /// Loss of the first batch, before its step; not a number if there was none.
    pub loss_first: f64,
    /// Loss of the last batch, before its step.
    pub loss_last: f64,
    /// Mean of all batches' losses.
    pub loss_mean: f64,
}

/// Why a round's training ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum TrainError<E> {
    /// A batch could not be had.
    #[error("batch {step}: {source}")]
    Batch {
        /// The step it was for.
        step: u32,
        /// Why.
        source: E,
    },
    /// The backend refused or diverged.
    #[error("step {step}: {source}")]
    Step {
        /// The step.
        step: u32,
        /// Why.
        source: BackendError,
    },
}

/// The learning rates of step `step` of `steps` in `round`, `since_reset` steps after the moments were last zero: the
/// schedules' at round + step/steps, times min(1, (since_reset + 1)/warmup_steps). A run without `embed_rate` has one.
pub fn learning_rates(run: &Run, round: Round, step: u32, steps: u32, since_reset: u64) -> Rates {
    let at = f64::from(round.0) + f64::from(step) / f64::from(steps.max(1));
    let warmup = match run.inner.warmup_steps {
        0 => 1.0,
        warmup => ((since_reset as f64 + 1.0) / f64::from(warmup)).min(1.0),
    };
    let rate = run.inner.rate.linear(at) * warmup;
    let embed_rate = run.inner.embed_rate.as_ref().map_or(rate, |schedule| schedule.linear(at) * warmup);
    Rates { rate, embed_rate }
}

impl RoundReport {
    /// Before the first step.
    const EMPTY: RoundReport =
        RoundReport { steps: 0, samples: 0, tokens: 0, loss_first: f64::NAN, loss_last: f64::NAN, loss_mean: f64::NAN };
}

/// Puts a round's report together from statistics that may come a step late.
struct Tally {
    round: Round,
    report: RoundReport,
    /// Steps whose statistics have come, and the sum of their losses.
    known: u32,
    sum: f64,
    /// Learning rates of the other steps.
    rates: VecDeque<f64>,
}

impl Tally {
    fn new(round: Round) -> Tally {
        Tally { round, report: RoundReport::EMPTY, known: 0, sum: 0.0, rates: VecDeque::new() }
    }

    /// A step was begun.
    fn begun(&mut self, batch: &Batch, rate: f64) {
        self.rates.push_back(rate);
        self.report.steps += 1;
        self.report.samples = self.report.samples.saturating_add(u32::try_from(batch.sequences()).unwrap_or(u32::MAX));
    }

    /// The statistics of the next step in line.
    fn learned(&mut self, stats: &StepStats) {
        if self.known == 0 {
            self.report.loss_first = stats.loss;
        }
        self.report.loss_last = stats.loss;
        self.report.tokens += stats.tokens;
        self.sum += stats.loss;
        let (step, round, rate) = (self.known, self.round.0, self.rates.pop_front());
        tracing::debug!(round, step, loss = stats.loss, norm = stats.gradient_norm, rate, "step");
        self.known += 1;
        self.report.loss_mean = self.sum / f64::from(self.known);
    }
}

/// Runs the round's H steps from whatever is loaded, and waits for them. `batches(i)` makes batch i; `keep_going(i, stats)`
/// is asked after step i was begun and may end the round early (a deadline, a shutdown). Its statistics, if there are any,
/// are of step i or of the one before, as [`Trainer::step`] gives them. What was learned stays in the trainer either way.
///
/// # Errors
/// A batch that cannot be had, or a step that fails; the steps before it remain.
pub fn train_round<E>(
    trainer: &mut dyn Trainer,
    run: &Run,
    round: Round,
    mut batches: impl FnMut(u32) -> Result<Batch, E>,
    mut keep_going: impl FnMut(u32, Option<&StepStats>) -> bool,
) -> Result<RoundReport, TrainError<E>> {
    let steps = u32::try_from(run.inner.steps.count(round)).unwrap_or(u32::MAX);
    let mut tally = Tally::new(round);
    for step in 0..steps {
        let batch = match batches(step) {
            Ok(batch) => batch,
            Err(source) => {
                // What was begun is waited for, so that no step's failure is told of later as another's.
                trainer.finish().map_err(|source| TrainError::Step { step: tally.known, source })?;
                return Err(TrainError::Batch { step, source });
            }
        };
        let hyper = StepHyper::of(&run.inner, learning_rates(run, round, step, steps, trainer.steps()));
        let known = tally.known;
        let stats = trainer.step(&batch, &hyper).map_err(|source| TrainError::Step { step: known, source })?;
        tally.begun(&batch, hyper.rate);
        if let Some(stats) = &stats {
            tally.learned(stats);
        }
        if !keep_going(step, stats.as_ref()) {
            break;
        }
    }
    let known = tally.known;
    if let Some(stats) = trainer.finish().map_err(|source| TrainError::Step { step: known, source })? {
        tally.learned(&stats);
    }
    Ok(tally.report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{EncodedContribution, LoadError, SaveError};
    use crate::cpu::CpuTrainer;
    use crate::testing::{small_model, tokens};
    use covey_proto::run::Optimizer;
    use covey_proto::schedule::Schedule;
    use covey_sparseloco::Compression;
    use covey_sparseloco::state::as_le_bytes;
    use std::convert::Infallible;
    use std::io;

    fn run() -> Run {
        let mut run = crate::testing::run();
        run.inner.steps = Schedule::points(vec![(0, 4.0), (5, 6.0)]);
        run.inner.rate = Schedule::points(vec![(0, 0.01), (10, 0.0)]);
        run.inner.warmup_steps = 8;
        run
    }

    fn batch(step: u32) -> Result<Batch, Infallible> {
        let model = small_model();
        Ok(Batch::new(&model, tokens(&model, 2, u64::from(step))).unwrap())
    }

    fn trainer() -> CpuTrainer {
        let mut trainer = CpuTrainer::new(&small_model(), Optimizer::AdamW, 1);
        trainer.load(&mut as_le_bytes(&crate::genesis::initial_state(&small_model()).unwrap())).unwrap();
        trainer
    }

    /// A device that tells of each step one call late.
    struct Late(CpuTrainer, Option<StepStats>);

    impl Trainer for Late {
        fn step(&mut self, batch: &Batch, hyper: &StepHyper) -> Result<Option<StepStats>, BackendError> {
            let stats = self.0.step(batch, hyper)?;
            Ok(std::mem::replace(&mut self.1, stats))
        }
        fn finish(&mut self) -> Result<Option<StepStats>, BackendError> {
            Ok(self.1.take())
        }
        fn steps(&self) -> u64 {
            self.0.steps()
        }
        fn load(&mut self, base: &mut dyn io::Read) -> Result<(), LoadError> {
            self.0.load(base)
        }
        fn save(&self, to: &mut dyn io::Write) -> Result<(), SaveError> {
            self.0.save(to)
        }
        fn contribute(&mut self, base: &[f32], how: &Compression) -> Result<EncodedContribution, BackendError> {
            self.0.contribute(base, how)
        }
        fn discard_feedback(&mut self) {}
        fn keep_feedback(&mut self) {
            self.0.keep_feedback();
        }
        fn save_feedback(&self, to: &mut dyn io::Write) -> Result<(), SaveError> {
            self.0.save_feedback(to)
        }
        fn restore_feedback(&mut self, from: &mut dyn io::Read) -> Result<(), LoadError> {
            self.0.restore_feedback(from)
        }
        fn reset_feedback(&mut self) {
            self.0.reset_feedback();
        }
        fn save_moments(&self, to: &mut dyn io::Write) -> Result<(), SaveError> {
            self.0.save_moments(to)
        }
        fn restore_moments(&mut self, from: &mut dyn io::Read) -> Result<(), LoadError> {
            self.0.restore_moments(from)
        }
        fn reset_moments(&mut self) {
            self.0.reset_moments();
        }
    }

    #[test]
    fn the_rate_follows_the_schedule_within_a_round_and_warms_up_after_a_reset() {
        let rate = |round, step, since_reset| learning_rates(&run(), Round(round), step, 4, since_reset).rate;
        assert_eq!(rate(0, 0, 0), 0.01 / 8.0);
        assert_eq!(rate(2, 2, 1_000), 0.01 * 0.75);
        assert!((rate(2, 2, 3) - 0.01 * 0.75 * 0.5).abs() < 1e-18);
        assert_eq!(rate(12, 0, 1_000), 0.0);
        let mut cold = run();
        cold.inner.warmup_steps = 0;
        assert_eq!(learning_rates(&cold, Round(0), 0, 4, 0), Rates { rate: 0.01, embed_rate: 0.01 });
        cold.inner.embed_rate = Some(Schedule::points(vec![(0, 0.06), (10, 0.0)]));
        assert_eq!(learning_rates(&cold, Round(5), 0, 4, 0), Rates { rate: 0.005, embed_rate: 0.03 });
    }

    #[test]
    fn a_round_makes_its_steps_and_reports_them() {
        let mut trainer = trainer();
        let mut losses = Vec::new();
        let report = train_round(&mut trainer, &run(), Round(7), batch, |_, stats| {
            losses.push(stats.unwrap().loss);
            true
        })
        .unwrap();
        assert_eq!((report.steps, report.samples, report.tokens, trainer.steps()), (6, 12, 6 * 2 * 12, 6));
        assert_eq!((report.loss_first, report.loss_last), (losses[0], losses[5]));
        assert!((report.loss_mean - losses.iter().sum::<f64>() / 6.0).abs() < 1e-12);
    }

    #[test]
    fn a_round_ends_early_when_told_or_out_of_data_and_keeps_what_it_learned() {
        let mut trainer = trainer();
        let report = train_round(&mut trainer, &run(), Round(0), batch, |step, _| step < 1).unwrap();
        assert_eq!((report.steps, trainer.steps()), (2, 2));
        let short = |step| {
            if step == 0 { Ok(batch(step).unwrap()) } else { Err("no more data") }
        };
        let ended = train_round(&mut trainer, &run(), Round(0), short, |_, _| true);
        assert_eq!(ended.unwrap_err().to_string(), "batch 1: no more data");
        assert_eq!(trainer.steps(), 3);
    }

    #[test]
    fn statistics_that_lag_a_step_make_the_same_report() {
        let (mut prompt, mut late) = (trainer(), Late(trainer(), None));
        let expected = train_round(&mut prompt, &run(), Round(7), batch, |_, stats| stats.is_some()).unwrap();
        let report = train_round(&mut late, &run(), Round(7), batch, |step, stats| stats.is_some() || step == 0);
        assert_eq!(report.unwrap(), expected);
        // The last step begun is waited for, also where the round ends early or without data.
        let report = train_round(&mut late, &run(), Round(7), batch, |step, _| step < 1).unwrap();
        assert_eq!((report.steps, report.tokens, late.finish()), (2, 2 * 2 * 12, Ok(None)));
        let short = |step| if step < 2 { Ok(batch(step).unwrap()) } else { Err("no more data") };
        let ended = train_round(&mut late, &run(), Round(7), short, |_, _| true).unwrap_err();
        assert_eq!((ended.to_string().as_str(), late.finish()), ("batch 2: no more data", Ok(None)));
    }
}
