//! Seeded histories with every fault at once: the checkers say what may never happen; that all fetches end as long as one
//! honest holder is there is checked here.

use crate::server::Fault;
use crate::sim::{Dice, Script, Sim, mbit};
use covey_exchange::Class;
use covey_exchange::scheduler::Limits;
use covey_proto::pieces::{LARGE_BYTES, PieceSet, Pieces};
use std::time::Duration;

const MIB: u64 = 1 << 20;
const HISTORIES: u64 = 3000;
const MINUTE: Duration = Duration::from_secs(60);

/// What a history was: for the sum at the end.
#[derive(Default)]
struct Sum {
    events: u64,
    fetches: usize,
    asked: u64,
    needed: u64,
    came: u64,
    slowest: Duration,
}

fn limits(dice: &mut Dice) -> Limits {
    match dice.below(3) {
        0 => Limits::default(),
        1 => Limits { wants_per_blob_max: 3, requests_per_peer_max: 3, ..Limits::default() },
        _ => Limits { in_flight_max: 6 * MIB, window_max: 4 * MIB, wants_per_peer_max: 2, ..Limits::default() },
    }
}

fn fault(dice: &mut Dice, pieces: u64) -> Fault {
    match dice.below(14) {
        0 => Fault::Lies(dice.between(1, 40)),
        1 => Fault::Stalls(dice.below(40)),
        2 => Fault::Boasts,
        3 => Fault::Rejects(dice.between(1, 4)),
        4 => Fault::Breaks(dice.between(1, 4)),
        5 => Fault::Withholds(dice.below(pieces) as u32),
        6 => Fault::Narrow(dice.below(3) as usize),
        _ => Fault::None,
    }
}

fn rate(dice: &mut Dice) -> u64 {
    match dice.below(8) {
        // A drip: a group in eight seconds, in three.
        0 => 8_000,
        1 => 20_000,
        2 => mbit(1),
        3..=5 => mbit(dice.between(10, 110)),
        _ => mbit(1000),
    }
}

/// A part of a blob, or all or none of it.
fn part(dice: &mut Dice, count: u32) -> PieceSet {
    match dice.below(4) {
        0 => PieceSet::none(count),
        1 => PieceSet::all(count),
        _ => {
            let mut set = PieceSet::none(count);
            (0..count).filter(|_| dice.one_in(2)).for_each(|piece| {
                set.insert(piece);
            });
            set
        }
    }
}

fn build(seed: u64) -> (Sim, Vec<usize>) {
    let mut dice = Dice::seeded(seed);
    let mut sim = Sim::new(dice.next(), limits(&mut dice));
    let blobs: Vec<usize> = (0..dice.between(1, 3))
        .map(|_| {
            let size = match dice.below(20) {
                0 => LARGE_BYTES + dice.below(8 * MIB),
                1 => dice.between(1, 3),
                _ => dice.between(1, 9 * MIB),
            };
            sim.blob(size, Class::ALL[dice.below(3) as usize])
        })
        .collect();
    let delay = |dice: &mut Dice| Duration::from_millis(dice.between(1, 150));
    // The honest holder is slow enough for the others to matter, and has all of everything.
    let up = mbit(dice.between(5, 50));
    let holder = sim.peer(up, mbit(100), delay(&mut dice), Fault::None);
    let fetchers: Vec<usize> =
        (0..dice.between(1, 3)).map(|_| sim.peer(rate(&mut dice), mbit(200), delay(&mut dice), Fault::None)).collect();
    let others: Vec<usize> = (0..dice.between(0, 6))
        .map(|_| {
            let fault = fault(&mut dice, 9);
            let up = rate(&mut dice);
            sim.peer(up, mbit(200), delay(&mut dice), fault)
        })
        .collect();
    for blob in &blobs {
        sim.give_all(holder, *blob);
        let pieces = Pieces::of_blob(&sim.blobs[*blob].0).unwrap();
        for other in &others {
            let set = part(&mut dice, pieces.count());
            sim.give(*other, *blob, set);
        }
        for fetcher in &fetchers {
            // A large blob is nearly there.
            let mut set =
                if pieces.count() > 1000 { PieceSet::all(pieces.count()) } else { PieceSet::none(pieces.count()) };
            for _ in 0..3 {
                set.remove(dice.below(u64::from(pieces.count())) as u32);
            }
            if dice.one_in(3) && pieces.count() < 1000 {
                set = part(&mut dice, pieces.count());
            }
            sim.give(*fetcher, *blob, set);
            sim.at(Duration::from_millis(dice.below(3000)), Script::Want(*fetcher, *blob));
        }
    }
    let everyone: Vec<usize> = (0..sim.peers.len()).collect();
    for fetcher in &fetchers {
        for other in &everyone {
            let time = Duration::from_millis(if dice.one_in(2) { 0 } else { dice.below(5000) });
            sim.at(time, Script::Connect(*fetcher, *other));
        }
    }
    for _ in 0..dice.below(12) {
        let time = Duration::from_millis(dice.below(20_000));
        let fetcher = fetchers[dice.below(fetchers.len() as u64) as usize];
        let other = everyone[dice.below(everyone.len() as u64) as usize];
        match dice.below(6) {
            0 => sim.at(time, Script::Restart(fetcher)),
            1 if others.contains(&other) => sim.at(time, Script::Leave(other)),
            2 if others.contains(&other) => sim.at(time, Script::Evict(other, blobs[0])),
            _ => {
                sim.at(time, Script::Disconnect(fetcher, other));
                sim.at(time + Duration::from_millis(dice.below(4000)), Script::Connect(fetcher, other));
            }
        }
    }
    (sim, fetchers)
}

fn play(seed: u64, sum: &mut Sum) {
    let (mut sim, fetchers) = build(seed);
    let done = |sim: &Sim| sim.scripts == 0 && fetchers.iter().all(|node| sim.is_done(*node));
    if !sim.run(30 * MINUTE, done) {
        for node in &fetchers {
            let peer = &sim.peers[*node];
            for progress in peer.copies.keys().filter_map(|root| peer.scheduler.progress(*root)) {
                println!("{node}: {progress:?}");
            }
            peer.links.keys().for_each(|other| println!("  {other} {:?}", sim.peers[*other].server.fault));
        }
        panic!("not done after half an hour");
    }
    sum.events += sim.events;
    for node in fetchers {
        let peer = &sim.peers[node];
        sum.fetches += peer.copies.len();
        sum.asked += peer.checker.asked_bytes;
        sum.came += peer.copies.values().map(|copy| copy.bytes).sum::<u64>();
        sum.needed += peer.copies.values().map(|copy| copy.needed).sum::<u64>();
        sum.slowest = peer.copies.values().filter_map(|copy| copy.complete).fold(sum.slowest, Duration::max);
    }
}

/// Says which seed broke.
struct Told(u64);
impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("history {} failed: HISTORY={} repeats it alone", self.0, self.0);
        }
    }
}

#[test]
fn every_fetch_ends_whatever_befalls_it_while_one_honest_holder_is_there() {
    let one = std::env::var("HISTORY").ok().and_then(|seed| seed.parse::<u64>().ok());
    let seeds = one.map_or(0..HISTORIES, |seed| seed..seed + 1);
    let mut sum = Sum::default();
    for seed in seeds {
        let _told = Told(seed);
        play(seed, &mut sum);
    }
    println!(
        "{} fetches, {} events, {:.2} % of bytes came twice, slowest {:?}",
        sum.fetches,
        sum.events,
        (sum.came as f64 / sum.needed.max(1) as f64 - 1.0) * 100.0,
        sum.slowest
    );
}
