//! The plots, in the order of the page. Each decides what it shows of a summary; [`super::svg`] draws.

mod bars;
mod duration;
mod figure;
mod loss;
mod selection;
mod weights;

pub(crate) use figure::{figure, key};

use super::facts::Facts;
use crate::report::Summary;

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
