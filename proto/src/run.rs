//! All that makes a run. Two nodes whose `Run`s differ in one number are in two runs.
//!
//! A run is written as `run.toml` and read with [`Run::from_toml`]; its id is the digest of its canonical bytes, so
//! comments, order and spelling of the file do not matter. Every fault of a file is reported at once.

use crate::canonical;
use crate::error::DecodeError;
use crate::layout::Layout;
use crate::message::{ANNOUNCEMENT_BYTES_MAX, BLOB_BYTES_MAX};
use crate::schedule::Schedule;
use crate::{Digest, Round, RunId, blob, wire};

use serde::{Deserialize, Serialize};

mod bytes;

pub use crate::id::UIDS;
pub use crate::message::INLINE_MAX;
pub use crate::model::{Model, RopeScaling};

/// Phases behind the first that a run may have.
pub const PHASES_MAX: usize = 64;

/// Elements of the largest model this version accepts (100 G): keeps every offset in 53 bits.
const ELEMENTS_MAX: u64 = 100_000_000_000;

/// All that makes a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The chain and the subnet it lives on.
    pub chain: Chain,
    /// A round in blocks.
    pub clock: Clock,
    /// Who decides, and how many are taken.
    pub electorate: Electorate,
    /// The model's shapes.
    pub model: Model,
    /// What is trained on.
    pub data: Data,
    /// The inner optimizer.
    pub inner: Inner,
    /// The outer step.
    pub outer: Outer,
    /// How a pseudo-gradient is compressed.
    pub compress: Compress,
    /// How contributions are scored.
    pub scoring: Scoring,
    /// Later phases, in the order of their first rounds: other data from then on. Rates, batches and steps are schedules by
    /// round, and need no phase.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<Phase>,
}

/// From some round on, the run trains on other data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Its first round.
    pub from: u32,
    /// [`Data::digest`] from then on.
    pub digest: Digest,
    /// [`Data::samples`] from then on.
    pub samples: u64,
}

/// The chain and the subnet a run lives on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// The chain's genesis hash.
    pub genesis: Digest,
    /// The subnet.
    pub netuid: u16,
    /// r0: the block at which round 0 starts.
    pub start: u32,
    /// State root before round 0.
    pub genesis_state: Digest,
}

/// A round in blocks: start S = r0 + r·L, anchor A = S−a, commit deadline C = S+c, vote deadline V = S+v.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// L.
    pub length: u32,
    /// a.
    pub anchor: u32,
    /// c.
    pub commit: u32,
    /// v.
    pub vote: u32,
    /// A miner submits no later than C minus this.
    pub commit_margin: u32,
    /// What is announced after V minus this gets no vote.
    pub announce_margin: u32,
    /// A validator submits its vote at V minus this.
    pub vote_margin: u32,
    /// Where a round's randomness comes from.
    pub beacon: Beacon,
}

/// Where a round's randomness comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Beacon {
    /// The hashes of blocks.
    Chain,
    /// The run id and the block's number, so that one seed gives one root. Anyone can foresee it: for tests.
    Seed,
}

/// Who decides, and how many contributions are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Electorate {
    /// W: rounds for which a vote keeps its voter in the electorate.
    pub window: u32,
    /// K: the most contributions a round applies.
    pub contributions_max: u32,
    /// R_min: fewer make the round void.
    pub contributions_min: u32,
    /// The least stake of a voter.
    pub stake_min: u64,
    /// The least stake of an electorate.
    pub electorate_min: u64,
    /// P: rounds between checkpoints.
    pub checkpoint: u32,
}

/// What is trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// BLAKE3 of the data set's manifest, which names the tokenizer and every shard.
    pub digest: Digest,
    /// M: training sequences.
    pub samples: u64,
}

