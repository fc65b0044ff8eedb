//! Real pseudo-gradients: a small model trained for a few rounds on made-up English, with error feedback, so that
//! a = β·e + Δ looks as it does in a run.

use covey_proto::layout::Layout;
use covey_proto::run::{Model, Optimizer, Quantiser};
use covey_sparseloco::Compression;
use covey_sparseloco::state::{as_le_bytes, as_le_bytes_mut};
use covey_trainer::data::synthetic;
use covey_trainer::genesis::initial_state;
use covey_trainer::{Batch, Device, StepHyper, open_backend};

/// The protocol's default.
pub const HOW: Compression = Compression { beta: 0.95, k: 64, quantiser: Quantiser::Sign, shard_chunks: 1024 };

const ROUNDS: usize = 8;
const STEPS: usize = 8;
const SEQUENCES: usize = 8;
const HYPER: StepHyper = StepHyper {
    rate: 2e-3,
    embed_rate: 2e-3,
    momentum: 0.0,
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-8,
    weight_decay: 0.1,
    clip: 1.0,
};

/// What one miner had before its last round's compression, and the model's layout.
pub struct Gradients {
    pub layout: Layout,
    /// e, after all rounds but the last.
    pub feedback: Vec<f32>,
    /// Δ of the last round.
    pub delta: Vec<f32>,
}

/// Trains. Bytes are tokens: the model is small, its text too.
pub fn train() -> Gradients {
    let model = Model {
        vocabulary: 256,
        width: 256,
        layers: 4,
        heads: 4,
        kv_heads: 2,
        feed_forward: 768,
        sequence: 128,
        rope_theta: 10_000.0,
        norm_epsilon: 1e-5,
        tied: true,
        seed: Some(1),
        head: None,
        rope_scaling: None,
    };
    let documents = synthetic::documents(1, ROUNDS * STEPS * SEQUENCES * 130);
    let mut tokens = documents.iter().flat_map(|document| document.text.bytes().map(u32::from));
    let layout = Layout::of(&model);
    let backend = open_backend(&Device::Cpu { threads: 1 }, &model).expect("a model that can be");
    let mut trainer = backend.trainer(Optimizer::AdamW).expect("there is room");
    let mut theta = initial_state(&model).expect("it has a seed");
    let mut feedback = vec![0.0; theta.len()];
    for round in 1..=ROUNDS {
        trainer.load(&mut as_le_bytes(&theta)).expect("the state is this model's");
        for _ in 0..STEPS {
            let tokens = tokens.by_ref().take(SEQUENCES * 129).collect();
            let batch = Batch::new(&model, tokens).expect("whole rows of bytes");
            trainer.step(&batch, &HYPER).expect("a small model learns");
        }
        let mut trained = vec![0.0; theta.len()];
        trainer.save(&mut as_le_bytes_mut(&mut trained)).expect("as many as were loaded");
        let delta: Vec<f32> = theta.iter().zip(&trained).map(|(theta, trained)| theta - trained).collect();
        if round == ROUNDS {
            return Gradients { layout, feedback, delta };
        }
        trainer.contribute(&theta, &HOW).expect("the pseudo-gradient is finite");
        trainer.keep_feedback();
        let old = feedback.clone();
        trainer.save_feedback(&mut as_le_bytes_mut(&mut feedback)).expect("as many as were loaded");
        // Alone, the outer step is θ − what was sent: Δ and what e grew by.
        for ((theta, delta), (old, new)) in theta.iter_mut().zip(&delta).zip(old.iter().zip(&feedback)) {
            *theta -= HOW.beta as f32 * old + delta - new;
        }
    }
    unreachable!("the last round returns")
}

impl Gradients {
    /// The same many times over: `copies` models beside one another.
    pub fn tiled(&self, copies: usize) -> Gradients {
        let tensors = |copy: usize| {
            let name = move |name: &str| format!("{copy:04}.{name}");
            self.layout.tensors().iter().map(move |tensor| (name(&tensor.name), tensor.shape.clone()))
        };
        let layout = Layout::new((0..copies).flat_map(tensors).collect());
        Gradients { layout, feedback: self.feedback.repeat(copies), delta: self.delta.repeat(copies) }
    }
}
