//! Held-out loss after each round, beside what simpler models reach, with what happened to the swarm above it.

use super::figure::{POINTS_MAX, STRIPS_MAX, empty, figure, key, key_box, key_ring};
use crate::report::html::facts::{ByRound, Facts, brief, thinned};
use crate::report::html::svg::{Anchor, Margins, Plot, Scale, decimals};
use crate::report::{Summary, units};

const TITLE: &str = "Held-out loss";
const HEIGHT: u32 = 300;
/// Pixels between the plot and its first lane of events: clear of the highest tick's label.
const LANE_FIRST: u32 = 22;
/// Pixels between two lanes of events.
const LANE: u32 = 20;
/// Names are written beside marks only if the next mark is this far, in percent.
const LABEL_ROOM: f64 = 16.0;
/// Percent of the height that a label over a line needs.
const LABEL_HEIGHT: f64 = 7.0;
/// Values that are dots too.
const DOTS_MAX: usize = 60;

const CROSS: &str = "M-4-4L4 4M4-4L-4 4";
const PLUS: &str = "M0-5V5M-5 0H5";
const RING: &str = "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0";

/// One kind of event: a row of marks over the plot.
struct Lane<'a> {
    name: &'static str,
    path: &'static str,
    class: &'static str,
    events: ByRound<'a>,
}

pub(super) fn plot(summary: &Summary, facts: &Facts<'_>) -> String {
    let losses = &summary.heldout_loss;
    let measured = losses.iter().filter(|loss| loss.is_finite()).count();
    if measured == 0 {
        return empty("wide", TITLE, "No loss was measured, or none was a number.");
    }
    let lanes = lanes(facts);
    let baselines = baselines(summary, facts);
    // A swarm without a finished round still has one value, at 0.
    let x = Scale::new(0.0, losses.len().saturating_sub(1).max(1) as f64);
    let levels = baselines.iter().map(|(_, nats)| *nats).chain([summary.heldout_loss_final]);
    let y = Scale::around(losses.iter().copied().chain(levels), 5);
    let says = says(summary);
    let margins = Margins { left: 62, right: 14, top: LANE_FIRST + LANE * lanes.len() as u32, bottom: 44 };
    let mut plot = Plot::new("loss", HEIGHT, margins).described(TITLE, &says);
    for round in facts.voids.keys() {
        plot.rect((x.at(f64::from(*round)), x.span(1.0)), (0.0, 100.0), "void-band");
    }
    let ticks = y.ticks(5);
    let digits = decimals(&ticks);
    plot.y_axis(y, &ticks, |tick| format!("{tick:.digits$}"));
    plot.x_axis(x, 0.0, "rounds applied");
    baselines.iter().for_each(|(_, nats)| plot.across(y.at(*nats), "baseline"));
    draw_lanes(&mut plot, &lanes, x);
    let point = |i: usize| (x.at(i as f64), y.at(losses[i]));
    let points: Vec<(f64, f64)> = thinned(losses.len(), POINTS_MAX).map(point).collect();
    plot.curve(&points, "curve s0");
    if measured <= DOTS_MAX {
        points.iter().filter(|(_, up)| up.is_finite()).for_each(|place| plot.dot(*place, 2.2, "fill s0"));
    }
    if has_final(summary) {
        plot.mark((100.0, y.at(summary.heldout_loss_final)), RING, "final");
    }
    label_baselines(&mut plot, &baselines, y);
    let stride = losses.len().div_ceil(STRIPS_MAX).max(1) as f64;
    for i in thinned(losses.len(), STRIPS_MAX) {
        let strip = (x.at(i as f64 - stride / 2.0), x.span(stride));
        plot.strip(strip, Some(point(i)), &tip(summary, facts, i));
    }
    figure("wide", TITLE, &says, &plot.finish(), &legend(summary, facts, !baselines.is_empty()))
}

fn has_final(summary: &Summary) -> bool {
    summary.heldout_loss_final.is_finite() && summary.rounds > 0
}

fn says(summary: &Summary) -> String {
    let what = "Nats a token on text that no miner trains on; lower is better.";
    match summary.heldout_sequences {
        0 => what.to_string(),
        n => format!("{what} Each point is an estimate on {}.", units::count(n, "sequence")),
    }
}

