//! A world for the submitter: one node, a chain with reorganisations, refusals and lost nonces, a journal that survives
//! kills. What is under way ends in a seeded random order and may fail. One seed is one history. What must hold at any
//! instant is asserted here; what a history must come to, in the tests.

use super::Submitter;
use super::message::{
    Action, Content, Event, Fate, MemorisedContribution, Memory, News, SignedCall, Ticket, Trouble, Wish,
};
use chain::Chain;
use covey_proto::record::{Contribution, Record, Vote};
use covey_proto::{BlockNumber, Digest, Hotkey, Round, RunId, Uid, derive};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

mod chain;

pub(super) use chain::ChainFaults;

pub(super) const ME: Hotkey = Hotkey::new([1; 32]);
pub(super) const RUN: RunId = RunId(Digest::ZERO);

/// Blocks of a round; the blocks of it by which a contribution and a vote must stand.
pub(super) const LENGTH: u32 = 90;
const COMMIT: u32 = 40;
const VOTE: u32 = 80;

/// What goes wrong, once in so many times; 0: never.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// A step of the world kills the node.
    pub(super) kill: usize,
    /// The chain does not answer.
    pub(super) silence: usize,
    /// The journal cannot be written.
    pub(super) journal: usize,
    /// Weights are taken some blocks later.
    pub(super) too_soon: usize,
    /// On the chain.
    pub(super) chain: ChainFaults,
}

/// Randomness that follows from a seed.
pub(super) struct Dice(Box<dyn Read>);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(Box::new(derive("covey/1/test/submit", &[&seed.to_le_bytes()])))
    }
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.read_exact(&mut bytes).unwrap();
        (u64::from_le_bytes(bytes) % bound.max(1) as u64) as usize
    }
    /// True once in `times`; never if that is 0.
    pub(super) fn once_in(&mut self, times: usize) -> bool {
        times > 0 && self.below(times) == 0
    }
}

/// Something under way.
#[derive(Clone, Debug)]
enum Job {
    Heads,
    Sign(Ticket, Content),
    Journal(Ticket, Contribution, SignedCall),
    HandOver(Ticket, SignedCall),
    ReadSlot(Ticket, BlockNumber),
    AskFate(Ticket, SignedCall, BlockNumber),
    Pause(Ticket),
}

/// What survives a kill.
#[derive(Clone, Debug, Default)]
struct Journal {
    contribution: Option<(Contribution, Option<SignedCall>)>,
    vote: Option<Vote>,
}

/// What was wished in this life.
#[derive(Clone, Debug)]
struct Wished {
    wish: Wish,
    until: u32,
    answered: bool,
    /// Its calls, the last one last.
    calls: Vec<SignedCall>,
    /// The last one cannot come any more, as the node was told.
    lost: bool,
}

/// One life's wishes, and what must hold of them.
#[derive(Default)]
struct Life {
    wishes: BTreeMap<Ticket, Wished>,
    /// Whose turn it is.
    turn: Option<Ticket>,
    /// A call that has its nonce and was not taken or refused yet.
    unsent: Option<Ticket>,
    last_record: Option<Ticket>,
    last_weights: Option<Ticket>,
    /// The newest block that the node has heard of.
    best: u32,
}

pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) faults: Faults,
    pub(super) chain: Chain,
    pub(super) steps: u64,
    pub(super) kills: u32,
    node: Option<Submitter>,
    jobs: Vec<Job>,
    journal: Journal,
    life: Life,
    /// Records that are wanted, in any life.
    wanted: Vec<(Wish, u32)>,
    tickets: u64,
    /// The one contribution of each round, in all lives.
    contributions: BTreeMap<Round, Contribution>,
    pub(super) told: Vec<News>,
    /// The step at which the node is killed, and whether the pool forgets everything with it.
    kill_at: Option<(u64, bool)>,
    seed: u64,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in the history of seed {} at step {}, block {}", self.seed, self.steps, self.chain.best());
        }
    }
}

pub(super) fn contribution(round: u32) -> Contribution {
    Contribution { round: Round(round), manifest: Digest::of(&round.to_le_bytes()) }
}

