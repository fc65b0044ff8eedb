//! Which blob to ask of whom, and when to ask another. A state machine: events and the time in, actions out.
//!
//! A blob is asked of one peer at a time, hinted ones first; after a while without an answer of a second and a third
//! beside it. Who has none is asked again later, who sends wrong bytes is punished, who does not answer rests a while.
//! Fetches of one blob are one; each waiter keeps its own deadline and its own idea of the size.

use super::terms::{FetchError, FetchLimits, Fetched, Hint, Size};
use crate::peers::PeerKey;
use crate::store::StoreError;
use covey_proto::{Digest, Uid};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WaiterId(pub(crate) u64);
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AskId(pub(crate) u64);

#[derive(Debug)]
pub(crate) enum FetchEvent {
    Want {
        waiter: WaiterId,
        root: Digest,
        size: Size,
        hints: Vec<Hint>,
        deadline: Instant,
    },
    Cancel {
        waiter: WaiterId,
    },
    /// A response with bytes and their hash.
    Blob {
        ask: AskId,
        bytes: Vec<u8>,
        digest: Digest,
    },
    Nothing {
        ask: AskId,
    },
    /// No answer, or none of use. `breach`: only a peer that breaks the protocol can cause it.
    Failed {
        ask: AskId,
        breach: bool,
    },
    Stored {
        root: Digest,
        result: Result<Arc<[u8]>, Arc<StoreError>>,
    },
    /// The network was rebuilt: nothing that was asked will be answered.
    Lost,
    /// Time passed, or other peers are connected.
    Tick,
}

#[derive(Debug)]
pub(crate) enum FetchAction {
    Ask {
        ask: AskId,
        peer: PeerKey,
        root: Digest,
        bytes_max: u64,
    },
    Dial {
        peer: PeerKey,
    },
    /// Bytes that verified.
    Store {
        root: Digest,
        bytes: Vec<u8>,
    },
    Finish {
        waiter: WaiterId,
        result: Fetched,
    },
    Punish {
        peer: PeerKey,
        root: Digest,
    },
}

/// Who can be asked.
pub(crate) struct Reach<'a> {
    pub(crate) connected: &'a BTreeSet<PeerKey>,
    pub(crate) peer_of: &'a dyn Fn(Uid) -> Option<PeerKey>,
}

/// First wait before a peer that has none is asked again; doubles up to [`AGAIN_MAX`].
const AGAIN_MIN: Duration = Duration::from_millis(200);
const AGAIN_MAX: Duration = Duration::from_secs(8);
/// Requests in a row that a peer may leave unanswered, and how long it then rests.
const UNANSWERED_MAX: u32 = 3;
const REST: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Waiter {
    id: WaiterId,
    size: Size,
    deadline: Instant,
}

#[derive(Debug, Default)]
struct Attempts {
    again: Option<Instant>,
    times: u32,
    lacks: bool,
}

#[derive(Debug)]
struct Want {
    root: Digest,
    waiters: Vec<Waiter>,
    hints: Vec<Hint>,
    tried: HashMap<PeerKey, Attempts>,
    asks: Vec<AskId>,
    storing: bool,
}

#[derive(Debug)]
struct OpenAsk {
    peer: PeerKey,
    root: Digest,
    bytes: u64,
    hedge_at: Instant,
    timeout_at: Instant,
    /// Its time is up, or the blob came from elsewhere: it counts for its peer's load only.
    stale: bool,
}

#[derive(Debug, Default)]
struct Peer {
    asks: usize,
    unanswered: u32,
    rests_until: Option<Instant>,
}

#[derive(Debug)]
pub(crate) struct Fetches {
    limits: FetchLimits,
    /// In the order of their first waiters.
    wants: BTreeMap<u64, Want>,
    by_root: HashMap<Digest, u64>,
    by_waiter: HashMap<WaiterId, u64>,
    asks: HashMap<AskId, OpenAsk>,
    peers: HashMap<PeerKey, Peer>,
    bytes: u64,
    next: u64,
}

impl Fetches {
    pub(crate) fn new(limits: FetchLimits) -> Fetches {
        Fetches {
            limits,
            wants: BTreeMap::new(),
            by_root: HashMap::new(),
            by_waiter: HashMap::new(),
            asks: HashMap::new(),
            peers: HashMap::new(),
            bytes: 0,
            next: 0,
        }
    }

