//! What must hold of any laboratory before its numbers mean something: methods that are the same give the same bits,
//! an interruption changes nothing, a wrong grid is refused with all that is wrong.

use super::grid::{Grid, GridError};
use super::progress::Progress;
use super::results::{FILE, Results, ResultsError};
use super::run::run_to_state;
use super::table::{Estimate, Table};
use super::{Experiment, Method, OnMiss, conduct, resolve};
use crate::preset::{PRESETS, Template};
use covey_proto::run::Quantiser;
use covey_proto::schedule::Schedule;
use covey_trainer::data::{Dataset, PrepareOptions, prepare, synthetic};
use covey_trainer::genesis::initial_state;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

fn data() -> Arc<Dataset> {
    static DATA: OnceLock<Arc<Dataset>> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().unwrap();
        let options = PrepareOptions { name: "synthetic".into(), vocabulary: 512, ..PrepareOptions::default() };
        prepare(synthetic::documents(1, 200_000), &options, &folder.path().join("data"), &mut |_| {}).unwrap();
        Arc::new(Dataset::open(&folder.path().join("data"), None).unwrap())
    };
    DATA.get_or_init(make).clone()
}

fn tiny(changes: &[&str]) -> Template {
    let vocabulary = format!("model.vocabulary={}", data().vocabulary());
    let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).chain([vocabulary]).collect();
    Template::load("tiny").unwrap().with(&changes).unwrap()
}

fn experiment(method: Method, miners: u32, changes: &[&str]) -> Experiment {
    let run = Arc::new(resolve(&tiny(changes), data().digest()).unwrap());
    Experiment { every: 2, sequences: 16, ..Experiment::new(method, run, miners, 3, 7) }
}

fn state(experiment: &Experiment) -> Vec<f32> {
    run_to_state(experiment, &data(), 2, |_, _| ()).unwrap().1
}

fn losses(experiment: &Experiment) -> Vec<f64> {
    super::run(experiment, &data(), 2, |_, _| ()).unwrap().iter().map(|point| point.loss).collect()
}

#[test]
fn one_miner_alone_is_dense_averaging_and_all_data_to_the_bit() {
    let alone = state(&experiment(Method::Alone, 1, &[]));
    assert!(alone == state(&experiment(Method::Dense, 1, &[])));
    assert!(alone == state(&experiment(Method::All, 1, &[])));
    assert!(alone != state(&experiment(Method::All, 2, &[])));
}

/// What is sent whole and unrounded by a single miner is its own training, whichever optimizer it has.
#[test]
fn one_miner_alone_is_itself_with_muon_too() {
    let muon = "inner.optimizer=\"muon\"";
    let alone = state(&experiment(Method::Alone, 1, &[muon]));
    assert!(alone == state(&experiment(Method::Dense, 1, &[muon])));
    assert!(alone == state(&experiment(Method::All, 1, &[muon])));
    assert!(alone != state(&experiment(Method::Alone, 1, &[])));
    let once = |method, set: &[&str]| state(&Experiment { rounds: 1, ..experiment(method, 1, set) });
    let (alone, sent) =
        (once(Method::Alone, &[muon]), once(Method::Exact, &[muon, "outer.rate=1.0", "compress.k=4096"]));
    let furthest = sent.iter().zip(&alone).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(furthest < 1e-6, "but for the last bits: {furthest}");
}

