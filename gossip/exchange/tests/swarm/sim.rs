//! A swarm in virtual time: every peer runs a real scheduler and a plain server; links have rates and delays; a checker
//! stands beside every scheduler and knows what it may ask.

use crate::check::Checker;
use crate::server::{Answer, Fault, Next, Server};
use covey_exchange::Class;
use covey_exchange::scheduler::{Action, Event, Limits, Misdeed, Rejected, RequestId, Scheduler};
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::{PieceSet, Pieces};
use covey_proto::random::SplitMix64;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Range;
use std::time::Duration;

pub(crate) type Node = usize;

/// What is left to chance, from a seed.
#[derive(Clone)]
pub(crate) struct Dice(SplitMix64);
impl Dice {
    pub(crate) fn seeded(seed: u64) -> Dice {
        Dice(SplitMix64::seeded(seed))
    }
    pub(crate) fn next(&mut self) -> u64 {
        self.0.draw()
    }
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.0.below(most)
    }
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }
    /// True once in `n`.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Bytes a second of a line of so many Mbit/s.
pub(crate) fn mbit(rate: u64) -> u64 {
    rate * 1_000_000 / 8
}

/// What a node has of a blob: per piece, a mask of groups.
pub(crate) struct Copy {
    pub(crate) pieces: Pieces,
    pub(crate) groups: Vec<u64>,
    pub(crate) set: PieceSet,
    /// Pieces got that were not announced yet.
    pub(crate) news: Vec<u32>,
    pub(crate) got_bytes: u64,
    /// Bytes received for it, needless ones too.
    pub(crate) bytes: u64,
    /// Bytes that were missing when it was wanted first.
    pub(crate) needed: u64,
    pub(crate) wanted: bool,
    pub(crate) complete: Option<Duration>,
}

impl Copy {
    fn of(blob: BlobRef, set: PieceSet) -> Copy {
        let pieces = Pieces::of_blob(&blob).unwrap();
        let groups: Vec<u64> =
            (0..pieces.count()).map(|piece| if set.contains(piece) { u64::MAX } else { 0 }).collect();
        let got_bytes: u64 =
            set.iter().map(|piece| pieces.bytes_of_piece(piece)).map(|bytes| bytes.end - bytes.start).sum();
        Copy {
            pieces,
            groups,
            set,
            news: Vec::new(),
            got_bytes,
            bytes: 0,
            needed: blob.size - got_bytes,
            wanted: false,
            complete: None,
        }
    }
    /// Writes a group; whether its piece is now complete.
    fn write(&mut self, group: u64) -> bool {
        let bytes = self.pieces.bytes_of(group..group + 1);
        self.bytes += bytes.end - bytes.start;
        let piece = self.pieces.piece_of(group);
        let of_piece = self.pieces.groups_of(piece);
        let bit = 1 << (group - of_piece.start);
        let mask = &mut self.groups[piece as usize];
        if *mask & bit != 0 {
            return false;
        }
        *mask |= bit;
        self.got_bytes += bytes.end - bytes.start;
        if u64::from(mask.count_ones()) == of_piece.end - of_piece.start && self.set.insert(piece) {
            self.news.push(piece);
            return true;
        }
        false
    }
}

pub(crate) struct Peer {
    pub(crate) scheduler: Scheduler<Node>,
    pub(crate) checker: Checker,
    pub(crate) copies: BTreeMap<Digest, Copy>,
    pub(crate) server: Server,
    /// Bytes a second up and down; one-way delay to the middle of the net.
    pub(crate) up: u64,
    pub(crate) down: u64,
    pub(crate) delay: Duration,
    /// When its line down is free.
    down_free: Duration,
    tick: Option<Duration>,
    flush: bool,
    pub(crate) links: BTreeMap<Node, u64>,
    banned: BTreeSet<Node>,
    pub(crate) stuck: usize,
    pub(crate) false_holdings: BTreeSet<Node>,
}

enum Message {
    Want(BlobRef),
    Unwant(Digest),
    Holds(Digest, PieceSet),
    Have(Digest, Vec<Range<u32>>),
    Request(RequestId, BlobRef, Class, Range<u64>),
    Cancel(RequestId, Class),
    Reject(RequestId, Rejected),
    First(RequestId),
    Group(RequestId, Digest, u64, bool),
    Done(RequestId),
    Failed(RequestId),
}

