//! Presets: run files without a chain and data, which a swarm or an operator fills in. One that goes on from somebody's
//! model has the model's shapes, and begins with its state.

use covey_proto::Digest;
use covey_proto::layout::Layout;
use covey_proto::message::{ANNOUNCEMENT_BYTES_MAX, BLOB_BYTES_MAX};
use covey_proto::run::{Chain, Data, Run, RunError};
use covey_sparseloco::state_root;
use covey_trainer::data::Dataset;
use covey_trainer::genesis::{NotDrawn, initial_state};
use covey_trainer::hf::{self, Companions, HfError};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The presets in this binary: name, run file, what it is for.
pub const PRESETS: [(&str, &str, &str); 4] = [
    ("demo", include_str!("../presets/demo.toml"), "a small model that learns in minutes on two cores"),
    ("covenant", include_str!("../presets/covenant.toml"), "the demo's model under Covenant-72B's own settings"),
    ("internet", include_str!("../presets/internet.toml"), "few bytes, seldom, on Bittensor's clock: for real runs"),
    ("tiny", include_str!("../presets/tiny.toml"), "a toy for tests: seconds"),
];

/// Learning rate of a run that goes on from a model: those of presets are for models that they draw, far too high for one
/// that has learned.
const CONTINUED_RATE: f64 = 3e-4;
/// Keys of a preset's inner optimizer that suit what it draws, and not what somebody trained by AdamW.
const OPTIMIZER: [&str; 3] = ["optimizer", "momentum", "embed_rate"];
/// Shards of a contribution to a model that is gone on from, about: a preset's shards are cut for its own model.
const SHARDS: usize = 32;
/// Shards of its state, about.
const STATE_SHARDS: usize = 256;
/// Chunks of the largest shard, and elements of the largest state shard, that a run may have.
const SHARD_CHUNKS_MAX: usize = 8192;
const STATE_ELEMENTS_MAX: usize = BLOB_BYTES_MAX / 4;
/// Momentum of Muon where nothing else is said: its authors'.
const MOMENTUM: f64 = 0.95;
/// What a change says to take a key of [`OPTIONAL`] away.
const NONE: &str = "none";
/// Keys that a run may lack, and a change may add or take away.
const OPTIONAL: [(&str, &str); 6] = [
    ("model", "seed"),
    ("model", "head"),
    ("model", "rope_scaling"),
    ("inner", "optimizer"),
    ("inner", "momentum"),
    ("inner", "embed_rate"),
];

/// Why there is no such run.
#[derive(Debug, thiserror::Error)]
pub enum PresetError {
    /// Neither a preset nor a file.
    #[error("no preset {name:?}; there are {}, and files that end in .toml", known())]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// A run file that cannot be read.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// Not a run file.
    #[error("{name} does not parse: {error}")]
    Toml {
        /// The preset or file.
        name: String,
        /// What is wrong.
        error: toml::de::Error,
    },
    /// Not a change to a number that is there.
    #[error("{change:?} is not SECTION.KEY=VALUE of a key that a run has, like compress.k=256")]
    Change {
        /// What was asked for.
        change: String,
    },
    /// Data without one training sequence.
    #[error("the data has no training sequence of {sequence} tokens; give more text")]
    NoSamples {
        /// Tokens of a sequence.
        sequence: u32,
    },
    /// The model to go on from cannot be read, or the run's model is not of its shape.
    #[error(transparent)]
    Model(#[from] HfError),
    /// A run that says neither how its first state is drawn nor which model it is.
    #[error(
        "{name} has no model.seed to draw the first state from: give the model that it goes on from (--from-model)"
    )]
    NoState {
        /// The preset or file.
        name: String,
        /// What says so.
        source: NotDrawn,
    },
    /// Two beginnings.
    #[error("model.seed is {seed}, but the run goes on from {}: leave one of them out", .model.display())]
    TwoStates {
        /// The seed.
        seed: u64,
        /// The model's folder.
        model: PathBuf,
    },
    /// Data of another tokenizer.
    #[error(
        "the data has {got} tokens, the model {model}: prepare the text with the model's own tokenizer (covey data prepare \
         --tokenizer)"
    )]
    Vocabulary {
        /// The data's.
        got: u32,
        /// The model's.
        model: u32,
    },
    /// Numbers that cannot be.
    #[error("{name}: {error}")]
    Run {
        /// The preset or file.
        name: String,
        /// What is wrong.
        error: RunError,
    },
}

fn known() -> String {
    PRESETS.map(|(name, ..)| name).join(", ")
}

