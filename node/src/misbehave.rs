//! Miners that do not play by the rules, so that a swarm can show what it does about them.

use covey_proto::layout::Layout;
use covey_proto::{Round, Uid, derive};
use covey_round::engine::Task;
use covey_sparseloco::state::as_le_bytes;
use covey_trainer::{LoadError, SaveError, Trainer};
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// What a miner does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Misbehaviour {
    /// Sends noise whose norm is, tensor by tensor, an honest update's.
    Noise,
    /// Sends its update with the sign turned round.
    Flip,
    /// Commits to shards that do not decode.
    Corrupt,
    /// Announces its shards and keeps those that do not travel inside the message to itself.
    Withhold,
    /// Has a bit of its state turned in one round, as faulty memory does: no cheat, but it must notice.
    Drift,
}

/// The round in which a drifting node's state goes wrong.
pub const DRIFT_ROUND: Round = Round(2);

impl Misbehaviour {
    /// All of them.
    pub const ALL: [Misbehaviour; 5] =
        [Misbehaviour::Noise, Misbehaviour::Flip, Misbehaviour::Corrupt, Misbehaviour::Withhold, Misbehaviour::Drift];
}

impl fmt::Display for Misbehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Misbehaviour::Noise => "noise",
            Misbehaviour::Flip => "flip",
            Misbehaviour::Corrupt => "corrupt",
            Misbehaviour::Withhold => "withhold",
            Misbehaviour::Drift => "drift",
        })
    }
}

impl FromStr for Misbehaviour {
    type Err = String;
    fn from_str(text: &str) -> Result<Misbehaviour, String> {
        Misbehaviour::ALL.into_iter().find(|kind| kind.to_string() == text).ok_or_else(|| {
            let known = Misbehaviour::ALL.map(|kind| kind.to_string()).join(", ");
            format!("no misbehaviour {text:?}; there are {known}")
        })
    }
}

/// A cheat that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum DisguiseError {
    /// What was learned cannot be read.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// What is pretended cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// Makes the trainer's parameters what an honest miner's would be had it found what this one pretends to have found.
///
/// # Errors
/// The device refuses.
pub fn disguise(
    kind: Misbehaviour,
    layout: &Layout,
    task: &Task,
    theta: &[f32],
    trainer: &mut dyn Trainer,
) -> Result<(), DisguiseError> {
    if !matches!(kind, Misbehaviour::Noise | Misbehaviour::Flip) {
        return Ok(());
    }
    let mut values = vec![0.0f32; theta.len()];
    trainer.save(&mut bytemuck::cast_slice_mut::<f32, u8>(&mut values))?;
    // θ − trained, and back again: what is taken from θ is the pseudo-gradient.
    let turn = |values: &mut [f32]| values.iter_mut().zip(theta).for_each(|(value, theta)| *value = theta - *value);
    turn(&mut values);
    pretend(kind, layout, task, &mut values);
    turn(&mut values);
    Ok(trainer.load(&mut as_le_bytes(&values))?)
}

/// Changes an honest pseudo-gradient into what the miner pretends to have found.
fn pretend(kind: Misbehaviour, layout: &Layout, task: &Task, delta: &mut [f32]) {
    match kind {
        Misbehaviour::Noise => {
            for tensor in layout.tensors() {
                let seed = task.assignment.seed();
                let parts = [seed.as_bytes().as_slice(), &uid_bytes(task.member.uid), tensor.name.as_bytes()];
                let mut stream = derive("covey/1/noise", &parts);
                replace_by_noise(&mut delta[tensor.range()], &mut stream);
            }
        }
        Misbehaviour::Flip => delta.iter_mut().for_each(|value| *value = -*value),
        Misbehaviour::Corrupt | Misbehaviour::Withhold | Misbehaviour::Drift => {}
    }
}

fn uid_bytes(uid: Uid) -> [u8; 4] {
    uid.number().to_le_bytes()
}

/// Noise, nearly normal (a sum of four uniform bytes' worth), with the norm of what was there.
fn replace_by_noise(values: &mut [f32], stream: &mut blake3::OutputReader) {
    let norm = |values: &[f32]| values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    let wanted = norm(values);
    let mut bytes = [0; 8];
    for value in values.iter_mut() {
        stream.fill(&mut bytes);
        let uniform = |pair: [u8; 2]| f32::from(u16::from_le_bytes(pair)) / 65536.0 - 0.5;
        let [a, b, c, d, e, f, g, h] = bytes;
        *value = uniform([a, b]) + uniform([c, d]) + uniform([e, f]) + uniform([g, h]);
    }
    let scale = (wanted / norm(values).max(f64::MIN_POSITIVE)) as f32;
    values.iter_mut().for_each(|value| *value *= scale);
}

/// Changes shards on their way out.
pub fn damage(kind: Misbehaviour, shards: &mut [Vec<u8>]) {
    if kind == Misbehaviour::Corrupt
        && let Some(shard) = shards.last_mut()
    {
        // A trailing byte: the hash is right, the encoding is nobody's.
        shard.push(0);
    }
}

/// Turns a bit of a state on its way to memory.
pub fn drift(kind: Misbehaviour, round: Round, parameters: &mut [f32]) {
    if (kind, round) == (Misbehaviour::Drift, DRIFT_ROUND)
        && let Some(first) = parameters.first_mut()
    {
        *first = f32::from_bits(first.to_bits() ^ 1);
    }
}

/// The shards that the miner really stores.
pub fn kept(kind: Option<Misbehaviour>, shards: &[Vec<u8>], inline_max: u32) -> Vec<&[u8]> {
    let half = shards.len() / 2;
    let withholds = kind == Some(Misbehaviour::Withhold);
    let is_kept =
        |(number, shard): &(usize, &Vec<u8>)| !withholds || *number < half || shard.len() <= inline_max as usize;
    shards.iter().enumerate().filter(is_kept).map(|(_, shard)| shard.as_slice()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_the_norm_of_what_it_replaces() {
        let mut values: Vec<f32> = (0..1000).map(|i| (i as f32 - 500.0) / 100.0).collect();
        let norm = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>().sqrt();
        let before = norm(&values);
        replace_by_noise(&mut values, &mut derive("test", &[]));
        assert!((norm(&values) / before - 1.0).abs() < 1e-3);
    }

    #[test]
    fn every_kind_has_a_name() {
        for kind in Misbehaviour::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert!("nonsense".parse::<Misbehaviour>().unwrap_err().contains("noise, flip"));
    }
}
