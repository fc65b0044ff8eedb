//! The parameters as llama.cpp names and orders them.
//!
//! Matrices lie as in the state, row-major `[out, in]`; GGUF writes their shapes the other way round. Only the rows of
//! queries and keys move: the state turns elements i and i + head/2 of a head together (Hugging Face's convention),
//! llama.cpp elements 2i and 2i + 1. So row 2i + j of a head is the state's row i + j · head/2, as `permute` of
//! llama.cpp's convert_hf_to_gguf.py has it.

use super::quantise::GgufType;
use super::value::append_text;
use covey_proto::layout::{Layout, Tensor};
use covey_proto::run::Model;
use std::borrow::Cow;
use std::io::{self, Write};
use std::ops::Range;

/// Tensors begin at multiples of this, counted from the first.
pub(super) const ALIGNMENT: usize = 32;
/// Values that are written at a time, at least a row.
const BLOCK: usize = 1 << 18;

/// Of each layer: llama.cpp's name and Hugging Face's.
const LAYER: [(&str, &str); 9] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// A tensor of the file.
pub(super) struct GgufTensor {
    name: String,
    /// `[rows, columns]` or `[elements]`.
    shape: Vec<usize>,
    kind: GgufType,
    values: Values,
}

/// Where its values come from.
enum Values {
    /// The state's.
    Of(Range<usize>),
    /// The state's, whose rows are of heads of so many.
    OfHeads(Range<usize>, usize),
    /// Computed.
    Given(Vec<f32>),
}

/// All tensors, in the order of the computation.
pub(super) fn tensors(model: &Model, layout: &Layout, kind: GgufType) -> Vec<GgufTensor> {
    let find = |theirs: String, ours: &str| {
        let Tensor { shape, .. } = layout.tensor(ours)?;
        let range = layout.tensor(ours)?.range();
        let values = if ours.ends_with("q_proj.weight") || ours.ends_with("k_proj.weight") {
            Values::OfHeads(range, model.head_width() as usize)
        } else {
            Values::Of(range)
        };
        Some(GgufTensor { name: theirs, shape: shape.clone(), kind: kind.of_tensor(shape), values })
    };
    let mut all = Vec::new();
    all.extend(find("token_embd.weight".into(), "model.embed_tokens.weight"));
    for layer in 0..model.layers {
        for (theirs, ours) in LAYER {
            all.extend(find(format!("blk.{layer}.{theirs}.weight"), &format!("model.layers.{layer}.{ours}.weight")));
        }
    }
    all.extend(find("output_norm.weight".into(), "model.norm.weight"));
    all.extend(find("output.weight".into(), "lm_head.weight"));
    if let Some(factors) = rope_factors(model) {
        let shape = vec![factors.len()];
        let values = Values::Given(factors);
        all.push(GgufTensor { name: "rope_freqs.weight".into(), shape, kind: GgufType::F32, values });
    }
    all
}

/// What LLaMA 3's scaling divides each rotary frequency by: f32 `[head/2]`. As `generate_extra_tensors` of
/// convert_hf_to_gguf.py computes it for its `LlamaModel`.
fn rope_factors(model: &Model) -> Option<Vec<f32>> {
    let scaling = model.rope_scaling.as_ref()?;
    let (head, original) = (model.head_width(), f64::from(scaling.original_sequence));
    let (low, high) = (scaling.low_frequency_factor, scaling.high_frequency_factor);
    let factor = |at: u32| {
        let frequency = model.rope_theta.powf(-f64::from(2 * at) / f64::from(head));
        let wave = std::f64::consts::TAU / frequency;
        if wave < original / high {
            1.0
        } else if wave > original / low {
            scaling.factor
        } else {
            let smooth = (original / wave - low) / (high - low);
            1.0 / ((1.0 - smooth) / scaling.factor + smooth)
        }
    };
    Some((0..head / 2).map(|at| factor(at) as f32).collect())
}

impl GgufTensor {
    /// Bytes with what is left empty behind it.
    fn padded_bytes(&self) -> usize {
        self.kind.bytes(self.shape.iter().product()).next_multiple_of(ALIGNMENT)
    }

