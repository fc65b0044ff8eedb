//! How a command ends: well, with something that a script should notice, stopped, or with an error that says the way out.
//!
//! Which number each becomes for the shell is `main`'s, in the file above.

use super::signals;

/// What a command that did not fail has to say.
pub(super) enum Done {
    /// All is well.
    Well,
    /// It worked, and what it found is not well.
    Differs,
    /// It was told to stop, and did so in good order.
    Stopped(signals::StopSignal),
}

/// Any error, on its way to the person who typed the command: nobody decides by it any more.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A word of its own for an error that no library has.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Plain(pub(super) String);
