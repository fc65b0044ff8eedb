//! The state machine that brings a node's calls into blocks: what is signed, handed over, sent again and given up.
//!
//! Events go in, actions come out; nothing waits, signs or sends here. A wish passes through two halves.
//!
//! **A turn.** A call gets its nonce, is journalled if it carries a contribution, and is handed over, before anything
//! else is signed: the chain takes calls in the order of their nonces, so that a call which is signed and not handed over
//! would hold up all after it. A try that the chain does not answer ends the turn and is repeated; a call that has its
//! nonce already is then the next.
//!
//! **Watching.** At every block a call is asked after and handed over again, the same bytes, until what it says stands
//! at a final block or its time is over. Only once the chain shows that the call cannot come any more (another has its
//! nonce, its era is over) is another signed. What failed in a block is not repeated.
//!
//! One hotkey has one slot, and the next record overwrites the last: a contribution repeats the last vote, an earlier
//! record is not signed again after a later one, and two contributions of one round are never signed. Newer weights make
//! older ones worthless.
//!
//! After a crash [`Submitter::to_resume`] is handed over before anything is signed; otherwise another call would get its
//! nonce.

mod message;
#[cfg(test)]
mod tests;
mod under_way;
#[cfg(test)]
mod world;

pub use message::{
    Action, Content, Event, Fate, MemorisedContribution, Memory, News, Obstacle, SignedCall, Ticket, Trouble, Wish,
};

use covey_proto::record::{Contribution, Record, Vote};
use covey_proto::{BlockNumber, Hotkey, RunId};
use under_way::{Call, CallState, Step, UnderWay};

/// Wishes on their way at most. A node has a contribution, a vote and a row of weights a round, and each ends with its
/// round; the rest is room for what a restart repeats.
pub const UNDER_WAY_MAX: usize = 16;

/// The state machine. One owner, no locks.
#[derive(Debug)]
pub struct Submitter {
    run_id: RunId,
    hotkey: Option<Hotkey>,
    best: BlockNumber,
    finalised: BlockNumber,
    /// By ticket: in the order in which they were wished.
    under_way: Vec<UnderWay>,
    /// What a contribution repeats.
    last_vote: Option<Vote>,
    /// The contribution that was signed last, and its call once that is in the journal.
    contribution: Option<(Contribution, Option<SignedCall>)>,
    /// The last wish whose record was signed.
    last_record: Option<Ticket>,
    /// What a former life left to be handed over, and until when it is of use.
    to_resume: Option<(SignedCall, BlockNumber)>,
}

impl Submitter {
    /// The submitter of a node that signs with `hotkey`, or signs nothing; `memory` is what its journal holds.
    ///
    /// A call in the journal that another hotkey signed is forgotten: the folder may have been another node's.
    pub fn new(run_id: RunId, hotkey: Option<Hotkey>, memory: Memory) -> Submitter {
        let Memory { vote, contribution } = memory;
        let mine = contribution.and_then(|memorised| {
            let (call, author) = memorised.call?;
            let is_own = author.is_some() && author == hotkey;
            is_own.then_some((memorised.contribution, call, memorised.until))
        });
        Submitter {
            run_id,
            hotkey,
            best: BlockNumber(0),
            finalised: BlockNumber(0),
            under_way: Vec::new(),
            last_vote: vote,
            to_resume: mine.as_ref().map(|(_, call, until)| (call.clone(), *until)),
            contribution: mine.map(|(contribution, call, _)| (contribution, Some(call))),
            last_record: None,
        }
    }

    /// The call that a former life signed and that must be handed over before this life signs anything, where the chain
    /// is at `best`; none if there is none, or it is too late for it.
    pub fn to_resume(&self, best: BlockNumber) -> Option<&SignedCall> {
        self.to_resume.as_ref().filter(|(_, until)| best < *until).map(|(call, _)| call)
    }