/// A run without its chain and data.
#[derive(Clone, Debug)]
pub struct Template {
    name: String,
    table: toml::Table,
    /// The folder of the model that it goes on from.
    model: Option<PathBuf>,
}

impl Template {
    /// The preset of that name, or the run file at that path. A file's own `[chain]` and `[data]` are replaced.
    ///
    /// # Errors
    /// No such preset or file, or no run file.
    pub fn load(name: &str) -> Result<Template, PresetError> {
        let text = match PRESETS.iter().find(|(preset, ..)| *preset == name) {
            Some((_, text, _)) => (*text).to_owned(),
            None if name.ends_with(".toml") => {
                std::fs::read_to_string(name).map_err(|error| PresetError::File { path: name.to_owned(), error })?
            }
            None => return Err(PresetError::Unknown { name: name.to_owned() }),
        };
        Template::parse(name, &text)
    }

    /// A template from the text of a run file.
    ///
    /// # Errors
    /// Not TOML.
    pub fn parse(name: &str, text: &str) -> Result<Template, PresetError> {
        let table = text.parse().map_err(|error| PresetError::Toml { name: name.to_owned(), error })?;
        Ok(Template { name: name.to_owned(), table, model: None })
    }

    /// The template with some numbers changed: each `key.key=value`, the value as in TOML. `"none"` takes away what a run may
    /// lack. With the inner optimizer changes what only one of them has: Muon gets its momentum, unless there is one.
    ///
    /// # Errors
    /// No such key, or no value.
    pub fn with(mut self, changes: &[String]) -> Result<Template, PresetError> {
        for change in changes {
            let form = || PresetError::Change { change: change.clone() };
            let (path, value) = change.split_once('=').ok_or_else(form)?;
            let (section, key) = path.trim().split_once('.').ok_or_else(form)?;
            let mut parsed: toml::Table = format!("value = {value}").parse().map_err(|_| form())?;
            let value = parsed.remove("value").ok_or_else(form)?;
            let section_table = self.table.get_mut(section).and_then(toml::Value::as_table_mut).ok_or_else(form)?;
            if !section_table.contains_key(key) && !OPTIONAL.contains(&(section, key)) {
                return Err(form());
            }
            if OPTIONAL.contains(&(section, key)) && value.as_str() == Some(NONE) {
                section_table.remove(key);
            } else {
                section_table.insert(key.to_owned(), value);
            }
            if (section, key) == ("inner", "optimizer") {
                fit_momentum(section_table);
            }
        }
        Ok(self)
    }

    /// The template with the model in the folder `dir`, in Hugging Face's layout, to go on from: its shapes are the run's,
    /// its state is what the run begins with. Of the template's own model only the training sequence stays, if the model
    /// has one as long. What was chosen for that model gives way: the inner optimizer becomes AdamW at a constant
    /// rate, shards are cut as large as the model asks for. [`Template::with`] changes what should be otherwise.
    ///
    /// # Errors
    /// A folder that holds no LLaMA model, or one that is not supported.
    pub fn from_model(mut self, dir: &Path) -> Result<Template, PresetError> {
        let mut model = hf::load_model(dir)?;
        let sequence = self.table.get("model").and_then(|model| model.get("sequence")?.as_integer());
        let sequence = sequence.and_then(|sequence| u32::try_from(sequence).ok());
        model.sequence = sequence.unwrap_or(model.sequence).min(model.sequence);
        self.table.insert("model".into(), as_value(&model));
        if let Some(inner) = self.table.get_mut("inner").and_then(toml::Value::as_table_mut) {
            inner.retain(|key, _| !OPTIMIZER.contains(&key));
            inner.insert("rate".into(), CONTINUED_RATE.into());
        }
        if let Some(compress) = self.table.get_mut("compress").and_then(toml::Value::as_table_mut) {
            cut_shards(compress, &Layout::of(&model));
        }
        self.model = Some(dir.to_owned());
        Ok(self)
    }

