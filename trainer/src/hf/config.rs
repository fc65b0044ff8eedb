//! config.json to and from a model's numbers. Foreign files are checked here, with the limits of a run's model.

use covey_proto::run::Model;
use serde_json::{Map, Value, json};

/// Elements of the largest model that is read; a run's limit.
const ELEMENTS_MAX: u64 = 100_000_000_000;

/// What config.json says of `model`; `end_of_text` is the token that ends a document, if the tokenizer has one.
pub(super) fn write(model: &Model, end_of_text: Option<u32>) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": model.vocabulary,
        "hidden_size": model.width,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_width(),
        "intermediate_size": model.feed_forward,
        "max_position_embeddings": model.sequence,
        "rms_norm_eps": model.norm_epsilon,
        "tie_word_embeddings": model.tied,
        // transformers 5 reads the first, 4 the second.
        "rope_parameters": { "rope_theta": model.rope_theta, "rope_type": "default" },
        "rope_theta": model.rope_theta,
        "dtype": "float32",
        "torch_dtype": "float32",
        "hidden_act": "silu",
        "attention_bias": false,
        "attention_dropout": 0.0,
        "mlp_bias": false,
        "initializer_range": 0.02,
        "pretraining_tp": 1,
        "use_cache": true,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
    })
}

/// The model that config.json speaks of, or what is wrong with it. It has no seed.
pub(super) fn read(bytes: &[u8]) -> Result<Model, ConfigFault> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| ConfigFault::Json(error.to_string()))?;
    let config = Config(value.as_object().ok_or(ConfigFault::NoObject)?);
    config.only("model_type", &["llama"])?;
    config.only("hidden_act", &["silu"])?;
    for unsupported in ["attention_bias", "mlp_bias"] {
        if config.flag(unsupported, false)? {
            return Err(unsupported_value(unsupported, &Value::Bool(true), "a model without biases"));
        }
    }
    let rope = match config.0.get("rope_parameters").or_else(|| config.0.get("rope_scaling")) {
        Some(Value::Object(rope)) => Some(Config(rope)),
        _ => None,
    };
    if let Some(rope) = &rope {
        rope.only("rope_type", &["default"])?;
    }
    let theta = match rope.and_then(|rope| rope.0.get("rope_theta").cloned()) {
        Some(theta) => theta.as_f64().ok_or_else(|| value_fault("rope_parameters.rope_theta", &theta, "a number"))?,
        None => config.number("rope_theta", Some(10_000.0))?,
    };
    let heads = config.count("num_attention_heads", None, 1024)?;
    let model = Model {
        vocabulary: config.count("vocab_size", None, 1 << 20)?,
        width: config.count("hidden_size", None, 1 << 16)?,
        layers: config.count("num_hidden_layers", None, 1000)?,
        heads,
        kv_heads: config.count("num_key_value_heads", Some(heads), 1024)?,
        feed_forward: config.count("intermediate_size", None, 1 << 18)?,
        sequence: config.count("max_position_embeddings", None, 1 << 20)?,
        rope_theta: theta,
        norm_epsilon: config.number("rms_norm_eps", Some(1e-6))?,
        tied: config.flag("tie_word_embeddings", false)?,
        seed: None,
        head: None,
        rope_scaling: None,
    };
    check(&model)?;
    match config.count("head_dim", Some(model.head_width()), 1 << 16)? {
        head if head == model.head_width() => Ok(model),
        head => Err(unsupported_value("head_dim", &head.into(), "hidden_size / num_attention_heads")),
    }
}

fn check(model: &Model) -> Result<(), ConfigFault> {
    let divides = model.width.is_multiple_of(model.heads)
        && model.heads.is_multiple_of(model.kv_heads)
        && model.head_width().is_multiple_of(2);
    if !divides {
        return Err(ConfigFault::Heads);
    }
    if !(model.rope_theta > 0.0 && model.rope_theta < 1e12 && model.norm_epsilon > 0.0 && model.norm_epsilon < 1e12) {
        return Err(ConfigFault::Range);
    }
    let (width, ff) = (u64::from(model.width), u64::from(model.feed_forward));
    let elements =
        u64::from(model.vocabulary) * width * 2 + u64::from(model.layers) * (4 * width * width + 3 * width * ff);
    if elements > ELEMENTS_MAX {
        return Err(ConfigFault::TooLarge { elements, max: ELEMENTS_MAX });
    }
    Ok(())
}