    /// Writes its values, and what is left empty behind them.
    pub(super) fn write(&self, state: &[f32], to: &mut dyn Write) -> io::Result<()> {
        let columns = self.shape.last().copied().unwrap_or(1).max(1);
        let (values, head): (Cow<'_, [f32]>, Option<usize>) = match &self.values {
            Values::Of(range) => (state[range.clone()].into(), None),
            Values::OfHeads(range, head) => (state[range.clone()].into(), Some(*head)),
            Values::Given(values) => (values.as_slice().into(), None),
        };
        let (mut bytes, mut written) = (Vec::new(), 0);
        for row in 0..values.len() / columns {
            let from = head.map_or(row, |head| state_row(row, head));
            self.kind.append(&values[from * columns..(from + 1) * columns], &mut bytes);
            if bytes.len() >= BLOCK * 4 {
                to.write_all(&bytes)?;
                written += bytes.len();
                bytes.clear();
            }
        }
        bytes.resize(self.padded_bytes() - written, 0);
        to.write_all(&bytes)
    }
}

/// The state's row that stands at `row` of a file, where rows are of heads of `head`.
fn state_row(row: usize, head: usize) -> usize {
    let (first, within) = (row / head * head, row % head);
    first + within / 2 + within % 2 * (head / 2)
}

/// Appends what the head of a file says of its tensors.
pub(super) fn append_table(tensors: &[GgufTensor], to: &mut Vec<u8>) {
    let mut offset = 0;
    for tensor in tensors {
        append_text(&tensor.name, to);
        to.extend((tensor.shape.len() as u32).to_le_bytes());
        to.extend(tensor.shape.iter().rev().flat_map(|side| (*side as u64).to_le_bytes()));
        to.extend(tensor.kind.number().to_le_bytes());
        to.extend((offset as u64).to_le_bytes());
        offset += tensor.padded_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::small_model;
    use covey_proto::run::RopeScaling;

    #[test]
    fn every_parameter_is_written_once() {
        for tied in [true, false] {
            let model = Model { tied, ..small_model() };
            let layout = Layout::of(&model);
            let mut ranges: Vec<Range<usize>> = Vec::new();
            for tensor in tensors(&model, &layout, GgufType::F32) {
                let (Values::Of(range) | Values::OfHeads(range, _)) = tensor.values else { panic!("none is given") };
                ranges.push(range);
            }
            ranges.sort_by_key(|range| range.start);
            assert!(ranges.into_iter().eq(layout.tensors().iter().map(Tensor::range)));
        }
    }

    #[test]
    fn rows_of_queries_and_keys_alternate_between_the_halves_of_a_head() {
        assert_eq!((0..8).map(|row| state_row(row, 4)).collect::<Vec<_>>(), [0, 2, 1, 3, 4, 6, 5, 7]);
        let values = Values::OfHeads(0..8, 4);
        let tensor = GgufTensor { name: "q".into(), shape: vec![4, 2], kind: GgufType::F32, values };
        let mut bytes = Vec::new();
        tensor.write(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], &mut bytes).unwrap();
        let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
        assert_eq!(values, [0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0]);
    }

    #[test]
    fn tensors_are_padded() {
        let tensor = GgufTensor { name: "n".into(), shape: vec![3], kind: GgufType::F32, values: Values::Of(1..4) };
        let mut bytes = Vec::new();
        tensor.write(&[1.0; 4], &mut bytes).unwrap();
        assert_eq!((bytes.len(), &bytes[12..]), (32, &[0; 20][..]));
    }

    #[test]
    fn high_frequencies_are_kept_and_low_ones_divided() {
        let scaling =
            RopeScaling { factor: 8.0, low_frequency_factor: 1.0, high_frequency_factor: 4.0, original_sequence: 8192 };
        let model = Model { width: 4096, heads: 32, rope_theta: 5e5, rope_scaling: Some(scaling), ..small_model() };
        let factors = rope_factors(&model).unwrap();
        assert_eq!((factors.len(), factors[0], factors[63]), (64, 1.0, 8.0));
        assert!(factors.is_sorted());
        let between = factors.iter().filter(|factor| (1.0..8.0).contains(*factor) && **factor != 1.0).count();
        assert_eq!(between, 6, "{factors:?}");
    }
}
