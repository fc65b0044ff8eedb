//! What whole-swarm tests share: a tiny swarm on text that a grammar makes, run to its end, and questions about it.
//!
//! Every test prints its seed with whatever it finds wrong; a swarm with that seed does the same again.

use covey::audit::{self, AuditError, Report};
use covey::disk::folder::Folder;
use covey::misbehave::Misbehaviour;
use covey::preset::Template;
use covey::report::Summary;
use covey::swarm::display::Display;
use covey::swarm::{Counts, Options, Script, Swarm, SwarmError};
use covey_proto::{Round, Uid};
use covey_trainer::data::{Dataset, PrepareOptions, prepare, synthetic};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tempfile::TempDir;

/// Tokens of the tests' tokenizer: the tiny preset's.
const VOCABULARY: u32 = 512;
/// Bytes of the tests' text: some 100,000 tokens.
const TEXT_BYTES: usize = 400_000;

/// The tests' data set: one for all tests of a process.
pub(crate) fn dataset() -> Arc<Dataset> {
    static DATASET: OnceLock<(TempDir, Arc<Dataset>)> = OnceLock::new();
    let (_, dataset) = DATASET.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = PrepareOptions { vocabulary: VOCABULARY, sequence: 32, ..PrepareOptions::default() };
        let path = folder.path().join("data");
        prepare(synthetic::documents(1, TEXT_BYTES), &options, &path, &mut |_| {}).expect("synthetic text");
        let dataset = Dataset::open(&path, None).expect("what was just prepared");
        (folder, Arc::new(dataset))
    });
    dataset.clone()
}

/// A swarm that is about to run: the tiny preset, four miners, three validators.
pub(crate) struct Rig {
    options: Options,
}

/// Does something to a swarm that runs in a folder.
type Meddle = Box<dyn FnOnce(&Folder) + Send>;

/// A swarm that has run.
pub(crate) struct Finished {
    /// What it measured of itself.
    pub(crate) summary: Summary,
    /// What it left.
    pub(crate) folder: Folder,
    seed: u64,
    _temporary: TempDir,
}

impl Rig {
    /// A swarm with this seed.
    pub(crate) fn seeded(seed: u64) -> Rig {
        let options = Options {
            template: Template::load("tiny").expect("a preset of this binary"),
            data: dataset(),
            phases: Vec::new(),
            rounds: 6,
            counts: Counts { miners: 4, validators: 3, both: 0 },
            seed,
            repeatable: true,
            script: Script::default(),
            cores: 1,
            hidden_weights: false,
            program: env!("CARGO_BIN_EXE_covey").into(),
            patience: Duration::from_secs(20),
            heldout_sequences: 64,
        };
        Rig { options }
    }

    /// So many rounds.
    pub(crate) fn rounds(mut self, rounds: u32) -> Rig {
        self.options.rounds = rounds;
        self
    }

    /// So many validators.
    pub(crate) fn validators(mut self, validators: usize) -> Rig {
        self.options.counts.validators = validators;
        self
    }

    /// So many miners.
    pub(crate) fn miners(mut self, miners: usize) -> Rig {
        self.options.counts.miners = miners;
        self
    }

    /// So many miners are validators too.
    pub(crate) fn both(mut self, both: usize) -> Rig {
        self.options.counts.both = both;
        self
    }

    /// So many miners misbehave.
    pub(crate) fn misbehave(mut self, kind: Misbehaviour, miners: usize) -> Rig {
        self.options.script.misbehave.push((kind, miners));
        self
    }

    /// A node is killed: `NODE@ROUND` or `NODE@ROUND:PHASE`.
    pub(crate) fn kill(mut self, kill: &str) -> Rig {
        self.options.script.kills.push(kill.parse().expect("NODE@ROUND"));
        self
    }

    /// One more miner comes.
    pub(crate) fn join(mut self, round: u32) -> Rig {
        self.options.script.joins.push(Round(round));
        self
    }

    /// What others have is waited for this long: short where a test makes somebody silent.
    pub(crate) fn patience(mut self, patience: Duration) -> Rig {
        self.options.patience = patience;
        self
    }

    /// Weights are hidden until a later epoch.
    pub(crate) fn hidden_weights(mut self) -> Rig {
        self.options.hidden_weights = true;
        self
    }

    /// It goes on from the model in this folder.
    pub(crate) fn beginning_with(mut self, dir: &Path) -> Rig {
        self.options.template = self.options.template.from_model(dir).expect("a model");
        self
    }

