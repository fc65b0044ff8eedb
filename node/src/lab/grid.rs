//! A grid file: many experiments from a few lines. Decides what may be written and which experiments it stands for; every
//! fault of a file is found at once, before anything runs.
//!
//! A list of values makes one experiment for each; several lists make their product. A list of [round, value] pairs is a
//! schedule, and one value.

use super::{Experiment, MOMENTUM, Method, OnMiss, resolve};
use crate::preset::{PresetError, Template};
use covey_proto::run::{Run, UIDS};
use covey_proto::{Digest, Round};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use toml::{Table, Value};

/// Runs that one grid may ask for.
const RUNS_MAX: usize = 10_000;
/// Evaluations of a run, about, unless `every` says otherwise.
const EVALUATIONS: u32 = 12;
/// What may stand at the top, and in an experiment, beside `set`.
const TOP: [&str; 9] = ["title", "experiment", "sequences", "seeds", "preset", "rounds", "steps", "miners", "every"];
const OWN: [&str; 11] =
    ["name", "method", "seeds", "preset", "rounds", "steps", "miners", "every", "momentum", "miss", "ef_on_miss"];
/// Learning rates as numbers of their own, at the top or in an experiment, and what they say of the run.
const RATE: &str = "rate";
const EMBED_RATE: &str = "embed_rate";
const RATES: [(&str, &str); 2] = [(RATE, "inner.rate"), (EMBED_RATE, "inner.embed_rate")];
/// Two ways to say one thing.
const SAME: [(&str, &str); 6] = [
    ("rounds", "steps"),
    ("steps", "rounds"),
    (RATE, "inner.rate"),
    ("inner.rate", RATE),
    (EMBED_RATE, "inner.embed_rate"),
    ("inner.embed_rate", EMBED_RATE),
];

/// Why a file is no grid.
#[derive(Debug, thiserror::Error)]
pub enum GridError {
    /// It cannot be read.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// It is no TOML.
    #[error("{path} does not parse: {error}")]
    Toml {
        /// The file.
        path: String,
        /// What is wrong.
        error: toml::de::Error,
    },
    /// What cannot be, all of it.
    #[error("{path} is not a grid:\n{}", .faults.iter().map(|fault| format!("  {fault}")).collect::<Vec<_>>().join("\n"))]
    Faults {
        /// The file.
        path: String,
        /// What is wrong, one sentence each.
        faults: Vec<String>,
    },
}

/// What is wrong with one value of an experiment.
#[derive(Debug, thiserror::Error)]
enum ValueFault {
    /// A preset that is no text.
    #[error("preset is {got}; it must be a name, like \"demo\"")]
    PresetName { got: Value },
    /// No such preset, or settings that it cannot have.
    #[error(transparent)]
    Preset(#[from] PresetError),
    /// A learning rate that is no number.
    #[error("{key} is {got}; it must be a number, like 0.008")]
    Rate { key: &'static str, got: Value },
    /// No whole number, or one that is out of range.
    #[error("{key} is {got}; it must be a whole number from {least} to {most}")]
    Whole { key: String, got: Value, least: u64, most: u64 },
    /// No text where one of several names must stand.
    #[error("{key} is {got}; it must be a text")]
    Text { key: String, got: Value },
    /// None of the names that are known there.
    #[error("{key}: {why}")]
    Name { key: String, why: String },
    /// Steps at which no round of the schedule ends.
    #[error("steps is {steps}, but {rounds} rounds of inner.steps make {sum}")]
    Steps { steps: u32, rounds: u32, sum: u64 },
}

/// What a grid file asks for.
#[derive(Clone, Debug)]
pub struct Grid {
    /// What it is about, for the table and the plots.
    pub title: String,
    /// The rows of the table, in the file's order.
    pub rows: Vec<Row>,
}

/// One method with one set of numbers: as many experiments as it has seeds.
#[derive(Clone, Debug)]
pub struct Row {
    /// The experiment's name, and the values that its lists took.
    pub name: String,
    /// The method.
    pub method: Method,
    /// Of the data order.
    pub seeds: Vec<u64>,
    template: Template,
    /// With the digest of no data: [`Row::experiment`] puts the right one in.
    without_data: Experiment,
}

impl Row {
    /// Tokens of the model's vocabulary, as the preset has it.
    pub fn vocabulary(&self) -> u32 {
        self.without_data.run.model.vocabulary
    }

    /// The experiment of `seed` on a data set of this digest and vocabulary.
    ///
    /// # Errors
    /// A vocabulary that the model cannot have.
    pub fn experiment(&self, seed: u64, data: Digest, vocabulary: u32) -> Result<Experiment, PresetError> {
        let template = self.template.clone().with(&[format!("model.vocabulary={vocabulary}")])?;
        let run = Arc::new(resolve(&template, data)?);
        Ok(Experiment { run, seed, ..self.without_data.clone() })
    }
}

impl Grid {
    /// Reads a grid file. A preset that is a file is looked for from the working directory, as on the command line.
    ///
    /// # Errors
    /// No file, no TOML, or every fault at once.
    pub fn load(path: &Path) -> Result<Grid, GridError> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Grid::parse(&name, &text),
            Err(error) => Err(GridError::File { path: name, error }),
        }
    }