enum Happening {
    Message { from: Node, to: Node, link: u64, message: Message },
    Landed { from: Node, link: u64, bytes: u64, next: Next },
    Uplink(Node),
    Tick(Node),
    Flush(Node),
    Script(Script),
}

/// What befalls nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Script {
    Connect(Node, Node),
    Disconnect(Node, Node),
    Leave(Node),
    Restart(Node),
    Want(Node, usize),
    Evict(Node, usize),
}

pub(crate) struct Sim {
    pub(crate) now: Duration,
    pub(crate) dice: Dice,
    pub(crate) peers: Vec<Peer>,
    pub(crate) blobs: Vec<(BlobRef, Class)>,
    limits: Limits,
    /// Whose actions are printed: TRACE=NUMBER.
    trace: Option<Node>,
    heap: BinaryHeap<Reverse<(Duration, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    count: u64,
    links: u64,
    /// Scripted things still to come.
    pub(crate) scripts: usize,
    pub(crate) events: u64,
}

impl Sim {
    pub(crate) fn new(seed: u64, limits: Limits) -> Sim {
        Sim {
            now: Duration::ZERO,
            dice: Dice::seeded(seed),
            peers: Vec::new(),
            blobs: Vec::new(),
            limits,
            trace: std::env::var("TRACE").ok().and_then(|node| node.parse().ok()),
            heap: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            count: 0,
            links: 0,
            scripts: 0,
            events: 0,
        }
    }

    pub(crate) fn blob(&mut self, size: u64, class: Class) -> usize {
        let number = self.blobs.len() as u64;
        self.blobs.push((BlobRef { root: Digest::of(&number.to_le_bytes()), size }, class));
        self.blobs.len() - 1
    }

    pub(crate) fn peer(&mut self, up: u64, down: u64, delay: Duration, fault: Fault) -> Node {
        let seed = self.dice.next();
        self.peers.push(Peer {
            scheduler: Scheduler::new(self.limits.clone(), seed),
            checker: Checker::new(self.limits.clone()),
            copies: BTreeMap::new(),
            server: Server::new(fault, seed),
            up,
            down,
            delay,
            down_free: Duration::ZERO,
            tick: None,
            flush: false,
            links: BTreeMap::new(),
            banned: BTreeSet::new(),
            stuck: 0,
            false_holdings: BTreeSet::new(),
        });
        self.peers.len() - 1
    }

    /// Has a node hold some of a blob from the start.
    pub(crate) fn give(&mut self, node: Node, blob: usize, set: PieceSet) {
        let (blob, _) = self.blobs[blob];
        self.peers[node].copies.insert(blob.root, Copy::of(blob, set));
    }

    pub(crate) fn give_all(&mut self, node: Node, blob: usize) {
        let count = Pieces::of_blob(&self.blobs[blob].0).unwrap().count();
        self.give(node, blob, PieceSet::all(count));
    }

    pub(crate) fn at(&mut self, time: Duration, script: Script) {
        self.push(time, Happening::Script(script));
    }

    fn push(&mut self, time: Duration, happening: Happening) {
        self.count += 1;
        self.scripts += usize::from(matches!(happening, Happening::Script(_)));
        self.heap.push(Reverse((time, self.count)));
        self.happenings.insert(self.count, happening);
    }

    fn send(&mut self, from: Node, to: Node, message: Message) {
        let Some(link) = self.peers[from].links.get(&to).copied() else { return };
        let time = self.now + self.peers[from].delay + self.peers[to].delay;
        self.push(time, Happening::Message { from, to, link, message });
    }

    /// Runs until `done` or `until`.
    pub(crate) fn run(&mut self, until: Duration, done: impl Fn(&Sim) -> bool) -> bool {
        while let Some(Reverse((time, key))) = self.heap.pop() {
            assert!(time >= self.now, "time goes on");
            if time > until {
                break;
            }
            self.now = time;
            self.events += 1;
            if let Some(happening) = self.happenings.remove(&key) {
                self.happen(happening);
            }
            if self.events.is_multiple_of(64) && done(self) {
                return true;
            }
        }
        done(self)
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Message { from, to, link, message } => {
                if self.peers[to].links.get(&from) == Some(&link) {
                    self.receive(from, to, message);
                }
            }
            Happening::Landed { from, link, bytes, next } => self.landed(from, link, bytes, next),
            Happening::Uplink(node) => {
                self.peers[node].server.sending = false;
                self.serve(node);
            }
            Happening::Tick(node) => {
                if self.peers[node].tick == Some(self.now) {
                    self.peers[node].tick = None;
                    self.tell(node, Event::Tick);
                }
            }
            Happening::Flush(node) => {
                self.peers[node].flush = false;
                self.announce(node);
            }
            Happening::Script(script) => {
                self.scripts -= 1;
                self.play(script);
            }
        }
    }

