//! What a chain's refusals mean, and what to do about them: the pool's numbers, and the errors of calls that failed in a
//! block.

use super::link::Failure;
use crate::chain::LedgerError;

/// A sent call's answer by the pool.
pub(super) fn of_pool(failure: Failure) -> LedgerError {
    let Failure::Refused(error) = failure else { return failure.into() };
    let data = error.data.as_ref().map(|data| data.get().trim_matches('"').to_owned()).unwrap_or_default();
    LedgerError::Refused(format!("{} ({}): {data}", error.message, error.code))
}
