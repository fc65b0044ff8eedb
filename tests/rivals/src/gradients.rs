//! Real pseudo-gradients: a small model trained for a few rounds on made-up English, with error feedback, so that
//! a = β·e + Δ looks as it does in a run.

use covey_proto::layout::Layout;
use covey_proto::run::{Model, Quantiser};
use covey_sparseloco::{Compression, ErrorFeedback};
use covey_trainer::cpu::CpuBackend;
use covey_trainer::data::synthetic;
use covey_trainer::genesis::initial_state;
use covey_trainer::{Backend, Batch, StepHyper};

/// The protocol's default.
pub const HOW: Compression = Compression { beta: 0.95, k: 64, quantiser: Quantiser::Sign, shard_chunks: 1024 };

const ROUNDS: usize = 8;
const STEPS: usize = 8;
const SEQUENCES: usize = 8;
const HYPER: StepHyper = StepHyper { rate: 2e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1, clip: 1.0 };

/// What one miner had before its last round's compression, and the model's layout.
pub struct Gradients {
    pub layout: Layout,
    /// e, after all rounds but the last.
    pub feedback: ErrorFeedback,
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
        seed: 1,
    };
    let documents = synthetic::documents(1, ROUNDS * STEPS * SEQUENCES * 130);
    let mut tokens = documents.iter().flat_map(|document| document.text.bytes().map(u32::from));
    let layout = Layout::of(&model);
    let mut backend = CpuBackend::new(&model);
    let mut theta = initial_state(&model);
    let mut feedback = ErrorFeedback::zero(&layout);
    for round in 1..=ROUNDS {
        backend.load(&theta).expect("the state is this model's");
        for _ in 0..STEPS {
            let tokens = tokens.by_ref().take(SEQUENCES * 129).collect();
            let batch = Batch::new(&model, tokens).expect("whole rows of bytes");
            backend.step(&batch, &HYPER).expect("a small model learns");
        }
        let mut trained = vec![0.0; theta.len()];
        backend.parameters(&mut trained).expect("as many as were loaded");
        let delta: Vec<f32> = theta.iter().zip(&trained).map(|(theta, trained)| theta - trained).collect();
        if round == ROUNDS {
            return Gradients { layout, feedback, delta };
        }
        let done = feedback.compress(&layout, &HOW, &delta).expect("the pseudo-gradient is finite");
        // Alone, the outer step is θ − what was sent: Δ and what e grew by.
        for ((theta, delta), (old, new)) in
            theta.iter_mut().zip(&delta).zip(feedback.elements().iter().zip(done.feedback.elements()))
        {
            *theta -= HOW.beta as f32 * old + delta - new;
        }
        feedback = done.feedback;
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
        let bytes = self.feedback.to_bytes().repeat(copies);
        let feedback = ErrorFeedback::from_bytes(&layout, &bytes).expect("copies of a feedback are one");
        Gradients { layout, feedback, delta: self.delta.repeat(copies) }
    }
}
