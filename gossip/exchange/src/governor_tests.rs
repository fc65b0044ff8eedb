//! The governor on its own: turns, places, bounds, rates, and what nobody may gain.

use super::*;
use proptest::prelude::*;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const GROUP: u64 = 64 << 10;

fn asked(rank: Rank, class: Class, bytes: u64) -> Asked {
    Asked { rank, class, bytes, repeat: false }
}

/// How loaded a governor is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Load {
    peers: usize,
    active: usize,
    requests: usize,
    bytes: u64,
    buffered: u64,
}

fn load(governor: &Governor<u32>) -> Load {
    Load {
        peers: governor.peers.len(),
        active: governor.places.seated(),
        requests: governor.open.len(),
        bytes: governor.peers.values().map(|peer| peer.bytes).sum(),
        buffered: governor.pools.iter().sum(),
    }
}

/// A governor with sockets that take what they are told to, and a disk that answers at once.
struct Bench {
    governor: Governor<u32>,
    start: Instant,
    now: Instant,
    /// Peers that read nothing.
    stalled: Vec<u32>,
    owner: HashMap<Ticket, (u32, Class)>,
    sent: BTreeMap<(u32, Class), u64>,
    /// Every grant: when, and how many bytes.
    grants: Vec<(Instant, u64)>,
    done: Vec<Ticket>,
}

impl Bench {
    fn new(limits: GovernorLimits) -> Bench {
        let start = Instant::now();
        Bench {
            governor: Governor::new(limits, start),
            start,
            now: start,
            stalled: vec![],
            owner: HashMap::new(),
            sent: BTreeMap::new(),
            grants: vec![],
            done: vec![],
        }
    }

    fn ask(&mut self, peer: u32, asked: Asked) -> Result<Ticket, Refused> {
        let ticket = self.governor.enqueue(peer, asked)?;
        self.owner.insert(ticket, (peer, asked.class));
        Ok(ticket)
    }

    /// Keeps a peer's queue full of answers of `bytes`.
    fn fill(&mut self, peer: u32, what: Asked) {
        while self.governor.peers.get(&peer).is_none_or(|state| state.requests < 8) {
            self.ask(peer, what).expect("below every bound");
        }
    }

    /// Does what the governor says until it waits; time goes on only if `until` allows.
    fn step(&mut self, until: Instant) -> Option<Ticket> {
        loop {
            match self.governor.next(self.now) {
                Next::Read { ticket } => {
                    self.governor.ready(ticket);
                }
                Next::Grant { ticket, bytes } => {
                    let (peer, class) = self.owner[&ticket];
                    *self.sent.entry((peer, class)).or_default() += bytes;
                    self.grants.push((self.now, bytes));
                    if !self.stalled.contains(&peer) && self.governor.written(ticket, bytes) {
                        self.done.push(ticket);
                    }
                    return Some(ticket);
                }
                Next::WaitUntil(at) if at <= until => {
                    assert!(at > self.now, "to wait for what has been is to spin");
                    self.now = at;
                }
                Next::WaitUntil(_) | Next::Idle => {
                    self.now = self.now.max(until);
                    return None;
                }
            }
        }
    }

    fn sent(&self, peer: u32) -> u64 {
        Class::ALL.iter().filter_map(|class| self.sent.get(&(peer, *class))).sum()
    }
}

