//! What a swarm leaves for people: `summary.json` and `report.html`.

pub(crate) mod html;
pub mod units;
pub mod usage;

pub use html::html;
pub use usage::RoleUsage;

use crate::observe::Usage;

use covey_proto::{Digest, Round, RunId, Uid};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// All that a swarm has measured of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Rounds that every live node has applied.
    pub rounds: u32,
    /// The seed of keys, genesis and data order.
    pub seed: u64,
    /// The run's name.
    pub run_id: RunId,
    /// The preset it came from.
    pub preset: String,
    /// The data set's name.
    pub data: String,
    /// Parameters of the model.
    pub parameters: u64,
    /// The state root after each round, from round 0.
    pub state_roots: Vec<Digest>,
    /// Whether every node had the same root in every round.
    pub roots_agree: bool,
    /// Nodes that had another root, by round.
    pub disagreements: Vec<Disagreement>,
    /// Rounds in which nothing was selected, with the reason.
    pub void_rounds: Vec<VoidRound>,
    /// Uids whose contributions were applied, by round.
    pub selected: Vec<Vec<Uid>>,
    /// Uids whose contributions were committed in time, by round.
    pub offered: Vec<Vec<Uid>>,
    /// Loss on held-out documents before round 0 and after each round, nats a token: `rounds + 1` values, estimated on
    /// [`Summary::heldout_sequences`] sequences.
    #[serde(deserialize_with = "numbers")]
    pub heldout_loss: Vec<f64>,
    /// Sequences behind each value of [`Summary::heldout_loss`].
    pub heldout_sequences: u64,
    /// Loss on held-out text after the last round, nats a token, over [`Summary::heldout_sequences_final`] sequences.
    #[serde(deserialize_with = "number")]
    pub heldout_loss_final: f64,
    /// Sequences behind [`Summary::heldout_loss_final`]: as many as there are and time allows. 0 if it is not known.
    #[serde(default)]
    pub heldout_sequences_final: u64,
    /// The same in bits a byte of text.
    #[serde(deserialize_with = "number")]
    pub bits_per_byte: f64,
    /// What simpler models need, bits a byte of held-out text.
    pub baselines: Baselines,
    /// What the same model reaches from the same data in other ways, where that is known.
    #[serde(default)]
    pub references: Option<References>,
    /// Tokens that all miners trained on.
    pub tokens: u64,
    /// Stake-weighted mean of the validators' weights, by uid; sums to 1.
    pub weights: BTreeMap<Uid, f64>,
    /// The same after each round.
    pub weights_by_round: Vec<BTreeMap<Uid, f64>>,
    /// Miners that were told to misbehave, and how.
    pub misbehaving: BTreeMap<Uid, String>,
    /// Bytes by kind, sums over nodes.
    pub bytes: BTreeMap<String, u64>,
    /// Seconds by phase: work summed over nodes and threads.
    pub seconds: BTreeMap<String, f64>,
    /// From the first block to the last round, seconds.
    pub wall_seconds: f64,
    /// Cores that work was spread over.
    pub cores: usize,
    /// When each round was applied by the first node, seconds since the start.
    pub round_ends: Vec<f64>,
    /// The nodes.
    pub nodes: Vec<NodeSummary>,
    /// What each role has cost its machine. Empty in the summary of an older version.
    #[serde(default)]
    pub usage: Vec<RoleUsage>,
    /// Whether it was stopped before its last round.
    pub interrupted: bool,
}

/// What the same model reaches from the same data in other ways: measured before, for just these numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct References {
    /// What measures them again.
    pub command: String,
    /// The best first.
    pub reached: Vec<Reference>,
}

/// One other way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// How it was trained.
    pub name: String,
    /// Loss on held-out text, nats a token: mean over the seeds that were measured.
    pub loss: f64,
    /// The same in bits a byte of text.
    pub bits_per_byte: f64,
}

/// One node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeSummary {
    /// `miner-0`, `validator-0`, `seeder-0`, …
    pub name: String,
    /// `miner`, `validator` or `seeder`.
    pub role: String,
    /// Its uid; none of a seeder.
    pub uid: Option<Uid>,
    /// Rounds in which a contribution of it was selected.
    pub rounds_contributed: u32,
    /// Rounds in which it was killed.
    pub killed: Vec<Round>,
    /// The round in which it came, if not at the start.
    pub joined: Option<Round>,
    /// Tokens trained on.
    pub tokens: u64,
    /// Bytes by kind.
    pub bytes: BTreeMap<String, u64>,
    /// Seconds by phase.
    pub seconds: BTreeMap<String, f64>,
    /// What its processes have cost the machine.
    #[serde(default)]
    pub usage: Usage,
}

/// A node whose root was another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Disagreement {
    /// The round.
    pub round: Round,
    /// The node.
    pub node: String,
    /// Its root.
    pub root: Digest,
}

/// A round in which nothing was selected.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VoidRound {
    /// The round.
    pub round: Round,
    /// Why.
    pub reason: String,
}

/// What simpler models need, bits a byte of held-out text.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Baselines {
    /// Token frequencies.
    #[serde(deserialize_with = "number")]
    pub unigram: f64,
    /// Interpolated token pairs.
    #[serde(deserialize_with = "number")]
    pub bigram: f64,
}

impl Summary {
    /// As JSON, for programs.
    pub fn to_json(&self) -> String {
        // Numbers, texts and lists; maps are keyed by numbers and texts.
        serde_json::to_string_pretty(self).expect("a summary has a JSON form")
    }

    /// Reads what [`Summary::to_json`] wrote.
    ///
    /// # Errors
    /// It is no summary, or one of another version; the error says where.
    pub fn from_json(text: &str) -> Result<Summary, serde_json::Error> {
        serde_json::from_str(text)
    }
}

/// JSON has no NaN and says `null`.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

fn numbers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
    let numbers: Vec<Option<f64>> = Vec::deserialize(from)?;
    Ok(numbers.into_iter().map(|number| number.unwrap_or(f64::NAN)).collect())
}

#[cfg(test)]
mod tests {
    use super::html::sample;
    use super::*;

    #[test]
    fn a_summary_reads_back_and_so_does_one_of_an_older_version() {
        let summary = sample::diverged();
        let read = Summary::from_json(&summary.to_json()).unwrap();
        assert!(read.heldout_loss_final.is_nan(), "JSON has no word for it");
        assert_eq!((read.state_roots, read.selected), (summary.state_roots.clone(), summary.selected.clone()));
        assert_eq!(read.usage[0].memory_peak, summary.usage[0].memory_peak);
        let mut old: serde_json::Value = serde_json::from_str(&summary.to_json()).unwrap();
        let fields = old.as_object_mut().unwrap();
        assert!(fields.remove("usage").is_some() && fields.remove("heldout_sequences_final").is_some());
        for node in fields["nodes"].as_array_mut().unwrap() {
            node.as_object_mut().unwrap().remove("usage");
        }
        let read = Summary::from_json(&old.to_string()).unwrap();
        assert_eq!((read.usage.len(), read.heldout_sequences_final), (0, 0));
        assert_eq!(read.nodes[0].usage, Usage::default());
    }

    #[test]
    fn what_is_no_summary_is_said_to_lack_something() {
        let error = Summary::from_json("{\"rounds\": 3}").unwrap_err().to_string();
        assert!(error.contains("missing field"), "{error}");
    }
}
