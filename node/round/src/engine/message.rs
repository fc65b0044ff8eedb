//! What goes into the state machine and what comes out: events, actions, and what they carry.

use crate::assign::Assignment;
use crate::select::{SelectError, VoidReason};
use covey_proto::chain::{ChainView, Member};
use covey_proto::record::UidSet;
use covey_proto::{BlockNumber, Digest, Round, RunId, Uid};
use std::collections::BTreeMap;
use std::sync::Arc;

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
        Tip { round: None, head: run_id.0 }
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
    /// Of what [`Action::Collect`] asked for, what has not come by now will hardly come in time for a vote: once for each,
    /// and only of the last [`Action::Collect`].
    CollectingOver(Round),
    /// The state before round 0 has come, of a node that began without it ([`super::Engine::without_state`]).
    Given,
    /// [`Action::Apply`] has waited long for bytes that only others have, and goes on waiting.
    Starving(Round),
    /// A submission ([`Action::Commit`], [`Action::Vote`]) or a reveal is through, or has failed for good.
    Sent(Round),
    /// [`Action::Apply`] has the parameters after the round, but not yet their hash: what needs no head may begin.
    Stepped(Round),
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
    /// Fetch and check what was committed: [`Event::Held`] or [`Event::Refused`] each, and [`Event::CollectingOver`].
    Collect(Arc<Collection>),
    /// Put a ballot on chain, out of those that are held: [`Event::Sent`].
    Vote {
        /// The round.
        round: Round,
        /// head(round − 1).
        head: Digest,
        /// Whose contributions are held.
        held: UidSet,
    },
    /// Aggregate these, take the outer step: [`Event::Stepped`]. Hash, write state and header: [`Event::Applied`].
    Apply(Settlement),
    /// Score what the round offered: [`Event::Scored`].
    Score(Arc<Collection>),
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
    /// head(round − 1): the state to start from. None while it is being hashed: it is then what [`Event::Applied`] says, and
    /// until that the contribution cannot be named.
    pub base: Option<Digest>,
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
