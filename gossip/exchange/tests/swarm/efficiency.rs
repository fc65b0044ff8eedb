//! How near to what the lines allow a fetch comes. All in virtual time: the same on any machine.

use crate::server::Fault;
use crate::sim::{Sim, mbit};
use covey_exchange::Class;
use covey_exchange::scheduler::Limits;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const HOUR: Duration = Duration::from_secs(3600);

/// A seed and eight fetchers on home lines, all connected.
fn one_to_eight(seed: u64, size: u64) -> (f64, f64) {
    let mut sim = Sim::new(seed, Limits::default());
    let blob = sim.blob(size, Class::Round);
    let nodes: Vec<usize> =
        (0..9).map(|_| sim.peer(mbit(110), mbit(500), Duration::from_millis(25), Fault::None)).collect();
    sim.give_all(nodes[0], blob);
    for a in &nodes {
        nodes.iter().for_each(|b| sim.connect(*a, *b));
    }
    nodes[1..].iter().for_each(|node| sim.want(*node, blob, vec![nodes[0]]));
    let done = |sim: &Sim| nodes.iter().all(|node| sim.is_done(*node));
    assert!(sim.run(HOUR, done), "seed {seed}: not done in an hour");
    let root = sim.blobs[blob].0.root;
    let ended = nodes[1..].iter().filter_map(|node| sim.peers[*node].copies[&root].complete).max().unwrap();
    let came: u64 = nodes[1..].iter().map(|node| sim.peers[*node].copies[&root].bytes).sum();
    let (s, u, d) = (size as f64, mbit(110) as f64, mbit(500) as f64);
    let bound = (s / u).max(s / d).max(8.0 * s / (9.0 * u));
    let ratio = ended.as_secs_f64() / bound;
    let duplicates = came as f64 / (8.0 * s) - 1.0;
    let twice: u32 = sim.peers[0].server.pieces_sent.values().map(|times| times - 1).sum();
    println!(
        "seed {seed}: {ratio:.3} of the bound, {:.2} % duplicates, {twice} pieces sent again by the seed, {} events",
        duplicates * 100.0,
        sim.events
    );
    (ratio, duplicates)
}

#[test]
fn one_seed_and_eight_fetchers_come_near_the_bound() {
    for seed in 0..3 {
        let (ratio, duplicates) = one_to_eight(seed, 1024 * MIB);
        assert!(ratio <= 1.25 && duplicates <= 0.03, "seed {seed}: {ratio:.3} × the bound, {duplicates:.4} came twice");
    }
}

/// A fetcher on a fast line, and providers of its blob with these lines up and faults; the time that it took.
fn fetch_of(seed: u64, size: u64, providers: &[(u64, Fault)]) -> (Duration, Sim) {
    let mut sim = Sim::new(seed, Limits::default());
    let blob = sim.blob(size, Class::Round);
    let fetcher = sim.peer(mbit(110), mbit(500), Duration::from_millis(25), Fault::None);
    for (up, fault) in providers {
        let provider = sim.peer(*up, mbit(500), Duration::from_millis(25), *fault);
        if *fault != Fault::Boasts {
            sim.give_all(provider, blob);
        }
        sim.connect(fetcher, provider);
    }
    sim.want(fetcher, blob, Vec::new());
    assert!(sim.run(HOUR, |sim| sim.is_done(fetcher)), "seed {seed}: not done in an hour");
    let ended = sim.peers[fetcher].copies[&sim.blobs[blob].0.root].complete.unwrap();
    (ended, sim)
}

fn came_twice(sim: &Sim, node: usize) -> f64 {
    let copies = || sim.peers[node].copies.values();
    copies().map(|copy| copy.bytes).sum::<u64>() as f64 / copies().map(|copy| copy.needed).sum::<u64>() as f64 - 1.0
}

#[test]
fn one_to_one_fills_the_line() {
    for (seed, line) in [(0, 20), (1, 110), (2, 500)] {
        let size = line * 5 * MIB;
        let (time, sim) = fetch_of(seed, size, &[(mbit(line), Fault::None)]);
        let used = size as f64 / mbit(line) as f64 / time.as_secs_f64();
        println!("{line} Mbit/s: {:.1} % of the line", used * 100.0);
        assert!(used >= 0.95, "seed {seed}: {used:.3} of a line of {line} Mbit/s");
        assert!(came_twice(&sim, 0) == 0.0);
    }
}

