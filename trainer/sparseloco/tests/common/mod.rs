//! Inputs that are the same on every machine: made of BLAKE3's stream and integers, without a mathematical library.

use covey_proto::layout::Layout;
use covey_sparseloco::{CompressError, CompressStats, Compression, compress, state};

/// Numbers of many magnitudes, symmetric about zero, from a seed.
pub(crate) fn noise(seed: u64, elements: usize) -> Vec<f32> {
    let mut bytes = vec![0; elements * 4];
    covey_proto::derive("covey/test/noise", &[&seed.to_le_bytes()]).fill(&mut bytes);
    let number = |low: u8, high: u8| f32::from(i16::from_le_bytes([low, high])) / 32768.0;
    bytes.chunks_exact(4).map(|four| number(four[0], four[1]) * number(four[2], four[3])).collect()
}

/// A layout of tensors `t00`, `t01`, ….
pub(crate) fn layout(shapes: &[&[usize]]) -> Layout {
    Layout::new(shapes.iter().enumerate().map(|(at, shape)| (format!("t{at:02}"), shape.to_vec())).collect())
}

/// A miner's error feedback, and what becomes of it by compressing: for tests that think in pseudo-gradients.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ErrorFeedback(Vec<f32>);

/// What compression gives.
pub(crate) struct Compressed {
    pub(crate) feedback: ErrorFeedback,
    pub(crate) shards: Vec<Vec<u8>>,
    // Not every test binary looks at it.
    #[allow(dead_code)]
    pub(crate) stats: CompressStats,
}

impl ErrorFeedback {
    pub(crate) fn zero(layout: &Layout) -> ErrorFeedback {
        ErrorFeedback(vec![0.0; layout.elements()])
    }

    #[allow(dead_code)]
    pub(crate) fn elements(&self) -> &[f32] {
        &self.0
    }

    #[allow(dead_code)]
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        state::as_le_bytes(&self.0).to_vec()
    }

    /// Compresses `delta` on one thread.
    pub(crate) fn compress(
        &self,
        layout: &Layout,
        how: &Compression,
        delta: &[f32],
    ) -> Result<Compressed, CompressError> {
        self.compress_on(1, layout, how, delta)
    }

    /// Compresses `delta`: the base, as if everything had been learned away to zero.
    pub(crate) fn compress_on(
        &self,
        threads: usize,
        layout: &Layout,
        how: &Compression,
        delta: &[f32],
    ) -> Result<Compressed, CompressError> {
        let mut trained = vec![0.0; delta.len()];
        let done = compress(threads, layout, how, delta, &self.0, &mut trained)?;
        Ok(Compressed { feedback: ErrorFeedback(trained), shards: done.shards, stats: done.stats })
    }
}
