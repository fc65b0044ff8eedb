//! What a swarm leaves on the disk, by name: its run, its chain, its wallets, its nodes' folders. Reading changes nothing.

use super::{Disk, DiskError, SavedState, StateFile};
use std::path::{Path, PathBuf};

/// The folder of a swarm.
///
/// ```text
/// run.toml        the run
/// chain/          the devnet's: spec.json, what it began with, and its blocks
/// wallets/        the keys of all, as btcli has them
/// tokenizer.json  the tokenizer of the data
/// model/          what stands beside the parameters of the model that it goes on from, if it does
/// nodes/NAME/     each node's own folder, its node.toml in it
/// logs/NAME.log   what each process wrote to its standard error
/// status          where the swarm shows its nodes' status, while it runs
/// ```
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

/// A node's newest state.
pub struct NodeState {
    /// The node's name.
    pub node: String,
    /// Its state.
    pub state: SavedState,
}

impl Folder {
    /// At this path.
    pub fn at(path: impl Into<PathBuf>) -> Folder {
        Folder(path.into())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The run file.
    pub fn run(&self) -> PathBuf {
        self.0.join("run.toml")
    }

    /// The chain's folder.
    pub fn chain(&self) -> PathBuf {
        self.0.join("chain")
    }

    /// What the chain began with.
    pub fn chain_spec(&self) -> PathBuf {
        self.chain().join("spec.json")
    }

    /// The folder of all wallets.
    pub fn wallets(&self) -> PathBuf {
        self.0.join("wallets")
    }

    /// The log of a process.
    pub fn log(&self, name: &str) -> PathBuf {
        self.0.join("logs").join(format!("{name}.log"))
    }

    /// Where the swarm shows its nodes' status, while it runs: an address.
    pub fn status(&self) -> PathBuf {
        self.0.join("status")
    }

    /// The tokenizer of its data.
    pub fn tokenizer(&self) -> PathBuf {
        self.0.join("tokenizer.json")
    }

    /// How conversations become text, if it trained on some.
    pub fn chat_template(&self) -> PathBuf {
        self.0.join("chat_template.jinja")
    }

    /// What stands beside the parameters of the model that it goes on from; there only if it does.
    pub fn model(&self) -> PathBuf {
        self.0.join("model")
    }

    /// A node's node.toml.
    pub fn node_config(&self, name: &str) -> PathBuf {
        self.node(name).join("node.toml")
    }

    /// A node's folder.
    pub fn node(&self, name: &str) -> PathBuf {
        self.0.join("nodes").join(name)
    }

    /// The folders of all nodes that have one, in the order of their names.
    ///
    /// # Errors
    /// The folder cannot be read, or is no swarm's.
    pub fn nodes(&self) -> Result<Vec<PathBuf>, DiskError> {
        let nodes = self.node("");
        let fault = |error| DiskError { path: nodes.clone(), error };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&nodes).map_err(fault)? {
            let path = entry.map_err(fault)?.path();
            if path.is_dir() {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// The newest state of each node that has one, in the order of their names; one at a time, as each is a whole model
    /// of `elements` parameters.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn states(&self, elements: usize) -> Result<impl Iterator<Item = Result<NodeState, DiskError>>, DiskError> {
        let newest = move |path: PathBuf| {
            let node = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            let state = Disk::at(path).newest_state(elements).transpose()?;
            Some(state.map(|state| NodeState { node, state }))
        };
        Ok(self.nodes()?.into_iter().filter_map(newest))
    }

    /// The file of the newest state that any node has, to be streamed; of equally new ones the first node's.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn open_newest_state(&self, elements: usize) -> Result<Option<StateFile>, DiskError> {
        let mut newest: Option<StateFile> = None;
        for path in self.nodes()? {
            let Some(found) = Disk::at(path).open_newest_state(elements)? else { continue };
            if newest.as_ref().is_none_or(|newest| found.tip().round > newest.tip().round) {
                newest = Some(found);
            }
        }
        Ok(newest)
    }

    /// The newest state that any node has; of equally new ones the first node's.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn newest_state(&self, elements: usize) -> Result<Option<NodeState>, DiskError> {
        let mut newest: Option<NodeState> = None;
        for found in self.states(elements)? {
            let found = found?;
            if newest.as_ref().is_none_or(|newest| found.state.tip.round > newest.state.tip.round) {
                newest = Some(found);
            }
        }
        Ok(newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use covey_proto::{Digest, Round};
    use covey_round::engine::Tip;

    #[test]
    fn the_newest_state_is_the_first_node_s_and_looking_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let swarm = Folder::at(folder.path());
        assert!(swarm.nodes().is_err(), "no swarm has been here");
        for (node, round) in [("c", 3), ("b", 3), ("a", 2)] {
            let tip = Tip { round: Some(Round(round)), head: Digest::of(b"head") };
            std::fs::create_dir_all(swarm.node(node)).unwrap();
            Disk::at(swarm.node(node)).write_state(&tip, Digest::of(b"root"), &[1.0, 2.0]).unwrap();
        }
        std::fs::create_dir(swarm.node("empty")).unwrap();
        std::fs::write(swarm.node("a").join("journal.json.part"), b"torn").unwrap();
        std::fs::write(swarm.node("stray"), b"no folder").unwrap();
        assert_eq!(swarm.nodes().unwrap(), ["a", "b", "c", "empty"].map(|node| swarm.node(node)));
        let newest = swarm.newest_state(2).unwrap().unwrap();
        assert_eq!((newest.node.as_str(), newest.state.tip.round), ("b", Some(Round(3))));
        assert!(swarm.newest_state(3).unwrap().is_none(), "a state of another model");
        assert_eq!(swarm.open_newest_state(2).unwrap().unwrap().tip(), newest.state.tip);
        assert!(swarm.open_newest_state(3).unwrap().is_none());
        assert!(swarm.node("a").join("journal.json.part").exists() && !swarm.node("empty").join("blobs").exists());
    }
}