#[test]
fn a_peer_is_refused_beyond_its_bounds_and_disconnected_at_twice_them() {
    let mut bench = Bench::new(GovernorLimits::default());
    let small = asked(Rank::Member, Class::State, GROUP);
    let first = bench.ask(1, small).unwrap();
    (1..64).for_each(|_| assert!(bench.ask(1, small).is_ok()));
    for _ in 64..128 {
        let refused = bench.ask(1, small).unwrap_err();
        assert_eq!(refused, Refused::Requests { open: 64, limit: 64 });
        assert!(!refused.disconnects());
    }
    assert!(bench.ask(1, small).unwrap_err().disconnects());
    assert_eq!(bench.governor.cancel(first), Cancelled::Dropped);
    assert!(bench.ask(1, small).is_ok(), "a place is free again");

    let large = asked(Rank::Member, Class::State, 4 * MIB);
    (0..8).for_each(|_| assert!(bench.ask(2, large).is_ok()));
    let refused = bench.ask(2, large).unwrap_err();
    assert_eq!(refused, Refused::Bytes { open: 32 * MIB, asked: 4 * MIB, limit: 33 * MIB });
    (0..7).for_each(|_| assert!(!bench.ask(2, large).unwrap_err().disconnects()));
    assert!(bench.ask(2, large).unwrap_err().disconnects());
    bench.governor.gone(2);
    bench.governor.gone(1);
    assert_eq!(load(&bench.governor), Load::default());
}

#[test]
fn who_takes_answers_is_forgiven_its_refusals() {
    let mut bench = Bench::new(GovernorLimits::default());
    let small = asked(Rank::Member, Class::State, GROUP);
    for round in 0..20 {
        while bench.ask(1, small).is_ok() {}
        (0..50).for_each(|_| assert!(!bench.ask(1, small).unwrap_err().disconnects(), "round {round}"));
        (0..60).for_each(|_| assert!(bench.step(bench.now).is_some()));
    }
}

#[test]
fn the_round_goes_first_and_the_last_classes_keep_five_percent() {
    let mut bench = Bench::new(GovernorLimits::default());
    for _ in 0..8000 {
        bench.fill(1, asked(Rank::Member, Class::Round, MIB + 960));
        for (peer, class) in [(2, Class::State), (3, Class::Data)] {
            bench.fill(peer, asked(Rank::Member, class, MIB + 960));
        }
        bench.step(bench.now);
    }
    let all = (1..=3).map(|peer| bench.sent(peer)).sum::<u64>();
    for peer in [2, 3] {
        let share = bench.sent(peer) as f64 / all as f64;
        assert!((0.045..0.055).contains(&share), "{share} for peer {peer}");
    }
}

#[test]
fn a_hundred_strangers_take_no_more_than_one_member() {
    let mut bench = Bench::new(GovernorLimits::default());
    for _ in 0..5000 {
        (100..200).for_each(|peer| bench.fill(peer, asked(Rank::Stranger, Class::State, MIB)));
        (1..=3).for_each(|peer| bench.fill(peer, asked(Rank::Member, Class::State, MIB)));
        bench.step(bench.now);
    }
    let strangers: u64 = (100..200).map(|peer| bench.sent(peer)).sum();
    for peer in 1..=3 {
        let apart = bench.sent(peer).abs_diff(strangers);
        assert!(apart <= 2 * GROUP, "{apart} bytes between member {peer} and all strangers");
    }
}

#[test]
fn one_place_is_a_strangers_and_members_take_back_the_others() {
    let mut bench = Bench::new(GovernorLimits::default());
    (100..120).for_each(|peer| bench.fill(peer, asked(Rank::Stranger, Class::Round, MIB)));
    bench.step(bench.now);
    assert_eq!(bench.governor.places.serving().count(), 16, "nobody else wants them");
    (1..=20).for_each(|peer| bench.fill(peer, asked(Rank::Member, Class::Data, MIB)));
    for _ in 0..2000 {
        bench.step(bench.now);
    }
    let serving: Vec<u32> = bench.governor.places.serving().collect();
    assert_eq!(serving.iter().filter(|peer| **peer >= 100).count(), 1, "{serving:?}");
    assert_eq!(serving.len(), 16);
}

