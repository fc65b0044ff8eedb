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