#[test]
fn one_good_provider_of_eight_is_enough() {
    let bad = [
        [(mbit(110), Fault::Stalls(20)); 7],
        [(mbit(1), Fault::None); 7],
        [(20_000, Fault::None); 7],
        [(mbit(110), Fault::Lies(30)); 7],
        [(mbit(110), Fault::Boasts); 7],
        [(mbit(110), Fault::Rejects(2)); 7],
        [
            (mbit(110), Fault::Stalls(1)),
            (mbit(110), Fault::Lies(3)),
            (8_000, Fault::None),
            (mbit(110), Fault::Withholds(3)),
            (mbit(110), Fault::Breaks(2)),
            (mbit(110), Fault::Narrow(1)),
            (mbit(2), Fault::None),
        ],
    ];
    for (seed, bad) in bad.into_iter().enumerate() {
        let mut providers = bad.to_vec();
        providers.insert(seed, (mbit(110), Fault::None));
        let size = 256 * MIB;
        let (time, sim) = fetch_of(seed as u64, size, &providers);
        let alone = size as f64 / mbit(110) as f64;
        let (ratio, twice) = (time.as_secs_f64() / alone, came_twice(&sim, 0));
        println!("seven as {:?}: {ratio:.3} of the good one's time alone, {:.2} % twice", bad[0], twice * 100.0);
        assert!(ratio <= 1.1 && twice <= 0.03, "seed {seed}: {ratio:.3} × its time alone, {twice:.4} came twice");
    }
}

#[test]
fn unequal_lines_add_up() {
    let lines = [110, 50, 50, 20, 10, 5, 2, 1];
    let providers: Vec<(u64, Fault)> = lines.iter().map(|line| (mbit(*line), Fault::None)).collect();
    let size = 512 * MIB;
    let (time, sim) = fetch_of(0, size, &providers);
    let ratio = time.as_secs_f64() / (size as f64 / mbit(lines.iter().sum()) as f64);
    println!("lines of {lines:?} Mbit/s: {ratio:.3} of the bound, {:.2} % twice", came_twice(&sim, 0) * 100.0);
    assert!(ratio <= 1.1 && came_twice(&sim, 0) <= 0.03, "{ratio:.3} × the bound, {:.4} twice", came_twice(&sim, 0));
}

#[test]
fn a_restart_half_way_fetches_little_twice() {
    let mut sim = Sim::new(7, Limits::default());
    let size = 512 * MIB;
    let blob = sim.blob(size, Class::State);
    let fetcher = sim.peer(mbit(110), mbit(500), Duration::from_millis(25), Fault::None);
    for _ in 0..4 {
        let provider = sim.peer(mbit(110), mbit(500), Duration::from_millis(25), Fault::None);
        sim.give_all(provider, blob);
        sim.connect(fetcher, provider);
    }
    sim.want(fetcher, blob, Vec::new());
    sim.at(Duration::from_secs(5), crate::sim::Script::Restart(fetcher));
    assert!(sim.run(HOUR, |sim| sim.scripts == 0 && sim.is_done(fetcher)));
    println!("restart: {:.2} % came twice", came_twice(&sim, fetcher) * 100.0);
    assert!(came_twice(&sim, fetcher) <= 0.02, "{:.4} came twice", came_twice(&sim, fetcher));
}

#[test]
fn a_round_goes_before_a_state_and_data_still_gets_a_little() {
    let mut sim = Sim::new(3, Limits::default());
    let sizes = [128 * MIB, 128 * MIB, 128 * MIB];
    let blobs: Vec<usize> = Class::ALL.iter().zip(sizes).map(|(class, size)| sim.blob(size, *class)).collect();
    let fetcher = sim.peer(mbit(110), mbit(500), Duration::from_millis(25), Fault::None);
    let provider = sim.peer(mbit(110), mbit(500), Duration::from_millis(25), Fault::None);
    sim.connect(fetcher, provider);
    for blob in &blobs {
        sim.give_all(provider, *blob);
    }
    // The urgent blob comes last, when the line is full of the others.
    sim.want(fetcher, blobs[2], Vec::new());
    sim.at(Duration::from_secs(2), crate::sim::Script::Want(fetcher, blobs[1]));
    sim.at(Duration::from_secs(4), crate::sim::Script::Want(fetcher, blobs[0]));
    let roots: Vec<_> = blobs.iter().map(|blob| sim.blobs[*blob].0.root).collect();
    let complete = |sim: &Sim, blob: usize| sim.peers[0].copies.get(&roots[blob]).and_then(|copy| copy.complete);
    assert!(sim.run(HOUR, |sim| complete(sim, 0).is_some()));
    let alone = sizes[0] as f64 / mbit(110) as f64;
    let took = (complete(&sim, 0).unwrap() - Duration::from_secs(4)).as_secs_f64() / alone;
    let data = sim.peers[0].copies[&roots[2]].got_bytes as f64 / MIB as f64;
    println!("round: {took:.3} of its time alone; data had {data:.1} MiB by then");
    assert!(took <= 1.25, "{took:.3}");
    let before = data;
    assert!(sim.run(HOUR, |sim| complete(sim, 1).is_some()));
    let data = sim.peers[0].copies[&roots[2]].got_bytes as f64 / MIB as f64;
    println!("data had {data:.1} MiB when the state was there");
    assert!(data > before + 2.0 && sim.run(HOUR, |sim| complete(sim, 2).is_some()));
}
