//! What the plots have in common: the frame around a drawing, the entries of its legend, how much one draws at most.

use crate::report::html::svg::escape;

/// Points of one curve at most: more than a wide screen has columns for, few enough to keep the page small.
pub(super) const POINTS_MAX: usize = 800;
/// Strips that answer the pointer at most; beyond, each stands for several rounds.
pub(super) const STRIPS_MAX: usize = 400;

/// A plot with its heading, a line of prose, and what explains its colours.
pub(crate) fn figure(class: &str, title: &str, says: &str, body: &str, legend: &str) -> String {
    let (title, says) = (escape(title), escape(says));
    let legend = if legend.is_empty() { String::new() } else { format!("<p class=\"legend\">{legend}</p>") };
    format!(
        "<figure class=\"card {class}\"><figcaption><h2>{title}</h2><p>{says}</p></figcaption>{body}{legend}</figure>\n"
    )
}

/// A figure without anything to plot.
pub(super) fn empty(class: &str, title: &str, why: &str) -> String {
    figure(class, title, "", &format!("<p class=\"nothing\">{}</p>", escape(why)), "")
}

/// An entry of a legend: a short line of `class` and its name.
pub(crate) fn key(class: &str, name: &str) -> String {
    swatch(22, &format!(r#"<line x1="1" x2="21" y1="6" y2="6" class="{class}"/>"#), name)
}

/// An entry of a legend: a box of `class` and its name.
pub(super) fn key_box(class: &str, name: &str) -> String {
    swatch(13, &format!(r#"<rect width="13" height="12" rx="2" class="{class}"/>"#), name)
}

/// An entry of a legend: a ring of `class` and its name.
pub(super) fn key_ring(class: &str, name: &str) -> String {
    swatch(13, &format!(r#"<circle cx="6.5" cy="6" r="4.5" class="{class}"/>"#), name)
}

fn swatch(width: u32, drawing: &str, name: &str) -> String {
    let name = escape(name);
    format!(r#"<span class="key"><svg width="{width}" height="12" aria-hidden="true">{drawing}</svg>{name}</span>"#)
}
