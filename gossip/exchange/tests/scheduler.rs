//! The scheduler's rules one by one, and that no order of events, however senseless, breaks it.

#![allow(clippy::unwrap_used)]

use covey_exchange::Class;
use covey_exchange::scheduler::{Action, Event, Limits, Misdeed, Refusal, Rejected, RequestId, Scheduler};
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::{GROUP_BYTES, PIECED_BLOB_BYTES_MAX, PieceSet, Pieces};
use proptest::prelude::*;
use std::ops::Range;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

fn blob(number: u8, size: u64) -> BlobRef {
    BlobRef { root: Digest::of(&[number]), size }
}

fn count(blob: BlobRef) -> u32 {
    Pieces::of_blob(&blob).unwrap().count()
}

/// A scheduler on a clock that is turned by hand.
struct Rig {
    scheduler: Scheduler<u32>,
    now: Duration,
}

type Asked = (RequestId, u32, Range<u64>);

impl Rig {
    fn new(limits: Limits) -> Rig {
        Rig { scheduler: Scheduler::new(limits, 1), now: Duration::ZERO }
    }
    fn tell(&mut self, event: Event<u32>) -> Vec<Action<u32>> {
        let mut actions = Vec::new();
        self.scheduler.handle(self.now, event, &mut actions);
        actions
    }
    /// Lets time pass, with a tick whenever one is due.
    fn wait(&mut self, time: Duration) -> Vec<Action<u32>> {
        let until = self.now + time;
        let mut actions = Vec::new();
        while let Some(tick) = self.scheduler.next_tick().filter(|tick| *tick <= until) {
            self.now = tick.max(self.now);
            actions.extend(self.tell(Event::Tick));
        }
        self.now = until;
        actions
    }
    fn up(&mut self, peers: Range<u32>) {
        peers.for_each(|peer| drop(self.tell(Event::Up { peer })));
    }
    fn want(&mut self, blob: BlobRef, class: Class) -> Vec<Action<u32>> {
        self.tell(Event::Want { blob, class, held: PieceSet::none(count(blob)), sources: Vec::new() })
    }
    fn holds_all(&mut self, peer: u32, blob: BlobRef) -> Vec<Action<u32>> {
        self.tell(Event::Holds { peer, root: blob.root, set: PieceSet::all(count(blob)) })
    }
    /// Answers a request in full.
    fn answer(&mut self, (request, _, groups): Asked) -> Vec<Action<u32>> {
        let mut actions = self.tell(Event::First { request });
        groups.for_each(|group| actions.extend(self.tell(Event::Group { request, group })));
        actions.extend(self.tell(Event::Done { request }));
        actions
    }
}

fn requests(actions: &[Action<u32>]) -> Vec<Asked> {
    let request = |action: &Action<u32>| match action {
        Action::Request { request, peer, groups, .. } => Some((*request, *peer, groups.clone())),
        _ => None,
    };
    actions.iter().filter_map(request).collect()
}

fn cancels(actions: &[Action<u32>]) -> Vec<RequestId> {
    let cancel = |action: &Action<u32>| match action {
        Action::Cancel { request, .. } => Some(*request),
        _ => None,
    };
    actions.iter().filter_map(cancel).collect()
}

fn stuck(actions: &[Action<u32>]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Stuck { .. })).count()
}

#[test]
fn a_new_peer_gets_four_requests() {
    let mut rig = Rig::new(Limits::default());
    let blob = blob(0, 64 * MIB);
    rig.up(0..1);
    assert_eq!(rig.want(blob, Class::State), [Action::Ask { peer: 0, blob }]);
    let asked = requests(&rig.holds_all(0, blob));
    assert_eq!(asked.len(), 4);
    assert!(asked.iter().all(|(_, _, groups)| groups.end - groups.start == 16));
}