    fn play(&mut self, script: Script) {
        match script {
            Script::Connect(a, b) => self.connect(a, b),
            Script::Disconnect(a, b) => self.disconnect(a, b),
            Script::Leave(node) => {
                let links: Vec<Node> = self.peers[node].links.keys().copied().collect();
                links.into_iter().for_each(|other| self.disconnect(node, other));
                self.peers[node].server.gone = true;
            }
            Script::Restart(node) => self.restart(node),
            Script::Want(node, blob) => self.want(node, blob, Vec::new()),
            Script::Evict(node, blob) => self.evict(node, blob),
        }
    }

    pub(crate) fn connect(&mut self, a: Node, b: Node) {
        let gone = |node: Node| self.peers[node].server.gone;
        if a == b || gone(a) || gone(b) || self.peers[a].links.contains_key(&b) {
            return;
        }
        if self.peers[a].banned.contains(&b) || self.peers[b].banned.contains(&a) {
            return;
        }
        self.links += 1;
        self.peers[a].links.insert(b, self.links);
        self.peers[b].links.insert(a, self.links);
        for (node, other) in [(a, b), (b, a)] {
            self.peers[node].checker.up(other);
            self.tell(node, Event::Up { peer: other });
        }
    }

    pub(crate) fn disconnect(&mut self, a: Node, b: Node) {
        if self.peers[a].links.remove(&b).is_none() {
            return;
        }
        self.peers[b].links.remove(&a);
        for (node, other) in [(a, b), (b, a)] {
            self.peers[node].server.forget(other);
            self.peers[node].checker.down(other);
            self.tell(node, Event::Down { peer: other });
        }
    }

    /// The process is killed and started again: whole pieces are what is left.
    fn restart(&mut self, node: Node) {
        let links: Vec<Node> = self.peers[node].links.keys().copied().collect();
        links.iter().for_each(|other| self.disconnect(node, *other));
        let seed = self.dice.next();
        self.peers[node].scheduler = Scheduler::new(self.limits.clone(), seed);
        self.peers[node].checker = Checker::new(self.limits.clone());
        self.peers[node].tick = None;
        let mut wanted = Vec::new();
        for (index, (blob, _)) in self.blobs.clone().into_iter().enumerate() {
            if let Some(copy) = self.peers[node].copies.remove(&blob.root) {
                let mut fresh = Copy::of(blob, copy.set);
                fresh.bytes = copy.bytes;
                fresh.needed = copy.needed;
                fresh.complete = copy.complete;
                self.peers[node].copies.insert(blob.root, fresh);
                if copy.wanted {
                    wanted.push(index);
                }
            }
        }
        wanted.into_iter().for_each(|blob| self.want(node, blob, Vec::new()));
        links.into_iter().for_each(|other| self.connect(node, other));
    }

    pub(crate) fn want(&mut self, node: Node, blob: usize, sources: Vec<Node>) {
        let (blob, class) = self.blobs[blob];
        let none = PieceSet::none(Pieces::of_blob(&blob).unwrap().count());
        let peer = &mut self.peers[node];
        let copy = peer.copies.entry(blob.root).or_insert_with(|| Copy::of(blob, none));
        copy.wanted = true;
        let held = copy.set.clone();
        peer.checker.want(blob, &held);
        self.tell(node, Event::Want { blob, class, held, sources });
    }

    /// An honest server loses a blob, and says so.
    fn evict(&mut self, node: Node, blob: usize) {
        let root = self.blobs[blob].0.root;
        let Some(copy) = self.peers[node].copies.get_mut(&root).filter(|copy| !copy.wanted) else { return };
        copy.set = PieceSet::none(copy.set.count());
        let set = copy.set.clone();
        let listeners: Vec<Node> = self.peers[node].server.listeners(root).collect();
        listeners.into_iter().for_each(|to| self.send(node, to, Message::Holds(root, set.clone())));
    }

