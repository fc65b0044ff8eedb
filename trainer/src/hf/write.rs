//! A state as safetensors files: one, or several with an index where it is large. Written in blocks, as f32 or rounded to
//! bf16: no copy of the state is made.

use super::fault::{HfError, WeightsFault, at};
use super::files::{INDEX, WEIGHTS, shard_name};
use crate::half::to_bf16;
use covey_proto::layout::{Layout, Tensor};
use covey_sparseloco::state::as_le_bytes;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Values that are rounded at a time.
const BLOCK: usize = 1 << 18;
/// A file's head is padded to a multiple of this, so that the tensors behind it are aligned.
const ALIGNMENT: usize = 8;

/// The numbers that parameters are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightType {
    /// Four bytes: the state's own bits.
    F32,
    /// Two bytes, rounded to the nearest, of two as near to the even one.
    Bf16,
}

impl WeightType {
    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            WeightType::F32 => 4,
            WeightType::Bf16 => 2,
        }
    }

    /// As config.json calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            WeightType::F32 => "float32",
            WeightType::Bf16 => "bfloat16",
        }
    }

    fn dtype(self) -> Dtype {
        match self {
            WeightType::F32 => Dtype::F32,
            WeightType::Bf16 => Dtype::BF16,
        }
    }
}

/// Writes the parameters into the folder `dir`: `model.safetensors`, or shards of at most `shard_bytes_max` bytes of tensors
/// (or of one tensor) with their index.
pub(super) fn write_weights(
    dir: &Path,
    layout: &Layout,
    parameters: &[f32],
    kind: WeightType,
    shard_bytes_max: u64,
) -> Result<(), HfError> {
    if let Some(at) = parameters.iter().position(|value| !value.is_finite()) {
        let fault = WeightsFault::State { at, value: parameters[at] };
        return Err(HfError::Weights { path: dir.join(WEIGHTS), fault });
    }
    let shards = shards(layout, kind, shard_bytes_max);
    if let [all] = &shards[..] {
        return write_file(&dir.join(WEIGHTS), all, parameters, kind);
    }
    let mut places = BTreeMap::new();
    for (number, tensors) in shards.iter().enumerate() {
        let name = shard_name(number, shards.len());
        write_file(&dir.join(&name), tensors, parameters, kind)?;
        places.extend(tensors.iter().map(|tensor| (tensor.name.as_str(), name.clone())));
    }
    let elements = layout.elements();
    let index = json!({
        "metadata": { "total_parameters": elements, "total_size": elements * kind.bytes() },
        "weight_map": places,
    });
    let path = dir.join(INDEX);
    write_synced(&path, format!("{index:#}\n").as_bytes())
}

/// Whole tensors in the layout's order, as many to a file as have room.
fn shards(layout: &Layout, kind: WeightType, bytes_max: u64) -> Vec<Vec<&Tensor>> {
    let mut shards: Vec<Vec<&Tensor>> = vec![Vec::new()];
    let mut bytes = 0;
    for tensor in layout.tensors() {
        let more = (tensor.elements() * kind.bytes()) as u64;
        if bytes > 0 && bytes + more > bytes_max {
            shards.push(Vec::new());
            bytes = 0;
        }
        bytes += more;
        shards.last_mut().into_iter().for_each(|shard| shard.push(tensor));
    }
    shards
}

fn write_file(path: &Path, tensors: &[&Tensor], parameters: &[f32], kind: WeightType) -> Result<(), HfError> {
    let head = head(tensors, kind)
        .map_err(|error| HfError::Weights { path: path.to_owned(), fault: WeightsFault::Write(error.to_string()) })?;
    let write = || {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(&(head.len() as u64).to_le_bytes())?;
        file.write_all(&head)?;
        let mut rounded = Vec::new();
        for block in tensors.iter().flat_map(|tensor| parameters[tensor.range()].chunks(BLOCK)) {
            match kind {
                WeightType::F32 => file.write_all(as_le_bytes(block))?,
                WeightType::Bf16 => {
                    rounded.clear();
                    rounded.extend(block.iter().flat_map(|value| to_bf16(*value).to_le_bytes()));
                    file.write_all(&rounded)?;
                }
            }
        }
        file.into_inner().map_err(|error| error.into_error())?.sync_all()
    };
    write().map_err(at(path))
}

fn head(tensors: &[&Tensor], kind: WeightType) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let mut end = 0;
    let mut entry = |tensor: &&Tensor| {
        let start = end;
        end += tensor.elements() * kind.bytes();
        let info = TensorInfo { dtype: kind.dtype(), shape: tensor.shape.clone(), data_offsets: (start, end) };
        (tensor.name.clone(), info)
    };
    let entries = tensors.iter().map(&mut entry).collect();
    // transformers refuses a file that does not say so.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut head = serde_json::to_vec(&Metadata::new(Some(metadata), entries)?)?;
    head.resize(head.len().next_multiple_of(ALIGNMENT), b' ');
    Ok(head)
}

/// Writes a small file whole, and brings it to the disk.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), HfError> {
    let mut file = File::create(path).map_err(at(path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(at(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::small_model;

    #[test]
    fn shards_hold_as_many_whole_tensors_as_have_room() {
        let layout = Layout::of(&small_model());
        let names = |max: u64| -> Vec<usize> {
            let shards = shards(&layout, WeightType::Bf16, max);
            let all: Vec<&Tensor> = shards.iter().flatten().copied().collect();
            assert!(all.into_iter().eq(layout.tensors()), "every tensor once, in order");
            for shard in &shards {
                let bytes: usize = shard.iter().map(|tensor| 2 * tensor.elements()).sum();
                assert!(bytes as u64 <= max || shard.len() == 1);
            }
            shards.iter().map(Vec::len).collect()
        };
        let all = layout.tensors().len();
        assert_eq!(names(2 * layout.elements() as u64), [all]);
        assert!(names(2 * layout.elements() as u64 - 1).len() == 2);
        assert_eq!(names(1), vec![1; all]);
    }

    /// The same bytes as the safetensors crate writes, which readers are tested with.
    #[test]
    fn a_file_is_what_the_safetensors_crate_would_write() {
        let (layout, state) = (Layout::of(&small_model()), crate::genesis::initial_state(&small_model()).unwrap());
        let folder = tempfile::tempdir().unwrap();
        write_weights(folder.path(), &layout, &state, WeightType::F32, u64::MAX).unwrap();
        let views = layout.tensors().iter().map(|tensor| {
            let bytes = as_le_bytes(&state[tensor.range()]);
            let view = safetensors::tensor::TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).unwrap();
            (tensor.name.as_str(), view)
        });
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let theirs = safetensors::serialize(views, Some(metadata)).unwrap();
        assert!(std::fs::read(folder.path().join(WEIGHTS)).unwrap() == theirs);
    }
}
