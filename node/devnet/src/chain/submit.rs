//! Transactions on their way into the pool: what is asked of the runtime before one waits, and who hears of it.

use super::pool::PoolError;
use super::state::has_its_length;
use super::{CallError, Chain, Status};
use crate::runtime::UncheckedExtrinsic;
use codec::{DecodeAll, Encode};
use sp_core::H256;
use sp_runtime::AccountId32;
use sp_runtime::traits::{BlakeTwo256, Hash, Header as _};
use sp_runtime::transaction_validity::{
    TransactionSource, TransactionValidity, TransactionValidityError, ValidTransaction,
};
use tokio::sync::mpsc;

/// Why a transaction was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Its bytes are no transaction.
    #[error("Extrinsic has invalid format: {0}")]
    Format(codec::Error),
    /// The runtime refuses it.
    #[error("Invalid Transaction")]
    Refused(TransactionValidityError),
    /// The pool does.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The runtime did not say.
    #[error("Verification Error: {0}")]
    Call(#[from] CallError),
}

/// A hash of a transaction's bytes.
pub fn hash_of(bytes: &[u8]) -> H256 {
    BlakeTwo256::hash(bytes)
}

/// A transaction, if these bytes are one and the only ones of it: it is known by their hash.
fn decode(bytes: &[u8]) -> Result<UncheckedExtrinsic, SubmitError> {
    if !has_its_length(bytes) {
        return Err(SubmitError::Format("shorter than it says".into()));
    }
    let extrinsic = UncheckedExtrinsic::decode_all(&mut &bytes[..]).map_err(SubmitError::Format)?;
    if extrinsic.encode() == bytes { Ok(extrinsic) } else { Err(SubmitError::Format("not its one encoding".into())) }
}

impl Chain {
    /// Whether the runtime would take a transaction on the newest block.
    ///
    /// # Errors
    /// The bytes are no transaction, or the runtime stopped.
    pub fn validate(&self, bytes: &[u8]) -> Result<(UncheckedExtrinsic, TransactionValidity), SubmitError> {
        let extrinsic = decode(bytes)?;
        let args = (TransactionSource::External, &extrinsic, self.best.hash).encode();
        let validity = self.best_state().ask("TaggedTransactionQueue_validate_transaction", &args)?;
        Ok((extrinsic, validity))
    }

    /// Takes a transaction into the pool; where it is to be watched, with all that becomes of it.
    ///
    /// # Errors
    /// The bytes are no transaction, or the runtime or the pool refuses it.
    pub fn submit(&mut self, bytes: &[u8], watch: bool) -> Result<(H256, Option<mpsc::Receiver<Status>>), SubmitError> {
        let hash = hash_of(bytes);
        if self.pool.contains(&hash) {
            return Err(PoolError::Already(hash).into());
        }
        let (extrinsic, validity) = self.validate(bytes)?;
        let validity = validity.map_err(SubmitError::Refused)?;
        let status = self.add(hash, bytes.to_vec(), extrinsic, validity)?;
        let receiver = watch.then(|| self.watchers.add(hash));
        self.watchers.tell(&hash, status);
        Ok((hash, receiver))
    }

    /// Has the pool take it; what it usurps, or what has to go, is told so.
    fn add(
        &mut self,
        hash: H256,
        bytes: Vec<u8>,
        extrinsic: UncheckedExtrinsic,
        validity: ValidTransaction,
    ) -> Result<Status, PoolError> {
        let at = *self.best.header.number();
        let added = self.pool.add(hash, bytes, extrinsic, validity, at)?;
        for old in added.usurped {
            self.watchers.tell(&old, Status::Usurped(hash));
        }
        for old in added.dropped {
            self.watchers.tell(&old, Status::Dropped);
        }
        Ok(if added.waits { Status::Future } else { Status::Ready })
    }

    /// Takes back what was in blocks that are no more, and asks again about what waited. What nobody takes is told so.
    pub(super) fn take_back(&mut self, all: Vec<Vec<u8>>) {
        for bytes in all {
            let hash = hash_of(&bytes);
            let status = match self.validate(&bytes) {
                Ok((extrinsic, Ok(validity))) => self.add(hash, bytes, extrinsic, validity).unwrap_or(Status::Dropped),
                Ok((_, Err(_))) => Status::Invalid,
                Err(_) => Status::Dropped,
            };
            self.watchers.tell(&hash, status);
        }
    }

    /// Bytes that wait for a block.
    pub fn pending(&self) -> Vec<Vec<u8>> {
        self.pool.bytes()
    }

    /// The nonce that an account's next transaction should have, those that wait counted.
    ///
    /// # Errors
    /// The runtime stopped.
    pub fn next_nonce(&self, account: &AccountId32) -> Result<u32, CallError> {
        let mut nonce: u32 = self.best_state().ask("AccountNonceApi_account_nonce", &account.encode())?;
        while self.pool.provides(&(account, nonce).encode()) {
            nonce = nonce.saturating_add(1);
        }
        Ok(nonce)
    }
}
