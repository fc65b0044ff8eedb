//! The state machine of a node: what it does next, given how far the chain is and what has been finished.
//!
//! Events go in, actions come out; nothing waits, nothing is fetched, nothing is computed here. A round passes through
//! four steps: *waiting* for its anchor, *open* (training), *revealed* (collecting what was committed, voting),
//! *settling* (the selection is known and is applied). Once the parameters are there the next round may open and train
//! while they are still hashed and written; whatever names the head waits for it.
//!
//! A node that is behind, or that a majority contradicts, is *joining*: its shell walks headers and replays until it stands
//! where the electorate does. Where the electorate has no agreed head, the node follows the chain from where it stands
//! itself, as far back as the chain still has the states: after an outage of everybody there is nobody else to begin.
//!
//! The shell owns every byte: it trains, stores, fetches, checks, votes by its ratings, applies, scores. It tells the
//! engine what came of it. [`Engine::is_idle`] says whether the node waits for nothing but blocks.

use crate::assign::Assignment;
use crate::clock::{self, RoundBlocks};
use crate::select::{self, Outcome, Selection};
use covey_proto::chain::ChainView;
use covey_proto::record::UidSet;
use covey_proto::run::Run;
use covey_proto::{BlockNumber, Digest, Hotkey, Round, RunId, Uid};
use std::sync::Arc;

mod message;
#[cfg(test)]
mod steps;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

pub use message::{Action, Collection, Event, Halt, Roles, Settlement, Task, Tip};

/// Rounds without any vote after which a miner idles, and without an agreed head after which a node halts.
const PATIENCE_ROUNDS: u32 = 3;
/// Blocks before the last one for a commitment at which training stops: compressing and storing take time too.
const STOP_BLOCKS: u32 = 2;

/// The state machine. One owner, no locks.
#[derive(Debug)]
pub struct Engine {
    run: Arc<Run>,
    run_id: RunId,
    roles: Roles,
    hotkey: Option<Hotkey>,
    best: BlockNumber,
    finalised: BlockNumber,
    tip: Tip,
    /// The round after the tip, while its parameters are there but not its head. The step is then waiting, open or halted.
    stepped: Option<Round>,
    step: Step,
    /// Actions whose completion has not come.
    outstanding: Outstanding,
    /// What this node has committed last, from its journal.
    committed: Option<(Round, Digest)>,
    /// Whether the chain has been heard of at all.
    heard: bool,
    /// The state before round 0 is not here: the node takes part once it has come, or once it has joined by a later one.
    stateless: bool,
    /// A state could not be read: the next try waits until the chain moves.
    unreadable: bool,
    /// The last round whose votes, as a joiner, this node has found to agree on no head.
    unagreed: Option<Round>,
    /// Rounds in a row without any vote.
    voteless: u32,
    /// Rounds since the last agreed head in which a majority voted, for heads of which none has a majority.
    split: u32,
}

#[derive(Debug, Default)]
struct Outstanding {
    sending: u32,
    reading: Option<BlockNumber>,
    joining: bool,
    training: Option<Round>,
    applying: bool,
    /// Applying waits for bytes that others have: blocks may go on without this node.
    starving: bool,
    scoring: u32,
}

#[derive(Debug)]
enum Step {
    Joining(Joining),
    Waiting,
    Open(Open),
    Revealed(Open, Reveal),
    Settling,
    Halted,
}

/// What a joiner has read of a round whose vote deadline is final.
#[derive(Debug, Default)]
struct Joining {
    /// The round, once something of it has been asked for.
    round: Option<Round>,
    at_a: Option<Arc<ChainView>>,
    at_c: Option<Arc<ChainView>>,
}

#[derive(Debug)]
struct Open {
    round: Round,
    blocks: RoundBlocks,
    at_a: Arc<ChainView>,
    assignment: Arc<Assignment>,
    mine: Option<Digest>,
}

#[derive(Debug)]
struct Reveal {
    at_c: Arc<ChainView>,
    collection: Arc<Collection>,
    held: UidSet,
    refused: UidSet,
    /// What is missing is waited for no more.
    over: bool,
    voted: bool,
}

impl Engine {
    /// A node that stood at `tip` when it stopped, and had committed `committed`. It catches up before it does
    /// anything else.
    pub fn new(
        run: Arc<Run>,
        roles: Roles,
        hotkey: Option<Hotkey>,
        tip: Tip,
        committed: Option<(Round, Digest)>,
    ) -> Engine {
        let run_id = run.id();
        Engine {
            run,
            run_id,
            roles,
            hotkey,
            best: BlockNumber(0),
            finalised: BlockNumber(0),
            tip,
            stepped: None,
            step: Step::Joining(Joining::default()),
            outstanding: Outstanding::default(),
            committed,
            heard: false,
            stateless: false,
            unreadable: false,
            unagreed: None,
            voteless: 0,
            split: 0,
        }
    }

