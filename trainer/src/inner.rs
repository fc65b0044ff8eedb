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
    let mut report = RoundReport {
        steps: 0,
        samples: 0,
        tokens: 0,
        loss_first: f64::NAN,
        loss_last: f64::NAN,
        loss_mean: f64::NAN,
    };
    let mut sum = 0.0;
    for step in 0..steps {
        let batch = batches(step).map_err(|source| TrainError::Batch { step, source })?;
        let hyper = StepHyper::of(&run.inner, learning_rate(run, round, step, steps, backend.steps()));
        let stats = backend
            .step(&batch, &hyper)
            .map_err(|source| TrainError::Step { step, source })?;
        if step == 0 {
            report.loss_first = stats.loss;
        }
        report.loss_last = stats.loss;
        report.steps += 1;
        report.samples = report
            .samples
            .saturating_add(u32::try_from(batch.sequences()).unwrap_or(u32::MAX));
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
