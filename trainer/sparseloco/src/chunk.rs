//! A chunk of a flat state as one dense run of at most 4,096 elements, and back.
//!
//! Decides nothing: where a chunk lies is [`Chunk`]'s business, what is done with its elements the caller's.

use covey_proto::layout::{CHUNK, Chunk};

/// Room for one chunk's elements, row-major.
pub type Scratch = [f32; CHUNK];

/// Copies the chunk's elements out of `state` into the front of `scratch`, row-major, and returns them.
///
/// # Panics
/// If the chunk does not lie in `state`.
pub fn gather<'s>(state: &[f32], chunk: &Chunk, scratch: &'s mut Scratch) -> &'s mut [f32] {
    let dense = &mut scratch[..chunk.len()];
    for (row, range) in dense.chunks_exact_mut(chunk.columns).zip(chunk.row_ranges()) {
        row.copy_from_slice(&state[range]);
    }
    dense
}

/// Copies `dense`, the chunk's elements row-major, into `state`.
///
/// # Panics
/// If the chunk does not lie in `state`, or `dense` has another length than the chunk.
pub fn scatter(dense: &[f32], chunk: &Chunk, state: &mut [f32]) {
    assert_eq!(dense.len(), chunk.len(), "elements of a chunk");
    for (row, range) in dense.chunks_exact(chunk.columns).zip(chunk.row_ranges()) {
        state[range].copy_from_slice(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use covey_proto::layout::Layout;

    #[test]
    fn scatter_undoes_gather_on_every_shape() {
        let layout = Layout::new(vec![("a".into(), vec![70, 130]), ("b".into(), vec![5000]), ("c".into(), vec![1, 1])]);
        let state: Vec<f32> = (0..layout.elements()).map(|at| at as f32).collect();
        let mut copy = vec![-1.0; state.len()];
        let mut scratch = [0.0; CHUNK];
        for number in 0..layout.chunks() {
            let chunk = layout.chunk(number);
            let dense = gather(&state, &chunk, &mut scratch);
            assert!(dense.iter().enumerate().all(|(index, &value)| value == state[chunk.position(index)]));
            scatter(dense, &chunk, &mut copy);
        }
        assert_eq!(copy, state);
    }
}