#[test]
fn who_sent_wrong_bytes_is_asked_nothing_before_it_comes_back() {
    let mut rig = Rig::new(Limits::default());
    let wanted = blob(0, 64 * MIB);
    rig.up(0..2);
    rig.want(wanted, Class::State);
    let asked = requests(&rig.holds_all(0, wanted));
    rig.holds_all(1, wanted);
    let actions = rig.tell(Event::Wrong { request: asked[0].0 });
    assert!(actions.contains(&Action::Punish { peer: 0, root: wanted.root, why: Misdeed::WrongBytes }));
    assert!(asked[1..].iter().all(|(request, ..)| rig.tell(Event::Done { request: *request }).is_empty()));
    assert!(rig.holds_all(0, wanted).is_empty() && rig.wait(Duration::from_secs(1)).is_empty());
    assert!(
        rig.want(blob(1, 64 * MIB), Class::Round).iter().all(|action| !matches!(action, Action::Ask { peer: 0, .. }))
    );
    rig.tell(Event::Down { peer: 0 });
    assert!(rig.tell(Event::Up { peer: 0 }).contains(&Action::Ask { peer: 0, blob: wanted }));
}

#[test]
fn three_occasions_of_false_claims_and_a_peers_bits_count_nothing() {
    let mut rig = Rig::new(Limits::default());
    let blob = blob(0, 64 * MIB);
    rig.up(0..1);
    rig.want(blob, Class::State);
    let mut asked = requests(&rig.holds_all(0, blob));
    let mut punished = 0;
    for _ in 0..3 {
        // All of a burst is one occasion.
        for (request, ..) in std::mem::take(&mut asked) {
            let actions = rig.tell(Event::Rejected { request, why: Rejected::NotHeld });
            let misdeed = Action::Punish { peer: 0, root: blob.root, why: Misdeed::FalseHoldings };
            punished += actions.iter().filter(|action| **action == misdeed).count();
        }
        asked = requests(&rig.wait(Duration::from_secs(4)));
    }
    assert_eq!((punished, asked.len()), (1, 0));
    assert!(rig.holds_all(0, blob).is_empty());
    assert_eq!(rig.scheduler.progress(blob.root).unwrap().holders, 0);
}

#[test]
fn an_only_holder_that_refused_thrice_is_asked_again_after_a_rest() {
    let mut rig = Rig::new(Limits::default());
    let blob = blob(0, 64 * MIB);
    rig.up(0..1);
    rig.want(blob, Class::State);
    let mut asked = requests(&rig.holds_all(0, blob));
    for _ in 0..3 {
        for (request, ..) in std::mem::take(&mut asked) {
            rig.tell(Event::Rejected { request, why: Rejected::NotHeld });
        }
        asked = requests(&rig.wait(Duration::from_secs(4)));
    }
    assert!(rig.holds_all(0, blob).is_empty());
    let actions = rig.wait(Limits::default().rest + Duration::from_secs(10));
    assert_eq!(actions.iter().filter(|action| **action == Action::Ask { peer: 0, blob }).count(), 1);
    assert!(!requests(&rig.holds_all(0, blob)).is_empty(), "what it says counts again");
}

#[test]
fn a_silent_peers_requests_move_after_four_seconds_and_thrice_is_a_rest() {
    let mut rig = Rig::new(Limits::default());
    let blob = blob(0, 64 * MIB);
    rig.up(0..1);
    rig.want(blob, Class::State);
    let asked = requests(&rig.holds_all(0, blob));
    assert!(cancels(&rig.wait(Duration::from_millis(3700))).is_empty());
    let moved = rig.wait(Duration::from_millis(600));
    assert_eq!(cancels(&moved).len(), asked.len());
    for (request, ..) in asked {
        rig.tell(Event::Rejected { request, why: Rejected::Cancelled });
    }
    let mut strikes = 1;
    let mut last = rig.now;
    while strikes < 3 {
        let actions = rig.wait(Duration::from_millis(250));
        let cancelled = cancels(&actions);
        strikes += usize::from(!cancelled.is_empty());
        for request in cancelled {
            rig.tell(Event::Rejected { request, why: Rejected::Cancelled });
            last = rig.now;
        }
        assert!(rig.now < Duration::from_secs(30), "{strikes}");
    }
    assert!(requests(&rig.wait(Duration::from_secs(58))).is_empty(), "it rests since {last:?}");
    assert!(!requests(&rig.wait(Duration::from_secs(4))).is_empty());
}