#[test]
fn a_place_goes_round_so_that_nobody_waits_for_ever() {
    let rate = ByteRate { per_second: 8 * MIB, burst: MIB };
    let mut bench = Bench::new(GovernorLimits { upload: Some(rate), ..Default::default() });
    let end = bench.start + Duration::from_secs(90);
    while bench.now < end {
        // Sixteen busy with the round, others with less urgent things.
        (1..=24).for_each(|peer| bench.fill(peer, asked(Rank::Member, Class::Round, MIB)));
        (25..=30).for_each(|peer| bench.fill(peer, asked(Rank::Member, Class::Data, MIB)));
        (100..=103).for_each(|peer| bench.fill(peer, asked(Rank::Stranger, Class::State, MIB)));
        bench.step(end);
    }
    for peer in (1..=24).chain(100..=103) {
        assert!(bench.sent(peer) >= MIB, "peer {peer} got {}", bench.sent(peer));
    }
    let data: u64 = (25..=30).map(|peer| bench.sent(peer)).sum();
    assert!(data > 0, "each twentieth place goes to who waits longest");
}

#[test]
fn who_stops_reading_is_given_a_quarter_of_a_mebibyte_and_stops_nobody() {
    let mut bench = Bench::new(GovernorLimits::default());
    bench.stalled = (1..=8).chain(100..=120).collect();
    for _ in 0..3000 {
        (1..=10).for_each(|peer| bench.fill(peer, asked(Rank::Member, Class::State, MIB)));
        (100..=120).for_each(|peer| bench.fill(peer, asked(Rank::Stranger, Class::State, MIB)));
        bench.step(bench.now);
    }
    for peer in bench.stalled.clone() {
        assert!(bench.sent(peer) <= 256 << 10, "peer {peer} got {}", bench.sent(peer));
    }
    assert!(bench.sent(9) > 50 * MIB && bench.sent(9).abs_diff(bench.sent(10)) <= GROUP);
}

#[test]
fn strangers_that_took_all_places_and_stop_reading_keep_no_member_out() {
    let mut bench = Bench::new(GovernorLimits::default());
    bench.stalled = (100..=120).collect();
    for _ in 0..200 {
        (100..=120).for_each(|peer| bench.fill(peer, asked(Rank::Stranger, Class::State, GROUP)));
        bench.step(bench.now);
    }
    for _ in 0..100 {
        bench.fill(1, asked(Rank::Member, Class::Round, MIB));
        bench.step(bench.now);
    }
    assert!(bench.sent(1) > MIB, "the member got {} bytes", bench.sent(1));
}

#[test]
fn answers_of_a_stream_are_granted_whole_and_in_the_order_in_which_they_were_read() {
    let mut bench = Bench::new(GovernorLimits::default());
    let mut order = vec![];
    (0..5).for_each(|_| bench.fill(1, asked(Rank::Member, Class::State, 3 * GROUP + 77)));
    while let Some(ticket) = bench.step(bench.now) {
        order.push(ticket);
    }
    order.dedup();
    let mut sorted = order.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(order, sorted, "none is come back to");
    assert_eq!(bench.done, order);
}

#[test]
fn what_others_got_comes_later_but_it_comes() {
    let mut bench = Bench::new(GovernorLimits::default());
    let one = asked(Rank::Member, Class::State, GROUP);
    let repeat = bench.ask(1, Asked { repeat: true, ..one }).unwrap();
    (0..20).for_each(|_| assert!(bench.ask(1, one).is_ok()));
    while bench.step(bench.now).is_some() {}
    let at = bench.done.iter().position(|ticket| *ticket == repeat);
    assert_eq!(at, Some(7), "after seven others");
}

#[test]
fn a_request_taken_back_ends_unless_it_is_under_way_and_its_memory_is_counted_until_it_is_read() {
    let mut bench = Bench::new(GovernorLimits::default());
    let now = bench.now;
    let governor = &mut bench.governor;
    let one = asked(Rank::Member, Class::Round, MIB);
    let first = governor.enqueue(1, one).unwrap();
    assert_eq!(governor.next(now), Next::Read { ticket: first });
    assert_eq!(governor.cancel(first), Cancelled::Dropped);
    assert_eq!(load(governor).buffered, MIB, "the disk is still reading");
    assert!(!governor.ready(first), "nobody wants it");
    assert_eq!(load(governor), Load::default());
    assert_eq!(governor.cancel(first), Cancelled::Unknown);

    let second = governor.enqueue(1, one).unwrap();
    assert_eq!(governor.next(now), Next::Read { ticket: second });
    assert!(governor.ready(second));
    assert_eq!(governor.next(now), Next::Grant { ticket: second, bytes: GROUP });
    assert_eq!(governor.cancel(second), Cancelled::Underway);
    governor.gone(1);
    assert!(!governor.written(second, GROUP));
    assert_eq!(load(governor), Load::default());

    let third = governor.enqueue(1, one).unwrap();
    assert_eq!(governor.next(now), Next::Read { ticket: third });
    assert!(governor.failed(third), "its peer is to be told");
    assert_eq!((governor.next(now), load(governor)), (Next::Idle, Load::default()));
}