pub(super) fn vote(round: u32) -> Vote {
    Vote { round: Round(round), head: Digest::of(&round.to_le_bytes()), ballot: [Uid::from(1)].into_iter().collect() }
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut world = World {
            dice: Dice::new(seed),
            faults: Faults::default(),
            chain: Chain::new(),
            steps: 0,
            kills: 0,
            node: None,
            jobs: Vec::new(),
            journal: Journal::default(),
            life: Life::default(),
            wanted: Vec::new(),
            tickets: 0,
            contributions: BTreeMap::new(),
            told: Vec::new(),
            kill_at: None,
            seed,
        };
        world.start();
        world
    }

    // ---- lives ------------------------------------------------------------------------------------------------------

    pub(super) fn kill(&mut self) {
        self.node = None;
        self.jobs.clear();
        self.life = Life::default();
        self.chain.forget_client();
        self.kills += 1;
    }

    /// The node is killed at a step, once.
    pub(super) fn kill_at(&mut self, step: u64, pool_forgets: bool) {
        self.kill_at = Some((step, pool_forgets));
    }

    /// As a node starts: what the last life signed first, then what the state machine of rounds wants again.
    fn start(&mut self) {
        let best = self.chain.best();
        let until_of = |contribution: &Contribution| BlockNumber(contribution.round.0 * LENGTH + COMMIT);
        let contribution = self.journal.contribution.as_ref().map(|(contribution, call)| MemorisedContribution {
            contribution: *contribution,
            until: until_of(contribution),
            call: call.clone().map(|call| (call, Some(ME))),
        });
        let node = Submitter::new(RUN, Some(ME), Memory { vote: self.journal.vote, contribution });
        if let Some(call) = node.to_resume(BlockNumber(best)) {
            if self.dice.once_in(self.faults.silence) {
                return;
            }
            // Refused: it is in a block, most likely.
            let _ = self.chain.submit(call);
        }
        self.node = Some(node);
        self.tell_heads();
        for (wish, until) in self.wanted.clone() {
            if best < until {
                self.put(wish, until);
            }
        }
    }

    // ---- wishes -----------------------------------------------------------------------------------------------------

    /// A miner journals its contribution, then wishes it on chain.
    pub(super) fn contribute(&mut self, round: u32) {
        let (mine, until) = (contribution(round), round * LENGTH + COMMIT);
        self.journal.contribution = Some((mine, None));
        self.want(Wish::Contribution(mine), until);
    }

    /// A validator journals its vote, then wishes it on chain.
    pub(super) fn vote(&mut self, round: u32) {
        self.journal.vote = Some(vote(round));
        self.want(Wish::Vote(vote(round)), round * LENGTH + VOTE);
    }

    fn want(&mut self, wish: Wish, until: u32) {
        self.wanted.retain(|(_, until)| *until > self.chain.finalised());
        self.wanted.push((wish.clone(), until));
        self.put(wish, until);
    }

    /// A validator wishes weights on chain; a node that is down scores nothing.
    pub(super) fn set_weights(&mut self, share: u16) {
        self.put(Wish::Weights(vec![(Uid::from(1), share)]), self.chain.best() + LENGTH);
    }

    fn put(&mut self, wish: Wish, until: u32) {
        if self.node.is_none() {
            return;
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let is_weights = matches!(wish, Wish::Weights(_));
        self.life.last_weights = if is_weights { Some(ticket) } else { self.life.last_weights };
        let wished = Wished { wish: wish.clone(), until, answered: false, calls: Vec::new(), lost: false };
        self.life.wishes.insert(ticket, wished);
        self.tell(Event::Wished { ticket, wish, until: BlockNumber(until) });
    }

    /// Plays a round: wishes come at random blocks of their windows; faults end well before the deadlines, if `calm`.
    pub(super) fn play_round(&mut self, round: u32, calm: bool) {
        let faults = self.faults;
        let start = round * LENGTH;
        let come = start + self.dice.below(4) as u32;
        self.run_to(come);
        self.contribute(round);
        self.run_to(start + 8);
        self.set_weights(round as u16);
        self.run_to(start + 14);
        self.faults = if calm { Faults::default() } else { faults };
        self.run_to(start + COMMIT + 2);
        self.faults = faults;
        self.vote(round);
        let come = start + COMMIT + 6 + self.dice.below(4) as u32;
        self.run_to(come);
        self.set_weights(round as u16 + 1_000);
        self.run_to(start + COMMIT + 14);
        self.faults = if calm { Faults::default() } else { faults };
        if calm {
            self.run_to(start + COMMIT + 16);
            self.set_weights(round as u16 + 2_000);
        }
        self.run_to(start + VOTE + 2);
        self.faults = faults;
    }

    // ---- time -------------------------------------------------------------------------------------------------------

    pub(super) fn run_to(&mut self, block: u32) {
        while self.chain.finalised() + 2 < block {
            self.step();
        }
    }

    /// One thing happens: something under way ends, a block comes, the node is killed or comes back.
    pub(super) fn step(&mut self) {
        if let Some((_, pool_forgets)) = self.kill_at.take_if(|(step, _)| *step == self.steps) {
            self.kill();
            if pool_forgets {
                self.chain.forget_pool();
            }
        }
        self.steps += 1;
        if self.node.is_some() && self.dice.once_in(self.faults.kill) {
            self.kill();
        }
        if self.node.is_none() && (self.faults.kill == 0 || self.dice.once_in(20)) {
            self.start();
        }
        if self.jobs.is_empty() || self.dice.once_in(12) {
            return self.produce();
        }
        let at = self.dice.below(self.jobs.len());
        let job = self.jobs.remove(at);
        self.finish(job);
    }

    fn produce(&mut self) {
        self.chain.produce(&mut self.dice, self.faults.chain);
        if self.node.is_some() && !self.jobs.iter().any(|job| matches!(job, Job::Heads)) {
            self.jobs.push(Job::Heads);
        }
        self.check_chain();
    }

    fn tell_heads(&mut self) {
        let (best, finalised) = (self.chain.best(), self.chain.finalised());
        self.life.best = best;
        self.tell(Event::Heads { best: BlockNumber(best), finalised: BlockNumber(finalised) });
    }

    fn silence(&mut self) -> Option<Trouble> {
        self.dice.once_in(self.faults.silence).then(|| Trouble::NoAnswer("silence".into()))
    }

    fn finish(&mut self, job: Job) {
        let event = match job {
            Job::Heads => return self.tell_heads(),
            Job::Sign(ticket, content) => self.sign(ticket, content),
            Job::Journal(ticket, ..) if self.dice.once_in(self.faults.journal) => {
                self.life.turn = None;
                self.life.unsent = None;
                Event::NotJournalled(ticket, "the disk is full".into())
            }
            Job::Journal(ticket, mine, call) => {
                assert_eq!(self.journal.contribution.as_ref().map(|(named, _)| *named), Some(mine), "journals another");
                self.journal.contribution = Some((mine, Some(call)));
                Event::Journalled(ticket)
            }
            Job::HandOver(ticket, call) => self.hand_over(ticket, &call),
            Job::ReadSlot(ticket, block) => match self.silence() {
                Some(_) => Event::SlotUnread(ticket),
                None => Event::Slot(ticket, self.chain.slot_at(block.0)),
            },
            Job::AskFate(ticket, call, block) => match self.silence() {
                Some(trouble) => Event::FateUnknown(ticket, trouble.to_string()),
                None => {
                    let fate = self.chain.fate(&call, block);
                    if let Some(wished) = self.life.wishes.get_mut(&ticket) {
                        wished.lost |= fate == Fate::Lost;
                    }
                    Event::Fate(ticket, fate)
                }
            },
            Job::Pause(ticket) => Event::PauseOver(ticket),
        };
        // Killed between the deed and the word of it.
        if self.dice.once_in(10 * self.faults.kill) {
            return self.kill();
        }
        self.tell(event);
    }

    fn sign(&mut self, ticket: Ticket, content: Content) -> Event {
        let is_weights = matches!(content, Content::Weights(_));
        let trouble = match self.silence() {
            None if is_weights && self.dice.once_in(self.faults.too_soon) => {
                let at = BlockNumber(self.chain.best() + self.dice.below(8) as u32);
                Some(Trouble::NotYet { at, why: "too soon".into() })
            }
            silence => silence,
        };
        if let Some(trouble) = trouble {
            self.life.turn = None;
            return Event::Signed(ticket, Err(trouble));
        }
        let call = self.chain.sign(content);
        let wished = self.life.wishes.get_mut(&ticket).unwrap();
        wished.calls.push(call.clone());
        wished.lost = false;
        let is_record = wished.wish.is_record();
        self.life.unsent = Some(ticket);
        self.life.last_record = if is_record { Some(ticket) } else { self.life.last_record };
        Event::Signed(ticket, Ok(call))
    }

    fn hand_over(&mut self, ticket: Ticket, call: &SignedCall) -> Event {
        let result = match self.silence() {
            // The chain may have it all the same, without a word.
            Some(trouble) => {
                if self.dice.once_in(3) {
                    let _ = self.chain.submit(call);
                }
                Err(trouble)
            }
            None => self.chain.submit(call),
        };
        if self.life.turn == Some(ticket) {
            self.life.turn = None;
        }
        if self.life.unsent == Some(ticket) && !matches!(result, Err(Trouble::NoAnswer(_))) {
            self.life.unsent = None;
        }
        Event::HandedOver(ticket, result)
    }

    // ---- what is asked for, and what must hold ----------------------------------------------------------------------

    fn tell(&mut self, event: Event) {
        let Some(node) = &mut self.node else { return };
        let mut actions = Vec::new();
        node.handle(event, &mut actions);
        for action in actions {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Sign(ticket, content) => {
                self.check_sign(ticket, &content);
                self.life.turn = Some(ticket);
                self.jobs.push(Job::Sign(ticket, content));
            }
            Action::Journal(ticket, mine, call) => {
                assert_eq!(self.life.turn, Some(ticket), "journals out of turn");
                self.jobs.push(Job::Journal(ticket, mine, call));
            }
            Action::HandOver(ticket, call) => {
                self.check_hand_over(ticket, &call);
                if self.life.unsent == Some(ticket) {
                    self.life.turn = Some(ticket);
                }
                self.jobs.push(Job::HandOver(ticket, call));
            }
            Action::ReadSlot(ticket, block) => {
                assert!(block.0 <= self.chain.finalised(), "looks at a block that is not final");
                self.jobs.push(Job::ReadSlot(ticket, block));
            }
            Action::AskFate(ticket, call, block) => self.jobs.push(Job::AskFate(ticket, call, block)),
            Action::Pause(ticket) => self.jobs.push(Job::Pause(ticket)),
            Action::Answer(ticket) => {
                let wished = self.life.wishes.get_mut(&ticket).expect("an answer to nobody");
                assert!(!std::mem::replace(&mut wished.answered, true), "answered twice");
            }
            Action::Tell(_, news) => self.told.push(news),
        }
    }

    fn check_sign(&mut self, ticket: Ticket, content: &Content) {
        let life = &mut self.life;
        let wished = &life.wishes[&ticket];
        assert_eq!(life.turn, None, "two turns at once");
        let late = |ticket: &Ticket| life.best >= life.wishes[ticket].until;
        assert!(life.unsent.is_none_or(|unsent| late(&unsent)), "signs while a nonce is not handed over");
        assert!(life.best < wished.until, "signs at {} what is of no use from {} on", life.best, wished.until);
        assert!(wished.calls.is_empty() || wished.lost, "signs again what may still come");
        match (content, &wished.wish) {
            (Content::Record(record), Wish::Contribution(mine)) => {
                assert_eq!((record.contribution, record.vote), (Some(*mine), self.journal.vote));
                let first = self.contributions.entry(mine.round).or_insert(*mine);
                assert_eq!(first, mine, "two contributions of one round");
            }
            (Content::Record(record), Wish::Vote(vote)) => {
                assert_eq!((record.contribution, record.vote), (None, Some(*vote)));
            }
            (Content::Weights(row), Wish::Weights(wanted)) => {
                assert_eq!((row, Some(ticket)), (wanted, life.last_weights), "signs weights of before");
            }
            other => panic!("signs something else: {other:?}"),
        }
        if wished.wish.is_record() {
            assert!(life.last_record.is_none_or(|last| last <= ticket), "an earlier record overtakes a later one");
        }
    }

    fn check_hand_over(&self, ticket: Ticket, call: &SignedCall) {
        let wished = &self.life.wishes[&ticket];
        let in_turn = self.life.turn == Some(ticket);
        assert!(in_turn || self.life.best < wished.until, "hands over at {} what is late", self.life.best);
        assert!(wished.calls.last().is_none_or(|last| last == call), "hands over what was given up");
        if let Wish::Contribution(mine) = &wished.wish {
            let journalled = self.journal.contribution.as_ref();
            assert_eq!(journalled, Some(&(*mine, Some(call.clone()))), "hands over what the journal does not have");
        }
    }

    /// In final blocks a record never comes after a later one, and a round has one contribution.
    fn check_chain(&self) {
        let mut last = (Round(0), 0);
        let mut rounds = BTreeMap::new();
        for content in self.chain.done() {
            let Content::Record(record) = content else { continue };
            let place = match (record.contribution, record.vote) {
                (Some(mine), _) => {
                    assert_eq!(*rounds.entry(mine.round).or_insert(mine), mine, "two contributions of one round");
                    (mine.round, 0)
                }
                (None, vote) => (vote.unwrap().round, 1),
            };
            assert!(place >= last, "a record of {place:?} overtook one of {last:?}");
            last = place;
        }
    }

    // ---- what has come of it ----------------------------------------------------------------------------------------

    /// What stands in the slot at the round's deadlines, as everybody reads it.
    pub(super) fn stands(&self, round: u32) -> (bool, bool) {
        let at = |block| self.chain.slot_at(round * LENGTH + block);
        let is_in = |record: Option<Record>, wish: Wish| record.is_some_and(|record| wish.is_in(&record));
        (is_in(at(COMMIT), Wish::Contribution(contribution(round))), is_in(at(VOTE), Wish::Vote(vote(round))))
    }

    /// The shares of all weights that were done, in their order.
    pub(super) fn weights(&self) -> Vec<u16> {
        let share = |content| match content {
            Content::Weights(row) => row.first().map(|(_, share): &(Uid, u16)| *share),
            Content::Record(_) => None,
        };
        self.chain.done().into_iter().filter_map(share).collect()
    }

    /// Wishes of this life that nobody was answered for.
    pub(super) fn unanswered(&self) -> BTreeSet<Ticket> {
        self.life.wishes.iter().filter(|(_, wished)| !wished.answered).map(|(ticket, _)| *ticket).collect()
    }
}