/// What makes inner steps. The discriminant is its number in the canonical bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Optimizer {
    /// AdamW for everything (Loshchilov & Hutter, arXiv 1711.05101).
    #[default]
    AdamW = 0,
    /// Muon for the matrices of the layers (<https://kellerjordan.github.io/posts/muon/>), AdamW for the rest.
    Muon = 1,
}

impl Optimizer {
    /// The optimizer of that number, if there is one.
    pub fn from_number(number: u32) -> Option<Optimizer> {
        [Optimizer::AdamW, Optimizer::Muon].into_iter().find(|optimizer| *optimizer as u32 == number)
    }

    fn is_default(&self) -> bool {
        *self == Optimizer::default()
    }
}

/// The inner optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inner {
    /// H by round, held until the next point.
    pub steps: Schedule,
    /// Sequences a step.
    pub batch: u32,
    /// Learning rate by round, linear between points.
    pub rate: Schedule,
    /// Steps of linear warm-up after every reset of the optimizer.
    pub warmup_steps: u32,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Adam's epsilon.
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Bound of the global gradient norm.
    pub clip: f64,
    /// Below it a miner does not commit.
    pub steps_min: u32,
    /// Which optimizer.
    #[serde(default, skip_serializing_if = "Optimizer::is_default")]
    pub optimizer: Optimizer,
    /// Decay of Muon's momentum; only Muon has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    /// Learning rate of embedding and output matrix, with Muon of the norms too, by round, linear between points; `rate`
    /// where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embed_rate: Option<Schedule>,
}

/// The outer step: θ ← θ − α·ḡ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outer {
    /// α by round, linear between points.
    pub rate: Schedule,
    /// ρ: a coordinate's sum is divided by max(hits, ⌈ρR⌉). 1 is the SparseLoCo paper's, 0 Templar's code.
    pub rho: f64,
}

/// How a pseudo-gradient is compressed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compress {
    /// Values that a chunk of 4,096 sends, by round, held until the next point.
    pub k: Schedule,
    /// β of error feedback.
    pub beta: f64,
    /// How values are rounded.
    pub quantiser: Quantiser,
    /// Chunks of a contribution shard.
    pub shard_chunks: u32,
    /// Elements of a state shard.
    pub state_elements: u32,
    /// Bytes of the largest shard that travels inside an announcement; at most [`INLINE_MAX`].
    pub inline_max: u32,
}

/// How transmitted values are rounded. The discriminant is the shard codec's byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Quantiser {
    /// One bit a value: a sign, and one scale a chunk.
    Sign = 1,
    /// Two bits a value: a sign and a choice of two magnitudes a chunk.
    TwoMagnitudes = 2,
    /// At most two bits a value: a choice of four values a tensor, as Templar rounds (for comparison with it).
    Templar = 3,
}

/// How contributions are scored (Gauntlet).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scoring {
    /// Sequences of an evaluation set.
    pub sequences: u32,
    /// Share of the outer rate at which a single contribution is tried.
    pub rate: f64,
    /// How fast the binary moving average follows.
    pub average: f64,
    /// Share of the training time that scoring may take.
    pub share: f64,
    /// Exponent that turns scores into weights.
    pub power: f64,
}