    /// It trains on other data from this round on.
    pub(crate) fn phase(mut self, from: u32, data: Arc<Dataset>) -> Rig {
        self.options.phases.push((Round(from), data));
        self
    }

    /// Changes numbers of the preset: `section.key=value`.
    pub(crate) fn set(mut self, changes: &[&str]) -> Rig {
        let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
        self.options.template = self.options.template.with(&changes).expect("a key of the preset");
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it does not get there.
    pub(crate) fn run(self) -> Finished {
        self.run_until(None)
    }

    /// Runs it until somebody who meddles is done: on a thread, with the swarm's folder.
    ///
    /// # Panics
    /// If it does not get there, or the meddler panics.
    pub(crate) fn run_beside(self, meddle: impl FnOnce(&Folder) + Send + 'static) -> Finished {
        self.run_until(Some(Box::new(meddle)))
    }

    fn run_until(self, meddle: Option<Meddle>) -> Finished {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let seed = self.options.seed;
        let folder = Folder::at(temporary.path().join("swarm"));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let outcome = runtime.expect("a runtime").block_on(async {
            let mut swarm = Swarm::start(self.options, folder.clone(), Display::silent()).await?;
            swarm.show(([127, 0, 0, 1], 0).into()).await?;
            let (done, is_done) = tokio::sync::oneshot::channel();
            let meddler = meddle.map(|meddle| {
                std::thread::spawn(move || {
                    // Dropped with a panic, too.
                    let _done: tokio::sync::oneshot::Sender<()> = done;
                    meddle(&folder);
                })
            });
            let meddles = meddler.is_some();
            let outcome = swarm
                .run_to_end(async {
                    if meddles {
                        let _ = is_done.await;
                    } else {
                        std::future::pending().await
                    }
                })
                .await;
            let meddled = meddler.map(std::thread::JoinHandle::join);
            // Where the swarm itself failed, whatever the meddler missed follows from that.
            if let (None, Some(Err(panic))) = (&outcome.error, meddled) {
                std::panic::resume_unwind(panic);
            }
            match outcome.error {
                Some(error) => Err(error),
                None => Ok(outcome),
            }
        });
        let outcome = outcome.unwrap_or_else(|error: SwarmError| panic!("seed {seed}: {error}"));
        Finished { summary: outcome.summary, folder: outcome.folder, seed, _temporary: temporary }
    }
}

impl Finished {
    /// Another folder with the same content.
    pub(crate) fn copy(&self) -> Finished {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::at(temporary.path().join("swarm"));
        copy_folder(self.folder.path(), folder.path()).expect("a swarm's folder can be copied");
        Finished { summary: self.summary.clone(), folder, seed: self.seed, _temporary: temporary }
    }

    /// All nodes had the same root in every round, and an audit agrees with every one.
    pub(crate) fn expect_agreement(&self) -> &Finished {
        let summary = &self.summary;
        assert!(summary.roots_agree, "seed {}: {:?}", self.seed, summary.disagreements);
        let report = self.audit().unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        assert_eq!(report.state_roots, summary.state_roots, "seed {}", self.seed);
        self
    }

    /// A second pair of eyes.
    ///
    /// # Errors
    /// What it finds.
    pub(crate) fn audit(&self) -> Result<Report, AuditError> {
        audit::audit(&self.folder)
    }

    /// The held-out loss fell by at least this share.
    pub(crate) fn expect_learning(&self, share: f64) -> &Finished {
        let losses = &self.summary.heldout_loss;
        let (first, last) = (losses[0], losses[losses.len() - 1]);
        assert!(last < first * (1.0 - share), "seed {}: held-out loss {first} -> {last}", self.seed);
        self
    }

    /// The rounds in which a node's contribution was applied.
    ///
    /// # Panics
    /// If there is no such node.
    pub(crate) fn rounds_of(&self, node: &str) -> Vec<usize> {
        let found = self.summary.nodes.iter().find(|found| found.name == node);
        let uid = found.unwrap_or_else(|| panic!("seed {}: no node {node}", self.seed)).uid;
        let applied = |selected: &[Uid]| uid.is_some_and(|uid| selected.contains(&uid));
        let rounds = self.summary.selected.iter().enumerate();
        rounds.filter(|(_, selected)| applied(selected)).map(|(round, _)| round).collect()
    }

    /// A miner's share of the weight.
    pub(crate) fn weight(&self, uid: u8) -> f64 {
        self.summary.weights.get(&Uid::from(uid)).copied().unwrap_or(0.0)
    }
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_folder(&entry.path(), &to)?,
            false => drop(std::fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}
