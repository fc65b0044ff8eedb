//! The client of a chain against real devnets in this process, with faults: what it must never do is lose a call, do one
//! twice, or take for final what is not.

use covey::chain::substrate::{Bounds, Settings, SubstrateLedger};
use covey::chain::{Call, Heads, Ledger, LedgerError};
use covey_devnet::pallets::subtensor::types::{GenesisMember, GenesisSubnet};
use covey_devnet::{AccountId32, ChainSpec, Config, Devnet, Handle};
use covey_proto::chain::Slot;
use covey_proto::{BlockNumber, ColdkeyPair, Digest, HotkeyPair, Uid};
use std::time::Duration;

/// Rao of each coldkey, and of each validator's stake.
const FUNDS: u64 = 1_000_000_000_000;
const OPEN: u16 = 1;
const HIDDEN: u16 = 2;

fn hotkey(number: u8) -> HotkeyPair {
    HotkeyPair::from_seed([number; 32])
}

fn coldkey(number: u8) -> ColdkeyPair {
    ColdkeyPair::from_seed([100 + number; 32])
}

fn account(bytes: &[u8; 32]) -> AccountId32 {
    AccountId32::new(*bytes)
}

/// A subnet of these members: those with stake validate.
fn subnet(netuid: u16, stakes: &[u64]) -> GenesisSubnet {
    let member = |(number, stake): (u8, &u64)| GenesisMember {
        hotkey: account(hotkey(number).hotkey().as_bytes()),
        coldkey: account(coldkey(number).coldkey().as_bytes()),
        stake: *stake,
    };
    GenesisSubnet {
        netuid,
        tempo: 20,
        weights_rate_limit: 5,
        commit_reveal: netuid == HIDDEN,
        members: (0..).zip(stakes).map(member).collect(),
        ..GenesisSubnet::default()
    }
}

fn spec() -> ChainSpec {
    ChainSpec {
        accounts: (0..4).map(|number| (account(coldkey(number).coldkey().as_bytes()), FUNDS)).collect(),
        subnets: vec![subnet(OPEN, &[FUNDS, FUNDS / 2, 0]), subnet(HIDDEN, &[FUNDS, FUNDS / 2, 0])],
        ..ChainSpec::default()
    }
}

fn bounds() -> Bounds {
    Bounds { backoff: Duration::from_millis(20), backoff_max: Duration::from_millis(200), ..Bounds::default() }
}

async fn devnet(chain: ChainSpec) -> Handle {
    Devnet::start(Config { chain, ..Config::default() }).await.expect("a devnet starts")
}

fn settings(urls: &[String], netuid: u16) -> Settings {
    Settings { bounds: bounds(), ..Settings::new(urls.to_vec(), netuid) }
}

async fn client(devnet: &Handle, netuid: u16) -> SubstrateLedger {
    SubstrateLedger::connect(settings(&[devnet.url()], netuid)).await.expect("a client connects")
}

fn make(devnet: &Handle, blocks: u32) {
    for _ in 0..blocks {
        devnet.make_block().expect("a block is made");
    }
}

async fn until(ledger: &SubstrateLedger, reached: impl FnMut(&Heads) -> bool) -> Heads {
    let mut heads = ledger.heads();
    let waited = tokio::time::timeout(Duration::from_secs(30), heads.wait_for(reached)).await;
    *waited.expect("heads come").expect("the client lives")
}

/// Waits until a block is final for the client, making none.
async fn until_final(ledger: &SubstrateLedger, block: u32) {
    until(ledger, |heads| heads.finalised >= BlockNumber(block)).await;
}

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
    assert!(ledger.is_spent(&call, BlockNumber(1)).await.expect("block 1 is final"));
    devnet.stop().await;
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
    devnet.stop().await;
}
