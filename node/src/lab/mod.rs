//! Experiments in one process, without network or chain, over the same code paths as a swarm: what a method reaches with
//! given rounds, and what it sends. It answers "which preset", "is joining worth it", "how far from all data in one batch".
//!
//! Start with [`Experiment`] and [`run`]: one method, one seed. [`grid`] reads a file that asks for many, [`mod@conduct`] runs
//! what of it is not done yet, [`results`] keeps what is done, [`table`] and `plot` show it. Of a round, `run` decides who
//! trains on what and what becomes of it; `worker` is a miner's part of it, by the same [`covey_trainer::Trainer`].

pub mod conduct;
mod error;
pub mod grid;
mod plot;
mod progress;
pub mod results;
mod run;
pub mod table;
#[cfg(test)]
mod tests;
mod worker;

pub use conduct::conduct;
pub use error::LabError;
pub use grid::{Grid, GridError};
pub use progress::Progress;
pub use run::run;

use crate::preset::{PresetError, Template};
use covey_proto::Digest;
use covey_proto::run::{Chain, Data, Run};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Grows when the same settings would give other numbers: results of another version are not taken for this one's.
pub const VERSION: u32 = 1;
/// What [`Method::All`] was called before, and still is in the names of numbers.
const ALL_BEFORE: &str = "adamw";
/// μ of DiLoCo's Nesterov momentum, unless one says otherwise.
pub const MOMENTUM: f64 = 0.9;
/// DiLoCo's outer rate, unless one says otherwise.
pub const DILOCO_RATE: f64 = 0.7;

/// How the miners' work becomes one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// As a swarm does it: compressed pseudo-gradients, error feedback, outer step.
    Swarm,
    /// As a swarm, but the values that are chosen are handed in as they are: what rounding costs is the difference.
    Exact,
    /// The plain average of whole pseudo-gradients: what compression costs is the difference.
    Dense,
    /// Whole pseudo-gradients, averaged, and Nesterov momentum in the outer step (arXiv 2311.08105).
    Diloco,
    /// One miner on its own part of the data.
    Alone,
    /// All miners' batches as one, by the run's inner optimizer.
    #[serde(alias = "adamw")]
    All,
}

impl Method {
    /// All of them.
    pub const ALL: [Method; 6] =
        [Method::Swarm, Method::Exact, Method::Dense, Method::Diloco, Method::Alone, Method::All];

    /// Whether several miners train apart and hand in what they learned.
    pub fn is_joint(self) -> bool {
        !matches!(self, Method::Alone | Method::All)
    }

    /// What this method changes in a preset, unless one says otherwise.
    pub fn defaults(self) -> Option<(&'static str, f64)> {
        (self == Method::Diloco).then_some(("outer.rate", DILOCO_RATE))
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Swarm => "swarm",
            Method::Exact => "exact",
            Method::Dense => "dense",
            Method::Diloco => "diloco",
            Method::Alone => "alone",
            Method::All => "all",
        })
    }
}

impl FromStr for Method {
    type Err = String;
    fn from_str(text: &str) -> Result<Method, String> {
        // What it was called while AdamW was the only inner optimizer.
        let text = if text == ALL_BEFORE { "all" } else { text };
        let known = || Method::ALL.map(|method| method.to_string()).join(", ");
        Method::ALL
            .into_iter()
            .find(|method| method.to_string() == text)
            .ok_or_else(|| format!("no method {text:?}; there are {}", known()))
    }
}

/// What becomes of a miner's error feedback when its contribution is not applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMiss {
    /// e ← a − what was sent, whatever becomes of it: the protocol.
    #[default]
    Encode,
    /// e ← a = β·e + Δ: nothing of it counts as sent.
    Keep,
}

impl FromStr for OnMiss {
    type Err = String;
    fn from_str(text: &str) -> Result<OnMiss, String> {
        match text {
            "encode" => Ok(OnMiss::Encode),
            "keep" => Ok(OnMiss::Keep),
            _ => Err(format!("no {text:?}; there are encode, keep")),
        }
    }
}

/// One experiment with one seed: all that its numbers depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// The method.
    pub method: Method,
    /// The run, from [`resolve`].
    pub run: Arc<Run>,
    /// Miners, R: 1 to 256.
    pub miners: u32,
    /// Rounds, at least 1.
    pub rounds: u32,
    /// Makes the order of the data, and who misses.
    pub seed: u64,
    /// Rounds between evaluations, at least 1; the last round is always one.
    pub every: u32,
    /// Held-out sequences of an evaluation, at least 1.
    pub sequences: u64,
    /// μ of [`Method::Diloco`].
    pub momentum: f64,
    /// The probability that a contribution is made and sent, but not applied: for each miner and round by itself.
    pub miss: f64,
    /// What a miner does with its error feedback then.
    pub ef_on_miss: OnMiss,
}

impl Experiment {
    /// `method` with `miners` and `seed` for `rounds` rounds; 10 rounds between evaluations of 512 sequences, nothing missed.
    pub fn new(method: Method, run: Arc<Run>, miners: u32, rounds: u32, seed: u64) -> Experiment {
        let (every, sequences, momentum, miss, ef_on_miss) = (10, 512, MOMENTUM, 0.0, OnMiss::Encode);
        Experiment { method, run, miners, rounds, seed, every, sequences, momentum, miss, ef_on_miss }
    }

    /// Names its numbers: the same settings, data and [`VERSION`], the same digest, in every build.
    pub fn key(&self) -> Digest {
        let Experiment { method, run, miners, rounds, seed, every, sequences, momentum, miss, ef_on_miss } = self;
        // The bits of floats: two spellings of one number are one.
        let (momentum, miss) = (momentum.to_bits(), miss.to_bits());
        let method = if *method == Method::All { ALL_BEFORE.to_owned() } else { method.to_string() };
        Digest::of(
            format!(
                "covey lab {VERSION} {method} {} {miners} {rounds} {seed} {every} {sequences} {momentum:x} {miss:x} {ef_on_miss:?}",
                run.id()
            )
            .as_bytes(),
        )
    }
}

/// A point of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Rounds done.
    pub round: u32,
    /// Held-out loss, nats a token.
    pub loss: f64,
    /// Tokens that all miners have trained on.
    pub tokens: u64,
    /// Bytes that one miner has sent: its shards; 4 a parameter and round for whole pseudo-gradients; 4 a parameter and
    /// step for all data in one batch, whose gradients would be averaged; none alone.
    pub bytes: u64,
}

/// The run of a template for a laboratory: its chain does not matter, its data does.
///
/// # Errors
/// Unknown or missing keys, or numbers that cannot be.
pub fn resolve(template: &Template, data: Digest) -> Result<Run, PresetError> {
    let chain = Chain { genesis: Digest::ZERO, netuid: 0, start: 1000, genesis_state: Digest::ZERO };
    template.resolve(&chain, &Data { digest: data, samples: 1 })
}
