//! What goes into the submitter and what comes out of it: wishes, events, actions, and what there is to say of them.

use covey_proto::record::{self, Record};
use covey_proto::{BlockNumber, Hotkey, Uid};

/// A signed call: the same bytes however often they are handed over. Only the chain's client can read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCall(pub Vec<u8>);

/// Names a wish in events and actions. The shell gives them out, each greater than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What a node wants to stand on chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A contribution, which the journal names already. A node with both roles repeats its last vote beside it: a hotkey
    /// has one slot, and the next record overwrites the last.
    Contribution(record::Contribution),
    /// A vote, which the journal holds already.
    Vote(record::Vote),
    /// Shares of `u16::MAX` by uid. No journal has them: a crash loses them, and the next round brings newer ones.
    Weights(Vec<(Uid, u16)>),
}

impl Wish {
    /// Whether it goes into the hotkey's slot, where the next record overwrites it.
    pub(super) fn is_record(&self) -> bool {
        !matches!(self, Wish::Weights(_))
    }

    /// Whether a record that stands in the slot fulfils it.
    pub(super) fn is_in(&self, record: &Record) -> bool {
        match self {
            Wish::Contribution(mine) => record.contribution == Some(*mine),
            Wish::Vote(vote) => record.vote == Some(*vote),
            Wish::Weights(_) => false,
        }
    }
}

/// What a call says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Overwrite the hotkey's slot.
    Record(Record),
    /// Set weights: shares of `u16::MAX` by uid.
    Weights(Vec<(Uid, u16)>),
}

/// What the journal holds from the node's last life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The last vote.
    pub vote: Option<record::Vote>,
    /// The last contribution.
    pub contribution: Option<MemorisedContribution>,
}

/// A contribution in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemorisedContribution {
    /// The contribution.
    pub contribution: record::Contribution,
    /// The block from which on it is of no use: its round's commit deadline.
    pub until: BlockNumber,
    /// Its call and who signed that, if it was signed. Nobody is named where the bytes are no call of this chain.
    pub call: Option<(SignedCall, Option<Hotkey>)>,
}

/// What has become of a call by a final block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It may still come into a block.
    Open,
    /// It is in a final block, and was done.
    Done,
    /// It is in a final block, and was not done: why.
    Failed(String),
    /// It cannot come any more: another call has its nonce, or its time is over.
    Lost,
}

/// Why the chain did not sign or take a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It does not answer, or has no room: it is tried again in a moment.
    #[error("{0}")]
    NoAnswer(String),
    /// It takes the call from some block on.
    #[error("{why}")]
    NotYet {
        /// The first block that takes it.
        at: BlockNumber,
        /// Why no earlier one does.
        why: String,
    },
    /// It will never take this call: most often because the call is in a block already.
    #[error("{0}")]
    Refused(String),
    /// Chain and client do not fit, or the chain's endpoints contradict each other: a person must look at it.
    #[error("{0}")]
    Unusable(String),
}

/// What has happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Somebody wants something to stand on chain. From block `until` on it is of no use.
    Wished {
        /// Its name from now on, greater than all before.
        ticket: Ticket,
        /// What is wanted.
        wish: Wish,
        /// The first block at which it is too late.
        until: BlockNumber,
    },
    /// The chain has moved. A reorganisation may lower `best`.
    Heads {
        /// The newest block.
        best: BlockNumber,
        /// The newest final block.
        finalised: BlockNumber,
    },
    /// What came of [`Action::Sign`].
    Signed(Ticket, Result<SignedCall, Trouble>),
    /// [`Action::Journal`] is on the disk.
    Journalled(Ticket),
    /// [`Action::Journal`] failed: why.
    NotJournalled(Ticket, String),
    /// What came of [`Action::HandOver`].
    HandedOver(Ticket, Result<(), Trouble>),
    /// The record in the hotkey's slot, where [`Action::ReadSlot`] looked; none for an empty slot or foreign bytes.
    Slot(Ticket, Option<Record>),
    /// The slot could not be read.
    SlotUnread(Ticket),
    /// The answer to [`Action::AskFate`].
    Fate(Ticket, Fate),
    /// There is none: why.
    FateUnknown(Ticket, String),
    /// The time of [`Action::Pause`] is over.
    PauseOver(Ticket),
}

/// What is to be done. Each but the last two is answered by one event with its ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sign a call with the hotkey's next nonce.
    Sign(Ticket, Content),
    /// Write into the journal which call carries the contribution.
    Journal(Ticket, record::Contribution, SignedCall),
    /// Hand a call to the chain.
    HandOver(Ticket, SignedCall),
    /// Read the hotkey's slot at a final block.
    ReadSlot(Ticket, BlockNumber),
    /// Ask what has become of a call by a final block.
    AskFate(Ticket, SignedCall, BlockNumber),
    /// Wait a moment for a chain that does not answer.
    Pause(Ticket),
    /// Whoever wished this need not wait any longer: the first try is over. Once for each ticket.
    Answer(Ticket),
    /// Something for the log.
    Tell(Ticket, News),
}

/// What there is to say of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It was not signed or handed over; another try follows in a moment.
    TryingAgain(Trouble),
    /// It was not signed or handed over; another try follows when the chain takes it.
    TryingLater(Trouble),
    /// It was not signed or handed over, and that was the last try for now.
    NotSubmitted(Obstacle),
    /// Its call cannot come any more: it is signed anew.
    SigningAnew,
    /// It is in a final block, but was not done: why. The same call again would fail again, and cost as much.
    FailedOnChain(String),
    /// The chain did not take the same bytes once more: most often they are in a block that is not final.
    NotTakenAgain(Trouble),
    /// What became of its call is not known at this block.
    FateUnknown(String),
}

/// Why a wish was not submitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The chain would not have it.
    #[error(transparent)]
    Chain(#[from] Trouble),
    /// Its time is over.
    #[error("block {best} is there, and from {until} on it is of no use")]
    TooLate {
        /// The newest block.
        best: BlockNumber,
        /// The first block at which it is too late.
        until: BlockNumber,
    },
    /// There are newer weights.
    #[error("newer weights are on their way")]
    NewerWeights,
    /// A later record is signed, and this one must not overwrite it.
    #[error("a later record is on its way")]
    LaterRecord,
    /// Another contribution of the same round was signed: a second one would be a lie.
    #[error("round {} has a signed contribution of this node, {}, and no second", .0.round, .0.manifest)]
    SecondContribution(record::Contribution),
    /// The journal could not be written: a crash would forget the call.
    #[error("the journal is not written: {0}")]
    NotJournalled(String),
    /// The node has no key.
    #[error("a node without a hotkey signs nothing")]
    NoHotkey,
    /// More is on its way than fits; what is needed for the shortest time makes room.
    #[error("{max} other calls are on their way")]
    TooMany {
        /// How many fit.
        max: usize,
    },
}

impl Obstacle {
    /// Whether a person must look at it: otherwise it passes by itself, or was to be expected.
    pub fn needs_a_person(&self) -> bool {
        matches!(
            self,
            Obstacle::Chain(Trouble::Unusable(_)) | Obstacle::NotJournalled(_) | Obstacle::SecondContribution(_)
        )
    }
}
