//! Tests of `fetch.rs`: whom it asks, when it asks another, and what each waiter is told.

use super::*;
use crate::peers::test_peer;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

/// A swarm in which nothing moves unless a test says so.
struct Rig {
    fetches: Fetches,
    connected: BTreeSet<PeerKey>,
    now: Instant,
    actions: Vec<FetchAction>,
    waiters: u64,
}

impl Rig {
    fn new(peers: u8) -> Rig {
        Rig {
            fetches: Fetches::new(FetchLimits::default()),
            connected: (1..=peers).map(test_peer).collect(),
            now: Instant::now(),
            actions: vec![],
            waiters: 0,
        }
    }
    fn handle(&mut self, event: FetchEvent) -> &mut Rig {
        let peer_of = |uid: Uid| Some(test_peer(uid.number() as u8));
        let reach = Reach { connected: &self.connected, peer_of: &peer_of };
        self.fetches.handle(self.now, event, &reach, &mut self.actions);
        self
    }
    fn after(&mut self, time: Duration) -> &mut Rig {
        self.now += time;
        self.handle(FetchEvent::Tick)
    }
    fn want(&mut self, bytes: &[u8], size: Size, hints: &[Hint]) -> WaiterId {
        self.waiters += 1;
        let waiter = WaiterId(self.waiters);
        let deadline = self.now + 60 * SECOND;
        self.handle(FetchEvent::Want { waiter, root: Digest::of(bytes), size, hints: hints.to_vec(), deadline });
        waiter
    }
    fn asks(&mut self) -> Vec<(AskId, PeerKey)> {
        let asks = self.actions.extract_if(.., |action| matches!(action, FetchAction::Ask { .. }));
        asks.filter_map(|action| match action {
            FetchAction::Ask { ask, peer, .. } => Some((ask, peer)),
            _ => None,
        })
        .collect()
    }
    fn one_ask(&mut self) -> (AskId, PeerKey) {
        let asks = self.asks();
        assert_eq!(asks.len(), 1, "{asks:?}");
        asks[0]
    }
    fn answer(&mut self, ask: AskId, bytes: &[u8]) -> &mut Rig {
        self.handle(FetchEvent::Blob { ask, bytes: bytes.to_vec(), digest: Digest::of(bytes) })
    }
    fn store(&mut self) -> &mut Rig {
        let stores: Vec<FetchAction> =
            self.actions.extract_if(.., |action| matches!(action, FetchAction::Store { .. })).collect();
        for action in stores {
            if let FetchAction::Store { root, bytes } = action {
                self.handle(FetchEvent::Stored { root, result: Ok(bytes.into()) });
            }
        }
        self
    }
    fn finished(&mut self) -> Vec<(WaiterId, Fetched)> {
        let ends = self.actions.extract_if(.., |action| matches!(action, FetchAction::Finish { .. }));
        ends.filter_map(|action| match action {
            FetchAction::Finish { waiter, result } => Some((waiter, result)),
            _ => None,
        })
        .collect()
    }
    fn idle(&self) {
        assert!(self.fetches.is_idle());
        assert_eq!(self.fetches.bytes, 0);
        assert!(self.fetches.by_waiter.is_empty() && self.fetches.by_root.is_empty());
    }
}

#[test]
fn the_hinted_peer_is_asked_first_and_alone() {
    let mut rig = Rig::new(5);
    rig.want(b"blob", Size::Exactly(4), &[Uid::from(3).into()]);
    let (ask, peer) = rig.one_ask();
    assert_eq!(peer, test_peer(3));
    rig.answer(ask, b"blob").store();
    assert!(matches!(&rig.finished()[..], [(_, Ok(bytes))] if bytes[..] == *b"blob"));
    rig.idle();
}

#[test]
fn who_has_none_is_followed_by_the_others_and_asked_again_later() {
    let mut rig = Rig::new(3);
    rig.want(b"blob", Size::Exactly(4), &[]);
    let mut asked = BTreeSet::new();
    for _ in 0..3 {
        let (ask, peer) = rig.one_ask();
        asked.insert(peer);
        rig.handle(FetchEvent::Nothing { ask });
    }
    assert_eq!(asked, rig.connected);
    assert!(rig.asks().is_empty());
    rig.after(AGAIN_MIN);
    assert_eq!(rig.asks().len(), 1);
}