    /// Reads the text of a grid file; `path` is for messages.
    ///
    /// # Errors
    /// No TOML, or every fault at once.
    pub fn parse(path: &str, text: &str) -> Result<Grid, GridError> {
        let top: Table = text.parse().map_err(|error| GridError::Toml { path: path.to_owned(), error })?;
        let mut faults = Vec::new();
        let grid = read(&top, &mut faults);
        // What is wrong at the top is wrong for every experiment.
        let mut seen = BTreeSet::new();
        faults.retain(|fault| seen.insert(fault.clone()));
        if faults.is_empty() { Ok(grid) } else { Err(GridError::Faults { path: path.to_owned(), faults }) }
    }
}

/// An experiment as written: each of its numbers with the values it takes.
struct Written {
    name: String,
    seeds: Vec<u64>,
    sequences: u64,
    axes: Vec<(String, Vec<Value>)>,
}

fn read(top: &Table, faults: &mut Vec<String>) -> Grid {
    unknown("", top, &TOP, faults);
    let title = match top.get("title") {
        None => "Experiments".to_owned(),
        Some(Value::String(title)) => title.clone(),
        Some(other) => {
            faults.push(format!("title is {other}; it must be a text"));
            String::new()
        }
    };
    let experiments: Vec<&Table> = match top.get("experiment") {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_table).collect(),
        _ => Vec::new(),
    };
    if experiments.is_empty() {
        faults.push("there is no experiment: write [[experiment]], then name = \"...\" and method = \"swarm\"".into());
    }
    let mut names = BTreeSet::new();
    let mut rows = Vec::new();
    for (number, experiment) in experiments.into_iter().enumerate() {
        let before = faults.len();
        let written = written(top, experiment, number + 1, faults);
        if !names.insert(written.name.clone()) {
            faults.push(format!("{}: another experiment has this name", written.name));
        }
        if faults.len() == before {
            rows.extend(product(&written, faults));
        }
    }
    let runs: usize = rows.iter().map(|row: &Row| row.seeds.len()).sum();
    if runs > RUNS_MAX {
        faults.push(format!("it asks for {runs} runs; the limit is {RUNS_MAX}"));
    }
    let vocabularies: BTreeSet<u32> = rows.iter().map(Row::vocabulary).collect();
    if vocabularies.len() > 1 {
        faults.push(format!("its presets have vocabularies of {vocabularies:?} tokens: losses could not be compared"));
    }
    Grid { title, rows }
}

fn unknown(place: &str, table: &Table, known: &[&str], faults: &mut Vec<String>) {
    for key in table.keys().filter(|key| !known.contains(&key.as_str()) && *key != "set" && !is_rate(key)) {
        let known = known.join(", ");
        faults.push(format!("{place}no key {key:?} is known here; there are {known}, {RATE}, {EMBED_RATE}, set"));
    }
}

