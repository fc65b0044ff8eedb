//! One life of the network: the loop that selects an event of the sockets, the handles, the node or the clock, and hands it
//! to whoever owns the state that it is about. What owners want of one another is carried out after each event.

use super::behaviour::{Behaviour, BehaviourEvent, Topics};
use super::connections::{Connections, NewConnection, WayTurn};
use super::effects::{Effect, Effects};
use super::gossip::{self, Gossip, GossipNews};
use super::jobs::Job;
use super::lasting::Network;
use super::lookups::{LookUpMeans, LookUps};
use super::pieces::PieceMeans;
use super::records::Records;
use super::requests::{Purpose, RequestOutcome, Requests, respond};
use super::small_blobs::{FetchMeans, SmallWant};
use super::{look, piece_links};
use crate::announcements::kept::ANSWER_BYTES_MAX;
use crate::announcements::pull::{PullRequests, PullResult, Pulled, Pulls};
use crate::command::Command;
use crate::discovery::DiscoveryEvent;
use crate::event::Event;
use crate::metrics::Gauges;
use crate::peers::PeerKey;
use crate::peers::book::Change;
use crate::small::codec::{Answer, Ask};
use crate::small::fetch::FetchEvent;
use covey_proto::Round;
use covey_proto::message::Request;
use covey_proto::record::UidSet;
use libp2p::futures::StreamExt;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Swarm, identify, ping};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinError;

/// Time between looks at the clock while something is awaited, and while nothing is.
const TICK_BUSY: Duration = Duration::from_millis(20);
const TICK_IDLE: Duration = Duration::from_millis(500);
/// Time between two looks at the connections; the next one is sooner after a peer has left.
const UPKEEP_EACH: Duration = Duration::from_millis(500);
const UPKEEP_AFTER_LOSS: Duration = Duration::from_millis(100);
/// Time between two savings of peers' addresses. The first is soon: a crash in the first minute must not lose the way.
const REMEMBER_EACH: Duration = Duration::from_secs(60);
const REMEMBER_FIRST: Duration = Duration::from_secs(5);
/// Bytes of an answer of announcements beyond the announcements themselves.
const FORM_BYTES_MAX: usize = 64 * 1024;

/// Why the network ends.
pub(super) enum End {
    Shutdown(oneshot::Sender<()>),
    /// Nobody holds a handle any more.
    Abandoned,
}

/// What is done from time to time, and when next.
struct Clock {
    upkeep: Instant,
    remember: Instant,
}

/// The owners of one life's state, and what outlives it.
pub(super) struct Running<'a> {
    net: &'a mut Network,
    swarm: Swarm<Behaviour>,
    connections: Connections,
    requests: Requests,
    pulls: Pulls<oneshot::Sender<Pulled>>,
    gossip: Gossip,
    records: Records,
    lookups: LookUps,
    effects: Effects,
    clock: Clock,
    /// Whoever started this node, until every listener has an address.
    ready: Option<oneshot::Sender<()>>,
}

