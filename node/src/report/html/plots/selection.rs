//! Which contributions were offered in time, and which of them applied: a grid of uids and rounds.

use super::figure::{empty, figure, key_box, key_ring};
use crate::report::Summary;
use crate::report::html::facts::Facts;
use crate::report::html::svg::{Anchor, Margins, Plot, Scale};
use covey_proto::Uid;
use std::collections::BTreeSet;
use std::fmt::Write;

const TITLE: &str = "Contributions";
/// Rows labelled one by one up to here; beyond, every sixteenth.
const LABELS_MAX: usize = 26;
/// Rounds up to which cells are set apart.
const GAPS_MAX: usize = 120;

/// Whether the grid needs the whole width of the page.
fn is_wide(summary: &Summary, facts: &Facts<'_>) -> bool {
    summary.offered.len().max(summary.selected.len()) > GAPS_MAX || facts.uids.len() > LABELS_MAX
}

/// Ranges of rounds, the end excluded, by uid.
type Runs = Vec<Vec<(usize, usize)>>;

/// Weights and contributions stand side by side, or each has the page's width.
pub(super) fn pair_class(summary: &Summary, facts: &Facts<'_>) -> &'static str {
    if is_wide(summary, facts) { "wide" } else { "" }
}

pub(super) fn plot(summary: &Summary, facts: &Facts<'_>) -> String {
    let rounds = summary.offered.len().max(summary.selected.len());
    if rounds == 0 || facts.uids.is_empty() {
        return empty(pair_class(summary, facts), TITLE, "No round was finished.");
    }
    let rows = facts.uids.len();
    let row_height = (400 / rows).clamp(4, 44) as u32;
    let margins = Margins { left: 84, right: 62, top: 26, bottom: 44 };
    let says = "What was committed before the deadline, and what the validators' votes made everyone apply.";
    let mut plot = Plot::new("contributions", row_height * rows as u32, margins).described(TITLE, says);
    let x = Scale::new(0.0, rounds as f64);
    let (selected, offered) = (runs(&summary.selected), runs(&summary.offered));
    plot.rect((0.0, 100.0), (0.0, 100.0), "cell none");
    plot.stretched(&cells(facts, &offered, x), "cell offered");
    plot.stretched(&cells(facts, &selected, x), "cell selected");
    if rounds <= GAPS_MAX {
        let gaps: String = (1..rounds).map(|i| format!("M{:.3} 0V100", x.at(i as f64))).collect();
        plot.stretched(&gaps, "gap");
    }
    for round in facts.voids.keys() {
        plot.mark_above(x.at(f64::from(*round) + 0.5), 9, "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0", "event void");
    }
    label_rows(&mut plot, facts, &selected, &offered);
    plot.x_axis(x, 0.5, "round");
    figure(pair_class(summary, facts), TITLE, says, &plot.finish(), &legend(facts))
}

/// All cells of one kind as one path; neighbouring rounds are one rectangle.
fn cells(facts: &Facts<'_>, runs: &Runs, x: Scale) -> String {
    let row = 100.0 / facts.uids.len() as f64;
    let mut path = String::new();
    for (i, uid) in facts.uids.iter().enumerate() {
        for (from, to) in runs.get(*uid as usize).into_iter().flatten() {
            let (left, width) = (x.at(*from as f64), x.span((to - from) as f64));
            // A sixth of each row stays free.
            let (top, height) = ((i as f64 + 0.08) * row, row * 0.84);
            let _ = write!(path, "M{left:.3} {top:.3}h{width:.3}v{height:.3}h-{width:.3}z");
        }
    }
    path
}

/// Labels, counts and tooltips of the rows.
fn label_rows(plot: &mut Plot, facts: &Facts<'_>, selected: &Runs, offered: &Runs) {
    let row = 100.0 / facts.uids.len() as f64;
    let count = |runs: &Runs, uid: u32| -> usize {
        runs.get(uid as usize).into_iter().flatten().map(|(from, to)| to - from).sum()
    };
    plot.text((100.0, 100.0), (8, -9), Anchor::Start, "tick", "applied");
    plot.text((0.0, 100.0), (-8, -9), Anchor::End, "tick", "uid");
    for (i, uid) in facts.uids.iter().enumerate() {
        let up = 100.0 - (i as f64 + 0.5) * row;
        let (applied, all) = (count(selected, *uid), count(offered, *uid));
        if facts.uids.len() <= LABELS_MAX || i % 16 == 0 {
            let class = if facts.misbehaving.contains_key(uid) { "tick bad-label" } else { "tick" };
            plot.text((0.0, up), (-8, 4), Anchor::End, class, &facts.label(*uid));
            plot.text((100.0, up), (8, 4), Anchor::Start, "tick", &format!("{applied}/{all}"));
        }
        let tip = format!("uid {}\napplied {applied} of {all} offered", facts.label(*uid));
        plot.row((up - row / 2.0, row), &tip);
    }
}

/// For each uid, the ranges of rounds in which it is listed.
fn runs(lists: &[Vec<Uid>]) -> Runs {
    let mut runs: Runs = vec![Vec::new(); 256];
    for (round, list) in lists.iter().enumerate() {
        for uid in list.iter().collect::<BTreeSet<_>>() {
            match runs[uid.index()].last_mut() {
                Some((_, end)) if *end == round => *end = round + 1,
                _ => runs[uid.index()].push((round, round + 1)),
            }
        }
    }
    runs
}

fn legend(facts: &Facts<'_>) -> String {
    let cells = [("selected", "applied"), ("offered", "offered, not applied"), ("none", "not offered")];
    let mut keys: String = cells.iter().map(|(class, name)| key_box(&format!("cell {class}"), name)).collect();
    if !facts.voids.is_empty() {
        keys.push_str(&key_ring("event void", "void round"));
    }
    keys
}
