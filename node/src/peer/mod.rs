//! A node: one type, built from one [`Config`]. A swarm is many of them; alone, one is a process on a real chain.
//!
//! [`Peer::start`] (`start`) opens the folder, joins the network and restores what a crash left. [`Peer::run`], here, is the
//! loop: it waits for what happens next, tells the round's state machine ([`covey_round::engine`]), and hands what that says
//! to whoever does it. Each part of a round has a room of its own, with the tasks that take time:
//!
//! - `mining`: train, compress, store, journal, commit, reveal;
//! - `gathering`: announcements, fetching, asking; `obtain` has one contribution's bytes;
//! - `validating`: ballots, loss scores, ratings, weights;
//! - `applying`: outer step, state root, header; what is kept for others;
//! - `catching_up`: from the agreed head back to a state, and forward again;
//! - `submitting`: calls on their way into a block.
//!
//! Beside them: `states` owns the parameters in memory; `jobs` what runs beside the loop; `worker` lends the miner and the
//! validator to one job at a time; `identity` knows who the node is on chain, and with [`agreement`] whether it is in the same
//! run as the others; [`Context`] is what all of them share. head(r) is the digest of round r's header; the chain's own tips
//! are called best and finalised.

pub mod agreement;
mod applying;
mod catching_up;
mod context;
mod gathering;
mod identity;
mod jobs;
mod mining;
mod obtain;
mod reading;
mod start;
mod states;
mod status;
pub mod submitting;
mod validating;
mod worker;

pub use applying::{StepFault, next_parameters};
pub use context::Context;
pub use gathering::{Announcement, Malformed, Received, read as read_announcement};
pub use start::{Config, StartError};
pub use status::{Applied, Status, Timings};

use crate::chain::{Heads, Ledger};
use crate::compute::{Cancel, off_the_queue};
use applying::{ApplyJob, Progress, Settled};
use catching_up::CaughtUp;
use covey_proto::chain::ChainView;
use covey_proto::record::{UidSet, Vote};
use covey_proto::{Digest, Round};
use covey_round::engine::{Action, Collection, Engine, Event, Settlement, Task, Tip};
use covey_round::gather;
use gathering::{Gathering, Heard, ToDo, Work};
use identity::Identity;
use jobs::{Done, Jobs};
use mining::{Mining, TrainBase, TrainJob, Trained};
use states::States;
use status::Reports;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use validating::{ScoreJob, Validating};

/// How long a node that ends waits for its miner to come back from the step that it is at.
const MINER_HOME_TIMEOUT: Duration = Duration::from_secs(5);

/// A node that has started.
pub struct Peer<L: Ledger> {
    context: Arc<Context<L>>,
    engine: Engine,
    states: States,
    /// The fetch of the state that the run begins with, while there is no other.
    genesis: Option<AbortHandle>,
    identity: Identity,
    mining: Option<Mining>,
    validating: Option<Validating>,
    gathering: Gathering,
    applying: Applying,
    jobs: Jobs,
    inputs: Inputs,
    reports: Reports,
}

/// The round that is being applied, and what the last one applied.
#[derive(Default)]
struct Applying {
    task: Option<AbortHandle>,
    /// Stops the part of it that computes, which cannot be aborted.
    cancel: Cancel,
    chosen: UidSet,
}

impl Applying {
    /// Whatever is under way is of no use any more.
    fn stop(&mut self) {
        self.cancel.cancel();
        self.task.take().inspect(AbortHandle::abort);
    }
}

/// Where the loop hears of what happens.
struct Inputs {
    heads: watch::Receiver<Heads>,
    heard: mpsc::Receiver<Heard>,
    done: mpsc::Receiver<Done>,
}

/// Why a node's loop ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// A person must look at it.
    Halted(String),
}

/// A reason to stop, for a person.
struct Halt(String);

/// Returns when somebody says stop, or nobody can any more.
async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

