//! A world for state machines: N engines, a chain with a finality lag, and fakes of all that takes time. What is under
//! way ends in a seeded random order and may fail; blocks come when every live engine is idle, seldom earlier. One seed
//! is one history. What must hold at any instant is asserted here; what a history must come to, in the tests.

use super::{Action, Collection, Engine, Event, Halt, Roles, Settlement, Task, Tip};
use crate::clock::{RoundBlocks, last_decided};
use chain::Chain;
use covey_proto::chain::Member;
use covey_proto::record::{Contribution, Record, UidSet, Vote};
use covey_proto::run::Run;
use covey_proto::{BlockNumber, Digest, Hotkey, Round, RunId, Uid};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

mod chain;

pub(super) use chain::{Rng, devnet};

/// What goes wrong, once in so many times; 0: never.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// A step of the world kills a node that `mortal` admits.
    pub(super) kill: usize,
    /// An outer step has a wrong result; on nodes that `fallible` admits.
    pub(super) diverge: usize,
    /// Training yields nothing.
    pub(super) train: usize,
    /// A fetch never ends.
    pub(super) fetch: usize,
    /// A call to the chain gets lost.
    pub(super) send: usize,
    /// A state is not to be had.
    pub(super) read: usize,
    /// A block comes though somebody works.
    pub(super) hurry: usize,
    /// A block comes while a node hashes its state.
    pub(super) hash: usize,
}

/// Something under way on a node.
#[derive(Clone, Debug)]
enum Job {
    Heads,
    Read(BlockNumber),
    Join(Tip),
    Train { task: Box<Task>, stopped: bool },
    Send(Round, Record),
    Announce(Round),
    Fetch { round: Round, uid: Uid, digest: Digest, base: Digest, lost: bool },
    Patience(Round),
    Apply(Settlement),
    Seal(Settlement),
    Starve(Round),
    Score(Round),
}

/// What survives a kill.
#[derive(Clone, Debug)]
struct Disk {
    tip: Tip,
    committed: Option<(Round, Digest)>,
    vote: Option<Vote>,
    blobs: BTreeSet<Digest>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) engine: Option<Engine>,
    pub(super) roles: Roles,
    pub(super) hotkey: Option<Hotkey>,
    pub(super) mortal: bool,
    pub(super) fallible: bool,
    /// It gets nobody's bytes while they are collected.
    pub(super) deaf: bool,
    /// The block at which it starts, while it is down.
    pub(super) wakes_at: Option<u32>,
    pub(super) halted: Option<Halt>,
    pub(super) diverged: u32,
    pub(super) trained: Vec<Round>,
    disk: Disk,
    jobs: Vec<Job>,
    seen: u32,
    impatient: Option<Round>,
}

pub(super) struct World {
    pub(super) run: Arc<Run>,
    pub(super) run_id: RunId,
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    pub(super) nodes: Vec<Node>,
    chain: Chain,
    pub(super) steps: u64,
    /// Hotkeys whose votes the chain does not take.
    pub(super) censored: BTreeSet<Hotkey>,
    /// Contributions whose bytes nobody gives.
    withheld: BTreeSet<Digest>,
    /// The one selection of each round.
    pub(super) selected: BTreeMap<Round, Settlement>,
    /// The one head of each round, of those that have made no mistake.
    pub(super) heads: BTreeMap<Round, Digest>,
    /// Trainings that began before their base's head was known.
    pub(super) early: u32,
    announced: BTreeSet<Digest>,
    made: BTreeMap<Digest, (Hotkey, Round, Digest)>,
    seed: u64,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in the history of seed {} at step {}, block {}", self.seed, self.steps, self.chain.best);
        }
    }
}

pub(super) fn hotkey(number: usize) -> Hotkey {
    Hotkey::new([u8::try_from(number).unwrap() + 1; 32])
}

