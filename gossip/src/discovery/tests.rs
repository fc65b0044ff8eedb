//! Discovery fed with histories: a node alone, in a crowd of strangers, as a member, behind a relay.

use super::keys::state_key;
use super::*;
use crate::peers::place::Place;
use crate::peers::providers::Rank;
use crate::peers::way::Way;
use crate::peers::{Multiaddr, PeerKey, many_peers, test_peer};
use covey_proto::{Digest, RunId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

const TARGET: usize = 3;

/// What discovery sees, and what became of its actions.
#[derive(Default)]
struct World {
    connected: BTreeSet<PeerKey>,
    ips: BTreeMap<PeerKey, IpAddr>,
    members: BTreeSet<PeerKey>,
    shown: BTreeMap<PeerKey, Vec<Multiaddr>>,
    banned: BTreeSet<PeerKey>,
    sees_chain: bool,
    takes_part: bool,
    states: Vec<Digest>,
    gone: BTreeSet<AskerId>,
    /// One bucket holds everybody.
    table: Vec<Entry>,
}

impl Surroundings for World {
    fn connected(&self) -> &BTreeSet<PeerKey> {
        &self.connected
    }
    fn seen_at(&self, peer: &PeerKey) -> Option<IpAddr> {
        self.ips.get(peer).copied()
    }
    fn is_member(&self, peer: &PeerKey) -> bool {
        self.members.contains(peer)
    }
    fn is_named(&self, peer: &PeerKey) -> bool {
        self.members.contains(peer)
    }
    fn shown_addresses(&self, peer: &PeerKey) -> Vec<Multiaddr> {
        self.shown.get(peer).cloned().unwrap_or_default()
    }
    fn is_banned(&self, peer: &PeerKey) -> bool {
        self.banned.contains(peer)
    }
    fn sees_chain(&self) -> bool {
        self.sees_chain
    }
    fn takes_part(&self) -> bool {
        self.takes_part
    }
    fn states(&self) -> Vec<Digest> {
        self.states.clone()
    }
    fn is_gone(&self, asker: AskerId) -> bool {
        self.gone.contains(&asker)
    }
    fn can_ask(&mut self) -> bool {
        !self.table.is_empty()
    }
    fn bucket_of(&mut self, _: &PeerKey) -> Vec<Entry> {
        self.table.clone()
    }
}

/// A machine in its world; time goes on only when told.
struct Rig {
    machine: Discovery,
    world: World,
    now: Instant,
}

impl Rig {
    fn new() -> Rig {
        let now = Instant::now();
        Rig { machine: Discovery::new(run(), TARGET, now), world: World::default(), now }
    }

    /// The same, with somebody in the table.
    fn with_table() -> Rig {
        let mut rig = Rig::new();
        rig.world.table.push(Entry { peer: test_peer(99), addresses: vec![address("/ip4/9.9.9.9/tcp/1")] });
        rig
    }

    /// Tells the machine; the table does what it is told.
    fn tell(&mut self, event: DiscoveryEvent) -> Vec<DiscoveryAction> {
        let mut out = Vec::new();
        self.machine.handle(self.now, event, &mut self.world, &mut out);
        for action in &out {
            match action {
                DiscoveryAction::Enter { peer, addresses } => {
                    self.world.table.retain(|entry| entry.peer != *peer);
                    self.world.table.push(Entry { peer: *peer, addresses: addresses.clone() });
                }
                DiscoveryAction::Remove { peer } => self.world.table.retain(|entry| entry.peer != *peer),
                _ => {}
            }
        }
        out
    }

    fn tick(&mut self, after: Duration) -> Vec<DiscoveryAction> {
        self.now += after;
        self.tell(DiscoveryEvent::Tick)
    }

    /// A peer is connected from this address; empty through a relay.
    fn connect(&mut self, peer: PeerKey, ip: &str) -> Vec<DiscoveryAction> {
        self.world.connected.insert(peer);
        if let Ok(ip) = ip.parse() {
            self.world.ips.insert(peer, ip);
        }
        self.tell(DiscoveryEvent::Connected)
    }

    /// It says that it listens there, and that it dialled this node at `observed`.
    fn identify(&mut self, peer: PeerKey, way: Way, listens: &str, observed: &str) -> Vec<DiscoveryAction> {
        let (listens, observed) = (Some(vec![address(listens)]), address(observed));
        self.tell(DiscoveryEvent::Identified(IdentifyReport { peer, dialled: false, way, listens, observed }))
    }
}

fn run() -> RunId {
    RunId(Digest::of(b"a run"))
}

fn address(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

fn look_ups(actions: &[DiscoveryAction]) -> Vec<(LookUpId, Digest)> {
    let look_up = |action: &DiscoveryAction| match action {
        DiscoveryAction::LookUp { look_up, key } => Some((*look_up, *key)),
        _ => None,
    };
    actions.iter().filter_map(look_up).collect()
}

fn published(actions: &[DiscoveryAction]) -> Vec<(PublicationId, Digest)> {
    let published = |action: &DiscoveryAction| match action {
        DiscoveryAction::Publish { publication, key } => Some((*publication, *key)),
        _ => None,
    };
    actions.iter().filter_map(published).collect()
}

fn asked(actions: &[DiscoveryAction]) -> Vec<PeerKey> {
    let asked = |action: &DiscoveryAction| match action {
        DiscoveryAction::AskForRecords { peer } => Some(*peer),
        _ => None,
    };
    actions.iter().filter_map(asked).collect()
}

const SECOND: Duration = Duration::from_secs(1);
const HERE: &str = "/ip4/5.5.5.5/tcp/1";

#[test]
fn a_node_alone_looks_its_run_up_more_and_more_seldom_until_it_has_peers_enough() {
    let mut rig = Rig::new();
    assert!(look_ups(&rig.tick(SECOND)).is_empty(), "there is nobody to ask");
    rig.world.table.push(Entry { peer: test_peer(99), addresses: vec![address(HERE)] });
    let mut times = Vec::new();
    for second in 1..=40 {
        for (look_up, key) in look_ups(&rig.tick(SECOND)) {
            assert_eq!(key, run_key(run()));
            times.push(second);
            assert!(rig.tell(DiscoveryEvent::LookUpEnded { look_up }).is_empty(), "nobody asked for it");
        }
    }
    assert_eq!(times, [1, 3, 7, 15, 31]);
    (1..=TARGET as u8).for_each(|n| drop(rig.connect(test_peer(n), "1.2.3.4")));
    assert!((0..99).all(|_| look_ups(&rig.tick(9 * SECOND)).is_empty()));
    rig.world.connected.clear();
    assert_eq!(look_ups(&rig.tick(SECOND)).len(), 1, "alone again: at once");
}

#[test]
fn four_look_ups_run_sixteen_wait_and_who_gave_up_is_passed_over() {
    let mut rig = Rig::with_table();
    let want = |rig: &mut Rig, n: u64| {
        rig.tell(DiscoveryEvent::Wanted { state: Digest::of(&n.to_le_bytes()), asker: AskerId(n) })
    };
    let mut open: Vec<LookUpId> = Vec::new();
    for n in 0..20 {
        let begun = look_ups(&want(&mut rig, n));
        assert_eq!(begun.len(), usize::from(n < 4), "look-up {n}");
        open.extend(begun.iter().map(|(look_up, _)| *look_up));
    }
    assert_eq!(want(&mut rig, 20), [DiscoveryAction::Answer { asker: AskerId(20), peers: vec![] }]);
    rig.world.gone.extend((4..7).map(AskerId));
    assert_eq!(
        rig.tell(DiscoveryEvent::LookUpEnded { look_up: open[0] }),
        [DiscoveryAction::Answer { asker: AskerId(0), peers: vec![] }]
    );
    let next = look_ups(&rig.tick(SECOND));
    assert_eq!(next.iter().map(|(_, key)| *key).collect::<Vec<_>>(), [state_key(&Digest::of(&7u64.to_le_bytes()))]);
}

#[test]
fn what_is_found_is_dialled_and_told_members_first() {
    let mut rig = Rig::with_table();
    let state = Digest::of(b"a state");
    let actions = rig.tell(DiscoveryEvent::Wanted { state, asker: AskerId(1) });
    let (look_up, key) = look_ups(&actions)[0];
    assert_eq!(key, state_key(&state));
    let (stranger, member, banned, near) = (test_peer(1), test_peer(2), test_peer(3), test_peer(4));
    rig.world.members.insert(member);
    rig.world.banned.insert(banned);
    rig.connect(near, "4.4.4.4");
    let at = |peer: PeerKey, n: u8| (peer, vec![address(&format!("/ip4/{n}.1.1.1/tcp/1"))]);
    let providers = vec![at(stranger, 1), at(member, 2), at(banned, 3), at(near, 4)];
    assert_eq!(rig.tell(DiscoveryEvent::Found { look_up, providers }), [DiscoveryAction::DialSoon]);
    let leads: BTreeSet<PeerKey> = rig.machine.leads().all(rig.now).into_iter().map(|(peer, _)| peer).collect();
    assert_eq!(leads, BTreeSet::from([stranger, member]), "neither the banned nor who is here");
    let peers = vec![member, stranger, near];
    assert_eq!(
        rig.tell(DiscoveryEvent::LookUpEnded { look_up }),
        [DiscoveryAction::Answer { asker: AskerId(1), peers }]
    );
    (0..3).for_each(|_| drop(rig.tell(DiscoveryEvent::DialFailed { peer: stranger })));
    rig.tell(DiscoveryEvent::Banned { peer: member });
    assert!(rig.machine.leads().all(rig.now).is_empty());
    assert!(rig.tell(DiscoveryEvent::Found { look_up, providers: vec![] }).is_empty(), "it has ended");
}

#[test]
fn a_key_is_published_at_once_soon_again_and_then_each_ten_minutes_until_it_is_not_held() {
    let mut rig = Rig::with_table();
    rig.world.connected = (1..=TARGET as u8).map(test_peer).collect();
    rig.world.states = vec![Digest::of(b"a state")];
    let mut times = Vec::new();
    for second in 0..2000u64 {
        for (publication, key) in published(&rig.tick(if second == 0 { Duration::ZERO } else { SECOND })) {
            assert_eq!(key, state_key(&rig.world.states[0]));
            times.push(second);
            rig.tell(DiscoveryEvent::Published { publication, with: 1 });
        }
    }
    assert_eq!(times, [0, 2, 10, 42, 170, 682, 1282, 1882]);
    rig.world.states.clear();
    rig.world.takes_part = true;
    let actions = rig.tick(SECOND);
    assert!(actions.contains(&DiscoveryAction::Unpublish { key: state_key(&Digest::of(b"a state")) }));
    assert_eq!(published(&actions).iter().map(|(_, key)| *key).collect::<Vec<_>>(), [run_key(run())]);
}

#[test]
fn a_publication_that_reached_nobody_is_tried_again_in_ten_seconds_and_four_run_at_a_time() {
    let mut rig = Rig::with_table();
    rig.world.connected = (1..=TARGET as u8).map(test_peer).collect();
    rig.world.states = (0..6u8).map(|n| Digest::of(&[n])).collect();
    let first = published(&rig.tick(Duration::ZERO));
    assert_eq!(first.len(), 4);
    for (publication, _) in &first {
        rig.tell(DiscoveryEvent::Published { publication: *publication, with: 0 });
    }
    let second = published(&rig.tick(SECOND));
    assert_eq!(second.len(), 2, "the other two");
    for (publication, _) in &second {
        rig.tell(DiscoveryEvent::Published { publication: *publication, with: 20 });
    }
    assert_eq!(published(&rig.tick(2 * SECOND)).len(), 2, "a second time after two seconds");
    assert_eq!(published(&rig.tick(6 * SECOND)).len(), 0);
    assert_eq!(published(&rig.tick(SECOND)).len(), 2, "places are taken by those that have not ended");
}

#[test]
fn lists_of_records_are_asked_for_while_peers_are_few_and_again_when_the_chain_is_seen() {
    let mut rig = Rig::new();
    assert_eq!(asked(&rig.connect(test_peer(1), "1.1.1.1")), [test_peer(1)], "the first one at once");
    assert!(asked(&rig.tick(SECOND)).is_empty());
    rig.world.sees_chain = true;
    assert_eq!(asked(&rig.tick(SECOND)), [test_peer(1)]);
    assert_eq!(asked(&rig.connect(test_peer(2), "2.2.2.2")), [test_peer(2)]);
    rig.world.connected.remove(&test_peer(1));
    rig.tell(DiscoveryEvent::Left { peer: test_peer(1) });
    assert_eq!(asked(&rig.connect(test_peer(1), "1.1.1.1")), [test_peer(1)], "another visit");
    assert_eq!(asked(&rig.tick(300 * SECOND)).len(), 2);
    (3..9).for_each(|n| drop(rig.connect(test_peer(n), "3.3.3.3")));
    assert!(rig.machine.has_plenty(rig.world.connected.len()));
    assert!(asked(&rig.tick(300 * SECOND)).is_empty(), "peers enough");
}

#[test]
fn strangers_take_half_of_a_bucket_two_places_a_network_and_none_that_a_member_wants() {
    let mut rig = Rig::new();
    let peers = many_peers(60);
    for (n, peer) in peers.iter().enumerate().take(30) {
        // Three of each /16.
        let ip = format!("6.{}.0.{n}", n / 3);
        rig.connect(*peer, &ip);
        rig.identify(*peer, Way::Direct, &format!("/ip4/{ip}/tcp/1"), HERE);
        rig.tell(DiscoveryEvent::Serves { peer: *peer, dialled: None });
    }
    assert_eq!(rig.world.table.len(), 10);
    let of_first_net = |entry: &&Entry| entry.addresses[0].to_string().starts_with("/ip4/6.0.");
    assert_eq!(rig.world.table.iter().filter(of_first_net).count(), 2);
    for (n, peer) in peers.iter().enumerate().skip(30) {
        let ip = format!("7.0.0.{n}");
        rig.world.members.insert(*peer);
        rig.world.shown.insert(*peer, vec![address(&format!("/ip4/{ip}/tcp/2"))]);
        rig.connect(*peer, &ip);
        rig.tell(DiscoveryEvent::Serves { peer: *peer, dialled: None });
    }
    assert!(peers[30..].iter().all(|peer| rig.world.table.iter().any(|entry| entry.peer == *peer)));
    assert!(rig.world.table.iter().all(|entry| rig.world.members.contains(&entry.peer)), "strangers made room");
}

#[test]
fn a_stranger_is_entered_only_where_it_was_dialled_or_is_seen() {
    let mut rig = Rig::new();
    let peer = test_peer(1);
    rig.connect(peer, "1.1.1.1");
    assert!(rig.tell(DiscoveryEvent::Serves { peer, dialled: None }).is_empty(), "nobody knows where it listens");
    rig.identify(peer, Way::Direct, "/ip4/8.8.8.8/tcp/1", HERE);
    assert!(rig.world.table.is_empty(), "it says that it is elsewhere");
    rig.identify(peer, Way::Direct, "/ip4/1.1.1.1/tcp/7", HERE);
    assert_eq!(rig.world.table, [Entry { peer, addresses: vec![address("/ip4/1.1.1.1/tcp/7")] }]);
    let dialled = Some(address("/ip4/2.2.2.2/tcp/3"));
    rig.tell(DiscoveryEvent::Serves { peer, dialled: dialled.clone() });
    assert_eq!(rig.world.table[0].addresses, [address("/ip4/2.2.2.2/tcp/3"), address("/ip4/1.1.1.1/tcp/7")]);
    assert!(rig.tell(DiscoveryEvent::Serves { peer, dialled }).is_empty(), "nothing new: libp2p is left alone");
}

#[test]
fn a_provider_is_kept_once_it_has_shown_where_it_is_and_a_few_of_its_keys_wait_until_then() {
    let mut rig = Rig::new();
    let (peer, key) = (test_peer(1), |n: u8| Digest::of(&[n]));
    assert_eq!(rig.tell(DiscoveryEvent::Offer { peer, key: key(0) }), [DiscoveryAction::Refuse { peer }], "not here");
    rig.connect(peer, "1.1.1.1");
    for n in 0..7 {
        let refused = rig.tell(DiscoveryEvent::Offer { peer, key: key(n) });
        assert_eq!(refused.len(), usize::from(n >= 5), "key {n}");
    }
    let kept = |actions: Vec<DiscoveryAction>| -> Vec<ProviderRecord> {
        let kept = |action| if let DiscoveryAction::Keep(provided) = action { Some(provided) } else { None };
        actions.into_iter().filter_map(kept).collect()
    };
    let settled = kept(rig.identify(peer, Way::Direct, "/ip4/1.1.1.1/tcp/7", HERE));
    assert_eq!(settled.len(), 5);
    assert!(settled.iter().all(|provided| provided.rank == Rank::Stranger
        && provided.addresses == [address("/ip4/1.1.1.1/tcp/7")]
        && provided.place == Place::of([1, 1, 1, 1].into())));
    // A member's own addresses go before those that only its connection proves.
    rig.world.members.insert(peer);
    rig.world.shown.insert(peer, vec![address("/ip4/1.1.1.2/tcp/9")]);
    assert_eq!(
        rig.tell(DiscoveryEvent::Ranked { peer, member: true }),
        [DiscoveryAction::Rank { peer, rank: Rank::Member }]
    );
    let settled = kept(rig.tell(DiscoveryEvent::Offer { peer, key: key(8) }));
    assert_eq!((settled[0].rank, &settled[0].addresses[..]), (Rank::Member, &[address("/ip4/1.1.1.2/tcp/9")][..]));
    // Ten records, then one each six seconds.
    let taken = (0..20).filter(|n| !kept(rig.tell(DiscoveryEvent::Offer { peer, key: key(*n) })).is_empty()).count();
    assert_eq!(taken, 4, "five waited, one was kept, and the bucket held ten");
}

#[test]
fn who_comes_through_a_relay_is_neither_entered_nor_kept_nor_believed() {
    let mut rig = Rig::new();
    let (peer, other) = (test_peer(1), test_peer(2));
    rig.connect(peer, "");
    rig.tell(DiscoveryEvent::Serves { peer, dialled: None });
    rig.tell(DiscoveryEvent::Offer { peer, key: run_key(run()) });
    assert!(rig.identify(peer, Way::Relayed, "/ip4/1.1.1.1/tcp/7", HERE).is_empty());
    assert!(rig.world.table.is_empty());
    // It stands beside a direct one of the same peer: what came through the relay proves nothing still.
    rig.world.ips.insert(peer, [1, 1, 1, 1].into());
    rig.connect(other, "2.2.2.2");
    rig.identify(other, Way::Direct, "/ip4/2.2.2.2/tcp/7", HERE);
    let reached =
        |actions: &[DiscoveryAction]| actions.iter().any(|action| matches!(action, DiscoveryAction::ReachedAt { .. }));
    assert!(!reached(&rig.identify(peer, Way::Relayed, "/ip4/1.1.1.1/tcp/7", HERE)));
    assert!(reached(&rig.identify(peer, Way::Direct, "/ip4/1.1.1.1/tcp/7", HERE)), "directly it is a witness");
}