/// What is wrong with a run, every fault at once.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The text is no run.toml.
    #[error("run.toml does not parse: {0}")]
    Toml(#[from] toml::de::Error),
    /// Numbers that cannot be.
    #[error("run.toml is not a run:\n{}", .0.iter().map(|fault| format!("  {fault}")).collect::<Vec<_>>().join("\n"))]
    Faults(Vec<String>),
    /// The canonical bytes do not decode.
    #[error(transparent)]
    Bytes(#[from] DecodeError),
}

impl Run {
    /// Reads and checks a run.toml.
    ///
    /// # Errors
    /// Unknown or missing keys, or every number that cannot be.
    pub fn from_toml(text: &str) -> Result<Run, RunError> {
        let mut run: Run = toml::from_str(text)?;
        // What is said although it goes without saying is the same run.
        let usual = run.model.width.checked_div(run.model.heads);
        run.model.head = run.model.head.filter(|head| Some(*head) != usual);
        run.checked()
    }

    /// The run as a run.toml.
    pub fn to_toml(&self) -> String {
        // Every field is a number, a text or a list of them; a table has no other reason to fail.
        toml::to_string(self).expect("a run has a TOML form")
    }

    /// The run, if its numbers can be.
    ///
    /// # Errors
    /// Every fault at once.
    pub fn checked(self) -> Result<Run, RunError> {
        let faults = self.faults();
        if faults.is_empty() { Ok(self) } else { Err(RunError::Faults(faults)) }
    }

    /// The run's name.
    pub fn id(&self) -> RunId {
        RunId(Digest::of(&self.to_bytes()))
    }

    /// The number of the phase that `round` is in: 0 is the run's beginning, and [`Run::phases`] follow.
    pub fn phase_of(&self, round: Round) -> usize {
        self.phases.iter().take_while(|phase| phase.from <= round.0).count()
    }

    /// What `round` trains on.
    pub fn data_of(&self, round: Round) -> Data {
        match self.phase_of(round).checked_sub(1).and_then(|later| self.phases.get(later)) {
            Some(Phase { digest, samples, .. }) => Data { digest: *digest, samples: *samples },
            None => self.data,
        }
    }

    /// How the model's parameters lie in the state.
    pub fn layout(&self) -> Layout {
        Layout::of(&self.model)
    }

    /// The canonical bytes: what the run id is the digest of.
    pub fn to_bytes(&self) -> Vec<u8> {
        canonical::encode(blob::RUN, &self.to_wire())
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// Bytes that are not canonical, or a run that cannot be.
    pub fn from_bytes(bytes: &[u8]) -> Result<Run, RunError> {
        let wire: wire::Run = canonical::decode(blob::RUN, bytes, blob::RUN_BYTES_MAX, None)?;
        Run::from_wire(wire)?.checked()
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Faults(Vec::new());
        self.check_clock(&mut faults);
        self.check_model(&mut faults);
        self.check_training(&mut faults);
        self.check_scoring(&mut faults);
        faults.0
    }

    fn check_clock(&self, faults: &mut Faults) {
        let clock = &self.clock;
        let sane = clock.length <= 100_000 && clock.anchor <= self.chain.start && self.chain.start <= 1 << 30;
        faults.unless(sane, || "chain.start must be at least clock.anchor, clock.length at most 100000".into());
        let ordered = clock.commit < clock.vote && clock.vote < clock.length;
        faults.unless(ordered, || {
            format!("clock: commit {} < vote {} < length {} must hold", clock.commit, clock.vote, clock.length)
        });
        let margins = clock.commit_margin >= 1
            && clock.commit_margin < clock.commit
            && clock.vote_margin >= 1
            && clock.vote_margin <= clock.announce_margin
            && clock.announce_margin < clock.vote.saturating_sub(clock.commit);
        faults.unless(margins, || {
            "clock: margins must satisfy 1 <= commit_margin < commit and 1 <= vote_margin <= announce_margin < vote - commit"
                .into()
        });
        // An ordinary chain node keeps 256 blocks of state, and a joiner reads A when V is final.
        let kept = u64::from(clock.length) + u64::from(clock.anchor) + u64::from(clock.vote);
        faults
            .unless(kept <= 256, || format!("clock: length + anchor + vote is {kept}; a chain node keeps 256 blocks"));
        let electorate = &self.electorate;
        faults.between("electorate.window", electorate.window, 1, 10_000);
        faults.between("electorate.contributions_max", electorate.contributions_max, 1, UIDS as u32);
        faults.between("electorate.contributions_min", electorate.contributions_min, 1, electorate.contributions_max);
        faults.between("electorate.checkpoint", electorate.checkpoint, 1, 10_000);
    }

    fn check_model(&self, faults: &mut Faults) {
        let model = &self.model;
        faults.between("model.vocabulary", model.vocabulary, 256, 1 << 20);
        faults.between("model.width", model.width, 2, 1 << 16);
        faults.between("model.layers", model.layers, 1, 1000);
        faults.between("model.heads", model.heads, 1, 1024);
        faults.between("model.kv_heads", model.kv_heads, 1, 1024);
        faults.between("model.feed_forward", model.feed_forward, 1, 1 << 18);
        faults.between("model.sequence", model.sequence, 2, 1 << 20);
        faults.positive("model.rope_theta", model.rope_theta);
        faults.positive("model.norm_epsilon", model.norm_epsilon);
        if let Some(head) = model.head {
            faults.between("model.head", head, 2, 1 << 16);
        }
        if let Some(scaling) = &model.rope_scaling {
            let RopeScaling { factor, low_frequency_factor, high_frequency_factor, original_sequence } = *scaling;
            let range = 1.0..=1e6;
            let sane = range.contains(&factor) && range.contains(&low_frequency_factor) && high_frequency_factor <= 1e6;
            faults.unless(sane && low_frequency_factor < high_frequency_factor, || {
                "model.rope_scaling: factor and low_frequency_factor must be 1 to 1e6, high_frequency_factor above \
                 low_frequency_factor and at most 1e6"
                    .into()
            });
            faults.between("model.rope_scaling.original_sequence", original_sequence, 2, 1 << 20);
        }
        if !faults.0.is_empty() {
            return;
        }
        let heads = (model.head.is_some() || model.width.is_multiple_of(model.heads))
            && model.heads.is_multiple_of(model.kv_heads)
            && model.head_width().is_multiple_of(2);
        faults.unless(heads, || {
            "model: width must divide by heads into an even number (or head be one), heads by kv_heads".to_owned()
        });
        let (width, ff) = (u64::from(model.width), u64::from(model.feed_forward));
        let query = width.max(u64::from(model.heads) * u64::from(model.head_width()));
        let embeddings = u64::from(model.vocabulary) * width * 2;
        let elements = embeddings + u64::from(model.layers) * (4 * width * query + 3 * width * ff);
        faults.unless(elements <= ELEMENTS_MAX, || {
            format!("model: about {elements} parameters; the limit is {ELEMENTS_MAX}")
        });
    }

    fn check_training(&self, faults: &mut Faults) {
        let Run { inner, outer, compress, data, .. } = self;
        faults.unless(data.samples >= 1, || "data.samples must be at least 1".into());
        self.check_phases(faults);
        faults.schedule("inner.steps", &inner.steps, 1.0, 100_000.0, true);
        faults.schedule("inner.rate", &inner.rate, 0.0, 1.0, false);
        faults.between("inner.batch", inner.batch, 1, 1 << 20);
        faults.between("inner.steps_min", inner.steps_min, 1, 100_000);
        faults.share("inner.beta1", inner.beta1);
        faults.share("inner.beta2", inner.beta2);
        faults.positive("inner.epsilon", inner.epsilon);
        faults.share("inner.weight_decay", inner.weight_decay);
        faults.positive("inner.clip", inner.clip);
        match (inner.optimizer, inner.momentum) {
            (Optimizer::Muon, Some(momentum)) => faults.share("inner.momentum", momentum),
            (Optimizer::Muon, None) => faults.0.push("inner.momentum must be there with optimizer = \"muon\"".into()),
            (Optimizer::AdamW, Some(_)) => {
                faults.0.push("inner.momentum is Muon's: remove it, or say optimizer = \"muon\"".into());
            }
            (Optimizer::AdamW, None) => {}
        }
        if let Some(rate) = &inner.embed_rate {
            faults.schedule("inner.embed_rate", rate, 0.0, 1.0, false);
        }
        // Below 2^-10 the rule that flushes subnormals could change a bit.
        faults.schedule("outer.rate", &outer.rate, 1.0 / 1024.0, 16.0, false);
        faults.share("outer.rho", outer.rho);
        faults.schedule("compress.k", &compress.k, 1.0, 4096.0, true);
        faults.share("compress.beta", compress.beta);
        // A chunk's worst encoding has some 1,300 bytes: 8,192 of them and 4 Mi elements fit into one response.
        faults.between("compress.shard_chunks", compress.shard_chunks, 1, 8192);
        faults.between("compress.state_elements", compress.state_elements, 1024, (BLOB_BYTES_MAX / 4) as u32);
        faults.between("compress.inline_max", compress.inline_max, 0, INLINE_MAX);
        if faults.0.is_empty() {
            self.check_announcement(faults);
        }
    }

    /// The largest announcement, with every shard just small enough to come along, must fit into a message.
    fn check_phases(&self, faults: &mut Faults) {
        let count = self.phases.len();
        faults.unless(count <= PHASES_MAX, || format!("phases: {count}; the limit is {PHASES_MAX}"));
        let rising = self.phases.iter().is_sorted_by(|a, b| a.from < b.from);
        faults.unless(rising && self.phases.first().is_none_or(|first| first.from > 0), || {
            "phases: each must begin in a later round than the one before, the first after round 0".into()
        });
        let some = self.phases.iter().all(|phase| phase.samples >= 1);
        faults.unless(some, || "phases: samples must be at least 1".into());
    }

    fn check_announcement(&self, faults: &mut Faults) {
        const SHARD_ENTRY_BYTES: u64 = 56;
        let shards = self.layout().shards(self.compress.shard_chunks as usize) as u64;
        let bytes = 512 + shards * (SHARD_ENTRY_BYTES + u64::from(self.compress.inline_max));
        faults.unless(bytes <= ANNOUNCEMENT_BYTES_MAX as u64, || {
            format!(
                "compress: {shards} shards of up to inline_max bytes make announcements of {bytes}; the limit is \
                 {ANNOUNCEMENT_BYTES_MAX}: raise shard_chunks or lower inline_max"
            )
        });
    }

    fn check_scoring(&self, faults: &mut Faults) {
        let scoring = &self.scoring;
        faults.between("scoring.sequences", scoring.sequences, 1, 1 << 16);
        faults.positive("scoring.rate", scoring.rate);
        faults.share("scoring.average", scoring.average);
        faults.share("scoring.share", scoring.share);
        faults.positive("scoring.power", scoring.power);
    }
}

impl Quantiser {
    /// The quantiser of that byte, if there is one.
    pub fn from_byte(byte: u32) -> Option<Quantiser> {
        let all = [Quantiser::Sign, Quantiser::TwoMagnitudes, Quantiser::Templar];
        all.into_iter().find(|quantiser| *quantiser as u32 == byte)
    }
}

struct Faults(Vec<String>);

impl Faults {
    fn unless(&mut self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.0.push(fault());
        }
    }
    fn between(&mut self, name: &str, value: u32, least: u32, most: u32) {
        self.unless((least..=most).contains(&value), || format!("{name} is {value}; it must be {least} to {most}"));
    }
    fn positive(&mut self, name: &str, value: f64) {
        self.unless(value > 0.0 && value < 1e12, || format!("{name} is {value}; it must be above 0 and below 1e12"));
    }
    fn share(&mut self, name: &str, value: f64) {
        // -0.0 would have two encodings: protobuf leaves a default out.
        let sane = (0.0..=1.0).contains(&value) && value.is_sign_positive();
        self.unless(sane, || format!("{name} is {value}; it must be 0 to 1"));
    }
    fn schedule(&mut self, name: &str, schedule: &Schedule, least: f64, most: f64, whole: bool) {
        if let Some(fault) = schedule.fault(least, most, whole) {
            self.0.push(format!("{name} {fault}"));
        }
    }
}

#[cfg(test)]
mod tests;
