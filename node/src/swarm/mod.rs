//! A swarm: many nodes on one machine, each a process with its own identity, folder, sockets and blob store, on a chain
//! that is a process, too. All are `covey` itself, told what they are by files in the swarm's folder and looked after by
//! [`crate::supervise`].
//!
//! `plan` says who is there and what happens to them, `prepare` writes their files, `devnet` is the chain and its blocks,
//! `pacer` says when one is due, `roster` how far each node is, `chronicle` measures what the report shows, `processes`
//! waits for ends; the loop here joins them.

mod chronicle;
mod devnet;
pub mod display;
mod error;
mod pacer;
mod plan;
mod prepare;
mod processes;
mod references;
mod roster;

pub use error::{ChainError, RequestError, SwarmError};
pub use plan::{Counts, Kill, Moment, Options, PlanError, Script, check};

use crate::chain::Ledger;
use crate::disk::folder::Folder;
use crate::observe::{self, Nodes};
use crate::report::Summary;
use crate::service::leave_timeout;
use crate::supervise::{Keeper, Limits, Line, Next, ProcessEvent, Program};
use chronicle::Chronicle;
use covey_proto::{BlockNumber, Hotkey, Round};
use devnet::Devnet;
use pacer::{Due, Pacer};
use plan::{DEVNET, Plan};
use prepare::Keys;
use processes::{MODEL_TIMEOUT, START_TIMEOUT, STOP_TIMEOUT, ended_in_time};
use roster::Roster;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Lines of its processes that a swarm may be behind; then they wait, and with them what writes them, not their nodes.
const EVENTS_MAX: usize = 1024;
/// How long the last block may take to reach who reads the last weights.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long whoever has interrupted the swarm waits for the loss of its last state.
const INTERRUPTED_TIME: Duration = Duration::from_secs(5);
/// Nodes whose addresses a node is given to start with: more would only be dialled in vain.
const BOOTSTRAP_NODES: usize = 4;
/// Rounds that a killed node stays away.
const AWAY_ROUNDS: u32 = 2;

/// A late-comer, and whether its hotkey is registered: if not, why.
type Registration = (Arc<str>, Result<(), crate::chain::LedgerError>);

/// A swarm that runs.
pub struct Swarm {
    options: Options,
    folder: Folder,
    keys: Keys,
    plan: Plan,
    devnet: Devnet,
    pacer: Pacer,
    keepers: BTreeMap<Arc<str>, Keeper>,
    known: Known,
    sender: mpsc::Sender<ProcessEvent>,
    events: mpsc::Receiver<ProcessEvent>,
    /// Late-comers whose hotkey is on its way into a final block.
    registering: JoinSet<Registration>,
    /// The file that says where its status is shown: locked while it runs.
    shown: Option<File>,
}

/// What a swarm knows of its nodes, by what they say.
struct Known {
    roster: Roster,
    /// Where each node's own status port is.
    ports: Nodes,
    chronicle: Chronicle,
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
        let mut devnet = Devnet::start(&options.program, &folder, (sender.clone(), &mut events)).await?;
        let run = Arc::new(prepare::run(&options, &folder, devnet.ledger().genesis())?);
        let chronicle = Chronicle::new(&options, &folder, &run, &plan, display);
        let pacer = Pacer::new(devnet.blocks().best().await?, devnet::FINALITY_LAG, Instant::now());
        let mut swarm = Swarm {
            options,
            folder,
            keys,
            plan,
            devnet,
            pacer,
            keepers: BTreeMap::new(),
            known: Known { roster: Roster::default(), ports: Nodes::default(), chronicle },
            sender,
            events,
            registering: JoinSet::new(),
            shown: None,
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
        match self.options.template.model() {
            // Blocks wait for nobody who catches up: rounds would go by before the first of them has the model.
            Some(_) => self.all_live().await,
            None => Ok(()),
        }
    }

