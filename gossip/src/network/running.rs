//! One life of the network: the loop that carries events from the sockets, the handles and the clock to those who decide.

use super::behaviour::{Behaviour, BehaviourEvent};
use super::discovery::Discovery;
use super::gossip::Unheard;
use super::network::{Job, Network};
use super::pieces::Ends;
use crate::announcements::claims::Claims;
use crate::event::{Judgement, Verdict};
use crate::handle::Command;
use crate::peers::PeerKey;
use crate::peers::bucket::Buckets;
use crate::small::answers::Counter;
use crate::small::codec::Answer;
use crate::small::fetch::{self, AskId, WaiterId};
use covey_exchange::scheduler::Event;
use covey_proto::{Digest, Uid};
use libp2p::futures::StreamExt;
use libp2p::gossipsub::MessageAcceptance;
use libp2p::request_response::{InboundRequestId, OutboundRequestId, ResponseChannel};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Swarm, identify, ping};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Time between looks at the clock while something is awaited, and while nothing is.
const TICK_BUSY: Duration = Duration::from_millis(20);
const TICK_IDLE: Duration = Duration::from_millis(500);
/// Keys of a table of buckets: more than there are connections.
const BUCKET_KEYS_MAX: usize = 1024;

pub(super) enum End {
    Shutdown(oneshot::Sender<()>),
    /// Nobody holds a handle any more.
    Abandoned,
}

/// What a request was sent for.
pub(super) enum Pending {
    Blob(AskId),
    /// Which pull, and how many announcements a peer can have for it.
    Pull(u64, usize),
    Record,
    /// The records that a peer knows.
    Records,
}

/// What a request is answered with, once its turn comes.
pub(super) enum Serve {
    Blob(Digest, ResponseChannel<Answer>),
    Announcements(Vec<Arc<[u8]>>, ResponseChannel<Answer>),
}

pub(super) struct Connection {
    pub(super) peer: PeerKey,
    pub(super) dialled: bool,
    pub(super) since: Instant,
    /// Which life of the peer is at its other end, once identify has said.
    pub(super) life: Option<Digest>,
}

/// A pull of a round's announcements.
pub(super) struct Pull {
    pub(super) left: usize,
    pub(super) seen: HashSet<Digest>,
    pub(super) found: Vec<(PeerKey, Vec<u8>)>,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Vec<(PeerKey, Vec<u8>)>>,
}

pub(super) struct Running<'a> {
    pub(super) net: &'a mut Network,
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) pending: HashMap<OutboundRequestId, Pending>,
    pub(super) serving: Counter<InboundRequestId, Serve>,
    pub(super) pulls: HashMap<u64, Pull>,
    pub(super) pulls_made: u64,
    pub(super) connections: HashMap<ConnectionId, Connection>,
    pub(super) connected: BTreeSet<PeerKey>,
    pub(super) dialling: HashMap<ConnectionId, PeerKey>,
    pub(super) tickets_out: usize,
    /// Announcements that are looked at, by author and round.
    pub(super) claims: Claims,
    /// Own announcements that nobody could be told of yet.
    pub(super) unheard: VecDeque<Unheard>,
    /// Gossip messages, by the neighbour that brought them.
    pub(super) gossip_rate: Buckets<PeerKey>,
    /// Requests without a blob, by peer.
    pub(super) ask_rate: Buckets<PeerKey>,
    /// News and repetitions of records that are passed on, by uid.
    pub(super) news_rate: Buckets<Uid>,
    pub(super) repeat_rate: Buckets<Uid>,
    /// Connected peers that did not answer to the own record.
    pub(super) unshown: BTreeSet<PeerKey>,
    /// Records whose signature held, by the digest of their message: repetitions need no second look.
    pub(super) verified: HashMap<Digest, Uid>,
    pub(super) discovery: Discovery,
    pub(super) record_sent_at: Option<Instant>,
    pub(super) introduced_at: Option<Instant>,
    pub(super) introduction_due: bool,
    pub(super) upkeep_at: Instant,
    pub(super) remember_at: Instant,
    pub(super) ends: Ends,
    ready: Option<oneshot::Sender<()>>,
    waiters_made: u64,
}