#[test]
fn wrong_bytes_are_punished_and_another_peer_gives_the_right_ones() {
    let mut rig = Rig::new(2);
    rig.want(b"blob", Size::Exactly(4), &[test_peer(1).into()]);
    let (ask, liar) = rig.one_ask();
    rig.answer(ask, b"bleb");
    assert!(rig.actions.iter().any(|action| matches!(action, FetchAction::Punish { peer, .. } if *peer == liar)));
    let (ask, other) = rig.one_ask();
    assert_ne!(other, liar);
    rig.answer(ask, b"blob").store();
    assert!(rig.finished()[0].1.is_ok());
    rig.idle();
}

#[test]
fn a_wrong_size_in_the_name_blames_nobody_who_sends_the_bytes() {
    let mut rig = Rig::new(1);
    let exact = rig.want(b"blob", Size::Exactly(5), &[]);
    let unsized_one = rig.want(b"blob", Size::AtMost(9), &[]);
    let (ask, _) = rig.one_ask();
    rig.answer(ask, b"blob").store();
    let ends = rig.finished();
    assert!(matches!(ends[0], (waiter, Err(FetchError::Size { named: 5, got: 4, .. })) if waiter == exact));
    assert!(matches!(ends[1], (waiter, Ok(_)) if waiter == unsized_one));
    assert!(rig.actions.is_empty());
    rig.idle();
}

#[test]
fn a_silent_peer_is_helped_out_by_a_second_and_its_late_answer_still_counts() {
    let mut rig = Rig::new(3);
    rig.want(b"blob", Size::Exactly(4), &[test_peer(1).into()]);
    let (first, _) = rig.one_ask();
    rig.after(2 * SECOND);
    let (second, peer) = rig.one_ask();
    assert_ne!(peer, test_peer(1));
    rig.after(20 * SECOND);
    rig.asks();
    rig.answer(first, b"blob").store();
    assert!(rig.finished()[0].1.is_ok());
    rig.answer(second, b"blob");
    rig.idle();
}

#[test]
fn fetches_of_one_blob_are_one_and_a_cancelled_one_takes_nothing_from_the_rest() {
    let mut rig = Rig::new(1);
    let first = rig.want(b"blob", Size::Exactly(4), &[]);
    let second = rig.want(b"blob", Size::Exactly(4), &[]);
    let (ask, _) = rig.one_ask();
    rig.handle(FetchEvent::Cancel { waiter: first });
    rig.answer(ask, b"blob").store();
    assert!(matches!(rig.finished()[..], [(waiter, Ok(_))] if waiter == second));
    rig.idle();
}

#[test]
fn a_blob_that_nobody_has_times_out_and_a_new_peer_is_asked_meanwhile() {
    let mut rig = Rig::new(1);
    rig.want(b"blob", Size::Exactly(4), &[test_peer(9).into()]);
    assert!(matches!(rig.actions.remove(0), FetchAction::Dial { peer } if peer == test_peer(9)));
    let (ask, _) = rig.one_ask();
    rig.handle(FetchEvent::Nothing { ask });
    rig.connected.insert(test_peer(9));
    rig.after(2 * SECOND);
    let asks = rig.asks();
    assert!(asks.iter().any(|(_, peer)| *peer == test_peer(9)), "{asks:?}");
    rig.after(60 * SECOND);
    assert!(matches!(rig.finished()[..], [(_, Err(FetchError::Timeout { asked: 2, lacking: 1, connected: 2, .. }))]));
    rig.idle();
}

#[test]
fn requests_under_way_are_bounded_for_a_peer_and_in_bytes() {
    let mut rig = Rig::new(1);
    for n in 0..20u8 {
        rig.want(&[n], Size::Exactly(1), &[]);
    }
    assert_eq!(rig.asks().len(), FetchLimits::default().per_peer_max);
    let mut rig = Rig::new(10);
    for n in 0..20u8 {
        rig.want(&[n], Size::Exactly(48 << 20), &[]);
    }
    assert_eq!(rig.asks().len(), 2);
}

