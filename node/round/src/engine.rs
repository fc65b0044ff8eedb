//! The state machine of a node: what it does next, given how far the chain is and what has been finished.
//!
//! Events go in, actions come out; nothing waits, nothing is fetched, nothing is computed here. A round passes through
//! four steps: *waiting* for its anchor, *open* (training), *revealed* (collecting what was committed, voting),
//! *settling* (the selection is known and is applied). A node that is behind, or that a majority contradicts, is
//! *joining*: its shell walks headers and replays until it stands where the electorate does.
//!
//! The shell owns every byte: it trains, stores, fetches, checks, votes by its ratings, applies, scores. It tells the
//! engine what came of it. [`Engine::is_idle`] says whether the node waits for nothing but blocks.

use crate::assign::Assignment;
use crate::clock::{self, RoundBlocks};
use crate::select::{self, Outcome, SelectError, Selection, VoidReason};
use covey_proto::chain::{ChainView, Member};
use covey_proto::record::UidSet;
use covey_proto::run::Run;
use covey_proto::{BlockNumber, Digest, Hotkey, Round, RunId, Uid};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rounds without any vote after which a miner idles, and without an agreed head after which a node halts.
const PATIENCE_ROUNDS: u32 = 3;

/// What a node does besides following.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Roles {
    /// Trains and contributes.
    pub miner: bool,
    /// Scores and votes.
    pub validator: bool,
}

/// Where a node stands: the last round it has applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// The round; none before round 0.
    pub round: Option<Round>,
    /// Its header's digest; the run id's before round 0.
    pub head: Digest,
}

impl Tip {
    /// Before round 0.
    pub fn genesis(run_id: RunId) -> Tip {
        Tip {
            round: None,
            head: run_id.0,
        }
    }
    /// The round that comes next.
    pub fn next(&self) -> Round {
        self.round.map_or(Round(0), Round::next)
    }
}

/// What has happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The chain has moved.
    Heads {
        /// The newest block.
        best: BlockNumber,
        /// The newest final block.
        finalised: BlockNumber,
    },
    /// The state that [`Action::Read`] asked for.
    View(Arc<ChainView>),
    /// It could not be read: too old, most likely.
    NoView(BlockNumber),
    /// [`Action::Join`] has brought the node here.
    Joined(Tip),
    /// [`Action::Train`] is over: the stored contribution's digest, if there is one.
    Trained(Round, Option<Digest>),
    /// An offered contribution is held: valid, complete, on disk.
    Held(Round, Uid),
    /// An offered contribution is not valid.
    Refused(Round, Uid),
    /// What has not come by now will hardly come in time.
    PatienceOver(Round),
    /// A submission ([`Action::Commit`], [`Action::Vote`]) or a reveal is through, or has failed for good.
    Sent(Round),
    /// [`Action::Apply`] is done: the round's header.
    Applied(Round, Digest),
    /// [`Action::Score`] is done.
    Scored(Round),
}

/// What the shell is to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Read the chain's state at a final block: [`Event::View`].
    Read(BlockNumber),
    /// Catch up to this head of this round: [`Event::Joined`].
    Join {
        /// The last round of the agreed head; none: the run's beginning.
        round: Option<Round>,
        /// The agreed head.
        head: Digest,
    },
    /// Train on the assigned data and store the contribution: [`Event::Trained`].
    Train(Task),
    /// It is too late for this round's training.
    StopTraining(Round),
    /// Put the contribution on chain: [`Event::Sent`].
    Commit(Round, Digest),
    /// Reveal it: [`Event::Sent`].
    Announce(Round),
    /// Fetch and check what was committed: [`Event::Held`] or [`Event::Refused`] each, and [`Event::PatienceOver`].
    Collect(Collection),
    /// Put a ballot on chain, out of those that are held: [`Event::Sent`].
    Vote {
        /// The round.
        round: Round,
        /// head(round − 1).
        head: Digest,
        /// Whose contributions are held.
        held: UidSet,
    },
    /// Aggregate these, take the outer step, write the header: [`Event::Applied`].
    Apply(Settlement),
    /// Score what the round offered: [`Event::Scored`].
    Score(Collection),
    /// A majority has another head: say so, loudly. A [`Action::Join`] follows.
    Diverged {
        /// The round.
        round: Round,
        /// This node's head.
        mine: Digest,
        /// The electorate's.
        agreed: Digest,
    },
    /// Something that a person must decide. The node stops.
    Halt(Halt),
}

