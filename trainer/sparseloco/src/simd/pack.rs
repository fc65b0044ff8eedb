//! Which elements of a chunk reach a magnitude, packed.

#![allow(unsafe_code)]

use super::{Ahead, LANES, MAGNITUDE};
use covey_proto::layout::CHUNK;
use covey_simd::{Level, level};

/// Elements of a chunk, by rising index.
#[derive(Debug)]
pub(crate) struct Packed {
    /// Bits of their magnitudes, the first `len`, and what happens to follow.
    magnitudes: Box<[u32; CHUNK + LANES]>,
    /// Their indices.
    indices: Box<[u16; CHUNK + LANES]>,
    len: usize,
}

impl Packed {
    /// Room for a chunk's; none yet.
    pub(crate) fn new() -> Packed {
        Packed { magnitudes: Box::new([0; CHUNK + LANES]), indices: Box::new([0; CHUNK + LANES]), len: 0 }
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bits of their magnitudes.
    #[inline(always)]
    pub(crate) fn magnitudes(&self) -> &[u32] {
        &self.magnitudes[..self.len]
    }

    /// Their indices.
    #[inline(always)]
    pub(crate) fn indices(&self) -> &[u16] {
        &self.indices[..self.len]
    }
}

/// Packs the elements whose magnitudes' bits reach `floor`.
///
/// # Panics
/// If `dense` has more than 4,096 elements.
pub(crate) fn pack(dense: &[f32], floor: u32, into: &mut Packed, ahead: &mut Ahead) {
    assert!(dense.len() <= CHUNK, "a chunk's elements");
    match level() {
        // SAFETY: `level` gives this answer only where the processor has these features; the length is checked above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { pack_avx512(dense, floor, into, ahead) },
        _ => pack_marked(dense, floor, into, ahead),
    }
}

/// By marks, 64 elements a word: reading a word takes a step for each that is packed, none for the others.
fn pack_marked(dense: &[f32], floor: u32, into: &mut Packed, ahead: &mut Ahead) {
    let mut words = [0; CHUNK / 64];
    super::marks(dense, floor, &mut words, ahead);
    into.len = 0;
    for ((word, elements), first) in words.iter().zip(dense.chunks(64)).zip((0..).step_by(64)) {
        let mut word = *word;
        while word != 0 {
            let at = word.trailing_zeros();
            word &= word - 1;
            into.magnitudes[into.len] = elements[at as usize].to_bits() & MAGNITUDE;
            into.indices[into.len] = first + at as u16;
            into.len += 1;
        }
    }
}

/// Sixteen elements at a time, without branches: which of them are packed cannot be foreseen.
///
/// # Safety
/// The processor has these features, and `dense` at most 4,096 elements.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn pack_avx512(dense: &[f32], floor: u32, into: &mut Packed, ahead: &mut Ahead) {
    use std::arch::x86_64::*;
    let (whole, rest) = dense.as_chunks::<LANES>();
    let mut indices = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let (magnitude, least) = (_mm512_set1_epi32(MAGNITUDE as i32), _mm512_set1_epi32(floor as i32));
    let mut len = 0;
    let mut step = |bits: __m512i, among: __mmask16| {
        let bits = _mm512_and_si512(bits, magnitude);
        let reach = _mm512_mask_cmpge_epi32_mask(among, bits, least);
        // SAFETY: `len` is at most the elements before these, fewer than 4,096, and there is room for sixteen more.
        unsafe {
            let magnitudes = into.magnitudes.as_mut_ptr().add(len);
            _mm512_storeu_si512(magnitudes.cast(), _mm512_maskz_compress_epi32(reach, bits));
            let packed = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(reach, indices));
            _mm256_storeu_si256(into.indices.as_mut_ptr().add(len).cast(), packed);
        }
        len += reach.count_ones() as usize;
        indices = _mm512_add_epi32(indices, _mm512_set1_epi32(LANES as i32));
    };
    for pair in whole.chunks(2) {
        for sixteen in pair {
            // SAFETY: sixteen elements lie there.
            step(unsafe { _mm512_loadu_si512(sixteen.as_ptr().cast()) }, !0);
        }
        ahead.fetch(1);
    }
    if !rest.is_empty() {
        let among = (1 << rest.len()) - 1;
        // SAFETY: only the rest's elements are read.
        step(unsafe { _mm512_maskz_loadu_epi32(among, rest.as_ptr().cast()) }, among);
    }
    into.len = len;
}
