//! Reading the chain at a final block, for the state machine.

use super::Done;
use super::context::Context;
use crate::chain::{Ledger, LedgerError};
use covey_proto::BlockNumber;
use std::sync::Arc;
use std::time::Duration;

/// Between two tries at a chain that does not answer.
const RETRY: Duration = Duration::from_millis(500);
/// The same at a block that no second endpoint confirms: the first one is asked for all of it each time.
const RETRY_UNCONFIRMED: Duration = Duration::from_secs(2);

/// Reads until there is an answer, or reason to believe that there will be none.
pub(super) async fn read<L: Ledger>(context: Arc<Context<L>>, block: BlockNumber) -> Done {
    loop {
        match context.ledger.view(block).await {
            Ok(view) => return Done::View(Ok(view)),
            Err(LedgerError::Disagreement(what)) => {
                return Done::Fatal(format!(
                    "the chain's endpoints disagree: {what}; find out which of them is right, take the other out of \
                     chain.endpoints and start again"
                ));
            }
            Err(LedgerError::NoState { .. } | LedgerError::Refused(_)) => return Done::View(Err(block)),
            Err(error @ (LedgerError::Unfit(_) | LedgerError::NotYet { .. })) => {
                tracing::error!(node = %context.name, %error, "block {block} is not read");
                return Done::View(Err(block));
            }
            // What to do about it is in the client's warning, which does not come with each try.
            Err(error @ LedgerError::Unconfirmed { .. }) => {
                tracing::debug!(node = %context.name, %error, "reading block {block} again");
                tokio::time::sleep(RETRY_UNCONFIRMED).await;
            }
            Err(error @ LedgerError::Unreachable(_)) => {
                tracing::warn!(node = %context.name, %error, "reading block {block} again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
