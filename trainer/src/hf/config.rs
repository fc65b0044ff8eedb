//! config.json to and from a model's numbers. Foreign files are checked here, with the limits of a run's model; what is not
//! computed as `transformers` does is refused by its name.

use covey_proto::run::Model;
use covey_proto::run::RopeScaling;
use serde_json::{Map, Value, json};

/// Elements of the largest model that is read; a run's limit.
const ELEMENTS_MAX: u64 = 100_000_000_000;

/// What config.json says of `model`, whose parameters are written as `dtype`; `end_of_text` is the token that ends a
/// document, if the tokenizer has one.
pub(super) fn write(model: &Model, dtype: &str, end_of_text: Option<u32>) -> Value {
    let mut config = json!({
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
        "dtype": dtype,
        "torch_dtype": dtype,
        "hidden_act": "silu",
        "attention_bias": false,
        "attention_dropout": 0.0,
        "mlp_bias": false,
        "initializer_range": 0.02,
        "pretraining_tp": 1,
        "use_cache": true,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
    });
    if let Some(scaling) = &model.rope_scaling {
        let scaling = json!({
            "rope_type": "llama3",
            "rope_theta": model.rope_theta,
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_frequency_factor,
            "high_freq_factor": scaling.high_frequency_factor,
            "original_max_position_embeddings": scaling.original_sequence,
        });
        config["rope_scaling"] = scaling.clone();
        config["rope_parameters"] = scaling;
    }
    config
}

/// The model that config.json speaks of, or what is wrong with it. Its state is not drawn, so it has no seed.
pub(super) fn read(bytes: &[u8]) -> Result<Model, ConfigFault> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| ConfigFault::Json(error.to_string()))?;
    let config = Config(value.as_object().ok_or(ConfigFault::NoObject)?);
    refuse_other_kinds(&config)?;
    let (theta, scaling) = rope(&config)?;
    let heads = config.count("num_attention_heads", None, 1024)?;
    let mut model = Model {
        vocabulary: config.count("vocab_size", None, 1 << 20)?,
        width: config.count("hidden_size", None, 1 << 16)?,
        layers: config.count("num_hidden_layers", None, 1000)?,
        heads,
        kv_heads: config.count("num_key_value_heads", Some(heads), 1024)?,
        head: None,
        feed_forward: config.count("intermediate_size", None, 1 << 18)?,
        sequence: config.count("max_position_embeddings", None, 1 << 20)?,
        rope_theta: theta,
        rope_scaling: scaling,
        norm_epsilon: config.number("rms_norm_eps", Some(1e-6))?,
        tied: config.flag("tie_word_embeddings", false)?,
        seed: None,
    };
    if let Some(head) = config.optional_count("head_dim", 1 << 16)? {
        // A model says its heads' width only where it does not follow.
        model.head = Some(head).filter(|head| head.checked_mul(heads) != Some(model.width));
    }
    check(&model)?;
    Ok(model)
}

/// The first number in which two models differ, by its name in config.json; sequences and seeds are not looked at.
pub(super) fn first_difference(one: &Model, other: &Model) -> Option<&'static str> {
    let differences = [
        ("vocab_size", one.vocabulary != other.vocabulary),
        ("hidden_size", one.width != other.width),
        ("num_hidden_layers", one.layers != other.layers),
        ("num_attention_heads", one.heads != other.heads),
        ("num_key_value_heads", one.kv_heads != other.kv_heads),
        ("head_dim", one.head_width() != other.head_width()),
        ("intermediate_size", one.feed_forward != other.feed_forward),
        ("rope_theta", one.rope_theta != other.rope_theta),
        ("rope_scaling", one.rope_scaling != other.rope_scaling),
        ("rms_norm_eps", one.norm_epsilon != other.norm_epsilon),
        ("tie_word_embeddings", one.tied != other.tied),
    ];
    differences.into_iter().find_map(|(name, differs)| differs.then_some(name))
}

fn refuse_other_kinds(config: &Config<'_>) -> Result<(), ConfigFault> {
    config.only("model_type", &["llama"])?;
    config.only("hidden_act", &["silu"])?;
    for unsupported in ["attention_bias", "mlp_bias"] {
        if config.flag(unsupported, false)? {
            return Err(unsupported_value(unsupported, &Value::Bool(true), "a model without biases"));
        }
    }
    match config.0.get("quantization_config") {
        None | Some(Value::Null) => Ok(()),
        Some(value) => Err(unsupported_value("quantization_config", value, "a model that is not quantised")),
    }
}