impl<L: Ledger> Peer<L> {
    /// What the node tells of itself, now and from now on.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.reports.subscribe()
    }

    /// What its parts share, for whoever must know when the last of them is gone.
    pub fn context(&self) -> Weak<Context<L>> {
        Arc::downgrade(&self.context)
    }

    /// Where it can be dialled, as multiaddrs.
    pub fn addresses(&self) -> Vec<String> {
        self.context.network.addresses()
    }

    /// Runs until `stop` says so, or until a person must decide something.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Ended {
        self.inputs.heads.mark_changed();
        loop {
            let events = tokio::select! {
                biased;
                () = told_to_stop(&mut stop) => return self.leave().await,
                Some(done) = self.inputs.done.recv() => self.on_done(done),
                changed = self.inputs.heads.changed() => match changed {
                    Ok(()) => Ok(self.on_heads()),
                    Err(_) => Err(Halt("the chain is gone".into())),
                },
                heard = self.inputs.heard.recv() => match heard {
                    Some(heard) => Ok(self.on_heard(heard)),
                    None => Err(Halt("the network ended and could not be rebuilt, or what listens to it broke: see the log".into())),
                },
                () = self.gathering.wait() => Ok(self.gather(gather::Event::Tick)),
            };
            if let Err(Halt(why)) = events.and_then(|events| self.advance(events)) {
                return self.halt(why).await;
            }
            self.publish();
        }
    }

    /// Tells the state machine what has happened and does what it says, until it has nothing more to say.
    fn advance(&mut self, events: Vec<Event>) -> Result<(), Halt> {
        let (mut events, mut actions) = (VecDeque::from(events), Vec::new());
        while let Some(event) = events.pop_front() {
            self.engine.handle(event, &mut actions);
            for action in actions.drain(..) {
                events.extend(self.perform(action)?);
            }
        }
        Ok(())
    }

    /// Stops where it stands, with the reason: what is on disk is whole.
    async fn halt(mut self, why: String) -> Ended {
        tracing::error!(node = %self.context.name, "halted: {why}");
        self.reports.halted(&why);
        self.put_away().await;
        Ended::Halted(why)
    }

    /// Ends in good order.
    async fn leave(mut self) -> Ended {
        self.put_away().await;
        self.context.network.clone().shutdown().await;
        Ended::Stopped
    }

    /// What the miner has learned goes to the disk.
    async fn put_away(&mut self) {
        self.stop_training();
        // A round whose base has no head yet is not waited for.
        self.states.forget_headless();
        let home = tokio::time::timeout(MINER_HOME_TIMEOUT, self.wait_for_miner()).await;
        let put_away = match home {
            Ok(Some((mut miner, true))) => miner.reset(&self.context).await,
            Ok(Some((miner, false))) => miner.leave(&self.context).await,
            Ok(None) => Ok(()),
            Err(_) => return tracing::warn!(node = %self.context.name, "the miner is at a step: it saves nothing"),
        };
        if let Err(error) = put_away {
            tracing::error!(node = %self.context.name, %error, "the optimizer's state is not saved");
        }
    }

    /// The miner, once it is back from the training that was stopped.
    async fn wait_for_miner(&mut self) -> Option<(mining::Miner, bool)> {
        let mining = self.mining.as_mut()?;
        while mining.is_away() {
            if let Done::Trained(trained) = self.inputs.done.recv().await? {
                mining.come_home(trained.miner);
            }
        }
        mining.retire()
    }

    fn publish(&self) {
        self.reports.publish(&self.engine, &self.context.network, self.states.root(), self.identity.uid());
    }

    // ---- what happens ---------------------------------------------------------------------------------------------

    fn on_heads(&mut self) -> Vec<Event> {
        let heads = *self.inputs.heads.borrow_and_update();
        self.reports.saw(heads);
        vec![Event::Heads { best: heads.best, finalised: heads.finalised }]
    }

    fn on_heard(&mut self, heard: Heard) -> Vec<Event> {
        match heard {
            Heard::Announcement(announcement) => self.gather(gather::Event::Announced(*announcement)),
            Heard::PeersChanged => Vec::new(),
        }
    }

    fn gather(&mut self, event: gather::Event<covey_gossip::PeerKey, Received>) -> Vec<Event> {
        let to_do = self.gathering.handle(&self.engine, event);
        self.start_gathering(to_do)
    }

    /// Starts what the gatherer wants; gives what it has for the state machine.
    fn start_gathering(&mut self, to_do: ToDo) -> Vec<Event> {
        for work in to_do.work {
            let context = self.context.clone();
            match work {
                Work::Remember { round, uid, bytes } => context.network.remember(round, uid, bytes),
                Work::Fetch(job) => drop(self.jobs.spawn(async move {
                    let (fetched, took) = gathering::fetch(context, *job).await;
                    Done::Fetched(fetched, took)
                })),
                Work::Pull { round, have } => {
                    drop(self.jobs.spawn(async move { Done::Pulled(gathering::pull(context, round, have).await) }))
                }
                Work::Ban(peer) => self.jobs.spawn_silent(async move { context.network.clone().ban(peer).await }),
            }
        }
        to_do.events
    }

    /// Takes a job's result in; gives the events that it is for the state machine.
    fn on_done(&mut self, done: Done) -> Result<Vec<Event>, Halt> {
        let event = match done {
            Done::View(Ok(view)) => self.on_view(view),
            Done::View(Err(block)) => Event::NoView(block),
            Done::Trained(trained) => self.on_trained(*trained),
            Done::Sent(round) => Event::Sent(round),
            Done::Fetched(fetched, took) => {
                self.reports.spent("check", took);
                let to_do = self.gathering.on_fetched(&self.context.name, &self.engine, fetched);
                return Ok(self.start_gathering(to_do));
            }
            Done::Pulled(pulled) => {
                let to_do = self.gathering.on_pulled(&self.engine, pulled);
                return Ok(self.start_gathering(to_do));
            }
            Done::Applying(Progress::Starving(round)) => Event::Starving(round),
            // A starved round that came through after the node had to rejoin is an old one.
            Done::Applying(Progress::Stepped { round, parent, .. }) if !self.is_due(round, parent) => {
                return Ok(Vec::new());
            }
            Done::Applying(Progress::Stepped { round, parameters, .. }) => {
                self.states.step(round, parameters);
                Event::Stepped(round)
            }
            Done::Applied(settled) if !self.is_due(settled.settlement.round, settled.settlement.parent) => {
                return Ok(Vec::new());
            }
            Done::Applied(settled) => self.on_applied(*settled),
            Done::Given(state) => {
                self.genesis = None;
                // A later one may have come before it.
                if self.states.is_empty() {
                    self.states.stand_at(*state);
                }
                Event::Given
            }
            Done::CaughtUp(caught_up) => self.on_caught_up(*caught_up),
            Done::ToScore(Ok(job)) => return Ok(self.score(*job)),
            Done::ToScore(Err(round)) => Event::Scored(round),
            Done::Scored(scored) => {
                self.reports.spent("score", scored.took);
                if let Some(validating) = &mut self.validating {
                    validating.come_home(scored.validator);
                }
                self.start_scoring();
                Event::Scored(scored.round)
            }
            Done::Fatal(why) => return Err(Halt(why)),
        };
        Ok(vec![event])
    }

    /// Whether a round that was settled on `parent` follows the node's tip.
    fn is_due(&self, round: Round, parent: Digest) -> bool {
        let tip = self.engine.tip();
        self.engine.is_live() && round == tip.next() && parent == tip.head
    }

    fn on_view(&mut self, view: ChainView) -> Event {
        let view = Arc::new(view);
        self.identity.on_view(&self.context, &view);
        self.context.network.set_members(view.clone());
        Event::View(view)
    }

    fn on_trained(&mut self, trained: Trained) -> Event {
        let Trained { round, miner, made } = trained;
        if let Some(mining) = &mut self.mining {
            mining.come_home(miner);
        }
        self.start_training();
        if let Some(made) = &made {
            self.reports.trained(made.report, made.times);
        }
        Event::Trained(round, made.map(|made| made.manifest))
    }

    fn on_applied(&mut self, settled: Settled) -> Event {
        let Settled { state, settlement, took } = settled;
        let (round, tip, root) = (settlement.round, state.sealed.tip, state.sealed.root);
        self.reports.spent("apply", took);
        let offered = self.gathering.offered(round);
        self.reports.applied(
            &self.context.name,
            Applied {
                round,
                head: tip.head,
                root,
                chosen: settlement.chosen,
                offered,
                void: settlement.void.map(|reason| reason.to_string()),
            },
        );
        self.states.seal(state);
        Event::Applied(round, tip.head)
    }

    fn on_caught_up(&mut self, caught_up: CaughtUp) -> Event {
        let tip = caught_up.state.sealed.tip;
        if let Some(mining) = self.mining.as_mut().filter(|_| caught_up.by_state && tip.round.is_some()) {
            mining.forget();
        }
        self.states.stand_at(caught_up.state);
        self.genesis.take().inspect(AbortHandle::abort);
        Event::Joined(tip)
    }

    // ---- what the state machine says ------------------------------------------------------------------------------

    /// Hands what the state machine says to whoever does it; gives what that says to the state machine at once.
    fn perform(&mut self, action: Action) -> Result<Vec<Event>, Halt> {
        let context = self.context.clone();
        match action {
            Action::Read(block) => drop(self.jobs.spawn(reading::read(context, block))),
            Action::Join { round, head } => self.join(Tip { round, head }),
            Action::Train(task) => self.train(task),
            Action::StopTraining(_) => self.stop_training(),
            Action::Commit(round, _) => self.send(round, mining::commit(context, round)),
            Action::Announce(round) => self.send(round, mining::announce(context, round)),
            Action::Collect(collection) => return Ok(self.collect(collection)),
            Action::Vote { round, head, held } => self.vote(round, head, held),
            Action::Apply(settlement) => self.apply(settlement),
            Action::Score(collection) => self.open_for_scoring(collection),
            Action::Diverged { round, mine, agreed } => self.on_divergence(round, mine, agreed),
            Action::Halt(halt) => return Err(Halt(halt.to_string())),
        }
        Ok(Vec::new())
    }

    fn send(&mut self, round: Round, sending: impl Future<Output = ()> + Send + 'static) {
        self.jobs.spawn(async move {
            sending.await;
            Done::Sent(round)
        });
    }

    fn train(&mut self, task: Task) {
        let base = match task.base {
            Some(head) => self.states.base(head).map(TrainBase::Sealed),
            None => self.states.headless(task.round.previous()).map(|(theta, head)| TrainBase::Headless(theta, head)),
        };
        let Some(mining) = &mut self.mining else { return };
        let (cancel, life) = (Cancel::default(), self.jobs.life());
        if let Some(replaced) = mining.train(TrainJob { task, base, cancel, life, forget: false }) {
            tracing::warn!(node = %self.context.name, round = %replaced.task.round, "never trained: the miner was busy");
        }
        self.start_training();
    }

    fn stop_training(&self) {
        if let Some(mining) = &self.mining {
            mining.stop();
        }
    }

    fn start_training(&mut self) {
        if let Some((miner, job)) = self.mining.as_mut().and_then(Mining::start) {
            let training = mining::train(self.context.clone(), miner, job);
            self.jobs.spawn(async move { Done::Trained(Box::new(training.await)) });
        }
    }

    fn collect(&mut self, collection: Arc<Collection>) -> Vec<Event> {
        let journal = self.context.journal.read();
        let mine = journal.contribution.filter(|made| made.round == collection.round).map(|made| made.manifest);
        let to_do = self.gathering.open(&self.engine, collection, mine);
        self.start_gathering(to_do)
    }

    fn vote(&mut self, round: Round, head: Digest, held: UidSet) {
        let (Some(validating), Some(collection)) = (&self.validating, self.gathering.collection()) else {
            return self.jobs.say(Done::Sent(round));
        };
        let most = self.context.run.electorate.contributions_max;
        let ballot = validating.ballot(self.context.run_id, most, collection, held);
        let voting = validating::vote(self.context.clone(), Vote { round, head, ballot });
        self.jobs.spawn(async move {
            match voting.await {
                Ok(()) => Done::Sent(round),
                Err(error) => Done::Fatal(format!("no vote in round {round}: {error}")),
            }
        });
    }

    fn apply(&mut self, settlement: Settlement) {
        let round = settlement.round;
        self.applying.chosen = settlement.chosen.iter().map(|(uid, _)| *uid).collect();
        let Some(before) = self.states.take(settlement.parent) else {
            return self.jobs.say(Done::Fatal(format!("round {round} cannot be applied: its base is not known")));
        };
        // A round that was opened again is applied from what is settled now, not twice.
        self.applying.stop();
        self.applying.cancel = Cancel::default();
        let cancel = self.applying.cancel.clone();
        let job = ApplyJob { before, settlement, held: self.gathering.held(round), cancel };
        let applying = applying::apply(self.context.clone(), job, self.jobs.sender());
        self.applying.task = Some(self.jobs.spawn(async move {
            match applying.await {
                Ok(settled) => Done::Applied(Box::new(settled)),
                Err(error) => Done::Fatal(format!("round {round} cannot be applied: {error}")),
            }
        }));
    }

    fn join(&mut self, target: Tip) {
        // Whatever was being applied is another round's now.
        self.applying.stop();
        self.states.forget_headless();
        let heads: Vec<Digest> = self.states.all().iter().map(|sealed| sealed.tip.head).collect();
        let mine = heads.into_iter().filter_map(|head| self.states.take(head)).collect();
        let joining = catching_up::join(self.context.clone(), mine, target);
        self.jobs.spawn(async move {
            match joining.await {
                Ok(caught_up) => Done::CaughtUp(Box::new(caught_up)),
                Err(error) => Done::Fatal(format!("cannot catch up: {error}")),
            }
        });
    }

    /// Has the state that a round is scored from opened before the disk lets go of it.
    fn open_for_scoring(&mut self, collection: Arc<Collection>) {
        let (round, before) = (collection.round, self.states.of_head(collection.base));
        let (Some(before), true) = (before, self.validating.is_some()) else {
            return self.jobs.say(Done::ToScore(Err(round)));
        };
        let (context, held, chosen) = (self.context.clone(), self.gathering.held(round), self.applying.chosen);
        let life = self.jobs.life();
        self.jobs.spawn(async move {
            let why = match validating::open(&context, before).await {
                Ok(Some(before)) => {
                    return Done::ToScore(Ok(Box::new(ScoreJob { collection, before, held, chosen, life })));
                }
                Ok(None) => "its base is not on the disk".to_owned(),
                Err(error) => error.to_string(),
            };
            tracing::error!(node = %context.name, %round, why, "not scored");
            Done::ToScore(Err(round))
        });
    }

    fn score(&mut self, job: ScoreJob) -> Vec<Event> {
        let skipped = self.validating.as_mut().and_then(|validating| validating.score(job));
        if let Some(round) = skipped {
            tracing::warn!(node = %self.context.name, %round, "never scored: too many rounds wait for it");
        }
        self.start_scoring();
        skipped.map(Event::Scored).into_iter().collect()
    }

    fn start_scoring(&mut self) {
        if let Some((validator, job)) = self.validating.as_mut().and_then(Validating::start) {
            let scoring = validating::score(self.context.clone(), validator, job);
            self.jobs.spawn(async move { Done::Scored(Box::new(scoring.await)) });
        }
    }

    /// Says so, and keeps the evidence: the header and state manifest that nobody else has stay in the store, since a
    /// person may want to compare.
    fn on_divergence(&mut self, round: Round, mine: Digest, agreed: Digest) {
        let node = self.context.name.clone();
        tracing::error!(%node, %round, %mine, %agreed, "the electorate has another head: resynchronising");
        let Some(root) = self.states.of_head(mine).map(|sealed| sealed.root) else { return };
        let store = self.context.network.store().clone();
        self.jobs.spawn_silent(async move {
            let pin = move || store.pin(&format!("fork-{round}"), &[mine, root]);
            if let Err(error) = off_the_queue(pin).await {
                tracing::warn!(%node, %round, %error, "the evidence of a fork is not kept");
            }
        });
    }
}