fn is_rate(key: &str) -> bool {
    RATES.iter().any(|(rate, _)| *rate == key)
}

fn written(top: &Table, own: &Table, number: usize, faults: &mut Vec<String>) -> Written {
    let name = match own.get("name") {
        Some(Value::String(name)) if !name.is_empty() => name.clone(),
        _ => {
            faults.push(format!("experiment {number} has no name: write name = \"...\""));
            format!("experiment {number}")
        }
    };
    let place = format!("{name}: ");
    unknown(&place, own, &OWN, faults);
    if !own.contains_key("method") {
        faults.push(format!("{place}no method: write method = \"swarm\" or another"));
    }
    for (table, place) in [(top, ""), (own, place.as_str())] {
        settings(place, table, faults);
    }
    let seeds = seeds(own.get("seeds").or(top.get("seeds")), &place, faults);
    let sequences = match top.get("sequences") {
        None => 512,
        Some(value) => whole(value, "sequences", 1, 1 << 32).unwrap_or_else(|fault| {
            faults.push(fault.to_string());
            1
        }),
    };
    let mut values: BTreeMap<String, Value> = BTreeMap::new();
    for table in [top, own] {
        let set = table.get("set").and_then(Value::as_table);
        let of_set = set.into_iter().flatten();
        let plain = table.iter().filter(|(key, _)| is_rate(key) || OWN[3..].contains(&key.as_str()));
        for (key, value) in plain.chain(of_set) {
            // Of two that say the same thing, an experiment's own word counts.
            if let Some((_, other)) = SAME.iter().find(|(one, _)| one == key) {
                values.remove(*other);
            }
            values.insert(key.clone(), value.clone());
        }
    }
    values.extend(own.get("method").map(|method| ("method".to_owned(), method.clone())));
    let axes: Vec<(String, Vec<Value>)> = values.into_iter().map(|(key, value)| (key, listed(value))).collect();
    for (key, values) in &axes {
        if values.is_empty() {
            faults.push(format!("{place}{key} is an empty list"));
        }
        if values.iter().enumerate().any(|(i, value)| values[..i].contains(value)) {
            faults.push(format!("{place}{key} lists a value twice"));
        }
    }
    Written { name, seeds, sequences, axes }
}

/// What is wrong with a table's settings as a table.
fn settings(place: &str, table: &Table, faults: &mut Vec<String>) {
    let none = Table::new();
    let set = match table.get("set") {
        None => &none,
        Some(Value::Table(set)) => set,
        Some(other) => {
            faults.push(format!("{place}set is {other}; it must be a table like {{ \"compress.k\" = 64 }}"));
            &none
        }
    };
    for key in set.keys().filter(|key| !key.contains('.')) {
        faults.push(format!("{place}set has {key:?}; it needs a section and a key, in quotes, like \"compress.k\""));
    }
    if table.contains_key("rounds") && table.contains_key("steps") {
        faults.push(format!("{place}both rounds and steps: steps is H added up over the rounds, leave one out"));
    }
    for (rate, of_run) in RATES {
        if table.contains_key(rate) && set.contains_key(of_run) {
            faults.push(format!("{place}both {rate} and {of_run}: leave one out"));
        }
    }
}

fn seeds(value: Option<&Value>, place: &str, faults: &mut Vec<String>) -> Vec<u64> {
    let values = value.map_or_else(|| vec![Value::Integer(1)], |value| listed(value.clone()));
    let seeds: Vec<u64> = values.iter().filter_map(|value| u64::try_from(value.as_integer()?).ok()).collect();
    let distinct: BTreeSet<u64> = seeds.iter().copied().collect();
    if seeds.is_empty() || seeds.len() != values.len() || distinct.len() != seeds.len() {
        faults.push(format!("{place}seeds must be whole numbers from 0, each once, like [1, 2, 3]"));
    }
    seeds
}

