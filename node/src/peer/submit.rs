//! Calls on their way into a block: one nonce at a time, the same bytes again and again, and no longer than they matter.

use super::context::Context;
use crate::chain::{Call, Ledger, LedgerError, SignedCall};
use covey_proto::BlockNumber;
use covey_proto::record::Record;
use std::sync::Arc;
use std::time::Duration;

/// Between two tries while the chain does not answer.
const RETRY: Duration = Duration::from_millis(500);

/// Signs a call and hands it over, in its turn: the next one's nonce follows from this one. Gives the call if the chain
/// took it before block `until`.
pub(super) async fn sign_and_submit<L: Ledger>(
    context: &Context<L>,
    call: Call,
    until: BlockNumber,
) -> Option<SignedCall> {
    let _turn = context.submitting.lock().await;
    let call = loop {
        match context.ledger.sign(&context.pair, call.clone()).await {
            Ok(call) => break call,
            Err(error) => wait_or_give_up(context, &error, until).await?,
        }
    };
    hand_over(context, &call, until).await?;
    Some(call)
}

/// Hands over a call that is signed already, in its turn.
pub(super) async fn submit<L: Ledger>(context: &Context<L>, call: &SignedCall, until: BlockNumber) {
    let _turn = context.submitting.lock().await;
    hand_over(context, call, until).await;
}

async fn hand_over<L: Ledger>(context: &Context<L>, call: &SignedCall, until: BlockNumber) -> Option<()> {
    loop {
        match context.ledger.submit(call).await {
            Ok(()) => return Some(()),
            Err(error) => wait_or_give_up(context, &error, until).await?,
        }
    }
}

/// A chain that does not answer is asked again, until what was wanted is of no use any more.
async fn wait_or_give_up<L: Ledger>(context: &Context<L>, error: &LedgerError, until: BlockNumber) -> Option<()> {
    let late = context.ledger.heads().borrow().best >= until;
    if late || !matches!(error, LedgerError::Unreachable(_)) {
        // Refused: sent before a crash and included since, most often.
        tracing::info!(node = %context.name, %error, "not submitted");
        return None;
    }
    tracing::warn!(node = %context.name, %error, "submitting again");
    tokio::time::sleep(RETRY).await;
    Some(())
}

/// Hands a call over again at every block, until what it sets stands in this node's slot at a final block, or until
/// block `until` is final and it is too late.
pub(super) async fn insist<L: Ledger>(
    context: Arc<Context<L>>,
    call: SignedCall,
    until: BlockNumber,
    stands: impl Fn(&Record) -> bool + Send + 'static,
) {
    let mut heads = context.ledger.heads();
    while heads.changed().await.is_ok() {
        let now = *heads.borrow_and_update();
        if now.finalised >= until {
            return;
        }
        let Ok(view) = context.ledger.view(now.finalised).await else { continue };
        let slot = view.slots.get(&context.pair.hotkey());
        if slot.and_then(|slot| Record::from_bytes(&slot.bytes).ok()).is_some_and(|record| stands(&record)) {
            return;
        }
        if now.best < until
            && let Err(error) = context.ledger.submit(&call).await
        {
            tracing::debug!(node = %context.name, %error, "still on its way, or in a block that is not final");
        }
    }
}