#[test]
fn in_the_end_game_missing_groups_are_asked_of_a_faster_peer_once() {
    let mut rig = Rig::new(Limits::default());
    let blob = blob(0, 64 * MIB);
    let mut held = PieceSet::all(64);
    held.remove(5);
    rig.up(0..2);
    rig.tell(Event::Want { blob, class: Class::Round, held, sources: Vec::new() });
    let first = requests(&rig.holds_all(0, blob))[0].clone();
    assert!(requests(&rig.holds_all(1, blob)).is_empty());
    rig.now += Duration::from_millis(50);
    rig.tell(Event::First { request: first.0 });
    // A group each two seconds.
    let mut actions = Vec::new();
    for group in first.2.clone().take(3) {
        actions.extend(rig.wait(Duration::from_secs(2)));
        actions.extend(rig.tell(Event::Group { request: first.0, group }));
    }
    let again = requests(&actions);
    assert_eq!(again.len(), 1, "{actions:?}");
    let (request, peer, groups) = again[0].clone();
    assert!(peer == 1 && groups.end == first.2.end && groups.start >= first.2.start);
    assert!(requests(&rig.wait(Duration::from_secs(1))).is_empty(), "one duplicate at a time");
    // What the slow one has begun goes on, and counts, until nothing is left for it.
    let actions = rig.answer((request, peer, groups));
    let rest = rig.scheduler.progress(blob.root);
    assert!(rest.is_none_or(|progress| progress.duplicate_bytes == 0));
    assert!(cancels(&actions) == [first.0] || rest.is_some(), "{actions:?}");
}

#[test]
fn what_is_begun_is_finished_before_something_new() {
    let mut rig = Rig::new(Limits::default());
    let blob = blob(0, 64 * MIB);
    rig.up(0..1);
    rig.want(blob, Class::State);
    let asked = requests(&rig.holds_all(0, blob));
    rig.tell(Event::First { request: asked[0].0 });
    let begun = asked[0].2.clone();
    begun.clone().take(5).for_each(|group| drop(rig.tell(Event::Group { request: asked[0].0, group })));
    rig.tell(Event::Down { peer: 0 });
    rig.up(1..2);
    let asked = requests(&rig.holds_all(1, blob));
    assert_eq!(asked[0].2, begun.start + 5..begun.end);
}

#[test]
fn the_rarest_goes_first() {
    let mut rig = Rig::new(Limits::default());
    let blob = blob(0, 64 * MIB);
    rig.up(0..4);
    rig.want(blob, Class::State);
    // Of 60 pieces three peers have a copy, of four only the last.
    let mut most = PieceSet::all(64);
    for piece in [7, 21, 22, 63] {
        most.remove(piece);
    }
    let mut taken = Vec::new();
    for peer in 0..3 {
        taken.extend(requests(&rig.tell(Event::Holds { peer, root: blob.root, set: most.clone() })));
    }
    let mut rare: Vec<u64> = requests(&rig.holds_all(3, blob)).iter().map(|asked| asked.2.start / 16).collect();
    rare.sort_unstable();
    assert_eq!(rare, [7, 21, 22, 63]);
}

#[test]
fn a_fetch_that_nobody_can_serve_stays_and_says_so() {
    let mut rig = Rig::new(Limits::default());
    let blob = blob(0, 4 * MIB);
    rig.up(0..1);
    let actions = rig.tell(Event::Want { blob, class: Class::State, held: PieceSet::none(4), sources: vec![9] });
    assert!(actions.contains(&Action::Dial { peer: 9 }));
    rig.tell(Event::Holds { peer: 0, root: blob.root, set: PieceSet::none(4) });
    let actions = rig.wait(Duration::from_secs(60));
    assert_eq!(stuck(&actions), 2);
    assert_eq!(actions.iter().filter(|action| **action == Action::Dial { peer: 9 }).count(), 2);
    let progress = rig.scheduler.progress(blob.root).unwrap();
    assert_eq!((progress.peers, progress.holders, progress.rarest), (1, 0, Some(0)));
    rig.tell(Event::Up { peer: 9 });
    let mut open = requests(&rig.holds_all(9, blob));
    let mut complete = false;
    while let Some(asked) = open.pop() {
        let actions = rig.answer(asked);
        complete |= actions.contains(&Action::Complete { root: blob.root });
        open.extend(requests(&actions));
    }
    assert!(complete && rig.scheduler.progress(blob.root).is_none() && rig.scheduler.next_tick().is_none());
}

