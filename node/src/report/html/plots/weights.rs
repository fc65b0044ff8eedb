//! The weight of every miner after each round: honest ones in colours, those that misbehave dashed and named.

use super::figure::{POINTS_MAX, STRIPS_MAX, empty, figure, key};
use super::selection::pair_class;
use crate::report::html::facts::{Facts, thinned};
use crate::report::html::svg::{Margins, Plot, Scale, decimals};
use crate::report::{Summary, units};
use covey_proto::Uid;
use std::collections::BTreeMap;

const TITLE: &str = "Weights";
const HEIGHT: u32 = 250;
/// Honest miners with a colour and a name of their own; the rest share one.
const COLOURS: usize = 6;
/// Lines of a tooltip that are about miners.
const TIP_LINES_MAX: usize = 10;
/// Points of all curves together, so that a page of 256 miners stays small.
const POINTS_TOTAL_MAX: usize = 24_000;

type Weights = BTreeMap<Uid, f64>;

pub(super) fn plot(summary: &Summary, facts: &Facts<'_>) -> String {
    let rounds = &summary.weights_by_round;
    let weighed = |uid: &u32| rounds.iter().any(|weights| weight(weights, *uid) > 0.0);
    let weighed: Vec<u32> = facts.uids.iter().copied().filter(weighed).collect();
    if weighed.is_empty() {
        return empty(pair_class(summary, facts), TITLE, "No validator has set weights.");
    }
    let classes = classes(facts, &weighed, rounds);
    let all = rounds.iter().flat_map(BTreeMap::values).copied();
    let highest = all.filter(|weight| weight.is_finite()).fold(0.0, f64::max);
    let x = Scale::new(0.0, rounds.len().saturating_sub(1).max(1) as f64);
    let y = Scale::around([0.0, highest], 4);
    let says = says(facts);
    let margins = Margins { left: 52, right: 10, top: 8, bottom: 44 };
    let mut plot = Plot::new("weights", HEIGHT, margins).described(TITLE, &says);
    let ticks = y.ticks(4);
    let digits = decimals(&ticks).saturating_sub(2);
    plot.y_axis(y, &ticks, |tick| format!("{:.digits$} %", tick * 100.0));
    plot.x_axis(x, 0.0, "round");
    let points_max = (POINTS_TOTAL_MAX / classes.len().max(1)).clamp(2, POINTS_MAX);
    // Named curves last, so that they lie on top.
    for (uid, class) in classes.iter().rev() {
        let point = |i: usize| (x.at(i as f64), y.at(weight(&rounds[i], *uid)));
        let points: Vec<(f64, f64)> = thinned(rounds.len(), points_max).map(point).collect();
        plot.curve(&points, &format!("curve {class}"));
    }
    let stride = rounds.len().div_ceil(STRIPS_MAX).max(1) as f64;
    for i in thinned(rounds.len(), STRIPS_MAX) {
        plot.strip((x.at(i as f64 - stride / 2.0), x.span(stride)), None, &tip(facts, i, &rounds[i]));
    }
    figure(pair_class(summary, facts), TITLE, &says, &plot.finish(), &legend(summary, facts, &classes))
}

fn says(facts: &Facts<'_>) -> String {
    let what = "What each miner would be paid: the validators' mean by stake, after each round.";
    match facts.misbehaving.len() {
        0 => what.to_string(),
        1 => format!("{what} One miner misbehaves."),
        n => format!("{what} {n} miners misbehave."),
    }
}

fn weight(weights: &Weights, uid: u32) -> f64 {
    Uid::new(uid).and_then(|uid| weights.get(&uid)).copied().unwrap_or(0.0)
}

/// How each miner is drawn, those to be named first: misbehaving ones, then the honest ones of largest final weight.
fn classes(facts: &Facts<'_>, weighed: &[u32], rounds: &[Weights]) -> Vec<(u32, String)> {
    let last = |uid: u32| rounds.last().map_or(0.0, |weights| weight(weights, uid));
    let (bad, mut honest): (Vec<u32>, Vec<u32>) = weighed.iter().partition(|uid| facts.misbehaving.contains_key(uid));
    honest.sort_by(|a, b| last(*b).total_cmp(&last(*a)).then(a.cmp(b)));
    let rest = honest.split_off(honest.len().min(COLOURS));
    honest.sort_unstable();
    let bad = bad.into_iter().map(|uid| (uid, "bad".to_string()));
    let named = honest.into_iter().enumerate().map(|(i, uid)| (uid, format!("s{i}")));
    bad.chain(named).chain(rest.into_iter().map(|uid| (uid, "rest".to_string()))).collect()
}

fn tip(facts: &Facts<'_>, round: usize, weights: &Weights) -> String {
    let mut sorted: Vec<(u32, f64)> = weights.iter().map(|(uid, weight)| (uid.number(), *weight)).collect();
    sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
    let more = sorted.len().saturating_sub(TIP_LINES_MAX);
    let line = |(uid, weight): &(u32, f64)| format!("\nuid {}: {}", facts.label(*uid), units::percent(*weight));
    let lines: String = sorted.iter().take(TIP_LINES_MAX).map(line).collect();
    let more = if more > 0 { format!("\nand {more} more") } else { String::new() };
    format!("after round {round}{lines}{more}")
}

fn legend(summary: &Summary, facts: &Facts<'_>, classes: &[(u32, String)]) -> String {
    let count = |wanted: &str| classes.iter().filter(|(_, class)| class == wanted).count();
    let (rest, bad) = (count("rest"), count("bad"));
    let named = classes.iter().filter(|(_, class)| class != "rest" && (class != "bad" || bad <= COLOURS));
    let entry = |(uid, class): &(u32, String)| {
        let share = units::percent(weight(&summary.weights, *uid));
        key(&format!("curve {class}"), &format!("uid {}: {share}", facts.label(*uid)))
    };
    let mut keys: Vec<String> = named.map(entry).collect();
    if bad > COLOURS {
        keys.insert(0, key("curve bad", &format!("{bad} that misbehave")));
    }
    if rest > 0 {
        keys.push(key("curve rest", &format!("{rest} more")));
    }
    keys.concat()
}