/// The values that a value stands for: itself, or each of a list that is no schedule.
fn listed(value: Value) -> Vec<Value> {
    let pair = |value: &Value| matches!(value, Value::Array(pair) if pair.len() == 2 && pair.iter().all(is_number));
    match value {
        Value::Array(list) if list.is_empty() || !list.iter().all(pair) => list,
        other => vec![other],
    }
}

fn is_number(value: &Value) -> bool {
    value.is_integer() || value.is_float()
}

/// One row for each choice of values, the last axis fastest.
fn product(written: &Written, faults: &mut Vec<String>) -> Vec<Row> {
    let count = written.axes.iter().try_fold(1usize, |count, (_, values)| count.checked_mul(values.len()));
    let Some(count) = count.filter(|count| *count <= RUNS_MAX) else {
        faults.push(format!("{}: its lists make more than {RUNS_MAX} experiments", written.name));
        return Vec::new();
    };
    let mut rows = Vec::new();
    for number in 0..count {
        let mut rest = number;
        let mut chosen = BTreeMap::new();
        for (key, values) in written.axes.iter().rev() {
            chosen.insert(key.as_str(), &values[rest % values.len()]);
            rest /= values.len();
        }
        let varied = written.axes.iter().filter(|(_, values)| values.len() > 1);
        let said = varied.map(|(key, _)| match brief(chosen[key.as_str()]) {
            // A method's name says what it is.
            value if key == "method" => format!(", {value}"),
            value => format!(", {key} {value}"),
        });
        let name = format!("{}{}", written.name, said.collect::<String>());
        match row(&name, &chosen, written) {
            Ok(row) => rows.push(row),
            Err(more) => faults.extend(more.into_iter().map(|fault| format!("{name}: {fault}"))),
        }
    }
    rows
}

