//! A swarm: many nodes on one machine, each with its own identity, folder, sockets and blob store, on one chain in this
//! process. Nodes are [`crate::peer`]s and nothing else; `pacer` makes the blocks, `host` starts and kills,
//! `watch` measures what the report shows.

pub mod display;
mod host;
mod pacer;
mod plan;
mod watch;

pub use host::HostError;
pub use plan::{Kill, Moment, Options, PlanError, Script, check};

use crate::chain::log::{ChainLog, LogError};
use crate::chain::memory::{Genesis, MemoryLedger};
use crate::folder::Folder;
use crate::observe::Nodes;
use crate::peer::compute::Compute;
use crate::peer::misbehave::Misbehaviour;
use crate::peer::{Applied, Config, Status};
use crate::preset::PresetError;
use crate::report::Summary;
use covey_proto::chain::Member;
use covey_proto::run::{Beacon, Chain, Data, Run};
use covey_proto::{BlockNumber, Digest, HotkeyPair, Round, Uid, derive};
use covey_round::engine::Roles;
use covey_sparseloco::state_root;
use covey_trainer::genesis::initial_state;
use host::Host;
use pacer::{Pacer, Waited};
use plan::Plan;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use watch::Watcher;

/// Stake of each validator of a swarm.
const STAKE: u64 = 1_000_000_000;
/// Blocks that finality is behind.
const FINALITY_LAG: u32 = 2;
/// The subnet of a swarm.
const NETUID: u16 = 1;
/// Rounds that nodes may be ahead of whoever watches: back-pressure is not needed, memory is bounded.
const APPLIED_MAX: usize = 4096;
/// Loopback is quick: a mesh need not take seconds to form.
const HEARTBEAT: Duration = Duration::from_millis(200);
/// Bytes of each node's blob store: a demo's rounds are a few megabytes each, and the seeder keeps all.
const STORE_BYTES_MAX: u64 = 16 << 30;
/// Rounds that a killed node stays away.
const AWAY_ROUNDS: u32 = 2;

