//! A swarm: many nodes on one machine, each a process with its own identity, folder, sockets and blob store, on a chain
//! that is a process, too. All are `covey` itself, told what they are by files in the swarm's folder and looked after by
//! [`crate::supervise`].
//!
//! `plan` says who is there and what happens to them, `prepare` writes their files, `chain` is the devnet and its blocks,
//! `pacer` says when one is due, `watch` measures what the report shows; the loop here joins them.

mod chain;
pub mod display;
mod host;
mod pacer;
mod plan;
mod prepare;
mod watch;

pub use chain::ChainError;
pub use plan::{Kill, Moment, Options, PlanError, Script, check};

use crate::chain::Ledger;
use crate::chain::substrate::{ConnectError, Settings, SubstrateLedger};
use crate::disk::folder::Folder;
use crate::misbehave::Misbehaviour;
use crate::observe::{self, Nodes};
use crate::preset::PresetError;
use crate::report::Summary;
use crate::supervise::{Event, Keeper, Limits, Line, Next, Pace, Program, SpawnError};
use crate::wallet::WalletError;
use chain::Blocks;
use covey_proto::{BlockNumber, Hotkey, Round, Uid};
use host::{Host, State};
use pacer::{Due, Pacer};
use plan::{DEVNET, Plan};
use prepare::Keys;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use watch::Watcher;

/// Lines of its processes that a swarm may be behind; then they wait, and with them what writes them, not their nodes.
const EVENTS_MAX: usize = 1024;
/// How long a process may take from its start to its first word.
const START_TIMEOUT: Duration = Duration::from_secs(180);
/// How long the nodes may take to say good-bye before they are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the last block may take to reach who reads the last weights.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Nodes whose addresses a node is given to start with: more would only be dialled in vain.
const BOOTSTRAP_NODES: usize = 4;
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
    /// A process cannot be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// A process does not do what it was started for.
    #[error("{name} {how}: {why}")]
    Process {
        /// Its name.
        name: Arc<str>,
        /// How it ended.
        how: String,
        /// Why it stays away.
        why: String,
    },
    /// A process says nothing.
    #[error("{name} has not said a word in {} s; its log is logs/{name}.log", START_TIMEOUT.as_secs())]
    Mute {
        /// Its name.
        name: Arc<str>,
    },
    /// The chain's process does not answer.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// No client of the chain.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A key cannot be written.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// The status port.
    #[error("--status {address}: {error}")]
    Status {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
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
    keys: Keys,
    plan: Plan,
    devnet: Keeper,
    url: String,
    blocks: Blocks,
    pacer: Pacer,
    ledger: SubstrateLedger,
    hosts: BTreeMap<Arc<str>, Host>,
    nodes: Nodes,
    sender: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    /// Late-comers whose hotkey is on its way into a final block.
    registering: JoinSet<(Arc<str>, Result<(), String>)>,
    /// The newest round that any node has been in.
    reached: Round,
    /// The file that says where its status is shown: locked while it runs.
    shown: Option<File>,
    /// The chain's process has been given up.
    is_chain_gone: bool,
    watcher: Watcher,
}

/// What becomes of a swarm.
pub struct Outcome {
    /// All that was measured.
    pub summary: Summary,
    /// Where its files are.
    pub folder: Folder,
    /// Why it could not go on, if it could not: a node or the chain does not start again, or no node is left.
    pub error: Option<SwarmError>,
}

/// How the rounds of a swarm end.
enum End {
    /// All are through.
    Whole,
    /// Somebody had enough.
    Interrupted,
}

