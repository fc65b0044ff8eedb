//! How much memory a node will need at most: for `covey run show`, before anybody starts one. The parts that grow with the
//! model are what their owners say they hold; what a process takes without a model is measured.
//!
//! A test holds the sum against what real nodes had (`tests/swarms/memory.rs`): it is right within a tenth.

use crate::contribution::DECODED_BYTES_MAX;
use covey_proto::Round;
use covey_proto::layout::{CHUNK, Layout};
use covey_proto::run::{Quantiser, Run};
use covey_round::engine::Roles;
use covey_trainer::data::tokens::NARROW_MAX;
use covey_trainer::{BackendError, Device, open_backend};

/// What a process takes before it knows a model: the pages of the binary that are used, the runtime, the chain's metadata,
/// the network with its connections. Measured as the peak of the tiny preset's seeder, whose model is nothing beside it.
/// Code that is not optimised is larger.
const PROCESS_BYTES: u64 = if cfg!(debug_assertions) { 66_000_000 } else { 50_000_000 };

/// Of contributions that are not kept decoded, shards that are fetched, on their way or decoded at a time, in decoded shards.
/// Measured at 36 million parameters, with shards of 256 and of 1,024 chunks.
const PASSING_SHARDS: u64 = 11;

/// The most memory that a node will have at once, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// The process itself.
    pub process: u64,
    /// The state that the node stands on, once.
    pub state: u64,
    /// What trains and judges, as long as the model: parameters, gradient, moments, error feedback.
    pub device: u64,
    /// Activations, which depend on the model's shape and not on the batch.
    pub activations: u64,
    /// The tokens of the data set, two bytes each.
    pub data: u64,
    /// Contributions: those that are kept decoded, those on their way, and the values of the one that is made or tried.
    pub contributions: u64,
}

impl Footprint {
    /// All together.
    pub fn total(self) -> u64 {
        self.process + self.state + self.device + self.activations + self.data + self.contributions
    }
}

/// What a node with these roles needs for a run, if it trains and judges on `device`.
///
/// # Errors
/// The device cannot be opened for the run's model.
pub fn footprint(run: &Run, roles: Roles, device: &Device) -> Result<Footprint, BackendError> {
    let backend = open_backend(device, &run.model)?;
    let mut memory = Footprint {
        process: PROCESS_BYTES,
        state: 4 * Layout::of(&run.model).elements() as u64,
        device: 0,
        activations: 0,
        data: 0,
        contributions: 0,
    };
    // The share of the values that is sent, at two bytes for the place and four for the value.
    let share = run.compress.k.count(Round(0)).min(CHUNK) as f64 / CHUNK as f64;
    let decoded = (memory.state as f64 / 4.0 * share * 6.0) as u64;
    memory.contributions = if decoded <= DECODED_BYTES_MAX as u64 {
        decoded.saturating_mul(run.electorate.contributions_max.into())
    } else {
        let shard = (f64::from(run.compress.shard_chunks) * CHUNK as f64 * share * 6.0) as u64;
        PASSING_SHARDS.saturating_mul(shard).min(decoded)
    };
    let of_roles =
        [(roles.miner, backend.trainer_memory(run.inner.optimizer)), (roles.validator, backend.model_memory())];
    for (_, needed) in of_roles.into_iter().filter(|(does, _)| *does) {
        memory.device += needed.parameters;
        memory.activations += needed.activations;
        // A miner chooses values in groups of some millions; a validator keeps what a trial has replaced.
        memory.contributions += decoded;
    }
    if roles != Roles::default() {
        memory.data = data_bytes(run);
    }
    Ok(memory)
}

/// The tokens of all phases: two bytes each, four of a vocabulary beyond them, and of later phases, which may have
/// conversations.
fn data_bytes(run: &Run) -> u64 {
    let first = if run.model.vocabulary > NARROW_MAX { 4 } else { 2 };
    let later = run.phases.iter().map(|phase| (phase.samples, 4));
    let of = |(samples, width): (u64, u64)| samples.saturating_mul(run.model.sequence.into()).saturating_mul(width);
    std::iter::once((run.data.samples, first)).chain(later).map(of).fold(0, u64::saturating_add)
}

/// Bytes of a contribution of round 0, about: what the codec needs by information theory, which it meets within a few percent: which k of 4,096, and the bits of each
/// value's sign and size.
pub fn contribution_bytes(run: &Run, layout: &Layout) -> u64 {
    let k = run.compress.k.count(Round(0)).min(CHUNK) as f64;
    let share = k / CHUNK as f64;
    let entropy = |p: f64| if p > 0.0 && p < 1.0 { -p * p.log2() - (1.0 - p) * (1.0 - p).log2() } else { 0.0 };
    let (value_bits, scale_bytes) = match run.compress.quantiser {
        Quantiser::Sign => (1.0, 2.0),
        Quantiser::TwoMagnitudes => (2.0, 4.0),
        Quantiser::Templar => (2.0, 0.3),
    };
    let chunk = (CHUNK as f64 * entropy(share) + k * value_bits) / 8.0 + scale_bytes;
    (chunk * layout.elements() as f64 / CHUNK as f64) as u64
}
