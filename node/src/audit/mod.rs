//! A second pair of eyes: computes a finished swarm again from what it left, and believes none of it.
//!
//! The chain is replayed from its log (every signature, hash and commitment); each round's selection follows from it;
//! contributions are taken from whatever store holds them, by hash; aggregate, state root and header are computed anew,
//! from the run's own beginning. The headers that the swarm left, and the heads that its validators voted for, must be
//! these. The first difference is named: round, shard and tensor.

use crate::chain::Ledger;
use crate::chain::log::{LogError, replay};
use crate::chain::memory::MemoryLedger;
use crate::folder::Folder;
use crate::peer::apply::next_parameters;
use crate::peer::contribution::{Contribution, Unfit, decode};
use crate::peer::disk::{Disk, DiskError};
use covey_gossip::store::{Store, StoreError};
use covey_proto::blob::{Header, Manifest, StateManifest};
use covey_proto::chain::ChainView;
use covey_proto::layout::Layout;
use covey_proto::run::{Run, RunError};
use covey_proto::{BlockNumber, Digest, Round, RunId, Uid};
use covey_round::clock::RoundBlocks;
use covey_round::engine::Tip;
use covey_round::select::{Outcome, SelectError, Selection, select};
use covey_sparseloco::{StepError, state_manifest, state_root};
use covey_trainer::genesis::initial_state;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    /// The chain's log is damaged or false.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A node's folder cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A blob store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
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
        error: StepError,
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

/// What an audit has found right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Rounds computed again.
    pub rounds: u32,
    /// The state root after each.
    pub state_roots: Vec<Digest>,
    /// Contributions decoded and applied again.
    pub contributions: usize,
    /// Rounds whose head more than half of the electorate's stake voted for.
    pub vouched: u32,
}

/// Computes a finished swarm again.
///
/// # Errors
/// Its files cannot be read, or the first difference.
pub fn audit(folder: &Folder) -> Result<Report, AuditError> {
    Auditor::open(folder)?.audit(folder)
}

struct Auditor {
    run: Run,
    run_id: RunId,
    layout: Layout,
    stores: Vec<Store>,
    headers: BTreeMap<Round, Header>,
    parameters: Vec<f32>,
    tip: Tip,
    report: Report,
}

impl Auditor {
    fn open(folder: &Folder) -> Result<Auditor, AuditError> {
        let path = folder.run();
        let text = std::fs::read_to_string(&path).map_err(|error| AuditError::Io { path, error })?;
        let run = Run::from_toml(&text)?;
        let (run_id, layout) = (run.id(), run.layout());
        let parameters = initial_state(&run.model);
        let computed = state_root(&parameters, run.compress.state_elements as usize);
        let claimed = run.chain.genesis_state;
        if computed != claimed {
            return Err(AuditError::Genesis { computed, claimed });
        }
        let (stores, newest) = open_nodes(folder, layout.elements())?;
        let newest = newest.ok_or_else(|| AuditError::NoState(folder.path().to_owned()))?;
        let report = Report { rounds: 0, state_roots: Vec::new(), contributions: 0, vouched: 0 };
        let tip = Tip::genesis(run_id);
        let mut auditor = Auditor { run, run_id, layout, stores, headers: BTreeMap::new(), parameters, tip, report };
        auditor.headers = auditor.walk(newest)?;
        Ok(auditor)
    }

    /// The headers from the newest back to round 0, by hash.
    fn walk(&self, newest: Tip) -> Result<BTreeMap<Round, Header>, AuditError> {
        let (mut headers, mut at) = (BTreeMap::new(), newest);
        while let Some(round) = at.round {
            let missing = || AuditError::Missing { round, what: "header".into(), digest: at.head };
            let header = Header::from_bytes(&self.blob(at.head).ok_or_else(missing)?).map_err(|_| missing())?;
            at = Tip { round: round.previous(), head: header.parent };
            headers.insert(round, header);
        }
        Ok(headers)
    }

    /// A blob by name, from whatever store has it; every store checks the hash.
    fn blob(&self, name: Digest) -> Option<Vec<u8>> {
        self.stores.iter().find_map(|store| store.get(&name).ok().flatten())
    }

    fn audit(mut self, folder: &Folder) -> Result<Report, AuditError> {
        let last = self.headers.keys().next_back().copied();
        let mut views: BTreeMap<BlockNumber, ChainView> = BTreeMap::new();
        replay::<AuditError>(&folder.ledger(), |ledger, _| {
            let Some(round) = Some(self.tip.next()).filter(|round| Some(*round) <= last) else { return Ok(()) };
            let blocks = RoundBlocks::of(&self.run, round).map_err(SelectError::from)?;
            let wanted = [blocks.anchor, blocks.commit, blocks.vote];
            let finalised = ledger.heads().borrow().finalised;
            if wanted.contains(&finalised) {
                views.insert(finalised, view(ledger, finalised));
            }
            if let [Some(at_a), Some(at_c), Some(at_v)] = wanted.map(|block| views.get(&block)) {
                let selection = select(&self.run, self.run_id, round, at_a, at_c, at_v)?;
                let hashes = [at_a.hash, at_c.hash, at_v.hash];
                self.check_votes(round, &selection)?;
                self.check_round(round, selection, hashes)?;
                views.clear();
            }
            Ok(())
        })?;
        Ok(self.report)
    }

