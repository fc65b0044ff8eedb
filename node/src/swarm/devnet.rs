//! A swarm's chain, which is a devnet: what it begins with, its process, its client, and blocks on demand. When a block
//! is due is the pacer's to say.

use super::error::{ChainError, RequestError, SwarmError};
use super::plan::{DEVNET, Node, Options, Plan};
use super::processes::{START_TIMEOUT, STOP_TIMEOUT, ended_in_time};
use crate::chain::substrate::{Settings, SubstrateLedger};
use crate::disk::folder::Folder;
use crate::supervise::{Keeper, Limits, Line, Next, ProcessEvent, Program};
use covey_devnet::{AccountId32, ChainSpec, GenesisMember, GenesisSubnet, H256};
use covey_proto::{BlockNumber, Coldkey, Hotkey, derive};
use serde_json::Value;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
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

/// What the chain of a swarm begins with: its members, the validators with stake and permit.
pub(super) fn spec(options: &Options, plan: &Plan, coldkey: Coldkey, hotkey: impl Fn(&str) -> Hotkey) -> ChainSpec {
    let coldkey = AccountId32::new(*coldkey.as_bytes());
    let mut members: Vec<_> = plan.nodes().filter_map(|(name, node)| Some((node.uid?, name, node))).collect();
    // Uids are given in this order.
    members.sort_by_key(|(uid, ..)| *uid);
    let member = |(_, name, node): (_, &Arc<str>, &Node)| GenesisMember {
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

/// The chain of a swarm that runs.
pub(super) struct Devnet {
    /// Its process.
    keeper: Keeper,
    /// Where it answers, over all its lives.
    url: String,
    blocks: BlockMaker,
    /// The client through which weights are read and late-comers registered.
    ledger: SubstrateLedger,
    /// Its process has been given up.
    pub(super) is_gone: bool,
}

impl Devnet {
    /// Starts the chain's process, and connects to it.
    ///
    /// # Errors
    /// It does not start, or does not answer.
    pub(super) async fn start(
        program: &Path,
        folder: &Folder,
        (sender, events): (mpsc::Sender<ProcessEvent>, &mut mpsc::Receiver<ProcessEvent>),
    ) -> Result<Devnet, SwarmError> {
        let arguments = arguments(folder, SocketAddr::from(([127, 0, 0, 1], 0)));
        let (path, log) = (program.to_owned(), folder.log(DEVNET));
        let keeper = Keeper::start(Program { name: DEVNET.into(), path, arguments, log }, Limits::default(), sender)?;
        let url = serving(events).await?;
        if let Some(address) = url.strip_prefix("ws://").and_then(|address| address.parse::<SocketAddr>().ok()) {
            keeper.set_arguments(self::arguments(folder, address));
        }
        let ledger = SubstrateLedger::connect(Settings::new(vec![url.clone()], NETUID)).await?;
        Ok(Devnet { keeper, blocks: BlockMaker::new(url.clone()), url, ledger, is_gone: false })
    }

    /// Where it answers: a WebSocket URL.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Its client.
    pub(super) fn ledger(&self) -> &SubstrateLedger {
        &self.ledger
    }

    /// What makes its blocks.
    pub(super) fn blocks(&mut self) -> &mut BlockMaker {
        &mut self.blocks
    }

    /// Kills its process, which is started again at once.
    pub(super) fn crash(&self) {
        self.keeper.crash();
    }

    /// Ends it. Its clients go first: one that is left would dial the port of a process that is no more.
    pub(super) async fn stop(self, events: &mut mpsc::Receiver<ProcessEvent>) {
        let Devnet { keeper, blocks, ledger, is_gone, .. } = self;
        drop((blocks, ledger));
        keeper.stop();
        if !is_gone {
            ended_in_time(events, vec![DEVNET.into()], STOP_TIMEOUT, |_| keeper.kill(), |_, _| {}).await;
        }
    }
}

/// Waits until the chain's process says where it answers.
async fn serving(events: &mut mpsc::Receiver<ProcessEvent>) -> Result<String, SwarmError> {
    let until = Instant::now() + START_TIMEOUT;
    loop {
        match tokio::time::timeout_at(until, events.recv()).await {
            Ok(Some(ProcessEvent::Said { line: Line::Serving { url }, .. })) => return Ok(url),
            Ok(Some(ProcessEvent::Ended { name, how, next: Next::Never(why) })) => {
                return Err(SwarmError::Process { name, how, why });
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return Err(SwarmError::Mute { name: DEVNET.into() }),
        }
    }
}

/// The arguments of the chain's process. Its later lives take the port of the first: clients come back to it.
fn arguments(folder: &Folder, listen: SocketAddr) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["devnet".into(), "--dir".into(), folder.chain().into()];
    arguments.extend(["--spec".into(), folder.chain_spec().into()]);
    arguments.extend(["--listen".into(), listen.to_string().into()]);
    arguments.extend(["--finality-lag".into(), FINALITY_LAG.to_string().into()]);
    arguments.extend(["--on-demand", "--supervised"].map(OsString::from));
    arguments
}

/// Makes the chain's blocks, over a connection of its own, which it makes again after the process was killed.
pub(super) struct BlockMaker {
    url: String,
    client: Option<RpcClient>,
}

/// The newest block after one was asked for.
pub(super) struct NewBlock {
    /// Its number.
    pub best: BlockNumber,
    /// The chain did not answer at first.
    pub was_away: bool,
}

impl BlockMaker {
    /// Of the chain at `url`.
    fn new(url: String) -> BlockMaker {
        BlockMaker { url, client: None }
    }

    /// Makes a block, and says which is the newest then. Where the process died meanwhile, there may be none more, and
    /// what waited for a block is lost.
    ///
    /// # Errors
    /// It does not come back.
    pub(super) async fn make(&mut self) -> Result<NewBlock, ChainError> {
        match self.ask("covey_makeBlock", number).await {
            Ok(best) => Ok(NewBlock { best, was_away: false }),
            Err(error) => {
                tracing::warn!(%error, "no block: the chain's process is gone, most likely");
                Ok(NewBlock { best: self.best().await?, was_away: true })
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
            let error = match self.ask("covey_heads", |heads| number(&heads["best"])).await {
                Ok(best) => return Ok(best),
                Err(error) => error,
            };
            if Instant::now() > until {
                return Err(ChainError::Silent { url: self.url.clone(), error });
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Asks for a block. A connection that failed is given up; the next question makes another.
    async fn ask(
        &mut self,
        method: &str,
        block: impl Fn(&Value) -> Option<BlockNumber>,
    ) -> Result<BlockNumber, RequestError> {
        let url = &self.url;
        let asked = async {
            let client = match self.client.take() {
                Some(client) => client,
                None => RpcClient::from_url(url).await?,
            };
            let answer = client.request::<Value>(method, RpcParams::new()).await?;
            Ok::<_, RequestError>((client, answer))
        };
        let (client, answer) = tokio::time::timeout(ANSWER, asked).await.map_err(|_| RequestError::Late(ANSWER))??;
        self.client = Some(client);
        block(&answer).ok_or(RequestError::NoBlock { answer })
    }
}

fn number(block: &Value) -> Option<BlockNumber> {
    u32::try_from(block["number"].as_u64()?).ok().map(BlockNumber)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_block_has_a_number_that_is_one() {
        assert_eq!(number(&json!({"number": 7, "hash": "0x"})), Some(BlockNumber(7)));
        for other in [json!(null), json!({}), json!({"number": "7"}), json!({"number": 1_u64 << 32})] {
            assert_eq!(number(&other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_chain_that_is_not_there_is_said_to_be_unreachable() {
        // A port that was free a moment ago: nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut blocks = BlockMaker::new(format!("ws://127.0.0.1:{port}"));
        let error = blocks.ask("covey_heads", number).await.unwrap_err();
        assert!(matches!(error, RequestError::Rpc(_)), "{error}");
    }
}
