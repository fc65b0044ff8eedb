//! Values as GGUF holds them: f32, bf16, and q8_0, whose blocks of 32 share a scale.
//!
//! q8_0 is ggml's (`quantize_row_q8_0_ref` in ggml-quants.c): d = max |x| ÷ 127 in f32, q = round(x · (1 ÷ d)) with halves
//! away from zero; written are d as an IEEE half and then 32 signed bytes. The quotient is taken before d is rounded.

use crate::half::{to_bf16, to_f16};
use covey_sparseloco::state::as_le_bytes;

/// Values of a q8_0 block.
pub(super) const BLOCK: usize = 32;
/// Bytes of a q8_0 block: a half and as many bytes as values.
const BLOCK_BYTES: usize = 2 + BLOCK;

/// The numbers that parameters are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgufType {
    /// Four bytes a value.
    F32,
    /// Two bytes a value.
    Bf16,
    /// 34 bytes for 32 values.
    Q8_0,
}

impl GgufType {
    /// ggml's number of the type.
    pub(super) fn number(self) -> u32 {
        match self {
            GgufType::F32 => 0,
            GgufType::Q8_0 => 8,
            GgufType::Bf16 => 30,
        }
    }

    /// llama.cpp's number of a file whose matrices have this type (`general.file_type`).
    pub(super) fn of_file(self) -> u32 {
        match self {
            GgufType::F32 => 0,
            GgufType::Q8_0 => 7,
            GgufType::Bf16 => 32,
        }
    }

    /// The type of a tensor with this shape in such a file: vectors are never rounded, nor are rows that are no whole
    /// blocks.
    pub(super) fn of_tensor(self, shape: &[usize]) -> GgufType {
        match (self, shape) {
            (_, [_]) => GgufType::F32,
            (GgufType::Q8_0, [_, columns]) if !columns.is_multiple_of(BLOCK) => GgufType::F32,
            _ => self,
        }
    }

    /// Bytes of so many values, whole blocks.
    pub(super) fn bytes(self, values: usize) -> usize {
        match self {
            GgufType::F32 => 4 * values,
            GgufType::Bf16 => 2 * values,
            GgufType::Q8_0 => values / BLOCK * BLOCK_BYTES,
        }
    }

    /// Appends a row, whole blocks of it.
    pub(super) fn append(self, row: &[f32], to: &mut Vec<u8>) {
        match self {
            GgufType::F32 => to.extend_from_slice(as_le_bytes(row)),
            GgufType::Bf16 => to.extend(row.iter().flat_map(|value| to_bf16(*value).to_le_bytes())),
            GgufType::Q8_0 => row.as_chunks::<BLOCK>().0.iter().for_each(|block| append_q8_0(block, to)),
        }
    }
}

fn append_q8_0(block: &[f32; BLOCK], to: &mut Vec<u8>) {
    let largest = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    to.extend(to_f16(scale).to_le_bytes());
    // At most 127 and a rounding error; the conversion saturates.
    to.extend(block.iter().map(|value| (value * inverse).round() as i8 as u8));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::half::from_f16;

    /// As PyPI's `gguf` 0.17.1 quantises the same values (`gguf.quants.quantize`, bit-exact with ggml by its own tests).
    #[test]
    fn a_block_is_ggmls() {
        let values: Vec<f32> = (0..32).map(|at| (at as f32 - 11.5) * 0.37).collect();
        let mut bytes = Vec::new();
        GgufType::Q8_0.append(&values, &mut bytes);
        assert_eq!(bytes.len(), GgufType::Q8_0.bytes(32));
        assert_eq!(hex(&bytes), GGML);
        let scale = from_f16(u16::from_le_bytes([bytes[0], bytes[1]]));
        for (value, byte) in values.iter().zip(&bytes[2..]) {
            assert!((f32::from(*byte as i8) * scale - value).abs() < 0.52 * scale);
        }
        bytes.clear();
        GgufType::Q8_0.append(&[0.0; 32], &mut bytes);
        assert_eq!(bytes, [0; 34]);
    }

    const GGML: &str = "462bb5bcc2c9cfd6dce3e9f0f6fd030a10171d242a31373e444b51585e656b72787f";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn vectors_and_rows_that_are_no_whole_blocks_are_not_rounded() {
        assert_eq!(GgufType::Q8_0.of_tensor(&[64, 64]), GgufType::Q8_0);
        assert_eq!(GgufType::Q8_0.of_tensor(&[64, 48]), GgufType::F32);
        assert_eq!(GgufType::Bf16.of_tensor(&[64]), GgufType::F32);
        assert_eq!(GgufType::Bf16.of_tensor(&[3, 5]), GgufType::Bf16);
    }
}