    /// Whether time alone can change anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.wants.is_empty()
    }

    pub(crate) fn handle(
        &mut self,
        now: Instant,
        event: FetchEvent,
        reach: &Reach<'_>,
        actions: &mut Vec<FetchAction>,
    ) {
        match event {
            FetchEvent::Want { waiter, root, size, hints, deadline } => {
                self.want(Waiter { id: waiter, size, deadline }, root, hints, actions);
            }
            FetchEvent::Cancel { waiter } => self.cancel(waiter),
            FetchEvent::Blob { ask, bytes, digest } => self.blob(ask, bytes, digest, now, actions),
            FetchEvent::Nothing { ask } => self.ended(ask, true, now),
            FetchEvent::Failed { ask, breach } => self.failed(ask, breach, now, actions),
            FetchEvent::Stored { root, result } => self.stored(&root, result, actions),
            FetchEvent::Lost => self.lost(),
            FetchEvent::Tick => {}
        }
        self.expire(now, reach.connected, actions);
        self.pump(now, reach, actions);
    }

    fn want(&mut self, waiter: Waiter, root: Digest, hints: Vec<Hint>, actions: &mut Vec<FetchAction>) {
        let number = match self.by_root.get(&root) {
            Some(number) => *number,
            None if self.wants.len() >= self.limits.wants_max => {
                let result = Err(FetchError::TooMany(self.wants.len()));
                return actions.push(FetchAction::Finish { waiter: waiter.id, result });
            }
            None => {
                self.next += 1;
                self.by_root.insert(root, self.next);
                let want =
                    Want { root, waiters: vec![], hints: vec![], tried: HashMap::new(), asks: vec![], storing: false };
                self.wants.insert(self.next, want);
                self.next
            }
        };
        self.by_waiter.insert(waiter.id, number);
        if let Some(want) = self.wants.get_mut(&number) {
            want.waiters.push(waiter);
            for hint in hints {
                if !want.hints.contains(&hint) {
                    want.hints.push(hint);
                }
            }
        }
    }

    fn cancel(&mut self, waiter: WaiterId) {
        let Some(number) = self.by_waiter.remove(&waiter) else {
            return;
        };
        if let Some(want) = self.wants.get_mut(&number) {
            want.waiters.retain(|other| other.id != waiter);
        }
        self.drop_unwanted(number);
    }

    /// Forgets a want that nobody waits for. What is being stored stays until it is.
    fn drop_unwanted(&mut self, number: u64) {
        if self.wants.get(&number).is_some_and(|want| want.waiters.is_empty() && !want.storing) {
            self.drop_want(number);
        }
    }

    fn drop_want(&mut self, number: u64) -> Option<Want> {
        let want = self.wants.remove(&number)?;
        self.by_root.remove(&want.root);
        for ask in &want.asks {
            self.make_stale(*ask);
        }
        Some(want)
    }

    /// An ask is over at its peer: frees its place. Returns what it was.
    fn close(&mut self, ask: AskId) -> Option<OpenAsk> {
        let asked = self.asks.remove(&ask)?;
        if !asked.stale {
            self.bytes -= asked.bytes;
        }
        if let Some(peer) = self.peers.get_mut(&asked.peer) {
            peer.asks -= 1;
        }
        if let Some(want) = self.want_of(&asked.root) {
            want.asks.retain(|other| *other != ask);
        }
        Some(asked)
    }

    fn want_of(&mut self, root: &Digest) -> Option<&mut Want> {
        let number = self.by_root.get(root)?;
        self.wants.get_mut(number)
    }

    /// Answered without the blob (`lacks`), or failed.
    fn ended(&mut self, ask: AskId, lacks: bool, now: Instant) {
        let Some(asked) = self.close(ask) else { return };
        let peer = self.peers.entry(asked.peer).or_default();
        if lacks {
            peer.unanswered = 0;
        }
        if let Some(want) = self.want_of(&asked.root) {
            let tried = want.tried.entry(asked.peer).or_default();
            tried.lacks = lacks;
            let wait = AGAIN_MIN.saturating_mul(1 << tried.times.min(8)).min(AGAIN_MAX);
            tried.again = Some(now + wait);
            tried.times += 1;
        }
    }

    fn failed(&mut self, ask: AskId, breach: bool, now: Instant, actions: &mut Vec<FetchAction>) {
        let Some(asked) = self.asks.get(&ask) else { return };
        let (peer, root) = (asked.peer, asked.root);
        if breach {
            actions.push(FetchAction::Punish { peer, root });
        }
        self.blame_silence(peer, now);
        self.ended(ask, false, now);
    }

    fn blame_silence(&mut self, peer: PeerKey, now: Instant) {
        let peer = self.peers.entry(peer).or_default();
        peer.unanswered += 1;
        if peer.unanswered >= UNANSWERED_MAX {
            peer.unanswered = 0;
            peer.rests_until = Some(now + REST);
        }
    }

    fn blob(&mut self, ask: AskId, bytes: Vec<u8>, digest: Digest, now: Instant, actions: &mut Vec<FetchAction>) {
        let Some(asked) = self.asks.get(&ask) else { return };
        let (peer, root) = (asked.peer, asked.root);
        if digest != root {
            actions.push(FetchAction::Punish { peer, root });
            return self.ended(ask, false, now);
        }
        self.close(ask);
        self.peers.entry(peer).or_default().unanswered = 0;
        let got = bytes.len() as u64;
        let Some(want) = self.want_of(&root).filter(|want| !want.storing) else {
            return;
        };
        let (right, wrong): (Vec<_>, Vec<_>) = want.waiters.drain(..).partition(|waiter| waiter.size.admits(got));
        want.waiters = right;
        want.storing = !want.waiters.is_empty();
        if want.storing {
            actions.push(FetchAction::Store { root, bytes });
        }
        let others = std::mem::take(&mut want.asks);
        for other in others {
            self.make_stale(other);
        }
        for waiter in wrong {
            self.by_waiter.remove(&waiter.id);
            let result = Err(FetchError::Size { root, named: waiter.size.most(), got });
            actions.push(FetchAction::Finish { waiter: waiter.id, result });
        }
        if let Some(number) = self.by_root.get(&root).copied() {
            self.drop_unwanted(number);
        }
    }

    fn make_stale(&mut self, ask: AskId) {
        if let Some(asked) = self.asks.get_mut(&ask).filter(|asked| !asked.stale) {
            asked.stale = true;
            self.bytes -= asked.bytes;
        }
    }

    fn stored(&mut self, root: &Digest, result: Result<Arc<[u8]>, Arc<StoreError>>, actions: &mut Vec<FetchAction>) {
        let Some(number) = self.by_root.get(root).copied() else {
            return;
        };
        for waiter in self.drop_want(number).map(|want| want.waiters).unwrap_or_default() {
            self.by_waiter.remove(&waiter.id);
            let result = match &result {
                Err(error) => Err(FetchError::Store(error.clone())),
                Ok(bytes) if waiter.size.admits(bytes.len() as u64) => Ok(bytes.clone()),
                Ok(bytes) => Err(FetchError::Size { root: *root, named: waiter.size.most(), got: bytes.len() as u64 }),
            };
            actions.push(FetchAction::Finish { waiter: waiter.id, result });
        }
    }

    fn lost(&mut self) {
        self.asks.clear();
        self.peers.clear();
        self.bytes = 0;
        for want in self.wants.values_mut() {
            want.asks.clear();
            want.tried.clear();
        }
    }

    /// Ends waiters whose time is up, and stops counting on asks whose time is.
    fn expire(&mut self, now: Instant, connected: &BTreeSet<PeerKey>, actions: &mut Vec<FetchAction>) {
        let late: Vec<AskId> = self
            .asks
            .iter()
            .filter(|(_, asked)| !asked.stale && asked.timeout_at <= now)
            .map(|(ask, _)| *ask)
            .collect();
        for ask in late {
            self.make_stale(ask);
            let Some((peer, root)) = self.asks.get(&ask).map(|asked| (asked.peer, asked.root)) else {
                continue;
            };
            self.blame_silence(peer, now);
            if let Some(want) = self.want_of(&root) {
                want.asks.retain(|other| *other != ask);
                want.tried.entry(peer).or_default().again = Some(now + AGAIN_MAX);
            }
        }
        let mut unwanted = Vec::new();
        for (number, want) in self.wants.iter_mut().filter(|(_, want)| !want.storing) {
            let lacking = want.tried.values().filter(|tried| tried.lacks).count();
            let error =
                FetchError::Timeout { root: want.root, asked: want.tried.len(), lacking, connected: connected.len() };
            let ended = want.waiters.extract_if(.., |waiter| waiter.deadline <= now);
            for waiter in ended {
                self.by_waiter.remove(&waiter.id);
                actions.push(FetchAction::Finish { waiter: waiter.id, result: Err(error.clone()) });
            }
            if want.waiters.is_empty() {
                unwanted.push(*number);
            }
        }
        for number in unwanted {
            self.drop_want(number);
        }
        // A peer without asks that does not rest is as good as a new one.
        let idle =
            |peer: &Peer| peer.asks == 0 && peer.unanswered == 0 && peer.rests_until.is_none_or(|until| until <= now);
        self.peers.retain(|key, peer| !idle(peer) && (peer.asks > 0 || connected.contains(key)));
    }

    /// Asks for what is wanted, oldest wants first, as far as the bounds allow.
    fn pump(&mut self, now: Instant, reach: &Reach<'_>, actions: &mut Vec<FetchAction>) {
        let Fetches { limits, wants, asks, peers, bytes, next, .. } = self;
        let mut open = asks.values().filter(|asked| !asked.stale).count();
        for want in wants.values_mut().filter(|want| !want.storing) {
            if open >= limits.requests_max || *bytes >= limits.bytes_max {
                break;
            }
            let size = want.waiters.iter().map(|waiter| waiter.size.most()).max().unwrap_or(0);
            // Smaller ones behind it wait too, or it would wait for ever.
            if *bytes > 0 && *bytes + size > limits.bytes_max {
                break;
            }
            let waiting = want.asks.iter().any(|ask| asks.get(ask).is_some_and(|asked| asked.hedge_at > now));
            if waiting || want.asks.len() >= limits.same_blob_max {
                continue;
            }
            let free = |peer: &PeerKey| {
                peers.get(peer).is_none_or(|known| {
                    known.asks < limits.per_peer_max && known.rests_until.is_none_or(|until| until <= now)
                })
            };
            let Some(peer) = want.choose(now, reach, asks, free, actions) else {
                continue;
            };
            *next += 1;
            let ask = AskId(*next);
            let at_rate = |rate: u64| Duration::from_secs_f64(size as f64 / rate.max(1) as f64);
            let asked = OpenAsk {
                peer,
                root: want.root,
                bytes: size,
                hedge_at: now + limits.hedge_after + at_rate(limits.rate_min * 8),
                timeout_at: now + limits.request_timeout + at_rate(limits.rate_min),
                stale: false,
            };
            asks.insert(ask, asked);
            want.asks.push(ask);
            want.tried.entry(peer).or_default();
            peers.entry(peer).or_default().asks += 1;
            *bytes += size;
            open += 1;
            actions.push(FetchAction::Ask { ask, peer, root: want.root, bytes_max: size });
        }
    }
}

