//! What came of a grid, as numbers: means over seeds with their confidence, what was sent, and how near AdamW on all data it is.

use super::grid::Grid;
use super::progress::tokens;
use super::results::{Record, Results};
use super::{Experiment, Method, Point};
use crate::report::units;
use covey_proto::run::{Model, Optimizer};
use std::fmt::Write;

/// Student's t: 97.5 % lie below it, by degrees of freedom from 1.
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// The rows of a grid, with what is done of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The grid's title.
    pub title: String,
    /// In the grid's order.
    pub rows: Vec<Line>,
}

/// One method with one set of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// The method.
    pub method: Method,
    /// Miners.
    pub miners: u32,
    /// Rounds.
    pub rounds: u32,
    /// Seeds that the grid asks for.
    pub seeds: usize,
    /// Seeds that have a curve.
    pub finished: usize,
    /// Why seeds have none, the first of them.
    pub failed: Option<String>,
    /// The last loss, mean over the finished seeds, nats a token.
    pub loss: Option<Estimate>,
    /// The same in bits a byte of text.
    pub bits_per_byte: Option<f64>,
    /// The loss over those of AdamW on all data: as many tokens, the same model and the same held-out text.
    pub ratios: Ratios,
    /// Tokens that all miners trained on.
    pub tokens: u64,
    /// Bytes that one miner sent, mean over the finished seeds.
    pub bytes: Option<u64>,
    /// Of them, bits a parameter and round.
    pub bits: Option<f64>,
    /// Means over the finished seeds.
    pub curve: Vec<Point>,
}

/// A loss over that of the best AdamW on all data of a grid. There are two to compare with, and they are far apart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ratios {
    /// To AdamW with one rate for all tensors.
    pub one_rate: Option<f64>,
    /// To AdamW with a rate of its own for the embedding (`inner.embed_rate`).
    pub own_rate: Option<f64>,
}

/// A mean, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half the width of its 95 % confidence interval (Student's t); unknown from one value.
    pub confidence: Option<f64>,
}

impl Estimate {
    /// From independent values; none from none.
    pub fn of(values: &[f64]) -> Option<Estimate> {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let degrees = values.len().checked_sub(1)?;
        let confidence = (degrees > 0).then(|| {
            let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / degrees as f64;
            // Beyond the table, its first terms in 1/degrees; wrong by less than 0.001.
            let t = STUDENT.get(degrees - 1).copied().unwrap_or(1.95996 + 2.3723 / degrees as f64);
            t * (variance / count).sqrt()
        });
        Some(Estimate { mean, confidence })
    }
}

impl Table {
    /// What `results` has of a grid; `experiments` are each row's. `bits_per_byte` turns nats a token into bits a byte.
    pub(super) fn new(
        grid: &Grid,
        experiments: &[Vec<Experiment>],
        results: &Results,
        bits_per_byte: &dyn Fn(f64) -> f64,
    ) -> Table {
        let made = grid.rows.iter().zip(experiments).map(|(row, of)| {
            let records: Vec<&Record> = of.iter().filter_map(|one| results.get(&one.key())).collect();
            line(&row.name, of, &records, bits_per_byte)
        });
        let mut rows: Vec<Line> = made.flatten().collect();
        let protocols: Vec<Protocol> = experiments.iter().filter_map(|of| of.first()).map(protocol).collect();
        let rival: Vec<Option<Rival>> = experiments.iter().filter_map(|of| of.first()).map(rival).collect();
        let ratio = |row: &Line, own: &Protocol, to: Rival| {
            let comparable =
                rows.iter().zip(&protocols).zip(&rival).filter(|((_, of), is)| *of == own && **is == Some(to));
            let best = comparable.filter_map(|((other, _), _)| Some(other.loss?.mean)).reduce(f64::min)?;
            Some(row.loss?.mean / best)
        };
        let ratios: Vec<Ratios> = rows
            .iter()
            .zip(&protocols)
            .map(|(row, own)| Ratios {
                one_rate: ratio(row, own, Rival::OneRate),
                own_rate: ratio(row, own, Rival::OwnRate),
            })
            .collect();
        rows.iter_mut().zip(ratios).for_each(|(row, ratios)| row.ratios = ratios);
        Table { title: grid.title.clone(), rows }
    }