    /// The folder of the model that it goes on from, if any.
    pub fn model(&self) -> Option<&Path> {
        self.model.as_deref()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tokens of its model's vocabulary, if it says.
    pub fn vocabulary(&self) -> Option<u32> {
        u32::try_from(self.table.get("model")?.get("vocabulary")?.as_integer()?).ok()
    }

    /// As many rounds as the learning-rate schedule has; 20 if it is constant.
    pub fn rounds(&self) -> u32 {
        let last = || self.table.get("inner")?.get("rate")?.as_array()?.last()?.as_array()?.first()?.as_integer();
        last().and_then(|round| u32::try_from(round).ok()).unwrap_or(20)
    }

    /// The run that this becomes on a chain, with this data: vocabulary and samples are the data's, the genesis state is
    /// computed, which takes four bytes a parameter of memory. `chain.genesis_state` is not looked at.
    ///
    /// # Errors
    /// Unknown or missing keys, numbers that cannot be, or too little data.
    pub fn fill(&self, mut chain: Chain, dataset: &Dataset) -> Result<Run, PresetError> {
        let mut data = Data { digest: dataset.digest(), samples: 1 };
        let template = self.for_data(dataset)?;
        chain.genesis_state = Digest::ZERO;
        let draft = template.resolve(&chain, &data)?;
        data.samples = dataset.samples(draft.model.sequence);
        if data.samples == 0 {
            return Err(PresetError::NoSamples { sequence: draft.model.sequence });
        }
        chain.genesis_state = template.genesis_state(&draft)?;
        template.resolve(&chain, &data)
    }

    /// The template with as many tokens as the data has. A small text has fewer than the preset asks for; a model that is
    /// gone on from keeps its own, of which the data may use fewer.
    ///
    /// # Errors
    /// Data with more tokens than the model.
    pub fn for_data(&self, dataset: &Dataset) -> Result<Template, PresetError> {
        let got = dataset.vocabulary();
        match (&self.model, self.vocabulary()) {
            (Some(_), Some(model)) if got > model => Err(PresetError::Vocabulary { got, model }),
            (Some(_), Some(_)) => Ok(self.clone()),
            _ => self.clone().with(&[format!("model.vocabulary={got}")]),
        }
    }

    /// The state root before round 0 of a run of this template: drawn, or of the model that it goes on from. Takes four
    /// bytes a parameter of memory.
    ///
    /// # Errors
    /// Neither is to be had, or the run's model is not of the shape of the one that it goes on from.
    pub fn genesis_state(&self, run: &Run) -> Result<Digest, PresetError> {
        let Some(dir) = &self.model else {
            return genesis_state(run).map_err(|source| PresetError::NoState { name: self.name.clone(), source });
        };
        if let Some(seed) = run.model.seed {
            return Err(PresetError::TwoStates { seed, model: dir.clone() });
        }
        // A number of the model that was changed besides: the state would not be the run's.
        Companions::of_model(dir, &run.model)?;
        given_state(run, dir).map_err(PresetError::from)
    }

    /// The run that this becomes on a chain, with data.
    ///
    /// # Errors
    /// Unknown or missing keys, or numbers that cannot be.
    pub fn resolve(&self, chain: &Chain, data: &Data) -> Result<Run, PresetError> {
        let mut table = self.table.clone();
        table.insert("chain".into(), as_value(chain));
        table.insert("data".into(), as_value(data));
        let text = toml::to_string(&table).expect("a table has a TOML form");
        Run::from_toml(&text).map_err(|error| PresetError::Run { name: self.name.clone(), error })
    }
}

/// Muon has a momentum, and nothing else has.
fn fit_momentum(inner: &mut toml::Table) {
    if inner.get("optimizer").and_then(toml::Value::as_str) == Some("muon") {
        inner.entry("momentum").or_insert(MOMENTUM.into());
    } else {
        inner.remove("momentum");
    }
}

/// Raises the size of shards to what a model of this layout asks for; where there are many all the same, less of each comes
/// with the announcement.
fn cut_shards(compress: &mut toml::Table, layout: &Layout) {
    let number = |compress: &toml::Table, key: &str| {
        compress.get(key).and_then(toml::Value::as_integer).and_then(|number| usize::try_from(number).ok())
    };
    let fitting = |all: usize, count: usize, max: usize| all.div_ceil(count).next_power_of_two().min(max);
    let chunks = fitting(layout.chunks(), SHARDS, SHARD_CHUNKS_MAX);
    let elements = fitting(layout.elements(), STATE_SHARDS, STATE_ELEMENTS_MAX);
    for (key, least) in [("shard_chunks", chunks), ("state_elements", elements)] {
        if number(compress, key).is_some_and(|now| now < least) {
            compress.insert(key.into(), (least as i64).into());
        }
    }
    let shards = layout.shards(number(compress, "shard_chunks").unwrap_or(chunks).max(1));
    // As a run checks it: 512 bytes, and 56 a shard besides what comes along.
    let room = ((ANNOUNCEMENT_BYTES_MAX - 512) / shards.max(1)).saturating_sub(56);
    if number(compress, "inline_max").is_some_and(|now| now > room) {
        compress.insert("inline_max".into(), (room as i64).into());
    }
}

/// The state root before round 0, as this binary draws it.
///
/// # Errors
/// The run begins with a model that is given, not drawn.
pub fn genesis_state(run: &Run) -> Result<Digest, NotDrawn> {
    Ok(state_root(&initial_state(&run.model)?, run.compress.state_elements as usize))
}

/// The root that the state of the model in the folder `dir` has in this run.
///
/// # Errors
/// The folder holds no model that is read.
pub fn given_state(run: &Run, dir: &Path) -> Result<Digest, HfError> {
    Ok(state_root(&hf::load(dir)?.1, run.compress.state_elements as usize))
}

fn as_value(value: &impl Serialize) -> toml::Value {
    toml::Value::try_from(value).expect("numbers and texts have a TOML form")
}

#[cfg(test)]
mod tests {
    use super::*;
    use covey_proto::Digest;