pub(super) const MINER: Roles = Roles { miner: true, validator: false };
pub(super) const VALIDATOR: Roles = Roles { miner: false, validator: true };
pub(super) const FOLLOWER: Roles = Roles { miner: false, validator: false };

impl Node {
    /// Whether a state's parameters are there, but not its head.
    fn is_sealing(&self) -> bool {
        self.jobs.iter().any(|job| matches!(job, Job::Seal(_)))
    }
}

impl World {
    /// A world whose nodes have these roles; uid and hotkey are the node's number, followers have none.
    pub(super) fn new(seed: u64, roles: &[Roles]) -> World {
        World::of(Arc::new(devnet()), seed, roles)
    }

    pub(super) fn of(run: Arc<Run>, seed: u64, roles: &[Roles]) -> World {
        let mut world = World {
            run_id: run.id(),
            run,
            rng: Rng::new(seed),
            faults: Faults::default(),
            nodes: Vec::new(),
            chain: Chain::new(seed),
            steps: 0,
            censored: BTreeSet::new(),
            withheld: BTreeSet::new(),
            selected: BTreeMap::new(),
            heads: BTreeMap::new(),
            early: 0,
            announced: BTreeSet::new(),
            made: BTreeMap::new(),
            seed,
        };
        for roles in roles {
            let number = world.add(*roles);
            world.register(number);
            world.start(number);
        }
        world.chain.keep_view();
        world
    }

    /// A node that is not started and not registered.
    pub(super) fn add(&mut self, roles: Roles) -> usize {
        let number = self.nodes.len();
        let disk = Disk { tip: Tip::genesis(self.run_id), committed: None, vote: None, blobs: BTreeSet::new() };
        self.nodes.push(Node {
            engine: None,
            roles,
            hotkey: (roles != FOLLOWER).then(|| hotkey(number)),
            mortal: true,
            fallible: true,
            deaf: false,
            wakes_at: None,
            halted: None,
            diverged: 0,
            trained: Vec::new(),
            disk,
            jobs: Vec::new(),
            seen: 0,
            impatient: None,
        });
        number
    }

    pub(super) fn register(&mut self, number: usize) {
        let node = &self.nodes[number];
        if let Some(hotkey) = node.hotkey {
            let uid = Uid::from(number as u8);
            let stake = if node.roles.validator { 10 } else { 0 };
            let permit = node.roles.validator;
            self.chain
                .members
                .insert(uid, Member { uid, hotkey, registered_at: BlockNumber(self.chain.best), permit, stake });
        }
    }

    pub(super) fn start(&mut self, number: usize) {
        let (run, node) = (self.run.clone(), &mut self.nodes[number]);
        let (tip, committed) = (node.disk.tip, node.disk.committed);
        node.engine = Some(Engine::new(run, node.roles, node.hotkey, tip, committed));
        node.wakes_at = None;
        node.jobs = vec![Job::Heads];
    }

    pub(super) fn kill(&mut self, number: usize, blocks_away: u32) {
        let node = &mut self.nodes[number];
        node.engine = None;
        node.jobs.clear();
        node.wakes_at = Some(self.chain.best + blocks_away);
    }

    // ---- the chain --------------------------------------------------------------------------------------------------

    fn produce(&mut self) {
        self.chain.produce();
        for number in 0..self.nodes.len() {
            if self.nodes[number].wakes_at.is_some_and(|block| block <= self.chain.best) {
                self.start(number);
            }
            let node = &mut self.nodes[number];
            if node.engine.is_some() && !node.jobs.iter().any(|job| matches!(job, Job::Heads)) {
                node.jobs.push(Job::Heads);
            }
        }
    }

    // ---- time -------------------------------------------------------------------------------------------------------

    /// Goes on until the chain is at `block` and all is done.
    pub(super) fn run_to(&mut self, block: u32) {
        while self.chain.best < block || !self.all_idle() {
            self.step();
        }
    }