/// H only says how often the miners meet: whoever has nobody to meet trains the same.
#[test]
fn who_trains_alone_does_not_see_the_rounds() {
    let flat = "inner.rate=0.005";
    let one = experiment(Method::Alone, 1, &[flat, "inner.steps=4"]);
    let curve = super::run(&one, &data(), 1, |_, _| ()).unwrap();
    let state_of = |outer: &str| state(&experiment(Method::Alone, 1, &[flat, outer]));
    assert!(state_of("outer.rate=1.0") == state_of("outer.rate=0.5"), "no outer step");
    assert_eq!(curve.iter().map(|point| point.round).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(curve[1].tokens, 3 * 4 * 8 * 32);
    assert_eq!(curve[1].bytes, 0);
}

#[test]
fn momentum_of_nothing_is_dense_averaging() {
    let with = |momentum| Experiment { momentum, ..experiment(Method::Diloco, 2, &["outer.rate=0.5"]) };
    let dense = state(&experiment(Method::Dense, 2, &["outer.rate=0.5"]));
    assert!(state(&with(0.0)) == dense);
    assert!(state(&with(0.9)) != dense);
}

/// Sent by everyone, a coordinate is divided by R whatever ρ is.
#[test]
fn whoever_sends_everything_has_one_mean() {
    let swarm = |rho: &str, k: &str| state(&experiment(Method::Swarm, 2, &[rho, k]));
    assert!(swarm("outer.rho=0.0", "compress.k=4096") == swarm("outer.rho=1.0", "compress.k=4096"));
    assert!(swarm("outer.rho=0.0", "compress.k=64") != swarm("outer.rho=1.0", "compress.k=64"));
}

/// One miner that hands in everything, unrounded, stands after a round where it would alone: θ − (θ − trained), but for
/// the last bits.
#[test]
fn everything_unrounded_is_training_itself() {
    let once = |method, set: &[&str]| state(&Experiment { rounds: 1, ..experiment(method, 1, set) });
    let alone = once(Method::Alone, &[]);
    let furthest = |k: &str| {
        let exact = once(Method::Exact, &["outer.rate=1.0", k]);
        exact.iter().zip(&alone).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    let (all, few) = (furthest("compress.k=4096"), furthest("compress.k=64"));
    assert!(all < 1e-6 && few > 1e-4, "{all} and {few}");
}

/// The same values are chosen in the first round, and rounding shows.
#[test]
fn exact_values_are_another_swarm() {
    let with = |method| Experiment { rounds: 3, ..experiment(method, 2, &["compress.k=64"]) };
    let (exact, swarm) = (state(&with(Method::Exact)), state(&with(Method::Swarm)));
    assert!(exact != swarm && exact != initial_state(&with(Method::Exact).run.model).unwrap());
    let bytes = |method| super::run(&with(method), &data(), 1, |_, _| ()).unwrap()[0].bytes;
    assert!(bytes(Method::Exact) > 4 * bytes(Method::Swarm));
}

#[test]
fn cores_change_no_bit() {
    let one = experiment(Method::Swarm, 3, &[]);
    let with = |cores| run_to_state(&one, &data(), cores, |_, _| ()).unwrap();
    assert_eq!(with(1), with(3));
}

#[test]
fn schedules_of_k_and_h_are_followed_by_round() {
    let one = experiment(Method::Swarm, 1, &["compress.k=[[0, 512], [1, 64]]", "inner.steps=[[0, 2], [2, 5]]"]);
    let every_round = Experiment { every: 1, ..one };
    let curve = super::run(&every_round, &data(), 1, |_, _| ()).unwrap();
    let sent: Vec<u64> = [0, 1, 2].map(|i| curve[i].bytes - if i > 0 { curve[i - 1].bytes } else { 0 }).to_vec();
    assert!(sent[0] > 3 * sent[1] && sent[1].abs_diff(sent[2]) < sent[1] / 4, "{sent:?}");
    assert_eq!(curve.iter().map(|point| point.tokens / 256).collect::<Vec<_>>(), [2, 4, 9]);
}

#[test]
fn what_is_never_missed_and_what_is_always_missed() {
    for method in [Method::Swarm, Method::Dense, Method::Diloco] {
        let with = |miss, ef_on_miss| Experiment { miss, ef_on_miss, ..experiment(method, 2, &[]) };
        assert!(state(&with(0.0, OnMiss::Keep)) == state(&with(0.0, OnMiss::Encode)), "{method}");
        assert!(
            state(&with(1.0, OnMiss::Encode)) == initial_state(&with(1.0, OnMiss::Encode).run.model).unwrap(),
            "{method}"
        );
    }
}

/// Who misses depends on the seed and nothing else, and what is kept then shows in what is sent later.
#[test]
fn keeping_what_was_missed_is_another_swarm() {
    let base = experiment(Method::Swarm, 2, &["compress.k=64"]);
    let with = |miss, ef_on_miss| Experiment { rounds: 6, miss, ef_on_miss, ..base.clone() };
    let encode = state(&with(0.5, OnMiss::Encode));
    assert!(encode == state(&with(0.5, OnMiss::Encode)));
    assert!(encode != state(&with(0.0, OnMiss::Encode)));
    assert!(encode != state(&with(0.5, OnMiss::Keep)));
    let bytes = |miss| super::run(&with(miss, OnMiss::Encode), &data(), 2, |_, _| ()).unwrap()[0].bytes;
    assert!(bytes(1.0) > 0, "what is missed was sent");
}

#[test]
fn a_key_names_every_number_that_matters() {
    let base = experiment(Method::Swarm, 2, &[]);
    let others = [
        Experiment { method: Method::Dense, ..base.clone() },
        Experiment { miners: 3, ..base.clone() },
        Experiment { rounds: 4, ..base.clone() },
        Experiment { seed: 8, ..base.clone() },
        Experiment { every: 3, ..base.clone() },
        Experiment { sequences: 17, ..base.clone() },
        Experiment { momentum: 0.5, ..base.clone() },
        Experiment { miss: 0.5, ..base.clone() },
        Experiment { ef_on_miss: OnMiss::Keep, ..base.clone() },
        experiment(Method::Swarm, 2, &["compress.k=64"]),
    ];
    assert!(others.iter().all(|other| other.key() != base.key()));
    assert_eq!(base.key(), experiment(Method::Swarm, 2, &["outer.rate=1"]).key(), "one number, spelt in two ways");
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    let base = experiment(Method::Swarm, 2, &[]);
    let refused = |one: Experiment| super::run(&one, &data(), 1, |_, _| ()).unwrap_err().to_string();
    assert!(refused(Experiment { miners: 0, ..base.clone() }).contains("miners"));
    assert!(refused(Experiment { miners: 257, ..base.clone() }).contains("1 to 256"));
    assert!(refused(Experiment { rounds: 0, ..base.clone() }).contains("rounds"));
    assert!(refused(Experiment { every: 0, ..base }).contains("every"));
}

// ---- grids ----------------------------------------------------------------------------------------------------------

fn faults(text: &str) -> Vec<String> {
    match Grid::parse("wrong.toml", text) {
        Err(GridError::Faults { faults, .. }) => faults,
        other => panic!("{other:?}"),
    }
}

#[test]
fn lists_make_a_product_and_schedules_are_one_value() {
    let text = r#"
        preset = "tiny"
        seeds = [3, 4]
        rounds = 6
        [set]
        "compress.beta" = 0.5
        [[experiment]]
        name = "sparse"
        method = "swarm"
        miss = [0.0, 0.1]
        set = { "compress.k" = [64, [[0, 64], [2, 256]]], "compress.quantiser" = "two-magnitudes", "inner.steps" = [[0, 4], [3, 8]] }
        [[experiment]]
        name = "all data"
        method = "adamw"
        rounds = 2
        rate = 0.02
    "#;
    let grid = Grid::parse("grid.toml", text).unwrap();
    let names: Vec<&str> = grid.rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "sparse, compress.k 64, miss 0.0",
            "sparse, compress.k 64, miss 0.1",
            "sparse, compress.k [[0, 64], [2, 256]], miss 0.0",
            "sparse, compress.k [[0, 64], [2, 256]], miss 0.1",
            "all data",
        ]
    );
    let experiment = |row: usize| grid.rows[row].experiment(3, data().digest(), 512).unwrap();
    let (sparse, adamw) = (experiment(3), experiment(4));
    assert_eq!((sparse.miss, sparse.rounds, sparse.seed, adamw.rounds), (0.1, 6, 3, 2));
    assert_eq!(sparse.run.compress.k, Schedule::points(vec![(0, 64.0), (2, 256.0)]));
    assert_eq!(sparse.run.inner.steps, Schedule::points(vec![(0, 4.0), (3, 8.0)]));
    assert_eq!((sparse.run.compress.beta, sparse.run.compress.quantiser), (0.5, Quantiser::TwoMagnitudes));
    assert_eq!(adamw.run.inner.rate, Schedule::points(vec![(0, 0.02), (1, 0.02), (2, 0.002)]));
    assert_eq!(grid.rows.iter().map(|row| row.seeds.len()).sum::<usize>(), 10);
}