#[test]
fn what_went_without_asking_is_paid_off_first() {
    let start = Instant::now();
    let mut bucket = TokenBucket::new(Some(ByteRate { per_second: 100, burst: 50 }), start);
    bucket.charge(250, start);
    assert_eq!(bucket.take(50, start), Err(Some(start + Duration::from_millis(2500))));
    assert_eq!(bucket.take(50, start + Duration::from_millis(2500)), Ok(()));
    let mut unbounded = TokenBucket::new(None, start);
    unbounded.charge(u64::MAX, start);
    assert_eq!(unbounded.take(1, start), Ok(()));
}

#[test]
fn a_bucket_of_no_rate_says_never_and_one_without_a_bound_never_no() {
    let now = Instant::now();
    let mut none = TokenBucket::new(Some(ByteRate { per_second: 0, burst: 10 }), now);
    assert_eq!((none.take(10, now), none.take(1, now)), (Ok(()), Err(None)));
    let mut open = TokenBucket::new(None, now);
    assert_eq!(open.take(u64::MAX, now), Ok(()));
    let mut full = TokenBucket::new(Some(ByteRate { per_second: 5, burst: 10 }), now);
    assert_eq!(full.take(25, now), Ok(()), "more than a burst goes when the bucket is full");
    assert_eq!(full.take(10, now), Err(Some(now + Duration::from_secs(5))), "and is paid off first");
}

/// The most that went within any window, less what the rate allows for it.
fn above_rate(grants: &[(Instant, u64)], rate: ByteRate) -> f64 {
    // Kadane's: the largest sum of (bytes − rate · time since the grant before).
    let (mut most, mut run) = (0f64, 0f64);
    for (i, (at, bytes)) in grants.iter().enumerate() {
        let gap = if i == 0 { 0.0 } else { at.duration_since(grants[i - 1].0).as_secs_f64() };
        run = (run - gap * rate.per_second as f64).max(0.0) + *bytes as f64;
        most = most.max(run);
    }
    most
}

/// Small, repeatable, and good enough to choose who asks for what.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % sides
    }
}

