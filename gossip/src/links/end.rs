//! Why a stream has ended, and who is to blame for it.

use covey_exchange::frames;

/// Why a stream has ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// Its owner let go of it.
    #[error("it is not needed any more")]
    Released,
    /// The other side closed it, or the connection is gone.
    #[error("it is closed")]
    Closed,
    /// The other side broke the protocol.
    #[error("{0}")]
    Breach(String),
    /// The other side takes nothing, or asks for far too much.
    #[error("{0}")]
    Nuisance(&'static str),
    /// The other side sent bytes that do not verify: reported already.
    #[error("wrong bytes came")]
    Wrong,
}

impl From<frames::FrameError> for End {
    fn from(error: frames::FrameError) -> End {
        End::Breach(error.to_string())
    }
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> End {
        End::Closed
    }
}
