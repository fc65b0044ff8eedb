//! Why a node does not start.

use crate::identity::IdentityError;
use std::io;
use std::path::PathBuf;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Not an address.
    #[error("{0:?} is no address; an address looks like /ip4/1.2.3.4/tcp/4001 or /ip4/1.2.3.4/udp/4001/quic-v1")]
    Address(String),
    /// It cannot listen there.
    #[error("cannot listen on {address}: {error}; choose another port or stop what uses it")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        error: String,
    },
    /// No key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No folder.
    #[error("cannot create {}: {error}", .directory.display())]
    Directory {
        /// The folder.
        directory: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Settings that contradict each other.
    #[error("the network cannot be set up: {0}")]
    Settings(String),
}
