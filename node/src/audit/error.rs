//! What an audit can find: a file that is no swarm's, a chain that is damaged, or the first difference between what a
//! swarm left and what comes out, named as precisely as it is known.

use crate::contribution::Unfit;
use crate::disk::DiskError;
use crate::peer::StepFault;
use covey_devnet::ReplayError;
use covey_devnet::chain::{CallError, ChainError};
use covey_gossip::store::StoreError;
use covey_proto::run::RunError;
use covey_proto::{Digest, Round, Uid};
use covey_round::select::SelectError;
use std::path::PathBuf;

/// Why an audit cannot be made, or what it has found.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file cannot be read.
    #[error("{path}: {error}: is this the --out folder of a swarm?")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The run file is not one.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The chain cannot be read.
    #[error("the chain cannot be read: {0}")]
    Chain(#[from] ChainError),
    /// The chain's blocks are damaged or false.
    #[error("the chain is not what it says: {0}")]
    Replay(#[from] ReplayError),
    /// The runtime does not say what a round needs.
    #[error("block {number}: {error}")]
    View {
        /// The block.
        number: u32,
        /// Why.
        error: CallError,
    },
    /// It is another chain than the run's.
    #[error("the chain in {path} begins with {got}; the run is on {needed}")]
    OtherChain {
        /// The chain's folder.
        path: PathBuf,
        /// Its genesis.
        got: Digest,
        /// The run's.
        needed: Digest,
    },
    /// The run's subnet is not there.
    #[error("block {number} has no subnet {netuid} that could be a run's")]
    NoSubnet {
        /// The block.
        number: u32,
        /// The run's subnet.
        netuid: u16,
    },
    /// A node's folder cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A blob store cannot be opened.
    #[error(transparent)]
    Store(StoreError),
    /// The swarm has not ended.
    #[error("a node still runs in {0}: wait for the swarm's end, or stop it")]
    Running(PathBuf),
    /// The chain ends before the swarm did.
    #[error("the chain reaches {}; {node} has a state after round {claimed}: the chain is cut off, or the state is false",
        .computed.map_or_else(|| "no round's end".to_owned(), |round| format!("the end of round {round}")))]
    CutOff {
        /// The last round that the chain gives; none if not even the first.
        computed: Option<Round>,
        /// The last round that a node says it has.
        claimed: Round,
        /// The node.
        node: String,
    },
    /// Nobody has a state.
    #[error("no node in {0} has a state of this run")]
    NoState(PathBuf),
    /// The chain's states do not fit the run.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// The run's beginning is not what its file says.
    #[error("the run begins with state {computed}; run.toml says {claimed}")]
    Genesis {
        /// What comes out.
        computed: Digest,
        /// What is said.
        claimed: Digest,
    },
    /// The model that the run began with is nowhere.
    #[error(
        "the run begins with a model that was given, and its blob {digest} is in no store, or damaged there: an archive \
         (a seeder) keeps it"
    )]
    NoGenesis {
        /// The blob.
        digest: Digest,
    },
    /// A blob that is needed is nowhere.
    #[error("round {round}: {what} {digest} is in no store, or damaged there")]
    Missing {
        /// The round.
        round: Round,
        /// What it is.
        what: String,
        /// Its name.
        digest: Digest,
    },
    /// A selected contribution that does not count.
    #[error("round {round}: the contribution of uid {uid} was selected, but {error}")]
    Unfit {
        /// The round.
        round: Round,
        /// Its author.
        uid: Uid,
        /// What is wrong.
        error: Unfit,
    },
    /// The aggregate cannot be computed.
    #[error("round {round}: {error}")]
    Step {
        /// The round.
        round: Round,
        /// What is wrong.
        error: StepFault,
    },
    /// The first round that is not what it should be.
    #[error(transparent)]
    Differs(#[from] Box<Difference>),
}

/// The first round that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("round {round} differs: {what}")]
pub struct Difference {
    /// The round.
    pub round: Round,
    /// What differs.
    pub what: Fault,
}

/// What differs.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Another selection.
    #[error("selected {computed:?} by the chain, {claimed:?} by its header")]
    Selection {
        /// By the chain.
        computed: Vec<Uid>,
        /// By the header.
        claimed: Vec<Uid>,
    },
    /// Another state.
    #[error("state root {computed}, by its header {claimed}; {place}")]
    State {
        /// What comes out.
        computed: Digest,
        /// What the header says.
        claimed: Digest,
        /// Where the states first differ.
        place: Place,
    },
    /// Another header for another reason: parent or block hashes.
    #[error("header {computed}, the swarm's is {claimed}: parent or block hashes differ")]
    Header {
        /// What comes out.
        computed: Digest,
        /// What the swarm has.
        claimed: Digest,
    },
    /// A node has gone on from another header.
    #[error("header {computed}; {node} has a state after {claimed}")]
    Head {
        /// What comes out.
        computed: Digest,
        /// What the node follows.
        claimed: Digest,
        /// The node.
        node: String,
    },
    /// A node has another state after the right header.
    #[error("state root {computed}; the state that {node} has saved has {claimed}")]
    Saved {
        /// What comes out.
        computed: Digest,
        /// What the node has.
        claimed: Digest,
        /// The node.
        node: String,
    },
    /// The validators agreed on another head.
    #[error("header {computed}; the validators agreed on {claimed}")]
    Votes {
        /// What comes out.
        computed: Digest,
        /// What the validators voted for.
        claimed: Digest,
    },
}

/// Where two states first differ.
#[derive(Debug)]
pub enum Place {
    /// In this shard, which holds elements of these tensors.
    Shard {
        /// Its number.
        number: usize,
        /// The tensors.
        tensors: Vec<String>,
    },
    /// The claimed state's manifest is not there to look.
    Unknown,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Shard { number, tensors } => {
                write!(f, "the first shard that differs is {number}, of {}", tensors.join(", "))
            }
            Place::Unknown => f.write_str("no store has the claimed state's manifest, so the shard is not known"),
        }
    }
}