    /// Shows its nodes' status, metrics and peers at an address, and writes that into its folder.
    ///
    /// # Errors
    /// The address is taken, or none of this machine's; the folder refuses.
    pub async fn show(&mut self, address: SocketAddr) -> Result<SocketAddr, SwarmError> {
        let taken = |error| SwarmError::Status { address, error };
        let address = observe::listen(address, self.known.ports.clone()).await.map_err(taken)?;
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
        // Whom it dials first: the seeder if that runs, and some more in case it is killed next.
        let bootstrap = self.known.roster.addresses(BOOTSTRAP_NODES, |name| self.plan.node(name).is_seeder());
        let arguments = prepare::node(&self.options, &self.folder, node, self.devnet.url(), bootstrap)?;
        let (path, log) = (self.options.program.clone(), self.folder.log(name));
        let program = Program { name: name.clone(), path, arguments, log };
        self.keepers.insert(name.clone(), Keeper::start(program, Limits::default(), self.sender.clone())?);
        self.known.roster.starts(name);
        Ok(())
    }

    /// Waits until every node that was started has said so.
    async fn all_started(&mut self) -> Result<(), SwarmError> {
        let until = Instant::now() + START_TIMEOUT;
        loop {
            let starting = self.known.roster.starting().next().cloned();
            let Some(name) = starting else { return Ok(()) };
            self.wait_for_first(until, SwarmError::Mute { name }).await?;
        }
    }

    /// Waits until every node takes part: until all have the state of the model that the run goes on from.
    async fn all_live(&mut self) -> Result<(), SwarmError> {
        self.known.chronicle.event("the nodes fetch the model's state from the one that has it");
        let until = Instant::now() + MODEL_TIMEOUT;
        loop {
            let waiting = self.known.roster.waiting().next().cloned();
            let Some(name) = waiting else { return Ok(()) };
            self.wait_for_first(until, SwarmError::NoModel { name, patience: MODEL_TIMEOUT }).await?;
        }
    }

    /// Takes in the next thing that a process says, before the first block.
    async fn wait_for_first(&mut self, until: Instant, silence: SwarmError) -> Result<(), SwarmError> {
        match tokio::time::timeout_at(until, self.events.recv()).await {
            Ok(Some(event)) => self.on_event(event)?,
            Ok(None) | Err(_) => return Err(silence),
        }
        match self.known.roster.gone().next() {
            None => Ok(()),
            Some((name, why)) => {
                let (name, how) = (name.clone(), "does not start".into());
                Err(SwarmError::Process { name, how, why: why.to_owned() })
            }
        }
    }

    /// Runs until every live node has applied the last round, until `interrupt`, or until it cannot go on. Its processes
    /// have ended then, and what it measured so far is there in each case.
    ///
    /// What comes after the last round takes a bounded time; an `interrupt` that comes during it makes it shorter, and the
    /// run counts as whole all the same.
    pub async fn run_to_end(mut self, interrupt: impl Future<Output = ()>) -> Outcome {
        let mut interrupt = std::pin::pin!(interrupt);
        self.known.chronicle.begin(&self.plan.first_nodes());
        let ended = self.turns(interrupt.as_mut()).await;
        let (chronicle, folder) = self.stop().await;
        let (was_interrupted, interrupted, error) = match ended {
            Ok(End::Whole) => (false, false, None),
            Ok(End::Interrupted) => (true, true, None),
            Err(error) => (false, true, Some(error)),
        };
        let enough = async {
            // An interrupt comes only once.
            if was_interrupted { tokio::time::sleep(INTERRUPTED_TIME).await } else { interrupt.await }
        };
        let summary = chronicle.finish(interrupted, enough).await;
        Outcome { summary, folder, error }
    }