    /// The head that the round's votes agree on is the one computed for the round before.
    fn check_votes(&mut self, round: Round, selection: &Selection) -> Result<(), AuditError> {
        let Some(claimed) = selection.agreed else { return Ok(()) };
        self.report.vouched += 1;
        if claimed == self.tip.head {
            return Ok(());
        }
        let what = Fault::Votes { computed: self.tip.head, claimed };
        Err(Box::new(Difference { round: round.previous().unwrap_or(round), what }).into())
    }

    fn check_round(&mut self, round: Round, selection: Selection, hashes: [Digest; 3]) -> Result<(), AuditError> {
        let chosen = match selection.outcome {
            Outcome::Chosen(chosen) => chosen,
            Outcome::Void(_) => Vec::new(),
        };
        let mut selected = Vec::with_capacity(chosen.len());
        for (uid, digest) in &chosen {
            selected.push(Arc::new(self.contribution(round, *uid, *digest)?));
        }
        self.parameters = next_parameters(&self.run, &self.layout, round, &self.parameters, &selected)
            .map_err(|error| AuditError::Step { round, error })?;
        let manifest = state_manifest(&self.parameters, self.run.compress.state_elements as usize);
        let [hash_a, hash_c, hash_v] = hashes;
        let computed = Header {
            run: self.run_id,
            round,
            parent: self.tip.head,
            hash_a,
            hash_c,
            hash_v,
            selected: chosen,
            state: manifest.root(),
        };
        self.compare(&computed, &manifest)?;
        self.tip = Tip { round: Some(round), head: computed.digest() };
        self.report.rounds += 1;
        self.report.contributions += selected.len();
        self.report.state_roots.push(computed.state);
        Ok(())
    }

    fn contribution(&self, round: Round, uid: Uid, digest: Digest) -> Result<Contribution, AuditError> {
        let missing = |what: String, digest| AuditError::Missing { round, what, digest };
        let bytes = self.blob(digest).ok_or_else(|| missing(format!("manifest of uid {uid}"), digest))?;
        let unfit = |error| AuditError::Unfit { round, uid, error };
        let manifest = Manifest::from_bytes(&bytes).map_err(|error| unfit(Unfit::NoManifest(error)))?;
        let mut shards = Vec::with_capacity(manifest.shards.len());
        for (number, shard) in manifest.shards.iter().enumerate() {
            let bytes = self.blob(shard.root);
            shards.push(bytes.ok_or_else(|| missing(format!("shard {number} of uid {uid}"), shard.root))?);
        }
        decode(&self.run, &self.layout, manifest, &shards).map_err(unfit)
    }

    /// Holds a computed header against the swarm's.
    fn compare(&self, computed: &Header, manifest: &StateManifest) -> Result<(), AuditError> {
        let round = computed.round;
        let Some(claimed) = self.headers.get(&round) else { return Ok(()) };
        let uids = |header: &Header| header.selected.iter().map(|(uid, _)| *uid).collect();
        let what = if computed.selected != claimed.selected {
            Fault::Selection { computed: uids(computed), claimed: uids(claimed) }
        } else if computed.state != claimed.state {
            Fault::State {
                computed: computed.state,
                claimed: claimed.state,
                place: self.place(manifest, claimed.state),
            }
        } else if computed != claimed {
            Fault::Header { computed: computed.digest(), claimed: claimed.digest() }
        } else {
            return Ok(());
        };
        Err(Box::new(Difference { round, what }).into())
    }

    /// Where a computed state first differs from a claimed one.
    fn place(&self, computed: &StateManifest, claimed: Digest) -> Place {
        let (elements, cut) = (self.layout.elements(), self.run.compress.state_elements as usize);
        let claimed = self.blob(claimed).and_then(|bytes| StateManifest::from_bytes(&bytes, elements, cut).ok());
        let Some(claimed) = claimed else { return Place::Unknown };
        let differs = computed.shards.iter().zip(&claimed.shards).position(|(a, b)| a != b);
        let Some(number) = differs else { return Place::Unknown };
        let shard = number * cut..(number + 1) * cut;
        let overlaps = |tensor: &&covey_proto::layout::Tensor| {
            tensor.range().start < shard.end && shard.start < tensor.range().end
        };
        let tensors = self.layout.tensors().iter().filter(overlaps).map(|tensor| tensor.name.clone()).collect();
        Place::Shard { number, tensors }
    }
}

/// The stores of all nodes, and the newest state that any has.
fn open_nodes(folder: &Folder, elements: usize) -> Result<(Vec<Store>, Option<Tip>), AuditError> {
    let nodes = folder.node("");
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| AuditError::Io { path, error }
    };
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&nodes).map_err(io(&nodes))?.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let (mut stores, mut newest) = (Vec::new(), None);
    for path in paths.iter().filter(|path| path.is_dir()) {
        stores.push(Store::open(path, u64::MAX)?);
        let state = Disk::at(path).newest_state(elements)?;
        newest = newest.max_by_round(state.map(|state| state.tip));
    }
    Ok((stores, newest))
}

trait Newest {
    fn max_by_round(self, other: Option<Tip>) -> Option<Tip>;
}

impl Newest for Option<Tip> {
    fn max_by_round(self, other: Option<Tip>) -> Option<Tip> {
        match (self, other) {
            (Some(a), Some(b)) if b.round > a.round => Some(b),
            (Some(a), _) => Some(a),
            (None, other) => other,
        }
    }
}

/// The in-memory chain answers at once.
fn view(ledger: &MemoryLedger, block: BlockNumber) -> ChainView {
    futures::executor::block_on(ledger.view(block)).expect("a final block of the last 256")
}
