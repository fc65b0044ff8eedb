//! What a scheduler may never do, checked at each action from what it was told alone.

use crate::sim::Node;
use covey_exchange::Class;
use covey_exchange::scheduler::{Action, Limits, RequestId};
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::{PieceSet, Pieces};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

struct Open {
    peer: Node,
    root: Digest,
    pieces: Pieces,
    class: Class,
    groups: Range<u64>,
    /// Groups, from the first, that did not come.
    pending: u64,
    live: bool,
}

#[derive(Default)]
struct Wanted {
    pieces: Option<Pieces>,
    got: Vec<u64>,
    /// How many live requests ask for each group.
    asked: Vec<[u8; 64]>,
}

pub(crate) struct Checker {
    limits: Limits,
    up: BTreeSet<Node>,
    wrong: BTreeSet<Node>,
    wants: BTreeSet<(Node, Digest)>,
    told: BTreeMap<(Node, Digest), PieceSet>,
    wanted: BTreeMap<Digest, Wanted>,
    open: BTreeMap<RequestId, Open>,
    last: Option<RequestId>,
    pub(crate) asked_bytes: u64,
}

impl Checker {
    pub(crate) fn new(limits: Limits) -> Checker {
        Checker {
            limits,
            up: BTreeSet::new(),
            wrong: BTreeSet::new(),
            wants: BTreeSet::new(),
            told: BTreeMap::new(),
            wanted: BTreeMap::new(),
            open: BTreeMap::new(),
            last: None,
            asked_bytes: 0,
        }
    }

    pub(crate) fn up(&mut self, peer: Node) {
        self.up.insert(peer);
        self.wrong.remove(&peer);
    }
    pub(crate) fn down(&mut self, peer: Node) {
        self.up.remove(&peer);
        self.drop_peer(peer);
    }
    pub(crate) fn wrong(&mut self, peer: Node) {
        self.wrong.insert(peer);
        self.drop_peer(peer);
    }
    fn drop_peer(&mut self, peer: Node) {
        let of_it: Vec<RequestId> =
            self.open.iter().filter(|(_, open)| open.peer == peer).map(|(name, _)| *name).collect();
        of_it.into_iter().for_each(|name| self.closed(name));
        self.wants.retain(|(node, _)| *node != peer);
        self.told.retain(|(node, _), _| *node != peer);
    }

    pub(crate) fn want(&mut self, blob: BlobRef, held: &PieceSet) {
        let pieces = Pieces::of_blob(&blob).unwrap();
        let count = pieces.count();
        let got = (0..count).map(|piece| if held.contains(piece) { u64::MAX } else { 0 }).collect();
        let wanted = Wanted { pieces: Some(pieces), got, asked: vec![[0; 64]; count as usize] };
        self.wanted.entry(blob.root).or_insert(wanted);
    }
    pub(crate) fn holds(&mut self, peer: Node, root: Digest, set: &PieceSet) {
        self.told.insert((peer, root), set.clone());
    }
    pub(crate) fn have(&mut self, peer: Node, root: Digest, runs: &[Range<u32>]) {
        if let Some(set) = self.told.get_mut(&(peer, root)) {
            runs.iter().for_each(|run| set.insert_range(run.clone()));
        }
    }

    pub(crate) fn class(&self, request: RequestId) -> Class {
        self.open[&request].class
    }

    pub(crate) fn group(&mut self, request: RequestId, group: u64) {
        let Some(open) = self.open.get_mut(&request) else { return };
        let at = group - open.groups.start;
        assert!(open.pending >> at & 1 == 1, "the simulation sent a group twice");
        open.pending &= !(1 << at);
        let (live, root, piece) = (open.live, open.root, open.pieces.piece_of(group));
        let first = open.pieces.groups_of(piece).start;
        if let Some(wanted) = self.wanted.get_mut(&root) {
            wanted.got[piece as usize] |= 1 << (group - first);
            wanted.asked[piece as usize][(group - first) as usize] -= u8::from(live);
        }
    }

    pub(crate) fn closed(&mut self, request: RequestId) {
        self.retire(request);
        self.open.remove(&request);
    }

    fn retire(&mut self, request: RequestId) {
        let Some(open) = self.open.get_mut(&request) else { return };
        if !std::mem::replace(&mut open.live, false) {
            return;
        }
        let Some(wanted) = self.wanted.get_mut(&open.root) else { return };
        let piece = open.pieces.piece_of(open.groups.start);
        let first = open.pieces.groups_of(piece).start;
        for (at, group) in open.groups.clone().enumerate() {
            if open.pending >> at & 1 == 1 {
                wanted.asked[piece as usize][(group - first) as usize] -= 1;
            }
        }
    }