impl Swarm {
    /// Starts the chain, and every node that is there from the beginning.
    ///
    /// # Errors
    /// What was asked for cannot be, or a process does not start.
    pub async fn start(options: Options, folder: Folder, display: display::Display) -> Result<Swarm, SwarmError> {
        let plan = Plan::new(&options)?;
        let keys = Keys::new(options.seed);
        prepare::folder(&folder, &options, &plan, &keys)?;
        let (sender, mut events) = mpsc::channel(EVENTS_MAX);
        let devnet = chain::start(&options.program, &folder, sender.clone())?;
        let url = serving(&mut events).await?;
        if let Some(address) = url.strip_prefix("ws://").and_then(|address| address.parse::<SocketAddr>().ok()) {
            devnet.set_arguments(chain::arguments(&folder, address));
        }
        let ledger = SubstrateLedger::connect(Settings::new(vec![url.clone()], chain::NETUID)).await?;
        let run = Arc::new(prepare::run(&options, &folder, ledger.genesis())?);
        let watcher = Watcher::new(&options, &folder, &run, &plan, display);
        let mut blocks = Blocks::new(url.clone());
        let pacer = Pacer::new(blocks.best().await?, chain::FINALITY_LAG, Instant::now());
        let mut swarm = Swarm {
            options,
            folder,
            keys,
            plan,
            devnet,
            url,
            blocks,
            pacer,
            ledger,
            hosts: BTreeMap::new(),
            nodes: Nodes::default(),
            sender,
            events,
            registering: JoinSet::new(),
            reached: Round(0),
            shown: None,
            is_chain_gone: false,
            watcher,
        };
        if let Err(error) = swarm.start_first().await {
            swarm.stop().await;
            return Err(error);
        }
        Ok(swarm)
    }

    async fn start_first(&mut self) -> Result<(), SwarmError> {
        let first = self.plan.first_nodes();
        let (seeder, others) = first.split_at(1.min(first.len()));
        for group in [seeder, others] {
            for name in group {
                self.start_node(name)?;
            }
            self.all_started().await?;
        }
        Ok(())
    }

    /// Shows its nodes' status, metrics and peers at an address, and writes that into its folder.
    ///
    /// # Errors
    /// The address is taken, or none of this machine's; the folder refuses.
    pub async fn show(&mut self, address: SocketAddr) -> Result<SocketAddr, SwarmError> {
        let taken = |error| SwarmError::Status { address, error };
        let address = observe::listen(address, self.nodes.clone()).await.map_err(taken)?;
        let path = self.folder.status();
        let write = || {
            let mut file = File::create(&path)?;
            // However this process ends, the lock ends with it: a file without one is of a swarm that was killed.
            file.lock()?;
            file.write_all(format!("{address}\n").as_bytes())?;
            Ok(file)
        };
        self.shown = Some(write().map_err(prepare::fault(&path))?);
        Ok(address)
    }

    fn start_node(&mut self, name: &Arc<str>) -> Result<(), SwarmError> {
        let node = (name, self.plan.node(name));
        let arguments = prepare::node(&self.options, &self.folder, node, &self.url, self.bootstrap())?;
        let (path, log) = (self.options.program.clone(), self.folder.log(name));
        let program = Program { name: name.clone(), path, arguments, log };
        let keeper = Keeper::start(program, Limits::default(), self.sender.clone())?;
        self.hosts.insert(name.clone(), Host::new(keeper));
        Ok(())
    }

    /// Whom a node that starts now dials first: the seeder if it runs, and some more in case it is killed next.
    fn bootstrap(&self) -> Vec<String> {
        let mut running: Vec<_> = self.hosts.iter().filter(|(_, host)| !host.addresses.is_empty()).collect();
        running.sort_by_key(|(name, _)| !self.plan.node(name).is_seeder());
        running.iter().take(BOOTSTRAP_NODES).flat_map(|(_, host)| host.addresses.clone()).collect()
    }

    /// Waits until every node that was started has said so.
    async fn all_started(&mut self) -> Result<(), SwarmError> {
        let until = Instant::now() + START_TIMEOUT;
        let starting = |(name, host): (&Arc<str>, &Host)| matches!(host.state, State::Starting).then(|| name.clone());
        while let Some(name) = self.hosts.iter().find_map(starting) {
            match tokio::time::timeout_at(until, self.events.recv()).await {
                Ok(Some(event)) => self.on_event(event).await?,
                Ok(None) | Err(_) => return Err(SwarmError::Mute { name }),
            }
            if let Some((name, why)) = self.hosts.iter().find_map(|(name, host)| Some((name, host.why_gone()?))) {
                let (name, how) = (name.clone(), "does not start".into());
                return Err(SwarmError::Process { name, how, why: why.to_owned() });
            }
        }
        Ok(())
    }

