//! The one place that knows which devices there are. What each of them can do is decided behind [`Backend`].

use crate::backend::{Backend, BackendError};
use crate::cpu;
use covey_proto::run::Model;

/// What to compute on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// This machine's processor.
    Cpu {
        /// Threads of one call: all of them work on steps, losses, logits and contributions. 0 counts
        /// as 1. Their number changes no bit.
        threads: usize,
    },
}

/// Opens `device` for `model`.
///
/// # Errors
/// Numbers of a model that do not fit together, or a device that is not there.
pub fn open_backend(device: &Device, model: &Model) -> Result<Box<dyn Backend>, BackendError> {
    match *device {
        Device::Cpu { threads } => cpu::open(threads, model),
    }
}