/// Base and scaling of the rotary frequencies. transformers 5 has both in `rope_parameters`, 4 has `rope_theta` and
/// `rope_scaling`, and calls the kind `type` in its older files.
fn rope(config: &Config<'_>) -> Result<(f64, Option<RopeScaling>), ConfigFault> {
    let found = ["rope_parameters", "rope_scaling"].into_iter().find_map(|name| match config.0.get(name) {
        None | Some(Value::Null) => None,
        Some(value) => Some((name, value)),
    });
    let top = |theta: Option<f64>| theta.map_or_else(|| config.number("rope_theta", Some(10_000.0)), Ok);
    let Some((name, value)) = found else { return Ok((top(None)?, None)) };
    let rope = Config(value.as_object().ok_or_else(|| value_fault(name, value, "an object"))?);
    let theta = match rope.0.get("rope_theta") {
        Some(theta) => Some(theta.as_f64().ok_or_else(|| value_fault("rope_theta", theta, "a number"))?),
        None => None,
    };
    if rope.number("partial_rotary_factor", Some(1.0))? != 1.0 {
        return Err(unsupported_value("partial_rotary_factor", &rope.0["partial_rotary_factor"], "1"));
    }
    let kind = ["rope_type", "type"].into_iter().find_map(|kind| rope.0.get(kind));
    let scaling = match kind.map(|kind| (kind, kind.as_str())) {
        None | Some((_, Some("default"))) => None,
        Some((_, Some("llama3"))) => Some(RopeScaling {
            factor: rope.number("factor", None)?,
            low_frequency_factor: rope.number("low_freq_factor", None)?,
            high_frequency_factor: rope.number("high_freq_factor", None)?,
            original_sequence: rope.count("original_max_position_embeddings", None, 1 << 20)?,
        }),
        Some((kind, _)) => return Err(unsupported_value("rope_type", kind, "default or llama3")),
    };
    Ok((top(theta)?, scaling))
}