/// Why a swarm fails.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// What was asked for cannot be.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The preset is no run.
    #[error(transparent)]
    Preset(#[from] PresetError),
    /// The data set is too small.
    #[error("the data has {held_out} held-out and {training} training sequences of {sequence} tokens; give more text")]
    TooLittleData {
        /// Held-out sequences.
        held_out: u64,
        /// Training sequences.
        training: u64,
        /// Tokens of a sequence.
        sequence: u32,
    },
    /// A node does not run.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The chain's log cannot be written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A file or folder of the swarm cannot be written.
    #[error("{path}: {error}")]
    Folder {
        /// The path.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// Every node has halted.
    #[error("no node is left: {0}")]
    AllHalted(String),
}

/// A swarm that runs.
pub struct Swarm {
    options: Options,
    folder: Folder,
    run: Arc<Run>,
    ledger: MemoryLedger,
    pacer: Pacer,
    compute: Compute,
    plan: Plan,
    hosts: BTreeMap<Arc<str>, Host>,
    nodes: Nodes,
    bootstrap: Vec<String>,
    applied: mpsc::Sender<Applied>,
    watcher: Watcher,
}

/// What becomes of a swarm.
pub struct Outcome {
    /// All that was measured.
    pub summary: Summary,
    /// Where its files are.
    pub folder: Folder,
}

impl Swarm {
    /// Starts every node that is there from the beginning.
    ///
    /// # Errors
    /// What was asked for cannot be, or a node does not start.
    pub async fn start(options: Options, folder: Folder, display: display::Display) -> Result<Swarm, SwarmError> {
        let plan = Plan::new(&options)?;
        let genesis = genesis(&options, &plan);
        let run = Arc::new(resolve(&options, &genesis)?);
        prepare_folder(&folder, &run, &options.data.tokenizer_path())?;
        let ledger = MemoryLedger::new(genesis.clone());
        let pacer = Pacer::new(ledger.clone(), ChainLog::create(&folder.ledger(), &genesis)?);
        let (applied, applications) = mpsc::channel(APPLIED_MAX);
        let compute = Compute::new(options.cores);
        let watcher = Watcher::new(&options, &run, &plan, compute.clone(), applications, display);
        let mut swarm = Swarm {
            options,
            folder,
            run,
            ledger,
            pacer,
            compute,
            plan,
            hosts: BTreeMap::new(),
            nodes: Nodes::default(),
            bootstrap: Vec::new(),
            applied,
            watcher,
        };
        for name in swarm.plan.first_nodes() {
            swarm.start_node(&name).await?;
            if swarm.bootstrap.is_empty() {
                swarm.bootstrap = swarm.hosts.get(&name).map(|host| host.addresses.clone()).unwrap_or_default();
            }
        }
        Ok(swarm)
    }

    /// What its nodes show of themselves, while they live.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// The run.
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    async fn start_node(&mut self, name: &Arc<str>) -> Result<(), SwarmError> {
        let node = self.plan.node(name);
        let config = Config {
            name: name.clone(),
            directory: self.folder.node(name),
            roles: node.roles,
            run: self.run.clone(),
            ledger: self.ledger.clone(),
            data: (node.roles != Roles::default()).then(|| self.options.data.clone()),
            listen: vec!["/ip4/127.0.0.1/tcp/0".into(), "/ip4/127.0.0.1/udp/0/quic-v1".into()],
            bootstrap: self.bootstrap.clone(),
            reachable: true,
            heartbeat: HEARTBEAT,
            limits: covey_gossip::Limits::default(),
            store_bytes_max: STORE_BYTES_MAX,
            compute: self.compute.clone(),
            hotkey_seed: hotkey_seed(self.options.seed, name),
            misbehaviour: node.misbehaviour,
            archive: node.roles == Roles::default(),
            patience: self.options.patience,
            observer: Some(self.applied.clone()),
        };
        let host = Host::start(config).await?;
        let context = host.context.clone();
        self.nodes.show(&**name, None, move || context.upgrade().map(|context| context.network.clone()));
        self.watcher.node_started(name, host.status.clone());
        self.hosts.insert(name.clone(), host);
        Ok(())
    }

    /// Runs until every live node has applied the last round, or `interrupt` says so. Its files are written either way.
    ///
    /// # Errors
    /// A node does not start again, the log cannot be written, or no node is left.
    pub async fn run_to_end(mut self, interrupt: impl Future<Output = ()>) -> Result<Outcome, SwarmError> {
        let mut interrupt = std::pin::pin!(interrupt);
        self.watcher.begin();
        let interrupted = loop {
            let statuses: Vec<_> = self.hosts.values().map(|host| host.status.clone()).collect();
            tokio::select! {
                () = &mut interrupt => break true,
                waited = self.pacer.wait(&statuses) => {
                    if waited == Waited::TimedOut {
                        self.watcher.event("a node hangs: a block is made without it");
                    }
                }
                () = self.watcher.watch() => {
                    self.kill_who_is_due().await?;
                    continue;
                }
            }
            self.watcher.catch_up().await;
            self.watcher.note_weights(&self.ledger).await;
            self.check_alive()?;
            if self.is_over() {
                break false;
            }
            self.follow_plan().await?;
            self.pacer.produce()?;
        };
        // The weights of the last round go into one block more.
        self.pacer.produce()?;
        self.watcher.note_last_weights(&self.ledger).await;
        futures::future::join_all(std::mem::take(&mut self.hosts).into_values().map(Host::stop)).await;
        let summary = self.watcher.finish(interrupted).await;
        Ok(Outcome { summary, folder: self.folder })
    }

    /// Whether every live node has applied the last round.
    fn is_over(&self) -> bool {
        let mut live = self.statuses().filter(|status| status.live).peekable();
        live.peek().is_some() && live.all(|status| status.round.0 >= self.options.rounds)
    }

    fn statuses(&self) -> impl Iterator<Item = Status> + '_ {
        self.hosts.values().map(Host::now)
    }

    fn check_alive(&self) -> Result<(), SwarmError> {
        let halted: Vec<String> = self.statuses().filter_map(|status| status.halted).collect();
        if !halted.is_empty() && halted.len() == self.hosts.len() {
            return Err(SwarmError::AllHalted(halted.join("; ")));
        }
        Ok(())
    }

    /// Kills, starts again and lets join whom the plan says.
    async fn follow_plan(&mut self) -> Result<(), SwarmError> {
        let round = self.statuses().filter(|status| status.live).map(|status| status.round).max().unwrap_or(Round(0));
        for name in self.plan.due_to_return(round) {
            self.start_node(&name).await?;
            self.watcher.event(&format!("{name} is started again"));
        }
        for name in self.plan.due_to_join(round) {
            self.start_node(&name).await?;
            self.watcher.node_joined(&name, round);
        }
        self.kill_who_is_due().await
    }

    async fn kill_who_is_due(&mut self) -> Result<(), SwarmError> {
        let now = |(name, host): (&Arc<str>, &Host)| {
            let status = host.status.borrow();
            (name.clone(), (status.round, status.phase))
        };
        let phases = self.hosts.iter().map(now).collect();
        for (name, round) in self.plan.due_to_die(&phases) {
            if let Some(host) = self.hosts.remove(&name) {
                host.kill().await?;
                self.plan.killed(&name, Round(round.0 + AWAY_ROUNDS));
                self.watcher.node_killed(&name, round);
            }
        }
        Ok(())
    }
}