    // ---- a scheduler's turn -----------------------------------------------------------------------------------------

    fn tell(&mut self, node: Node, event: Event<Node>) {
        let mut actions = Vec::new();
        let peer = &mut self.peers[node];
        peer.scheduler.handle(self.now, event, &mut actions);
        for action in actions {
            if self.trace == Some(node) {
                println!("{:?} {action:?}", self.now);
            }
            self.peers[node].checker.action(&action);
            self.perform(node, action);
        }
        let peer = &mut self.peers[node];
        if let Some(next) = peer.scheduler.next_tick() {
            let next = next.max(self.now + Duration::from_millis(1));
            if peer.tick.is_none_or(|tick| next < tick) {
                peer.tick = Some(next);
                self.push(next, Happening::Tick(node));
            }
        }
    }

    fn perform(&mut self, node: Node, action: Action<Node>) {
        match action {
            Action::Ask { peer, blob } => self.send(node, peer, Message::Want(blob)),
            Action::Leave { peer, root } => self.send(node, peer, Message::Unwant(root)),
            Action::Request { request, peer, blob, class, groups } => {
                self.send(node, peer, Message::Request(request, blob, class, groups));
            }
            Action::Cancel { request, peer } => {
                let class = self.peers[node].checker.class(request);
                self.send(node, peer, Message::Cancel(request, class));
            }
            Action::Dial { peer } => self.connect(node, peer),
            Action::Punish { peer, why: Misdeed::WrongBytes, .. } => {
                assert!(self.peers[peer].server.fault.lies(), "{peer} was punished, but did not lie");
                self.peers[node].banned.insert(peer);
                // The ban takes a moment, as in life.
                self.push(self.now + Duration::from_millis(5), Happening::Script(Script::Disconnect(node, peer)));
            }
            Action::Punish { peer, why: Misdeed::FalseHoldings, .. } => {
                self.peers[node].false_holdings.insert(peer);
            }
            Action::Complete { root } => {
                let now = self.now;
                let copy = self.peers[node].copies.get_mut(&root).unwrap();
                assert!(copy.set.is_full(), "complete, but {:?} is held", copy.set);
                copy.complete = Some(now);
                copy.wanted = false;
            }
            Action::Stuck { .. } => self.peers[node].stuck += 1,
            Action::Refused { blob, why } => panic!("{blob:?} was refused: {why}"),
        }
    }

    // ---- messages ---------------------------------------------------------------------------------------------------

    fn receive(&mut self, from: Node, to: Node, message: Message) {
        match message {
            Message::Want(blob) => {
                self.peers[to].server.want(from, blob.root);
                let held = self.peers[to].copies.get(&blob.root).map(|copy| copy.set.clone());
                let none = PieceSet::none(Pieces::of_blob(&blob).unwrap().count());
                let set = self.peers[to].server.fault.claims(held.unwrap_or(none));
                self.send(to, from, Message::Holds(blob.root, set));
            }
            Message::Unwant(root) => self.peers[to].server.unwant(from, root),
            Message::Holds(root, set) => {
                self.peers[to].checker.holds(from, root, &set);
                self.tell(to, Event::Holds { peer: from, root, set });
            }
            Message::Have(root, runs) => {
                self.peers[to].checker.have(from, root, &runs);
                self.tell(to, Event::Have { peer: from, root, runs });
            }
            Message::Request(request, blob, class, groups) => self.requested(from, to, request, blob, class, groups),
            Message::Cancel(request, class) => {
                if self.peers[to].server.cancel(from, class, request) {
                    self.send(to, from, Message::Reject(request, Rejected::Cancelled));
                }
            }
            Message::Reject(request, why) => {
                self.peers[to].checker.closed(request);
                self.tell(to, Event::Rejected { request, why });
            }
            Message::First(request) => self.tell(to, Event::First { request }),
            Message::Group(request, root, group, wrong) => self.arrived(from, to, request, root, group, wrong),
            Message::Done(request) => {
                self.peers[to].checker.closed(request);
                self.tell(to, Event::Done { request });
            }
            Message::Failed(request) => {
                self.peers[to].checker.closed(request);
                self.tell(to, Event::Failed { request });
            }
        }
    }

