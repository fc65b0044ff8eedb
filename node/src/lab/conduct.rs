//! A whole laboratory: runs of a grid what is not done yet, and shows after each run what there is. Decides the order; what
//! an experiment does, `run` decides.

use super::grid::Grid;
use super::progress::{Progress, Work};
use super::results::{Record, Results, ResultsError};
use super::table::Table;
use super::{Experiment, plot, run};
use crate::preset::PresetError;
use covey_trainer::data::Dataset;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Why a laboratory stopped. What it had done stays done.
#[derive(Debug, thiserror::Error)]
pub enum ConductError {
    /// Results cannot be kept.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// The data's vocabulary does not fit the model.
    #[error(transparent)]
    Preset(#[from] PresetError),
    /// The table or the plots cannot be written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
}

/// Runs what of `grid` is not in `folder` yet, on `data` with `cores` threads, and keeps `results.jsonl`, `table.md` and
/// `report.html` there. All rows come with their first seed before any comes with its second. A run that diverges is a
/// result too.
///
/// # Errors
/// The folder cannot be used, or the data has a vocabulary that the model cannot have.
pub fn conduct(
    grid: &Grid,
    folder: &Path,
    data: &Arc<Dataset>,
    cores: usize,
    progress: &mut Progress,
) -> Result<Table, ConductError> {
    let mut results = Results::open(folder)?;
    let experiments = experiments(grid, data)?;
    let seeds = experiments.iter().map(Vec::len).max().unwrap_or(0);
    let todo: Vec<(usize, &Experiment)> = (0..seeds)
        .flat_map(|seed| experiments.iter().enumerate().filter_map(move |(row, of)| Some((row, of.get(seed)?))))
        .collect();
    progress.begin(todo.iter().map(|(_, experiment)| Work::of(experiment, results.get(&experiment.key()).is_some())));
    for (row, experiment) in todo {
        if results.get(&experiment.key()).is_some() {
            continue;
        }
        let name = &grid.rows[row].name;
        let start = Instant::now();
        progress.start(name, experiment);
        let outcome = run(experiment, data, cores, |round, point| progress.round(round, point));
        let record = Record::new(name, experiment, outcome, start.elapsed().as_secs_f64());
        progress.done(&record);
        results.append(record)?;
        show(grid, folder, data, &experiments, &results)?;
    }
    progress.finish();
    show(grid, folder, data, &experiments, &results)
}

/// Of each row, its seeds' experiments.
fn experiments(grid: &Grid, data: &Dataset) -> Result<Vec<Vec<Experiment>>, PresetError> {
    let of_row = |row: &super::grid::Row| {
        row.seeds.iter().map(|seed| row.experiment(*seed, data.digest(), data.vocabulary())).collect()
    };
    grid.rows.iter().map(of_row).collect()
}

fn show(
    grid: &Grid,
    folder: &Path,
    data: &Dataset,
    experiments: &[Vec<Experiment>],
    results: &Results,
) -> Result<Table, ConductError> {
    let table = Table::new(grid, experiments, results, &|nats| data.bits_per_byte(nats));
    let name = &data.manifest().name;
    write(folder, "table.md", &table.markdown(name))?;
    write(folder, "report.html", &plot::page(&table, name))?;
    Ok(table)
}

/// Whoever looks sees the file before or after, never half of it.
fn write(folder: &Path, name: &str, text: &str) -> Result<(), ConductError> {
    let (beside, path) = (folder.join(format!("{name}.new")), folder.join(name));
    let write = || {
        std::fs::write(&beside, text)?;
        std::fs::rename(&beside, &path)
    };
    write().map_err(|error| ConductError::File { path: path.display().to_string(), error })
}
