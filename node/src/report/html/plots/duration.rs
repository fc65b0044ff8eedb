//! How long each round took: from one application by the first node to the next.

use super::figure::{POINTS_MAX, STRIPS_MAX, empty, figure, key, key_box};
use crate::report::html::facts::{Facts, thinned};
use crate::report::html::svg::{Margins, Plot, Scale, decimals};
use crate::report::{Summary, units};

const TITLE: &str = "Round duration";
const HEIGHT: u32 = 160;
/// Rounds drawn as bars; more become a curve.
const BARS_MAX: usize = 240;

pub(super) fn plot(summary: &Summary, facts: &Facts<'_>) -> String {
    let times = durations(&summary.round_ends);
    let finite: Vec<f64> = times.iter().copied().filter(|time| time.is_finite()).collect();
    if finite.is_empty() {
        return empty("wide", TITLE, "No round was finished.");
    }
    let median = median(&finite);
    let longest = finite.iter().copied().fold(0.0, f64::max);
    let says = format!("Median {}, longest {}.", units::seconds(median), units::seconds(longest));
    let x = Scale::new(0.0, times.len() as f64);
    let y = Scale::around([0.0, longest.max(1e-3)], 4);
    let margins = Margins { left: 62, right: 14, top: 8, bottom: 44 };
    let mut plot = Plot::new("duration", HEIGHT, margins).described(TITLE, &says);
    let ticks = y.ticks(4);
    let digits = decimals(&ticks);
    plot.y_axis(y, &ticks, |tick| format!("{tick:.digits$} s"));
    if times.len() <= BARS_MAX {
        for (i, time) in times.iter().enumerate().filter(|(_, time)| time.is_finite()) {
            let void = u32::try_from(i).is_ok_and(|round| facts.voids.contains_key(&round));
            let class = if void { "fill void-bar" } else { "fill s0" };
            plot.rect((x.at(i as f64 + 0.14), x.span(0.72)), (0.0, y.at(time.max(0.0))), class);
        }
    } else {
        let point = |i: usize| (x.at(i as f64 + 0.5), y.at(times[i].max(0.0)));
        let points: Vec<(f64, f64)> = thinned(times.len(), POINTS_MAX).map(point).collect();
        plot.curve(&points, "curve s0");
    }
    plot.across(y.at(median), "baseline");
    plot.x_axis(x, 0.5, "round");
    let stride = times.len().div_ceil(STRIPS_MAX).max(1) as f64;
    for i in thinned(times.len(), STRIPS_MAX) {
        let events = facts.events(u32::try_from(i).unwrap_or(u32::MAX));
        let tip = format!("round {i}\n{}{events}", units::seconds(times[i]));
        plot.strip((x.at(i as f64), x.span(stride)), None, &tip);
    }
    let mut keys = key("baseline", "median");
    if !facts.voids.is_empty() && times.len() <= BARS_MAX {
        keys.push_str(&key_box("fill void-bar", "void round"));
    }
    figure("wide", TITLE, &says, &plot.finish(), &keys)
}

fn durations(ends: &[f64]) -> Vec<f64> {
    let starts = std::iter::once(0.0).chain(ends.iter().copied());
    ends.iter().zip(starts).map(|(end, start)| end - start).collect()
}

/// Of at least one value.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    }
}
