//! What went where: seconds by phase, bytes by kind. Rows of a table with a bar each, the largest first.

use super::figure::{empty, figure, key_box};
use crate::report::html::facts::Facts;
use crate::report::html::svg::escape;
use crate::report::{Summary, units};

/// The phase that the rest is overhead of.
const TRAINING: &str = "train";
/// Rows; what is smaller is left out, and said to be.
const ROWS_MAX: usize = 14;

/// Clocks that disagree by less are no contradiction.
const CAPACITY_SLACK: f64 = 1.05;

struct Bar {
    name: String,
    value: f64,
    shown: String,
    /// Of all, if that means anything.
    share: Option<f64>,
    class: &'static str,
}

/// Seconds by phase: where the next second is to be won.
pub(super) fn time(summary: &Summary) -> String {
    const TITLE: &str = "Time by phase";
    let phases: Vec<(&String, f64)> =
        summary.seconds.iter().map(|(name, s)| (name, *s)).filter(|(_, s)| s.is_finite() && *s > 0.0).collect();
    let work: f64 = phases.iter().map(|(_, seconds)| seconds).sum();
    if work <= 0.0 {
        return empty("", TITLE, "No time was measured.");
    }
    let bar = |(name, value): (&String, f64)| Bar {
        name: name.clone(),
        value,
        shown: units::seconds(value),
        share: Some(value / work),
        class: if name == TRAINING { "fill s0" } else { "fill s1" },
    };
    let bars = sorted(phases.into_iter().map(bar).collect());
    let training: f64 = bars.iter().filter(|bar| bar.name == TRAINING).map(|bar| bar.value).sum();
    let outside = units::percent((work - training) / work);
    let spent = format!("{} of work over all nodes and threads; {outside} outside training", units::seconds(work));
    let says = match bars.iter().find(|bar| bar.name != TRAINING) {
        Some(largest) => format!("{spent}, most in “{}”.", largest.name),
        None => format!("{spent}."),
    };
    figure("", TITLE, &says, &[stack(summary, training, work), table(&bars, "phase")].concat(), "")
}

/// Training, other work and unused cores as shares of all core seconds.
fn stack(summary: &Summary, training: f64, work: f64) -> String {
    let capacity = summary.cores as f64 * summary.wall_seconds;
    if !capacity.is_finite() || capacity <= 0.0 {
        return String::new();
    }
    let says = format!("{} × {}", units::count(summary.cores as u64, "core"), units::seconds(summary.wall_seconds));
    if work > capacity * CAPACITY_SLACK {
        let text = format!("More than {says} can do: some phases also count time in which they waited.");
        return format!("<p class=\"stack-says\">{text}</p>");
    }
    let whole = capacity.max(work);
    let parts = [
        ("train", training, "fill s0"),
        ("other work", work - training, "fill s1"),
        ("unused", whole - work, "fill unused"),
    ];
    let (mut rects, mut keys, mut from) = (String::new(), String::new(), 0.0);
    for (name, seconds, class) in parts {
        let share = seconds / whole * 100.0;
        let percent = units::percent(seconds / whole);
        let tip = format!("{name}: {} ({percent})", units::seconds(seconds));
        rects.push_str(&format!(
            r#"<g class="hit"><title>{tip}</title><rect x="{from:.2}%" width="{share:.2}%" height="18" class="{class}"/></g>"#
        ));
        keys.push_str(&key_box(class, &format!("{name} {percent}")));
        from += share;
    }
    format!(
        r#"<p class="stack-says">{says}</p><svg class="stack" width="100%" height="18" role="img" aria-labelledby="stack-title"><title id="stack-title">{says}: training, other work, unused</title>{rects}</svg><p class="legend">{keys}</p>"#
    )
}

/// Bytes by kind. Kinds overlap, so they have no shares.
pub(super) fn bytes(summary: &Summary, facts: &Facts<'_>) -> String {
    const TITLE: &str = "Bytes by kind";
    let bar = |(name, bytes): (&String, &u64)| Bar {
        name: name.clone(),
        value: *bytes as f64,
        shown: units::bytes(*bytes),
        share: None,
        class: "fill s0",
    };
    let bars = sorted(summary.bytes.iter().filter(|(_, bytes)| **bytes > 0).map(bar).collect());
    if bars.is_empty() {
        return empty("", TITLE, "No bytes were counted.");
    }
    let mut says = format!("Nodes received {} of payload", units::bytes(facts.bytes));
    if let Some(each) = facts.bytes.checked_div(u64::from(summary.rounds)) {
        says.push_str(&format!(", {} a round", units::bytes(each)));
    }
    says.push_str(". Sums over nodes; what one sent another received.");
    figure("", TITLE, &says, &table(&bars, "kind"), "")
}

fn sorted(mut bars: Vec<Bar>) -> Vec<Bar> {
    bars.sort_by(|a, b| b.value.total_cmp(&a.value).then(a.name.cmp(&b.name)));
    bars
}

fn table(bars: &[Bar], what: &str) -> String {
    let largest = bars.first().map_or(1.0, |bar| bar.value);
    let row = |bar: &Bar| {
        let (name, width, class, shown) = (escape(&bar.name), bar.value / largest * 100.0, bar.class, &bar.shown);
        let share = bar.share.map(|share| format!(r#"<td class="number share">{}</td>"#, units::percent(share)));
        format!(
            r#"<tr><th scope="row">{name}</th><td class="bar"><svg width="100%" height="12" aria-hidden="true"><rect width="{width:.2}%" height="12" rx="2" class="{class}"/></svg></td><td class="number">{shown}</td>{}</tr>"#,
            share.unwrap_or_default()
        )
    };
    let rows: String = bars.iter().take(ROWS_MAX).map(row).collect();
    let more = match bars.len().saturating_sub(ROWS_MAX) {
        0 => String::new(),
        n => format!("<p class=\"more\">{n} smaller ones are in summary.json.</p>"),
    };
    format!(
        r#"<table class="bars"><caption class="unseen">by {what}, the largest first</caption><tbody>{rows}</tbody></table>{more}"#
    )
}