#[test]
fn steps_become_rounds_and_an_experiments_own_word_counts() {
    let text = r#"
        preset = "tiny"
        steps = 24
        rate = 0.02
        [[experiment]]
        name = "h"
        method = ["dense", "diloco"]
        set = { "inner.steps" = [3, 8, [[0, 3], [4, 6]]] }
        [[experiment]]
        name = "own"
        method = "diloco"
        momentum = 0.5
        rounds = 5
        set = { "inner.rate" = 0.01, "outer.rate" = 0.9 }
    "#;
    let grid = Grid::parse("grid.toml", text).unwrap();
    let of = |row: &super::grid::Row| row.experiment(1, data().digest(), 512).unwrap();
    let all: Vec<Experiment> = grid.rows.iter().map(of).collect();
    assert_eq!(all.iter().map(|one| one.rounds).collect::<Vec<_>>(), [8, 8, 3, 3, 6, 6, 5]);
    let outer: Vec<f64> = all.iter().map(|one| one.run.outer.rate.linear(0.0)).collect();
    assert_eq!(outer, [1.0, 0.7, 1.0, 0.7, 1.0, 0.7, 0.9]);
    assert_eq!((all[1].momentum, all[6].momentum), (0.9, 0.5));
    assert_eq!(all[6].run.inner.rate, Schedule::constant(0.01));
}

