//! Numbers and names that must not be mixed up.

use crate::Digest;
use crate::ss58::{self, Ss58Error};
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A round, counted from 0.
    Round(u32)
);
number!(
    /// A block's number on the chain.
    BlockNumber(u32)
);

impl Round {
    /// The round after this one.
    pub fn next(self) -> Round {
        Round(self.0.saturating_add(1))
    }
    /// The round before this one; none before round 0.
    pub fn previous(self) -> Option<Round> {
        self.0.checked_sub(1).map(Round)
    }
}

/// Uids that a run can have: a bitmap of them is 32 bytes.
pub const UIDS: usize = 256;

/// A place on the subnet, 0 to 255: a bitmap of uids is 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Uid(u8);

impl Uid {
    /// The uid of that number, if the protocol has room for it.
    pub fn new(number: u32) -> Option<Uid> {
        u8::try_from(number).ok().map(Uid)
    }
    /// The number, as the wire has it.
    pub fn number(self) -> u32 {
        u32::from(self.0)
    }
    /// The number, as an index into a table of 256.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl From<u8> for Uid {
    fn from(number: u8) -> Uid {
        Uid(number)
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! account {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// A key that is already known.
            pub const fn new(bytes: [u8; 32]) -> $name {
                $name(bytes)
            }
            /// The key in `bytes`, if there are 32 of them. Whether they are a point on the curve shows when it
            /// verifies.
            pub fn from_slice(bytes: &[u8]) -> Option<$name> {
                bytes.try_into().ok().map($name)
            }
            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        /// SS58 under Bittensor's prefix.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&ss58::encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(&self.0[..4]))
            }
        }

        impl std::str::FromStr for $name {
            type Err = Ss58Error;
            fn from_str(text: &str) -> Result<$name, Ss58Error> {
                ss58::decode(text).map($name)
            }
        }
    };
}

account!(
    /// An sr25519 public key: who a member is on chain. It signs what a node does.
    Hotkey
);
account!(
    /// An sr25519 public key: who owns hotkeys, pays for them and holds their stake.
    Coldkey
);

/// A run's name: the BLAKE3 of its canonical bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct RunId(pub Digest);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
