//! Why a method gives no answer, in a real node's words and numbers: clients decide by the number.

use crate::chain::{CallError, ChainError, PoolError, StateError, StoreError, SubmitError};
use jsonrpsee::types::ErrorObjectOwned;
use sp_runtime::transaction_validity::{InvalidTransaction, TransactionValidityError};

/// Why a method gives no answer, in a real node's numbers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RpcError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("Client error: Execution failed: {0}")]
    Call(#[from] CallError),
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Chain(#[from] ChainError),
    #[error("Invalid params: {0}")]
    Params(String),
    #[error("Invalid block hash")]
    NoBlock,
}

impl From<RpcError> for ErrorObjectOwned {
    fn from(error: RpcError) -> Self {
        let text = error.to_string();
        let bare = |code, message: &str| Self::owned(code, message, None::<()>);
        match error {
            RpcError::State(_) | RpcError::Call(_) | RpcError::Store(_) => bare(4003, &text),
            RpcError::Chain(_) => bare(-32_000, &text),
            RpcError::Params(_) => bare(-32_602, &text),
            RpcError::NoBlock => bare(-32_801, &text),
            RpcError::Submit(error) => match error {
                SubmitError::Format(_) => bare(1001, &text),
                SubmitError::Call(_) => bare(1002, &text),
                SubmitError::Refused(TransactionValidityError::Invalid(why)) => {
                    let data = match why {
                        InvalidTransaction::Custom(number) => format!("Custom error: {number}"),
                        why => <&'static str>::from(why).to_owned(),
                    };
                    Self::owned(1010, "Invalid Transaction", Some(data))
                }
                SubmitError::Refused(TransactionValidityError::Unknown(why)) => {
                    Self::owned(1011, "Unknown Transaction Validity", Some(<&'static str>::from(why)))
                }
                SubmitError::Pool(PoolError::Already(hash)) => Self::owned(1013, text, Some(format!("{hash:?}"))),
                SubmitError::Pool(PoolError::Priority { .. }) => Self::owned(
                    1014,
                    text,
                    Some("The transaction has too low priority to replace another transaction already in the pool."),
                ),
                SubmitError::Pool(PoolError::Full) => Self::owned(
                    1016,
                    "Immediately Dropped",
                    Some("The transaction couldn't enter the pool because of the limit"),
                ),
            },
        }
    }
}