#[test]
fn a_rebuilt_network_asks_again() {
    let mut rig = Rig::new(1);
    rig.want(b"blob", Size::Exactly(4), &[]);
    let (old, _) = rig.one_ask();
    rig.handle(FetchEvent::Lost);
    let (ask, _) = rig.one_ask();
    assert_ne!(old, ask);
    rig.answer(old, b"blob");
    rig.answer(ask, b"blob").store();
    assert!(rig.finished()[0].1.is_ok());
    rig.idle();
}

#[derive(Clone, Debug)]
enum Move {
    Want(u8, bool),
    Right(usize),
    Wrong(usize),
    Nothing(usize),
    Fail(usize),
    Store,
    Cancel(u64),
    Wait(u64),
    Lost,
}

fn any_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        (0..6u8, any::<bool>()).prop_map(|(blob, hint)| Move::Want(blob, hint)),
        (0..8usize).prop_map(Move::Right),
        (0..8usize).prop_map(Move::Wrong),
        (0..8usize).prop_map(Move::Nothing),
        (0..8usize).prop_map(Move::Fail),
        Just(Move::Store),
        (0..20u64).prop_map(Move::Cancel),
        (0..10_000u64).prop_map(Move::Wait),
        Just(Move::Lost),
    ]
}

proptest! {
    /// Whatever happens, every waiter ends exactly once with the right bytes or an error, and nothing is left over.
    #[test]
    fn every_waiter_ends_once(moves in prop::collection::vec(any_move(), 0..120)) {
        let mut rig = Rig::new(4);
        let (mut open, mut ended, mut cancelled) = (vec![], BTreeSet::new(), BTreeSet::new());
        let roots: HashMap<Digest, u8> = (0..6u8).map(|n| (Digest::of(&[n; 8]), n)).collect();
        let mut wanted = HashMap::new();
        for step in moves.into_iter().chain([Move::Store, Move::Wait(100_000), Move::Store, Move::Wait(100_000)]) {
            let pick = |open: &mut Vec<(AskId, Digest)>, n: usize| (!open.is_empty()).then(|| open.remove(n % open.len()));
            match step {
                Move::Want(blob, hint) => {
                    let hints = if hint { vec![Hint::Peer(test_peer(blob % 5 + 1))] } else { vec![] };
                    let waiter = rig.want(&[blob; 8], Size::Exactly(8), &hints);
                    wanted.insert(waiter, blob);
                }
                Move::Right(n) => if let Some((ask, root)) = pick(&mut open, n) { rig.answer(ask, &[roots[&root]; 8]); },
                Move::Wrong(n) => if let Some((ask, _)) = pick(&mut open, n) { rig.answer(ask, b"wrong"); },
                Move::Nothing(n) => if let Some((ask, _)) = pick(&mut open, n) { rig.handle(FetchEvent::Nothing { ask }); },
                Move::Fail(n) => if let Some((ask, _)) = pick(&mut open, n) { rig.handle(FetchEvent::Failed { ask, breach: false }); },
                Move::Store => { rig.store(); }
                Move::Cancel(waiter) => {
                    if wanted.contains_key(&WaiterId(waiter)) && !ended.contains(&WaiterId(waiter)) {
                        cancelled.insert(WaiterId(waiter));
                    }
                    rig.handle(FetchEvent::Cancel { waiter: WaiterId(waiter) });
                }
                Move::Wait(millis) => { rig.after(Duration::from_millis(millis)); }
                Move::Lost => { open.clear(); rig.handle(FetchEvent::Lost); }
            }
            for action in &rig.actions {
                if let FetchAction::Ask { ask, root, .. } = action { open.push((*ask, *root)); }
            }
            rig.asks();
            for (waiter, result) in rig.finished() {
                prop_assert!(ended.insert(waiter), "{waiter:?} ended twice");
                prop_assert!(!cancelled.contains(&waiter));
                if let Ok(bytes) = result { prop_assert_eq!(&bytes[..], &[wanted[&waiter]; 8]); }
            }
        }
        prop_assert_eq!(ended.len() + cancelled.len(), wanted.len());
        rig.idle();
    }
}