fn check_bounds(bench: &Bench) -> Result<(), TestCaseError> {
    let (governor, limits) = (&bench.governor, &bench.governor.limits);
    prop_assert!(governor.places.seated() <= limits.active_max);
    prop_assert!(load(governor).buffered <= limits.buffers_max);
    for state in governor.peers.values() {
        prop_assert!(state.requests <= limits.requests_max && state.bytes <= limits.bytes_max);
        prop_assert!(state.ahead <= limits.ahead_max && state.requests > 0);
    }
    let held = |open: &Open<u32>| if open.stage == Stage::Waiting { 0 } else { open.bytes };
    let held: u64 = governor.open.values().chain(governor.orphans.values()).map(held).sum();
    prop_assert_eq!(held, load(governor).buffered, "memory is counted exactly");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_window_carries_more_than_rate_and_burst(
        per_second in 1_000_000u64..50_000_000,
        burst in 0u64..4_000_000,
        seed: u64,
    ) {
        let rate = ByteRate { per_second, burst };
        let mut bench = Bench::new(GovernorLimits { upload: Some(rate), ..Default::default() });
        let mut dice = Dice(seed);
        for _ in 0..400 {
            let peer = dice.roll(30) as u32;
            let rank = if peer.is_multiple_of(3) { Rank::Stranger } else { Rank::Member };
            let class = Class::ALL[dice.roll(3) as usize];
            // A refusal is no matter here.
            let _ = bench.ask(peer, asked(rank, class, 1 + dice.roll(2 * MIB)));
            let until = bench.now + Duration::from_millis(dice.roll(30));
            bench.step(until);
            check_bounds(&bench)?;
        }
        let end = bench.now + Duration::from_secs(3600);
        while bench.step(end).is_some() {}
        let rate = at_least(rate, GROUP);
        let above = above_rate(&bench.grants, rate);
        prop_assert!(above <= rate.burst as f64 + 1.0, "{above} above the rate, the burst is {}", rate.burst);
    }

    #[test]
    fn every_request_ends_whatever_is_asked_cancelled_stalled_or_gone(seed: u64) {
        let mut bench = Bench::new(GovernorLimits::default());
        let mut dice = Dice(seed);
        let mut reading: Vec<Ticket> = vec![];
        let mut granted: Vec<(Ticket, u64)> = vec![];
        let mut tickets: Vec<Ticket> = vec![];
        for _ in 0..3000 {
            match dice.roll(8) {
                0..=1 => {
                    let peer = dice.roll(40) as u32;
                    let rank = if dice.roll(3) == 0 { Rank::Stranger } else { Rank::Member };
                    let class = Class::ALL[dice.roll(3) as usize];
                    let bytes = 1 + if dice.roll(2) == 0 { dice.roll(GROUP) } else { dice.roll(4 * MIB) };
                    let what = Asked { repeat: dice.roll(4) == 0, ..asked(rank, class, bytes) };
                    tickets.extend(bench.ask(peer, what).ok());
                }
                2 if !reading.is_empty() => {
                    let ticket = reading.swap_remove(dice.roll(reading.len() as u64) as usize);
                    if dice.roll(10) == 0 { bench.governor.failed(ticket) } else { bench.governor.ready(ticket) };
                }
                3..=4 if !granted.is_empty() => {
                    let (ticket, bytes) = granted.swap_remove(dice.roll(granted.len() as u64) as usize);
                    bench.governor.written(ticket, bytes);
                }
                5 if dice.roll(20) == 0 => bench.governor.gone(dice.roll(40) as u32),
                5 if dice.roll(4) == 0 && !tickets.is_empty() => {
                    let at = dice.roll(tickets.len() as u64) as usize;
                    bench.governor.cancel(tickets[at]);
                }
                _ => match bench.governor.next(bench.now) {
                    Next::Read { ticket } => reading.push(ticket),
                    Next::Grant { ticket, bytes } => granted.push((ticket, bytes)),
                    Next::WaitUntil(_) | Next::Idle => bench.now += Duration::from_millis(dice.roll(3000)),
                },
            }
            check_bounds(&bench)?;
        }
        // From here on everything is read and written at once.
        for ticket in reading {
            bench.governor.ready(ticket);
        }
        for (ticket, bytes) in granted {
            bench.governor.written(ticket, bytes);
        }
        let end = bench.now + Duration::from_secs(3600);
        while bench.step(end).is_some() {}
        prop_assert_eq!(load(&bench.governor), Load::default());
        prop_assert!(bench.governor.open.is_empty() && bench.governor.orphans.is_empty());
    }

    #[test]
    fn busy_members_of_a_class_are_never_further_apart_than_a_quantum(
        sizes in prop::collection::vec(1u64..1_100_000, 2..15),
        steps in 1usize..3000,
    ) {
        let mut bench = Bench::new(GovernorLimits::default());
        for step in 0..steps {
            for (peer, bytes) in sizes.iter().enumerate() {
                bench.fill(peer as u32, asked(Rank::Member, Class::State, *bytes));
            }
            bench.step(bench.now);
            let sent = (0..sizes.len() as u32).map(|peer| bench.sent(peer));
            let (least, most) = (sent.clone().min().unwrap_or(0), sent.max().unwrap_or(0));
            prop_assert!(most - least <= GROUP, "{} apart after {step} grants", most - least);
        }
    }
}