#[test]
fn a_wrong_grid_is_refused_with_all_that_is_wrong() {
    let text = r#"
        sedes = [1]
        preset = "tiny"
        rounds = 2
        [[experiment]]
        name = "a"
        method = "swram"
        [[experiment]]
        name = "b"
        method = "swarm"
        set = { "compress.q" = 64 }
        [[experiment]]
        name = "c"
        method = "alone"
        miss = 0.5
        [[experiment]]
        name = "c"
        method = "swarm"
        miss = 2.0
        miners = 0
        [[experiment]]
        name = "d"
        method = "swarm"
        set = { "outer.rho" = [0.5, 7.0] }
        [[experiment]]
        name = "e"
        method = "swarm"
        steps = 4
        rounds = 1
        set = { k = 3, "compress.k" = [] }
        [[experiment]]
        method = "swarm"
        seeds = [1, 1]
        mines = 3
    "#;
    let said = faults(text).join("\n");
    let wanted = [
        "\"sedes\"",
        "a: method: no method \"swram\"",
        "compress.q",
        "c: miss is for swarm, exact, dense and diloco",
        "c: another experiment",
        "d, outer.rho 7.0: ",
        "e: both rounds and steps",
        "e: set has \"k\"",
        "e: compress.k is an empty list",
        "experiment 7 has no name",
        "experiment 7: seeds",
        "\"mines\"",
    ];
    for wanted in wanted {
        assert!(said.contains(wanted), "{wanted:?} is not in:\n{said}");
    }
    let own = faults("preset = \"tiny\"\n[[experiment]]\nname = \"c\"\nmethod = \"swarm\"\nmiss = 2.0\nminers = 0")
        .join("\n");
    assert!(own.contains("miss is 2.0; it must be 0 to 1") && own.contains("miners is 0"), "{own}");
    let rates = "preset = \"tiny\"\n[[experiment]]\nname = \"c\"\nmethod = \"swarm\"\nembed_rate = \"x\"";
    assert!(faults(rates).join("").contains("embed_rate is \"x\"; it must be a number"));
    let twice = rates.replace("\"x\"", "0.1\nset = { \"inner.embed_rate\" = 0.2 }");
    assert!(faults(&twice).join("").contains("both embed_rate and inner.embed_rate"));
    assert!(faults("rounds = 3").join("").contains("no experiment"));
    let uneven = "preset = \"tiny\"\nsteps = 5\n[[experiment]]\nname = \"h\"\nmethod = \"swarm\"";
    assert!(faults(uneven).join("").contains("2 rounds of inner.steps make 8"));
    let many = "preset = \"tiny\"\n[[experiment]]\nname = \"h\"\nmethod = \"swarm\"\nset = { \"compress.k\" = KS, \"inner.batch\" = KS, \"inner.steps\" = KS }";
    let ks = format!("{:?}", (1..=40).collect::<Vec<u32>>());
    assert!(faults(&many.replace("KS", &ks)).join("").contains("more than 10000"));
    assert!(matches!(Grid::parse("x.toml", "a = ["), Err(GridError::Toml { .. })));
}

#[test]
fn every_grid_in_the_box_is_one() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("grids");
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 2);
    for file in files {
        let grid = Grid::load(&file).unwrap_or_else(|error| panic!("{error}"));
        assert!(grid.rows.iter().any(|row| row.method == Method::All), "{}: what is near?", file.display());
    }
}

// ---- laboratories ---------------------------------------------------------------------------------------------------