/// One round's training.
#[derive(Clone, Debug)]
pub struct Task {
    /// The round.
    pub round: Round,
    /// head(round − 1): the state to start from.
    pub base: Digest,
    /// Who trains.
    pub member: Member,
    /// Who trains on what.
    pub assignment: Arc<Assignment>,
}

/// What a round offers, and all that checking and scoring it needs.
#[derive(Clone, Debug)]
pub struct Collection {
    /// The round.
    pub round: Round,
    /// head(round − 1): what every contribution must be based on.
    pub base: Digest,
    /// The members at the anchor.
    pub members: Arc<BTreeMap<Uid, Member>>,
    /// What was committed in time.
    pub offered: BTreeMap<Uid, Digest>,
    /// Who trains on what.
    pub assignment: Arc<Assignment>,
    /// The beacon of the commit deadline: nobody knew it before committing.
    pub beacon: Digest,
}

/// What became of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The round.
    pub round: Round,
    /// head(round − 1).
    pub parent: Digest,
    /// What is applied, by uid rising; empty if the round is void.
    pub chosen: Vec<(Uid, Digest)>,
    /// Why the round is void, if it is.
    pub void: Option<VoidReason>,
    /// Who voted in the deciding group: they hold what was chosen.
    pub holders: UidSet,
    /// Hashes of the anchor, commit and vote blocks.
    pub hashes: [Digest; 3],
}

/// Why a node stops.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// Somebody else commits with this node's hotkey.
    #[error("round {round}: my hotkey's slot holds {found}, not my {mine}: another node runs with this key; stop one")]
    Twin {
        /// The round.
        round: Round,
        /// What this node made.
        mine: Digest,
        /// What stands on chain.
        found: Digest,
    },
    /// The electorate does not agree on a head.
    #[error("round {0}: three rounds of votes without an agreed head: the electorate is split, a person must decide")]
    Split(Round),
    /// The chain's states do not fit the run's clock: a bug, or a chain that lies about block numbers.
    #[error("the chain's answers do not fit the run: {0}")]
    Contradiction(SelectError),
}

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
    step: Step,
    /// Actions whose completion has not come.
    outstanding: Outstanding,
    /// What this node has committed last, from its journal.
    committed: Option<(Round, Digest)>,
    /// Whether the chain has been heard of at all.
    heard: bool,
    /// Rounds in a row without any vote.
    voteless: u32,
    /// Rounds in a row with votes but no agreed head.
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