    /// Runs until every live node has applied the last round, until `interrupt`, or until it cannot go on. Its processes
    /// have ended then, and what it measured so far is there in each case.
    pub async fn run_to_end(mut self, interrupt: impl Future<Output = ()>) -> Outcome {
        self.watcher.begin();
        let ended = self.turns(std::pin::pin!(interrupt)).await;
        self.stop().await;
        let (interrupted, error) = match ended {
            Ok(End::Whole) => (false, None),
            Ok(End::Interrupted) => (true, None),
            Err(error) => (true, Some(error)),
        };
        let summary = self.watcher.finish(interrupted).await;
        Outcome { summary, folder: self.folder, error }
    }

    async fn turns(&mut self, mut interrupt: Pin<&mut impl Future<Output = ()>>) -> Result<End, SwarmError> {
        loop {
            let (at, is_late) = match self.pacer.due(self.hosts.values().filter_map(Host::part)) {
                Due::At(at) => (at, false),
                Due::Late(at) => (at, true),
            };
            tokio::select! {
                biased;
                () = &mut interrupt => return Ok(End::Interrupted),
                () = self.watcher.watch() => {}
                Some(event) = self.events.recv() => self.on_event(event).await?,
                Some(registered) = self.registering.join_next() => self.on_registered(registered)?,
                () = tokio::time::sleep_until(at) => {
                    // The chain may be away, and for a minute.
                    let is_over = tokio::select! {
                        biased;
                        () = &mut interrupt => return Ok(End::Interrupted),
                        is_over = self.turn(is_late) => is_over?,
                    };
                    if is_over {
                        break;
                    }
                }
            }
            self.kill_who_is_due();
        }
        tokio::select! {
            biased;
            () = &mut interrupt => Ok(End::Interrupted),
            last = self.last_block() => last.map(|()| End::Whole),
        }
    }

    /// Looks at where all are, and makes a block unless that is the end.
    async fn turn(&mut self, is_late: bool) -> Result<bool, SwarmError> {
        if is_late {
            self.watcher.event("a node hangs: a block is made without it");
        }
        self.watcher.catch_up();
        self.watcher.note_weights(&self.ledger).await;
        self.check_alive()?;
        if self.is_over() {
            return Ok(true);
        }
        self.follow_plan()?;
        self.make_block().await?;
        Ok(false)
    }

    /// The weights of the last round go into one block more.
    async fn last_block(&mut self) -> Result<(), SwarmError> {
        let last = self.make_block().await?;
        let mut heads = self.ledger.heads();
        let seen = heads.wait_for(|heads| heads.best >= last);
        // A chain that is silent at the end costs the report's last weights, not the run.
        let _ = tokio::time::timeout(HEAD_TIMEOUT, seen).await;
        self.watcher.note_last_weights(&self.ledger).await;
        Ok(())
    }

    async fn make_block(&mut self) -> Result<BlockNumber, SwarmError> {
        let made = self.blocks.make().await?;
        self.pacer.made(made.best, Instant::now());
        if made.was_away {
            self.pacer.was_away();
        }
        Ok(made.best)
    }

    // ---- what processes say ----------------------------------------------------------------------------------------

    async fn on_event(&mut self, event: Event) -> Result<(), SwarmError> {
        match event {
            Event::Said { name, line } => self.on_line(&name, line).await,
            Event::Begun { name } => tracing::info!(%name, "is started again"),
            Event::Ended { name, how, next } => {
                if let Some(host) = self.hosts.get_mut(&name) {
                    host.ended(match &next {
                        Next::Never(why) => State::Gone(why.clone()),
                        Next::Again(_) | Next::AsTold => State::Starting,
                    });
                }
                let round = self.round();
                match next {
                    Next::AsTold => {}
                    Next::Again(_) => {
                        self.watcher.node_died(&name, round);
                        self.watcher.event(&format!("{name} {how}: started again"));
                    }
                    Next::Never(why) if *name == *DEVNET => {
                        self.is_chain_gone = true;
                        return Err(SwarmError::Process { name, how, why });
                    }
                    Next::Never(why) => {
                        self.nodes.forget(&name);
                        self.watcher.node_gone(&name, why.clone());
                        self.watcher.event(&format!("{name} {how}: {why}"));
                    }
                }
            }
        }
        Ok(())
    }

