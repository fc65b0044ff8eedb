//! Runs a devnet with well-known accounts: `devnet ADDRESS [FOLDER] [MILLISECONDS]`. Without milliseconds, blocks are
//! made on demand. It prints its URL once it answers.

use covey_devnet::pallets::subtensor::types::{GenesisMember, GenesisSubnet};
use covey_devnet::{Blocks, ChainSpec, Config, Devnet};
use sp_core::{Pair, sr25519};
use sp_runtime::AccountId32;
use std::time::Duration;

/// Rao of each well-known coldkey: a million TAO.
const FUNDS: u64 = 1_000_000_000_000_000;

/// The account of a URI like `//Alice`; zeros for text that is none.
fn account(uri: &str) -> AccountId32 {
    sr25519::Pair::from_string(uri, None).map_or(AccountId32::new([0; 32]), |pair| AccountId32::new(pair.public().0))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let member = |name: &str, stake| GenesisMember {
        hotkey: account(&format!("//{name}//hotkey")),
        coldkey: account(&format!("//{name}")),
        stake,
    };
    let subnet = |netuid, commit_reveal| GenesisSubnet {
        netuid,
        owner: account("//Alice"),
        tempo: 10,
        weights_rate_limit: 5,
        commit_reveal,
        members: vec![member("Alice", FUNDS / 1_000), member("Bob", FUNDS / 2_000), member("Charlie", 0)],
        ..GenesisSubnet::default()
    };
    let accounts = ["Alice", "Bob", "Charlie", "Dave", "Eve", "Ferdie"];
    let chain = ChainSpec {
        accounts: accounts.map(|name| (account(&format!("//{name}")), FUNDS)).to_vec(),
        subnets: vec![subnet(1, true), subnet(2, false)],
        ..ChainSpec::default()
    };
    let blocks = match arguments.get(2).map(|text| text.parse()) {
        Some(Ok(milliseconds)) => Blocks::Every(Duration::from_millis(milliseconds)),
        _ => Blocks::OnDemand,
    };
    let config = Config {
        listen: arguments.first().and_then(|text| text.parse().ok()).unwrap_or(([127, 0, 0, 1], 9944).into()),
        dir: arguments.get(1).filter(|text| !text.is_empty()).map(Into::into),
        chain,
        blocks,
        ..Config::default()
    };
    tokio::runtime::Runtime::new()?.block_on(async {
        let devnet = Devnet::start(config).await?;
        println!("{}", devnet.url());
        std::future::pending::<()>().await;
        Ok(())
    })
}