    /// Goes on until `rounds` rounds are decided.
    pub(super) fn run_rounds(&mut self, rounds: u32) {
        let blocks = RoundBlocks::of(&self.run, Round(rounds)).unwrap();
        // The block at which the last V is final; the next A is not.
        self.run_to(blocks.start.0 - 2);
    }

    fn all_idle(&self) -> bool {
        self.nodes.iter().all(|node| {
            let Some(engine) = &node.engine else { return true };
            !engine.is_live() || (engine.is_idle() && node.seen == self.chain.best)
        })
    }

    /// One thing happens: something under way ends, a block comes, a node is killed.
    pub(super) fn step(&mut self) {
        self.steps += 1;
        if self.rng.once_in(self.faults.kill) {
            let number = self.rng.below(self.nodes.len());
            let blocks = self.rng.below(60) as u32;
            if self.nodes[number].mortal && self.nodes[number].engine.is_some() {
                self.kill(number, 1 + blocks);
            }
        }
        let hashing = self.faults.hash > 0 && self.nodes.iter().any(Node::is_sealing);
        if self.rng.once_in(self.faults.hurry) || (hashing && self.rng.once_in(self.faults.hash)) {
            return self.produce();
        }
        let mut ready: Vec<(usize, usize)> = Vec::new();
        let mut timers: Vec<(usize, usize)> = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            for (place, job) in node.jobs.iter().enumerate() {
                match job {
                    Job::Patience(_) | Job::Starve(_) => timers.push((number, place)),
                    job if self.can_end(node, job) => ready.push((number, place)),
                    _ => {}
                }
            }
        }
        // Patience ends when nothing else happens, sometimes before.
        let idle = self.all_idle();
        let over = if ready.is_empty() { !idle } else { !timers.is_empty() && self.rng.once_in(400) };
        if over {
            ready = timers;
        }
        // Nodes that catch up do not hold the others up: blocks come between their steps.
        if idle && (ready.is_empty() || self.rng.once_in(4)) {
            return self.produce();
        }
        assert!(!ready.is_empty(), "deadlock: {:?}", self.busy());
        let (number, place) = ready[self.rng.below(ready.len())];
        let job = self.nodes[number].jobs.remove(place);
        self.end(number, job);
    }

    fn busy(&self) -> Vec<(usize, &'static str, &Vec<Job>)> {
        let phase = |node: &Node| node.engine.as_ref().map_or("down", Engine::phase);
        self.nodes.iter().enumerate().map(|(number, node)| (number, phase(node), &node.jobs)).collect()
    }

    fn can_end(&self, node: &Node, job: &Job) -> bool {
        match job {
            Job::Fetch { digest, lost, .. } => {
                !lost && (node.disk.blobs.contains(digest) || self.is_announced_and_held(digest))
            }
            Job::Apply(settlement) => {
                let had = |digest: &Digest| node.disk.blobs.contains(digest) || self.is_held(digest);
                settlement.chosen.iter().all(|(_, digest)| had(digest))
            }
            // A contribution names the head that it is based on.
            Job::Train { task, .. } => task.base.is_some() || node.disk.tip.next() == task.round,
            _ => true,
        }
    }

    fn is_held(&self, digest: &Digest) -> bool {
        let holds = |node: &Node| node.engine.is_some() && node.disk.blobs.contains(digest);
        !self.withheld.contains(digest) && self.nodes.iter().any(holds)
    }

    fn is_announced_and_held(&self, digest: &Digest) -> bool {
        self.announced.contains(digest) && self.is_held(digest)
    }

    // ---- what ends --------------------------------------------------------------------------------------------------

    fn end(&mut self, number: usize, job: Job) {
        let event = match job {
            Job::Heads => {
                self.nodes[number].seen = self.chain.best;
                Event::Heads { best: BlockNumber(self.chain.best), finalised: BlockNumber(self.chain.finalised()) }
            }
            Job::Read(block) => {
                assert!(block.0 <= self.chain.finalised(), "read of block {block}, which is not final");
                match self.chain.views.get(&block.0).filter(|_| !self.rng.once_in(self.faults.read)) {
                    Some(view) => Event::View(view.clone()),
                    None => Event::NoView(block),
                }
            }
            Job::Join(tip) => {
                self.nodes[number].disk.tip = tip;
                Event::Joined(tip)
            }
            Job::Train { task, stopped } => Event::Trained(task.round, self.train(number, &task, stopped)),
            Job::Send(round, record) => {
                let hotkey = self.nodes[number].hotkey.unwrap();
                let lost = record.vote.is_some() && self.censored.contains(&hotkey);
                if !lost && !self.rng.once_in(self.faults.send) {
                    self.chain.pool.push((hotkey, record));
                }
                Event::Sent(round)
            }
            Job::Announce(round) => {
                // A round later the journal names another.
                let made = self.nodes[number].disk.committed.filter(|(made, _)| *made == round);
                self.announced.extend(made.map(|(_, digest)| digest));
                Event::Sent(round)
            }
            Job::Fetch { round, uid, digest, base, .. } => match self.made.get(&digest) {
                Some((_, of, on)) if (*of, *on) == (round, base) => {
                    self.nodes[number].disk.blobs.insert(digest);
                    Event::Held(round, uid)
                }
                _ => Event::Refused(round, uid),
            },
            Job::Patience(round) => {
                let node = &mut self.nodes[number];
                node.impatient = node.impatient.max(Some(round));
                Event::CollectingOver(round)
            }
            Job::Starve(round) => Event::Starving(round),
            Job::Apply(settlement) => {
                let node = &mut self.nodes[number];
                node.jobs.retain(|job| !matches!(job, Job::Starve(_)));
                node.disk.blobs.extend(settlement.chosen.iter().map(|(_, digest)| *digest));
                let round = settlement.round;
                node.jobs.push(Job::Seal(settlement));
                Event::Stepped(round)
            }
            Job::Seal(settlement) => self.seal(number, settlement),
            Job::Score(round) => Event::Scored(round),
        };
        // Killed between the disk and the word of it.
        if self.nodes[number].mortal && self.rng.once_in(10 * self.faults.kill) {
            return self.kill(number, 1);
        }
        self.tell(number, event);
    }

    fn train(&mut self, number: usize, task: &Task, stopped: bool) -> Option<Digest> {
        if stopped || self.rng.once_in(self.faults.train) {
            return None;
        }
        let node = &mut self.nodes[number];
        // Never the same twice: who trains a round again has other bytes.
        let base = task.base.unwrap_or(node.disk.tip.head);
        let text = format!("{number} {} {base} {}", task.round, self.steps);
        let digest = Digest::of(text.as_bytes());
        self.made.insert(digest, (task.member.hotkey, task.round, base));
        node.trained.push(task.round);
        node.disk.committed = Some((task.round, digest));
        node.disk.blobs.insert(digest);
        Some(digest)
    }

    fn seal(&mut self, number: usize, settlement: Settlement) -> Event {
        let node = &mut self.nodes[number];
        let round = settlement.round;
        let text = format!("{} {} {:?} {:?}", settlement.parent, round, settlement.chosen, settlement.hashes);
        let mut head = Digest::of(text.as_bytes());
        let right = round.previous().map_or(Some(&self.run_id.0), |before| self.heads.get(&before));
        let astray = right != Some(&settlement.parent);
        if node.fallible && self.rng.once_in(self.faults.diverge) {
            head = Digest::of(format!("wrong {number} {round}").as_bytes());
        } else if !astray {
            assert_eq!(*self.heads.entry(round).or_insert(head), head, "round {round} has two heads");
        }
        let told = (&settlement.chosen, settlement.void, settlement.hashes);
        let first = self.selected.entry(round).or_insert_with(|| settlement.clone());
        assert_eq!((&first.chosen, first.void, first.hashes), told, "round {round} has two selections");
        node.disk.tip = Tip { round: Some(round), head };
        Event::Applied(round, head)
    }

    // ---- what is asked for ------------------------------------------------------------------------------------------

    fn tell(&mut self, number: usize, event: Event) {
        let mut actions = Vec::new();
        let Some(engine) = &mut self.nodes[number].engine else { return };
        engine.handle(event, &mut actions);
        for action in actions {
            self.perform(number, action);
        }
        self.check(number);
    }

    fn perform(&mut self, number: usize, action: Action) {
        let (run, best, run_id) = (self.run.clone(), self.nodes[number].seen, self.run_id);
        let blocks = |round| RoundBlocks::of(&run, round).unwrap();
        let mut record = Record::of(run_id);
        let node = &mut self.nodes[number];
        let tip = node.engine.as_ref().unwrap().tip();
        match action {
            Action::Read(block) => node.jobs.push(Job::Read(block)),
            Action::Join { round, head } => {
                assert!(!node.is_sealing(), "leaves a round whose state it is writing");
                node.jobs.retain(|job| !matches!(job, Job::Apply(_) | Job::Starve(_)));
                let right = round.map_or(Some(&run_id.0), |round| self.heads.get(&round));
                assert_eq!(right, Some(&head), "joins a head of {round:?} that is nobody's");
                node.jobs.push(Job::Join(Tip { round, head }));
            }
            Action::Train(task) => {
                let (round, base) = match node.is_sealing() {
                    true => (tip.next().next(), None),
                    false => (tip.next(), Some(tip.head)),
                };
                assert_eq!((task.round, task.base, Some(task.member.hotkey)), (round, base, node.hotkey));
                self.early += u32::from(base.is_none());
                assert!(best <= blocks(task.round).submit_latest.0, "trains a round too late");
                node.jobs.push(Job::Train { task: Box::new(task), stopped: false });
            }
            Action::StopTraining(_) => node.jobs.iter_mut().for_each(|job| {
                if let Job::Train { stopped, .. } = job {
                    *stopped = true;
                }
            }),
            Action::Commit(round, manifest) => {
                assert!(best <= blocks(round).submit_latest.0, "commits too late");
                assert_eq!(node.disk.committed, Some((round, manifest)), "commits what is not in the journal");
                record.contribution = Some(Contribution { round, manifest });
                record.vote = node.disk.vote;
                node.jobs.push(Job::Send(round, record));
            }
            Action::Announce(round) => {
                let slot = &self.chain.views[&blocks(round).commit.0].slots[&node.hotkey.unwrap()];
                let standing = Record::from_bytes(&slot.bytes).unwrap().contribution.unwrap();
                assert_eq!(
                    node.disk.committed,
                    Some((standing.round, standing.manifest)),
                    "reveals what is not standing"
                );
                node.jobs.push(Job::Announce(round));
            }
            Action::Collect(collection) => self.collect(number, &collection),
            Action::Vote { round, head, held } => {
                assert!((round, head) == (tip.next(), tip.head) && !node.is_sealing(), "votes for a head of before");
                assert!((blocks(round).vote_submit.0..blocks(round).vote.0).contains(&best), "votes too early or late");
                let ballot: UidSet = held.iter().take(run.electorate.contributions_max as usize).collect();
                node.disk.vote = Some(Vote { round, head, ballot });
                record.vote = node.disk.vote;
                node.jobs.push(Job::Send(round, record));
            }
            Action::Apply(settlement) => {
                assert_eq!((settlement.round, settlement.parent), (tip.next(), tip.head), "applies out of order");
                node.jobs.push(Job::Starve(settlement.round));
                node.jobs.push(Job::Apply(settlement));
            }
            Action::Score(collection) => node.jobs.push(Job::Score(collection.round)),
            Action::Diverged { mine, agreed, .. } => {
                assert!(mine != agreed && self.heads.values().all(|head| *head != mine), "a right head called wrong");
                node.diverged += 1;
            }
            Action::Halt(why) => node.halted = Some(why),
        }
    }

    fn collect(&mut self, number: usize, collection: &Collection) {
        let (round, base) = (collection.round, collection.base);
        let jobs = collection.offered.iter().map(|(uid, digest)| {
            let own = self.nodes[number].disk.blobs.contains(digest);
            let lost = !own && (self.nodes[number].deaf || self.rng.once_in(self.faults.fetch));
            Job::Fetch { round, uid: *uid, digest: *digest, base, lost }
        });
        let jobs: Vec<Job> = jobs.collect();
        let node = &mut self.nodes[number];
        node.impatient = None;
        // A collection that begins anew has its own patience.
        node.jobs.retain(|job| !matches!(job, Job::Fetch { .. } | Job::Patience(_)));
        node.jobs.push(Job::Patience(round));
        node.jobs.extend(jobs);
    }

    /// Idle means idle.
    fn check(&self, number: usize) {
        let node = &self.nodes[number];
        let Some(engine) = node.engine.as_ref().filter(|engine| engine.is_live() && engine.is_idle()) else { return };
        for job in &node.jobs {
            let waits_for_others = match job {
                Job::Heads | Job::Patience(_) | Job::Starve(_) | Job::Train { stopped: true, .. } => true,
                Job::Fetch { round, .. } => engine.phase() != "exchange" || node.impatient == Some(*round),
                Job::Apply(_) => !node.jobs.iter().any(|job| matches!(job, Job::Starve(_))),
                _ => false,
            };
            assert!(waits_for_others, "node {number} says it is idle in {} and has {job:?}", engine.phase());
        }
    }

    /// Nobody gives a round's bytes any more.
    pub(super) fn withhold(&mut self, round: Round) {
        let of_round = self.made.iter().filter(|(_, (_, of, _))| *of == round);
        self.withheld.extend(of_round.map(|(digest, _)| *digest));
    }

    // ---- what has come of it ----------------------------------------------------------------------------------------

    /// Nothing goes wrong from now on, and who is down comes back.
    pub(super) fn calm(&mut self) {
        self.faults = Faults::default();
        self.censored.clear();
        self.withheld.clear();
        for number in 0..self.nodes.len() {
            if self.nodes[number].wakes_at.is_some() {
                self.start(number);
            }
        }
    }

    /// Asserts that every node stands where the chain does, and that the last round applies every miner's contribution.
    pub(super) fn assert_well(&self) {
        let last = last_decided(&self.run, BlockNumber(self.chain.finalised())).unwrap();
        for (number, node) in self.nodes.iter().enumerate() {
            assert_eq!(node.halted, None, "node {number}");
            let engine = node.engine.as_ref().unwrap();
            let tip = Tip { round: Some(last), head: self.heads[&last] };
            assert_eq!((engine.is_live(), engine.tip()), (true, tip), "node {number} in {}", engine.phase());
        }
        let miners = self.nodes.iter().enumerate().filter(|(_, node)| node.roles.miner);
        let miners: Vec<Uid> = miners.map(|(number, _)| Uid::from(number as u8)).collect();
        assert_eq!(self.chosen(last), miners, "round {last} lacks a contribution");
        let voters: UidSet =
            (0..).zip(&self.nodes).filter(|(_, node)| node.roles.validator).map(|(uid, _)| Uid::from(uid)).collect();
        assert_eq!(self.selected[&last].holders, voters, "round {last} lacks a vote");
    }

    /// The uids whose contributions a round applied.
    pub(super) fn chosen(&self, round: Round) -> Vec<Uid> {
        self.selected[&round].chosen.iter().map(|(uid, _)| *uid).collect()
    }
}