    async fn on_line(&mut self, name: &Arc<str>, line: Line) {
        if let Line::Applied(applied) = line {
            return self.watcher.on_applied(name, applied).await;
        }
        // What a node has said before it was killed counts no more.
        if !self.hosts.contains_key(name) {
            return;
        }
        match line {
            Line::Started { addresses, status } => {
                if let Some(host) = self.hosts.get_mut(name) {
                    (host.state, host.addresses) = (State::Running(Pace::default()), addresses);
                }
                if let Some(status) = status {
                    self.nodes.refer(&**name, status);
                }
                self.watcher.node_started(name);
            }
            Line::Pace(pace) => {
                self.watcher.node_paced(name, &pace);
                if let Some(host) = self.hosts.get_mut(name) {
                    host.state = State::Running(pace);
                }
            }
            Line::Status(status) => self.watcher.node_told(name, *status),
            // Its end comes next, and says the same.
            Line::Halted { .. } | Line::Failed { .. } | Line::Serving { .. } | Line::Applied(_) => {}
        }
    }

    // ---- the plan --------------------------------------------------------------------------------------------------

    fn paces(&self) -> impl Iterator<Item = (&Arc<str>, &Pace)> {
        self.hosts.iter().filter_map(|(name, host)| match &host.state {
            State::Running(pace) => Some((name, pace)),
            _ => None,
        })
    }

    /// Whether every live node has applied the last round.
    fn is_over(&self) -> bool {
        let mut live = self.paces().filter(|(_, pace)| pace.live).peekable();
        live.peek().is_some() && live.all(|(_, pace)| pace.due.0 >= self.options.rounds)
    }

    /// The newest round that a live node is in, or was.
    fn round(&mut self) -> Round {
        let now = self.paces().filter(|(_, pace)| pace.live).map(|(_, pace)| pace.round).max();
        self.reached = self.reached.max(now.unwrap_or_default());
        self.reached
    }

    fn check_alive(&self) -> Result<(), SwarmError> {
        let gone = |(name, host): (&Arc<str>, &Host)| Some(format!("{name}: {}", host.why_gone()?));
        let gone: Vec<String> = self.hosts.iter().filter_map(gone).collect();
        if !gone.is_empty() && gone.len() == self.hosts.len() && !self.plan.is_anybody_away() {
            return Err(SwarmError::AllHalted(gone.join("; ")));
        }
        Ok(())
    }

    /// Starts again and lets join whom the plan says.
    fn follow_plan(&mut self) -> Result<(), SwarmError> {
        let round = self.round();
        // Where nobody is left to bring the next round about, waiting for it would be for ever.
        let is_anybody_live = self.paces().any(|(_, pace)| pace.live);
        let back = if is_anybody_live { round } else { Round(u32::MAX) };
        // The others dial the seeder first: it comes back before them.
        let is_starting = |(name, host): (&Arc<str>, &Host)| {
            self.plan.node(name).is_seeder() && matches!(host.state, State::Starting)
        };
        if !self.hosts.iter().any(is_starting) {
            for name in self.plan.due_to_return(back) {
                self.start_node(&name)?;
                self.watcher.event(&format!("{name} is started again"));
            }
        }
        for name in self.plan.due_to_join(round) {
            let (ledger, coldkey) = (self.ledger.clone(), self.keys.coldkey());
            let hotkey: Hotkey = self.keys.hotkey(&name);
            self.watcher.node_joined(&name, round);
            self.registering.spawn(async move {
                let registered = ledger.register(&coldkey, hotkey, None).await;
                (name, registered.map(drop).map_err(|error| error.to_string()))
            });
        }
        Ok(())
    }

