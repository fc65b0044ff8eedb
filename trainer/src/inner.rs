//! One round of inner steps: how many, at which learning rate. Where batches come from and when time is up is the
//! caller's decision.

use crate::backend::{Backend, BackendError, Batch, StepHyper, StepStats};
use covey_proto::Round;
use covey_proto::run::Run;

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

/// The learning rate of step `step` of `steps` in `round`, `since_reset` steps after the moments were last zero: the
/// schedule's at round + step/steps, times min(1, (since_reset + 1)/warmup_steps).
pub fn learning_rate(run: &Run, round: Round, step: u32, steps: u32, since_reset: u64) -> f64 {
    let at = f64::from(round.0) + f64::from(step) / f64::from(steps.max(1));
    let warmup = match run.inner.warmup_steps {
        0 => 1.0,
        warmup => ((since_reset as f64 + 1.0) / f64::from(warmup)).min(1.0),
    };
    run.inner.rate.linear(at) * warmup
}

/// Runs the round's H steps from whatever is loaded. `batches(i)` makes batch i; `keep_going(i, stats)` is asked after
/// every step and may end the round early (a deadline, a shutdown). What was learned stays in the backend either way.
///
/// # Errors
/// A batch that cannot be had, or a step that fails; the steps before it remain.
pub fn train_round<E>(
    backend: &mut dyn Backend,
    run: &Run,
    round: Round,
    mut batches: impl FnMut(u32) -> Result<Batch, E>,
    mut keep_going: impl FnMut(u32, &StepStats) -> bool,
) -> Result<RoundReport, TrainError<E>> {
    let steps = u32::try_from(run.inner.steps.count(round)).unwrap_or(u32::MAX);
    let mut report =
        RoundReport { steps: 0, samples: 0, tokens: 0, loss_first: f64::NAN, loss_last: f64::NAN, loss_mean: f64::NAN };
    let mut sum = 0.0;
    for step in 0..steps {
        let batch = batches(step).map_err(|source| TrainError::Batch { step, source })?;
        let hyper = StepHyper::of(&run.inner, learning_rate(run, round, step, steps, backend.steps()));
        let stats = backend.step(&batch, &hyper).map_err(|source| TrainError::Step { step, source })?;
        if step == 0 {
            report.loss_first = stats.loss;
        }
        report.loss_last = stats.loss;
        report.steps += 1;
        report.samples = report.samples.saturating_add(u32::try_from(batch.sequences()).unwrap_or(u32::MAX));
        report.tokens += stats.tokens;
        sum += stats.loss;
        report.loss_mean = sum / f64::from(report.steps);
        tracing::debug!(
            round = round.0,
            step,
            loss = stats.loss,
            norm = stats.gradient_norm,
            rate = hyper.rate,
            "step"
        );
        if !keep_going(step, &stats) {
            break;
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuBackend;
    use crate::testing::{small_model, tokens};
    use covey_proto::schedule::Schedule;
    use std::convert::Infallible;

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

    fn backend() -> CpuBackend {
        let mut backend = CpuBackend::new(&small_model());
        backend.load(&crate::genesis::initial_state(&small_model())).unwrap();
        backend
    }

    #[test]
    fn the_rate_follows_the_schedule_within_a_round_and_warms_up_after_a_reset() {
        let rate = |round, step, since_reset| learning_rate(&run(), Round(round), step, 4, since_reset);
        assert_eq!(rate(0, 0, 0), 0.01 / 8.0);
        assert_eq!(rate(2, 2, 1_000), 0.01 * 0.75);
        assert!((rate(2, 2, 3) - 0.01 * 0.75 * 0.5).abs() < 1e-18);
        assert_eq!(rate(12, 0, 1_000), 0.0);
        let mut cold = run();
        cold.inner.warmup_steps = 0;
        assert_eq!(learning_rate(&cold, Round(0), 0, 4, 0), 0.01);
    }

    #[test]
    fn a_round_makes_its_steps_and_reports_them() {
        let mut backend = backend();
        let mut losses = Vec::new();
        let report = train_round(&mut backend, &run(), Round(7), batch, |_, stats| {
            losses.push(stats.loss);
            true
        })
        .unwrap();
        assert_eq!((report.steps, report.samples, report.tokens, backend.steps()), (6, 12, 6 * 2 * 12, 6));
        assert_eq!((report.loss_first, report.loss_last), (losses[0], losses[5]));
        assert!((report.loss_mean - losses.iter().sum::<f64>() / 6.0).abs() < 1e-12);
    }

    #[test]
    fn a_round_ends_early_when_told_or_out_of_data_and_keeps_what_it_learned() {
        let mut backend = backend();
        let report = train_round(&mut backend, &run(), Round(0), batch, |step, _| step < 1).unwrap();
        assert_eq!((report.steps, backend.steps()), (2, 2));
        let short = |step| {
            if step == 0 { Ok(batch(step).unwrap()) } else { Err("no more data") }
        };
        let ended = train_round(&mut backend, &run(), Round(0), short, |_, _| true);
        assert_eq!(ended.unwrap_err().to_string(), "batch 1: no more data");
        assert_eq!(backend.steps(), 3);
    }
}
