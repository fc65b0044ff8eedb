//! What becomes of calls that were handed over: they are sent again, the same bytes, until their nonces are used at a
//! final block or their eras are over there.

use super::advice;
use super::header::hexed;
use super::link::{Failure, Link};
use super::nonces::Nonces;
use super::signed::Signed;
use crate::chain::LedgerError;
use covey_proto::BlockNumber;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use subxt::rpcs::client::rpc_params;

/// Keeps what is on its way.
pub(super) struct Keeper {
    link: Arc<Link>,
    nonces: Mutex<Nonces>,
}

impl Keeper {
    pub(super) fn new(link: Arc<Link>) -> Keeper {
        Keeper { link, nonces: Mutex::default() }
    }

    fn nonces(&self) -> MutexGuard<'_, Nonces> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The nonce of an account's next call; see [`Nonces::next`].
    pub(super) fn next(&self, account: &[u8; 32], next: u64, finalised: BlockNumber) -> u64 {
        self.nonces().next(account, next, finalised)
    }

    /// Hands a call to the chain's pool.
    pub(super) async fn submit(&self, call: Arc<Signed>) -> Result<(), LedgerError> {
        let answer = self.link.ask::<String>("author_submitExtrinsic", rpc_params![hexed(&call.extrinsic)]).await;
        match answer {
            Ok(_) => {}
            // It waits already.
            Err(Failure::Refused(error)) if error.code == 1013 => {}
            Err(failure) => return Err(advice::of_pool(failure)),
        }
        self.nonces().note(call);
        Ok(())
    }

    /// Sends again what the chain has lost, at every block; forgets what is settled.
    pub(super) async fn run(self: Arc<Keeper>) {
        let mut heads = self.link.heads();
        while heads.changed().await.is_ok() {
            let now = *heads.borrow_and_update();
            if let Err(error) = self.settle(now.finalised).await {
                tracing::debug!(%error, "not known what became of calls");
            }
            let accounts = self.nonces().accounts();
            for account in accounts {
                if let Err(error) = self.resend(&account).await {
                    tracing::debug!(%error, "calls are not sent again");
                }
            }
        }
    }

    async fn settle(&self, finalised: BlockNumber) -> Result<(), LedgerError> {
        let accounts = self.nonces().accounts();
        if accounts.is_empty() {
            return Ok(());
        }
        let hash = self.link.final_hash(finalised).await?;
        let runtime = self.link.runtime().await?;
        let nonces = self.link.final_nonces(&runtime, &accounts, hash).await?;
        for (account, nonce) in accounts.iter().zip(nonces) {
            let _ = self.nonces().settle(account, nonce, finalised);
        }
        Ok(())
    }

    async fn resend(&self, account: &[u8; 32]) -> Result<(), LedgerError> {
        let next = self.link.next_nonce(account).await?;
        let lost = self.nonces().lost(account, next);
        for call in lost {
            if let Err(error) = self.submit(call.clone()).await {
                tracing::debug!(%error, nonce = call.nonce, "a call is not taken again");
            }
        }
        Ok(())
    }
}
