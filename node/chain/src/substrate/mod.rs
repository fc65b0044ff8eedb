//! A Substrate chain, through subxt: subtensor as miners and validators use it, or a devnet of one's own.
//!
//! Start with [`SubstrateLedger`], in `ledger`: it connects and answers. Behind it, from the socket up:
//!
//! - **Connections.** `session` is one connection to one endpoint; `link` keeps one connected and asks it, `failure` says
//!   what an unanswered question means, `finals` remembers which blocks are final.
//! - **The chain's language.** `runtime` encodes and decodes by the chain's metadata, in which `needs` looks everything up
//!   before a chain is used; `calls` are the calls by name, `header` is how hashes follow from headers.
//! - **Reading.** `storage` reads single values (`account`: an account's), `metagraph` decodes a subnet, `views` reads it
//!   once a block, `witness` asks a second endpoint whether it says the same.
//! - **Calling.** `nonces` decides which number a call gets, `signed` is what is kept of a call, `keeper` sends it again
//!   and finds out what became of it, `advice` says what refusals mean.
//! - **Weights and money.** `weights` says how a row is set, `epoch` and `beacon` when a locked one opens, `space` whether
//!   commitments fit, `register` what a coldkey pays for.

mod account;
mod advice;
mod beacon;
mod calls;
mod epoch;
mod failure;
mod finals;
mod header;
mod keeper;
mod ledger;
mod link;
mod metagraph;
mod needs;
mod nonces;
mod register;
mod runtime;
mod session;
mod settings;
mod signed;
mod space;
mod storage;
mod views;
mod weights;
mod witness;

pub use epoch::Epochs;
pub use ledger::{ConnectError, SubstrateLedger};
pub use metagraph::{Metagraph, Neuron};
pub use needs::{Fault, Unfit, Weight};
pub use register::{Price, Registered};
pub use session::DialError;
pub use settings::{Bounds, ENDPOINTS_MAX, SecondOpinion, Settings};
pub use space::{Space, TooMuchSpace, check_space};
