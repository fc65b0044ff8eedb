//! What whole-swarm tests share: a tiny swarm on text that a grammar makes, run to its end, and questions about it.
//!
//! Every test prints its seed with whatever it finds wrong; a swarm with that seed does the same again.

pub mod foreign;
pub mod fuzz;

use covey::audit::{self, AuditError, Report};
use covey::folder::Folder;
use covey::peer::misbehave::Misbehaviour;
use covey::preset::Template;
use covey::report::Summary;
use covey::swarm::display::Display;
use covey::swarm::{Options, Script, Swarm};
use covey_proto::{Round, Uid};
use covey_trainer::data::{Dataset, PrepareOptions, prepare, synthetic};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tempfile::TempDir;

/// Tokens of the tests' tokenizer: the tiny preset's.
const VOCABULARY: u32 = 512;
/// Bytes of the tests' text: some 100,000 tokens.
const TEXT_BYTES: usize = 400_000;

/// The tests' data set: one for all tests of a process.
pub fn dataset() -> Arc<Dataset> {
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
pub struct Rig {
    options: Options,
}

/// A swarm that has run.
pub struct Finished {
    /// What it measured of itself.
    pub summary: Summary,
    /// What it left.
    pub folder: Folder,
    seed: u64,
    _temporary: TempDir,
}

impl Rig {
    /// A swarm with this seed.
    pub fn seeded(seed: u64) -> Rig {
        let options = Options {
            template: Template::load("tiny").expect("a preset of this binary"),
            data: dataset(),
            rounds: 6,
            miners: 4,
            validators: 3,
            both: 0,
            seed,
            repeatable: true,
            script: Script::default(),
            cores: 2,
            patience: Duration::from_secs(20),
            heldout_sequences: 64,
        };
        Rig { options }
    }

    /// So many rounds.
    pub fn rounds(mut self, rounds: u32) -> Rig {
        self.options.rounds = rounds;
        self
    }

    /// So many validators.
    pub fn validators(mut self, validators: usize) -> Rig {
        self.options.validators = validators;
        self
    }

    /// So many miners.
    pub fn miners(mut self, miners: usize) -> Rig {
        self.options.miners = miners;
        self
    }

    /// So many miners are validators too.
    pub fn both(mut self, both: usize) -> Rig {
        self.options.both = both;
        self
    }

    /// So many miners misbehave.
    pub fn misbehave(mut self, kind: Misbehaviour, miners: usize) -> Rig {
        self.options.script.misbehave.push((kind, miners));
        self
    }

    /// A node is killed: `NODE@ROUND` or `NODE@ROUND:PHASE`.
    pub fn kill(mut self, kill: &str) -> Rig {
        self.options.script.kills.push(kill.parse().expect("NODE@ROUND"));
        self
    }

    /// One more miner comes.
    pub fn join(mut self, round: u32) -> Rig {
        self.options.script.joins.push(Round(round));
        self
    }

    /// What others have is waited for this long: short where a test makes somebody silent.
    pub fn patience(mut self, patience: Duration) -> Rig {
        self.options.patience = patience;
        self
    }

    /// Changes numbers of the preset: `section.key=value`.
    pub fn set(mut self, changes: &[&str]) -> Rig {
        let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
        self.options.template = self.options.template.with(&changes).expect("a key of the preset");
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it does not get there.
    pub fn run(self) -> Finished {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let seed = self.options.seed;
        let folder = Folder::at(temporary.path().join("swarm"));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let outcome = runtime.expect("a runtime").block_on(async {
            let swarm = Swarm::start(self.options, folder, Display::silent()).await?;
            swarm.run_to_end(std::future::pending()).await
        });
        let outcome = outcome.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        Finished { summary: outcome.summary, folder: outcome.folder, seed, _temporary: temporary }
    }
}

impl Finished {
    /// All nodes had the same root in every round, and an audit agrees with every one.
    pub fn expect_agreement(&self) -> &Finished {
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
    pub fn audit(&self) -> Result<Report, AuditError> {
        audit::audit(&self.folder)
    }

    /// The held-out loss fell by at least this share.
    pub fn expect_learning(&self, share: f64) -> &Finished {
        let losses = &self.summary.heldout_loss;
        let (first, last) = (losses[0], losses[losses.len() - 1]);
        assert!(last < first * (1.0 - share), "seed {}: held-out loss {first} -> {last}", self.seed);
        self
    }

    /// The rounds in which a node's contribution was applied.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn rounds_of(&self, node: &str) -> Vec<usize> {
        let found = self.summary.nodes.iter().find(|found| found.name == node);
        let uid = found.unwrap_or_else(|| panic!("seed {}: no node {node}", self.seed)).uid;
        let applied = |selected: &[Uid]| uid.is_some_and(|uid| selected.contains(&uid));
        let rounds = self.summary.selected.iter().enumerate();
        rounds.filter(|(_, selected)| applied(selected)).map(|(round, _)| round).collect()
    }

    /// A miner's share of the weight.
    pub fn weight(&self, uid: u8) -> f64 {
        self.summary.weights.get(&Uid::from(uid)).copied().unwrap_or(0.0)
    }
}
