//! Devnets, clients, keys: what the tests of the chain's client share.

use covey::chain::substrate::{Bounds, Settings, SubstrateLedger};
use covey::chain::{Heads, Ledger};
use covey_devnet::pallets::subtensor::types::{GenesisMember, GenesisSubnet};
use covey_devnet::{AccountId32, ChainSpec, Config, Devnet, Handle};
use covey_proto::{BlockNumber, ColdkeyPair, HotkeyPair};
use std::sync::Arc;
use std::time::Duration;

/// Rao of each coldkey, and of each validator's stake.
pub(crate) const FUNDS: u64 = 1_000_000_000_000;
pub(crate) const OPEN: u16 = 1;
pub(crate) const HIDDEN: u16 = 2;

pub(crate) fn hotkey(number: u8) -> HotkeyPair {
    HotkeyPair::from_seed([number; 32])
}

pub(crate) fn coldkey(number: u8) -> ColdkeyPair {
    let mut seed = [number; 32];
    seed[0] ^= 0xff;
    ColdkeyPair::from_seed(seed)
}

pub(crate) fn account(bytes: &[u8; 32]) -> AccountId32 {
    AccountId32::new(*bytes)
}

/// A subnet of these members: those with stake validate.
pub(crate) fn subnet(netuid: u16, stakes: &[u64]) -> GenesisSubnet {
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
        members: (0..=u8::MAX).zip(stakes).map(member).collect(),
        ..GenesisSubnet::default()
    }
}

pub(crate) fn spec() -> ChainSpec {
    ChainSpec {
        accounts: (0..4).map(|number| (account(coldkey(number).coldkey().as_bytes()), FUNDS)).collect(),
        subnets: vec![subnet(OPEN, &[FUNDS, FUNDS / 2, 0]), subnet(HIDDEN, &[FUNDS, FUNDS / 2, 0])],
        ..ChainSpec::default()
    }
}

pub(crate) fn bounds() -> Bounds {
    Bounds { backoff: Duration::from_millis(20), backoff_max: Duration::from_millis(200), ..Bounds::default() }
}

pub(crate) async fn devnet(chain: ChainSpec) -> Arc<Handle> {
    devnet_of(Config { chain, ..Config::default() }).await
}

pub(crate) async fn devnet_of(config: Config) -> Arc<Handle> {
    Arc::new(Devnet::start(config).await.expect("a devnet starts"))
}

pub(crate) fn settings(urls: &[String], netuid: u16) -> Settings {
    Settings { bounds: bounds(), ..Settings::new(urls.to_vec(), netuid) }
}

pub(crate) async fn client(devnet: &Handle, netuid: u16) -> SubstrateLedger {
    SubstrateLedger::connect(settings(&[devnet.url()], netuid)).await.expect("a client connects")
}

pub(crate) fn make(devnet: &Handle, blocks: u32) {
    for _ in 0..blocks {
        devnet.make_block().expect("a block is made");
    }
}

/// Makes blocks until it is dropped.
pub(crate) fn keep_making(devnet: &Arc<Handle>, each: Duration) -> AbortOnDrop {
    let devnet = devnet.clone();
    AbortOnDrop(tokio::spawn(async move {
        loop {
            devnet.make_block().expect("a block is made");
            tokio::time::sleep(each).await;
        }
    }))
}

/// A task that ends with its handle.
pub(crate) struct AbortOnDrop(pub(crate) tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) async fn until(ledger: &SubstrateLedger, reached: impl FnMut(&Heads) -> bool) -> Heads {
    let mut heads = ledger.heads();
    let waited = tokio::time::timeout(Duration::from_secs(300), heads.wait_for(reached)).await;
    *waited.expect("heads come").expect("the client lives")
}

/// Waits until a block is final for the client, making none.
pub(crate) async fn until_final(ledger: &SubstrateLedger, block: u32) {
    until(ledger, |heads| heads.finalised >= BlockNumber(block)).await;
}
