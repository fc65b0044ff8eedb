//! Commitments under faults: each is done, once.

use super::line::Line;
use super::world::*;
use covey::chain::substrate::{Bounds, SecondOpinion, Settings, SubstrateLedger};
use covey::chain::{Call, Fate, Ledger, LedgerError, SignedCall};
use covey_devnet::{ChainSpec, Config, Devnet, Handle};
use covey_proto::{BlockNumber, Hotkey, HotkeyPair, Uid};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// In which all must be done, on a machine that has much else to do: what goes wrong for ever is found all the same.
const IN_THE_END: Duration = Duration::from_secs(300);
/// Blocks that a call may wait, where it should come through: at a block each 15 ms some four seconds.
const LONG_LIFE: u32 = 256;

/// Wants something committed until it is done, as a node does: the same bytes again and again, and others only once
/// those can come no more. Returns all that was signed for it.
async fn put(ledger: &SubstrateLedger, pair: &HotkeyPair, bytes: Vec<u8>) -> Vec<SignedCall> {
    let mut heads = ledger.heads();
    let mut signed = Vec::new();
    loop {
        let Ok(call) = ledger.sign(pair, Call::Commit(bytes.clone())).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        signed.push(call.clone());
        loop {
            // Whether it was taken shows in the blocks.
            let _ = ledger.submit(&call).await;
            heads.changed().await.expect("the client lives");
            let finalised = heads.borrow_and_update().finalised;
            match ledger.fate(&call, finalised).await {
                Ok(Fate::Done) => return signed,
                Ok(Fate::Failed(why)) => panic!("a commitment failed: {why}"),
                Ok(Fate::Lost) => break,
                Ok(Fate::Open) | Err(_) => {}
            }
        }
    }
}

/// The commitments that a chain has done, in order of its final blocks: who, and what.
fn commitments(devnet: &Handle) -> Vec<(Hotkey, Vec<u8>)> {
    let chain = devnet.chain();
    let finalised = covey_devnet::Heads::from(&*chain).finalised.number;
    let mut all = Vec::new();
    for number in 1..=finalised {
        let hash = chain.hash(number).expect("the store reads").expect("a block of the chain");
        let block = chain.block(&hash).expect("the store reads").expect("a block of the chain");
        for bytes in &block.body {
            all.extend(commitment(bytes));
        }
    }
    all
}

/// Author and bytes of a commitment. Test commitments have 46 bytes, and stand at the end of their transaction.
fn commitment(extrinsic: &[u8]) -> Option<(Hotkey, Vec<u8>)> {
    // Two bytes of length, the version of a signed transaction, the kind of address, the account.
    let (head, rest) = extrinsic.split_at_checked(4)?;
    if head[2] != 0x84 || head[3] != 0 || extrinsic.len() < 150 {
        return None;
    }
    let author = Hotkey::from_slice(rest.get(..32)?)?;
    let bytes = extrinsic.get(extrinsic.len() - 46..)?.to_vec();
    Some((author, bytes))
}

fn text(key: u8, number: u8) -> Vec<u8> {
    [vec![0xc5, key, number], vec![9; 43]].concat()
}

/// Every commitment of these is in the chain, once.
fn expect_each_once(devnet: &Handle, expected: &[(u8, u8)]) {
    let done = commitments(devnet);
    for (key, number) in expected {
        let (author, bytes) = (hotkey(*key).hotkey(), text(*key, *number));
        let times = done.iter().filter(|(who, what)| *who == author && *what == bytes).count();
        assert_eq!(times, 1, "commitment {number} of key {key}");
    }
    assert_eq!(done.len(), expected.len(), "nothing else was done");
}

/// A client that is quick to see that something is wrong, though not so quick that a busy machine looks like a fault.
async fn watchful(urls: &[String]) -> SubstrateLedger {
    watchful_for(urls, Bounds::default().mortality).await
}

/// The same; its calls may wait for so many blocks.
async fn watchful_for(urls: &[String], mortality: u32) -> SubstrateLedger {
    let bounds = Bounds {
        request_timeout: Duration::from_secs(2),
        patience: Duration::from_secs(60),
        silence: Duration::from_secs(2),
        mortality,
        ..bounds()
    };
    let settings = Settings { bounds, second_opinion: SecondOpinion::Off, ..Settings::new(urls.to_vec(), OPEN) };
    SubstrateLedger::connect(settings).await.expect("a client connects")
}

fn keys(keys: &[u8], numbers: u8) -> Vec<(u8, u8)> {
    keys.iter().flat_map(|key| (0..numbers).map(|number| (*key, number))).collect()
}

