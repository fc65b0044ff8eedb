//! What becomes of calls that were handed over: they are sent again, the same bytes, until their nonces are used at a
//! final block or their eras are over there; then it is looked up whether they were done, and why not.

use super::advice::{self, Case};
use super::failure::Failure;
use super::header::{hexed, unhex};
use super::link::Link;
use super::nonces::{Nonces, Settled};
use super::signed::{Final, Signed};
use super::storage::Place;
use crate::{Fate, LedgerError};
use covey_proto::{BlockNumber, Digest};
use serde::Deserialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use subxt::rpcs::client::rpc_params;
use tokio::sync::watch;

/// Fates remembered: some rounds' worth of calls.
const FATES_MAX: usize = 256;

/// Blocks that are searched for a call at most: an era's.
const SEARCHED_MAX: u32 = 2_048;

/// What has become of calls, the oldest first.
#[derive(Default)]
struct Fates {
    by_name: BTreeMap<Digest, Fate>,
    order: VecDeque<Digest>,
}

impl Fates {
    fn insert(&mut self, name: Digest, fate: Fate) {
        if self.by_name.insert(name, fate).is_none() {
            self.order.push_back(name);
        }
        while self.order.len() > FATES_MAX {
            let oldest = self.order.pop_front();
            oldest.and_then(|name| self.by_name.remove(&name));
        }
    }
}

/// Keeps what is on its way.
pub(super) struct Keeper {
    link: Arc<Link>,
    nonces: Mutex<Nonces>,
    fates: Mutex<Fates>,
    /// The final block up to which fates are known.
    settled: watch::Sender<BlockNumber>,
}

#[derive(Deserialize)]
struct Block {
    block: Body,
}

#[derive(Deserialize)]
struct Body {
    extrinsics: Vec<String>,
}

impl Keeper {
    pub(super) fn new(link: Arc<Link>) -> Keeper {
        Keeper { link, nonces: Mutex::default(), fates: Mutex::default(), settled: watch::Sender::default() }
    }

