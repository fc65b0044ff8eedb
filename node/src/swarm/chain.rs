//! A swarm's chain: what it begins with, its process, and blocks on demand.

use super::plan::{DEVNET, Options, Plan};
use crate::disk::folder::Folder;
use crate::supervise::{Event, Keeper, Limits, Program, SpawnError};
use covey_devnet::{AccountId32, ChainSpec, GenesisMember, GenesisSubnet, H256};
use covey_proto::{BlockNumber, Coldkey, Hotkey, derive};
use serde_json::Value;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use subxt::rpcs::client::{RpcClient, RpcParams};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Rao of each validator's stake: so much that what epochs pay in a run does not change who has the majority.
const STAKE: u64 = 1_000_000_000_000_000;
/// Rao of the coldkey that registers late-comers.
const FUNDS: u64 = 1_000_000_000_000_000;
/// Blocks that finality is behind.
pub(super) const FINALITY_LAG: u32 = 2;
/// The subnet of a swarm.
pub(super) const NETUID: u16 = 1;
/// Blocks of an epoch. Four rounds of 24 blocks begin in one; their commitments take a third of what the chain gives.
const TEMPO: u16 = 100;

/// How long the chain's process may take to answer again after it was killed.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take over one request.
const ANSWER: Duration = Duration::from_secs(20);
/// Between two tries.
const RETRY: Duration = Duration::from_millis(50);

/// Why a swarm has no chain.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// It does not answer any more.
    #[error("the swarm's chain does not answer at {url}: {error}; its log is logs/{DEVNET}.log")]
    Silent {
        /// Where.
        url: String,
        /// What the last try said.
        error: String,
    },
    /// What it began with cannot be written down.
    #[error("the chain's beginning has no JSON form: {0}")]
    Spec(#[from] serde_json::Error),
}

/// What the chain of a swarm begins with: its members, the validators with stake and permit.
pub(super) fn spec(options: &Options, plan: &Plan, coldkey: Coldkey, hotkey: impl Fn(&str) -> Hotkey) -> ChainSpec {
    let coldkey = AccountId32::new(*coldkey.as_bytes());
    let mut members: Vec<_> = plan.nodes().filter_map(|(name, node)| Some((node.uid?, name, node))).collect();
    // Uids are given in this order.
    members.sort_by_key(|(uid, ..)| *uid);
    let member = |(_, name, node): (_, &std::sync::Arc<str>, &super::plan::Node)| GenesisMember {
        hotkey: AccountId32::new(*hotkey(name).as_bytes()),
        coldkey: coldkey.clone(),
        stake: if node.roles.validator { STAKE } else { 0 },
    };
    let subnet = GenesisSubnet {
        netuid: NETUID,
        owner: coldkey.clone(),
        tempo: TEMPO,
        max_validators: 256,
        weights_rate_limit: 0,
        commit_reveal: options.hidden_weights,
        members: members.into_iter().map(member).collect(),
        ..GenesisSubnet::default()
    };
    let mut nonce = [0; 32];
    derive("covey/1/swarm-chain", &[&options.seed.to_le_bytes()]).fill(&mut nonce);
    ChainSpec {
        nonce: Some(H256(nonce)),
        accounts: vec![(coldkey, FUNDS)],
        subnets: vec![subnet],
        ..ChainSpec::default()
    }
}

/// Starts the chain's process; its [`Line::Serving`](crate::supervise::Line) says where it answers.
pub(super) fn start(program: &Path, folder: &Folder, events: mpsc::Sender<Event>) -> Result<Keeper, SpawnError> {
    let arguments = arguments(folder, SocketAddr::from(([127, 0, 0, 1], 0)));
    let (path, log) = (program.to_owned(), folder.log(DEVNET));
    Keeper::start(Program { name: DEVNET.into(), path, arguments, log }, Limits::default(), events)
}

/// What the chain's process is told. Its later lives take the port of the first: clients come back to it.
pub(super) fn arguments(folder: &Folder, listen: SocketAddr) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["devnet".into(), "--dir".into(), folder.chain().into()];
    arguments.extend(["--spec".into(), folder.chain_spec().into()]);
    arguments.extend(["--listen".into(), listen.to_string().into()]);
    arguments.extend(["--finality-lag".into(), FINALITY_LAG.to_string().into()]);
    arguments.extend(["--on-demand", "--supervised"].map(OsString::from));
    arguments
}

/// Makes the chain's blocks. It comes back after the chain's process was killed.
pub(super) struct Blocks {
    url: String,
    client: Option<RpcClient>,
}

/// What became of a block.
pub(super) struct Made {
    /// The newest.
    pub best: BlockNumber,
    /// The chain did not answer at first.
    pub was_away: bool,
}

impl Blocks {
    /// Of the chain at `url`.
    pub(super) fn new(url: String) -> Blocks {
        Blocks { url, client: None }
    }

    /// Makes a block, and says which is the newest then. Where the process died meanwhile, there may be none more, and
    /// what waited for a block is lost.
    ///
    /// # Errors
    /// It does not come back.
    pub(super) async fn make(&mut self) -> Result<Made, ChainError> {
        match self.ask("covey_makeBlock").await.map(|made| number(&made)) {
            Ok(Some(best)) => Ok(Made { best, was_away: false }),
            failed => {
                tracing::warn!(error = ?failed.err(), "no block: the chain's process is gone, most likely");
                Ok(Made { best: self.best().await?, was_away: true })
            }
        }
    }

    /// The newest block, once the chain answers.
    ///
    /// # Errors
    /// It does not.
    pub(super) async fn best(&mut self) -> Result<BlockNumber, ChainError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let error = match self.ask("covey_heads").await {
                Ok(heads) => match number(&heads["best"]) {
                    Some(best) => return Ok(best),
                    None => format!("{heads} says no best block"),
                },
                Err(error) => error,
            };
            if Instant::now() > until {
                return Err(ChainError::Silent { url: self.url.clone(), error });
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// A connection that failed is given up; the next question makes another.
    async fn ask(&mut self, method: &str) -> Result<Value, String> {
        let url = &self.url;
        let asked = async {
            let client = match self.client.take() {
                Some(client) => client,
                None => RpcClient::from_url(url).await.map_err(|error| error.to_string())?,
            };
            let answer = client.request::<Value>(method, RpcParams::new()).await.map_err(|error| error.to_string())?;
            Ok((client, answer))
        };
        let answered: Result<_, String> = tokio::time::timeout(ANSWER, asked).await.map_err(|late| late.to_string())?;
        let (client, answer) = answered?;
        self.client = Some(client);
        Ok(answer)
    }
}

fn number(block: &Value) -> Option<BlockNumber> {
    u32::try_from(block["number"].as_u64()?).ok().map(BlockNumber)
}