#[test]
fn what_cannot_be_fetched_is_refused_with_the_reason() {
    let mut rig = Rig::new(Limits { blobs_max: 1, ..Limits::default() });
    let huge = blob(0, PIECED_BLOB_BYTES_MAX + 1);
    let held = || PieceSet::none(1);
    let want = |blob| Event::Want { blob, class: Class::Data, held: held(), sources: vec![] };
    let why = Refusal::TooLarge { size: huge.size };
    assert_eq!(rig.tell(want(huge)), [Action::Refused { blob: huge, why }]);
    rig.tell(want(blob(1, 5)));
    let why = Refusal::TooMuch { blobs: 1, pieces: 1 };
    assert_eq!(rig.tell(want(blob(2, 5))), [Action::Refused { blob: blob(2, 5), why }]);
    let why = Refusal::OtherSize { size: 5 };
    assert_eq!(rig.tell(want(blob(1, 6))), [Action::Refused { blob: blob(1, 6), why }]);
    let whole = Event::Want { blob: blob(3, 5), class: Class::Data, held: PieceSet::all(1), sources: vec![] };
    let mut rig = Rig::new(Limits::default());
    assert_eq!(rig.tell(whole), [Action::Complete { root: blob(3, 5).root }]);
}

#[test]
fn a_round_finds_room_though_data_fills_the_window() {
    let mut rig = Rig::new(Limits::default());
    let (data, round) = (blob(0, 64 * MIB), blob(1, 8 * MIB));
    rig.up(0..1);
    rig.want(data, Class::Data);
    assert_eq!(requests(&rig.holds_all(0, data)).len(), 4);
    rig.want(round, Class::Round);
    assert_eq!(requests(&rig.holds_all(0, round)).len(), 4);
}

#[test]
fn equal_seeds_and_histories_give_equal_actions() {
    let play = || {
        let mut rig = Rig::new(Limits::default());
        rig.up(0..20);
        let blob = blob(0, 512 * MIB);
        let mut all = rig.want(blob, Class::State);
        (0..20).for_each(|peer| all.extend(rig.holds_all(peer, blob)));
        all.extend(rig.wait(Duration::from_secs(30)));
        all
    };
    assert_eq!(play(), play());
}

/// No assertion: what the largest load costs an event, for the record.
#[test]
fn a_hundred_large_blobs_of_thirty_two_peers_are_borne() {
    let mut rig = Rig::new(Limits { set_bytes_per_peer_max: 4 << 20, pieces_max: 8 << 20, ..Limits::default() });
    rig.up(0..32);
    let blobs: Vec<BlobRef> = (0..100).map(|number| blob(number, 70_000 * 4 * MIB)).collect();
    // Parts, each peer another one; made before the clock runs.
    let all = PieceSet::all(count(blobs[0]));
    let part = |peer: u32| {
        let mut set = all.clone();
        for piece in 0..200 {
            set.remove(piece * 300 + peer);
        }
        set
    };
    let parts: Vec<PieceSet> = (0..32).map(part).collect();
    let begin = Instant::now();
    let mut open = Vec::new();
    for (number, blob) in blobs.iter().enumerate() {
        open.extend(requests(&rig.want(*blob, Class::ALL[number % 3])));
    }
    let wanted = begin.elapsed();
    for blob in &blobs {
        for peer in 0..32 {
            let set = parts[peer as usize].clone();
            open.extend(requests(&rig.tell(Event::Holds { peer, root: blob.root, set })));
        }
    }
    let held = begin.elapsed() - wanted;
    let mut events = 0;
    while events < 50_000 {
        let Some(asked) = open.pop() else { break };
        events += 2 + (asked.2.end - asked.2.start);
        rig.now += Duration::from_millis(2);
        open.extend(requests(&rig.answer(asked)));
        if events.is_multiple_of(64) {
            open.extend(requests(&rig.wait(Duration::ZERO)));
        }
    }
    let each = (begin.elapsed() - held - wanted).as_nanos() / u128::from(events.max(1));
    println!("100 wants {wanted:?}, 3200 partial sets {held:?}, then {events} events at {each} ns");
    assert!(events > 40_000 && GROUP_BYTES == 65_536);
}

