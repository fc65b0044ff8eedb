//! `report.html`: what a person looks at after a swarm. Decides the order of the page; `page` has what is read, `plots`
//! what is seen, `facts` what both derive from a summary, `svg` how anything is drawn.
//!
//! One file without a reference to any other: styles, plots and a few lines of script are inside, and the page's own
//! security policy refuses everything else. Without the script it loses nothing but the speed of its tooltips.

mod facts;
mod page;
mod plots;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod svg;
#[cfg(test)]
mod tests;

use super::Summary;
use facts::Facts;
pub(crate) use page::head;
pub(crate) use plots::{figure, key};

/// Of every page.
pub(crate) const STYLE: &str = include_str!("html/style.css");
/// Tooltips; a page loses nothing else without it.
pub(crate) const SCRIPT: &str = include_str!("html/script.js");

/// The report on a swarm as one self-contained HTML document.
pub fn html(summary: &Summary) -> String {
    let facts = Facts::of(summary);
    let parts = [
        head(&format!("Covey: {}, seed {}", summary.preset, summary.seed), STYLE),
        page::opening(summary, &facts),
        page::disagreements(summary),
        plots::all(summary, &facts),
        page::nodes(summary),
        page::usage(summary),
        page::state_roots(summary),
        page::end(SCRIPT),
    ];
    parts.concat()
}