impl Want {
    /// The next peer to ask: hinted ones in their order, then the rest, in an order that differs from blob to blob.
    fn choose(
        &mut self,
        now: Instant,
        reach: &Reach<'_>,
        asks: &HashMap<AskId, OpenAsk>,
        free: impl Fn(&PeerKey) -> bool,
        actions: &mut Vec<FetchAction>,
    ) -> Option<PeerKey> {
        let asked: Vec<PeerKey> = self.asks.iter().filter_map(|ask| asks.get(ask)).map(|asked| asked.peer).collect();
        let ready = |tried: &HashMap<PeerKey, Attempts>, peer: &PeerKey| {
            let rests = tried.get(peer).and_then(|tried| tried.again).is_some_and(|again| again > now);
            !rests && !asked.contains(peer)
        };
        for hint in &self.hints {
            let Some(peer) = (match hint {
                Hint::Peer(peer) => Some(*peer),
                Hint::Uid(uid) => (reach.peer_of)(*uid),
            }) else {
                continue;
            };
            if !ready(&self.tried, &peer) {
                continue;
            }
            if !reach.connected.contains(&peer) {
                let tried = self.tried.entry(peer).or_default();
                tried.again = Some(now + AGAIN_MIN * 5);
                actions.push(FetchAction::Dial { peer });
            } else if free(&peer) {
                return Some(peer);
            }
        }
        let rank = |peer: &&PeerKey| {
            let mut hasher = DefaultHasher::new();
            (self.root, peer).hash(&mut hasher);
            (self.tried.get(peer).map_or(0, |tried| tried.times), hasher.finish())
        };
        let others = reach.connected.iter().filter(|peer| ready(&self.tried, peer) && free(peer));
        others.min_by_key(rank).copied()
    }
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