    fn requested(&mut self, from: Node, to: Node, request: RequestId, blob: BlobRef, class: Class, groups: Range<u64>) {
        let server = &mut self.peers[to].server;
        if let Some(why) = server.refuses(from) {
            return self.send(to, from, Message::Reject(request, why));
        }
        if server.breaks() {
            return self.send(to, from, Message::Failed(request));
        }
        let piece = Pieces::of_blob(&blob).unwrap().piece_of(groups.start);
        if !self.peers[to].copies.get(&blob.root).is_some_and(|copy| copy.set.contains(piece)) {
            return self.send(to, from, Message::Reject(request, Rejected::NotHeld));
        }
        let answer = Answer { request, root: blob.root, groups, piece, begun: false };
        self.peers[to].server.enqueue(from, class, answer);
        self.serve(to);
    }

    /// Sends the next group, if the line up is free.
    fn serve(&mut self, node: Node) {
        if self.peers[node].server.sending {
            return;
        }
        let Some(next) = self.peers[node].server.next() else { return };
        let peer = &mut self.peers[node];
        peer.server.sending = true;
        let pieces = peer.copies[&next.root].pieces;
        let bytes = pieces.bytes_of(next.group..next.group + 1);
        // Proofs and framing: 0.4 %.
        let bytes = (bytes.end - bytes.start) * 1004 / 1000 + 64;
        let sent = self.now + seconds(bytes, peer.up);
        self.push(sent, Happening::Uplink(node));
        let Some(link) = self.peers[node].links.get(&next.to).copied() else { return };
        let delay = self.peers[node].delay + self.peers[next.to].delay;
        let message = |message| Happening::Message { from: node, to: next.to, link, message };
        if next.first {
            self.push(self.now + delay, message(Message::First(next.request)));
        }
        self.push(sent + delay, Happening::Landed { from: node, link, bytes, next });
    }

    /// A group is at its receiver's end of the net: it comes through the line down in its turn.
    fn landed(&mut self, from: Node, link: u64, bytes: u64, next: Next) {
        let receiver = &mut self.peers[next.to];
        let arrives = self.now.max(receiver.down_free + seconds(bytes, receiver.down));
        receiver.down_free = arrives;
        let message = |message| Happening::Message { from, to: next.to, link, message };
        self.push(arrives, message(Message::Group(next.request, next.root, next.group, next.wrong)));
        if next.last {
            self.push(arrives, message(Message::Done(next.request)));
        }
    }

    fn arrived(&mut self, from: Node, to: Node, request: RequestId, root: Digest, group: u64, wrong: bool) {
        if self.peers[to].banned.contains(&from) {
            return;
        }
        if wrong {
            self.peers[to].checker.wrong(from);
            return self.tell(to, Event::Wrong { request });
        }
        let peer = &mut self.peers[to];
        peer.checker.group(request, group);
        let Some(copy) = peer.copies.get_mut(&root) else { return };
        let complete = copy.write(group);
        let (news, got) = (copy.news.len(), copy.got_bytes);
        self.tell(to, Event::Group { request, group });
        if let Some(progress) = self.peers[to].scheduler.progress(root).filter(|_| self.events.is_multiple_of(16)) {
            assert!(progress.bytes <= got, "an unfinished group was counted");
        }
        if complete && news >= 16 {
            self.announce(to);
        } else if complete && !std::mem::replace(&mut self.peers[to].flush, true) {
            self.push(self.now + Duration::from_millis(250), Happening::Flush(to));
        }
    }

    fn announce(&mut self, node: Node) {
        let mut news = Vec::new();
        for (root, copy) in &mut self.peers[node].copies {
            if !copy.news.is_empty() {
                copy.news.sort_unstable();
                let runs: Vec<Range<u32>> = copy.news.drain(..).map(|piece| piece..piece + 1).collect();
                news.push((*root, runs));
            }
        }
        for (root, runs) in news {
            let listeners: Vec<Node> = self.peers[node].server.listeners(root).collect();
            listeners.into_iter().for_each(|to| self.send(node, to, Message::Have(root, runs.clone())));
        }
    }

    /// Whether a node has all of all blobs that it ever wanted.
    pub(crate) fn is_done(&self, node: Node) -> bool {
        self.peers[node].copies.values().all(|copy| !copy.wanted)
    }
}

fn seconds(bytes: u64, rate: u64) -> Duration {
    Duration::from_nanos((u128::from(bytes) * 1_000_000_000 / u128::from(rate)) as u64)
}