/// Puts one commitment after another for each of these keys at the same time.
async fn put_all(ledger: &SubstrateLedger, expected: &[(u8, u8)]) {
    let mut by_key: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    for (key, number) in expected {
        by_key.entry(*key).or_default().push(*number);
    }
    let one = |(key, numbers): (u8, Vec<u8>)| {
        let ledger = ledger.clone();
        async move {
            for number in numbers {
                put(&ledger, &hotkey(key), text(key, number)).await;
            }
        }
    };
    let all = futures::future::join_all(by_key.into_iter().map(one));
    tokio::time::timeout(IN_THE_END, all).await.expect("every commitment is done in the end");
}

/// Space for any number of commitments, and finality four blocks behind.
fn roomy(lag: u32) -> Config {
    Config { chain: ChainSpec { max_space: 1 << 30, ..spec() }, finality_lag: lag, ..Config::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn reorganisations_lose_and_double_nothing() {
    let devnet = devnet_of(roomy(4)).await;
    let ledger = watchful_for(&[devnet.url()], LONG_LIFE).await;
    let _making = keep_making(&devnet, Duration::from_millis(15));
    let reorganising = {
        let devnet = devnet.clone();
        AbortOnDrop(tokio::spawn(async move {
            for times in 0_u32.. {
                tokio::time::sleep(Duration::from_millis(110)).await;
                // Every other time the transactions that were undone do not even come back into the pool. Too near the
                // final block there is nothing to undo.
                let _ = devnet.reorganise(3, times.is_multiple_of(2));
            }
        }))
    };
    let expected = keys(&[0, 1, 2], 5);
    put_all(&ledger, &expected).await;
    drop(reorganising);
    expect_each_once(&devnet, &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_again_and_again_loses_and_doubles_nothing() {
    let devnet = devnet_of(Config { states_kept: 1 << 20, ..roomy(2) }).await;
    let line = Line::to(&devnet).await;
    let ledger = watchful_for(&[line.url()], LONG_LIFE).await;
    let making = keep_making(&devnet, Duration::from_millis(15));
    let clean = client(&devnet, OPEN).await;
    let cutting = {
        let state = line.state.clone();
        AbortOnDrop(tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(600)).await;
                state.send_modify(|state| state.cuts += 1);
            }
        }))
    };
    let expected = keys(&[0, 1], 5);
    put_all(&ledger, &expected).await;
    expect_each_once(&devnet, &expected);
    // However slow the machine is that reads, what it reads is still there, and its line holds.
    drop((cutting, making));
    // What it reads is what a client reads that was never cut.
    let finalised = ledger.heads().borrow().finalised;
    until_final(&clean, finalised.0).await;
    for number in (1..=finalised.0).rev().take(20).map(BlockNumber) {
        let view = ledger.view(number).await.expect("it is final");
        assert_eq!(view, clean.view(number).await.expect("it is final"), "block {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_dies_or_falls_silent_is_left_for_the_next() {
    let devnet = devnet_of(roomy(2)).await;
    let (first, second) = (Line::to(&devnet).await, Line::to(&devnet).await);
    let dead = "ws://127.0.0.1:1".to_owned();
    let ledger = watchful_for(&[dead, first.url(), second.url()], LONG_LIFE).await;
    let _making = keep_making(&devnet, Duration::from_millis(15));
    put(&ledger, &hotkey(0), text(0, 0)).await;
    first.close();
    put(&ledger, &hotkey(0), text(0, 1)).await;
    // Held still: no error comes, and no answer.
    second.freeze(true);
    let other = Line::to(&devnet).await;
    let both = [second.url(), other.url()];
    let stuck = ledger.clone();
    let waiting = tokio::spawn(async move { put(&stuck, &hotkey(0), text(0, 2)).await });
    put(&watchful_for(&both, LONG_LIFE).await, &hotkey(1), text(1, 0)).await;
    second.freeze(false);
    waiting.await.expect("it goes on once the line does");
    second.cut();
    put(&ledger, &hotkey(0), text(0, 3)).await;
    expect_each_once(&devnet, &[(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_talks_nonsense_is_left_for_the_next() {
    let devnet = devnet_of(roomy(2)).await;
    let (mad, sound) = (Line::to(&devnet).await, Line::to(&devnet).await);
    let alone = watchful(&[mad.url()]).await;
    let ledger = watchful(&[mad.url(), sound.url()]).await;
    mad.garble();
    alone.burn().await.expect_err("there is nobody else to ask");
    ledger.burn().await.expect("the next endpoint answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_stands_still_goes_on_where_it_was() {
    let devnet = devnet_of(roomy(2)).await;
    let ledger = watchful(&[devnet.url()]).await;
    make(&devnet, 4);
    until_final(&ledger, 2).await;
    let early = ledger.sign(&hotkey(0), Call::Commit(text(0, 0))).await.expect("a call is signed");
    ledger.submit(&early).await.expect("it is taken");
    // No block for longer than the client thinks right, then blocks without finality, beyond the life of the call.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    devnet.stall_finality(true);
    make(&devnet, 100);
    until(&ledger, |heads| heads.best >= BlockNumber(104)).await;
    let late = ledger.sign(&hotkey(1), Call::Commit(text(1, 0))).await.expect("a call is signed");
    ledger.submit(&late).await.expect("it is taken, though the final block is old");
    assert_eq!(ledger.fate(&early, BlockNumber(2)).await.expect("block 2 is final"), Fate::Open);
    devnet.stall_finality(false);
    make(&devnet, 4);
    until_final(&ledger, 105).await;
    for call in [early, late] {
        assert_eq!(ledger.fate(&call, BlockNumber(105)).await.expect("it is looked up"), Fate::Done);
    }
    expect_each_once(&devnet, &[(0, 0), (1, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_with_one_key_lose_and_double_nothing() {
    let devnet = devnet_of(roomy(2)).await;
    let _making = keep_making(&devnet, Duration::from_millis(15));
    let one = watchful_for(&[devnet.url()], LONG_LIFE).await;
    let other = watchful_for(&[devnet.url()], LONG_LIFE).await;
    let put_some = |ledger: SubstrateLedger, from: u8| async move {
        for number in from..from + 6 {
            put(&ledger, &hotkey(0), text(0, number)).await;
        }
    };
    let both = futures::future::join(put_some(one, 0), put_some(other, 6));
    tokio::time::timeout(IN_THE_END, both).await.expect("both come through");
    expect_each_once(&devnet, &keys(&[0], 12));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_of_one_key_follow_one_another_without_waiting() {
    let devnet = devnet_of(roomy(2)).await;
    let ledger = watchful(&[devnet.url()]).await;
    let expected = keys(&[0], 40);
    for (_, number) in &expected {
        let call = ledger.sign(&hotkey(0), Call::Commit(text(0, *number))).await.expect("a call is signed");
        ledger.submit(&call).await.expect("it is taken");
    }
    make(&devnet, 4);
    until_final(&ledger, 2).await;
    expect_each_once(&devnet, &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_time_is_over_can_come_no_more() {
    let devnet = devnet_of(roomy(2)).await;
    let ledger = watchful(&[devnet.url()]).await;
    make(&devnet, 4);
    until_final(&ledger, 2).await;
    let call = ledger.sign(&hotkey(0), Call::Commit(text(0, 0))).await.expect("a call is signed");
    make(&devnet, 140);
    until_final(&ledger, 140).await;
    assert_eq!(ledger.fate(&call, BlockNumber(140)).await.expect("it is looked up"), Fate::Lost);
    assert!(matches!(ledger.submit(&call).await, Err(LedgerError::Refused(_))));
    put_while_making(&ledger, &devnet).await;
    expect_each_once(&devnet, &[(0, 1)]);
}

async fn put_while_making(ledger: &SubstrateLedger, devnet: &Arc<Handle>) {
    let _making = keep_making(devnet, Duration::from_millis(10));
    assert_eq!(put(ledger, &hotkey(0), text(0, 1)).await.len(), 1, "its nonce is free again");
}

/// Two devnets of one genesis, which make the same blocks while nobody calls them, and the folder where they live.
async fn twins() -> (tempfile::TempDir, [Arc<Handle>; 2]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| Config { dir: Some(folder.path().join(name)), ..roomy(1) };
    Devnet::start(at("one")).await.expect("a devnet starts").stop().await;
    std::fs::create_dir(folder.path().join("other")).expect("a temporary folder");
    for file in std::fs::read_dir(folder.path().join("one")).expect("the devnet's folder") {
        let file = file.expect("a file of the devnet");
        let copy = folder.path().join("other").join(file.file_name());
        std::fs::copy(file.path(), copy).expect("a file of the devnet");
    }
    let both = [devnet_of(at("one")).await, devnet_of(at("other")).await];
    (folder, both)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_whose_finality_stands_still_is_left_for_the_next() {
    let (_folder, [stuck, sound]) = twins().await;
    stuck.stall_finality(true);
    let ledger = watchful(&[stuck.url(), sound.url()]).await;
    let _making = [&stuck, &sound].map(|devnet| keep_making(devnet, Duration::from_millis(100)));
    until_final(&ledger, 5).await;
    ledger.view(BlockNumber(5)).await.expect("it is read where it is final");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_endpoints_that_disagree_on_what_is_final_stop_all_reading() {
    // A fork that both call final.
    let (_folder, [honest, lying]) = twins().await;
    let urls = [honest.url(), lying.url()];
    let ledger = SubstrateLedger::connect(settings(&urls, OPEN)).await.expect("a client connects");
    make(&honest, 3);
    make(&lying, 3);
    until_final(&ledger, 2).await;
    ledger.view(BlockNumber(2)).await.expect("they agree so far");
    let alone = client(&lying, OPEN).await;
    let call = alone.sign(&hotkey(0), Call::Commit(text(0, 0))).await.expect("a call is signed");
    alone.submit(&call).await.expect("it is taken");
    make(&honest, 3);
    make(&lying, 3);
    until_final(&ledger, 5).await;
    let refused = ledger.view(BlockNumber(5)).await.expect_err("they differ");
    assert!(matches!(&refused, LedgerError::Disagreement(why) if why.contains(&lying.url())), "{refused}");
    assert!(matches!(ledger.view(BlockNumber(2)).await, Err(LedgerError::Disagreement(_))), "nothing is read any more");
}

/// A client of two endpoints that asks the second one as strictly as this.
async fn strict(urls: [String; 2], second_opinion: SecondOpinion) -> SubstrateLedger {
    let bounds =
        Bounds { request_timeout: Duration::from_secs(2), connect_timeout: Duration::from_secs(2), ..bounds() };
    let settings = Settings { bounds, second_opinion, ..Settings::new(urls.to_vec(), OPEN) };
    SubstrateLedger::connect(settings).await.expect("a client connects")
}

async fn expect_unconfirmed(ledger: &SubstrateLedger, block: u32) {
    let refused = ledger.view(BlockNumber(block)).await.expect_err("one opinion does not do");
    assert!(matches!(refused, LedgerError::Unconfirmed { block: at, .. } if at.0 == block), "{refused}");
}

/// Reads until there is a second opinion.
async fn until_confirmed(ledger: &SubstrateLedger, block: u32) {
    let search = async {
        while ledger.view(BlockNumber(block)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(IN_THE_END, search).await.expect("it is confirmed in the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_second_endpoint_nothing_is_read_unless_that_is_said() {
    let devnet = devnet_of(roomy(1)).await;
    let dead = "ws://127.0.0.1:1".to_owned();
    let required = strict([devnet.url(), dead.clone()], SecondOpinion::Required).await;
    let preferred = strict([devnet.url(), dead.clone()], SecondOpinion::Preferred).await;
    let off = strict([devnet.url(), dead], SecondOpinion::Off).await;
    make(&devnet, 4);
    for ledger in [&required, &preferred, &off] {
        until_final(ledger, 3).await;
    }
    expect_unconfirmed(&required, 2).await;
    expect_unconfirmed(&required, 3).await;
    preferred.view(BlockNumber(2)).await.expect("one has to do");
    off.view(BlockNumber(2)).await.expect("one is asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_endpoint_that_is_slow_confirms_nothing_until_it_answers() {
    let devnet = devnet_of(roomy(1)).await;
    let line = Line::to(&devnet).await;
    let ledger = strict([devnet.url(), line.url()], SecondOpinion::Required).await;
    make(&devnet, 4);
    until_final(&ledger, 3).await;
    ledger.view(BlockNumber(2)).await.expect("both say the same");
    line.freeze(true);
    expect_unconfirmed(&ledger, 3).await;
    line.freeze(false);
    until_confirmed(&ledger, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_endpoint_that_is_behind_confirms_nothing_until_it_has_come_as_far() {
    let (_folder, [ahead, behind]) = twins().await;
    let ledger = strict([ahead.url(), behind.url()], SecondOpinion::Required).await;
    make(&ahead, 4);
    make(&behind, 1);
    until_final(&ledger, 3).await;
    expect_unconfirmed(&ledger, 3).await;
    make(&behind, 3);
    until_confirmed(&ledger, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_that_a_reorganisation_undid_are_set_once_all_the_same() {
    let devnet = devnet_of(roomy(5)).await;
    let ledger = watchful(&[devnet.url()]).await;
    make(&devnet, 8);
    until_final(&ledger, 3).await;
    let row = vec![(Uid::from(1), 7_000), (Uid::from(2), u16::MAX)];
    let call = ledger.sign(&hotkey(0), Call::SetWeights(row.clone())).await.expect("a call is signed");
    ledger.submit(&call).await.expect("it is taken");
    make(&devnet, 3);
    until(&ledger, |heads| heads.best >= BlockNumber(11)).await;
    // Not even the pool has them afterwards, and nobody but the client itself sends them again.
    devnet.reorganise(3, true).expect("three blocks are not final");
    let _making = keep_making(&devnet, Duration::from_millis(15));
    let mut at = BlockNumber(9);
    let fate = loop {
        until_final(&ledger, at.0).await;
        match ledger.fate(&call, at).await.expect("it is looked up") {
            Fate::Open => at = BlockNumber(at.0 + 1),
            fate => break fate,
        }
    };
    assert_eq!(fate, Fate::Done);
    assert_eq!(ledger.weights().await.expect("weights are read").get(&hotkey(0).hotkey()), Some(&row));
}