impl<'a> Running<'a> {
    pub(super) fn new(
        net: &'a mut Network,
        swarm: Swarm<Behaviour>,
        ready: Option<oneshot::Sender<()>>,
    ) -> Running<'a> {
        let (limits, shared, life, now) = (&net.config.limits, &net.shared, net.life, Instant::now());
        let topics = Topics::of(net.config.run);
        Running {
            connections: Connections::new(shared.clone()),
            requests: Requests::new(shared.clone(), limits, life),
            pulls: Pulls::new(limits.pull_peers_max, limits.pull_timeout),
            records: Records::new(shared.clone(), topics.peers.clone(), limits.record_repeat, life),
            gossip: Gossip::new(shared.clone(), topics, limits.gossip_per_peer, life),
            lookups: LookUps::new(shared.clone(), net.config.run, limits.peers_target, now),
            effects: Effects::new(),
            clock: Clock { upkeep: now, remember: now + REMEMBER_FIRST },
            net,
            swarm,
            ready,
        }
    }

    pub(super) async fn run(mut self) -> End {
        self.fetch(FetchEvent::Lost);
        self.net.pieces.resume(&mut PieceMeans { jobs: &mut self.net.jobs, effects: &mut self.effects });
        self.say_ready();
        loop {
            self.carry_out();
            let pieces = &mut self.net.pieces;
            let waiting = !self.net.small.is_idle() || !self.pulls.is_empty() || !pieces.is_idle();
            let due = pieces.next_tick();
            let tick = Instant::now() + if waiting { TICK_BUSY } else { TICK_IDLE };
            let tick = tick.min(self.clock.upkeep.max(Instant::now()));
            let (mail, links) = (&mut self.net.mail, &mut pieces.links);
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm(event),
                command = mail.commands.recv() => match command {
                    Some(Command::Shutdown { reply }) => return End::Shutdown(reply),
                    Some(command) => self.on_command(command),
                    None => return End::Abandoned,
                },
                Some(judgement) = mail.verdicts.recv() => {
                    self.gossip.judged(&mut self.swarm.behaviour_mut().gossip, judgement);
                }
                Some(batch) = links.reports.recv() => {
                    let mut out = PieceMeans { jobs: &mut self.net.jobs, effects: &mut self.effects };
                    self.net.pieces.reported(batch, &mut out);
                }
                Some((peer, open)) = links.opens.recv() => self.swarm.behaviour_mut().links.open(peer, open),
                Some(ended) = links.tasks.join_next(), if !links.tasks.is_empty() => piece_links::log(ended),
                () = piece_links::until(due) => {
                    let mut out = PieceMeans { jobs: &mut self.net.jobs, effects: &mut self.effects };
                    self.net.pieces.schedule_tick(&mut out);
                }
                Some(job) = self.net.jobs.join_next(), if !self.net.jobs.is_empty() => self.on_job(job),
                () = self.net.shared.bell.rings() => self.on_bell(),
                () = tokio::time::sleep_until(tick.into()) => self.on_tick(),
            }
        }
    }

    // ---- the sockets

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::NewListenAddr { listener_id, address } => {
                self.net.listeners.listening(listener_id, address, &mut self.swarm);
                self.say_ready();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => self.net.listeners.expired(&address),
            SwarmEvent::ListenerClosed { addresses, reason: Err(error), .. } => {
                tracing::error!(?addresses, %error, "no longer listening");
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                let peer = PeerKey::of(peer_id);
                let made = self.connections.established(peer, connection_id, &endpoint, Instant::now());
                self.on_established(peer, connection_id, made);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
                tracing::debug!(%peer_id, left = num_established, cause = cause.map(|cause| cause.to_string()), "closed");
                self.on_closed(PeerKey::of(peer_id), connection_id, num_established == 0);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                tracing::debug!(%error, "a dial failed");
                if let Some(peer) = self.net.dialling.failed(&connection_id, self.connections.peers()) {
                    self.discover(DiscoveryEvent::DialFailed { peer });
                }
            }
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gossip(event) => {
                let (behaviour, records) = (&mut self.swarm.behaviour_mut().gossip, &mut self.records);
                match self.gossip.on_event(behaviour, event, records, &self.net.mail) {
                    GossipNews::None => {}
                    GossipNews::Record => self.effects.push_back(Effect::UpkeepSoon),
                    GossipNews::Listener => self.records.introduce(behaviour),
                }
            }
            BehaviourEvent::Requests(event) => {
                let (behaviour, jobs) = (&mut self.swarm.behaviour_mut().requests, &mut self.net.jobs);
                if let Some(outcome) = self.requests.on_event(behaviour, event, jobs) {
                    self.on_request(outcome);
                }
            }
            BehaviourEvent::Links(opened) => self.net.pieces.links.serve(opened),
            BehaviourEvent::Ping(ping::Event { connection, result, peer }) => match result {
                Ok(rtt) => {
                    if let Some(seen) = self.net.shared.connected().get_mut(&PeerKey::of(peer)) {
                        seen.rtt = Some(rtt);
                    }
                }
                Err(ping::Failure::Timeout) => drop(self.swarm.close_connection(connection)),
                Err(_) => {}
            },
            // Identify tells others where this node is; what it hears is nobody's proof.
            BehaviourEvent::Identify(identify::Event::Received { connection_id, info, .. }) => {
                let dead = self.connections.identified(&connection_id, &info.agent_version);
                let (lookups, means) = self.reach();
                lookups.identified(connection_id, info, means);
                if let Some(peer) = dead {
                    tracing::debug!(%peer, "the peer was restarted: its old connections are dead");
                    self.effects.push_back(Effect::Disconnect { peer });
                }
            }
            BehaviourEvent::Identify(_) => {}
            BehaviourEvent::Kademlia(found) => {
                let (lookups, means) = self.reach();
                lookups.found(found, means);
            }
        }
    }

    fn on_established(&mut self, peer: PeerKey, id: ConnectionId, made: NewConnection) {
        self.net.dialling.established(&id, peer, made.dialled.as_deref(), made.way);
        if made.first {
            self.net.mail.events.tell(Event::Connected { peer });
            let member = self.net.shared.book().uid_of(&peer).is_some();
            gossip::value(&mut self.swarm.behaviour_mut().gossip, peer, member);
            self.records.show_to(peer, &mut self.effects);
            self.discover(DiscoveryEvent::Connected);
            self.fetch(FetchEvent::Tick);
        }
        if let Some(turn) = made.turn {
            self.turn(peer, turn);
        }
    }

    fn on_closed(&mut self, peer: PeerKey, id: ConnectionId, last: bool) {
        let turn = self.connections.closed(peer, &id, last);
        if last {
            self.discover(DiscoveryEvent::Left { peer });
            self.net.mail.events.tell(Event::Disconnected { peer });
            self.clock.upkeep = self.clock.upkeep.min(Instant::now() + UPKEEP_AFTER_LOSS);
        }
        if let Some(turn) = turn {
            self.turn(peer, turn);
        }
    }

    /// Tells [`super::start`] once every listener has an address.
    fn say_ready(&mut self) {
        if self.net.listeners.are_ready()
            && let Some(ready) = self.ready.take()
        {
            // Whoever started it may have given up.
            let _ = ready.send(());
        }
    }

    // ---- the node and its handles

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Publish { bytes, reply } => {
                let behaviour = &mut self.swarm.behaviour_mut().gossip;
                let _ = reply.send(self.gossip.publish(behaviour, bytes, Instant::now()));
            }
            Command::Fetch { root, size, hints, deadline, reply } => {
                let connected = self.connections.peers();
                let means = FetchMeans { connected, jobs: &mut self.net.jobs, effects: &mut self.effects };
                self.net.small.want(SmallWant { root, size, hints, deadline, reply }, means);
            }
            Command::Download { blob, class, hints, waiter } => {
                let mut out = PieceMeans { jobs: &mut self.net.jobs, effects: &mut self.effects };
                self.net.pieces.download(blob, class, hints, waiter, &mut out);
            }
            Command::Pull { round, have, reply } => self.pull(round, have, reply),
            Command::Providers { state, reply } => {
                let (lookups, means) = self.reach();
                lookups.want(state, reply, means);
            }
            Command::Ban { peer } => self.effects.push_back(Effect::Ban { peer, why: "the node said so".into() }),
            // For the test of the supervisor: no peer's message becomes a command, and a release has no such command.
            #[cfg(debug_assertions)]
            Command::Panic => panic!("on purpose"),
            Command::Shutdown { .. } => {}
        }
    }

    /// A handle has changed the own record or the chain view.
    fn on_bell(&mut self) {
        let (changes, record_changed) = self.net.shared.bell.take();
        self.records.look_again();
        self.rebind(changes);
        if record_changed {
            let behaviour = &mut self.swarm.behaviour_mut().gossip;
            self.records.changed(behaviour, self.connections.peers(), &mut self.effects);
        }
    }

    /// Carries out what a record or a chain view changed.
    fn rebind(&mut self, changes: Vec<Change>) {
        for change in changes {
            let (peer, member, event) = match change {
                Change::Bound(peer, uid) => (peer, true, Event::Bound { peer, uid }),
                Change::Unbound(peer, uid) => (peer, false, Event::Unbound { peer, uid }),
            };
            let key = self.net.shared.book().member_of(&peer).filter(|_| member);
            if key.is_some_and(|key| self.net.shared.bans().holds_member(&key, Instant::now())) {
                self.ban(peer, "it speaks for a member that is banned");
            }
            gossip::value(&mut self.swarm.behaviour_mut().gossip, peer, member);
            self.discover(DiscoveryEvent::Ranked { peer, member });
            self.net.mail.events.tell(event);
        }
        self.fetch(FetchEvent::Tick);
    }

    fn on_job(&mut self, job: Result<Job, JoinError>) {
        match job {
            Ok(Job::Stored { root, result }) => self.fetch(FetchEvent::Stored { root, result }),
            Ok(Job::Begun { blob, result }) => {
                let mut out = PieceMeans { jobs: &mut self.net.jobs, effects: &mut self.effects };
                self.net.pieces.begun(blob, result, &mut out);
            }
            Ok(Job::Read(reading)) => {
                let (behaviour, jobs) = (&mut self.swarm.behaviour_mut().requests, &mut self.net.jobs);
                let sent = self.requests.give(behaviour, reading, jobs);
                sent.into_iter().for_each(|bytes| self.net.pieces.links.charge(bytes));
            }
            Ok(Job::Resolved { dial, addresses }) => {
                let Running { net, swarm, .. } = self;
                net.dialling.resolved(dial, &addresses, swarm, &mut net.jobs);
            }
            Ok(Job::Done) => {}
            Err(error) => tracing::error!(%error, "a blob's reading or writing broke"),
        }
    }

    // ---- requests and their answers

    fn on_request(&mut self, outcome: RequestOutcome) {
        let (peer, why) = match outcome {
            RequestOutcome::Answered { peer, purpose, answer } => return self.on_answer(peer, purpose, answer),
            RequestOutcome::Unanswered { peer, purpose, breach, mute } => {
                return self.on_no_answer(peer, purpose, breach, mute);
            }
            RequestOutcome::Shown { peer, record, channel } => {
                let changes = self.records.shown(peer, record, &mut self.effects);
                self.rebind(changes);
                let answer = self.records.own().map_or(Answer::Nothing, Answer::Record);
                return respond(&mut self.swarm.behaviour_mut().requests, channel, answer);
            }
            RequestOutcome::Listed { have, channel } => {
                let sample = self.records.sample(&have);
                return respond(&mut self.swarm.behaviour_mut().requests, channel, Answer::Records(sample));
            }
            RequestOutcome::Breach { peer, why } => (peer, why),
        };
        self.ban(peer, &why);
    }

    fn on_answer(&mut self, peer: PeerKey, purpose: Purpose, answer: Answer) {
        match (purpose, answer) {
            (Purpose::Blob(ask), Answer::Blob(bytes, digest)) => {
                let connected = self.connections.peers();
                let means = FetchMeans { connected, jobs: &mut self.net.jobs, effects: &mut self.effects };
                self.net.small.came(ask, bytes, digest, means);
            }
            (Purpose::Blob(ask), Answer::Nothing | Answer::TooLarge) => self.fetch(FetchEvent::Nothing { ask }),
            (Purpose::Blob(ask), _) => self.fetch(FetchEvent::Failed { ask, breach: true }),
            (Purpose::Pull(pull, most), Answer::Announcements(list)) => {
                match self.pulls.came(pull, peer, most, &list) {
                    Ok(true) => {
                        list.iter().for_each(|one| self.net.shared.traffic.announcements_pulled.add(one.len()));
                    }
                    Ok(false) => {}
                    Err(why) => self.ban(peer, why),
                }
                give(self.pulls.answered(pull));
            }
            (Purpose::Pull(pull, _), Answer::Nothing) => give(self.pulls.answered(pull)),
            (Purpose::Record, Answer::Record(record)) => {
                let changes = self.records.shown(peer, record, &mut self.effects);
                self.rebind(changes);
            }
            (Purpose::Records, Answer::Records(records)) => {
                if self.records.listed(records) {
                    self.effects.push_back(Effect::UpkeepSoon);
                }
            }
            (Purpose::Record | Purpose::Records, Answer::Nothing) => {}
            (purpose, _) => {
                if let Purpose::Pull(pull, _) = purpose {
                    give(self.pulls.answered(pull));
                }
                self.ban(peer, "another answer than was asked for");
            }
        }
    }

    fn on_no_answer(&mut self, peer: PeerKey, purpose: Option<Purpose>, breach: bool, mute: bool) {
        match purpose {
            // The fetches say who is to be punished.
            Some(Purpose::Blob(ask)) => return self.fetch(FetchEvent::Failed { ask, breach }),
            Some(Purpose::Pull(pull, _)) => give(self.pulls.answered(pull)),
            Some(Purpose::Record) if !breach && !mute => self.records.not_answered(peer),
            Some(Purpose::Record | Purpose::Records) | None => {}
        }
        if breach {
            self.ban(peer, "an answer that breaks the protocol");
        }
    }

    fn pull(&mut self, round: Round, have: UidSet, reply: oneshot::Sender<Pulled>) {
        let now = Instant::now();
        let PullRequests { pull, peers, entries_max } = self.pulls.begin(now, self.connections.peers(), &have, reply);
        for peer in peers {
            let request = Request::Announcements(round, have);
            let ask = Ask { request, answer_bytes_max: ANSWER_BYTES_MAX + FORM_BYTES_MAX };
            self.effects.push_back(Effect::ask(peer, ask, Purpose::Pull(pull, entries_max)));
        }
        self.pulls.expire(now).into_iter().for_each(|ended| give(Some(ended)));
    }

    // ---- time

    fn on_tick(&mut self) {
        let now = Instant::now();
        let connected = self.connections.peers();
        let mut means = FetchMeans { connected, jobs: &mut self.net.jobs, effects: &mut self.effects };
        self.net.small.tick(&mut means);
        if !self.net.pieces.is_idle() {
            let mut out = PieceMeans { jobs: &mut self.net.jobs, effects: &mut self.effects };
            self.net.pieces.tick(self.connections.peers().len(), &mut out);
        }
        self.pulls.expire(now).into_iter().for_each(|ended| give(Some(ended)));
        if now >= self.clock.upkeep {
            self.upkeep(now);
        }
    }

    fn upkeep(&mut self, now: Instant) {
        self.clock.upkeep = now + UPKEEP_EACH;
        let surplus = self.connections.surplus(now).into_iter().chain(self.swarm.behaviour().gate.surplus());
        for id in surplus {
            self.swarm.close_connection(id);
        }
        let counts = Gauges {
            dialling: self.net.dialling.under_way(),
            requests_open: self.requests.open(),
            unjudged: self.gossip.unjudged(),
            events_waiting: self.net.mail.events.waiting(),
            ..Gauges::default()
        };
        let behaviour = &self.swarm.behaviour().gossip;
        for peer in look::look(&self.net.shared, behaviour, self.gossip.topics(), counts, now) {
            self.ban(peer, "its gossip score");
        }
        self.gossip.publish_again(&mut self.swarm.behaviour_mut().gossip, now);
        let Running { net, swarm, connections, lookups, .. } = self;
        net.dialling.dial_more(now, connections.peers(), lookups.leads(), swarm, &mut net.jobs);
        self.records.show_again(self.connections.peers(), &mut self.effects);
        self.records.upkeep(&mut self.swarm.behaviour_mut().gossip, now);
        let (lookups, means) = self.reach();
        lookups.tick(now, means);
        if now >= self.clock.remember {
            self.clock.remember = now + REMEMBER_EACH;
            self.net.dialling.remember(&mut self.net.jobs);
        }
    }

    // ---- what owners want of one another

    fn carry_out(&mut self) {
        while let Some(effect) = self.effects.pop_front() {
            match effect {
                Effect::Ask { peer, ask, purpose } => {
                    self.requests.send(&mut self.swarm.behaviour_mut().requests, peer, *ask, purpose);
                }
                Effect::Ban { peer, why } => self.ban(peer, &why),
                // An error means that it is not connected.
                Effect::Disconnect { peer } => drop(self.swarm.disconnect_peer_id(peer.id())),
                Effect::Dial { peer } => {
                    let Running { net, swarm, lookups, .. } = self;
                    net.dialling.dial_peer(peer, lookups.leads(), swarm, &mut net.jobs);
                }
                Effect::UpkeepSoon => self.clock.upkeep = self.clock.upkeep.min(Instant::now()),
            }
        }
    }

    /// Refuses a peer, and the member it speaks for, for a while.
    fn ban(&mut self, peer: PeerKey, why: &str) {
        let shared = &self.net.shared;
        let (member, now) = (shared.book().member_of(&peer), Instant::now());
        if !shared.bans().holds(&peer, now) {
            // Once, however many of its requests break the protocol at a time.
            tracing::debug!(%peer, why, "banned");
            shared.traffic.bans.add(1);
        }
        shared.bans().ban(peer, member, now, self.net.config.limits.ban);
        self.discover(DiscoveryEvent::Banned { peer });
        self.effects.push_back(Effect::Disconnect { peer });
    }

    /// Tells the fetches of small blobs something.
    fn fetch(&mut self, event: FetchEvent) {
        let connected = self.connections.peers();
        let means = FetchMeans { connected, jobs: &mut self.net.jobs, effects: &mut self.effects };
        self.net.small.tell(event, means);
    }

    /// Tells those who fetch pieces by which way a peer is now reached.
    fn turn(&mut self, peer: PeerKey, turn: WayTurn) {
        let mut out = PieceMeans { jobs: &mut self.net.jobs, effects: &mut self.effects };
        self.net.pieces.turned(peer, turn, &mut out);
    }

    /// Tells discovery something.
    fn discover(&mut self, event: DiscoveryEvent) {
        let (lookups, means) = self.reach();
        lookups.tell(event, means);
    }

    /// Discovery, and what it has a say in.
    fn reach(&mut self) -> (&mut LookUps, LookUpMeans<'_>) {
        let Running { net, swarm, connections, records, lookups, effects, .. } = self;
        (lookups, LookUpMeans { swarm, connections, records, listeners: &net.listeners, effects })
    }
}

/// Gives what a pull found to whoever asked, who may have given up.
fn give(ended: Option<PullResult<oneshot::Sender<Pulled>>>) {
    if let Some(PullResult { asker, found }) = ended {
        let _ = asker.send(found);
    }
}