const SMALL: &str = r#"
    title = "Small | odd"
    preset = "tiny"
    rounds = 2
    every = 1
    miners = 2
    sequences = 8
    seeds = [1, 2]
    [[experiment]]
    name = "sparse"
    method = "swarm"
    set = { "compress.k" = [64, 256] }
    [[experiment]]
    name = "alone"
    method = "alone"
    [[experiment]]
    name = "all data"
    method = "adamw"
"#;

fn grid(text: &str) -> Grid {
    Grid::parse("grid.toml", text).unwrap()
}

fn conducted(text: &str, folder: &Path) -> Table {
    conduct(&grid(text), folder, &data(), 2, &mut Progress::silent()).unwrap()
}

fn lines(folder: &Path) -> Vec<String> {
    std::fs::read_to_string(folder.join(FILE)).unwrap().lines().map(str::to_owned).collect()
}

/// But for the time that it took.
fn timeless(line: &str) -> serde_json::Value {
    let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
    value["seconds"] = 0.into();
    value
}

#[test]
fn an_interrupted_laboratory_ends_like_one_that_was_not() {
    let (whole, torn) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (whole, torn) = (whole.path(), torn.path());
    let table = conducted(SMALL, whole);
    let all = lines(whole);
    assert_eq!(all.len(), 8);
    // Killed in the middle of the fourth line.
    let begun = format!("{}\n{}", all[..3].join("\n"), &all[3][..all[3].len() / 2]);
    std::fs::write(torn.join(FILE), begun).unwrap();
    assert_eq!(conducted(SMALL, torn), table);
    let again = lines(torn);
    assert_eq!(again[..3], all[..3], "what was done is not done again");
    let (again, all): (Vec<_>, Vec<_>) =
        (again.iter().map(|l| timeless(l)).collect(), all.iter().map(|l| timeless(l)).collect());
    assert_eq!(again, all);
    for file in ["table.md", "report.html"] {
        let [a, b] = [whole, torn].map(|folder| std::fs::read_to_string(folder.join(file)).unwrap());
        assert_eq!(a, b, "{file}");
    }
    // Nothing is left to do, whatever else the grid asks for.
    let before = lines(torn);
    conducted(&SMALL.replace("[64, 256]", "64"), torn);
    assert_eq!(lines(torn), before);
}

#[test]
fn a_table_says_what_was_reached_and_sent() {
    let folder = tempfile::tempdir().unwrap();
    let table = conducted(SMALL, folder.path());
    let [few, many, alone, adamw] = &table.rows[..] else { panic!("{table:?}") };
    assert_eq!((adamw.ratios.one_rate, adamw.ratios.own_rate), (Some(1.0), None));
    assert!(alone.ratios.one_rate.unwrap() > 1.0, "half the data, and not worse");
    assert_eq!((alone.tokens * 2, alone.bytes), (adamw.tokens, Some(0)));
    assert!(few.bits.unwrap() < many.bits.unwrap() && many.bits.unwrap() < 1.5, "{few:?} {many:?}");
    assert_eq!(adamw.bits, Some(32.0 * 4.0), "four steps a round");
    let loss = few.loss.unwrap();
    assert!(loss.confidence.unwrap() > 0.0);
    let own = |seed| Experiment { seed, ..grid(SMALL).rows[0].experiment(seed, data().digest(), 512).unwrap() };
    let of = |seed| *losses(&own(seed)).last().unwrap();
    assert!((loss.mean - (of(1) + of(2)) / 2.0).abs() < 1e-12);
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert_eq!(page.matches("<svg width=\"100%\" height=\"420\"").count(), 2);
    assert!(!page.contains("NaN") && !page.contains("://"), "self-contained, and all numbers");
    assert!(page.contains("sparse, compress.k 256"));
    let markdown = std::fs::read_to_string(folder.path().join("table.md")).unwrap();
    let widths: Vec<usize> =
        markdown.lines().filter(|line| line.starts_with('|')).map(|line| line.matches('|').count()).collect();
    assert_eq!(widths, [13; 6], "{markdown}");
}