fn genesis(options: &Options, plan: &Plan) -> Genesis {
    let member = |(name, node): (&Arc<str>, &plan::Node)| {
        let uid = node.uid?;
        Some(Member {
            uid,
            hotkey: HotkeyPair::from_seed(hotkey_seed(options.seed, name)).hotkey(),
            registered_at: BlockNumber(0),
            permit: node.roles.validator,
            stake: if node.roles.validator { STAKE } else { 0 },
        })
    };
    let mut members: Vec<Member> = plan.nodes().filter_map(member).collect();
    members.sort();
    Genesis { nonce: options.seed, netuid: NETUID, members, finality_lag: FINALITY_LAG }
}

fn hotkey_seed(seed: u64, name: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    derive("covey/1/swarm-hotkey", &[&seed.to_le_bytes(), name.as_bytes()]).fill(&mut bytes);
    bytes
}

/// The preset on this chain, with this data.
fn resolve(options: &Options, genesis: &Genesis) -> Result<Run, SwarmError> {
    // The template's own clock says how early the anchor is; any start behind it will do.
    let start = 8;
    let mut chain = Chain { genesis: genesis.hash(), netuid: NETUID, start, genesis_state: Digest::ZERO };
    let mut data = Data { digest: options.data.digest(), samples: 1 };
    // A small text has fewer tokens than the preset asks for: the model's are the data's.
    let vocabulary = format!("model.vocabulary={}", options.data.vocabulary());
    let template = options.template.clone().with(&[vocabulary])?;
    let draft = template.resolve(&chain, &data)?;
    let sequence = draft.model.sequence;
    let (training, held_out) = (options.data.samples(sequence), options.data.heldout_samples(sequence));
    if training == 0 || held_out == 0 {
        return Err(SwarmError::TooLittleData { held_out, training, sequence });
    }
    data.samples = training;
    chain.genesis_state = state_root(&initial_state(&draft.model), draft.compress.state_elements as usize);
    let mut run = template.resolve(&chain, &data)?;
    if options.repeatable {
        run.clock.beacon = Beacon::Seed;
    }
    Ok(run)
}

fn prepare_folder(folder: &Folder, run: &Run, tokenizer: &Path) -> Result<(), SwarmError> {
    let fault = |path: &Path| {
        let path = path.to_owned();
        move |error| SwarmError::Folder { path, error }
    };
    let nodes = folder.node("");
    std::fs::create_dir_all(&nodes).map_err(fault(&nodes))?;
    std::fs::copy(tokenizer, folder.tokenizer()).map_err(fault(tokenizer))?;
    std::fs::write(folder.run(), run.to_toml()).map_err(fault(&folder.run()))
}

/// A miner's uid in a swarm: miners come first, then validators.
fn uid(number: usize) -> Option<Uid> {
    u8::try_from(number).ok().map(Uid::from)
}

/// What a miner does wrong, for the report.
fn named(kind: Misbehaviour) -> String {
    kind.to_string()
}
