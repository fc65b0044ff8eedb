//! The task behind [`super::SubmitHandle`]: takes wishes and blocks to the state machine, and does what that says. All I/O
//! runs inside this task: dropped with it, nothing goes on.

use super::log;
use super::orders::{Order, Orders, Signer};
use crate::chain::{Call, Heads, Ledger, LedgerError};
use crate::compute::off_the_queue;
use covey_proto::record::{self, Record};
use covey_proto::{BlockNumber, HotkeyPair};
use covey_round::submit::{Action, Content, Event, SignedCall, Submitter, Ticket, Trouble};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Between two tries while the chain does not answer.
const RETRY: Duration = Duration::from_millis(500);

pub(super) struct Task<L> {
    signer: Signer<L>,
    submitter: Submitter,
    heads: watch::Receiver<Heads>,
    orders: mpsc::Receiver<Order>,
    /// Who waits for the first try of a wish.
    waiting: BTreeMap<Ticket, oneshot::Sender<()>>,
    /// Wishes so far.
    wishes: u64,
    /// What is being done: one thing a wish at most, besides what was begun for wishes that have ended.
    running: FuturesUnordered<BoxFuture<'static, Event>>,
}

impl<L: Ledger> Task<L> {
    pub(super) fn new(signer: Signer<L>, submitter: Submitter, orders: Orders) -> Task<L> {
        let mut heads = signer.ledger.heads();
        heads.mark_changed();
        let (waiting, running) = (BTreeMap::new(), FuturesUnordered::new());
        Task { signer, submitter, heads, orders: orders.0, waiting, wishes: 0, running }
    }

    /// Runs until the chain is gone or nobody can wish anything any more.
    pub(super) async fn run(mut self) {
        loop {
            // Blocks first: whatever else has come is judged by the newest.
            let event = tokio::select! {
                biased;
                changed = self.heads.changed() => match changed {
                    Ok(()) => self.moved(),
                    Err(_) => return,
                },
                Some(event) = self.running.next() => event,
                order = self.orders.recv() => match order {
                    Some(order) => self.wished(order),
                    None => return,
                },
            };
            let mut actions = Vec::new();
            self.submitter.handle(event, &mut actions);
            for action in actions {
                self.perform(action);
            }
        }
    }

    fn moved(&mut self) -> Event {
        let Heads { best, finalised } = *self.heads.borrow_and_update();
        Event::Heads { best, finalised }
    }

    fn wished(&mut self, order: Order) -> Event {
        self.wishes += 1;
        let ticket = Ticket(self.wishes);
        self.waiting.insert(ticket, order.tried);
        Event::Wished { ticket, wish: order.wish, until: order.until }
    }

    fn perform(&mut self, action: Action) {
        let Signer { ledger, journal, pair, .. } = &self.signer;
        let ledger = ledger.clone();
        let doing = match action {
            Action::Sign(ticket, content) => sign(ledger, pair.clone(), ticket, content).boxed(),
            Action::Journal(ticket, mine, call) => {
                let journal = journal.clone();
                off_the_queue(move || write(&journal, ticket, mine, &call)).boxed()
            }
            Action::HandOver(ticket, call) => {
                async move { Event::HandedOver(ticket, ledger.submit(&call).await.map_err(trouble)) }.boxed()
            }
            Action::ReadSlot(ticket, block) => read_slot(ledger, pair.clone(), ticket, block).boxed(),
            Action::AskFate(ticket, call, block) => async move {
                match ledger.fate(&call, block).await {
                    Ok(fate) => Event::Fate(ticket, fate),
                    Err(error) => Event::FateUnknown(ticket, error.to_string()),
                }
            }
            .boxed(),
            Action::Pause(ticket) => async move {
                tokio::time::sleep(RETRY).await;
                Event::PauseOver(ticket)
            }
            .boxed(),
            Action::Answer(ticket) => {
                // Whoever wished it may have been given up itself.
                self.waiting.remove(&ticket).map(|tried| tried.send(()));
                return;
            }
            Action::Tell(_, news) => return log::tell(&self.signer.name, &news),
        };
        self.running.push(doing);
    }
}

async fn sign<L: Ledger>(ledger: Arc<L>, pair: Option<Arc<HotkeyPair>>, ticket: Ticket, content: Content) -> Event {
    let Some(pair) = pair else {
        let why = Trouble::Unusable("a node without a hotkey signs nothing".into());
        return Event::Signed(ticket, Err(why));
    };
    let call = match content {
        Content::Record(record) => Call::Commit(record.to_bytes()),
        Content::Weights(row) => Call::SetWeights(row),
    };
    Event::Signed(ticket, ledger.sign(&pair, call).await.map_err(trouble))
}

/// Writes the call beside the contribution that it carries.
fn write(journal: &crate::disk::JournalFile, ticket: Ticket, mine: record::Contribution, call: &SignedCall) -> Event {
    let is_it = |made: &crate::disk::JournalContribution| (made.round, made.manifest) == (mine.round, mine.manifest);
    let mut is_named = false;
    let written = journal.change(|journal| {
        if let Some(made) = journal.contribution.as_mut().filter(|made| is_it(made)) {
            made.call = Some(hex::encode(&call.0));
            is_named = true;
        }
    });
    match written {
        Ok(()) if is_named => Event::Journalled(ticket),
        Ok(()) => {
            Event::NotJournalled(ticket, format!("it names no contribution {} of round {}", mine.manifest, mine.round))
        }
        Err(error) => Event::NotJournalled(ticket, error.to_string()),
    }
}

async fn read_slot<L: Ledger>(
    ledger: Arc<L>,
    pair: Option<Arc<HotkeyPair>>,
    ticket: Ticket,
    block: BlockNumber,
) -> Event {
    let Ok(view) = ledger.view(block).await else { return Event::SlotUnread(ticket) };
    let slot = pair.and_then(|pair| view.slots.get(&pair.hotkey()).cloned());
    Event::Slot(ticket, slot.and_then(|slot| Record::from_bytes(&slot.bytes).ok()))
}

/// What the chain's refusal means for a wish.
fn trouble(error: LedgerError) -> Trouble {
    let text = error.to_string();
    match error {
        LedgerError::Unreachable(_) | LedgerError::Unconfirmed { .. } => Trouble::NoAnswer(text),
        LedgerError::NotYet { at, why } => Trouble::NotYet { at, why },
        LedgerError::Refused(_) | LedgerError::NoState { .. } => Trouble::Refused(text),
        LedgerError::Unfit(_) | LedgerError::Disagreement(_) => Trouble::Unusable(text),
    }
}
