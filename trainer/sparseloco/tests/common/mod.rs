//! Inputs that are the same on every machine: made of BLAKE3's stream and integers, without a mathematical library.

use covey_proto::layout::Layout;

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