/// Which AdamW a swarm is near depends on which it is compared with: both ratios are there, and Muon on all data is neither.
#[test]
fn ratios_are_to_adamw_with_one_rate_and_to_adamw_with_the_embeddings_own() {
    let folder = tempfile::tempdir().unwrap();
    let table = conducted(
        r#"
        preset = "tiny"
        rounds = 2
        miners = 2
        sequences = 8
        rate = 0.004
        [[experiment]]
        name = "adamw"
        method = "all"
        [[experiment]]
        name = "own rate"
        method = "all"
        embed_rate = [0.004, 0.03]
        [[experiment]]
        name = "muon"
        method = ["all", "swarm"]
        set = { "inner.optimizer" = "muon" }
        "#,
        folder.path(),
    );
    let [plain, same, own, muon, swarm] = &table.rows[..] else { panic!("{table:?}") };
    assert_eq!(same.loss, plain.loss, "the embedding's rate is everyone's");
    assert!(own.loss != plain.loss && muon.loss != plain.loss && swarm.loss != muon.loss);
    let best_own = own.loss.unwrap().mean.min(same.loss.unwrap().mean);
    for row in &table.rows {
        let loss = row.loss.unwrap().mean;
        assert_eq!(row.ratios.one_rate, Some(loss / plain.loss.unwrap().mean), "{}", row.name);
        assert_eq!(row.ratios.own_rate, Some(loss / best_own), "{}", row.name);
    }
}

#[test]
fn a_run_that_diverges_is_a_result() {
    let folder = tempfile::tempdir().unwrap();
    // Without an epsilon, the gradient of a token that is not in the batch, 0, is divided by 0.
    let wild = SMALL
        .replace("name = \"alone\"", "name = \"wild\"\nset = { \"inner.epsilon\" = 1e-300, \"model.tied\" = false }");
    let table = conducted(&wild, folder.path());
    assert_eq!(lines(folder.path()).len(), 8);
    let failed: Vec<bool> = table.rows.iter().map(|row| row.failed.is_some()).collect();
    assert_eq!(failed, [false, false, true, false], "{table:?}");
    assert!(table.markdown("text").contains("| failed |"));
}

#[test]
fn results_belong_to_one_process_and_a_strange_line_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let first = Results::open(folder.path()).unwrap();
    assert!(matches!(Results::open(folder.path()), Err(ResultsError::Locked { .. })));
    drop(first);
    let mut file = std::fs::File::options().append(true).open(folder.path().join(FILE)).unwrap();
    file.write_all(b"\n{\"version\": 1}\n").unwrap();
    let error = Results::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("remove the line"), "{error}");
}

/// What a terminal or a file is told.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn progress_is_a_line_a_run_in_a_file_and_a_redrawn_line_in_a_terminal() {
    let told = |redraws| {
        let folder = tempfile::tempdir().unwrap();
        let said = Said::default();
        let mut progress = Progress::of(Box::new(said.clone()), redraws);
        conduct(&grid(SMALL), folder.path(), &data(), 2, &mut progress).unwrap();
        drop(progress);
        let bytes = said.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    };
    let plain = told(false);
    assert_eq!(plain.lines().count(), 9, "{plain}");
    assert!(!plain.contains('\r') && plain.contains("8/8  all data, seed 2: loss "), "{plain}");
    let drawn = told(true);
    assert!(drawn.contains("time left unknown") && drawn.contains(" left  "), "{drawn}");
    assert!(drawn.ends_with('\n') || drawn.ends_with("\x1b[K"), "the terminal is left clean");
}

#[test]
fn a_mean_has_the_confidence_of_its_values() {
    assert_eq!(Estimate::of(&[]), None);
    assert_eq!(Estimate::of(&[2.0]), Some(Estimate { mean: 2.0, confidence: None }));
    let three = Estimate::of(&[1.0, 2.0, 3.0]).unwrap();
    assert!((three.mean - 2.0).abs() < 1e-12 && (three.confidence.unwrap() - 4.303 / 3f64.sqrt()).abs() < 1e-3);
    let many: Vec<f64> = (0..61).map(f64::from).collect();
    let sigma = (many.iter().map(|v| (v - 30.0) * (v - 30.0)).sum::<f64>() / 60.0).sqrt();
    assert!((Estimate::of(&many).unwrap().confidence.unwrap() - 2.000 * sigma / 61f64.sqrt()).abs() < 1e-2);
}

#[test]
fn every_preset_runs_in_a_laboratory() {
    for (name, ..) in PRESETS {
        resolve(&Template::load(name).unwrap(), data().digest()).unwrap();
    }
}
