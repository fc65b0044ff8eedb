//! Initial weights that everyone computes alike, to the bit, with no Gaussian and no libm.
//!
//! A norm's weights are 1. For every matrix:
//! 1. The stream is BLAKE3's derive-key mode under the context `covey/1/init` over the seed (u64, eight bytes,
//!    little-endian) and the tensor's name (UTF-8), extended without end.
//! 2. Each element, in row-major order, takes the stream's next eight bytes as four little-endian u16 a, b, c, d and
//!    becomes the integer s = a + b + c + d − 131,070: symmetric about 0, standard deviation √((2³² − 1)/3), within ±131,070,
//!    so exact in f32.
//! 3. Its value is f32(s) × f32(factor), one f32 multiplication. The factor is computed in f64 as
//!    0.02 ÷ √(4,294,967,295 ÷ 3), and for `o_proj` and `down_proj` divided by √(2·layers), which keeps the residual
//!    stream's variance from growing with depth. Only ÷ and √, both exactly rounded by IEEE 754.
//!
//! So matrices have standard deviation 0.02 and a bell shape (four uniform addends), zero is +0, and nothing is subnormal.

use covey_proto::derive;
use covey_proto::layout::Layout;
use covey_proto::run::Model;

/// Context of the stream of initial weights.
const CONTEXT: &str = "covey/1/init";
/// Standard deviation of a matrix's weights.
const DEVIATION: f64 = 0.02;
/// Elements drawn from the stream at a time.
const DRAWN: usize = 1024;

/// A model whose first state is not drawn but given: a run that began with a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the first state is not drawn (model.seed is absent): it is a checkpoint's, named by chain.genesis_state")]
pub struct NotDrawn;

/// The initial state of `model`, flat, in the order of its layout.
///
/// # Errors
/// The model has no seed.
pub fn initial_state(model: &Model) -> Result<Vec<f32>, NotDrawn> {
    let seed = model.seed.ok_or(NotDrawn)?;
    let layout = Layout::of(model);
    let mut state = vec![1.0; layout.elements()];
    for tensor in layout.tensors() {
        // Norms are the vectors.
        if tensor.shape.len() != 2 {
            continue;
        }
        let mut stream = derive(CONTEXT, &[&seed.to_le_bytes(), tensor.name.as_bytes()]);
        let factor = factor(&tensor.name, model.layers);
        let mut bytes = [0u8; DRAWN * 8];
        for values in state[tensor.range()].chunks_mut(DRAWN) {
            stream.fill(&mut bytes[..values.len() * 8]);
            let (words, _) = bytes.as_chunks::<8>();
            for (value, word) in values.iter_mut().zip(words) {
                *value = centred(*word) as f32 * factor;
            }
        }
    }
    Ok(state)
}

fn centred(word: [u8; 8]) -> i32 {
    let (halves, _) = word.as_chunks::<2>();
    halves.iter().map(|half| i32::from(u16::from_le_bytes(*half))).sum::<i32>() - 131_070
}

fn factor(name: &str, layers: u32) -> f32 {
    let plain = DEVIATION / (4_294_967_295.0f64 / 3.0).sqrt();
    if name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight") {
        (plain / (2.0 * f64::from(layers)).sqrt()) as f32
    } else {
        plain as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::small_model;
    use covey_proto::Digest;

    #[test]
    fn the_initial_state_never_changes() {
        let state = initial_state(&small_model()).unwrap();
        let bytes: Vec<u8> = state.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(Digest::of(&bytes).to_string(), "f6cc0da92065179b1207a15f3690b560b125101c95b725ff24b1f452c682cddf");
    }

    #[test]
    fn weights_have_the_deviation_they_should() {
        let model = Model { vocabulary: 512, width: 64, heads: 4, ..small_model() };
        let (layout, state) = (Layout::of(&model), initial_state(&model).unwrap());
        for tensor in layout.tensors() {
            let values = &state[tensor.range()];
            let n = values.len() as f64;
            let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
            let deviation = (values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n).sqrt();
            let residual = tensor.name.ends_with("o_proj.weight") || tensor.name.ends_with("down_proj.weight");
            let expected = match (tensor.shape.len(), residual) {
                (1, _) => 0.0,
                (_, true) => 0.02 / (2.0 * f64::from(model.layers)).sqrt(),
                (_, false) => 0.02,
            };
            // Five standard errors of a deviation's estimate.
            let allowed = 5.0 * expected / (2.0 * n).sqrt();
            assert!((deviation - expected).abs() <= allowed, "{}: {deviation}, expected {expected}", tensor.name);
            assert!(values.iter().all(|v| v.is_normal() || v.to_bits() == 0), "{}", tensor.name);
        }
    }
}
