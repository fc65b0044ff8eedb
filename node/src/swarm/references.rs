//! What a swarm's model reaches from the same data in other ways: all data in one batch, one miner alone. Decides which swarms
//! that was measured for; measures nothing itself.
//!
//! The measurements are a laboratory's own records, of `covey lab node/grids/references.toml`. A swarm that differs from them
//! in model, data, batch, steps, rounds or miners has none: they would say nothing about it.

use super::plan::Options;
use crate::lab::Method;
use crate::lab::results::Record;
use crate::lab::table::Estimate;
use crate::report::{Reference, References};
use covey_proto::run::Run;

/// `results.jsonl` as the laboratory left it.
const RECORDS: &str = include_str!("../../presets/demo-references.jsonl");
/// What makes it again.
const COMMAND: &str = "covey lab node/grids/references.toml --out lab-references";

/// The references of a swarm that was run as `options` ask, if there are any; the best comes first. `bits_per_byte` turns nats
/// a token into bits a byte.
pub(super) fn references(options: &Options, run: &Run, bits_per_byte: impl Fn(f64) -> f64) -> Option<References> {
    if !options.script.joins.is_empty() {
        return None;
    }
    let miners = u32::try_from(options.counts.miners).ok()?;
    let mut reached: Vec<Reference> = of_run(RECORDS, run, miners, options.rounds)
        .into_iter()
        .map(|(name, loss)| Reference { bits_per_byte: bits_per_byte(loss.mean), loss: loss.mean, name })
        .collect();
    reached.sort_by(|a, b| a.loss.total_cmp(&b.loss));
    (!reached.is_empty()).then(|| References { command: COMMAND.to_owned(), reached })
}

/// Of the records that are about such a run, each name with its last losses over the seeds, in the records' order.
fn of_run(records: &str, run: &Run, miners: u32, rounds: u32) -> Vec<(String, Estimate)> {
    let mut losses: Vec<(String, Vec<f64>)> = Vec::new();
    let records = records.lines().filter_map(|line| serde_json::from_str::<Record>(line).ok());
    for record in records.filter(|record| is_about(record, run, miners, rounds)) {
        let Some(last) = record.curve.last() else { continue };
        match losses.iter_mut().find(|(name, _)| *name == record.name) {
            Some((_, seeds)) => seeds.push(last.loss),
            None => losses.push((record.name, vec![last.loss])),
        }
    }
    losses.into_iter().filter_map(|(name, seeds)| Some((name, Estimate::of(&seeds)?))).collect()
}

/// Whether a record is of the same model, data, steps and miners. How they were trained is its own matter; a swarm's record is
/// left out, for the swarm itself has a loss.
fn is_about(record: &Record, run: &Run, miners: u32, rounds: u32) -> bool {
    let Ok(measured) = Run::from_toml(&record.run) else { return false };
    record.method != Method::Swarm
        && (record.miners, record.rounds) == (miners, rounds)
        && (&measured.model, measured.data.digest) == (&run.model, run.data.digest)
        && (measured.inner.batch, &measured.inner.steps) == (run.inner.batch, &run.inner.steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Grid;
    use std::collections::BTreeSet;

    fn records() -> Vec<Record> {
        RECORDS.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Numbers of another preset, grid or program would be shown as if they were this one's.
    #[test]
    fn the_records_are_those_of_the_grid_and_the_preset() {
        let grid = Grid::parse("references.toml", include_str!("../../grids/references.toml")).unwrap();
        let first = Run::from_toml(&records()[0].run).unwrap();
        let keys: BTreeSet<_> = records().iter().map(|record| (record.name.clone(), record.key)).collect();
        let wanted = |row: &crate::lab::grid::Row| {
            let key = |seed: &u64| row.experiment(*seed, first.data.digest, first.model.vocabulary).unwrap().key();
            row.seeds.iter().map(|seed| (row.name.clone(), key(seed))).collect::<Vec<_>>()
        };
        let wanted: BTreeSet<_> = grid.rows.iter().flat_map(wanted).collect();
        assert_eq!(keys, wanted, "run `{COMMAND}`, and copy its results.jsonl to node/presets/demo-references.jsonl");
    }

    #[test]
    fn a_swarm_has_the_references_of_its_model_data_steps_and_miners_alone() {
        let run = Run::from_toml(&records()[0].run).unwrap();
        let names = |run: &Run, miners, rounds| of_run(RECORDS, run, miners, rounds).len();
        let all = names(&run, 4, 96);
        assert!(all >= 3, "{all}");
        assert!(of_run(RECORDS, &run, 4, 96).iter().all(|(name, loss)| !name.contains("swarm") && loss.mean > 1.0));
        assert_eq!((names(&run, 5, 96), names(&run, 4, 95)), (0, 0));
        let with = |change: fn(&mut Run)| {
            let mut run = run.clone();
            change(&mut run);
            names(&run, 4, 96)
        };
        assert_eq!(with(|run| run.model.width = 256), 0);
        assert_eq!(with(|run| run.data.digest = covey_proto::Digest::ZERO), 0);
        assert_eq!(with(|run| run.inner.batch = 1), 0);
        // How the swarm trains and sends is what is compared.
        assert_eq!(with(|run| run.inner.clip = 0.5), all);
    }
}
