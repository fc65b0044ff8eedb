//! What is asked for by hand: a uid, which a coldkey pays for, an address on chain, and what the chain leaves of space.

use super::account::Account;
use super::calls;
use super::header::{hexed, unhex};
use super::ledger::SubstrateLedger;
use super::runtime::{DynamicCall, Mortality, Sign};
use super::space::{Space, Used};
use super::storage::Place;
use super::weights::EpochPlaces;
use crate::{Fate, Heads, Ledger, LedgerError, SignedCall};
use covey_proto::{BlockNumber, Coldkey, ColdkeyPair, Hotkey, HotkeyPair, Uid};
use std::net::SocketAddr;
use subxt::ext::codec::Encode;
use subxt::ext::scale_decode::DecodeAsType;
use subxt::rpcs::client::rpc_params;
use tokio::sync::watch;

/// A registration as it came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The hotkey's uid.
    pub uid: Uid,
    /// The final block by which it has it.
    pub block: BlockNumber,
}

/// What registering would cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// Rao that a uid costs just now: it rises with each registration and falls with time.
    pub burn: u64,
    /// Rao of the transaction.
    pub fee: u64,
    /// Rao that the coldkey has.
    pub funds: u64,
    /// Whether the chain itself refuses to take more than a limit.
    pub limited: bool,
}

impl SubstrateLedger {
    /// What a uid costs just now, in rao.
    ///
    /// # Errors
    /// No answer.
    pub async fn burn(&self) -> Result<u64, LedgerError> {
        let link = self.link();
        let runtime = link.runtime().await?;
        let burn = Place::new(&runtime, "SubtensorModule", "Burn", (link.settings.netuid,))?;
        link.read(&runtime, &[&burn], None).await?.need(&burn)
    }

    /// What registering a hotkey would cost a coldkey, and what that has.
    ///
    /// # Errors
    /// No answer.
    pub async fn price(&self, coldkey: Coldkey, hotkey: Hotkey) -> Result<Price, LedgerError> {
        let link = self.link();
        let (netuid, runtime) = (link.settings.netuid, link.runtime().await?);
        let burn = Place::new(&runtime, "SubtensorModule", "Burn", (netuid,))?;
        let account = Place::new(&runtime, "System", "Account", (*coldkey.as_bytes(),))?;
        let values = link.read(&runtime, &[&burn, &account], None).await?;
        let limited = runtime.has_call("SubtensorModule", "register_limit");
        let fee = self.fee(&calls::burned_register(netuid, &hotkey)).await?;
        let funds = values.need::<Account>(&account)?.data.free;
        Ok(Price { burn: values.need(&burn)?, fee, funds, limited })
    }

    /// What a call would cost whoever signs it, in rao.
    async fn fee(&self, call: &DynamicCall) -> Result<u64, LedgerError> {
        #[derive(DecodeAsType)]
        #[decode_as_type(crate_path = "subxt::ext::scale_decode")]
        struct Info {
            partial_fee: u64,
        }
        /// Nobody: the fee goes by weight and length alone.
        struct Nobody;
        impl Sign for Nobody {
            fn account(&self) -> [u8; 32] {
                [0; 32]
            }
            fn sign(&self, _: &[u8]) -> [u8; 64] {
                [0; 64]
            }
        }
        let link = self.link();
        let runtime = link.runtime().await?;
        let mortality = Mortality { period: 64, birth: 0, birth_hash: link.genesis };
        let extrinsic = runtime.sign(&Nobody, call, 0, mortality)?;
        // The transaction is one of the arguments as it is, with the length that it begins with.
        let arguments = [extrinsic.clone(), (extrinsic.len() as u32).encode()].concat();
        let params = rpc_params!["TransactionPaymentApi_query_info", hexed(arguments)];
        let answer: String = link.ask("state_call", params).await.map_err(LedgerError::from)?;
        let bytes = unhex(&answer).unwrap_or_default();
        Ok(runtime.answer::<Info>("TransactionPaymentApi", "query_info", &bytes)?.partial_fee)
    }

