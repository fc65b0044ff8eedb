//! A checkpoint's parameters: found in one safetensors file or in the shards of an index, read into one state.
//!
//! First every head is read, and every tensor of the model is found, of its shape and of numbers that are read; only then
//! memory is taken, for the state alone. Tensors come in blocks. Nothing in the files is believed.

use super::fault::{HfError, WeightsFault, at};
use super::files::{INDEX, WEIGHTS, read};
use super::header::{Entry, read_head};
use crate::half::{from_bf16, from_f16};
use covey_proto::layout::Layout;
use safetensors::Dtype;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes that the head of a file, or the index, may take, a tensor: its name, shape and place.
const HEAD_BYTES_MAX: u64 = 4096;
/// Tensors that a model of old may have besides: one a layer, of rotary frequencies.
const OLD_TENSORS_MAX: u64 = 1000;
/// Bytes that are read at a time: all the memory that is taken beside the state.
const BLOCK_BYTES: usize = 1 << 20;

/// The embedding, which is the output matrix too where a model is tied.
const EMBEDDING: &str = "model.embed_tokens.weight";
/// The output matrix.
const OUTPUT: &str = "lm_head.weight";
/// What old checkpoints carry besides parameters: constants that follow from config.json.
const CONSTANT: &str = ".self_attn.rotary_emb.inv_freq";

/// A checkpoint whose files fit a model, so far as their heads say.
pub(super) struct Checkpoint<'l> {
    layout: &'l Layout,
    /// Of each tensor of the layout, and of an output matrix that a tied model need not have: the file and the place.
    places: BTreeMap<String, (PathBuf, Entry)>,
}

impl<'l> Checkpoint<'l> {
    /// Finds every tensor of `layout` in the folder `dir`. Like `transformers`, a single file comes before an index.
    ///
    /// # Errors
    /// A file that is missing, too large or not safetensors, a tensor that is missing, of another shape or of numbers that
    /// are not read, one that belongs to no such model, or an index that leads elsewhere.
    pub(super) fn open(dir: &Path, layout: &'l Layout) -> Result<Checkpoint<'l>, HfError> {
        let mut checkpoint = Checkpoint { layout, places: BTreeMap::new() };
        let (single, index) = (dir.join(WEIGHTS), dir.join(INDEX));
        let named = if single.exists() || !index.exists() {
            checkpoint.take_file(&single, None)?;
            single
        } else {
            let map = read_index(&index, checkpoint.head_bytes_max())?;
            let files: BTreeSet<&String> = map.values().collect();
            for file in files {
                checkpoint.take_file(&dir.join(file), Some((file.as_str(), &map)))?;
            }
            index
        };
        match layout.tensors().iter().find(|tensor| !checkpoint.places.contains_key(&tensor.name)) {
            None => Ok(checkpoint),
            Some(tensor) => Err(HfError::Weights { path: named, fault: WeightsFault::Missing(tensor.name.clone()) }),
        }
    }

    fn head_bytes_max(&self) -> u64 {
        (self.layout.tensors().len() as u64 + OLD_TENSORS_MAX) * HEAD_BYTES_MAX
    }

    /// Notes where the tensors of a file are; of a shard, that it is the one that the index names for each.
    fn take_file(&mut self, path: &Path, shard: Option<(&str, &BTreeMap<String, String>)>) -> Result<(), HfError> {
        let mut file = open(path)?;
        let got = file.metadata().map_err(at(path))?.len();
        // All in f32, with an output matrix that need not be there and as large a head as is read.
        let output = self.layout.tensor(EMBEDDING).map_or(0, |tensor| tensor.elements()) as u64;
        let max = (self.layout.elements() as u64 + output) * 4 + self.head_bytes_max();
        if got > max {
            return Err(HfError::TooLarge { path: path.to_owned(), got, max });
        }
        let fault = |fault| HfError::Weights { path: path.to_owned(), fault };
        let head = read_head(&mut file, got, self.head_bytes_max()).map_err(fault)?;
        for (name, entry) in head {
            if name.starts_with("model.layers.") && name.ends_with(CONSTANT) {
                continue;
            }
            if let Some((file, map)) = shard
                && map.get(&name).is_none_or(|place| place != file)
            {
                let place = map.get(&name).cloned();
                return Err(fault(WeightsFault::Elsewhere { name, place }));
            }
            self.check(&name, &entry).map_err(fault)?;
            self.places.insert(name, (path.to_owned(), entry));
        }
        Ok(())
    }

    fn check(&self, name: &str, entry: &Entry) -> Result<(), WeightsFault> {
        // A tied model's output matrix is its embedding, and may be there all the same.
        let stands_for = if name == OUTPUT && self.layout.tensor(OUTPUT).is_none() { EMBEDDING } else { name };
        let Some(tensor) = self.layout.tensor(stands_for) else {
            let prefixed = self.layout.tensor(&format!("model.{name}")).is_some();
            let name = name.to_owned();
            return Err(if prefixed { WeightsFault::Prefix(name) } else { WeightsFault::Stranger(name) });
        };
        if entry.shape != tensor.shape {
            let (got, needed) = (entry.shape.clone(), tensor.shape.clone());
            return Err(WeightsFault::Shape { name: name.to_owned(), got, needed });
        }
        Numbers::of(entry.dtype).map(drop).ok_or_else(|| WeightsFault::Kind { name: name.to_owned(), got: entry.dtype })
    }

    /// Reads the state, f32 in the order of the layout.
    ///
    /// # Errors
    /// The disk, a file that has become shorter meanwhile, a number that is not finite, or an output matrix of a tied
    /// model that is not its embedding.
    pub(super) fn read(self) -> Result<Vec<f32>, HfError> {
        let mut state = vec![0.0; self.layout.elements()];
        for tensor in self.layout.tensors() {
            let Some((path, entry)) = self.places.get(&tensor.name) else { continue };
            let values = &mut state[tensor.range()];
            for_each_block(path, &tensor.name, entry, &mut |offset, block| {
                values[offset..offset + block.len()].copy_from_slice(block);
                Ok(())
            })?;
        }
        let unused = self.places.get(OUTPUT).filter(|_| self.layout.tensor(OUTPUT).is_none());
        if let (Some((path, entry)), Some(embedding)) = (unused, self.layout.tensor(EMBEDDING)) {
            let embedding = &state[embedding.range()];
            for_each_block(path, OUTPUT, entry, &mut |offset, block| {
                let same = |(one, other): (&f32, &f32)| one.to_bits() == other.to_bits();
                match embedding[offset..].iter().zip(block).position(|pair| !same(pair)) {
                    Some(differs) => Err(WeightsFault::NotTied { at: offset + differs }),
                    None => Ok(()),
                }
            })?;
        }
        Ok(state)
    }
}

/// Gets each block of a tensor with the number of its first element.
type Take<'a> = dyn FnMut(usize, &[f32]) -> Result<(), WeightsFault> + 'a;

/// Reads a tensor in blocks, as f32; `take` gets each with the number of its first element.
fn for_each_block(path: &Path, name: &str, entry: &Entry, take: &mut Take<'_>) -> Result<(), HfError> {
    let fault = |fault| HfError::Weights { path: path.to_owned(), fault };
    let kind = || WeightsFault::Kind { name: name.to_owned(), got: entry.dtype };
    let numbers = Numbers::of(entry.dtype).ok_or_else(|| fault(kind()))?;
    let mut file = open(path)?;
    file.seek(SeekFrom::Start(entry.start)).map_err(at(path))?;
    let mut bytes = vec![0; BLOCK_BYTES];
    let mut values = Vec::with_capacity(BLOCK_BYTES / numbers.bytes());
    let (mut left, mut offset) = (entry.bytes, 0);
    while left > 0 {
        let block = &mut bytes[..(left.min(BLOCK_BYTES as u64)) as usize];
        file.read_exact(block).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => fault(WeightsFault::Short(name.to_owned())),
            _ => at(path)(error),
        })?;
        values.clear();
        numbers.widen(block, &mut values);
        if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
            return Err(fault(WeightsFault::NotFinite { name: name.to_owned(), value }));
        }
        take(offset, &values).map_err(fault)?;
        offset += values.len();
        left -= block.len() as u64;
    }
    Ok(())
}

