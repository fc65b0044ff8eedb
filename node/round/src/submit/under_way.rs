//! One wish on its way: how far it is, and which call carries it. Decides nothing; [`super::Submitter`] does.

use super::message::{SignedCall, Ticket, Wish};
use covey_proto::BlockNumber;

/// A wish on its way to the chain.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) ticket: Ticket,
    pub(super) wish: Wish,
    /// The first block at which it is too late.
    pub(super) until: BlockNumber,
    pub(super) call: Option<Call>,
    pub(super) step: Step,
    /// Whether whoever wished it has been told that the first try is over.
    pub(super) answered: bool,
    /// The chain has moved since the question that is open was asked.
    pub(super) moved: bool,
    /// Weights of which there are newer ones. What has a nonce is handed over all the same, once: whatever was signed
    /// after it waits for that nonce.
    pub(super) outdated: bool,
}

/// The call that carries a wish.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) bytes: SignedCall,
    pub(super) state: CallState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallState {
    /// It has a nonce, and the chain has not had it yet.
    Signed,
    /// The chain has had it, or refused it.
    HandedOver,
    /// It cannot come any more: another must be signed.
    Lost,
}

/// How far a wish is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It waits for its turn.
    Queued,
    /// Its turn: a nonce is given.
    Signing,
    /// Its turn: the journal is written.
    Journalling,
    /// Its turn: the chain has it for the first time.
    HandingOver,
    /// It waits for a chain that does not answer.
    Pausing,
    /// It waits for the block that takes it.
    WaitingFor(BlockNumber),
    /// It is with the chain, and waits for the next block.
    Watching,
    /// A block came: does it stand in the slot?
    ReadingSlot,
    /// It does not: what became of its call?
    AskingFate,
    /// Nothing yet: the same bytes again.
    Resending,
}

impl UnderWay {
    pub(super) fn new(ticket: Ticket, wish: Wish, until: BlockNumber, call: Option<Call>) -> UnderWay {
        UnderWay { ticket, wish, until, call, step: Step::Queued, answered: false, moved: false, outdated: false }
    }

    /// Whether it has the turn: nothing else is signed meanwhile.
    pub(super) fn has_turn(&self) -> bool {
        matches!(self.step, Step::Signing | Step::Journalling | Step::HandingOver)
    }

    /// Whether it waits for a turn, or for something before it.
    pub(super) fn waits_for_turn(&self) -> bool {
        matches!(self.step, Step::Queued | Step::Pausing | Step::WaitingFor(_))
    }

    /// Whether it has a nonce that the chain has not seen. Whatever is signed after it cannot come into a block before
    /// it, so that nothing is signed until it is handed over or given up.
    pub(super) fn holds_nonce(&self) -> bool {
        self.waits_for_turn() && self.call_state() == Some(CallState::Signed)
    }

    pub(super) fn call_state(&self) -> Option<CallState> {
        self.call.as_ref().map(|call| call.state)
    }

    /// The call, unless it is lost.
    pub(super) fn live_call(&self) -> Option<&SignedCall> {
        self.call.as_ref().filter(|call| call.state != CallState::Lost).map(|call| &call.bytes)
    }

    pub(super) fn mark_call(&mut self, state: CallState) {
        if let Some(call) = &mut self.call {
            call.state = state;
        }
    }
}