    async fn turns(&mut self, mut interrupt: Pin<&mut impl Future<Output = ()>>) -> Result<End, SwarmError> {
        loop {
            // Rounds come no faster than their states are evaluated.
            let is_held = self.known.chronicle.is_behind();
            let (at, is_late) = match self.pacer.due(self.known.roster.parts()) {
                _ if is_held => (self.pacer.look_again(), false),
                Due::At(at) => (at, false),
                Due::Late(at) => (at, true),
            };
            tokio::select! {
                biased;
                () = &mut interrupt => return Ok(End::Interrupted),
                () = self.known.chronicle.watch() => {}
                Some(event) = self.events.recv() => self.on_event(event)?,
                Some(registered) = self.registering.join_next() => self.on_registered(registered)?,
                () = tokio::time::sleep_until(at) => {
                    // The chain may be away, and for a minute.
                    let is_over = tokio::select! {
                        biased;
                        () = &mut interrupt => return Ok(End::Interrupted),
                        is_over = self.turn(is_late, is_held) => is_over?,
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

    /// Looks at where all are, and makes a block unless that is the end, or blocks are held back.
    async fn turn(&mut self, is_late: bool, is_held: bool) -> Result<bool, SwarmError> {
        let chronicle = &mut self.known.chronicle;
        if is_late {
            chronicle.event("a node hangs: a block is made without it");
        }
        chronicle.catch_up();
        if !is_held {
            chronicle.note_weights(self.devnet.ledger()).await;
        }
        self.check_alive()?;
        if self.known.roster.is_over(self.options.rounds) {
            return Ok(true);
        }
        if is_held {
            self.pacer.held(Instant::now());
            return Ok(false);
        }
        self.follow_plan()?;
        self.make_block().await?;
        Ok(false)
    }

    /// The weights of the last round go into one block more.
    async fn last_block(&mut self) -> Result<(), SwarmError> {
        let last = self.make_block().await?;
        let mut heads = self.devnet.ledger().heads();
        let seen = heads.wait_for(|heads| heads.best >= last);
        // A chain that is silent at the end costs the report's last weights, not the run.
        let _ = tokio::time::timeout(HEAD_TIMEOUT, seen).await;
        self.known.chronicle.note_last_weights(self.devnet.ledger()).await;
        Ok(())
    }

    async fn make_block(&mut self) -> Result<BlockNumber, SwarmError> {
        let block = self.devnet.blocks().make().await?;
        self.pacer.made(block.best, Instant::now());
        if block.was_away {
            self.pacer.was_away();
        }
        Ok(block.best)
    }

    // ---- what processes say ----------------------------------------------------------------------------------------

    fn on_event(&mut self, event: ProcessEvent) -> Result<(), SwarmError> {
        match event {
            ProcessEvent::Said { name, line } => self.known.on_line(&name, line),
            ProcessEvent::Begun { name } => tracing::info!(%name, "is started again"),
            ProcessEvent::Ended { name, how, next: Next::Never(why) } if *name == *DEVNET => {
                self.devnet.is_gone = true;
                return Err(SwarmError::Process { name, how, why });
            }
            ProcessEvent::Ended { name, how, next } => self.known.on_end(&name, &how, next),
        }
        Ok(())
    }

    // ---- the plan --------------------------------------------------------------------------------------------------

    fn check_alive(&self) -> Result<(), SwarmError> {
        match self.known.roster.all_gone() {
            Some(reasons) if !self.plan.is_anybody_away() => Err(SwarmError::AllHalted(reasons)),
            _ => Ok(()),
        }
    }

    /// Starts again and lets join whom the plan says.
    fn follow_plan(&mut self) -> Result<(), SwarmError> {
        let roster = &mut self.known.roster;
        let round = roster.round();
        // Where nobody is left to bring the next round about, waiting for it would be for ever.
        let back = if roster.is_anybody_live() { round } else { Round(u32::MAX) };
        // The others dial the seeder first: it comes back before them.
        if !roster.starting().any(|name| self.plan.node(name).is_seeder()) {
            for name in self.plan.due_to_return(back) {
                self.start_node(&name)?;
                self.known.chronicle.event(&format!("{name} is started again"));
            }
        }
        for name in self.plan.due_to_join(round) {
            let (ledger, coldkey) = (self.devnet.ledger().clone(), self.keys.coldkey());
            let hotkey: Hotkey = self.keys.hotkey(&name);
            self.known.chronicle.node_joined(&name, round);
            self.registering.spawn(async move {
                let registered = ledger.register(&coldkey, hotkey, None).await;
                (name, registered.map(drop))
            });
        }
        Ok(())
    }

    fn on_registered(&mut self, registered: Result<Registration, tokio::task::JoinError>) -> Result<(), SwarmError> {
        let (name, why) = match registered {
            Ok((name, Ok(()))) => return self.start_node(&name),
            Ok((name, Err(error))) => (name, error.to_string()),
            Err(error) => ("a late-comer".into(), error.to_string()),
        };
        // The others go on without it.
        self.known.chronicle.event(&format!("{name} cannot be registered, and stays away: {why}"));
        Ok(())
    }

    fn kill_who_is_due(&mut self) {
        if !self.plan.has_kills() {
            return;
        }
        let paces = self.known.roster.paces();
        let mut phases: BTreeMap<Arc<str>, (Round, String)> =
            paces.map(|(name, pace)| (name.clone(), (pace.round, pace.phase.clone()))).collect();
        phases.insert(DEVNET.into(), (self.known.roster.round(), String::new()));
        for (name, round) in self.plan.due_to_die(&phases) {
            if *name == *DEVNET {
                self.devnet.crash();
            } else if let Some(keeper) = self.keepers.remove(&name) {
                keeper.kill();
                self.plan.killed(&name, Round(round.0 + AWAY_ROUNDS));
                self.known.on_kill(&name, round);
            }
        }
    }

    // ---- the end ---------------------------------------------------------------------------------------------------

    /// Ends all processes: the nodes, then the chain. Who does not end in time is killed. Nothing that could dial the
    /// chain is left.
    async fn stop(self) -> (Chronicle, Folder) {
        let Swarm { folder, mut devnet, keepers, mut known, mut registering, mut events, shown, .. } = self;
        registering.shutdown().await;
        keepers.values().for_each(Keeper::stop);
        let kill = |name: &str| {
            if let Some(keeper) = keepers.get(name) {
                keeper.kill();
            }
        };
        let left = known.roster.left();
        let in_time = STOP_TIMEOUT.max(2 * leave_timeout(known.chronicle.run()));
        let said = |name: Arc<str>, line| known.on_line(&name, line);
        let others = ended_in_time(&mut events, left, in_time, kill, said).await;
        devnet.is_gone |= others.iter().any(|name| **name == *DEVNET);
        devnet.stop(&mut events).await;
        // Nobody shows anything any more; it may never have been there.
        let _ = std::fs::remove_file(folder.status());
        drop(shown);
        (known.chronicle, folder)
    }
}

impl Known {
    fn on_line(&mut self, name: &Arc<str>, line: Line) {
        if let Line::Applied(applied) = line {
            return self.chronicle.on_applied(name, applied);
        }
        // What a node has said before it was killed counts no more.
        if !self.roster.has(name) {
            return;
        }
        match line {
            Line::Started { addresses, status } => {
                self.roster.runs(name, addresses);
                if let Some(status) = status {
                    self.ports.refer(&**name, status);
                }
                self.chronicle.node_started(name);
            }
            Line::Pace(pace) => {
                self.chronicle.node_paced(name, &pace);
                self.roster.paced(name, pace);
            }
            Line::Status(status) => self.chronicle.node_told(name, *status),
            // Its end comes next, and says the same.
            Line::Halted { .. } | Line::Failed { .. } | Line::Serving { .. } | Line::Applied(_) => {}
        }
    }

    /// A process has ended without being killed by the plan, or the chain's has and is started again.
    fn on_end(&mut self, name: &str, how: &str, next: Next) {
        let why_gone = if let Next::Never(why) = &next { Some(why.clone()) } else { None };
        self.roster.ended(name, why_gone);
        match next {
            Next::AsTold => {}
            Next::Again(_) => {
                let round = self.roster.round();
                self.chronicle.node_died(name, round);
                self.chronicle.event(&format!("{name} {how}: started again"));
            }
            Next::Never(why) => {
                self.ports.forget(name);
                self.chronicle.event(&format!("{name} {how}: {why}"));
                self.chronicle.node_gone(name, why);
            }
        }
    }

    /// The plan has killed a node.
    fn on_kill(&mut self, name: &str, round: Round) {
        self.roster.remove(name);
        self.ports.forget(name);
        self.chronicle.node_died(name, round);
        self.chronicle.event(&format!("{name} is killed in round {round}"));
    }
}
