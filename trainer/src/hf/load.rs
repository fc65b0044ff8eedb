//! A folder of Hugging Face's layout as a state. Nothing in it is believed.

use super::{
    CONFIG, CONFIG_BYTES_MAX, HfError, TOKENIZER, TOKENIZER_BYTES_MAX, TokenizerFault, WEIGHTS, WeightsFault, config,
    read,
};
use covey_proto::layout::{Layout, Tensor};
use covey_proto::run::Model;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::path::Path;
use tokenizers::Tokenizer;

/// Bytes that the head of model.safetensors may take, a tensor: its name, shape and place.
const HEAD_BYTES_MAX: u64 = 4096;

/// Reads `config.json` and `model.safetensors` (f32, or bf16 widened) of the folder `dir`. The model's sequence is
/// `max_position_embeddings`; it has no seed.
///
/// # Errors
/// A missing file, a model that is not LLaMA or cannot be, a file cut short or too large, a tensor that is missing, of
/// another shape or not finite.
pub fn load(dir: &Path) -> Result<(Model, Vec<f32>), HfError> {
    let model = load_model(dir)?;
    let layout = Layout::of(&model);
    let path = dir.join(WEIGHTS);
    let max = layout.elements() as u64 * 4 + (layout.tensors().len() as u64 + 1) * HEAD_BYTES_MAX;
    let parameters = parameters(&read(&path, max)?, &layout).map_err(|fault| HfError::Weights { path, fault })?;
    Ok((model, parameters))
}

/// Reads `config.json` of the folder `dir`: the model without its parameters, as [`load`] gives it.
///
/// # Errors
/// A missing or too large file, or a model that is not LLaMA or cannot be.
pub fn load_model(dir: &Path) -> Result<Model, HfError> {
    let path = dir.join(CONFIG);
    config::read(&read(&path, CONFIG_BYTES_MAX)?).map_err(|fault| HfError::Config { path, fault })
}

/// Reads `tokenizer.json` of the folder `dir` ([`read_tokenizer`]).
///
/// # Errors
/// A missing file, or one that is too large or no tokenizer.
pub fn load_tokenizer(dir: &Path) -> Result<Tokenizer, HfError> {
    read_tokenizer(&dir.join(TOKENIZER))
}

/// Reads a tokenizer's file. Truncation and padding that it may ask for are off: no text is cut unseen.
///
/// # Errors
/// A missing file, or one that is too large or no tokenizer.
pub fn read_tokenizer(path: &Path) -> Result<Tokenizer, HfError> {
    let whole = |mut tokenizer: Tokenizer| -> tokenizers::Result<Tokenizer> {
        tokenizer.with_truncation(None)?.with_padding(None);
        Ok(tokenizer)
    };
    Tokenizer::from_bytes(read(path, TOKENIZER_BYTES_MAX)?)
        .and_then(whole)
        .map_err(|error| HfError::Tokenizer { path: path.to_owned(), fault: TokenizerFault::Json(error.to_string()) })
}

fn parameters(bytes: &[u8], layout: &Layout) -> Result<Vec<f32>, WeightsFault> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| WeightsFault::File(error.to_string()))?;
    if let Some(name) = file.names().into_iter().find(|name| layout.tensor(name).is_none()) {
        return Err(WeightsFault::Stranger(name.to_owned()));
    }
    let mut parameters = Vec::with_capacity(layout.elements());
    for tensor in layout.tensors() {
        let view = file.tensor(&tensor.name).map_err(|_| WeightsFault::Missing(tensor.name.clone()))?;
        append(&mut parameters, tensor, &view)?;
    }
    Ok(parameters)
}

fn append(parameters: &mut Vec<f32>, tensor: &Tensor, view: &TensorView<'_>) -> Result<(), WeightsFault> {
    let name = || tensor.name.clone();
    if view.shape() != tensor.shape {
        let (got, needed) = (view.shape().to_vec(), tensor.shape.clone());
        return Err(WeightsFault::Shape { name: name(), got, needed });
    }
    match view.dtype() {
        Dtype::F32 => parameters.extend(view.data().as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word))),
        Dtype::BF16 => {
            let widen = |half: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*half)) << 16);
            parameters.extend(view.data().as_chunks::<2>().0.iter().map(widen));
        }
        got => return Err(WeightsFault::Kind { name: name(), got }),
    }
    let values = parameters.get(tensor.range()).ok_or_else(|| WeightsFault::Short(name()))?;
    match values.iter().find(|value| !value.is_finite()) {
        Some(&value) => Err(WeightsFault::NotFinite { name: name(), value }),
        None => Ok(()),
    }
}