    /// The same node, at the run's beginning, without the state that the run begins with: one that is not drawn comes from
    /// peers ([`Event::Given`]).
    pub fn without_state(mut self) -> Engine {
        self.stateless = true;
        self
    }

    /// Where the node stands.
    pub fn tip(&self) -> Tip {
        self.tip
    }

    /// The round that comes after all that is stepped, whether its head is known or not.
    fn next(&self) -> Round {
        self.stepped.map_or_else(|| self.tip.next(), Round::next)
    }

    /// The round that [`Engine::phase`] speaks of: the next one already, where it trains before the last one's head is
    /// known.
    pub fn round(&self) -> Round {
        match &self.step {
            // What is stepped is still being applied.
            Step::Waiting => self.tip.next(),
            _ => self.next(),
        }
    }

    /// A word for the step, for people.
    pub fn phase(&self) -> &'static str {
        match &self.step {
            Step::Joining(_) => "joining",
            Step::Waiting if self.stepped.is_some() => "apply",
            Step::Waiting if self.outstanding.scoring > 0 => "score",
            Step::Waiting => "wait",
            Step::Open(_) if self.outstanding.training.is_some() => "train",
            Step::Open(_) if self.outstanding.scoring > 0 => "score",
            Step::Open(_) => "commit",
            Step::Revealed(..) => "exchange",
            Step::Settling => "apply",
            Step::Halted => "halted",
        }
    }

    /// Whether the node takes part: it is neither joining nor halted.
    pub fn is_live(&self) -> bool {
        !matches!(self.step, Step::Joining(_) | Step::Halted)
    }

    /// Whether a round's offers are being collected: what comes later gets no vote.
    pub fn is_collecting(&self) -> bool {
        matches!(self.step, Step::Revealed(..))
    }

    /// Whether the node waits for nothing but blocks.
    pub fn is_idle(&self) -> bool {
        let out = &self.outstanding;
        let busy = self.stateless
            || out.sending > 0
            || out.reading.is_some()
            || out.joining
            || out.training.is_some()
            || (out.applying && !out.starving)
            || out.scoring > 0;
        let collecting = matches!(&self.step, Step::Revealed(_, reveal) if !reveal.is_complete());
        !busy && !collecting
    }

    /// Takes an event; appends what is to be done.
    pub fn handle(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Heads { best, finalised } => {
                self.best = self.best.max(best);
                self.finalised = self.finalised.max(finalised);
                self.heard = true;
                self.unreadable = false;
            }
            Event::View(view) => self.on_view(view, actions),
            Event::NoView(block) => self.on_no_view(block, actions),
            Event::Joined(tip) => self.on_joined(tip),
            Event::Given => self.on_given(),
            Event::Trained(round, manifest) => self.on_trained(round, manifest, actions),
            Event::Held(round, uid) => self.on_collected(round, |reveal| reveal.held.insert(uid)),
            Event::Refused(round, uid) => self.on_collected(round, |reveal| reveal.refused.insert(uid)),
            Event::CollectingOver(round) => self.on_collected(round, |reveal| reveal.over = true),
            Event::Starving(round) => self.on_starving(round),
            Event::Sent(_) => self.outstanding.sending = self.outstanding.sending.saturating_sub(1),
            Event::Stepped(round) => self.on_stepped(round),
            Event::Applied(round, head) => self.on_applied(round, head),
            Event::Scored(_) => self.outstanding.scoring = self.outstanding.scoring.saturating_sub(1),
        }
        self.advance(actions);
    }

    /// Asks for the next chain state that the step needs, and votes when it is time.
    fn advance(&mut self, actions: &mut Vec<Action>) {
        self.start_if_up_to_date();
        if self.is_behind() {
            self.leave_round(actions);
        }
        self.stop_training_if_late(actions);
        self.vote_if_due(actions);
        if self.outstanding.reading.is_some() || self.outstanding.joining || self.unreadable {
            return;
        }
        let wanted = match &mut self.step {
            Step::Joining(joining) => {
                let decided = clock::last_decided(&self.run, self.finalised).filter(|last| Some(*last) > self.unagreed);
                joining.round = joining.round.or(decided);
                joining.next_view(&self.run)
            }
            Step::Waiting => self.blocks(self.next()).map(|blocks| blocks.anchor),
            // What comes next names the head: collecting, voting.
            Step::Open(_) if self.stepped.is_some() => None,
            Step::Open(open) => Some(open.blocks.commit),
            Step::Revealed(open, _) => Some(open.blocks.vote),
            Step::Settling | Step::Halted => None,
        };
        if let Some(block) = wanted.filter(|block| *block <= self.finalised) {
            self.outstanding.reading = Some(block);
            actions.push(Action::Read(block));
        }
    }

    /// Whether later rounds than the next one are decided already, so that an agreed head is the shorter way; or much
    /// later ones, while what the next one selected is not to be had.
    fn is_behind(&self) -> bool {
        let patience = match self.step {
            // The head will be there before anybody could give it.
            _ if self.stepped.is_some() => return false,
            Step::Waiting | Step::Open(_) | Step::Revealed(..) => 0,
            Step::Settling if self.outstanding.starving => self.run.electorate.checkpoint,
            _ => return false,
        };
        clock::last_decided(&self.run, self.finalised)
            .is_some_and(|last| last.0 > self.tip.next().0.saturating_add(patience) && Some(last) > self.unagreed)
    }

    /// Gives up what is being done in a round, and joins.
    fn leave_round(&mut self, actions: &mut Vec<Action>) {
        self.stop_training(actions);
        self.outstanding.applying = false;
        self.outstanding.starving = false;
        self.step = Step::Joining(Joining::default());
    }

    fn blocks(&self, round: Round) -> Option<RoundBlocks> {
        RoundBlocks::of(&self.run, round).ok()
    }

    fn on_view(&mut self, view: Arc<ChainView>, actions: &mut Vec<Action>) {
        if self.outstanding.reading != Some(view.block) {
            return;
        }
        self.outstanding.reading = None;
        self.step = match std::mem::replace(&mut self.step, Step::Waiting) {
            Step::Joining(joining) => self.join_with(joining, view, actions),
            Step::Waiting => self.open(view, actions),
            Step::Open(open) => self.reveal(open, view, actions),
            Step::Revealed(open, reveal) => self.settle(&open, &reveal, &view, actions),
            step @ (Step::Settling | Step::Halted) => step,
        };
    }

    fn on_no_view(&mut self, block: BlockNumber, actions: &mut Vec<Action>) {
        if self.outstanding.reading == Some(block) {
            self.outstanding.reading = None;
            self.unreadable = true;
            // Where the node will stand is not known yet: it asks again when the chain moves.
            if self.stepped.is_none() && !matches!(self.step, Step::Settling | Step::Halted) {
                self.leave_round(actions);
            }
        }
    }

    // ---- joining ----------------------------------------------------------------------------------------------------

    fn join_with(&mut self, joining: Joining, view: Arc<ChainView>, actions: &mut Vec<Action>) -> Step {
        let Joining { round: Some(round), at_a, at_c } = joining else {
            // Asked for before the node fell behind.
            return Step::Joining(joining);
        };
        let (at_a, at_c) = match (at_a, at_c) {
            (None, _) => return Step::Joining(Joining { round: Some(round), at_a: Some(view), at_c: None }),
            (at_a, None) => return Step::Joining(Joining { round: Some(round), at_a, at_c: Some(view) }),
            (Some(at_a), Some(at_c)) => (at_a, at_c),
        };
        let selection = match select::select(&self.run, self.run_id, round, &at_a, &at_c, &view) {
            Ok(selection) => selection,
            Err(error) => return halt(Halt::Contradiction(error), actions),
        };
        let target = selection.agreed.map(|head| Tip { round: round.previous(), head });
        let Some(target) = target.filter(|target| !self.stateless || *target != self.tip) else {
            self.unagreed = Some(round);
            // Without a state there is nowhere to stand: the next round's votes may lead to one.
            return if self.stateless { Step::Joining(Joining::default()) } else { Step::Waiting };
        };
        if self.tip == target {
            return Step::Waiting;
        }
        if self.tip.round == target.round {
            actions.push(Action::Diverged { round, mine: self.tip.head, agreed: target.head });
        }
        self.join(target, actions)
    }

    fn join(&mut self, Tip { round, head }: Tip, actions: &mut Vec<Action>) -> Step {
        self.outstanding.joining = true;
        actions.push(Action::Join { round, head });
        Step::Joining(Joining::default())
    }

    fn on_joined(&mut self, tip: Tip) {
        if std::mem::take(&mut self.outstanding.joining) {
            self.tip = tip;
            self.stateless = false;
            // An agreed head brought it here: there are votes, and they do not split.
            (self.voteless, self.split) = (0, 0);
            self.step = Step::Waiting;
        }
    }

    /// The state before round 0 is here. What was decided meanwhile is looked at again, now that there is one to stand on.
    fn on_given(&mut self) {
        if std::mem::take(&mut self.stateless) {
            self.unagreed = None;
        }
    }

    /// Whoever has applied all that is decided has nothing to catch up with: the run's first nodes, and one that has
    /// been away for a moment. If it stands wrong, the next votes say so.
    fn start_if_up_to_date(&mut self) {
        let next = self.tip.next();
        let decided = clock::last_decided(&self.run, self.finalised);
        let may = matches!(self.step, Step::Joining(_)) && self.heard && !self.stateless;
        if may && decided.is_none_or(|last| last < next) {
            self.step = Step::Waiting;
        }
    }

    // ---- a round ----------------------------------------------------------------------------------------------------

    fn open(&mut self, at_a: Arc<ChainView>, actions: &mut Vec<Action>) -> Step {
        let round = self.next();
        let Some(blocks) = self.blocks(round) else {
            return Step::Waiting;
        };
        let assignment = Arc::new(Assignment::of(&self.run, self.run_id, round, &at_a));
        let member = self.hotkey.and_then(|hotkey| at_a.member(&hotkey).copied());
        let in_time = self.best <= blocks.submit_latest;
        let mine = self.committed.filter(|(committed, _)| *committed == round).map(|(_, digest)| digest);
        match (member.filter(|_| self.roles.miner && in_time), mine) {
            // Killed between journal and block, maybe: the same bytes again change nothing.
            (Some(_), Some(digest)) => {
                self.outstanding.sending += 1;
                actions.push(Action::Commit(round, digest));
            }
            (Some(member), None) if self.voteless < PATIENCE_ROUNDS => {
                self.outstanding.training = Some(round);
                let base = self.stepped.is_none().then_some(self.tip.head);
                let task = Task { round, base, member, assignment: assignment.clone() };
                actions.push(Action::Train(task));
            }
            _ => {}
        }
        Step::Open(Open { round, blocks, at_a, assignment, mine })
    }

    fn on_trained(&mut self, round: Round, manifest: Option<Digest>, actions: &mut Vec<Action>) {
        if self.outstanding.training == Some(round) {
            self.outstanding.training = None;
        }
        let (best, last) = match &self.step {
            Step::Open(open) if open.round == round => (self.best, open.blocks.submit_latest),
            _ => return,
        };
        let Step::Open(open) = &mut self.step else { return };
        if let Some(digest) = manifest.filter(|_| best <= last) {
            open.mine = Some(digest);
            self.committed = Some((round, digest));
            self.outstanding.sending += 1;
            actions.push(Action::Commit(round, digest));
        }
    }

    /// What has been learnt by now is committed; what comes later is not.
    fn stop_training_if_late(&mut self, actions: &mut Vec<Action>) {
        let Step::Open(open) = &self.step else { return };
        if self.best.0.saturating_add(STOP_BLOCKS) >= open.blocks.submit_latest.0 {
            self.stop_training(actions);
        }
    }

    fn stop_training(&mut self, actions: &mut Vec<Action>) {
        if let Some(round) = self.outstanding.training {
            actions.push(Action::StopTraining(round));
        }
    }

    fn reveal(&mut self, open: Open, at_c: Arc<ChainView>, actions: &mut Vec<Action>) -> Step {
        self.stop_training(actions);
        let offered = match select::offered(&self.run, self.run_id, open.round, &open.at_a, &at_c) {
            Ok(offered) => offered,
            Err(error) => return halt(Halt::Contradiction(error), actions),
        };
        let me = self.hotkey.and_then(|hotkey| open.at_a.member(&hotkey)).map(|member| member.uid);
        if let (Some(mine), Some(found)) = (open.mine, me.and_then(|uid| offered.get(&uid))) {
            if mine != *found {
                return halt(Halt::Twin { round: open.round, mine, found: *found }, actions);
            }
            self.outstanding.sending += 1;
            actions.push(Action::Announce(open.round));
        }
        let collection = Arc::new(Collection {
            round: open.round,
            base: self.tip.head,
            members: Arc::new(open.at_a.members.clone()),
            offered,
            assignment: open.assignment.clone(),
            beacon: clock::beacon(&self.run, self.run_id, open.blocks.commit, at_c.hash),
        });
        actions.push(Action::Collect(collection.clone()));
        let reveal =
            Reveal { at_c, collection, held: UidSet::default(), refused: UidSet::default(), over: false, voted: false };
        Step::Revealed(open, reveal)
    }

    fn on_collected(&mut self, round: Round, note: impl FnOnce(&mut Reveal)) {
        if let Step::Revealed(open, reveal) = &mut self.step
            && open.round == round
        {
            note(reveal);
        }
    }

    /// Blocks may go on without this node: what it lacks, others have.
    fn on_starving(&mut self, round: Round) {
        self.outstanding.starving |= matches!(self.step, Step::Settling) && self.tip.next() == round;
    }

    fn vote_if_due(&mut self, actions: &mut Vec<Action>) {
        let Step::Revealed(open, reveal) = &mut self.step else {
            return;
        };
        let (first, end) = (open.blocks.vote_submit, open.blocks.vote);
        // Who reveals late has a block's grace to collect, or its empty ballot replaces a full one of before a crash.
        let last = self.best > first || self.best.0.saturating_add(1) >= end.0;
        let due = self.best >= first && self.best < end && (last || reveal.is_complete());
        let may = self.roles.validator && self.hotkey.is_some_and(|hotkey| open.at_a.member(&hotkey).is_some());
        if may && due && !reveal.voted {
            reveal.voted = true;
            self.outstanding.sending += 1;
            actions.push(Action::Vote { round: open.round, head: self.tip.head, held: reveal.held });
        }
    }

    fn settle(&mut self, open: &Open, reveal: &Reveal, at_v: &ChainView, actions: &mut Vec<Action>) -> Step {
        let selection = match select::select(&self.run, self.run_id, open.round, &open.at_a, &reveal.at_c, at_v) {
            Ok(selection) => selection,
            Err(error) => return halt(Halt::Contradiction(error), actions),
        };
        if let Some(agreed) = selection.agreed.filter(|agreed| *agreed != self.tip.head) {
            actions.push(Action::Diverged { round: open.round, mine: self.tip.head, agreed });
            return self.join(Tip { round: open.round.previous(), head: agreed }, actions);
        }
        if let Some(split) = self.count_empty_rounds(open.round, &selection) {
            return halt(split, actions);
        }
        let (chosen, void) = match selection.outcome {
            Outcome::Chosen(chosen) => (chosen, None),
            Outcome::Void(reason) => (Vec::new(), Some(reason)),
        };
        self.outstanding.applying = true;
        actions.push(Action::Apply(Settlement {
            round: open.round,
            parent: self.tip.head,
            chosen,
            void,
            holders: selection.group,
            hashes: [open.at_a.hash, reveal.at_c.hash, at_v.hash],
        }));
        if self.roles.validator {
            self.outstanding.scoring += 1;
            actions.push(Action::Score(reveal.collection.clone()));
        }
        Step::Settling
    }

    /// Counts rounds without votes, and those in which a majority voted but agreed on no head. A majority that is
    /// silent, or below the run's least, makes rounds void, but splits nothing.
    fn count_empty_rounds(&mut self, round: Round, selection: &Selection) -> Option<Halt> {
        self.voteless = if selection.voted.is_empty() { self.voteless.saturating_add(1) } else { 0 };
        let behind_heads: u128 = selection.heads.values().sum();
        self.split = match selection.agreed {
            Some(_) => 0,
            None => self.split + u32::from(2 * behind_heads > selection.total_stake),
        };
        (self.split >= PATIENCE_ROUNDS).then_some(Halt::Split(round))
    }

    fn on_stepped(&mut self, round: Round) {
        if matches!(self.step, Step::Settling) && self.tip.next() == round {
            self.outstanding.starving = false;
            self.stepped = Some(round);
            self.step = Step::Waiting;
        }
    }

    fn on_applied(&mut self, round: Round, head: Digest) {
        self.on_stepped(round);
        if self.stepped == Some(round) {
            self.outstanding.applying = false;
            self.stepped = None;
            self.tip = Tip { round: Some(round), head };
        }
    }
}

fn halt(why: Halt, actions: &mut Vec<Action>) -> Step {
    actions.push(Action::Halt(why));
    Step::Halted
}

impl Joining {
    /// A, C and V of the round, in this order.
    fn next_view(&self, run: &Run) -> Option<BlockNumber> {
        let blocks = RoundBlocks::of(run, self.round?).ok()?;
        Some(match (&self.at_a, &self.at_c) {
            (None, _) => blocks.anchor,
            (Some(_), None) => blocks.commit,
            (Some(_), Some(_)) => blocks.vote,
        })
    }
}

impl Reveal {
    /// Whether every offer is held or refused, or the rest is given up.
    fn is_complete(&self) -> bool {
        let resolved = |uid: &Uid| self.held.contains(*uid) || self.refused.contains(*uid);
        self.over || self.collection.offered.keys().all(resolved)
    }
}
