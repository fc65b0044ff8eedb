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
/// Strips that answer the pointer at most; beyond, each stands for several rounds.
const STRIPS_MAX: usize = 400;

/// All plots.
pub(super) fn all(summary: &Summary, facts: &Facts<'_>) -> String {
    let parts = [
        loss::plot(summary, facts),
        weights::plot(summary, facts),
        selection::plot(summary, facts),
        bars::time(summary),
        bars::bytes(summary, facts),
        duration::plot(summary, facts),
    ];
    format!("<div class=\"plots\">\n{}</div>\n", parts.concat())
}

/// Weights and contributions stand side by side, or each has the page's width.
fn pair_class(summary: &Summary, facts: &Facts<'_>) -> &'static str {
    if selection::is_wide(summary, facts) { "wide" } else { "" }
}

/// A plot with its heading, a line of prose, and what explains its colours.
pub(crate) fn figure(class: &str, title: &str, says: &str, body: &str, legend: &str) -> String {
    let (title, says) = (escape(title), escape(says));
    let legend = if legend.is_empty() { String::new() } else { format!("<p class=\"legend\">{legend}</p>") };
    format!(
        "<figure class=\"card {class}\"><figcaption><h2>{title}</h2><p>{says}</p></figcaption>{body}{legend}</figure>\n"
    )
}

/// A figure without anything to plot.
fn empty(class: &str, title: &str, why: &str) -> String {
    figure(class, title, "", &format!("<p class=\"nothing\">{}</p>", escape(why)), "")
}

/// An entry of a legend: a short line of `class` and its name.
pub(crate) fn key(class: &str, name: &str) -> String {
    swatch(22, &format!(r#"<line x1="1" x2="21" y1="6" y2="6" class="{class}"/>"#), name)
}

/// An entry of a legend: a box of `class` and its name.
fn key_box(class: &str, name: &str) -> String {
    swatch(13, &format!(r#"<rect width="13" height="12" rx="2" class="{class}"/>"#), name)
}

/// An entry of a legend: a ring of `class` and its name.
fn key_ring(class: &str, name: &str) -> String {
    swatch(13, &format!(r#"<circle cx="6.5" cy="6" r="4.5" class="{class}"/>"#), name)
}

fn swatch(width: u32, drawing: &str, name: &str) -> String {
    let name = escape(name);
    format!(r#"<span class="key"><svg width="{width}" height="12" aria-hidden="true">{drawing}</svg>{name}</span>"#)
}