impl<'a> Running<'a> {
    pub(super) fn new(
        net: &'a mut Network,
        swarm: Swarm<Behaviour>,
        ready: Option<oneshot::Sender<()>>,
    ) -> Running<'a> {
        let limits = net.config.limits.clone();
        let now = Instant::now();
        let waiters_made = net.waiters.keys().map(|waiter| waiter.0).max().unwrap_or(0);
        Running {
            net,
            swarm,
            pending: HashMap::new(),
            serving: Counter::new(limits.serve),
            pulls: HashMap::new(),
            pulls_made: 0,
            connections: HashMap::new(),
            connected: BTreeSet::new(),
            dialling: HashMap::new(),
            tickets_out: 0,
            claims: Claims::default(),
            unheard: VecDeque::new(),
            gossip_rate: Buckets::new(limits.gossip_per_peer, BUCKET_KEYS_MAX),
            ask_rate: Buckets::new(limits.asks_per_peer, BUCKET_KEYS_MAX),
            news_rate: Buckets::new(super::gossip::NEWS_RATE, BUCKET_KEYS_MAX),
            repeat_rate: Buckets::new(super::gossip::REPEAT_RATE, BUCKET_KEYS_MAX),
            unshown: BTreeSet::new(),
            verified: HashMap::new(),
            discovery: Discovery::new(now),
            record_sent_at: None,
            introduced_at: None,
            introduction_due: false,
            upkeep_at: now,
            ends: Ends::default(),
            // Soon: a crash in the first minute must not lose the way.
            remember_at: now + super::connections::REMEMBER_FIRST,
            ready,
            waiters_made,
        }
    }

    pub(super) async fn run(mut self) -> End {
        self.fetch(fetch::Event::Lost);
        self.resume_downloads();
        self.say_ready();
        loop {
            let exchange = &mut self.net.exchange;
            let waiting = !self.net.fetches.is_idle() || !self.pulls.is_empty() || !exchange.downloads.is_empty();
            let due = exchange.next_tick();
            let tick = Instant::now() + if waiting { TICK_BUSY } else { TICK_IDLE };
            let tick = tick.min(self.upkeep_at.max(Instant::now()));
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm(event),
                command = self.net.commands.recv() => match command {
                    Some(Command::Shutdown { reply }) => return End::Shutdown(reply),
                    Some(command) => self.on_command(command),
                    None => return End::Abandoned,
                },
                Some(judgement) = self.net.verdicts.recv() => self.on_verdict(judgement),
                Some(batch) = exchange.reports.recv() => self.on_reports(batch),
                Some((peer, open)) = exchange.opens.recv() => self.on_open(peer, open),
                Some(ended) = exchange.tasks.join_next(), if !exchange.tasks.is_empty() => super::pieces::log(ended),
                () = super::pieces::until(due) => self.schedule(Event::Tick),
                Some(job) = self.net.jobs.join_next(), if !self.net.jobs.is_empty() => self.on_job(job),
                () = self.net.shared.changed.notified() => self.on_changed(),
                () = tokio::time::sleep_until(tick.into()) => self.on_tick(),
            }
        }
    }

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(event)) => self.on_gossip(event),
            SwarmEvent::Behaviour(BehaviourEvent::Requests(event)) => self.on_requests(event),
            SwarmEvent::Behaviour(BehaviourEvent::Links(inbound)) => self.on_link(inbound),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { connection, result, peer })) => match result {
                Ok(rtt) => {
                    if let Some(seen) = self.net.shared.connected().get_mut(&PeerKey::of(peer)) {
                        seen.rtt = Some(rtt);
                    }
                }
                Err(ping::Failure::Timeout) => drop(self.swarm.close_connection(connection)),
                Err(_) => {}
            },
            // Identify tells others where this node is; what it hears is nobody's proof.
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                connection_id, info, ..
            })) => {
                self.on_identity(connection_id, &info);
                self.on_identified(connection_id, &info.agent_version);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(_)) => {}
            SwarmEvent::Behaviour(BehaviourEvent::Kademlia(found)) => self.on_found(found),
            SwarmEvent::NewListenAddr { listener_id, address } => {
                self.on_listening(listener_id, address);
                self.say_ready();
            }
            event => self.on_connection(event),
        }
    }

    /// Tells [`super::start`] once every listener has an address.
    fn say_ready(&mut self) {
        if self.net.listeners.is_empty()
            && let Some(ready) = self.ready.take()
        {
            // Whoever started it may have given up.
            let _ = ready.send(());
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Publish { bytes, reply } => {
                let _ = reply.send(self.publish(bytes));
            }
            Command::Fetch { root, size, hints, deadline, reply } => {
                self.waiters_made += 1;
                let waiter = WaiterId(self.waiters_made);
                self.net.waiters.insert(waiter, reply);
                self.fetch(fetch::Event::Want { waiter, root, size, hints, deadline });
            }
            Command::Download { blob, class, hints, waiter } => self.download(blob, class, hints, waiter),
            Command::Pull { round, have, reply } => self.pull(round, have, reply),
            Command::Providers { state, reply } => self.look_up(&state, reply),
            Command::Ban { peer } => self.ban(peer, "the node said so"),
            // For the test of the supervisor: no peer's message becomes a command, and a release has no such command.
            #[cfg(debug_assertions)]
            Command::Panic => panic!("on purpose"),
            Command::Shutdown { .. } => {}
        }
    }

    fn on_verdict(&mut self, judgement: Judgement) {
        if judgement.life != self.net.life {
            return;
        }
        self.tickets_out = self.tickets_out.saturating_sub(1);
        let acceptance = match judgement.verdict {
            Verdict::Accept => MessageAcceptance::Accept,
            Verdict::Ignore => MessageAcceptance::Ignore,
            Verdict::Reject => MessageAcceptance::Reject,
        };
        if let (Verdict::Reject | Verdict::Ignore, Some(claim)) = (judgement.verdict, judgement.claim) {
            self.claims.give_back(claim);
        }
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        let known = gossip.report_message_validation_result(&judgement.message, &judgement.source, acceptance);
        let traffic = &self.net.shared.traffic;
        let count = match judgement.verdict {
            _ if !known => &traffic.announcements_late,
            Verdict::Accept => &traffic.announcements_accepted,
            Verdict::Ignore => &traffic.announcements_unheeded,
            Verdict::Reject => &traffic.announcements_rejected,
        };
        count.add(1);
    }

    fn on_job(&mut self, job: Result<Job, tokio::task::JoinError>) {
        match job {
            Ok(Job::Stored { root, result }) => self.fetch(fetch::Event::Stored { root, result }),
            Ok(Job::Begun { root, result }) => self.on_begun(root, result),
            Ok(Job::Read { request, life, channel, blob }) if life == self.net.life => {
                self.give(request, channel, blob)
            }
            Ok(Job::Resolved { dial, addresses }) => self.dial_resolved(dial, &addresses),
            Ok(Job::Read { .. } | Job::Done) => {}
            Err(error) => tracing::error!(%error, "a blob's reading or writing broke"),
        }
    }

    fn on_changed(&mut self) {
        let changes = std::mem::take(&mut *self.net.shared.changes());
        // A record may have ceased to count with the chain view.
        self.verified.clear();
        self.apply(changes);
        if self.net.shared.record_changed.swap(false, Ordering::AcqRel) {
            self.show_record();
        }
    }

    fn on_tick(&mut self) {
        let abandoned: Vec<WaiterId> =
            self.net.waiters.iter().filter(|(_, reply)| reply.is_closed()).map(|(waiter, _)| *waiter).collect();
        for waiter in abandoned {
            self.net.waiters.remove(&waiter);
            self.fetch(fetch::Event::Cancel { waiter });
        }
        if !self.net.fetches.is_idle() {
            self.fetch(fetch::Event::Tick);
        }
        if !self.net.exchange.downloads.is_empty() {
            self.tick_downloads();
        }
        self.expire_pulls();
        if Instant::now() >= self.upkeep_at {
            self.upkeep();
        }
    }
}
