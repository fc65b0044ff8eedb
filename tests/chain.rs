//! The client of a chain against real devnets in this process, with faults: what it must never do is lose a call, do one
//! twice, or take for final what is not.

use covey::chain::substrate::{Bounds, Settings, SubstrateLedger};
use covey::chain::{Call, Fate, Heads, Ledger, LedgerError, SignedCall};
use covey_devnet::pallets::subtensor::types::{GenesisMember, GenesisSubnet};
use covey_devnet::{AccountId32, ChainSpec, Config, Devnet, Handle};
use covey_proto::chain::Slot;
use covey_proto::{BlockNumber, ColdkeyPair, Digest, Hotkey, HotkeyPair, Uid};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

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

// ---- faults ------------------------------------------------------------------------------------------------------------

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

/// Between a client and a devnet: a line that can be cut, closed, or held still.
struct Line {
    address: SocketAddr,
    state: Arc<watch::Sender<LineState>>,
    _task: AbortOnDrop,
}

#[derive(Clone, Copy, Debug, Default)]
struct LineState {
    /// Counts up with each cut.
    cuts: u32,
    closed: bool,
    frozen: bool,
}

impl Line {
    async fn to(devnet: &Handle) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let state = Arc::new(watch::Sender::new(LineState::default()));
        let (to, states) = (devnet.address(), state.clone());
        let task = tokio::spawn(async move {
            loop {
                let Ok((near, _)) = listener.accept().await else { return };
                if states.borrow().closed {
                    continue;
                }
                let Ok(far) = TcpStream::connect(to).await else { continue };
                let states = states.subscribe();
                tokio::spawn(async move {
                    let cuts = states.borrow().cuts;
                    let (near_in, near_out) = near.into_split();
                    let (far_in, far_out) = far.into_split();
                    let mut cut = states.clone();
                    tokio::select! {
                        _ = pass(near_in, far_out, states.clone()) => {}
                        _ = pass(far_in, near_out, states.clone()) => {}
                        _ = cut.wait_for(|state| state.cuts != cuts) => {}
                    }
                });
            }
        });
        Line { address, state, _task: AbortOnDrop(task) }
    }

    fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    fn close(&self) {
        self.state.send_modify(|state| (state.closed, state.cuts) = (true, state.cuts + 1));
    }

    fn freeze(&self, frozen: bool) {
        self.state.send_modify(|state| state.frozen = frozen);
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut states: watch::Receiver<LineState>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if states.wait_for(|state| !state.frozen).await.is_err() || to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

/// A client that is quick to see that something is wrong.
async fn watchful(urls: &[String]) -> SubstrateLedger {
    let bounds = Bounds {
        request_timeout: Duration::from_millis(400),
        patience: Duration::from_secs(10),
        silence: Duration::from_millis(800),
        ..bounds()
    };
    let settings = Settings { bounds, cross_check: false, ..Settings::new(urls.to_vec(), OPEN) };
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
    tokio::time::timeout(Duration::from_secs(50), all).await.expect("every commitment is done in the end");
}

/// Space for any number of commitments, and finality four blocks behind.
fn roomy(lag: u32) -> Config {
    Config { chain: ChainSpec { max_space: 1 << 30, ..spec() }, finality_lag: lag, ..Config::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn reorganisations_lose_and_double_nothing() {
    let devnet = devnet_of(roomy(4)).await;
    let ledger = watchful(&[devnet.url()]).await;
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
    let devnet = devnet_of(roomy(2)).await;
    let line = Line::to(&devnet).await;
    let ledger = watchful(&[line.url()]).await;
    let _making = keep_making(&devnet, Duration::from_millis(15));
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
    // What it reads is what a client reads that was never cut.
    let finalised = ledger.heads().borrow().finalised;
    until_final(&clean, finalised.0).await;
    for number in (1..=finalised.0).rev().take(20).map(BlockNumber) {
        let view = ledger.view(number).await.expect("it is final");
        assert_eq!(view, clean.view(number).await.expect("it is final"), "block {number}");
    }
    drop(cutting);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_dies_or_falls_silent_is_left_for_the_next() {
    let devnet = devnet_of(roomy(2)).await;
    let (first, second) = (Line::to(&devnet).await, Line::to(&devnet).await);
    let dead = "ws://127.0.0.1:1".to_owned();
    let ledger = watchful(&[dead, first.url(), second.url()]).await;
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
    put(&watchful(&both).await, &hotkey(1), text(1, 0)).await;
    second.freeze(false);
    waiting.await.expect("it goes on once the line does");
    second.cut();
    put(&ledger, &hotkey(0), text(0, 3)).await;
    expect_each_once(&devnet, &[(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]);
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
    tokio::time::sleep(Duration::from_millis(1_200)).await;
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
    let one = watchful(&[devnet.url()]).await;
    let other = watchful(&[devnet.url()]).await;
    let put_some = |ledger: SubstrateLedger, from: u8| async move {
        for number in from..from + 6 {
            put(&ledger, &hotkey(0), text(0, number)).await;
        }
    };
    let both = futures::future::join(put_some(one, 0), put_some(other, 6));
    tokio::time::timeout(Duration::from_secs(50), both).await.expect("both come through");
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

#[tokio::test(flavor = "multi_thread")]
async fn two_endpoints_that_disagree_on_what_is_final_stop_all_reading() {
    // Two chains of one genesis: a fork that both call final.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| Config { dir: Some(folder.path().join(name)), ..roomy(1) };
    Devnet::start(at("honest")).await.expect("a devnet starts").stop().await;
    std::fs::create_dir(folder.path().join("lying")).expect("a temporary folder");
    for file in std::fs::read_dir(folder.path().join("honest")).expect("the devnet's folder") {
        let file = file.expect("a file of the devnet");
        let copy = folder.path().join("lying").join(file.file_name());
        std::fs::copy(file.path(), copy).expect("a file of the devnet");
    }
    let (honest, lying) = (devnet_of(at("honest")).await, devnet_of(at("lying")).await);
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