/// What a joiner has read of the last round whose vote deadline is final.
#[derive(Debug, Default)]
struct Joining {
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
    collection: Collection,
    held: UidSet,
    refused: UidSet,
    patience_over: bool,
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
            step: Step::Joining(Joining::default()),
            outstanding: Outstanding::default(),
            committed,
            heard: false,
            voteless: 0,
            split: 0,
        }
    }

    /// Where the node stands.
    pub fn tip(&self) -> Tip {
        self.tip
    }

    /// A word for the step, for people.
    pub fn phase(&self) -> &'static str {
        match &self.step {
            Step::Joining(_) => "joining",
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

    /// Whether the node waits for nothing but blocks.
    pub fn is_idle(&self) -> bool {
        let out = &self.outstanding;
        let busy = out.sending > 0
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
            }
            Event::View(view) => self.on_view(view, actions),
            Event::NoView(block) => self.on_no_view(block),
            Event::Joined(tip) => self.on_joined(tip),
            Event::Trained(round, manifest) => self.on_trained(round, manifest, actions),
            Event::Held(round, uid) => self.on_collected(round, |reveal| reveal.held.insert(uid)),
            Event::Refused(round, uid) => self.on_collected(round, |reveal| reveal.refused.insert(uid)),
            Event::PatienceOver(round) => {
                self.outstanding.starving |= matches!(self.step, Step::Settling);
                self.on_collected(round, |reveal| reveal.patience_over = true);
            }
            Event::Sent(_) => self.outstanding.sending = self.outstanding.sending.saturating_sub(1),
            Event::Applied(round, head) => self.on_applied(round, head),
            Event::Scored(_) => self.outstanding.scoring = self.outstanding.scoring.saturating_sub(1),
        }
        self.advance(actions);
    }

    /// Asks for the next chain state that the step needs, and votes when it is time.
    fn advance(&mut self, actions: &mut Vec<Action>) {
        self.start_if_nothing_is_decided();
        if self.is_behind() {
            self.stop_training(actions);
            self.step = Step::Joining(Joining::default());
        }
        self.vote_if_due(actions);
        if self.outstanding.reading.is_some() || self.outstanding.joining {
            return;
        }
        let wanted = match &self.step {
            Step::Joining(joining) => self.next_view_to_join(joining),
            Step::Waiting => self.blocks(self.tip.next()).map(|blocks| blocks.anchor),
            Step::Open(open) => Some(open.blocks.commit),
            Step::Revealed(open, _) => Some(open.blocks.vote),
            Step::Settling | Step::Halted => None,
        };
        if let Some(block) = wanted.filter(|block| *block <= self.finalised) {
            self.outstanding.reading = Some(block);
            actions.push(Action::Read(block));
        }
    }

    /// Whether a later round than the next one is decided already: it is quicker to replay headers.
    fn is_behind(&self) -> bool {
        let following = matches!(self.step, Step::Waiting | Step::Open(_) | Step::Revealed(..));
        following && clock::last_decided(&self.run, self.finalised).is_some_and(|last| last > self.tip.next())
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

    fn on_no_view(&mut self, block: BlockNumber) {
        if self.outstanding.reading == Some(block) {
            self.outstanding.reading = None;
            self.step = Step::Joining(Joining::default());
        }
    }

    // ---- joining ----------------------------------------------------------------------------------------------------

    /// A, C and V of the last round that is decided, in this order; a run that has decided nothing is joined at once.
    fn next_view_to_join(&self, joining: &Joining) -> Option<BlockNumber> {
        let round = joining
            .round
            .or_else(|| clock::last_decided(&self.run, self.finalised))?;
        let blocks = self.blocks(round)?;
        Some(match (&joining.at_a, &joining.at_c) {
            (None, _) => blocks.anchor,
            (Some(_), None) => blocks.commit,
            (Some(_), Some(_)) => blocks.vote,
        })
    }

    fn join_with(&mut self, joining: Joining, view: Arc<ChainView>, actions: &mut Vec<Action>) -> Step {
        let round = joining.round.or_else(|| clock::last_decided(&self.run, self.finalised));
        let (Some(at_a), Some(at_c), Some(round)) = (&joining.at_a, &joining.at_c, round) else {
            let at_a = joining.at_a.clone().unwrap_or_else(|| view.clone());
            let at_c = joining.at_a.is_some().then_some(view);
            return Step::Joining(Joining {
                round,
                at_a: Some(at_a),
                at_c,
            });
        };
        let selection = match select::select(&self.run, self.run_id, round, at_a, at_c, &view) {
            Ok(selection) => selection,
            Err(error) => return halt(Halt::Contradiction(error), actions),
        };
        if let Some(head) = selection.agreed {
            self.outstanding.joining = true;
            actions.push(Action::Join {
                round: round.previous(),
                head,
            });
        }
        // Without an agreed head the next round's is waited for: a fresh start reads that one.
        let pending = if selection.agreed.is_some() {
            Some(round)
        } else {
            Some(round.next())
        };
        Step::Joining(Joining {
            round: pending,
            at_a: None,
            at_c: None,
        })
    }

    fn on_joined(&mut self, tip: Tip) {
        self.outstanding.joining = false;
        self.tip = tip;
        self.split = 0;
        self.step = Step::Waiting;
    }

    /// A run that has decided nothing yet has nothing to catch up with.
    fn start_if_nothing_is_decided(&mut self) {
        let decided = clock::last_decided(&self.run, self.finalised).is_some();
        if matches!(self.step, Step::Joining(_)) && self.heard && !decided && self.tip.round.is_none() {
            self.step = Step::Waiting;
        }
    }

    // ---- a round ----------------------------------------------------------------------------------------------------

    fn open(&mut self, at_a: Arc<ChainView>, actions: &mut Vec<Action>) -> Step {
        let round = self.tip.next();
        let Some(blocks) = self.blocks(round) else {
            return Step::Waiting;
        };
        let assignment = Arc::new(Assignment::of(&self.run, self.run_id, round, &at_a));
        let member = self.hotkey.and_then(|hotkey| at_a.member(&hotkey).copied());
        let in_time = self.best <= blocks.submit_latest;
        let mine = self
            .committed
            .filter(|(committed, _)| *committed == round)
            .map(|(_, digest)| digest);
        match (member.filter(|_| self.roles.miner && in_time), mine) {
            // Killed between journal and block, maybe: the same bytes again change nothing.
            (Some(_), Some(digest)) => {
                self.outstanding.sending += 1;
                actions.push(Action::Commit(round, digest));
            }
            (Some(member), None) if self.voteless < PATIENCE_ROUNDS => {
                self.outstanding.training = Some(round);
                let task = Task {
                    round,
                    base: self.tip.head,
                    member,
                    assignment: assignment.clone(),
                };
                actions.push(Action::Train(task));
            }
            _ => {}
        }
        Step::Open(Open {
            round,
            blocks,
            at_a,
            assignment,
            mine,
        })
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
        let me = self
            .hotkey
            .and_then(|hotkey| open.at_a.member(&hotkey))
            .map(|member| member.uid);
        if let (Some(mine), Some(found)) = (open.mine, me.and_then(|uid| offered.get(&uid))) {
            if mine != *found {
                return halt(
                    Halt::Twin {
                        round: open.round,
                        mine,
                        found: *found,
                    },
                    actions,
                );
            }
            self.outstanding.sending += 1;
            actions.push(Action::Announce(open.round));
        }
        let collection = Collection {
            round: open.round,
            base: self.tip.head,
            members: Arc::new(open.at_a.members.clone()),
            offered,
            assignment: open.assignment.clone(),
            beacon: clock::beacon(&self.run, self.run_id, open.blocks.commit, at_c.hash),
        };
        actions.push(Action::Collect(collection.clone()));
        let reveal = Reveal {
            at_c,
            collection,
            held: UidSet::default(),
            refused: UidSet::default(),
            patience_over: false,
            voted: false,
        };
        Step::Revealed(open, reveal)
    }

    fn on_collected(&mut self, round: Round, note: impl FnOnce(&mut Reveal)) {
        if let Step::Revealed(open, reveal) = &mut self.step
            && open.round == round
        {
            note(reveal);
        }
    }

    fn vote_if_due(&mut self, actions: &mut Vec<Action>) {
        let Step::Revealed(open, reveal) = &mut self.step else {
            return;
        };
        let due = self.best >= open.blocks.vote_submit && self.best < open.blocks.vote;
        if self.roles.validator && due && !reveal.voted {
            reveal.voted = true;
            self.outstanding.sending += 1;
            actions.push(Action::Vote {
                round: open.round,
                head: self.tip.head,
                held: reveal.held,
            });
        }
    }

    fn settle(&mut self, open: &Open, reveal: &Reveal, at_v: &ChainView, actions: &mut Vec<Action>) -> Step {
        let selection = match select::select(&self.run, self.run_id, open.round, &open.at_a, &reveal.at_c, at_v) {
            Ok(selection) => selection,
            Err(error) => return halt(Halt::Contradiction(error), actions),
        };
        if let Some(agreed) = selection.agreed.filter(|agreed| *agreed != self.tip.head) {
            let round = open.round.previous();
            actions.push(Action::Diverged {
                round: open.round,
                mine: self.tip.head,
                agreed,
            });
            actions.push(Action::Join { round, head: agreed });
            self.outstanding.joining = true;
            return Step::Joining(Joining::default());
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

    /// Counts rounds without votes, and with votes but no agreed head.
    fn count_empty_rounds(&mut self, round: Round, selection: &Selection) -> Option<Halt> {
        let voted = !selection.voted.is_empty();
        self.voteless = if voted { 0 } else { self.voteless + 1 };
        self.split = if voted && selection.agreed.is_none() {
            self.split + 1
        } else {
            0
        };
        (self.split >= PATIENCE_ROUNDS).then_some(Halt::Split(round))
    }

    fn on_applied(&mut self, round: Round, head: Digest) {
        if matches!(self.step, Step::Settling) && self.tip.next() == round {
            self.outstanding.applying = false;
            self.outstanding.starving = false;
            self.tip = Tip {
                round: Some(round),
                head,
            };
            self.step = Step::Waiting;
        }
    }
}

fn halt(why: Halt, actions: &mut Vec<Action>) -> Step {
    actions.push(Action::Halt(why));
    Step::Halted
}

impl Reveal {
    /// Whether every offer is held or refused, or the rest is given up.
    fn is_complete(&self) -> bool {
        let resolved = |uid: &Uid| self.held.contains(*uid) || self.refused.contains(*uid);
        self.patience_over || self.collection.offered.keys().all(resolved)
    }
}
