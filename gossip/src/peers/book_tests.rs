//! Tests of `book.rs`: which records bind, which are only heard, and what a chain view changes.

use super::super::key::test_peer;
use super::*;
use covey_proto::chain::Member;
use covey_proto::{BlockNumber, HotkeyPair};

const GENESIS: Digest = Digest::new([9; 32]);

fn pair(n: u8) -> HotkeyPair {
    HotkeyPair::from_seed([n; 32])
}

fn view(block: u32, uids: &[u8]) -> Arc<ChainView> {
    let member = |uid: &u8| {
        let uid = *uid;
        let member = Member {
            uid: Uid::from(uid),
            hotkey: pair(uid).hotkey(),
            registered_at: BlockNumber(1),
            permit: false,
            stake: 0,
        };
        (member.uid, member)
    };
    Arc::new(ChainView {
        block: BlockNumber(block),
        hash: Digest::ZERO,
        members: uids.iter().map(member).collect(),
        slots: BTreeMap::new(),
    })
}

/// Uid `uid`'s record, which names peer `peer`.
fn record(uid: u8, peer: u8, sequence: u64) -> PeerRecord {
    PeerRecord {
        genesis: GENESIS,
        netuid: 7,
        uid: Uid::from(uid),
        hotkey: pair(uid).hotkey(),
        registered_at: BlockNumber(1),
        peer: test_peer(peer).to_bytes(),
        addresses: vec![],
        sequence,
        expiry: BlockNumber(100),
    }
}

fn signed(uid: u8, peer: u8, sequence: u64) -> SignedPeerRecord {
    record(uid, peer, sequence).sign(&pair(uid))
}

fn book(uids: &[u8]) -> Book {
    let mut book = Book::new(GENESIS, 7);
    book.set_view(view(10, uids));
    book
}

#[test]
fn a_record_binds_only_the_peer_that_presents_it() {
    let mut book = book(&[1, 2]);
    assert_eq!(book.present(test_peer(2), signed(1, 1, 1)), Err(Refusal::Impostor));
    assert_eq!(book.present(test_peer(1), signed(1, 1, 1)), Ok(vec![Change::Bound(test_peer(1), Uid::from(1))]));
    assert_eq!(book.peer_of(Uid::from(1)), Some(test_peer(1)));
    assert_eq!(book.uid_of(&test_peer(1)), Some(Uid::from(1)));
    assert_eq!(book.hear(signed(2, 2, 1)), Ok(true));
    assert_eq!(book.peer_of(Uid::from(2)), None, "gossip does not bind");
}

#[test]
fn records_of_others_networks_strangers_and_the_past_are_refused() {
    let mut book = book(&[1]);
    let mut foreign = record(1, 1, 1);
    foreign.netuid = 8;
    assert_eq!(book.present(test_peer(1), foreign.sign(&pair(1))), Err(Refusal::OtherNetwork));
    let mut expired = record(1, 1, 1);
    expired.expiry = BlockNumber(9);
    assert_eq!(book.present(test_peer(1), expired.sign(&pair(1))), Err(Refusal::Expired));
    let mut usurper = record(1, 1, 1);
    usurper.hotkey = pair(5).hotkey();
    assert_eq!(book.present(test_peer(1), usurper.sign(&pair(5))), Err(Refusal::NoMember));
    assert_eq!(book.present(test_peer(3), signed(3, 3, 1)), Err(Refusal::NoMember));
}

#[test]
fn the_highest_sequence_wins_and_a_uid_has_one_peer() {
    let mut book = book(&[1]);
    book.present(test_peer(1), signed(1, 1, 5)).unwrap();
    assert_eq!(book.present(test_peer(2), signed(1, 2, 4)), Err(Refusal::Stale));
    let moved = book.present(test_peer(2), signed(1, 2, 6)).unwrap();
    assert_eq!(moved, [Change::Unbound(test_peer(1), Uid::from(1)), Change::Bound(test_peer(2), Uid::from(1))]);
    assert_eq!(book.uid_of(&test_peer(1)), None);
}