/// The baselines in nats a token, if they are known.
fn baselines(summary: &Summary, facts: &Facts<'_>) -> Vec<(&'static str, f64)> {
    let Some(ratio) = facts.bits_per_nat else { return Vec::new() };
    let all = [("unigram", summary.baselines.unigram), ("bigram", summary.baselines.bigram)];
    let known = all.into_iter().filter(|(_, bits)| bits.is_finite() && *bits > 0.0);
    known.map(|(name, bits)| (name, bits / ratio)).collect()
}

/// Names over their lines; of two lines that are close, the lower one's name is under it.
fn label_baselines(plot: &mut Plot, baselines: &[(&str, f64)], y: Scale) {
    for (name, nats) in baselines {
        let up = y.at(*nats);
        let crowded = baselines.iter().any(|(_, other)| *other > *nats && y.at(*other) - up < LABEL_HEIGHT);
        let dy = if crowded { 14 } else { -5 };
        plot.text((100.0, up), (-10, dy), Anchor::End, "note", &format!("{name} {}", units::decimal(*nats, 2)));
    }
}

fn lanes<'a>(facts: &Facts<'a>) -> Vec<Lane<'a>> {
    let voids = facts.voids.keys().map(|round| (*round, Vec::new())).collect();
    let lanes = [
        Lane { name: "void", path: RING, class: "event void", events: voids },
        Lane { name: "joined", path: PLUS, class: "event joined", events: facts.joined.clone() },
        Lane { name: "killed", path: CROSS, class: "event killed", events: facts.killed.clone() },
    ];
    lanes.into_iter().filter(|lane| !lane.events.is_empty()).collect()
}

/// Marks stand over the middle of their round: round `r` leads from `r` to `r + 1` rounds applied.
fn draw_lanes(plot: &mut Plot, lanes: &[Lane<'_>], x: Scale) {
    let place = |round: u32| x.at(f64::from(round) + 0.5).clamp(0.0, 100.0);
    for (i, lane) in lanes.iter().rev().enumerate() {
        let above = LANE_FIRST + LANE * i as u32;
        let dy = 4 - above as i32;
        plot.text((0.0, 100.0), (-8, dy), Anchor::End, "tick", lane.name);
        let mut events = lane.events.iter().peekable();
        let mut before = -LABEL_ROOM;
        while let Some((round, names)) = events.next() {
            let at = place(*round);
            plot.upright(at, above.saturating_sub(7), &format!("{} thread", lane.class));
            plot.mark_above(at, above, lane.path, lane.class);
            let after = events.peek().map_or(100.0 + LABEL_ROOM, |(next, _)| place(**next));
            // To the right of its mark, or where the plot ends to the left.
            if at < 80.0 && after - at > LABEL_ROOM {
                plot.text((at, 100.0), (9, dy), Anchor::Start, "note wide-only", &brief(names));
            } else if at >= 80.0 && at - before > LABEL_ROOM * 2.0 {
                plot.text((at, 100.0), (-9, dy), Anchor::End, "note wide-only", &brief(names));
            }
            before = at;
        }
    }
}

fn tip(summary: &Summary, facts: &Facts<'_>, i: usize) -> String {
    let loss = units::decimal(summary.heldout_loss[i], 3);
    let Some(round) = i.checked_sub(1) else {
        return format!("before round 0\nloss {loss}");
    };
    let selected = summary.selected.get(round).map_or(0, Vec::len);
    let offered = summary.offered.get(round).map_or(0, Vec::len);
    let events = facts.events(u32::try_from(round).unwrap_or(u32::MAX));
    format!("after round {round}\nloss {loss}\napplied {selected} of {offered}{events}")
}

fn legend(summary: &Summary, facts: &Facts<'_>, baselines: bool) -> String {
    let mut keys = key("curve s0", "estimate after each round");
    if has_final(summary) {
        let loss = units::decimal(summary.heldout_loss_final, 3);
        keys.push_str(&key_ring("final", &format!("more held-out text, at the end: {loss}")));
    }
    if baselines {
        keys.push_str(&key("baseline", "what simpler models reach"));
    }
    if !facts.voids.is_empty() {
        keys.push_str(&key_box("void-band", "void round"));
    }
    keys
}