    /// As Markdown; `data` is the data set's name.
    pub fn markdown(&self, data: &str) -> String {
        let Table { title, rows } = self;
        let (done, all) = rows.iter().fold((0, 0), |(done, all), row| (done + row.finished, all + row.seeds));
        let mut text = format!(
            "# {title}\n\n{done} of {} on {data}. Loss: nats a token on held-out text, mean over seeds ± 95 % confidence\n\
             (Student's t). Ratios: to the best AdamW on all data, as many tokens, with one rate for all tensors and with the\n\
             embedding's own (inner.embed_rate). Bytes: what one miner sends in all.\n\n",
            units::count(all as u64, "run")
        );
        text.push_str(
            "| experiment | method | miners | rounds | tokens | seeds | loss | bits a byte | to AdamW, one rate | to AdamW, embedding's own | bytes a miner | bits a parameter and round |\n\
             |---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        for row in rows {
            let Line { name, method, miners, rounds, tokens, finished, seeds, .. } = row;
            let name = name.replace('|', "\\|");
            let (tokens, loss) = (units::short(*tokens), row.loss_text());
            let bits_per_byte = optional(row.bits_per_byte, 4);
            let (one_rate, own_rate) = (optional(row.ratios.one_rate, 4), optional(row.ratios.own_rate, 4));
            let bits = optional(row.bits, 3);
            let bytes = row.bytes.map_or(units::NONE.to_owned(), units::bytes);
            let seeds = if finished == seeds { seeds.to_string() } else { format!("{finished} of {seeds}") };
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "| {name} | {method} | {miners} | {rounds} | {tokens} | {seeds} | {loss} | {bits_per_byte} | {one_rate} | {own_rate} | {bytes} | {bits} |"
            );
        }
        for row in rows {
            if let Some(why) = &row.failed {
                let _ = writeln!(text, "\n{}: {why}", row.name);
            }
        }
        text
    }
}

impl Line {
    /// The loss and its confidence.
    pub fn loss_text(&self) -> String {
        match (&self.loss, &self.failed) {
            (None, Some(_)) => "failed".to_owned(),
            (None, None) => units::NONE.to_owned(),
            (Some(Estimate { mean, confidence: None }), _) => format!("{mean:.4}"),
            (Some(Estimate { mean, confidence: Some(half) }), _) => format!("{mean:.4} ± {half:.4}"),
        }
    }
}

fn optional(number: Option<f64>, decimals: usize) -> String {
    number.map_or(units::NONE.to_owned(), |number| units::decimal(number, decimals))
}

/// Which AdamW on all data others are compared with.
#[derive(Clone, Copy, PartialEq)]
enum Rival {
    OneRate,
    OwnRate,
}

fn rival(experiment: &Experiment) -> Option<Rival> {
    let inner = &experiment.run.inner;
    match (experiment.method, inner.optimizer, &inner.embed_rate) {
        (Method::All, Optimizer::AdamW, None) => Some(Rival::OneRate),
        (Method::All, Optimizer::AdamW, Some(_)) => Some(Rival::OwnRate),
        _ => None,
    }
}

/// What two experiments must share for their losses to be compared: model, held-out text, tokens that the miners have.
type Protocol = (Model, u64, u64);

fn protocol(experiment: &Experiment) -> Protocol {
    let lone = if experiment.method == Method::Alone { u64::from(experiment.miners) } else { 1 };
    (experiment.run.model.clone(), experiment.sequences, tokens(experiment, experiment.rounds) * lone)
}

fn line(name: &str, of: &[Experiment], records: &[&Record], bits_per_byte: &dyn Fn(f64) -> f64) -> Option<Line> {
    let first = of.first()?;
    let curves: Vec<&[Point]> =
        records.iter().map(|record| record.curve.as_slice()).filter(|curve| !curve.is_empty()).collect();
    let lasts: Vec<Point> = curves.iter().filter_map(|curve| curve.last().copied()).collect();
    let loss = Estimate::of(&lasts.iter().map(|last| last.loss).collect::<Vec<f64>>());
    let bytes = mean(&lasts, |last| last.bytes);
    let parameters = records.first().map_or(0, |record| record.parameters);
    let coordinates = (parameters * u64::from(first.rounds)) as f64;
    Some(Line {
        name: name.to_owned(),
        method: first.method,
        miners: first.miners,
        rounds: first.rounds,
        seeds: of.len(),
        finished: lasts.len(),
        failed: records.iter().find_map(|record| record.failed.clone()),
        loss,
        bits_per_byte: loss.map(|loss| bits_per_byte(loss.mean)),
        ratios: Ratios::default(),
        tokens: tokens(first, first.rounds),
        bytes,
        bits: bytes.filter(|_| coordinates > 0.0).map(|bytes| bytes as f64 * 8.0 / coordinates),
        curve: mean_curve(&curves),
    })
}

fn mean(points: &[Point], of: impl Fn(&Point) -> u64) -> Option<u64> {
    let count = points.len() as u64;
    points.iter().map(of).sum::<u64>().checked_div(count)
}

/// Seeds are evaluated after the same rounds.
fn mean_curve(curves: &[&[Point]]) -> Vec<Point> {
    let length = curves.iter().map(|curve| curve.len()).min().unwrap_or(0);
    let at = |i: usize| {
        let points: Vec<Point> = curves.iter().map(|curve| curve[i]).collect();
        let loss = points.iter().map(|point| point.loss).sum::<f64>() / points.len() as f64;
        let whole = |of: fn(&Point) -> u64| mean(&points, of).unwrap_or(0);
        Point { round: points[0].round, loss, tokens: whole(|point| point.tokens), bytes: whole(|point| point.bytes) }
    };
    (0..length).map(at).collect()
}