#[test]
fn a_peer_is_named_by_a_members_record_shown_or_heard_of() {
    let mut book = Book::new(GENESIS, 7);
    assert!(!book.has_view());
    book.set_view(view(10, &[1, 2]));
    assert!(book.has_view() && !book.is_named(&test_peer(1)));
    book.present(test_peer(1), signed(1, 1, 1)).unwrap();
    book.hear(signed(2, 2, 1)).unwrap();
    assert!([1, 2].iter().all(|peer| book.is_named(&test_peer(*peer))));
    let _ = book.hear(signed(3, 3, 1));
    assert!(!book.is_named(&test_peer(3)), "no member");
    book.set_view(view(11, &[]));
    assert!([1, 2].iter().all(|peer| !book.is_named(&test_peer(*peer))), "members no more");
}

#[test]
fn a_peer_has_one_uid() {
    let mut book = book(&[1, 2]);
    book.present(test_peer(1), signed(1, 1, 1)).unwrap();
    let changes = book.present(test_peer(1), signed(2, 1, 1)).unwrap();
    assert_eq!(changes, [Change::Unbound(test_peer(1), Uid::from(1)), Change::Bound(test_peer(1), Uid::from(2))]);
}

#[test]
fn twins_void_each_other_until_a_higher_sequence() {
    let mut book = book(&[1]);
    book.present(test_peer(1), signed(1, 1, 5)).unwrap();
    assert_eq!(book.present(test_peer(1), signed(1, 1, 5)), Ok(vec![]), "signed anew, it says the same");
    let changes = book.present(test_peer(2), signed(1, 2, 5)).unwrap();
    assert_eq!(changes, [Change::Unbound(test_peer(1), Uid::from(1))]);
    assert_eq!(book.present(test_peer(1), signed(1, 1, 5)), Err(Refusal::Twins));
    assert!(book.present(test_peer(1), signed(1, 1, 6)).is_ok());
}

#[test]
fn who_comes_before_the_chain_view_binds_with_it_and_goes_with_membership() {
    let mut book = Book::new(GENESIS, 7);
    assert_eq!(book.present(test_peer(1), signed(1, 1, 1)), Err(Refusal::NoMember));
    assert_eq!(book.set_view(view(10, &[1])), [Change::Bound(test_peer(1), Uid::from(1))]);
    assert_eq!(book.set_view(view(11, &[])), [Change::Unbound(test_peer(1), Uid::from(1))]);
    book.set_view(view(10, &[1]));
    book.present(test_peer(1), signed(1, 1, 1)).unwrap();
    assert_eq!(book.set_view(view(101, &[1])), [Change::Unbound(test_peer(1), Uid::from(1))], "expired");
}

#[test]
fn gossip_is_news_once_and_leaves_with_its_member() {
    let mut book = book(&[1]);
    assert_eq!(book.hear(signed(1, 1, 2)), Ok(true));
    assert_eq!(book.hear(signed(1, 1, 2)), Ok(false));
    assert_eq!(book.hear(signed(1, 1, 1)), Err(Refusal::Stale));
    assert_eq!(book.hear(signed(1, 2, 2)), Err(Refusal::Twins));
    assert_eq!(book.hear(signed(1, 1, 3)), Ok(true));
    assert_eq!(book.addresses().len(), 1);
    book.set_view(view(11, &[]));
    assert_eq!(book.addresses().len(), 0);
}

#[test]
fn what_was_heard_before_the_chain_view_counts_with_it() {
    let mut book = Book::new(GENESIS, 7);
    for uid in [1, 2] {
        assert_eq!(book.hear(signed(uid, uid, 1)), Err(Refusal::NoMember));
    }
    book.set_view(view(10, &[1]));
    assert_eq!(book.addresses().into_keys().collect::<Vec<_>>(), [test_peer(1)]);
}