/// The numbers that are read.
#[derive(Clone, Copy)]
enum Numbers {
    F32,
    Bf16,
    F16,
}

impl Numbers {
    fn of(dtype: Dtype) -> Option<Numbers> {
        match dtype {
            Dtype::F32 => Some(Numbers::F32),
            Dtype::BF16 => Some(Numbers::Bf16),
            Dtype::F16 => Some(Numbers::F16),
            _ => None,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Numbers::F32 => 4,
            Numbers::Bf16 | Numbers::F16 => 2,
        }
    }

    /// Appends the numbers of `bytes`, exactly.
    fn widen(self, bytes: &[u8], to: &mut Vec<f32>) {
        let halves = || bytes.as_chunks::<2>().0.iter().map(|half| u16::from_le_bytes(*half));
        match self {
            Numbers::F32 => to.extend(bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word))),
            Numbers::Bf16 => to.extend(halves().map(from_bf16)),
            Numbers::F16 => to.extend(halves().map(from_f16)),
        }
    }
}

/// model.safetensors.index.json: which tensor is in which file.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn read_index(path: &Path, bytes_max: u64) -> Result<BTreeMap<String, String>, HfError> {
    let fault = |fault| HfError::Weights { path: path.to_owned(), fault };
    let index: Index = serde_json::from_slice(&read(path, bytes_max)?)
        .map_err(|error| fault(WeightsFault::Index(error.to_string())))?;
    let leads_out = |file: &&String| {
        !file.ends_with(".safetensors") || file.contains(['/', '\\', '\0']) || Path::new(file).file_name().is_none()
    };
    match index.weight_map.values().find(leads_out) {
        Some(file) => Err(fault(WeightsFault::IndexFile(file.clone()))),
        None => Ok(index.weight_map),
    }
}

fn open(path: &Path) -> Result<File, HfError> {
    match crate::open_regular(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(HfError::Missing { path: path.to_owned() }),
        opened => opened.map_err(at(path)),
    }
}