fn senseless() -> impl Strategy<Value = Event<u32>> {
    let root = |number: u8| Digest::of(&[number]);
    let peer = || 0u32..4;
    let request = || (0u64..40).prop_map(RequestId);
    let set = (1u32..12, any::<u16>()).prop_map(|(count, bits)| {
        let mut set = PieceSet::none(count);
        for piece in (0..count).filter(|piece| bits >> piece & 1 == 1) {
            set.insert(piece);
        }
        set
    });
    let runs = prop::collection::vec((any::<u32>(), any::<u32>()), 0..3)
        .prop_map(|runs| runs.into_iter().map(|(from, to)| from % 14..to % 20).collect::<Vec<_>>());
    let why = prop_oneof![
        Just(Rejected::NotHeld),
        Just(Rejected::TooMuch),
        Just(Rejected::NotNow),
        Just(Rejected::Cancelled)
    ];
    let full = (0u8..3, 0usize..3, peer()).prop_map(|(number, class, peer)| Event::Want {
        blob: blob(number, [5, 3 * MIB + 9, 11 * MIB][number as usize]),
        class: Class::ALL[class],
        held: PieceSet::none(1),
        sources: vec![peer],
    });
    prop_oneof![
        3 => full,
        1 => (0u8..3).prop_map(move |number| Event::Unwant { root: root(number) }),
        3 => peer().prop_map(|peer| Event::Up { peer }),
        1 => peer().prop_map(|peer| Event::Down { peer }),
        2 => (peer(), 0u8..3, set).prop_map(move |(peer, number, set)| Event::Holds { peer, root: root(number), set }),
        4 => (peer(), 0u8..3).prop_map(move |(peer, number)| Event::Holds {
            peer,
            root: root(number),
            set: PieceSet::all([1, 4, 11][number as usize]),
        }),
        2 => (peer(), 0u8..3, runs).prop_map(move |(peer, number, runs)| Event::Have { peer, root: root(number), runs }),
        4 => request().prop_map(|request| Event::First { request }),
        12 => (request(), 0u64..180).prop_map(|(request, group)| Event::Group { request, group }),
        3 => request().prop_map(|request| Event::Done { request }),
        3 => (request(), why).prop_map(|(request, why)| Event::Rejected { request, why }),
        1 => request().prop_map(|request| Event::Wrong { request }),
        2 => request().prop_map(|request| Event::Failed { request }),
        6 => Just(Event::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn no_order_of_events_breaks_it(events in prop::collection::vec((senseless(), 0u64..3000), 1..150)) {
        let mut rig = Rig::new(Limits { wants_per_blob_max: 2, wants_per_peer_max: 2, ..Limits::default() });
        for (event, pause) in events {
            rig.now += Duration::from_millis(pause);
            rig.tell(event);
            for progress in (0..3).filter_map(|number| rig.scheduler.progress(Digest::of(&[number]))) {
                prop_assert!(progress.bytes < progress.blob.size && progress.pieces < progress.pieces_all);
            }
        }
        // Everything ends when it is taken back.
        for number in 0..3 {
            rig.tell(Event::Unwant { root: Digest::of(&[number]) });
        }
        (0..4).for_each(|peer| drop(rig.tell(Event::Down { peer })));
        prop_assert_eq!(rig.scheduler.next_tick(), None);
    }
}