#[test]
fn a_false_record_about_anothers_peer_does_not_hide_where_it_is() {
    let mut book = book(&[1, 2]);
    let at = |uid: u8, peer: u8, address: &str| {
        let mut record = record(uid, peer, 1);
        record.addresses = vec![address.to_owned()];
        record.sign(&pair(uid))
    };
    // Uid 1 names uid 2's peer, at an address where nobody is.
    book.hear(at(1, 2, "/ip4/6.6.6.6/tcp/6")).unwrap();
    book.hear(at(2, 2, "/ip4/2.2.2.2/tcp/2")).unwrap();
    assert_eq!(book.addresses()[&test_peer(2)], ["/ip4/6.6.6.6/tcp/6", "/ip4/2.2.2.2/tcp/2"]);
    book.present(test_peer(2), at(2, 2, "/ip4/2.2.2.2/tcp/2")).unwrap();
    assert_eq!(book.addresses()[&test_peer(2)][0], "/ip4/2.2.2.2/tcp/2", "its own word comes first");
    assert_eq!(book.uid_of(&test_peer(2)), Some(Uid::from(2)));
    assert_eq!(book.peer_of(Uid::from(1)), None, "nobody speaks for uid 1");
}

#[test]
fn thousands_of_false_records_take_little_and_members_are_found_all_the_same() {
    let forged = |n: u32| {
        let key = HotkeyPair::from_seed(*Digest::of(&n.to_le_bytes()).as_bytes());
        let mut record = record((n % 256) as u8, 9, u64::from(n));
        record.hotkey = key.hotkey();
        record.sign(&key)
    };
    let mut unseeing = Book::new(GENESIS, 7);
    let _ = unseeing.hear(signed(1, 1, 1));
    let mut seeing = book(&[1]);
    seeing.hear(signed(1, 1, 1)).unwrap();
    for n in 0..2000 {
        let record = forged(n);
        assert_eq!(unseeing.hear(record.clone()), Err(Refusal::NoMember));
        assert_eq!(seeing.hear(record), Err(Refusal::NoMember));
    }
    let kept: usize = unseeing.early.values().map(Vec::len).sum();
    assert!(kept <= 256 * EARLY_MAX, "{kept}");
    unseeing.set_view(view(10, &[1]));
    for book in [unseeing, seeing] {
        assert_eq!(book.addresses().into_keys().collect::<Vec<_>>(), [test_peer(1)]);
        assert_eq!((book.heard.len(), book.early.len()), (1, 0));
    }
}

#[test]
fn a_sample_has_sixteen_records_others_each_time_and_none_that_the_asker_has() {
    let uids: Vec<u8> = (1..=40).collect();
    let mut book = book(&uids);
    for uid in &uids {
        book.hear(signed(*uid, *uid, 1)).unwrap();
    }
    book.set_own(signed(40, 40, 2));
    let mut have = UidSet::default();
    for expected in [16, 16, 8, 0] {
        let sample = book.sample(&have, 17);
        assert_eq!(sample.len(), expected);
        sample.iter().for_each(|signed| have.insert(signed.record().uid));
    }
    let uids = |turn| book.sample(&UidSet::default(), turn).iter().map(|s| s.record().uid).collect::<Vec<_>>();
    assert_eq!(uids(5)[..3], [40, 5, 6].map(Uid::from), "the own one first");
    assert_eq!(uids(39)[..3], [40, 39, 1].map(Uid::from));
    assert_eq!(book.known_uids().len(), 40);
}

#[test]
fn an_address_that_leads_through_a_relay_is_not_where_a_member_is_dialled() {
    let mut book = book(&[1]);
    let direct = "/ip4/1.2.3.4/tcp/7".to_owned();
    let relayed = format!("/ip4/5.5.5.5/tcp/1/p2p/{}/p2p-circuit", test_peer(9));
    let record = PeerRecord { addresses: vec![relayed, direct.clone()], ..record(1, 1, 1) };
    assert_eq!(book.hear(record.sign(&pair(1))), Ok(true));
    assert_eq!(book.addresses(), BTreeMap::from([(test_peer(1), vec![direct])]));
}
