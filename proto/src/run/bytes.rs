//! A run as its canonical bytes' message, and back. Which numbers can be is checked by [`Run::checked`]; that a message has
//! one form, here: what goes without saying is not said.

use super::{
    Beacon, Chain, Clock, Compress, Data, Electorate, Inner, Model, Optimizer, Outer, Phase, Quantiser, RopeScaling,
    Run, Scoring,
};
use crate::Digest;
use crate::canonical::{digest, flag, need};
use crate::error::DecodeError;
use crate::schedule::Schedule;
use crate::wire;

impl Run {
    pub(super) fn to_wire(&self) -> wire::Run {
        let Run { chain, clock, electorate, model, data, inner, outer, compress, scoring, phases } = self;
        let data_to_wire = |digest: &Digest, samples| wire::Data { digest: digest.as_bytes().to_vec(), samples };
        wire::Run {
            genesis: chain.genesis.as_bytes().to_vec(),
            netuid: chain.netuid.into(),
            start: chain.start,
            genesis_state: chain.genesis_state.as_bytes().to_vec(),
            clock: Some(wire::Clock {
                length: clock.length,
                anchor: clock.anchor,
                commit: clock.commit,
                vote: clock.vote,
                commit_margin: clock.commit_margin,
                announce_margin: clock.announce_margin,
                vote_margin: clock.vote_margin,
                beacon: (clock.beacon == Beacon::Seed).into(),
            }),
            electorate: Some(wire::Electorate {
                window: electorate.window,
                contributions_max: electorate.contributions_max,
                contributions_min: electorate.contributions_min,
                stake_min: electorate.stake_min,
                electorate_min: electorate.electorate_min,
                checkpoint: electorate.checkpoint,
            }),
            model: Some(wire::Model {
                vocabulary: model.vocabulary,
                width: model.width,
                layers: model.layers,
                heads: model.heads,
                kv_heads: model.kv_heads,
                feed_forward: model.feed_forward,
                sequence: model.sequence,
                rope_theta: model.rope_theta,
                norm_epsilon: model.norm_epsilon,
                tied: model.tied.into(),
                seed: model.seed.unwrap_or(0),
                head: model.head.unwrap_or(0),
                rope_scaling: model.rope_scaling.map(|scaling| wire::RopeScaling {
                    factor: scaling.factor,
                    low_frequency_factor: scaling.low_frequency_factor,
                    high_frequency_factor: scaling.high_frequency_factor,
                    original_sequence: scaling.original_sequence,
                }),
                given: model.seed.is_none().into(),
            }),
            data: Some(data_to_wire(&data.digest, data.samples)),
            inner: Some(wire::Inner {
                steps: inner.steps.to_wire(),
                batch: inner.batch,
                rate: inner.rate.to_wire(),
                warmup_steps: inner.warmup_steps,
                beta1: inner.beta1,
                beta2: inner.beta2,
                epsilon: inner.epsilon,
                weight_decay: inner.weight_decay,
                clip: inner.clip,
                steps_min: inner.steps_min,
                optimizer: inner.optimizer as u32,
                momentum: inner.momentum.unwrap_or(0.0),
                embed_rate: inner.embed_rate.as_ref().map_or_else(Vec::new, Schedule::to_wire),
            }),
            outer: Some(wire::Outer { rate: outer.rate.to_wire(), rho: outer.rho }),
            compress: Some(wire::Compress {
                k: compress.k.to_wire(),
                beta: compress.beta,
                quantiser: compress.quantiser as u32,
                shard_chunks: compress.shard_chunks,
                state_elements: compress.state_elements,
                inline_max: compress.inline_max,
            }),
            scoring: Some(wire::Scoring {
                sequences: scoring.sequences,
                rate: scoring.rate,
                average: scoring.average,
                share: scoring.share,
                power: scoring.power,
            }),
            phases: phases
                .iter()
                .map(|phase| wire::Phase { from: phase.from, data: Some(data_to_wire(&phase.digest, phase.samples)) })
                .collect(),
        }
    }

