//! The loop of a node: what happens goes into the state machine, what it says is done. Nothing here takes time: tasks do.

use super::apply::State;
use super::collect::{Collector, Inbox, Incoming, Ruling, verdict};
use super::compute::Cancel;
use super::status::Applied;
use super::tasks::{self, Done};
use super::{Peer, Status};
use crate::chain::Ledger;
use covey_gossip::Verdict;
use covey_proto::chain::{ChainView, Member};
use covey_proto::record::{Record, Vote};
use covey_proto::{BlockNumber, Uid};
use covey_round::engine::{Action, Event, Settlement, Task, Tip};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// States kept in memory: the newest, and the one before it to compare with a majority's.
const STATES_KEPT: usize = 2;

/// Blocks after which a peer record is signed anew: half of its life.
const RECORD_RENEW: u32 = 3600;

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
                Ok(()) = heads.changed() => Some(self.on_heads(*heads.borrow_and_update())),
                Some(event) = self.network_events.next() => {
                    self.on_network(event);
                    None
                }
                else => return Ended::Halted("the chain and the network are gone".into()),
            };
            let Some(event) = event else { continue };
            self.engine.handle(event, &mut actions);
            for action in actions.drain(..) {
                if let Some(why) = self.perform(action) {
                    return self.halt(why);
                }
            }
            self.publish();
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
            status.round = tip.next();
            status.phase = engine.phase();
            status.uid = self.uid;
            status.peers = network.peers().len();
            status.traffic = network.traffic();
        });
    }

    fn on_heads(&mut self, heads: crate::chain::Heads) -> Event {
        self.status.send_modify(|status| {
            status.seen = heads.best;
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
            Action::Join { round, head } => self.join(Tip { round, head }),
            Action::Train(task) => self.train(task),
            Action::StopTraining(_) => self.training.cancel(),
            Action::Commit(round, _) => {
                if let Some(journalled) = self.context.journal.read().contribution {
                    self.spawn(tasks::commit(self.context.clone(), round, journalled));
                }
            }
            Action::Announce(round) => self.spawn(tasks::announce(self.context.clone(), round)),
            Action::Collect(collection) => self.collect(Collector::new(collection)),
            Action::Vote { round, head, held } => self.vote(round, head, held),
            Action::Apply(settlement) => self.apply(settlement),
            Action::Score(collection) => {
                if let (Some(validator), Some(before)) = (&self.validator, self.states.last()) {
                    let held = self.collector.as_ref().map(|collector| collector.held.clone()).unwrap_or_default();
                    let job = tasks::ScoreJob { collection, before: before.clone(), held };
                    self.spawn(tasks::score(self.context.clone(), validator.clone(), job, self.life.0.clone()));
                }
            }
            Action::Diverged { round, mine, agreed } => {
                let node = &self.context.name;
                tracing::error!(%node, %round, %mine, %agreed, "the electorate has another head: resynchronising");
            }
            Action::Halt(halt) => return Some(halt.to_string()),
        }
        None
    }

    fn spawn(&self, task: impl Future<Output = Done> + Send + 'static) {
        let tasks = self.tasks.clone();
        tokio::spawn(async move {
            let done = task.await;
            // The loop is gone only when the node is.
            let _ = tasks.send(done).await;
        });
    }

    fn train(&mut self, task: Task) {
        let (Some(miner), Some(state)) = (&self.miner, self.states.last()) else { return };
        self.training = Cancel::default();
        let job = tasks::TrainJob { task, theta: state.parameters.clone(), life: self.life.0.clone() };
        self.spawn(tasks::train(self.context.clone(), miner.clone(), job, self.training.clone()));
    }

    fn join(&mut self, target: Tip) {
        self.spawn(tasks::join(self.context.clone(), self.states.clone(), target));
    }

    fn vote(&mut self, round: covey_proto::Round, head: covey_proto::Digest, held: covey_proto::record::UidSet) {
        let (Some(validator), Some(collector)) = (&self.validator, &self.collector) else { return };
        let ballot = {
            let validator = validator.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            validator.ballot(&self.context, &collector.collection, held)
        };
        let mut record = Record::of(self.context.run_id);
        record.vote = Some(Vote { round, head, ballot });
        self.spawn(tasks::vote(self.context.clone(), round, record));
    }

    fn apply(&mut self, settlement: Settlement) {
        let Some(before) = self.states.last().cloned() else { return };
        let held = self.collector.as_ref().map(|collector| collector.held.clone()).unwrap_or_default();
        let offered = self.offered();
        let apply = tasks::ApplyJob { before, settlement, held, offered, tasks: self.tasks.clone() };
        self.spawn(tasks::apply(self.context.clone(), apply));
    }

    fn offered(&self) -> Vec<Uid> {
        self.collector
            .as_ref()
            .map(|collector| collector.collection.offered.keys().copied().collect())
            .unwrap_or_default()
    }

    // ---- collecting -------------------------------------------------------------------------------------------------

    fn collect(&mut self, collector: Collector) {
        let round = collector.collection.round;
        let journal = self.context.journal.read();
        let mine = journal.contribution.filter(|made| made.round == round).map(|made| made.manifest);
        self.collector = Some(collector);
        self.take_my_own(mine);
        for (mut incoming, late) in self.inbox.take(Instant::now()) {
            if late {
                self.judge(&mut incoming, Verdict::Ignore);
            } else {
                self.on_announcement(incoming);
            }
        }
        self.spawn(tasks::patience(self.context.patience, round));
        if self.is_short_of(round) {
            self.spawn(tasks::pull(self.context.clone(), round, self.taken(), Duration::from_secs(1)));
        }
    }

    /// A miner holds its own contribution: it is checked like any other.
    fn take_my_own(&mut self, mine: Option<covey_proto::Digest>) {
        let Some(collector) = &mut self.collector else { return };
        let own = collector.collection.offered.iter().find(|(_, digest)| Some(**digest) == mine);
        if let Some((&uid, &digest)) = own {
            collector.taken.insert(uid);
            let job = tasks::Fetch { collection: collector.collection.clone(), uid, digest, from: None };
            self.spawn(tasks::fetch(self.context.clone(), job));
        }
    }

    fn taken(&self) -> covey_proto::record::UidSet {
        self.collector.as_ref().map(|collector| collector.taken).unwrap_or_default()
    }

    fn is_short_of(&self, round: covey_proto::Round) -> bool {
        self.collector.as_ref().is_some_and(|collector| collector.collection.round == round && collector.is_waiting())
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

    fn on_announcement(&mut self, mut incoming: Incoming) {
        let pulled = incoming.ticket.is_none();
        let (run_id, inline_max) = (self.context.run_id, self.context.run.compress.inline_max);
        let next = self.engine.tip().next();
        let ruling = Inbox::rule(run_id, inline_max, self.collector.as_ref(), next, &incoming);
        if let Some(verdict) = verdict(&ruling) {
            self.judge(&mut incoming, verdict);
        }
        match ruling {
            Ruling::Accept(accepted) => self.accept(*accepted),
            Ruling::Wait => {
                if let Some(mut incoming) = self.inbox.wait(Instant::now(), incoming) {
                    self.judge(&mut incoming, Verdict::Ignore);
                }
            }
            Ruling::Ignore => {}
            Ruling::Reject(blame) => {
                let (node, from) = (&self.context.name, incoming.from);
                tracing::debug!(%node, %from, %blame, pulled, "announcement refused");
                // Gossip has its scores; whoever hands out what nobody committed when asked is refused for a while.
                if pulled {
                    let network = self.context.network.clone();
                    tokio::spawn(async move { network.ban(from).await });
                }
            }
        }
    }

    fn judge(&self, incoming: &mut Incoming, verdict: Verdict) {
        if let Some(ticket) = incoming.ticket.take() {
            self.context.network.judge(ticket, verdict);
        }
    }

    fn accept(&mut self, accepted: super::collect::Accepted) {
        let Some(collector) = &mut self.collector else { return };
        let uid = accepted.announcement.manifest.uid;
        if collector.taken.contains(uid) {
            return;
        }
        collector.taken.insert(uid);
        let collection = collector.collection.clone();
        self.context.network.remember(collection.round, uid, accepted.bytes);
        let job = tasks::Fetch {
            collection,
            uid,
            digest: accepted.digest,
            from: Some((accepted.from, accepted.announcement)),
        };
        self.spawn(tasks::fetch(self.context.clone(), job));
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
            Done::Pulled { round, announcements } => {
                announcements.into_iter().for_each(|incoming| self.on_announcement(incoming));
                if self.is_short_of(round) {
                    self.spawn(tasks::pull(self.context.clone(), round, self.taken(), Duration::from_secs(1)));
                }
                None
            }
            Done::Patience(round) => Some(Event::PatienceOver(round)),
            // A starved round that came through after the node had to rejoin is an old one.
            Done::Applied(applied) if applied.settlement.round != self.engine.tip().next() => None,
            Done::Applied(applied) => Some(self.on_applied(*applied)),
            Done::Joined(caught) => Some(self.on_caught(*caught)),
            Done::Scored { round, took } => {
                self.status.send_modify(|status| status.seconds.add("score", took));
                Some(Event::Scored(round))
            }
            Done::Fatal(why) => return Err(why),
        })
    }

    fn on_view(&mut self, view: ChainView) -> Event {
        let view = Arc::new(view);
        if let Some(member) = self.context.hotkey().and_then(|hotkey| view.member(&hotkey).copied()) {
            self.uid = Some(member.uid);
            let is_due = |(known, at): (Member, BlockNumber)| known != member || at.0 + RECORD_RENEW < view.block.0;
            if self.introduced.is_none_or(is_due) {
                self.introduced = Some((member, view.block));
                self.context.introduce(&member, view.block);
            }
        }
        self.context.network.set_members(view.clone());
        Event::View(view)
    }

    fn on_made(&mut self, made: tasks::Journalled) -> covey_proto::Digest {
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

    fn on_collected(
        &mut self,
        round: covey_proto::Round,
        uid: Uid,
        found: Result<Arc<super::contribution::Contribution>, super::contribution::ObtainError>,
    ) -> Option<Event> {
        let collector = self.collector.as_mut().filter(|collector| collector.collection.round == round)?;
        match found {
            Ok(contribution) => {
                collector.held.insert(uid, contribution);
                Some(Event::Held(round, uid))
            }
            Err(super::contribution::ObtainError::Unfit(why)) => {
                tracing::debug!(node = %self.context.name, %round, %uid, %why, "contribution refused");
                collector.refused.insert(uid);
                Some(Event::Refused(round, uid))
            }
            // Not had in time; whoever holds it may still vote for it.
            Err(why) => {
                tracing::warn!(node = %self.context.name, %round, %uid, %why, "contribution not had");
                None
            }
        }
    }

    fn on_applied(&mut self, applied: tasks::Settled) -> Event {
        let tasks::Settled { state, settlement, offered, took } = applied;
        let round = settlement.round;
        self.status.send_modify(|status| status.seconds.add("apply", took));
        if let Some(observer) = &self.observer {
            let told = observer.try_send(Applied {
                node: self.context.name.clone(),
                round,
                head: state.tip.head,
                root: state.root,
                chosen: settlement.chosen,
                offered,
                void: settlement.void.map(|reason| reason.to_string()),
                parameters: state.parameters.clone(),
            });
            if told.is_err() {
                tracing::warn!(node = %self.context.name, %round, "nobody takes the report of this round");
            }
        }
        let head = state.tip.head;
        self.push_state(state);
        Event::Applied(round, head)
    }

    fn on_caught(&mut self, caught: super::catchup::Caught) -> Event {
        let tip = caught.state.tip;
        if caught.by_state
            && tip.round.is_some()
            && let Some(miner) = &self.miner
        {
            if let Err(error) = miner.lock().unwrap_or_else(std::sync::PoisonError::into_inner).reset(&self.context) {
                tracing::error!(node = %self.context.name, %error, "old error feedback stays");
            }
        }
        tracing::info!(node = %self.context.name, round = ?tip.round, head = %tip.head, "caught up");
        if let Err(error) = self.context.disk.forget_states_after(&tip) {
            tracing::error!(node = %self.context.name, %error, "old states stay");
        }
        self.states.retain(|state| state.tip.round < tip.round);
        self.push_state(caught.state);
        Event::Joined(tip)
    }

    fn push_state(&mut self, state: State) {
        self.states.push(state);
        let spare = self.states.len().saturating_sub(STATES_KEPT);
        self.states.drain(..spare);
    }
}