    /// Takes an event; appends what is to be done. Answers for a wish that has ended meanwhile are passed over.
    pub fn handle(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Wished { ticket, wish, until } => self.on_wish(ticket, wish, until, actions),
            Event::Heads { best, finalised } => self.on_heads(best, finalised, actions),
            Event::Signed(ticket, Ok(call)) => self.on_signed(ticket, call, actions),
            Event::Signed(ticket, Err(trouble)) => self.on_trouble(ticket, Step::Signing, trouble, actions),
            Event::Journalled(ticket) => self.on_journalled(ticket, actions),
            Event::NotJournalled(ticket, why) => self.on_not_journalled(ticket, why, actions),
            Event::HandedOver(ticket, result) => self.on_handed_over(ticket, result, actions),
            Event::Slot(ticket, record) => self.on_slot(ticket, record, actions),
            Event::SlotUnread(ticket) => self.watch_on(ticket, Step::ReadingSlot, actions),
            Event::Fate(ticket, fate) => self.on_fate(ticket, fate, actions),
            Event::FateUnknown(ticket, why) => {
                actions.push(Action::Tell(ticket, News::FateUnknown(why)));
                self.watch_on(ticket, Step::AskingFate, actions);
            }
            Event::PauseOver(ticket) => {
                if let Some(at) = self.at(ticket, Step::Pausing) {
                    self.under_way[at].step = Step::Queued;
                }
            }
        }
        self.give_turns(actions);
    }

    /// Where a wish is in the list, if it is there and at this step.
    fn at(&self, ticket: Ticket, step: Step) -> Option<usize> {
        self.under_way.iter().position(|one| one.ticket == ticket && one.step == step)
    }

    // ---- wishes -----------------------------------------------------------------------------------------------------

    fn on_wish(&mut self, ticket: Ticket, wish: Wish, until: BlockNumber, actions: &mut Vec<Action>) {
        if self.hotkey.is_none() {
            return refuse(ticket, Obstacle::NoHotkey, actions);
        }
        match &wish {
            Wish::Vote(vote) => self.last_vote = Some(*vote),
            Wish::Contribution(mine) => {
                let signed = self.contribution.as_ref().map(|(signed, _)| *signed);
                if let Some(other) = signed.filter(|signed| signed.round == mine.round && signed != mine) {
                    return refuse(ticket, Obstacle::SecondContribution(other), actions);
                }
            }
            Wish::Weights(_) => self.outdate_weights(actions),
        }
        if let Some(same) = self.under_way.iter_mut().find(|one| one.wish == wish && !one.outdated) {
            // A round that was opened again, for example: its call is on its way, and whoever wished it first waits.
            same.until = same.until.max(until);
            return actions.push(Action::Answer(ticket));
        }
        self.make_room(actions);
        let call = self.journalled_call(&wish);
        self.under_way.push(UnderWay::new(ticket, wish, until, call));
    }

    /// The call that a contribution has by the journal: it was handed over before, in this life or at its beginning.
    fn journalled_call(&self, wish: &Wish) -> Option<Call> {
        let Wish::Contribution(mine) = wish else { return None };
        let (_, call) = self.contribution.as_ref().filter(|(signed, _)| signed == mine)?;
        call.clone().map(|bytes| Call { bytes, state: CallState::HandedOver })
    }

    /// Older weights are of no use. Those that have their nonce, or are about to, are handed over once for what comes
    /// after them.
    fn outdate_weights(&mut self, actions: &mut Vec<Action>) {
        self.under_way.retain_mut(|one| {
            if one.wish.is_record() {
                return true;
            }
            one.outdated = true;
            let goes_on = one.has_turn() || one.holds_nonce();
            if !goes_on && one.waits_for_turn() {
                actions.push(Action::Tell(one.ticket, News::NotSubmitted(Obstacle::NewerWeights)));
            }
            if !goes_on {
                answer(one, actions);
            }
            goes_on
        });
    }

    fn make_room(&mut self, actions: &mut Vec<Action>) {
        if self.under_way.len() < UNDER_WAY_MAX {
            return;
        }
        let others = self.under_way.iter().filter(|one| !one.has_turn() && !one.holds_nonce());
        let Some(ticket) = others.min_by_key(|one| one.until).map(|one| one.ticket) else { return };
        let obstacle = Obstacle::TooMany { max: UNDER_WAY_MAX };
        actions.push(Action::Tell(ticket, News::NotSubmitted(obstacle)));
        self.end(ticket, actions);
    }

    /// A wish needs nothing more.
    fn end(&mut self, ticket: Ticket, actions: &mut Vec<Action>) {
        self.under_way.retain_mut(|one| {
            if one.ticket == ticket {
                answer(one, actions);
            }
            one.ticket != ticket
        });
    }

    // ---- turns ------------------------------------------------------------------------------------------------------

    /// Gives the turn to the next wish that waits for one. Ends: every pass begins a turn or takes a wish out of the queue.
    fn give_turns(&mut self, actions: &mut Vec<Action>) {
        while !self.under_way.iter().any(UnderWay::has_turn) {
            let first = self.under_way.iter().position(UnderWay::holds_nonce);
            let first = first.or_else(|| self.under_way.iter().position(|one| one.step == Step::Queued));
            match first {
                Some(at) if self.under_way[at].step == Step::Queued => self.begin_turn(at, actions),
                // Nobody waits, or what has its nonce waits for the chain to answer.
                _ => return,
            }
        }
    }

    fn begin_turn(&mut self, at: usize, actions: &mut Vec<Action>) {
        let (best, last_record) = (self.best, self.last_record);
        let one = &mut self.under_way[at];
        let ticket = one.ticket;
        if best >= one.until {
            let until = one.until;
            return self.give_up(at, Obstacle::TooLate { best, until }, actions);
        }
        if let Some(call) = one.live_call() {
            actions.push(Action::HandOver(ticket, call.clone()));
            one.step = Step::HandingOver;
            return;
        }
        if one.wish.is_record() && last_record.is_some_and(|last| last > ticket) {
            actions.push(Action::Tell(ticket, News::NotSubmitted(Obstacle::LaterRecord)));
            return self.end(ticket, actions);
        }
        one.step = Step::Signing;
        let content = self.content(at);
        actions.push(Action::Sign(ticket, content));
    }

    /// What a wish's call says. From now on it counts as signed.
    fn content(&mut self, at: usize) -> Content {
        let mut record = Record::of(self.run_id);
        match &self.under_way[at].wish {
            Wish::Contribution(mine) => {
                self.contribution = Some((*mine, None));
                record.contribution = Some(*mine);
                record.vote = self.last_vote;
            }
            Wish::Vote(vote) => record.vote = Some(*vote),
            Wish::Weights(row) => return Content::Weights(row.clone()),
        }
        Content::Record(record)
    }

    fn on_signed(&mut self, ticket: Ticket, bytes: SignedCall, actions: &mut Vec<Action>) {
        let Some(at) = self.at(ticket, Step::Signing) else { return };
        let one = &mut self.under_way[at];
        one.call = Some(Call { bytes: bytes.clone(), state: CallState::Signed });
        if one.wish.is_record() {
            self.last_record = self.last_record.max(Some(ticket));
        }
        if let Wish::Contribution(mine) = one.wish {
            one.step = Step::Journalling;
            actions.push(Action::Journal(ticket, mine, bytes));
        } else {
            one.step = Step::HandingOver;
            actions.push(Action::HandOver(ticket, bytes));
        }
    }

    fn on_journalled(&mut self, ticket: Ticket, actions: &mut Vec<Action>) {
        let Some(at) = self.at(ticket, Step::Journalling) else { return };
        let one = &mut self.under_way[at];
        let (Wish::Contribution(mine), Some(call)) = (&one.wish, one.live_call()) else { return };
        self.contribution = Some((*mine, Some(call.clone())));
        actions.push(Action::HandOver(ticket, call.clone()));
        one.step = Step::HandingOver;
    }

    /// What no journal names is never handed over.
    fn on_not_journalled(&mut self, ticket: Ticket, why: String, actions: &mut Vec<Action>) {
        if self.at(ticket, Step::Journalling).is_some() {
            actions.push(Action::Tell(ticket, News::NotSubmitted(Obstacle::NotJournalled(why))));
            self.end(ticket, actions);
        }
    }

    fn on_handed_over(&mut self, ticket: Ticket, result: Result<(), Trouble>, actions: &mut Vec<Action>) {
        if self.at(ticket, Step::Resending).is_some() {
            if let Err(trouble) = result {
                actions.push(Action::Tell(ticket, News::NotTakenAgain(trouble)));
            }
            return self.watch_on(ticket, Step::Resending, actions);
        }
        if let Err(trouble) = result {
            return self.on_trouble(ticket, Step::HandingOver, trouble, actions);
        }
        let Some(at) = self.at(ticket, Step::HandingOver) else { return };
        let one = &mut self.under_way[at];
        one.mark_call(CallState::HandedOver);
        answer(one, actions);
        self.watch(at, actions);
    }

    /// A try failed: what may pass is tried again, until it is too late.
    fn on_trouble(&mut self, ticket: Ticket, step: Step, trouble: Trouble, actions: &mut Vec<Action>) {
        let Some(at) = self.at(ticket, step) else { return };
        let (best, is_signing) = (self.best, step == Step::Signing);
        let one = &mut self.under_way[at];
        if !one.wish.is_record() {
            // Whoever scores does not wait until a subnet takes weights again.
            answer(one, actions);
        }
        let in_time = best < one.until && !(one.outdated && is_signing);
        let tell = |news: fn(Trouble) -> News, trouble| Action::Tell(ticket, news(trouble));
        match trouble {
            Trouble::NotYet { at: block, .. } if in_time && block < one.until && best.0.saturating_add(1) < block.0 => {
                one.step = Step::WaitingFor(block);
                actions.push(tell(News::TryingLater, trouble));
            }
            // A block that is there already, and of which the chain's endpoint has not heard.
            Trouble::NotYet { at: block, .. } if in_time && block < one.until => {
                one.step = Step::Pausing;
                actions.extend([tell(News::TryingLater, trouble), Action::Pause(ticket)]);
            }
            Trouble::NoAnswer(_) if in_time => {
                one.step = Step::Pausing;
                actions.extend([tell(News::TryingAgain, trouble), Action::Pause(ticket)]);
            }
            trouble => {
                if matches!(trouble, Trouble::Refused(_)) && !is_signing {
                    one.mark_call(CallState::HandedOver);
                }
                self.give_up(at, Obstacle::Chain(trouble), actions);
            }
        }
    }

    /// No more tries for now. A call that was signed may be in a block all the same, so that it is watched; a record
    /// whose call was lost gets another turn with the next block.
    fn give_up(&mut self, at: usize, obstacle: Obstacle, actions: &mut Vec<Action>) {
        let one = &mut self.under_way[at];
        let ticket = one.ticket;
        actions.push(Action::Tell(ticket, News::NotSubmitted(obstacle)));
        answer(one, actions);
        match one.call_state() {
            Some(state) if one.wish.is_record() || state != CallState::Lost => self.watch(at, actions),
            _ => self.end(ticket, actions),
        }
    }

    // ---- watching ---------------------------------------------------------------------------------------------------

    /// From the next block on a wish is looked after.
    fn watch(&mut self, at: usize, actions: &mut Vec<Action>) {
        let one = &mut self.under_way[at];
        (one.step, one.moved) = (Step::Watching, false);
        if one.outdated {
            let ticket = one.ticket;
            self.end(ticket, actions);
        }
    }

    fn on_heads(&mut self, best: BlockNumber, finalised: BlockNumber, actions: &mut Vec<Action>) {
        self.best = best;
        self.finalised = self.finalised.max(finalised);
        let tickets: Vec<Ticket> = self.under_way.iter().map(|one| one.ticket).collect();
        for ticket in tickets {
            let Some(at) = self.under_way.iter().position(|one| one.ticket == ticket) else { continue };
            let one = &mut self.under_way[at];
            match one.step {
                _ if one.waits_for_turn() && best >= one.until => {
                    let until = one.until;
                    self.give_up(at, Obstacle::TooLate { best, until }, actions);
                }
                // What is signed now is in the next block at the earliest.
                Step::WaitingFor(block) if best.0.saturating_add(1) >= block.0 => one.step = Step::Queued,
                Step::Watching => self.look(at, actions),
                _ => one.moved = true,
            }
        }
    }

    /// The question that was open is answered, and nothing is to be done: until the next block.
    fn watch_on(&mut self, ticket: Ticket, step: Step, actions: &mut Vec<Action>) {
        let Some(at) = self.at(ticket, step) else { return };
        let one = &mut self.under_way[at];
        one.step = Step::Watching;
        if std::mem::take(&mut one.moved) {
            self.look(at, actions);
        }
    }

    /// A block came: whether the wish stands, and if not, what became of its call.
    fn look(&mut self, at: usize, actions: &mut Vec<Action>) {
        let finalised = self.finalised;
        let one = &mut self.under_way[at];
        let ticket = one.ticket;
        if finalised >= one.until {
            self.end(ticket, actions);
        } else if one.wish.is_record() {
            one.step = Step::ReadingSlot;
            actions.push(Action::ReadSlot(ticket, finalised));
        } else {
            self.ask_fate(at, actions);
        }
    }

    fn on_slot(&mut self, ticket: Ticket, record: Option<Record>, actions: &mut Vec<Action>) {
        let Some(at) = self.at(ticket, Step::ReadingSlot) else { return };
        let one = &self.under_way[at];
        match record.is_some_and(|record| one.wish.is_in(&record)) {
            true => self.end(ticket, actions),
            false => self.ask_fate(at, actions),
        }
    }

    fn ask_fate(&mut self, at: usize, actions: &mut Vec<Action>) {
        let (best, finalised) = (self.best, self.finalised);
        let one = &mut self.under_way[at];
        match &one.call {
            Some(call) if best < one.until => {
                actions.push(Action::AskFate(one.ticket, call.bytes.clone(), finalised));
                one.step = Step::AskingFate;
            }
            // Nothing would be sent, whatever became of it.
            _ => one.step = Step::Watching,
        }
    }

    fn on_fate(&mut self, ticket: Ticket, fate: Fate, actions: &mut Vec<Action>) {
        let Some(at) = self.at(ticket, Step::AskingFate) else { return };
        let best = self.best;
        let one = &mut self.under_way[at];
        match fate {
            // A record that was done and does not stand has been overwritten by a later one.
            Fate::Done => self.end(ticket, actions),
            Fate::Failed(why) => {
                actions.push(Action::Tell(ticket, News::FailedOnChain(why)));
                self.end(ticket, actions);
            }
            Fate::Lost if best < one.until && !one.outdated => {
                actions.push(Action::Tell(ticket, News::SigningAnew));
                one.mark_call(CallState::Lost);
                one.step = Step::Queued;
            }
            Fate::Open
                if best < one.until
                    && let Some(call) = &one.call =>
            {
                actions.push(Action::HandOver(ticket, call.bytes.clone()));
                one.step = Step::Resending;
            }
            Fate::Lost | Fate::Open => self.watch_on(ticket, Step::AskingFate, actions),
        }
    }
}

/// Whoever wished it need not wait any longer.
fn answer(one: &mut UnderWay, actions: &mut Vec<Action>) {
    if !std::mem::replace(&mut one.answered, true) {
        actions.push(Action::Answer(one.ticket));
    }
}

/// A wish that never gets under way.
fn refuse(ticket: Ticket, obstacle: Obstacle, actions: &mut Vec<Action>) {
    actions.extend([Action::Tell(ticket, News::NotSubmitted(obstacle)), Action::Answer(ticket)]);
}
