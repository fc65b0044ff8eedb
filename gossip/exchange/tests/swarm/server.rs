//! A plain server of the simulation: answers in order within a peer and class, peers in turn, urgent classes first; and
//! the ways in which one can be bad.

use crate::sim::{Dice, Node};
use covey_exchange::Class;
use covey_exchange::scheduler::{Rejected, RequestId};
use covey_proto::Digest;
use covey_proto::pieces::PieceSet;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

/// What is wrong with a server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    /// One group in so many is wrong.
    Lies(u64),
    /// Sends nothing more after so many groups.
    Stalls(u64),
    /// Says it holds everything.
    Boasts,
    /// Refuses one request in so many: not now.
    Rejects(u64),
    /// Breaks one request in so many.
    Breaks(u64),
    /// Never answers what lies in this piece.
    Withholds(u32),
    /// Refuses more than so many requests at once.
    Narrow(usize),
}

impl Fault {
    pub(crate) fn lies(self) -> bool {
        matches!(self, Fault::Lies(_))
    }
    pub(crate) fn claims(self, held: PieceSet) -> PieceSet {
        if self == Fault::Boasts { PieceSet::all(held.count()) } else { held }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) request: RequestId,
    pub(crate) root: Digest,
    pub(crate) groups: Range<u64>,
    pub(crate) piece: u32,
    pub(crate) begun: bool,
}

/// A group to send.
pub(crate) struct Next {
    pub(crate) to: Node,
    pub(crate) request: RequestId,
    pub(crate) root: Digest,
    pub(crate) group: u64,
    pub(crate) first: bool,
    pub(crate) last: bool,
    pub(crate) wrong: bool,
}

pub(crate) struct Server {
    pub(crate) fault: Fault,
    pub(crate) sending: bool,
    pub(crate) gone: bool,
    pub(crate) sent: u64,
    dice: Dice,
    queues: BTreeMap<Node, [VecDeque<Answer>; 3]>,
    /// The peer served last, by class.
    last: [Node; 3],
    wants: BTreeSet<(Digest, Node)>,
    /// For each piece of each blob, how often it was sent.
    pub(crate) pieces_sent: BTreeMap<(Digest, u32), u32>,
}

impl Server {
    pub(crate) fn new(fault: Fault, seed: u64) -> Server {
        Server {
            fault,
            sending: false,
            gone: false,
            sent: 0,
            dice: Dice::seeded(seed),
            queues: BTreeMap::new(),
            last: [0; 3],
            wants: BTreeSet::new(),
            pieces_sent: BTreeMap::new(),
        }
    }

    pub(crate) fn want(&mut self, from: Node, root: Digest) {
        self.wants.insert((root, from));
        assert!(self.wants.iter().filter(|(_, node)| *node == from).count() <= 256, "{from} wants too much");
    }
    pub(crate) fn unwant(&mut self, from: Node, root: Digest) {
        self.wants.remove(&(root, from));
    }
    pub(crate) fn listeners(&self, root: Digest) -> impl Iterator<Item = Node> {
        self.wants.range((root, 0)..).take_while(move |want| want.0 == root).map(|want| want.1)
    }
    pub(crate) fn forget(&mut self, node: Node) {
        self.queues.remove(&node);
        self.wants.retain(|(_, other)| *other != node);
    }

    pub(crate) fn refuses(&mut self, from: Node) -> Option<Rejected> {
        let open: usize = self.queues.get(&from).map_or(0, |queues| queues.iter().map(VecDeque::len).sum());
        match self.fault {
            Fault::Rejects(n) if self.dice.one_in(n) => Some(Rejected::NotNow),
            Fault::Narrow(most) if open >= most => Some(Rejected::TooMuch),
            _ => None,
        }
    }
    pub(crate) fn breaks(&mut self) -> bool {
        matches!(self.fault, Fault::Breaks(n) if self.dice.one_in(n))
    }

    pub(crate) fn enqueue(&mut self, from: Node, class: Class, answer: Answer) {
        if self.fault != Fault::Withholds(answer.piece) {
            self.queues.entry(from).or_default()[class as usize].push_back(answer);
        }
    }

    /// Whether a request was taken back before its answer began.
    pub(crate) fn cancel(&mut self, from: Node, class: Class, request: RequestId) -> bool {
        let Some(queue) = self.queues.get_mut(&from).map(|queues| &mut queues[class as usize]) else { return false };
        let before = queue.len();
        queue.retain(|answer| answer.request != request || answer.begun);
        queue.len() < before
    }

    pub(crate) fn next(&mut self) -> Option<Next> {
        if matches!(self.fault, Fault::Stalls(after) if self.sent >= after) {
            return None;
        }
        let mut order = [0, 1, 2];
        if self.sent.is_multiple_of(20) {
            order.rotate_left(1 + (self.sent / 20 % 2) as usize);
        }
        for class in order {
            let waits = |queues: &[VecDeque<Answer>; 3]| !queues[class].is_empty();
            let after = self.queues.range(self.last[class] + 1..).find(|(_, queues)| waits(queues));
            let to = after.or_else(|| self.queues.iter().find(|(_, queues)| waits(queues))).map(|(node, _)| *node);
            let Some(to) = to else { continue };
            self.last[class] = to;
            return self.send(to, class);
        }
        None
    }

    fn send(&mut self, to: Node, class: usize) -> Option<Next> {
        let queue = &mut self.queues.get_mut(&to)?[class];
        let answer = queue.front_mut()?;
        let group = answer.groups.start;
        answer.groups.start += 1;
        let first = !std::mem::replace(&mut answer.begun, true);
        let last = answer.groups.is_empty();
        let (request, root) = (answer.request, answer.root);
        let wrong = self.wrong();
        let next = Next { to, request, root, group, first, last, wrong };
        self.sent += 1;
        let queue = &mut self.queues.get_mut(&to)?[class];
        if last && let Some(answer) = queue.pop_front() {
            *self.pieces_sent.entry((answer.root, answer.piece)).or_default() += 1;
        }
        Some(next)
    }

    fn wrong(&mut self) -> bool {
        matches!(self.fault, Fault::Lies(n) if self.dice.one_in(n))
    }
}