/// What is wrong with a config.json.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ConfigFault {
    /// No JSON.
    #[error("does not parse: {0}")]
    Json(String),
    /// JSON of another kind.
    #[error("is no JSON object")]
    NoObject,
    /// A number that must be there.
    #[error("{0} is missing")]
    Missing(String),
    /// A value that cannot be.
    #[error("{name} is {value}; it must be {needed}")]
    Value {
        /// Its name.
        name: String,
        /// What it is.
        value: Value,
        /// What it may be.
        needed: String,
    },
    /// A model of another kind.
    #[error("{name} is {value}; only {read} is read")]
    Unsupported {
        /// The name of what is not supported.
        name: String,
        /// Its value.
        value: Value,
        /// What is.
        read: String,
    },
    /// Widths that do not divide.
    #[error("hidden_size must divide by num_attention_heads into an even number, and those by num_key_value_heads")]
    Heads,
    /// Numbers of no use.
    #[error("rope_theta and rms_norm_eps must be above 0 and below 1e12")]
    Range,
    /// A model larger than any that is read.
    #[error("about {elements} parameters; the limit is {max}")]
    TooLarge {
        /// Its parameters.
        elements: u64,
        /// The limit.
        max: u64,
    },
}

struct Config<'a>(&'a Map<String, Value>);

impl Config<'_> {
    fn count(&self, name: &str, default: Option<u32>, max: u32) -> Result<u32, ConfigFault> {
        let value = match (self.0.get(name), default) {
            (None | Some(Value::Null), Some(default)) => return Ok(default),
            (None, None) => return Err(ConfigFault::Missing(name.to_owned())),
            (Some(value), _) => value,
        };
        let count =
            value.as_u64().and_then(|count| u32::try_from(count).ok()).filter(|count| (1..=max).contains(count));
        count.ok_or_else(|| value_fault(name, value, &format!("1 to {max}")))
    }
    fn number(&self, name: &str, default: Option<f64>) -> Result<f64, ConfigFault> {
        match (self.0.get(name), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(ConfigFault::Missing(name.to_owned())),
            (Some(value), _) => value.as_f64().ok_or_else(|| value_fault(name, value, "a number")),
        }
    }
    fn flag(&self, name: &str, default: bool) -> Result<bool, ConfigFault> {
        match self.0.get(name) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| value_fault(name, value, "true or false")),
        }
    }
    fn only(&self, name: &str, allowed: &[&str]) -> Result<(), ConfigFault> {
        match self.0.get(name) {
            None => Ok(()),
            Some(Value::String(value)) if allowed.contains(&value.as_str()) => Ok(()),
            Some(value) => Err(unsupported_value(name, value, &allowed.join(", "))),
        }
    }
}

fn value_fault(name: &str, value: &Value, needed: &str) -> ConfigFault {
    ConfigFault::Value { name: name.to_owned(), value: value.clone(), needed: needed.to_owned() }
}

fn unsupported_value(name: &str, value: &Value, read: &str) -> ConfigFault {
    ConfigFault::Unsupported { name: name.to_owned(), value: value.clone(), read: read.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::small_model;

    #[test]
    fn a_config_says_the_model_it_was_written_for() {
        let model = Model { seed: None, tied: false, rope_theta: 5e5, ..small_model() };
        assert_eq!(read(write(&model, Some(0)).to_string().as_bytes()), Ok(model));
    }

    #[test]
    fn numbers_that_cannot_be_are_named() {
        let cases = [
            ("vocab_size", json!(0), "vocab_size is 0"),
            ("hidden_size", json!(1_000_000), "hidden_size is 1000000"),
            ("hidden_size", json!(18), "must divide"),
            ("num_key_value_heads", json!(3), "must divide"),
            ("rms_norm_eps", json!("small"), "must be a number"),
            ("attention_bias", json!(true), "without biases"),
            ("model_type", json!("gpt2"), "only llama"),
            ("head_dim", json!(64), "head_dim is 64"),
            ("rope_parameters", json!({"rope_type": "yarn", "rope_theta": 1e4}), "only default"),
            ("num_hidden_layers", json!(-1), "must be 1 to 1000"),
        ];
        for (name, value, message) in cases {
            let mut config = write(&small_model(), None);
            config[name] = value;
            let fault = read(config.to_string().as_bytes()).unwrap_err().to_string();
            assert!(fault.contains(message), "{name}: {fault}");
        }
        assert!(read(b"{").unwrap_err().to_string().contains("does not parse"));
        assert!(read(b"{}").unwrap_err().to_string().contains("is missing"));
    }
}