    pub(super) fn from_wire(wire: wire::Run) -> Result<Run, DecodeError> {
        let clock = need(wire.clock, "clock")?;
        let electorate = need(wire.electorate, "electorate")?;
        let model = need(wire.model, "model")?;
        let data = need(wire.data, "data")?;
        let inner = need(wire.inner, "inner")?;
        let outer = need(wire.outer, "outer")?;
        let compress = need(wire.compress, "compress")?;
        let scoring = need(wire.scoring, "scoring")?;
        let optimizer = Optimizer::from_number(inner.optimizer).ok_or(DecodeError::Field("optimizer"))?;
        Ok(Run {
            chain: Chain {
                genesis: digest(&wire.genesis, "genesis")?,
                netuid: u16::try_from(wire.netuid).map_err(|_| DecodeError::Field("netuid"))?,
                start: wire.start,
                genesis_state: digest(&wire.genesis_state, "genesis_state")?,
            },
            clock: Clock {
                length: clock.length,
                anchor: clock.anchor,
                commit: clock.commit,
                vote: clock.vote,
                commit_margin: clock.commit_margin,
                announce_margin: clock.announce_margin,
                vote_margin: clock.vote_margin,
                beacon: if flag(clock.beacon, "beacon")? { Beacon::Seed } else { Beacon::Chain },
            },
            electorate: Electorate {
                window: electorate.window,
                contributions_max: electorate.contributions_max,
                contributions_min: electorate.contributions_min,
                stake_min: electorate.stake_min,
                electorate_min: electorate.electorate_min,
                checkpoint: electorate.checkpoint,
            },
            model: model_from_wire(model)?,
            data: data_from_wire(&data)?,
            inner: Inner {
                steps: Schedule::from_wire(inner.steps, "inner.steps")?,
                batch: inner.batch,
                rate: Schedule::from_wire(inner.rate, "inner.rate")?,
                warmup_steps: inner.warmup_steps,
                beta1: inner.beta1,
                beta2: inner.beta2,
                epsilon: inner.epsilon,
                weight_decay: inner.weight_decay,
                clip: inner.clip,
                steps_min: inner.steps_min,
                optimizer,
                momentum: (optimizer == Optimizer::Muon || inner.momentum != 0.0).then_some(inner.momentum),
                embed_rate: match inner.embed_rate {
                    points if points.is_empty() => None,
                    points => Some(Schedule::from_wire(points, "inner.embed_rate")?),
                },
            },
            outer: Outer { rate: Schedule::from_wire(outer.rate, "outer.rate")?, rho: outer.rho },
            compress: Compress {
                k: Schedule::from_wire(compress.k, "compress.k")?,
                beta: compress.beta,
                quantiser: Quantiser::from_byte(compress.quantiser).ok_or(DecodeError::Field("quantiser"))?,
                shard_chunks: compress.shard_chunks,
                state_elements: compress.state_elements,
                inline_max: compress.inline_max,
            },
            scoring: Scoring {
                sequences: scoring.sequences,
                rate: scoring.rate,
                average: scoring.average,
                share: scoring.share,
                power: scoring.power,
            },
            phases: wire.phases.into_iter().map(phase_from_wire).collect::<Result<_, _>>()?,
        })
    }
}

fn data_from_wire(data: &wire::Data) -> Result<Data, DecodeError> {
    Ok(Data { digest: digest(&data.digest, "data.digest")?, samples: data.samples })
}

fn phase_from_wire(phase: wire::Phase) -> Result<Phase, DecodeError> {
    let Data { digest, samples } = data_from_wire(&need(phase.data, "phase.data")?)?;
    Ok(Phase { from: phase.from, digest, samples })
}

/// What goes without saying is not said, so that a run has one form.
fn model_from_wire(model: wire::Model) -> Result<Model, DecodeError> {
    let given = flag(model.given, "given")?;
    if given && model.seed != 0 {
        return Err(DecodeError::Field("seed"));
    }
    if model.head != 0 && Some(model.head) == model.width.checked_div(model.heads) {
        return Err(DecodeError::Field("head"));
    }
    Ok(Model {
        vocabulary: model.vocabulary,
        width: model.width,
        layers: model.layers,
        heads: model.heads,
        kv_heads: model.kv_heads,
        feed_forward: model.feed_forward,
        sequence: model.sequence,
        rope_theta: model.rope_theta,
        norm_epsilon: model.norm_epsilon,
        tied: flag(model.tied, "tied")?,
        seed: (!given).then_some(model.seed),
        head: (model.head != 0).then_some(model.head),
        rope_scaling: model.rope_scaling.map(|scaling| RopeScaling {
            factor: scaling.factor,
            low_frequency_factor: scaling.low_frequency_factor,
            high_frequency_factor: scaling.high_frequency_factor,
            original_sequence: scaling.original_sequence,
        }),
    })
}
