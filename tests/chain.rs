//! The client of a chain against real devnets in this process, with faults: what it must never do is lose a call, do one
//! twice, or take for final what is not.

use covey::chain::substrate::{Bounds, Settings, SubstrateLedger};
use covey::chain::{Call, Fate, Heads, Ledger, LedgerError};
use covey_devnet::pallets::subtensor::types::{GenesisMember, GenesisSubnet};
use covey_devnet::{AccountId32, ChainSpec, Config, Devnet, Handle};
use covey_proto::chain::Slot;
use covey_proto::{BlockNumber, ColdkeyPair, Digest, HotkeyPair, Uid};
use std::sync::Arc;
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

async fn devnet(chain: ChainSpec) -> Arc<Handle> {
    devnet_of(Config { chain, ..Config::default() }).await
}

async fn devnet_of(config: Config) -> Arc<Handle> {
    Arc::new(Devnet::start(config).await.expect("a devnet starts"))
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

/// Makes blocks until it is dropped.
fn keep_making(devnet: &Arc<Handle>, each: Duration) -> AbortOnDrop {
    let devnet = devnet.clone();
    AbortOnDrop(tokio::spawn(async move {
        loop {
            devnet.make_block().expect("a block is made");
            tokio::time::sleep(each).await;
        }
    }))
}

/// A task that ends with its handle.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
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
    let heads = until(&ledger, |heads| heads.best >= BlockNumber(7)).await;
    until_final(&ledger, 5).await;
    assert_eq!(ledger.fate(&call, heads.finalised).await.expect("it is looked up"), Fate::Done);
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
    let _making = keep_making(&devnet, Duration::from_millis(20));
    let registered = ledger.register(&coldkey(3), newcomer, Some(burn)).await.expect("it can pay");
    assert_eq!(registered.uid, Uid::from(3));
    let again = ledger.register(&coldkey(3), newcomer, Some(0)).await.expect("it has one");
    assert_eq!(again.uid, registered.uid);
    let pair = hotkey(30);
    let address = "203.0.113.9:4242".parse().expect("an address");
    ledger.serve_axon(&pair, address).await.expect("a public address");
    let refused = ledger.serve_axon(&pair, address).await.expect_err("too soon").to_string();
    assert!(refused.contains("wait some blocks"), "{refused}");
    let finalised = ledger.heads().borrow().finalised;
    let metagraph = ledger.metagraph(finalised).await.expect("it is final");
    let neuron = &metagraph.neurons[&registered.uid];
    assert_eq!((neuron.member.hotkey, neuron.coldkey), (newcomer, coldkey(3).coldkey()));
    assert_eq!(neuron.axon, Some(address));
    assert_eq!(metagraph.neurons.len(), 4);
}
