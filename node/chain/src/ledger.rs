//! What a node asks of a chain: the trait [`Ledger`], and what goes in and comes out. How it is done, its implementations
//! decide.

use covey_proto::chain::ChainView;
use covey_proto::{BlockNumber, Digest, Hotkey, HotkeyPair, Uid};
use covey_round::submit::{Fate, SignedCall};
use std::future::Future;
use tokio::sync::watch;

/// Blocks of state that an ordinary chain node keeps.
pub const STATE_KEPT: u32 = 256;

/// How far the chain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Heads {
    /// The newest block.
    pub best: BlockNumber,
    /// The newest block that cannot be undone.
    pub finalised: BlockNumber,
}

/// What a hotkey may ask of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Overwrite one's commitment.
    Commit(Vec<u8>),
    /// Say what each uid's work is worth to a validator; shares of `u16::MAX`.
    SetWeights(Vec<(Uid, u16)>),
}

/// Why the chain did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The chain cannot be reached, or is gone.
    #[error("the chain does not answer: {0}")]
    Unreachable(String),
    /// State that is no longer kept, or not there yet.
    #[error("no state at block {block}: the chain keeps {kept} blocks and is at {best}")]
    NoState {
        /// What was asked for.
        block: BlockNumber,
        /// Blocks kept.
        kept: u32,
        /// Where the chain is.
        best: BlockNumber,
    },
    /// Two endpoints of the chain say different things of what is final: one of them is not to be trusted.
    #[error("the chain's endpoints disagree: {0}")]
    Disagreement(String),
    /// Several endpoints are named, a second opinion is required, and none could be had: asking again may change it.
    #[error("no second endpoint confirms final block {block}: {why}")]
    Unconfirmed {
        /// What was read.
        block: BlockNumber,
        /// What became of the second endpoint.
        why: String,
    },
    /// The chain's runtime is not one that this client knows: asking again changes nothing.
    #[error("the chain and this client do not fit: {0}")]
    Unfit(String),
    /// The call is taken from some block on.
    #[error("{why}")]
    NotYet {
        /// The first block that takes it.
        at: BlockNumber,
        /// Why no earlier one does.
        why: String,
    },
    /// The call will never be taken.
    #[error("the chain refuses the call: {0}")]
    Refused(String),
}

/// One subnet of one chain.
pub trait Ledger: Send + Sync + 'static {
    /// The chain's genesis hash.
    fn genesis(&self) -> Digest;

    /// The subnet.
    fn netuid(&self) -> u16;

    /// How far the chain is, now and from now on.
    fn heads(&self) -> watch::Receiver<Heads>;

    /// The subnet at a final block.
    ///
    /// # Errors
    /// No such state (yet, or any more), or no answer.
    fn view(&self, block: BlockNumber) -> impl Future<Output = Result<ChainView, LedgerError>> + Send;

    /// The weights that validators have set, as of the newest block, final or not: for whoever watches. What nodes must
    /// agree on is read from a final block's [`view`](Ledger::view).
    ///
    /// # Errors
    /// No answer.
    fn weights(&self) -> impl Future<Output = Result<Weights, LedgerError>> + Send;

    /// Signs a call with the hotkey's next nonce.
    ///
    /// # Errors
    /// No answer.
    fn sign(&self, pair: &HotkeyPair, call: Call) -> impl Future<Output = Result<SignedCall, LedgerError>> + Send;

    /// Who signed a call.
    ///
    /// # Errors
    /// The bytes are no call of this ledger.
    fn author(&self, call: &SignedCall) -> Result<Hotkey, LedgerError>;

    /// What has become of a call by a final block. It is open until its nonce is used there, by this call or by another, or
    /// the time for which it was signed is over.
    ///
    /// # Errors
    /// No such state (yet, or any more), no call, or no answer.
    fn fate(&self, call: &SignedCall, block: BlockNumber) -> impl Future<Output = Result<Fate, LedgerError>> + Send;

    /// Hands a call to the chain. Sending it again changes nothing.
    ///
    /// # Errors
    /// The call can never be taken, or no answer. That it was handed over does not say that it will be in a block.
    fn submit(&self, call: &SignedCall) -> impl Future<Output = Result<(), LedgerError>> + Send;
}

/// Weights by validator's hotkey: shares of `u16::MAX` by uid.
pub type Weights = std::collections::BTreeMap<Hotkey, Vec<(Uid, u16)>>;