    pub(crate) fn action(&mut self, action: &Action<Node>) {
        match action {
            Action::Ask { peer, blob } => self.ask(*peer, *blob),
            Action::Leave { peer, root } => {
                assert!(self.wants.remove(&(*peer, *root)), "leaves {peer}, whom it did not ask");
                self.told.remove(&(*peer, *root));
            }
            Action::Request { request, peer, blob, class, groups } => {
                self.request(*request, *peer, *blob, *class, groups.clone());
            }
            Action::Cancel { request, peer } => {
                let open = self.open.get(request).expect("cancels what is open");
                assert!(open.live && open.peer == *peer, "cancels once, and whom it asked");
                self.retire(*request);
            }
            Action::Complete { root } => {
                let wanted = self.wanted.remove(root).expect("completes what is wanted");
                let pieces = wanted.pieces.unwrap();
                for piece in 0..pieces.count() {
                    let all = pieces.groups_of(piece);
                    let full = u64::MAX >> (64 - (all.end - all.start));
                    assert_eq!(wanted.got[piece as usize] & full, full, "complete without piece {piece}");
                }
                assert!(self.open.values().all(|open| !open.live || open.root != *root), "asks on for what it has");
            }
            Action::Dial { peer } => assert!(!self.up.contains(peer), "dials {peer}, who is there"),
            Action::Punish { .. } | Action::Stuck { .. } | Action::Refused { .. } => {}
        }
    }

    fn ask(&mut self, peer: Node, blob: BlobRef) {
        assert!(self.up.contains(&peer) && !self.wrong.contains(&peer), "asks {peer}, who is not there");
        assert!(self.wants.insert((peer, blob.root)), "asks {peer} again");
        let of_blob = self.wants.iter().filter(|(_, root)| *root == blob.root).count();
        let of_peer = self.wants.iter().filter(|(node, _)| *node == peer).count();
        assert!(of_blob <= self.limits.wants_per_blob_max && of_peer <= self.limits.wants_per_peer_max);
    }

    fn request(&mut self, request: RequestId, peer: Node, blob: BlobRef, class: Class, groups: Range<u64>) {
        assert!(self.up.contains(&peer), "requests of {peer}, who is not there");
        assert!(!self.wrong.contains(&peer), "requests of {peer}, who sent wrong bytes");
        assert!(self.last.is_none_or(|last| last < request), "{request:?} is not new");
        self.last = Some(request);
        let pieces = Pieces::of_blob(&blob).unwrap();
        let piece = pieces.piece_of(groups.start);
        let all = pieces.groups_of(piece);
        assert!(!groups.is_empty() && groups.end <= all.end, "{groups:?} are not of one piece");
        assert!(self.told[&(peer, blob.root)].contains(piece), "{peer} never said that it holds {piece}");
        let wanted = self.wanted.get_mut(&blob.root).expect("requests what is wanted");
        let mut twice = 0;
        for group in groups.clone() {
            let at = (group - all.start) as usize;
            assert!(wanted.got[piece as usize] >> at & 1 == 0, "group {group} is here");
            wanted.asked[piece as usize][at] += 1;
            assert!(wanted.asked[piece as usize][at] <= 2, "group {group} is asked of three");
            twice += u64::from(wanted.asked[piece as usize][at] == 2);
        }
        let bytes = |open: &Open| {
            let groups = open.pieces.bytes_of(open.groups.clone());
            (groups.end - groups.start).saturating_sub(
                u64::from((open.groups.end - open.groups.start) as u32 - open.pending.count_ones()) * 65536,
            )
        };
        if twice > 0 {
            let of_piece = |(piece, asked): (usize, &[u8; 64])| {
                let first = pieces.groups_of(piece as u32).start;
                let twice = (0..64)
                    .filter(|at| asked[*at as usize] == 2 && wanted.got[piece] >> *at & 1 == 0)
                    .map(|at| pieces.bytes_of(first + at..first + at + 1));
                twice.map(|bytes| bytes.end - bytes.start).sum::<u64>()
            };
            let twice: u64 = wanted.asked.iter().enumerate().map(of_piece).sum();
            assert!(twice * 100 <= blob.size * self.limits.duplicate_percent, "{twice} bytes are asked twice");
        }
        let open = Open {
            peer,
            root: blob.root,
            pieces,
            class,
            pending: u64::MAX >> (64 - (groups.end - groups.start)),
            groups,
            live: true,
        };
        self.asked_bytes += bytes(&open);
        self.open.insert(request, open);
        let of_peer = || self.open.values().filter(|open| open.peer == peer);
        assert!(of_peer().count() <= self.limits.requests_per_peer_max, "too many requests are open with {peer}");
        assert!(of_peer().map(bytes).sum::<u64>() <= self.limits.window_max, "too much is open with {peer}");
        let live: u64 = self.open.values().filter(|open| open.live).map(bytes).sum();
        assert!(live <= self.limits.in_flight_max, "{live} bytes are in flight");
    }
}
