//! A round's scoring as a task: evaluate on the model's device, rate, keep the ratings, put the weights on chain.

use super::validator::{ScoreJob, Validator, ValidatorError};
use crate::chain::Ledger;
use crate::compute::off_the_queue;
use crate::disk::{DiskError, StateFile};
use crate::peer::context::Context;
use crate::peer::states::Sealed;
use covey_proto::{BlockNumber, Round, Uid};
use std::sync::Arc;
use std::time::Duration;

/// A round's scoring is over.
pub(in crate::peer) struct Scored {
    /// The round.
    pub round: Round,
    /// The validator, back from it.
    pub validator: Validator,
    /// Time of the evaluations.
    pub took: Duration,
}

/// Opens the state that a round is scored from; none if it is not on the disk.
///
/// # Errors
/// The disk refuses.
pub(in crate::peer) async fn open<L: Ledger>(
    context: &Arc<Context<L>>,
    before: Sealed,
) -> Result<Option<StateFile>, DiskError> {
    let owned = context.clone();
    let open = move || owned.disk.open_state(before.tip.round, owned.layout.elements());
    let file = off_the_queue(open).await?;
    Ok(file.filter(|file| (file.tip(), file.root()) == (before.tip, before.root)))
}

/// Scores a round's contributions, then puts the weights on chain.
pub(in crate::peer) async fn score<L: Ledger>(
    context: Arc<Context<L>>,
    mut validator: Validator,
    job: ScoreJob,
) -> Scored {
    let round = job.collection.round;
    let (weights, took) = validator.score(&context, job).await;
    match weights {
        Ok(weights) if !weights.is_empty() => set_weights(&context, weights).await,
        Ok(_) => {}
        Err(error) => say(&context.name, round, &error),
    }
    Scored { round, validator, took }
}

async fn set_weights<L: Ledger>(context: &Arc<Context<L>>, weights: Vec<(Uid, u16)>) {
    // Weights that a round's length has not brought on chain are old.
    let best = context.ledger.heads().borrow().best;
    let until = BlockNumber(best.0.saturating_add(context.run.clock.length));
    context.submit.set_weights(weights, until).await;
}

fn say(node: &str, round: Round, error: &ValidatorError) {
    tracing::error!(%node, %round, %error, "not scored");
}
