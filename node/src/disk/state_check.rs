//! Holds a saved state against a root, and names the runs of elements that differ.
//!
//! The root alone says whether they differ; where is said by the state's manifest, which a node's blob store holds.

use super::folder::Folder;
use super::{Disk, DiskError, SavedState};
use covey_gossip::store::{Store, StoreError};
use covey_proto::Digest;
use covey_proto::blob::StateManifest;
use covey_proto::run::Run;
use covey_sparseloco::state_manifest_on;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Runs of elements that are named; how many more there are is counted.
const NAMED_MAX: usize = 8;

/// Why a folder could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The file system refuses.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It has no state of this run.
    #[error("{} has no whole state of {elements} parameters of this run; a node's folder is OUT/nodes/NAME", .folder.display())]
    NoState {
        /// The folder.
        folder: PathBuf,
        /// Parameters of the run's model.
        elements: usize,
    },
}

/// A state held against a root.
pub struct Check {
    /// The state's file was written after this round with this head.
    pub state: SavedState,
    /// The root that its parameters have.
    pub computed: Digest,
    /// The root that they should have.
    pub expected: Digest,
    /// How many runs of elements there are.
    pub runs: usize,
    /// Where they differ.
    pub difference: Difference,
}

/// Where a state differs from what it should be.
#[derive(Debug)]
pub enum Difference {
    /// Nowhere.
    None,
    /// In these runs.
    Runs {
        /// The first of them.
        named: Vec<DifferentRun>,
        /// How many there are.
        count: usize,
    },
    /// Somewhere: the manifest of the expected state is not at hand, for this reason.
    Unknown(NoManifest),
}

/// Why the expected state's manifest is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum NoManifest {
    /// The store does not have it.
    #[error("the folder's blob store does not have the expected state's manifest")]
    Missing,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A run of elements that differs.
#[derive(Debug, PartialEq, Eq)]
pub struct DifferentRun {
    /// Its number.
    pub number: usize,
    /// Its elements.
    pub elements: Range<usize>,
    /// The tensors that it holds elements of.
    pub tensors: Vec<String>,
}

/// Where the run file of a node's folder is: in the folder itself, or in that of its swarm.
pub fn run_file(node: &Path) -> Option<PathBuf> {
    let swarm = node.parent().and_then(Path::parent).map(|swarm| Folder::at(swarm).run());
    [Some(node.join("run.toml")), swarm].into_iter().flatten().find(|path| path.is_file())
}

/// Holds the newest state in a node's folder against `expected`, or against the root it was saved with. On all cores.
///
/// # Errors
/// The folder has no state of this run.
pub fn check(node: &Path, run: &Run, expected: Option<Digest>) -> Result<Check, CheckError> {
    let layout = run.layout();
    let elements = layout.elements();
    let state = Disk::at(node)
        .newest_state(elements)?
        .ok_or_else(|| CheckError::NoState { folder: node.to_owned(), elements })?;
    let cut = run.compress.state_elements as usize;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let computed = state_manifest_on(threads, &state.parameters, cut);
    let expected = expected.unwrap_or(state.root);
    let difference = if computed.root() == expected {
        Difference::None
    } else {
        match manifest(node, expected, (elements, cut)) {
            Err(why) => Difference::Unknown(why),
            Ok(wanted) => {
                let differs = |number: &usize| computed.shards.get(*number) != wanted.shards.get(*number);
                let different: Vec<usize> = (0..computed.shards.len()).filter(differs).collect();
                let named = different.iter().take(NAMED_MAX).map(|&number| {
                    let elements = number * cut..((number + 1) * cut).min(elements);
                    let tensors = layout.tensors_in(elements.clone()).map(|tensor| tensor.name.clone()).collect();
                    DifferentRun { number, elements, tensors }
                });
                Difference::Runs { named: named.collect(), count: different.len() }
            }
        }
    };
    Ok(Check { computed: computed.root(), expected, runs: computed.shards.len(), difference, state })
}

fn manifest(node: &Path, root: Digest, (elements, cut): (usize, usize)) -> Result<StateManifest, NoManifest> {
    if !node.join("blobs").is_dir() {
        return Err(NoManifest::Missing);
    }
    let bytes = Store::open(node, u64::MAX)?.get(&root)?.ok_or(NoManifest::Missing)?;
    StateManifest::from_bytes(&bytes, elements, cut).map_err(|_| NoManifest::Missing)
}