    /// Takes a uid for a hotkey, for which the coldkey pays at most `limit` rao, and waits until it is final. A hotkey
    /// that has one keeps it, and nothing is paid. Where the chain has `register_limit` it holds to the limit itself;
    /// elsewhere the price is looked at beforehand, and may rise until the call is in its block.
    ///
    /// # Errors
    /// The price is above the limit, the coldkey cannot pay, the chain refuses with a reason, or does not answer.
    pub async fn register(
        &self,
        coldkey: &ColdkeyPair,
        hotkey: Hotkey,
        limit: Option<u64>,
    ) -> Result<Registered, LedgerError> {
        let finalised = self.link().heads().borrow().finalised;
        if let Some(registered) = self.registered(hotkey, finalised).await? {
            return Ok(registered);
        }
        let netuid = self.netuid();
        let price = self.price(coldkey.coldkey(), hotkey).await?;
        if let Some(limit) = limit.filter(|limit| price.burn > *limit) {
            let burn = price.burn;
            return Err(LedgerError::Refused(format!(
                "a uid of subnet {netuid} costs {burn} rao; the limit is {limit}: raise it, or wait until it falls"
            )));
        }
        let needed = price.burn.saturating_add(price.fee);
        if price.funds < needed {
            let (key, funds) = (coldkey.coldkey(), price.funds);
            return Err(LedgerError::Refused(format!(
                "coldkey {key} has {funds} rao; registering costs {needed}: send it some TAO"
            )));
        }
        let call = match (limit, price.limited) {
            (Some(limit), true) => calls::register_limit(netuid, &hotkey, limit),
            _ => calls::burned_register(netuid, &hotkey),
        };
        let call = self.sign_call(coldkey, &call).await?;
        let block = self.see_through(&call).await?;
        let nothing = || LedgerError::Refused(format!("{hotkey} was registered, and has no uid at block {block}"));
        let mut heads = self.heads();
        loop {
            match self.registered(hotkey, block).await {
                Err(error @ (LedgerError::Unreachable(_) | LedgerError::Unconfirmed { .. })) => {
                    tracing::warn!(%error, "asking again for the uid");
                    self.next_head(&mut heads).await?;
                }
                registered => return registered?.ok_or_else(nothing),
            }
        }
    }

    async fn registered(&self, hotkey: Hotkey, block: BlockNumber) -> Result<Option<Registered>, LedgerError> {
        let view = self.view(block).await?;
        Ok(view.member(&hotkey).map(|member| Registered { uid: member.uid, block }))
    }

    /// Says on chain where a node is reached: not where its peers find it, which they tell one another, but where
    /// explorers and Bittensor's own clients look.
    ///
    /// # Errors
    /// The chain refuses with a reason, or does not answer.
    pub async fn serve_axon(&self, hotkey: &HotkeyPair, address: SocketAddr) -> Result<(), LedgerError> {
        let ip = address.ip().to_canonical();
        let call = calls::serve_axon(self.netuid(), SocketAddr::new(ip, address.port()));
        let call = self.sign_call(hotkey, &call).await?;
        self.see_through(&call).await.map(drop)
    }

    /// What a hotkey may commit in an epoch.
    ///
    /// # Errors
    /// No answer, or a chain that does not say.
    pub async fn space(&self, hotkey: Hotkey) -> Result<Space, LedgerError> {
        let link = self.link();
        let (netuid, runtime) = (link.settings.netuid, link.runtime().await?);
        let max = Place::new(&runtime, "Commitments", "MaxSpace", ())?;
        let used = Place::new(&runtime, "Commitments", "UsedSpaceOf", (netuid, *hotkey.as_bytes()))?;
        let epochs = EpochPlaces::new(&runtime, netuid)?;
        let values = link.read(&runtime, &[vec![&max, &used], epochs.all()].concat(), None).await?;
        let max = values.need::<u32>(&max)?.into();
        let used = values.get::<Used>(&used)?.map_or(0, |used| used.used_space);
        Ok(Space { max, used, epoch: epochs.epochs(&values, netuid)?.length() })
    }

    /// Hands a call over and waits until it is final; says at which block it was seen to be. A chain that does not answer
    /// is waited for: the call may be with it, and whoever signed it pays.
    async fn see_through(&self, call: &SignedCall) -> Result<BlockNumber, LedgerError> {
        let mut heads = self.heads();
        // What is refused at first never came; later it may be in a block already.
        let mut taken = match self.submit(call).await {
            Ok(()) => true,
            Err(LedgerError::Unreachable(why)) => {
                tracing::warn!(why, "the chain does not answer: handing the call over again");
                false
            }
            Err(error) => return Err(error),
        };
        loop {
            let finalised = heads.borrow_and_update().finalised;
            match self.fate(call, finalised).await {
                Ok(Fate::Open) => {}
                Ok(Fate::Done) => return Ok(finalised),
                Ok(Fate::Failed(why)) => return Err(LedgerError::Refused(why)),
                Ok(Fate::Lost) => {
                    let why = "another call of this account took its place, or its time is over: try again";
                    return Err(LedgerError::Refused(why.into()));
                }
                Err(error @ (LedgerError::Unreachable(_) | LedgerError::NoState { .. })) => {
                    tracing::warn!(%error, "not known yet what became of the call: asking again");
                }
                Err(error) => return Err(error),
            }
            self.next_head(&mut heads).await?;
            if !taken {
                taken = match self.submit(call).await {
                    Ok(()) | Err(LedgerError::Refused(_)) => true,
                    Err(LedgerError::Unreachable(_)) => false,
                    Err(error) => return Err(error),
                };
            }
        }
    }

    async fn next_head(&self, heads: &mut watch::Receiver<Heads>) -> Result<(), LedgerError> {
        let ended = |_| LedgerError::Unreachable("the client has ended".into());
        heads.changed().await.map_err(ended)
    }
}
