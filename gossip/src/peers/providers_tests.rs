//! Tests of `providers.rs`: what thousands of strangers do to it.

use super::super::key::many_peers;
use super::*;

fn run() -> Digest {
    Digest::of(b"run")
}

fn at(n: usize) -> (Vec<Multiaddr>, Option<Place>) {
    let text = format!("6.{}.{}.{}", n / 65536, n / 256 % 256, n % 256);
    (vec![format!("/ip4/{text}/tcp/1").parse().unwrap()], Place::of(text.parse().unwrap()))
}

fn put(providers: &mut Providers, key: Digest, peer: PeerKey, rank: Rank, n: usize, now: Instant) -> bool {
    let (addresses, place) = at(n);
    providers.put(key, peer, rank, addresses, place, now).is_ok()
}

fn peers_of(providers: &Providers, key: &Digest, now: Instant) -> Vec<PeerKey> {
    providers.of(key, now).into_iter().map(|(peer, _)| peer).collect()
}

#[test]
fn members_push_out_the_strangers_that_came_first() {
    let (mut providers, now) = (Providers::new(run()), Instant::now());
    let peers = many_peers(1256);
    for (n, peer) in peers.iter().enumerate().take(1000) {
        assert!(put(&mut providers, run(), *peer, Rank::Stranger, n * 256, now), "the block's oldest makes room");
    }
    assert_eq!(providers.len(), STRANGERS_MAX);
    for (n, peer) in peers.iter().enumerate().skip(1000) {
        assert!(put(&mut providers, run(), *peer, Rank::Member, n, now));
    }
    assert_eq!(providers.len(), PER_KEY_MAX);
    assert!(!put(&mut providers, run(), peers[0], Rank::Stranger, 0, now), "there are members enough");
    let seen: BTreeSet<PeerKey> = (0..40).flat_map(|_| peers_of(&providers, &run(), now)).collect();
    assert_eq!(seen, peers[1000..].iter().copied().collect(), "all are told in turn");
}

#[test]
fn sybils_of_one_block_keep_four_places_and_an_honest_stranger_is_told_of() {
    let (mut providers, now) = (Providers::new(run()), Instant::now());
    let peers = many_peers(5001);
    let honest = peers[5000];
    assert!(put(&mut providers, run(), honest, Rank::Stranger, 90_000, now));
    for (n, peer) in peers.iter().enumerate().take(5000) {
        put(&mut providers, run(), *peer, Rank::Stranger, n % 256, now);
    }
    assert_eq!(providers.len(), PER_BLOCK_MAX + 1);
    assert!(peers_of(&providers, &run(), now).contains(&honest));
    // From many blocks of one /16, too: its own oldest make room.
    for (n, peer) in peers.iter().enumerate().take(5000) {
        put(&mut providers, run(), *peer, Rank::Stranger, n * 13 % 65536, now);
    }
    assert_eq!(providers.len(), STRANGERS_MAX);
    assert!((0..40).any(|_| peers_of(&providers, &run(), now).contains(&honest)));
}

#[test]
fn an_answer_has_twenty_and_four_strangers_of_four_blocks_beside_the_members() {
    let (mut providers, now) = (Providers::new(run()), Instant::now());
    let peers = many_peers(200);
    for (n, peer) in peers.iter().enumerate() {
        let rank = if n < 100 { Rank::Member } else { Rank::Stranger };
        put(&mut providers, run(), *peer, rank, n * 64, now);
    }
    let answer = peers_of(&providers, &run(), now);
    let strangers: Vec<_> = answer.iter().filter(|peer| peers[100..].contains(peer)).collect();
    assert_eq!((answer.len(), strangers.len()), (ANSWER_MAX, ANSWER_STRANGERS));
    let blocks: BTreeSet<Block> = strangers
        .iter()
        .map(|peer| at(peers.iter().position(|p| p == *peer).unwrap() * 64).1.unwrap().block())
        .collect();
    assert_eq!(blocks.len(), 4);
    peers.iter().for_each(|peer| providers.rank(peer, Rank::Stranger));
    assert_eq!(peers_of(&providers, &run(), now).len(), ANSWER_MAX);
}

#[test]
fn keys_of_strangers_give_way_and_the_runs_stays() {
    let (mut providers, now) = (Providers::new(run()), Instant::now());
    let peers = many_peers(3000);
    let key = |n: usize| Digest::of(&n.to_le_bytes());
    assert!(put(&mut providers, run(), peers[0], Rank::Stranger, 0, now));
    for (n, peer) in peers.iter().enumerate() {
        put(&mut providers, key(n), *peer, Rank::Stranger, n * 256, now);
    }
    assert_eq!(providers.keys.len(), 1 + KEYS_MAX / 2);
    for (n, peer) in peers.iter().enumerate() {
        put(&mut providers, key(10_000 + n), *peer, Rank::Member, n * 256, now);
    }
    assert_eq!(providers.keys.len(), KEYS_MAX);
    assert_eq!(peers_of(&providers, &run(), now), [peers[0]]);
    // One peer alone cannot have many.
    let mut providers = Providers::new(run());
    let kept = (0..100).filter(|n| put(&mut providers, key(*n), peers[0], Rank::Member, 0, now)).count();
    assert_eq!(kept, KEYS_PER_PEER_MAX);
    assert!(put(&mut providers, run(), peers[0], Rank::Member, 0, now));
}

#[test]
fn a_record_ends_with_its_time_its_peers_ban_and_needs_an_address() {
    let (mut providers, now) = (Providers::new(run()), Instant::now());
    let peers = many_peers(3);
    assert_eq!(providers.put(run(), peers[0], Rank::Member, vec![], None, now), Err(NotKept::NoAddress));
    for peer in &peers {
        put(&mut providers, run(), *peer, Rank::Stranger, 1, now);
    }
    providers.forget(&peers[0]);
    assert_eq!(peers_of(&providers, &run(), now).len(), 2);
    assert!(peers_of(&providers, &run(), now + TTL).is_empty());
    put(&mut providers, Digest::ZERO, peers[0], Rank::Stranger, 1, now + TTL);
    assert_eq!(providers.len(), 1);
}