fn brief(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn row(name: &str, chosen: &BTreeMap<&str, &Value>, written: &Written) -> Result<Row, Vec<String>> {
    let mut faults = Vec::new();
    let method: Method = parsed(chosen.get("method"), "method", &mut faults).unwrap_or(Method::Swarm);
    if faults.is_empty() {
        only_for(method, chosen, &mut faults);
    }
    let ef_on_miss: OnMiss = parsed(chosen.get("ef_on_miss"), "ef_on_miss", &mut faults).unwrap_or_default();
    let mut share = |key: &str, otherwise: f64| match chosen.get(key).map(|value| number(value)) {
        None => otherwise,
        Some(Some(share)) if (0.0..=1.0).contains(&share) => share,
        Some(_) => {
            faults.push(format!("{key} is {}; it must be 0 to 1", chosen[key]));
            otherwise
        }
    };
    let (miss, momentum) = (share("miss", 0.0), share("momentum", MOMENTUM));
    let mut count = |key: &str, most: u64| {
        let value = chosen.get(key)?;
        whole(value, key, 1, most)
            .map_err(|fault| faults.push(fault.to_string()))
            .ok()
            .and_then(|count| u32::try_from(count).ok())
    };
    let miners = count("miners", UIDS as u64).unwrap_or(4);
    let (rounds, every, steps) = (count("rounds", 1_000_000), count("every", 1_000_000), count("steps", 1_000_000));
    let template = template(method, chosen).map_err(|fault| faults.push(fault.to_string())).ok();
    let Some(template) = template.filter(|_| faults.is_empty()) else { return Err(faults) };
    let one = |fault: ValueFault| vec![fault.to_string()];
    let run = resolve(&template, Digest::ZERO).map_err(|error| one(error.into()))?;
    let rounds = match (rounds, steps) {
        (Some(rounds), _) => rounds,
        (None, Some(steps)) => rounds_of(&run, steps).map_err(one)?,
        (None, None) => template.rounds().max(1),
    };
    let template = with_rates(template, chosen, rounds).map_err(one)?;
    let run = Arc::new(resolve(&template, Digest::ZERO).map_err(|error| one(error.into()))?);
    let every = every.unwrap_or_else(|| rounds.div_ceil(EVALUATIONS));
    let (seed, sequences) = (0, written.sequences);
    let without_data = Experiment { method, run, miners, rounds, seed, every, sequences, momentum, miss, ef_on_miss };
    Ok(Row { name: name.to_owned(), method, seeds: written.seeds.clone(), template, without_data })
}

/// Settings that a method has no use for are a mistake in the file.
fn only_for(method: Method, chosen: &BTreeMap<&str, &Value>, faults: &mut Vec<String>) {
    let joint = method.is_joint();
    let rules = [
        ("momentum", method == Method::Diloco, "diloco"),
        ("miss", joint, "swarm, exact, dense and diloco"),
        ("ef_on_miss", matches!(method, Method::Swarm | Method::Exact), "swarm and exact"),
    ];
    for (key, fits, whose) in rules {
        if chosen.contains_key(key) && !fits {
            faults.push(format!("{key} is for {whose}, not for {method}"));
        }
    }
}

fn template(method: Method, chosen: &BTreeMap<&str, &Value>) -> Result<Template, ValueFault> {
    let preset = match chosen.get("preset") {
        None => "demo",
        Some(Value::String(name)) => name,
        Some(&other) => return Err(ValueFault::PresetName { got: other.clone() }),
    };
    let default = method.defaults().filter(|(key, _)| !chosen.contains_key(key));
    let mut changes: Vec<String> = default.map(|(key, value)| format!("{key}={value}")).into_iter().collect();
    let set = chosen.iter().filter(|(key, _)| !is_rate(key) && !OWN.contains(key));
    changes.extend(set.map(|(key, value)| format!("{key}={value}")));
    Ok(Template::load(preset)?.with(&changes)?)
}

/// Rounds whose steps add up to `steps`.
fn rounds_of(run: &Run, steps: u32) -> Result<u32, ValueFault> {
    let mut sum = 0u64;
    let mut rounds = 0;
    while sum < u64::from(steps) {
        sum += (run.inner.steps.count(Round(rounds)) as u64).max(1);
        rounds += 1;
    }
    let exact = sum == u64::from(steps);
    exact.then_some(rounds).ok_or(ValueFault::Steps { steps, rounds, sum })
}

/// Each rate that is a number: held for two fifths of the rounds, then linear to a tenth at the end, as the demo preset's.
fn with_rates(template: Template, chosen: &BTreeMap<&str, &Value>, rounds: u32) -> Result<Template, ValueFault> {
    let mut changes = Vec::new();
    for (key, of_run) in RATES {
        let Some(&value) = chosen.get(key) else { continue };
        let rate = number(value).ok_or_else(|| ValueFault::Rate { key, got: value.clone() })?;
        let (held, last) = ((rounds * 2 / 5).clamp(1, rounds), rate / 10.0);
        let middle = if held < rounds { format!("[{held}, {rate}], ") } else { String::new() };
        changes.push(format!("{of_run}=[[0, {rate}], {middle}[{rounds}, {last}]]"));
    }
    Ok(template.with(&changes)?)
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64))
}

fn whole(value: &Value, key: &str, least: u64, most: u64) -> Result<u64, ValueFault> {
    let whole = value.as_integer().and_then(|whole| u64::try_from(whole).ok());
    whole.filter(|whole| (least..=most).contains(whole)).ok_or_else(|| ValueFault::Whole {
        key: key.to_owned(),
        got: value.clone(),
        least,
        most,
    })
}

fn parsed<T: std::str::FromStr<Err = String>>(
    value: Option<&&Value>,
    key: &str,
    faults: &mut Vec<String>,
) -> Option<T> {
    let read = |value: &Value| match value {
        Value::String(text) => text.parse().map_err(|why| ValueFault::Name { key: key.to_owned(), why }),
        other => Err(ValueFault::Text { key: key.to_owned(), got: other.clone() }),
    };
    read(value?).map_err(|fault| faults.push(fault.to_string())).ok()
}
