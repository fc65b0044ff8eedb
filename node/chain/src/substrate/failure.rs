//! Why a request has no answer, and what that means for whoever asked: whether the chain may answer another time, or has
//! forgotten, or is one that this client does not know.

use super::metagraph::MetagraphError;
use super::runtime::Misfit;
use crate::{LedgerError, STATE_KEPT};
use covey_proto::BlockNumber;
use subxt::rpcs::UserError;

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The chain answered: with an error.
    Refused(UserError),
    /// It did not answer, or not in its language.
    Unreachable(String),
}

impl From<Failure> for LedgerError {
    fn from(failure: Failure) -> LedgerError {
        match failure {
            // JSON-RPC's "method not found" and "invalid params".
            Failure::Refused(error) if matches!(error.code, -32601 | -32602) => LedgerError::Unfit(error.to_string()),
            Failure::Refused(error) => LedgerError::Unreachable(error.to_string()),
            Failure::Unreachable(why) => LedgerError::Unreachable(why),
        }
    }
}

impl From<Misfit> for LedgerError {
    fn from(misfit: Misfit) -> LedgerError {
        LedgerError::Unfit(misfit.to_string())
    }
}

impl From<MetagraphError> for LedgerError {
    fn from(error: MetagraphError) -> LedgerError {
        match error {
            MetagraphError::OtherBlock { .. } => LedgerError::Unreachable(error.to_string()),
            error => LedgerError::Unfit(error.to_string()),
        }
    }
}

/// What it means that a block's state could not be read, where the newest block is `best`.
pub(super) fn no_state(failure: Failure, block: BlockNumber, best: BlockNumber) -> LedgerError {
    match is_stateless(&failure) {
        true => LedgerError::NoState { block, kept: STATE_KEPT, best },
        false => failure.into(),
    }
}

/// Whether a refusal says that a block's state is gone. A block that is not known may only not have come yet.
pub(super) fn is_stateless(failure: &Failure) -> bool {
    let Failure::Refused(error) = failure else { return false };
    error.message.contains("discarded")
}

/// Whether a refusal says that a block is not known.
pub(super) fn is_unknown(failure: &Failure) -> bool {
    let Failure::Refused(error) = failure else { return false };
    error.message.contains("UnknownBlock") || error.message.contains("not found in the database")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_discarded_state_is_gone() {
        let refused = |message: &str| Failure::Refused(UserError { code: 4003, message: message.into(), data: None });
        assert!(is_stateless(&refused("Client error: UnknownBlock: State already discarded for 0x12")));
        assert!(is_stateless(&refused("Api called for an unknown Block: State already discarded for 0x12")));
        let unknown = refused("Client error: UnknownBlock: Header was not found in the database: 0x12");
        assert!(!is_stateless(&unknown) && is_unknown(&unknown));
        assert!(!is_stateless(&Failure::Unreachable("discarded".into())));
    }

    #[test]
    fn a_state_that_is_gone_is_not_asked_for_again_and_other_failures_may_pass() {
        let refused = |code, message: &str| Failure::Refused(UserError { code, message: message.into(), data: None });
        let meaning = |failure| no_state(failure, BlockNumber(5), BlockNumber(900));
        let gone = meaning(refused(4003, "State already discarded for 0x12"));
        assert!(matches!(gone, LedgerError::NoState { block: BlockNumber(5), best: BlockNumber(900), .. }), "{gone}");
        assert!(matches!(meaning(refused(4003, "too busy")), LedgerError::Unreachable(_)));
        assert!(matches!(meaning(Failure::Unreachable("cut".into())), LedgerError::Unreachable(_)));
        for code in [-32601, -32602] {
            assert!(matches!(meaning(refused(code, "no such method")), LedgerError::Unfit(_)), "{code}");
        }
    }
}
