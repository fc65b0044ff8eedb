//! The loop of a node: what happens goes into the state machine, what it says is done. Nothing here takes time: tasks do.

use super::apply::State;
use super::collect::{Collector, Incoming};
use super::context::RECORD_BLOCKS;
use super::status::Applied;
use super::submitting::last_vote;
use super::tasks::{self, Done};
use super::{Headless, Peer, Status, agreement, validator};
use crate::chain::Ledger;
use crate::compute::Cancel;
use covey_proto::chain::ChainView;
use covey_proto::record::{UidSet, Vote};
use covey_proto::{BlockNumber, Digest, Round, Uid};
use covey_round::engine::{Action, Collection, Event, Settlement, Task, Tip};
use covey_round::rating::PeerKey;
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// States kept in memory: the newest, and the one before it to compare with a majority's.
const STATES_KEPT: usize = 2;

/// Why a node's loop ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// A person must look at it.
    Halted(String),
}

/// Returns when somebody says stop, or nobody can any more.
async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

impl<L: Ledger> Peer<L> {
    /// Runs until `stop` says so, or until a person must decide something.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Ended {
        let mut heads = self.context.ledger.heads();
        heads.mark_changed();
        let mut actions = Vec::new();
        loop {
            let event = tokio::select! {
                biased;
                () = told_to_stop(&mut stop) => return self.leave().await,
                Some(done) = self.done.recv() => match self.on_done(done) {
                    Ok(event) => event,
                    Err(why) => return self.halt(why),
                },
                changed = heads.changed() => match changed {
                    Ok(()) => Some(self.on_heads(*heads.borrow_and_update())),
                    Err(_) => return self.halt("the chain is gone".into()),
                },
                event = self.network_events.next() => match event {
                    Some(event) => {
                        self.on_network(event);
                        None
                    }
                    None => return self.halt("the network ended and could not be rebuilt".into()),
                },
            };
            let Some(event) = event else { continue };
            self.engine.handle(event, &mut actions);
            for action in actions.drain(..) {
                if let Some(why) = self.perform(action) {
                    return self.halt(why);
                }
            }
            self.publish();
            while self.running.try_join_next().is_some() {}
        }
    }

    /// Stops where it stands, with the reason: what is on disk is whole.
    fn halt(self, why: String) -> Ended {
        tracing::error!(node = %self.context.name, "halted: {why}");
        self.training.cancel();
        self.status.send_modify(|status| {
            status.live = false;
            status.halted = Some(why.clone());
        });
        Ended::Halted(why)
    }

    async fn leave(self) -> Ended {
        self.training.cancel();
        self.context.network.clone().shutdown().await;
        Ended::Stopped
    }

    fn publish(&self) {
        let network = &self.context.network;
        let (tip, engine) = (self.engine.tip(), &self.engine);
        self.status.send_modify(|status: &mut Status| {
            status.idle = engine.is_idle();
            status.live = engine.is_live();
            status.round = engine.round();
            status.due = tip.next();
            status.head = tip.head;
            status.root = self.states.last().map_or(Digest::ZERO, |state| state.root);
            status.phase = engine.phase();
            status.uid = self.uid;
            status.peers = network.peers().len();
            status.traffic = network.traffic();
        });
    }

    fn on_heads(&mut self, heads: crate::chain::Heads) -> Event {
        self.status.send_modify(|status| {
            status.seen = heads.best;
            status.finalised = heads.finalised;
            // Not idle until the state machine has said so for this block.
            status.idle = false;
        });
        Event::Heads { best: heads.best, finalised: heads.finalised }
    }

    // ---- what the state machine says ------------------------------------------------------------------------------

    /// Does what the state machine says; gives the reason if it says to stop.
    fn perform(&mut self, action: Action) -> Option<String> {
        match action {
            Action::Read(block) => self.spawn(tasks::read(self.context.clone(), block)),
            Action::Join { round, head } => {
                // Whatever was being applied is another round's now.
                self.applying.take().inspect(AbortHandle::abort);
                self.headless = None;
                self.join(Tip { round, head });
            }
            Action::Train(task) => self.train(task),
            Action::StopTraining(_) => self.training.cancel(),
            Action::Commit(round, _) => match self.context.journal.read().contribution {
                Some(journalled) => self.spawn(tasks::commit(self.context.clone(), round, journalled)),
                None => self.spawn(std::future::ready(Done::Sent(round))),
            },
            Action::Announce(round) => self.spawn(tasks::announce(self.context.clone(), round)),
            Action::Collect(collection) => self.collect(Collector::new(collection)),
            Action::Vote { round, head, held } => self.vote(round, head, held),
            Action::Apply(settlement) => self.apply(settlement),
            Action::Score(collection) => self.score(collection),
            Action::Diverged { round, mine, agreed } => {
                let node = &self.context.name;
                tracing::error!(%node, %round, %mine, %agreed, "the electorate has another head: resynchronising");
                self.keep_evidence(round, mine);
            }
            Action::Halt(halt) => return Some(halt.to_string()),
        }
        None
    }

    /// Runs a task beside the loop; it ends with the node. One that breaks stops the node: a person must look at it.
    pub(super) fn spawn(&mut self, task: impl Future<Output = Done> + Send + 'static) {
        let _ = self.start_task(task);
    }

    fn start_task(&mut self, task: impl Future<Output = Done> + Send + 'static) -> AbortHandle {
        let tasks = self.tasks.clone();
        self.running.spawn(async move {
            let broken = |_| Done::Fatal("a task of the node broke: its log has the panic".into());
            let done = AssertUnwindSafe(task).catch_unwind().await.unwrap_or_else(broken);
            // The loop is gone only when the node is.
            let _ = tasks.send(done).await;
        })
    }

    /// The state with this head. Without it the node has been joining meanwhile: the state machine will ask again.
    fn state_at(&self, head: Digest) -> Option<&State> {
        let found = self.states.iter().find(|state| state.tip.head == head);
        if found.is_none() {
            tracing::error!(node = %self.context.name, %head, "no state of this head in memory");
        }
        found
    }

    fn train(&mut self, task: Task) {
        let (Some(miner), Some((theta, base))) = (self.miner.clone(), self.base_of(&task)) else {
            return self.spawn(std::future::ready(Done::Trained { round: task.round, made: None }));
        };
        self.training = Cancel::default();
        let job = tasks::TrainJob { task, theta, base, life: self.life.0.clone() };
        self.spawn(tasks::train(self.context.clone(), miner, job, self.training.clone()));
    }

    /// The parameters that a task starts from, and where their head is told.
    fn base_of(&self, task: &Task) -> Option<(Arc<Vec<f32>>, tasks::Head)> {
        match (task.base, &self.headless) {
            (Some(head), _) => {
                Some((self.state_at(head)?.parameters.clone(), watch::Sender::new(Some(head)).subscribe()))
            }
            (None, Some(base)) if base.round.next() == task.round => {
                Some((base.parameters.clone(), base.head.subscribe()))
            }
            (None, _) => {
                tracing::error!(node = %self.context.name, round = %task.round, "no parameters to train from in memory");
                None
            }
        }
    }

    fn score(&mut self, collection: Collection) {
        let (Some(validator), Some(before)) = (&self.validator, self.state_at(collection.base)) else {
            let nothing = Done::Scored { round: collection.round, took: Duration::ZERO, ratings: None };
            return self.spawn(std::future::ready(nothing));
        };
        let held = self.collector.as_ref().map(|collector| collector.held.clone()).unwrap_or_default();
        let (validator, before, chosen) = (validator.clone(), before.clone(), self.chosen);
        let job = tasks::ScoreJob { collection, before, held, chosen, life: self.life.0.clone() };
        self.spawn(tasks::score(self.context.clone(), validator, job));
    }

    fn join(&mut self, target: Tip) {
        self.spawn(tasks::join(self.context.clone(), self.states.clone(), target));
    }

    fn vote(&mut self, round: Round, head: Digest, held: UidSet) {
        let (Some(ratings), Some(collector)) = (&self.ratings, &self.collector) else {
            return self.spawn(std::future::ready(Done::Sent(round)));
        };
        let ballot = validator::ballot_of(&self.context, ratings, &collector.collection, held);
        let mut vote = Vote { round, head, ballot };
        // Voted before a crash: those bytes are pinned, and what has been collected since may be less.
        if let Some(last) = last_vote(&self.context.journal.read())
            && (last.round, last.head) == (round, head)
        {
            vote = last;
        }
        self.spawn(tasks::vote(self.context.clone(), vote));
    }

    fn apply(&mut self, settlement: Settlement) {
        self.chosen = settlement.chosen.iter().map(|(uid, _)| *uid).collect();
        let Some(before) = self.state_at(settlement.parent).cloned() else {
            let why = format!("round {} cannot be applied: its base is not in memory", settlement.round);
            return self.spawn(std::future::ready(Done::Fatal(why)));
        };
        let held = self.collector.as_ref().map(|collector| collector.held.clone()).unwrap_or_default();
        let offered = self.offered();
        // A round that was opened again is applied from what is settled now, not twice.
        self.applying.take().inspect(AbortHandle::abort);
        let apply = tasks::ApplyJob { before, settlement, held, offered, tasks: self.tasks.clone() };
        self.applying = Some(self.start_task(tasks::apply(self.context.clone(), apply)));
    }

    fn offered(&self) -> Vec<Uid> {
        self.collector
            .as_ref()
            .map(|collector| collector.collection.offered.keys().copied().collect())
            .unwrap_or_default()
    }

    fn on_network(&mut self, event: covey_gossip::Event) {
        use covey_gossip::Event as Network;
        match event {
            Network::Announcement { bytes, from, ticket } => {
                self.on_announcement(Incoming { bytes, from, ticket: Some(ticket) });
            }
            Network::NetworkRestarted => tracing::error!(node = %self.context.name, "the network task was restarted"),
            _ => self.publish(),
        }
    }

    // ---- what tasks have done -----------------------------------------------------------------------------------------

    /// Takes a result in; gives the event that it is for the state machine, if it is one, or the reason to stop.
    fn on_done(&mut self, done: Done) -> Result<Option<Event>, String> {
        Ok(match done {
            Done::View(Ok(view)) => Some(self.on_view(view)),
            Done::View(Err(block)) => Some(Event::NoView(block)),
            Done::Trained { round, made } => {
                let manifest = made.map(|made| self.on_made(*made));
                Some(Event::Trained(round, manifest))
            }
            Done::Sent(round) => Some(Event::Sent(round)),
            Done::Collected { round, uid, found, took } => {
                self.status.send_modify(|status| status.seconds.add("check", took));
                self.on_collected(round, uid, found)
            }
            Done::PullDue(round) => {
                self.pull_what_is_missing(round);
                None
            }
            Done::Pulled { round, announcements } => {
                self.on_pulled(round, announcements);
                None
            }
            Done::Patience(round) => Some(Event::PatienceOver(round)),
            // A starved round that came through after the node had to rejoin is an old one.
            Done::Stepped(stepped) if !self.is_due(stepped.round, stepped.parent) => None,
            Done::Stepped(tasks::Stepped { round, parameters, .. }) => {
                self.headless = Some(Headless { round, parameters, head: watch::Sender::new(None) });
                Some(Event::Stepped(round))
            }
            Done::Applied(applied) if !self.is_due(applied.settlement.round, applied.settlement.parent) => None,
            Done::Applied(applied) => Some(self.on_applied(*applied)),
            Done::Joined(caught) => Some(self.on_caught(*caught)),
            Done::Scored { round, took, ratings } => {
                self.ratings = ratings.or(self.ratings.take());
                self.status.send_modify(|status| status.seconds.add("score", took));
                Some(Event::Scored(round))
            }
            Done::Fatal(why) => return Err(why),
        })
    }

    /// Whether a round that was settled on `parent` follows the node's tip.
    fn is_due(&self, round: Round, parent: Digest) -> bool {
        let tip = self.engine.tip();
        self.engine.is_live() && round == tip.next() && parent == tip.head
    }

    fn on_view(&mut self, view: ChainView) -> Event {
        let view = Arc::new(view);
        let hotkey = self.context.hotkey();
        let member = hotkey.and_then(|hotkey| view.member(&hotkey).copied());
        self.uid = member.map(|member| member.uid);
        if let Some(hotkey) = hotkey.filter(|_| self.is_stranger == member.is_some()) {
            self.is_stranger = member.is_none();
            let (node, netuid) = (&self.context.name, self.context.run.chain.netuid);
            match &member {
                Some(member) => {
                    tracing::info!(%node, uid = %member.uid, "registered: taking part from the next round on")
                }
                None => tracing::error!(
                    %node,
                    "hotkey {hotkey} is not registered on subnet {netuid}: run `covey register`; following meanwhile"
                ),
            }
        }
        if let Some(member) = member {
            let who = PeerKey::from(&member);
            let is_stale = |(known, at): (PeerKey, BlockNumber)| {
                known != who || view.block.0.saturating_sub(at.0) > RECORD_BLOCKS / 2
            };
            if self.introduced.is_none_or(is_stale) {
                self.introduced = Some((who, view.block));
                self.context.introduce(&member, view.block);
            }
        }
        self.context.network.set_members(view.clone());
        self.compare_runs(&view);
        Event::View(view)
    }

    /// Says once of each run that most members are in it and this node is not.
    fn compare_runs(&mut self, view: &ChainView) {
        if let Some(found) = agreement::outnumbered(view, &self.context.run, self.context.run_id)
            && self.outnumbered_by != Some(found.other)
        {
            self.outnumbered_by = Some(found.other);
            tracing::error!(node = %self.context.name, "{found}");
        }
    }

    fn on_made(&mut self, made: tasks::Journalled) -> Digest {
        self.status.send_modify(|status| {
            status.loss = Some(made.report.loss_mean);
            status.tokens += made.report.tokens;
            status.tokens_per_second = made.report.tokens as f64 / made.times[0].as_secs_f64().max(1e-9);
            status.contributed += 1;
            status.seconds.add("train", made.times[0]);
            status.seconds.add("compress", made.times[1]);
        });
        made.manifest
    }

    fn on_applied(&mut self, applied: tasks::Settled) -> Event {
        let tasks::Settled { state, settlement, offered, took } = applied;
        let round = settlement.round;
        self.status.send_modify(|status| status.seconds.add("apply", took));
        if let Some(observer) = &self.observer {
            let told = observer.try_send(Applied {
                round,
                head: state.tip.head,
                root: state.root,
                chosen: settlement.chosen,
                offered,
                void: settlement.void.map(|reason| reason.to_string()),
            });
            if told.is_err() {
                tracing::warn!(node = %self.context.name, %round, "nobody takes the report of this round");
            }
        }
        let head = state.tip.head;
        self.push_state(state);
        // Nobody may train from them: then nobody hears it.
        if let Some(base) = self.headless.take() {
            base.head.send_replace(Some(head));
        }
        Event::Applied(round, head)
    }

    fn on_caught(&mut self, caught: super::catchup::Caught) -> Event {
        let tip = caught.state.tip;
        if caught.by_state && tip.round.is_some() {
            // The miner may be busy for seconds; it looks before it trains again.
            self.context.forget.store(true, Ordering::Release);
        }
        tracing::info!(node = %self.context.name, round = ?tip.round, head = %tip.head, "caught up");
        if let Err(error) = self.context.disk.forget_states_after(&tip) {
            tracing::error!(node = %self.context.name, %error, "old states stay");
        }
        self.say_what_differed(&caught.state);
        self.states.retain(|state| state.tip.round < tip.round);
        self.push_state(caught.state);
        Event::Joined(tip)
    }

    /// The header and state manifest that nobody else has stay in the store: a person may want to compare.
    fn keep_evidence(&mut self, round: Round, mine: Digest) {
        let Some(root) = self.state_at(mine).map(|state| state.root) else { return };
        let (store, node) = (self.context.network.store().clone(), self.context.name.clone());
        self.running.spawn_blocking(move || {
            if let Err(error) = store.pin(&format!("fork-{round}"), &[mine, root]) {
                tracing::warn!(%node, %round, %error, "the evidence of a fork is not kept");
            }
        });
    }

    /// Says where this node's state of a round was another than the one it has caught up to.
    fn say_what_differed(&self, caught: &State) {
        let mine = self.states.iter().find(|state| state.tip.round == caught.tip.round && state.root != caught.root);
        let Some(mine) = mine else { return };
        let pairs = mine.parameters.iter().zip(caught.parameters.iter());
        let differs = pairs.map(|(a, b)| a.to_bits() != b.to_bits()).enumerate().find(|(_, differs)| *differs);
        let Some((element, _)) = differs else { return };
        let tensors = self.context.layout.tensors();
        let tensor = tensors.iter().find(|tensor| tensor.range().contains(&element)).map(|tensor| &tensor.name);
        let (node, was, is) = (&self.context.name, mine.root, caught.root);
        tracing::error!(
            %node, %was, %is, element, ?tensor,
            "computed again, my state is the electorate's: this machine computed wrong once, test its memory"
        );
    }

    fn push_state(&mut self, state: State) {
        self.states.push(state);
        let spare = self.states.len().saturating_sub(STATES_KEPT);
        self.states.drain(..spare);
    }
}
