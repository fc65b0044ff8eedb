//! The plots, in the order of the page. Each decides what it shows of a summary; [`super::svg`] draws.

mod bars;
mod duration;
mod loss;
mod selection;
mod weights;

use super::facts::Facts;
use super::svg::escape;
use crate::report::Summary;

/// Points of one curve at most: more than a wide screen has columns for, few enough to keep the page small.
const POINTS_MAX: usize = 800;
/// Strips that answer the pointer at most; beyond, each stands for several rounds' first.
const STRIPS_MAX: usize = 400;

/// All plots.
pub(super) fn all(summary: &Summary, facts: &Facts<'_>) -> String {
    let parts = [
        loss::plot(summary, facts),
        weights::plot(summary, facts),
        selection::plot(summary, facts),
        bars::time(summary),
        bars::bytes(summary),
        duration::plot(summary, facts),
    ];
    format!("<main class=\"plots\">\n{}</main>\n", parts.concat())
}

/// A plot with its heading, a line of prose, and what explains its colours.
fn figure(class: &str, title: &str, says: &str, body: &str, legend: &str) -> String {
    let (title, says) = (escape(title), escape(says));
    let legend = if legend.is_empty() { String::new() } else { format!("<p class=\"legend\">{legend}</p>") };
    format!("<figure class=\"card {class}\"><figcaption><h2>{title}</h2><p>{says}</p></figcaption>{body}{legend}</figure>\n")
}

/// A figure without anything to plot.
fn empty(class: &str, title: &str, why: &str) -> String {
    figure(class, title, "", &format!("<p class=\"nothing\">{}</p>", escape(why)), "")
}

/// One entry of a legend: a swatch of `class` and its name.
fn key(class: &str, name: &str) -> String {
    format!(
        r#"<span class="key"><svg width="22" height="10" aria-hidden="true"><line x1="1" x2="21" y1="5" y2="5" class="{class}"/></svg>{}</span>"#,
        escape(name)
    )
}