    fn on_registered(
        &mut self,
        registered: Result<(Arc<str>, Result<(), String>), tokio::task::JoinError>,
    ) -> Result<(), SwarmError> {
        let (name, why) = match registered {
            Ok((name, Ok(()))) => return self.start_node(&name),
            Ok((name, Err(why))) => (name, why),
            Err(error) => ("a late-comer".into(), error.to_string()),
        };
        // The others go on without it.
        self.watcher.event(&format!("{name} cannot be registered, and stays away: {why}"));
        Ok(())
    }

    fn kill_who_is_due(&mut self) {
        if !self.plan.has_kills() {
            return;
        }
        let mut phases: BTreeMap<Arc<str>, (Round, String)> =
            self.paces().map(|(name, pace)| (name.clone(), (pace.round, pace.phase.clone()))).collect();
        let round = self.round();
        phases.insert(DEVNET.into(), (round, String::new()));
        for (name, round) in self.plan.due_to_die(&phases) {
            if *name == *DEVNET {
                self.devnet.crash();
            } else if let Some(host) = self.hosts.remove(&name) {
                host.keeper.kill();
                self.nodes.forget(&name);
                self.plan.killed(&name, Round(round.0 + AWAY_ROUNDS));
                self.watcher.node_died(&name, round);
                self.watcher.event(&format!("{name} is killed in round {round}"));
            }
        }
    }

    // ---- the end ---------------------------------------------------------------------------------------------------

    /// Ends all processes: the nodes, then the chain. Who does not end in time is killed.
    async fn stop(&mut self) {
        self.registering.abort_all();
        self.hosts.values().for_each(|host| host.keeper.stop());
        let nodes = self.hosts.iter().filter(|(_, host)| host.why_gone().is_none());
        let nodes = nodes.map(|(name, _)| name.clone()).collect();
        self.all_ended(nodes).await;
        self.devnet.stop();
        if !self.is_chain_gone {
            self.all_ended(vec![DEVNET.into()]).await;
        }
        // Nobody shows anything any more; it may never have been there.
        let _ = std::fs::remove_file(self.folder.status());
    }

    async fn all_ended(&mut self, mut left: Vec<Arc<str>>) {
        let (mut until, mut killed) = (Instant::now() + STOP_TIMEOUT, false);
        while !left.is_empty() {
            match tokio::time::timeout_at(until, self.events.recv()).await {
                Ok(Some(Event::Ended { name, next: Next::AsTold | Next::Never(_), .. })) => {
                    self.is_chain_gone |= *name == *DEVNET;
                    left.retain(|other| *other != name);
                }
                Ok(Some(Event::Said { name, line })) => self.on_line(&name, line).await,
                Ok(Some(_)) => {}
                Ok(None) => return,
                // Not even a kill ends who waits for a disk that does not answer.
                Err(_) if killed => {
                    tracing::error!(?left, "killed, and not ended in time: left alone");
                    return;
                }
                Err(_) => {
                    tracing::warn!(?left, "not ended in time: killed");
                    for name in &left {
                        self.hosts.get(name).map_or(&self.devnet, |host| &host.keeper).kill();
                    }
                    (until, killed) = (Instant::now() + STOP_TIMEOUT, true);
                }
            }
        }
    }
}

/// Waits until the chain's process says where it answers.
async fn serving(events: &mut mpsc::Receiver<Event>) -> Result<String, SwarmError> {
    let until = Instant::now() + START_TIMEOUT;
    loop {
        match tokio::time::timeout_at(until, events.recv()).await {
            Ok(Some(Event::Said { line: Line::Serving { url }, .. })) => return Ok(url),
            Ok(Some(Event::Ended { name, how, next: Next::Never(why) })) => {
                return Err(SwarmError::Process { name, how, why });
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return Err(SwarmError::Mute { name: DEVNET.into() }),
        }
    }
}

/// A miner's uid in a swarm: miners come first, then validators.
fn uid(number: usize) -> Option<Uid> {
    u8::try_from(number).ok().map(Uid::from)
}

/// What a miner does wrong, for the report.
fn named(kind: Misbehaviour) -> String {
    kind.to_string()
}
