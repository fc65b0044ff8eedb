//! What a supervised process says: one JSON object a line on its standard output.

use crate::observe::NodeStatus;
use crate::peer::Applied;
use covey_proto::{BlockNumber, Round};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Bytes of the longest line that is taken: a status of a node is some 2 KB, an applied round of 256 members 40 KB.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// A line of a supervised process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A chain answers.
    Serving {
        /// Where: a WebSocket URL.
        url: String,
    },
    /// A node runs.
    Started {
        /// Where others can dial it, as multiaddrs.
        addresses: Vec<String>,
        /// Where it shows its status.
        status: Option<SocketAddr>,
    },
    /// How far a node is, at once.
    Pace(Pace),
    /// All that a node tells of itself, now and then, and once more at its end.
    Status(Box<NodeStatus>),
    /// A node has applied a round.
    Applied(Applied),
    /// A node has stopped, and a person must look at it.
    Halted {
        /// Why.
        why: String,
    },
    /// The process cannot do what it was started for.
    Failed {
        /// Why.
        error: String,
    },
}

/// How far a node is: what whoever makes blocks must know at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pace {
    /// The newest block that it has dealt with.
    pub seen: BlockNumber,
    /// The newest block that it knows as final.
    pub finalised: BlockNumber,
    /// Whether it waits for nothing but blocks.
    pub idle: bool,
    /// Whether it takes part: neither starting, nor catching up, nor halted.
    pub live: bool,
    /// The round that its phase is of.
    pub round: Round,
    /// The round after the last one that it has applied.
    pub due: Round,
    /// A word for what it does.
    pub phase: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use covey_proto::{Digest, Uid};

    #[test]
    fn a_line_reads_back_as_what_was_said() {
        let applied = Applied {
            round: Round(3),
            head: Digest::of(b"head"),
            root: Digest::of(b"root"),
            chosen: vec![(Uid::from(2), Digest::of(b"manifest"))],
            offered: vec![Uid::from(2), Uid::from(255)],
            void: None,
        };
        let lines = [
            Line::Serving { url: "ws://127.0.0.1:9944".into() },
            Line::Started { addresses: vec!["/ip4/127.0.0.1/tcp/1".into()], status: None },
            Line::Pace(Pace { seen: BlockNumber(7), idle: true, phase: "train".into(), ..Pace::default() }),
            Line::Status(Box::default()),
            Line::Applied(applied),
            Line::Halted { why: "its disk is full\nof \"quotes\"".into() },
        ];
        for line in lines {
            let text = serde_json::to_string(&line).unwrap();
            assert!(!text.contains('\n'), "{text}");
            assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line, "{text}");
        }
    }
}