    #[test]
    fn every_preset_is_a_run() {
        let chain = Chain { genesis: Digest::ZERO, netuid: 1, start: 10, genesis_state: Digest::ZERO };
        for (name, ..) in PRESETS {
            let data = Data { digest: Digest::ZERO, samples: 1000 };
            let run = Template::load(name).unwrap().resolve(&chain, &data).unwrap();
            assert_eq!(Run::from_toml(&run.to_toml()).unwrap().id(), run.id(), "{name}");
            assert_eq!(Run::from_bytes(&run.to_bytes()).unwrap(), run, "{name}");
        }
    }

    /// A preset's shards are for its own model: of larger ones there would be thousands.
    #[test]
    fn shards_are_cut_as_large_as_the_model_asks_for() {
        let compress = |layout: &Layout| {
            let mut table: toml::Table = PRESETS[0].1.parse().unwrap();
            let mut compress = table.remove("compress").unwrap().as_table().unwrap().clone();
            cut_shards(&mut compress, layout);
            ["shard_chunks", "state_elements", "inline_max"].map(|key| compress[key].as_integer().unwrap())
        };
        let of = |rows: usize| Layout::new(vec![("a".into(), vec![rows, 4096])]);
        assert_eq!(compress(&of(64)), [64, 65_536, 16_384], "as the preset has it");
        assert_eq!(
            compress(&of(32_768)),
            [1024, 524_288, 16_312],
            "134 million parameters: 32 shards in half a megabyte"
        );
        let [chunks, elements, inline] = compress(&of(17_000_000));
        assert_eq!((chunks, elements), (8192, 1 << 22), "70 billion");
        let shards = of(17_000_000).shards(8192);
        assert!(512 + shards * (56 + inline as usize) <= ANNOUNCEMENT_BYTES_MAX, "{inline}");
    }

    #[test]
    fn a_change_may_add_what_a_run_may_lack_and_nothing_else() {
        let chain = Chain { genesis: Digest::ZERO, netuid: 1, start: 10, genesis_state: Digest::ZERO };
        let data = Data { digest: Digest::ZERO, samples: 1000 };
        let with = |changes: &[&str]| {
            let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
            Template::load("tiny").unwrap().with(&changes)
        };
        let muon = with(&["inner.optimizer=\"muon\"", "inner.momentum=0.95", "inner.embed_rate=0.064"]).unwrap();
        assert_eq!(muon.resolve(&chain, &data).unwrap().inner.momentum, Some(0.95));
        // The optimizer's own momentum comes and goes with it; what may lack is taken away again.
        let muon = with(&["inner.optimizer=\"muon\"", "inner.embed_rate=0.064"]).unwrap();
        assert_eq!(muon.resolve(&chain, &data).unwrap().inner.momentum, Some(MOMENTUM));
        let back = ["inner.optimizer=\"adamw\"", "inner.embed_rate=\"none\""].map(str::to_owned);
        let plain = with(&[]).unwrap().resolve(&chain, &data).unwrap();
        assert_eq!(muon.with(&back).unwrap().resolve(&chain, &data).unwrap().id(), plain.id());
        for strange in ["inner.surprise=1", "surprise.rate=1", "inner.rate", "rate=1", "inner.rate=?"] {
            assert!(matches!(with(&[strange]), Err(PresetError::Change { .. })), "{strange}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_name() {
        let text = format!("surprise = 1\n{}", PRESETS[0].1);
        let chain = Chain { genesis: Digest::ZERO, netuid: 1, start: 10, genesis_state: Digest::ZERO };
        let data = Data { digest: Digest::ZERO, samples: 1000 };
        let error = Template::parse("mine.toml", &text).unwrap().resolve(&chain, &data).unwrap_err().to_string();
        assert!(error.contains("surprise"), "{error}");
    }
}