fn check(model: &Model) -> Result<(), ConfigFault> {
    let divides = (model.head.is_some() || model.width.is_multiple_of(model.heads))
        && model.heads.is_multiple_of(model.kv_heads)
        && model.head_width().is_multiple_of(2)
        && model.head_width() > 0;
    if !divides {
        return Err(ConfigFault::Heads);
    }
    if !(model.rope_theta > 0.0 && model.rope_theta < 1e12 && model.norm_epsilon > 0.0 && model.norm_epsilon < 1e12) {
        return Err(ConfigFault::Range);
    }
    if let Some(scaling) = &model.rope_scaling {
        let sane = scaling.factor >= 1.0
            && scaling.factor < 1e6
            && scaling.low_frequency_factor > 0.0
            && scaling.low_frequency_factor < scaling.high_frequency_factor
            && scaling.high_frequency_factor < 1e6;
        if !sane {
            return Err(ConfigFault::Scaling);
        }
    }
    let (width, ff) = (u64::from(model.width), u64::from(model.feed_forward));
    let attention = u64::from(model.heads) * u64::from(model.head_width());
    let elements =
        u64::from(model.vocabulary) * width * 2 + u64::from(model.layers) * (4 * width * attention + 3 * width * ff);
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
    #[error(
        "hidden_size must divide by num_attention_heads into an even number, unless head_dim says an even one, and \
         num_attention_heads by num_key_value_heads"
    )]
    Heads,
    /// Numbers of no use.
    #[error("rope_theta and rms_norm_eps must be above 0 and below 1e12")]
    Range,
    /// A scaling of no use.
    #[error("llama3 scaling needs a factor of at least 1, and 0 < low_freq_factor < high_freq_factor")]
    Scaling,
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
        let count = self.optional_count(name, max)?.or(default);
        count.ok_or_else(|| ConfigFault::Missing(name.to_owned()))
    }
    fn optional_count(&self, name: &str, max: u32) -> Result<Option<u32>, ConfigFault> {
        let Some(value) = self.0.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
        let count =
            value.as_u64().and_then(|count| u32::try_from(count).ok()).filter(|count| (1..=max).contains(count));
        count.map(Some).ok_or_else(|| value_fault(name, value, &format!("1 to {max}")))
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

    fn given(model: Model) -> Model {
        Model { seed: None, ..model }
    }

    fn scaling() -> RopeScaling {
        RopeScaling { factor: 8.0, low_frequency_factor: 1.0, high_frequency_factor: 4.0, original_sequence: 8192 }
    }

    #[test]
    fn a_config_says_the_model_it_was_written_for() {
        let plain = given(Model { tied: false, rope_theta: 5e5, ..small_model() });
        let scaled = Model { head: Some(6), rope_scaling: Some(scaling()), ..plain.clone() };
        for model in [plain, scaled] {
            assert_eq!(read(write(&model, "float32", Some(0)).to_string().as_bytes()), Ok(model));
        }
    }

    #[test]
    fn both_spellings_of_a_scaling_are_read_and_all_others_refused_by_name() {
        let of = |name: &str, rope: Value, theta: Option<f64>| {
            let mut config = write(&small_model(), "float32", None);
            let fields = config.as_object_mut().unwrap();
            fields.remove("rope_parameters");
            fields.remove("rope_theta");
            fields.insert(name.to_owned(), rope);
            fields.extend(theta.map(|theta| ("rope_theta".to_owned(), theta.into())));
            read(config.to_string().as_bytes()).map(|model| (model.rope_theta, model.rope_scaling))
        };
        let llama3 = |kind: &str| {
            json!({ kind: "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192 })
        };
        let expected = Ok((5e5, Some(scaling())));
        assert_eq!(of("rope_scaling", llama3("rope_type"), Some(5e5)), expected);
        assert_eq!(of("rope_scaling", llama3("type"), Some(5e5)), expected);
        let mut five = llama3("rope_type");
        five["rope_theta"] = 5e5.into();
        assert_eq!(of("rope_parameters", five, None), expected);
        assert_eq!(of("rope_scaling", Value::Null, Some(7e4)), Ok((7e4, None)));
        assert_eq!(of("rope_scaling", Value::Null, None), Ok((1e4, None)), "transformers' default");
        for kind in ["linear", "dynamic", "yarn", "longrope"] {
            let fault = of("rope_scaling", json!({ "type": kind, "factor": 2.0 }), None).unwrap_err().to_string();
            assert!(fault.contains(kind) && fault.contains("default or llama3"), "{fault}");
        }
        let mut wrong = llama3("rope_type");
        wrong["low_freq_factor"] = 4.0.into();
        assert_eq!(of("rope_scaling", wrong, None), Err(ConfigFault::Scaling));
        let partly = json!({ "rope_type": "default", "partial_rotary_factor": 0.5 });
        assert!(of("rope_parameters", partly, None).unwrap_err().to_string().contains("partial_rotary_factor"));
    }

    #[test]
    fn numbers_that_cannot_be_are_named() {
        let cases = [
            ("vocab_size", json!(0), "vocab_size is 0"),
            ("hidden_size", json!(1_000_000), "hidden_size is 1000000"),
            ("num_key_value_heads", json!(3), "must divide"),
            ("rms_norm_eps", json!("small"), "must be a number"),
            ("attention_bias", json!(true), "without biases"),
            ("model_type", json!("gpt2"), "only llama"),
            ("head_dim", json!(63), "even"),
            ("quantization_config", json!({"bits": 4}), "not quantised"),
            ("rope_parameters", json!(3), "an object"),
            ("num_hidden_layers", json!(-1), "must be 1 to 1000"),
        ];
        for (name, value, message) in cases {
            let mut config = write(&small_model(), "float32", None);
            config[name] = value;
            let fault = read(config.to_string().as_bytes()).unwrap_err().to_string();
            assert!(fault.contains(message), "{name}: {fault}");
        }
        let mut config = write(&small_model(), "float32", None);
        config["hidden_size"] = json!(18);
        config.as_object_mut().unwrap().remove("head_dim");
        assert!(read(config.to_string().as_bytes()).unwrap_err().to_string().contains("must divide"));
        assert!(read(b"{").unwrap_err().to_string().contains("does not parse"));
        assert!(read(b"{}").unwrap_err().to_string().contains("is missing"));
    }

    #[test]
    fn models_of_other_shapes_are_told_apart_and_sequences_are_not() {
        let model = small_model();
        assert_eq!(first_difference(&model, &Model { sequence: 99, seed: None, ..model.clone() }), None);
        assert_eq!(first_difference(&model, &Model { feed_forward: 99, ..model.clone() }), Some("intermediate_size"));
    }
}
