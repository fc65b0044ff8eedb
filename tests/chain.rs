//! The client of a chain against real devnets in this process, with faults: what it must never do is lose a call, do one
//! twice, or take for final what is not.

#[path = "chain/faults.rs"]
mod faults;
#[path = "chain/line.rs"]
mod line;
#[path = "chain/world.rs"]
mod world;

use covey::chain::substrate::{Settings, SubstrateLedger};
use covey::chain::{Call, Fate, Ledger, LedgerError};
use covey_devnet::ChainSpec;
use covey_proto::chain::Slot;
use covey_proto::{BlockNumber, Digest, Uid};
use std::time::Duration;
use world::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_is_read_at_the_final_block_that_has_it() {
    let devnet = devnet(spec()).await;
    let ledger = client(&devnet, OPEN).await;
    assert_eq!(ledger.genesis().as_bytes(), &devnet.chain().genesis().0);
    let call = ledger.sign(&hotkey(2), Call::Commit(vec![0xc5; 46])).await.expect("a call is signed");
    ledger.submit(&call).await.expect("it is taken");
    ledger.submit(&call).await.expect("the same bytes again change nothing");
    make(&devnet, 3);
    until_final(&ledger, 1).await;
    assert!(matches!(ledger.view(BlockNumber(2)).await, Err(LedgerError::NoState { .. })), "block 2 is not final");
    let view = ledger.view(BlockNumber(1)).await.expect("block 1 is final");
    assert_eq!(view.slots[&hotkey(2).hotkey()], Slot { block: BlockNumber(1), bytes: vec![0xc5; 46] });
    let hash = devnet.chain().hash(1).expect("the store reads").expect("block 1 is there");
    assert_eq!(view.hash, Digest::new(hash.0));
    let first = &view.members[&Uid::from(0)];
    assert_eq!((first.hotkey, first.permit, first.stake > 0), (hotkey(0).hotkey(), true, true));
    assert_eq!(view.members.len(), 3);
    assert_eq!(ledger.fate(&call, BlockNumber(1)).await.expect("block 1 is final"), Fate::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_in_the_open_are_read_as_they_were_set() {
    let devnet = devnet(spec()).await;
    let ledger = client(&devnet, OPEN).await;
    make(&devnet, 1);
    let weights = vec![(Uid::from(1), 20_000), (Uid::from(2), u16::MAX)];
    let call = ledger.sign(&hotkey(0), Call::SetWeights(weights.clone())).await.expect("a call is signed");
    ledger.submit(&call).await.expect("it is taken");
    make(&devnet, 3);
    until_final(&ledger, 2).await;
    let weights_now = ledger.weights().await.expect("weights are read");
    assert_eq!(weights_now.get(&hotkey(0).hotkey()), Some(&weights));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_devnet_meets_every_need() {
    let devnet = devnet(spec()).await;
    let ledger = client(&devnet, OPEN).await;
    assert_eq!(ledger.lacks().await.expect("metadata are there"), []);
    let by_number = ChainSpec { stateful_epochs: false, ..spec() };
    let other = self::devnet(by_number).await;
    let refused = SubstrateLedger::connect(settings(&[other.url()], 9)).await.err().expect("there is no subnet 9");
    assert_eq!(refused.to_string(), "the chain has no subnet 9");
    let wrong = Settings { genesis: Some(ledger.genesis()), ..settings(&[other.url()], OPEN) };
    let refused = SubstrateLedger::connect(wrong).await.err().expect("another chain").to_string();
    assert!(refused.contains("follows another chain") && refused.contains(&ledger.genesis().to_string()), "{refused}");
    let refused = SubstrateLedger::connect(settings(&["ws://127.0.0.1:1".into()], OPEN)).await;
    let refused = refused.err().expect("nobody is there").to_string();
    assert!(refused.contains("ws://127.0.0.1:1: ") && refused.contains("refused"), "{refused}");
}

/// Locked weights: nothing to be seen until the chain opens them, and then what was meant.
async fn locked_weights_open(chain: ChainSpec) {
    let devnet = devnet(chain).await;
    let ledger = client(&devnet, HIDDEN).await;
    make(&devnet, 4);
    until_final(&ledger, 2).await;
    let weights = vec![(Uid::from(0), 1_000), (Uid::from(2), u16::MAX)];
    let call = ledger.sign(&hotkey(1), Call::SetWeights(weights.clone())).await.expect("a call is signed");
    ledger.submit(&call).await.expect("it is taken");
    make(&devnet, 3);
    until_final(&ledger, 5).await;
    assert_eq!(ledger.fate(&call, BlockNumber(5)).await.expect("it is looked up"), Fate::Done);
    assert_eq!(ledger.weights().await.expect("weights are read").get(&hotkey(1).hotkey()), None, "they are hidden");
    let mut opened = None;
    for _ in 0..50 {
        make(&devnet, 1);
        opened = ledger.weights().await.expect("weights are read").get(&hotkey(1).hotkey()).cloned();
        if opened.is_some() {
            break;
        }
    }
    assert_eq!(opened, Some(weights));
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_weights_open_at_their_epoch_where_epochs_go_by_the_last_one() {
    locked_weights_open(spec()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_weights_open_at_their_epoch_where_epochs_go_by_number() {
    locked_weights_open(ChainSpec { stateful_epochs: false, ..spec() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_that_would_be_refused_are_not_sent() {
    let devnet = devnet(spec()).await;
    let ledger = client(&devnet, OPEN).await;
    make(&devnet, 1);
    let row = |uids: &[u8]| Call::SetWeights(uids.iter().map(|uid| (Uid::from(*uid), 9)).collect());
    let call = ledger.sign(&hotkey(0), row(&[1, 2])).await.expect("a call is signed");
    ledger.submit(&call).await.expect("it is taken");
    make(&devnet, 2);
    let refusals = [
        (0, row(&[1, 2]), "wait 3 blocks"),
        (1, row(&[1, 1]), "two weights for uid 1"),
        (1, row(&[7]), "uids below 3"),
        (2, row(&[1]), "no validator permit"),
        (9, row(&[1]), "run `covey register`"),
    ];
    for (key, call, advice) in refusals {
        let refused = ledger.sign(&hotkey(key), call).await.expect_err(advice).to_string();
        assert!(refused.contains(advice), "{refused}");
    }
    let long = ledger.sign(&hotkey(0), Call::Commit(vec![0; 129])).await;
    assert!(matches!(long, Err(LedgerError::Refused(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fails_on_chain_is_told_why() {
    let devnet = devnet(ChainSpec { max_space: 250, ..spec() }).await;
    let ledger = client(&devnet, OPEN).await;
    // A stranger's commitment is in its block, and fails there.
    let strange = ledger.sign(&hotkey(9), Call::Commit(vec![1; 46])).await.expect("anybody signs");
    ledger.submit(&strange).await.expect("the pool does not look at it");
    let mut calls = Vec::new();
    for number in 0..3 {
        let call = ledger.sign(&hotkey(1), Call::Commit(vec![number; 46])).await.expect("a call is signed");
        ledger.submit(&call).await.expect("it is taken");
        calls.push(call);
    }
    make(&devnet, 3);
    until_final(&ledger, 1).await;
    let at = BlockNumber(1);
    let Fate::Failed(why) = ledger.fate(&strange, at).await.expect("it is looked up") else { panic!("a stranger") };
    let stranger = hotkey(9).hotkey();
    assert!(why.contains(&format!("{stranger} is not registered on subnet 1: run `covey register`")), "{why}");
    assert_eq!(ledger.fate(&calls[1], at).await.expect("it is looked up"), Fate::Done);
    let Fate::Failed(why) = ledger.fate(&calls[2], at).await.expect("it is looked up") else { panic!("no space") };
    assert!(why.contains("has used its space for commitments"), "{why}");
    assert_eq!(ledger.view(at).await.expect("it is final").slots[&hotkey(1).hotkey()].bytes, [1; 46]);
    let space = ledger.space(hotkey(1).hotkey()).await.expect("space is read");
    assert_eq!((space.max, space.used, space.epoch), (250, 200, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_uid_is_paid_for_once_and_never_above_the_limit() {
    let devnet = devnet(spec()).await;
    let ledger = client(&devnet, OPEN).await;
    make(&devnet, 3);
    until_final(&ledger, 1).await;
    let burn = ledger.burn().await.expect("the price is read");
    let newcomer = hotkey(30).hotkey();
    let price = ledger.price(coldkey(3).coldkey(), newcomer).await.expect("the price is read");
    assert_eq!((price.burn, price.funds, price.limited), (burn, FUNDS, true));
    assert!(price.fee > 0 && price.fee < 10_000_000, "{price:?}");
    let refused = ledger.register(&coldkey(3), newcomer, Some(burn - 1)).await.expect_err("too dear").to_string();
    assert!(refused.contains(&format!("costs {burn} rao; the limit is {}", burn - 1)), "{refused}");
    let poor = ledger.register(&coldkey(9), newcomer, None).await.expect_err("no money").to_string();
    assert!(poor.contains("has 0 rao"), "{poor}");
    let making = keep_making(&devnet, Duration::from_millis(20));
    let registered = ledger.register(&coldkey(3), newcomer, Some(burn)).await.expect("it can pay");
    assert_eq!(registered.uid, Uid::from(3));
    let again = ledger.register(&coldkey(3), newcomer, Some(0)).await.expect("it has one");
    assert_eq!(again.uid, registered.uid);
    let pair = hotkey(30);
    let address = "203.0.113.9:4242".parse().expect("an address");
    drop(making);
    // The chain takes another axon after 50 blocks: they must not be made while a busy machine looks away.
    let making = keep_making(&devnet, Duration::from_millis(200));
    ledger.serve_axon(&pair, address).await.expect("a public address");
    drop(making);
    let refused = ledger.serve_axon(&pair, address).await.expect_err("too soon").to_string();
    assert!(refused.contains("wait some blocks"), "{refused}");
    let finalised = ledger.heads().borrow().finalised;
    let metagraph = ledger.metagraph(finalised).await.expect("it is final");
    let neuron = &metagraph.neurons[&registered.uid];
    assert_eq!((neuron.member.hotkey, neuron.coldkey), (newcomer, coldkey(3).coldkey()));
    assert_eq!(neuron.axon, Some(address));
    assert_eq!(metagraph.neurons.len(), 4);
}

/// A full subnet is read by few requests, however many ask for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_round_of_256_members_is_read_by_three_requests() {
    let full = subnet(OPEN, &[FUNDS; 256]);
    let devnet = devnet(ChainSpec { subnets: vec![full], max_space: 1 << 20, ..spec() }).await;
    let ledger = client(&devnet, OPEN).await;
    for number in 0..=u8::MAX {
        let call = ledger.sign(&hotkey(number), Call::Commit(vec![number; 114])).await.expect("a call is signed");
        ledger.submit(&call).await.expect("it is taken");
    }
    make(&devnet, 3);
    until_final(&ledger, 1).await;
    let reader = client(&devnet, OPEN).await;
    let (before, _) = reader.traffic();
    let asked = futures::future::join_all((0..10).map(|_| reader.view(BlockNumber(1)))).await;
    let (after, bytes) = reader.traffic();
    for view in asked {
        let view = view.expect("block 1 is final");
        assert_eq!((view.members.len(), view.slots.len()), (256, 256));
        assert!(view.slots.values().all(|slot| slot.bytes.len() == 114 && slot.block == BlockNumber(1)));
    }
    assert!(after - before <= 3, "{} requests, {bytes} bytes", after - before);
}
