//! Models by name: the shapes that people speak of, to be described or trained.

use crate::preset::{PRESETS, Template};
use covey_proto::Digest;
use covey_proto::run::{Chain, Data, Model, RopeScaling, Run};

/// A model's shape under a name.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub whose: &'static str,
    /// The numbers.
    pub model: Model,
}

/// What is the same in all of them.
const LLAMA: Model = Model {
    vocabulary: 32_000,
    width: 1024,
    layers: 12,
    heads: 16,
    kv_heads: 16,
    feed_forward: 2816,
    sequence: 2048,
    rope_theta: 10_000.0,
    norm_epsilon: 1e-5,
    tied: false,
    seed: None,
    head: None,
    rope_scaling: None,
};

/// All of them: those of other projects, then the presets'.
pub fn shapes() -> Vec<Shape> {
    let shape = |name: &str, whose, model| Shape { name: name.to_owned(), whose, model };
    let mut all = vec![
        // arXiv 2603.08163, section 3: 72,747,327,488 parameters, which is without tying.
        shape(
            "covenant-72b",
            "Covenant's, untied",
            Model {
                vocabulary: 262_144,
                width: 8192,
                layers: 80,
                heads: 64,
                kv_heads: 8,
                feed_forward: 28_672,
                rope_theta: 500_000.0,
                ..LLAMA
            },
        ),
        // Templar's hparams/1B.json and 150M.json.
        shape(
            "templar-1b",
            "Templar's",
            Model { width: 2048, layers: 16, heads: 8, kv_heads: 8, feed_forward: 8192, ..LLAMA },
        ),
        shape("templar-150m", "Templar's", LLAMA),
        // What fits a card of 80 GB with its optimizer.
        shape(
            "llama-3.2-1b",
            "Meta's",
            Model {
                vocabulary: 128_256,
                width: 2048,
                layers: 16,
                heads: 32,
                kv_heads: 8,
                feed_forward: 8192,
                rope_theta: 500_000.0,
                tied: true,
                rope_scaling: Some(RopeScaling {
                    factor: 32.0,
                    low_frequency_factor: 1.0,
                    high_frequency_factor: 4.0,
                    original_sequence: 8192,
                }),
                ..LLAMA
            },
        ),
        shape(
            "smollm2-135m",
            "Hugging Face's",
            Model {
                vocabulary: 49_152,
                width: 576,
                layers: 30,
                heads: 9,
                kv_heads: 3,
                feed_forward: 1536,
                rope_theta: 100_000.0,
                tied: true,
                ..LLAMA
            },
        ),
    ];
    all.extend(PRESETS.iter().filter_map(|(name, ..)| {
        let run = of_preset(name)?;
        Some(Shape { name: (*name).to_owned(), whose: "this program's preset", model: run.model })
    }));
    all
}

/// The shape of that name.
pub fn shape(name: &str) -> Option<Shape> {
    shapes().into_iter().find(|shape| shape.name == name)
}

/// A preset as a run on no chain, with data of a million sequences.
pub fn of_preset(name: &str) -> Option<Run> {
    let chain = Chain { genesis: Digest::ZERO, netuid: 0, start: 1 << 20, genesis_state: Digest::ZERO };
    Template::load(name).ok()?.resolve(&chain, &Data { digest: Digest::ZERO, samples: 1_000_000 }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use covey_proto::layout::Layout;

    #[test]
    fn the_shapes_have_the_parameters_that_their_makers_state() {
        for (name, parameters) in
            [("covenant-72b", 72_747_327_488), ("smollm2-135m", 134_515_008), ("llama-3.2-1b", 1_235_814_400)]
        {
            let shape = shape(name).unwrap();
            assert_eq!(Layout::of(&shape.model).elements(), parameters, "{name}");
        }
        // Apart from its embeddings, as Templar counts.
        let templar = Layout::of(&shape("templar-1b").unwrap().model).elements() - 2 * 32_000 * 2048;
        assert!((templar as f64 / 1.07e9 - 1.0).abs() < 0.01, "{templar}");
        assert!(shape("demo").is_some() && shape("nobody's").is_none());
    }
}