    fn nonces(&self) -> MutexGuard<'_, Nonces> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fates(&self) -> MutexGuard<'_, Fates> {
        self.fates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The nonce of an account's next call, see [`Nonces::next`], which no other call gets while this one is handed over.
    pub(super) fn next(&self, account: &[u8; 32], next: u64, at: Final) -> u64 {
        let until = self.reserved_until();
        let mut nonces = self.nonces();
        nonces.expire(Instant::now());
        let nonce = nonces.next(account, next, at);
        nonces.reserve(account, nonce, until);
        nonce
    }

    /// A call is signed, journalled and handed over at once, and again while the chain does not answer.
    fn reserved_until(&self) -> Instant {
        Instant::now() + self.link.settings.bounds.patience * 2
    }

    /// Hands a call to the chain's pool.
    pub(super) async fn submit(&self, call: Arc<Signed>) -> Result<(), LedgerError> {
        let answer = self.link.ask::<String>("author_submitExtrinsic", rpc_params![hexed(&call.extrinsic)]).await;
        match answer {
            Ok(_) => {}
            // It waits already.
            Err(Failure::Refused(error)) if error.code == 1013 => {}
            Err(failure) => {
                let case = Case { account: call.account, netuid: self.link.settings.netuid, nonce: call.nonce };
                let error = advice::of_pool(failure, case);
                match error {
                    LedgerError::Refused(_) => self.nonces().release(&call),
                    _ => self.nonces().reserve(&call.account, call.nonce, self.reserved_until()),
                }
                return Err(error);
            }
        }
        self.nonces().note(call);
        Ok(())
    }

    /// What has become of a call by a final block, if it is known here.
    pub(super) async fn fate(&self, call: &Signed, block: BlockNumber) -> Option<Fate> {
        let known = |fates: &Fates| fates.by_name.get(&call.name()).cloned();
        if let Some(fate) = known(&self.fates()) {
            return Some(fate);
        }
        // What was final a moment ago is being looked up.
        let mut settled = self.settled.subscribe();
        let patience = self.link.settings.bounds.patience;
        let waited = tokio::time::timeout(patience, settled.wait_for(|settled| *settled >= block)).await;
        waited.ok()?.ok()?;
        known(&self.fates())
    }

    /// Sends again what the chain has lost, at every block; looks up what is settled.
    pub(super) async fn run(self: Arc<Keeper>) {
        let mut heads = self.link.heads();
        heads.mark_changed();
        while heads.changed().await.is_ok() {
            let now = *heads.borrow_and_update();
            if now.finalised > *self.settled.borrow() {
                match self.settle(now.finalised).await {
                    Ok(()) => drop(self.settled.send_replace(now.finalised)),
                    Err(error) => tracing::debug!(%error, "not known yet what became of calls"),
                }
            }
            let accounts = self.nonces().accounts();
            for account in accounts {
                if let Err(error) = self.resend(&account).await {
                    tracing::debug!(%error, "calls are not sent again");
                }
            }
        }
    }

    async fn resend(&self, account: &[u8; 32]) -> Result<(), LedgerError> {
        let next = self.link.next_nonce(account).await?;
        let lost = self.nonces().lost(account, next);
        for call in lost {
            match self.submit(call.clone()).await {
                Err(error @ LedgerError::Refused(_)) => {
                    tracing::debug!(%error, nonce = call.nonce, "a call is not taken again");
                }
                other => other?,
            }
        }
        Ok(())
    }

    async fn settle(&self, finalised: BlockNumber) -> Result<(), LedgerError> {
        let accounts = self.nonces().accounts();
        if accounts.is_empty() {
            return Ok(());
        }
        let hash = self.link.final_hash(finalised).await?;
        let runtime = self.link.runtime_at(hash, finalised).await?;
        let nonces = self.link.final_nonces(&runtime, &accounts, hash).await?;
        for (account, nonce) in accounts.iter().zip(nonces) {
            let at = Final { block: finalised, spec_version: runtime.spec_version };
            let settled = self.nonces().settled(account, nonce, at);
            for Settled { call, used } in settled {
                if !used {
                    self.learn(&call, Fate::Lost);
                } else if let Err(error) = self.resolve(&call, finalised).await {
                    // It is looked up again at the next final block; the others do not wait for it.
                    tracing::debug!(%error, nonce = call.nonce, "not known yet what became of a call");
                    continue;
                }
                self.nonces().forget(&call);
            }
        }
        Ok(())
    }

    /// What has become of a call that can come no more.
    pub(super) async fn resolve(&self, call: &Signed, finalised: BlockNumber) -> Result<Fate, LedgerError> {
        let fate = self.look_up(call, finalised).await?;
        self.learn(call, fate.clone());
        Ok(fate)
    }

    fn learn(&self, call: &Signed, fate: Fate) {
        let key = covey_proto::Hotkey::new(call.account);
        match &fate {
            Fate::Failed(why) => tracing::warn!(%key, nonce = call.nonce, %why, "a call failed on chain"),
            Fate::Lost => tracing::info!(%key, nonce = call.nonce, "a call came to nothing"),
            Fate::Open | Fate::Done => tracing::debug!(%key, nonce = call.nonce, ?fate, "a call is final"),
        }
        if fate == Fate::Lost {
            self.nonces().release(call);
        }
        self.fates().insert(call.name(), fate);
    }

    /// Finds a call whose nonce is used: in a block of its era, or nowhere, since another has its nonce.
    async fn look_up(&self, call: &Signed, finalised: BlockNumber) -> Result<Fate, LedgerError> {
        let last = finalised.0.min(call.dies.saturating_sub(1));
        let first = call.birth.saturating_add(1).max(last.saturating_sub(SEARCHED_MAX));
        let text = hexed(&call.extrinsic);
        // Mostly it is in the newest blocks.
        for number in (first..=last).rev().map(BlockNumber) {
            let hash = self.link.final_hash(number).await?;
            let at = rpc_params![hexed(hash.as_bytes())];
            let block: Option<Block> =
                self.link.ask_at(number, "chain_getBlock", at).await.map_err(LedgerError::from)?;
            let lacks = || LedgerError::Unreachable(format!("it does not have final block {number}"));
            let block = block.ok_or_else(lacks)?;
            if let Some(index) = block.block.extrinsics.iter().position(|one| *one == text) {
                return self.outcome(call, number, hash, index).await;
            }
        }
        Ok(Fate::Lost)
    }

    /// Whether a call that is in a block was done there.
    async fn outcome(
        &self,
        call: &Signed,
        block: BlockNumber,
        hash: Digest,
        index: usize,
    ) -> Result<Fate, LedgerError> {
        let failure = match self.failure(block, hash, index).await {
            Err(error @ (LedgerError::NoState { .. } | LedgerError::Unfit(_))) => {
                tracing::warn!(nonce = call.nonce, %error, "a call is included at block {block}, its result is not readable");
                return Ok(Fate::Done);
            }
            failure => failure?,
        };
        let case = Case { account: call.account, netuid: self.link.settings.netuid, nonce: call.nonce };
        Ok(match failure {
            Some((pallet, name)) => Fate::Failed(advice::of_dispatch(&pallet, &name, case)),
            None => Fate::Done,
        })
    }

    /// Why a call of a block failed: pallet and name of the error, if it did.
    async fn failure(
        &self,
        block: BlockNumber,
        hash: Digest,
        index: usize,
    ) -> Result<Option<(String, String)>, LedgerError> {
        let runtime = self.link.runtime_at(hash, block).await?;
        let place = Place::new(&runtime, "System", "Events", ())?;
        let text = self.link.raw(&place, block, hash).await?;
        let bytes = text.and_then(|text| unhex(&text)).unwrap_or_default();
        Ok(runtime.failure(&bytes, index)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_are_remembered_and_the_oldest_are_forgotten() {
        let mut fates = Fates::default();
        let name = |number: usize| Digest::of(&number.to_le_bytes());
        fates.insert(name(0), Fate::Lost);
        fates.insert(name(0), Fate::Done);
        assert_eq!(fates.by_name[&name(0)], Fate::Done, "what was learnt last");
        (1..=FATES_MAX).for_each(|number| fates.insert(name(number), Fate::Done));
        assert_eq!((fates.by_name.len(), fates.order.len()), (FATES_MAX, FATES_MAX));
        assert!(!fates.by_name.contains_key(&name(0)) && fates.by_name.contains_key(&name(FATES_MAX)));
    }
}
