//! What the client of a chain costs with a full subnet, against a devnet in this process: requests, bytes and
//! milliseconds. `cargo run -p covey --example chain`, in the dev profile, as local swarms run; the devnet's own time is
//! in it.

use covey::chain::substrate::{Settings, SubstrateLedger};
use covey::chain::{Call, Ledger};
use covey_devnet::pallets::subtensor::types::{GenesisMember, GenesisSubnet};
use covey_devnet::{AccountId32, ChainSpec, Config, Devnet, Handle};
use covey_proto::{BlockNumber, HotkeyPair, Uid};
use std::future::Future;
use std::time::{Duration, Instant};

const NETUID: u16 = 3;
const REPETITIONS: u32 = 20;

fn key(number: u8) -> HotkeyPair {
    HotkeyPair::from_seed([number; 32])
}

/// 256 members with stake, on a subnet that hides weights.
fn config() -> Config {
    let member = |number: u8| GenesisMember {
        hotkey: AccountId32::new(*key(number).hotkey().as_bytes()),
        coldkey: AccountId32::new([9; 32]),
        stake: 1_000_000_000 + u64::from(number),
    };
    let members = (0..=u8::MAX).map(member).collect();
    let subnet = GenesisSubnet {
        netuid: NETUID,
        max_validators: 256,
        weights_rate_limit: 0,
        members,
        ..GenesisSubnet::default()
    };
    let chain = ChainSpec { subnets: vec![subnet], max_space: 1 << 30, ..ChainSpec::default() };
    Config { chain, ..Config::default() }
}

async fn client(devnet: &Handle) -> SubstrateLedger {
    SubstrateLedger::connect(Settings::new(vec![devnet.url()], NETUID)).await.expect("the devnet is there")
}

async fn make(devnet: &Handle, ledger: &SubstrateLedger, blocks: u32) -> BlockNumber {
    for _ in 0..blocks {
        devnet.make_block().expect("a block is made");
    }
    let number = devnet.heads().finalised.number;
    let mut heads = ledger.heads();
    heads.wait_for(|heads| heads.finalised >= BlockNumber(number)).await.expect("the client lives");
    BlockNumber(number)
}

/// Prints the median of some calls, with the requests and bytes of one.
async fn measure<T, F: Future<Output = T>>(what: &str, ledger: &SubstrateLedger, mut call: impl FnMut(u32) -> F) {
    let (requests, bytes) = ledger.traffic();
    let mut times = Vec::new();
    for number in 0..REPETITIONS {
        let start = Instant::now();
        call(number).await;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let (requests_after, bytes_after) = ledger.traffic();
    let each = |sum: u64| sum as f64 / f64::from(REPETITIONS);
    let median: Duration = times[times.len() / 2];
    let (requests, bytes) = (each(requests_after - requests), each(bytes_after - bytes) / 1e3);
    println!("{what:50} {requests:5.1} requests {bytes:8.1} kB {:8.2} ms", median.as_secs_f64() * 1e3);
}

#[tokio::main]
async fn main() {
    let devnet = Devnet::start(config()).await.expect("a devnet starts");
    let start = Instant::now();
    let ledger = client(&devnet).await;
    let (requests, bytes) = ledger.traffic();
    let connecting = start.elapsed().as_secs_f64() * 1e3;
    println!(
        "{:50} {requests:5.1} requests {:8.1} kB {connecting:8.2} ms",
        "connect, metadata read and checked",
        bytes as f64 / 1e3
    );
    for number in 0..=u8::MAX {
        let call = ledger.sign(&key(number), Call::Commit(vec![number; 114])).await.expect("it is signed");
        ledger.submit(&call).await.expect("it is taken");
    }
    make(&devnet, &ledger, REPETITIONS + 4).await;
    // Another client: the first one still looks up what became of its 256 calls.
    let reader = client(&devnet).await;
    let finalised = reader.heads().borrow().finalised.0;
    measure("view of a block: 256 members, 256 commitments", &reader, |number| {
        let reader = &reader;
        async move { reader.view(BlockNumber(finalised - number)).await.expect("it is final") }
    })
    .await;
    measure("the same block again", &reader, |_| reader.view(BlockNumber(finalised - 1))).await;
    measure("metagraph, for who looks", &reader, |_| reader.metagraph(BlockNumber(finalised))).await;
    measure("sign and submit a commitment", &reader, |number| {
        let (ledger, pair) = (&reader, key(number as u8));
        async move {
            let call = ledger.sign(&pair, Call::Commit(vec![1; 114])).await.expect("it is signed");
            ledger.submit(&call).await.expect("it is taken");
        }
    })
    .await;
    let row: Vec<(Uid, u16)> = (0..=u8::MAX).map(|uid| (Uid::from(uid), 1 + u16::from(uid))).collect();
    measure("sign and submit locked weights for 256 uids", &reader, |number| {
        let (ledger, pair, row) = (&reader, key(100 + number as u8), row.clone());
        async move {
            let call = ledger.sign(&pair, Call::SetWeights(row)).await.expect("it is signed");
            ledger.submit(&call).await.expect("it is taken");
        }
    })
    .await;
    measure("weights of 256 validators", &reader, |_| reader.weights()).await;
}
