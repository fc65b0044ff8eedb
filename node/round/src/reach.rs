//! How far one round can move a tensor, whoever is selected: [`REACH_STEPS`] times as far as the inner optimizer's own steps.
//!
//! A contribution's tensors are scaled down to the lower median of the selected (docs/protocol.md, 15). Whoever is in the
//! majority sets that median, as newcomers may where nobody is admitted yet; beyond the reach it leads nobody. Honest
//! contributions are far below it: a step of AdamW moves a coordinate by about its rate at most, a step of Muon a matrix by 0.2
//! of it on average, and steps seldom point the same way.

use covey_proto::Round;
use covey_proto::layout::{Layout, Tensor};
use covey_proto::run::{Optimizer, Run};

/// What error feedback may add to a round's own steps: values that waited are sent together. It cannot be 1, or an honest
/// contribution with few values would be cut; 4 is above all that were seen.
const REACH_STEPS: f64 = 4.0;
/// A Muon step's root mean square in rates (docs/protocol.md, 9).
const MUON_SCALE: f64 = 0.2;

/// The largest norm that each tensor of a contribution of `round` counts with, in the layout's order: 4·H·η·√n for n elements,
/// with η the larger learning rate of the round's two ends, the embedding's where that is the tensor's, and 0.2 of it for a
/// matrix that Muon trains.
pub fn reach(run: &Run, layout: &Layout, round: Round) -> Vec<f64> {
    let steps = run.inner.steps.count(round) as f64;
    let (from, to) = (f64::from(round.0), f64::from(round.0) + 1.0);
    let rate = run.inner.rate.linear(from).max(run.inner.rate.linear(to));
    let embed_rate = run.inner.embed_rate.as_ref().map_or(rate, |by| by.linear(from).max(by.linear(to)));
    let of = |tensor: &Tensor| {
        let is_ends = ["model.embed_tokens.weight", "lm_head.weight"].contains(&tensor.name.as_str());
        let is_matrix = tensor.shape.len() == 2 && !is_ends;
        let a_step = match run.inner.optimizer {
            Optimizer::Muon if is_matrix => MUON_SCALE * rate,
            Optimizer::AdamW if !is_ends => rate,
            _ => embed_rate,
        };
        REACH_STEPS * steps * a_step * (tensor.elements() as f64).sqrt()
    };
    layout.tensors().iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use covey_proto::schedule::Schedule;

    #[test]
    fn each_tensor_reaches_as_far_as_its_own_steps() {
        let mut run = Run::from_toml(include_str!("test_run.toml")).unwrap();
        run.inner.rate = Schedule::points(vec![(0, 0.02), (10, 0.01)]);
        run.inner.embed_rate = Some(Schedule::constant(0.05));
        let layout = run.layout();
        let steps = run.inner.steps.count(Round(2)) as f64;
        let of = |run: &Run, name: &str| {
            let place = layout.tensors().iter().position(|tensor| tensor.name == name).unwrap();
            let elements = layout.tensors()[place].elements() as f64;
            (reach(run, &layout, Round(2))[place] / elements.sqrt() / steps * 1e6).round() / 1e6
        };
        let names = ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight"];
        run.inner.optimizer = Optimizer::AdamW;
        assert_eq!(names.map(|name| of(&run, name)), [0.2, 0.072, 0.072]);
        run.inner.optimizer = Optimizer::Muon;
        assert_eq!(names.map(|name| of(&run, name)), [0.2, 0.0144, 0.2]);
        run.inner.embed_rate = None;
        assert_eq!(names.map(|name| of(&run, name)), [0.072, 0.0144, 0.072]);
    }
}
