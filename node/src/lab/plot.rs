//! What came of a grid, to look at: loss against tokens, loss against bytes, the table, in one page without a reference to
//! any other.

use super::table::{Line, Table};
use crate::report::html::svg::{Anchor, Margins, Plot, Scale, decimals, escape};
use crate::report::html::{SCRIPT, STYLE, figure, head, key};
use crate::report::units;
use std::fmt::Write;

/// What the page adds to the report's style: a colour comes again with another dash.
const DASHES: &str = "path.d1, line.d1 { stroke-dasharray: 7 4; } path.d2, line.d2 { stroke-dasharray: 2 4; }
circle.curve { fill: var(--card); }
";
const COLOURS: usize = 6;
const STYLES: usize = 3;
const HEIGHT: u32 = 420;
/// Upright strips that answer the pointer.
const STRIPS: usize = 48;
/// Curves that a strip names, best first.
const NAMED_MAX: usize = 14;

/// Which of a point's numbers is to the right.
#[derive(Clone, Copy)]
struct Axis {
    id: &'static str,
    title: &'static str,
    says: &'static str,
    name: &'static str,
    /// Whether equal ways are equal factors.
    logarithmic: bool,
    of: fn(&super::Point) -> u64,
    text: fn(u64) -> String,
}

const TOKENS: Axis = Axis {
    id: "tokens",
    title: "Held-out loss by tokens",
    says: "What the data gave. Nats a token; tokens that all miners trained on; means over seeds.",
    name: "tokens",
    logarithmic: false,
    of: |point| point.tokens,
    text: units::short,
};

const BYTES: Axis = Axis {
    id: "bytes",
    title: "Held-out loss by bytes that one miner sent",
    says: "What the network cost. All data in one batch counts 4 bytes a parameter and step, as if gradients were averaged. \
           Who sends nothing is not here.",
    name: "bytes sent",
    logarithmic: true,
    of: |point| point.bytes,
    text: units::bytes,
};

/// The page; `data` is the data set's name.
pub(super) fn page(table: &Table, data: &str) -> String {
    let Table { title, rows } = table;
    let heading = escape(title);
    let (done, all) = rows.iter().fold((0, 0), |(done, all), row| (done + row.finished, all + row.seeds));
    let lede = escape(&format!("{done} of {} are done, on {data}. {}", units::count(all as u64, "run"), best(table)));
    let curves: Vec<(&Line, String)> =
        rows.iter().filter(|row| !row.curve.is_empty()).enumerate().map(|(i, row)| (row, class(i))).collect();
    [
        head(&format!("Covey lab: {title}"), &format!("{STYLE}{DASHES}")),
        format!("<header>\n<p class=\"eyebrow\">Covey lab</p>\n<h1>{heading}</h1>\n<p class=\"lede\">{lede}</p>\n</header>\n"),
        "<div class=\"plots\">\n".to_owned(),
        plot(TOKENS, &curves),
        plot(BYTES, &curves),
        "</div>\n".to_owned(),
        list(rows),
        format!(
            "<footer><p>Every run is a line of <code>results.jsonl</code>; the table is <code>table.md</code> too.</p></footer>\n</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n"
        ),
    ]
    .concat()
}

fn best(table: &Table) -> String {
    let known = table.rows.iter().filter_map(|row| Some((row, row.loss?.mean)));
    match known.min_by(|(_, a), (_, b)| a.total_cmp(b)) {
        Some((row, _)) => format!("The least loss is {}: {}.", row.loss_text(), row.name),
        None => String::new(),
    }
}

/// A curve's look: colours first, then dashes.
fn class(number: usize) -> String {
    match number {
        n if n < COLOURS * STYLES => format!("curve s{} d{}", n % COLOURS, n / COLOURS),
        _ => "curve rest".to_owned(),
    }
}

/// A curve that has something to show.
struct Shown<'a> {
    name: &'a str,
    class: &'a str,
    /// The axis's number, and the loss.
    points: Vec<(u64, f64)>,
}

fn plot(axis: Axis, curves: &[(&Line, String)]) -> String {
    let place = |value: u64| if axis.logarithmic { (value as f64).log10() } else { value as f64 };
    // At 0 there is nothing to see, and no logarithm.
    let all = curves.iter().map(|(row, class)| {
        let points = row.curve.iter().map(|point| ((axis.of)(point), point.loss)).filter(|(value, _)| *value > 0);
        Shown { name: &row.name, class, points: points.collect() }
    });
    let shown: Vec<Shown<'_>> = all.filter(|curve| !curve.points.is_empty()).collect();
    let values = || shown.iter().flat_map(|curve| &curve.points);
    let Some(most) = values().map(|(value, _)| *value).max() else {
        return figure("wide", axis.title, axis.says, "<p class=\"nothing\">Nothing is done yet.</p>", "");
    };
    let least = values().map(|(value, _)| *value).min().unwrap_or(most);
    let x = Scale::new(if axis.logarithmic { place(least) } else { 0.0 }, place(most));
    let y = Scale::around(values().map(|(_, loss)| *loss), 6);
    let margins = Margins { left: 62, right: 18, top: 12, bottom: 44 };
    let mut plot = Plot::new(axis.id, HEIGHT, margins).described(axis.title, axis.says);
    let ticks = y.ticks(6);
    let digits = decimals(&ticks);
    plot.y_axis(y, &ticks, |tick| format!("{tick:.digits$}"));
    level_axis(&mut plot, axis, x, (least, most));
    for Shown { class, points, .. } in &shown {
        let points: Vec<(f64, f64)> = points.iter().map(|(value, loss)| (x.at(place(*value)), y.at(*loss))).collect();
        plot.curve(&points, class);
        points.last().into_iter().for_each(|end| plot.dot(*end, 3.0, class));
    }
    for strip in 0..STRIPS {
        let width = 100.0 / STRIPS as f64;
        let at = (strip as f64 + 0.5) * width;
        plot.strip((strip as f64 * width, width), None, &tip(axis, &shown, |value| x.at(place(value)), at));
    }
    let legend: String = shown.iter().map(|curve| key(curve.class, curve.name)).collect();
    figure("wide", axis.title, axis.says, &plot.finish(), &legend)
}

/// Labels of the level axis: round numbers, or powers of ten and what is between them.
fn level_axis(plot: &mut Plot, axis: Axis, x: Scale, (least, most): (u64, u64)) {
    let mut ticks: Vec<(f64, u64)> = Vec::new();
    if axis.logarithmic {
        let powers = (0..19).map(|power| 10u64.pow(power));
        let wanted = powers.flat_map(|power| [1, 2, 5].map(|times| power.saturating_mul(times)));
        ticks
            .extend(wanted.filter(|value| (least..=most).contains(value)).map(|value| ((value as f64).log10(), value)));
    } else {
        ticks.extend(x.whole_ticks(8).into_iter().map(|value| (value, value as u64)));
    }
    for (i, (at, value)) in ticks.into_iter().enumerate() {
        let class = if i % 2 == 0 { "tick" } else { "tick wide-only" };
        plot.text((x.at(at), 0.0), (0, 18), Anchor::Middle, class, &(axis.text)(value));
    }
    plot.across(0.0, "axis");
    plot.text((50.0, 0.0), (0, 37), Anchor::Middle, "axis-name", axis.name);
}

/// What the curves are at where the pointer is, best first: each one's last point up to there.
fn tip(axis: Axis, shown: &[Shown<'_>], at: impl Fn(u64) -> f64, pointer: f64) -> String {
    let before = |points: &[(u64, f64)]| points.iter().rev().find(|(value, _)| at(*value) <= pointer).copied();
    let mut known: Vec<(f64, u64, &str)> =
        shown.iter().filter_map(|curve| before(&curve.points).map(|(value, loss)| (loss, value, curve.name))).collect();
    known.sort_by(|a, b| a.0.total_cmp(&b.0));
    let more = known.len().saturating_sub(NAMED_MAX);
    let mut text = String::new();
    for (loss, value, name) in known.into_iter().take(NAMED_MAX) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{loss:.3}  {name} ({})", (axis.text)(value));
    }
    if more > 0 {
        let _ = writeln!(text, "and {more} more");
    }
    if text.is_empty() { "nothing yet".to_owned() } else { text.trim_end().to_owned() }
}

fn list(rows: &[Line]) -> String {
    let mut body = String::new();
    for row in rows {
        let number = |number: Option<f64>, digits: usize| {
            number.map_or(units::NONE.to_owned(), |number| units::decimal(number, digits))
        };
        let seeds = if row.finished == row.seeds {
            String::new()
        } else {
            format!(" ({} of {} seeds)", row.finished, row.seeds)
        };
        let cells = [
            row.method.to_string(),
            row.miners.to_string(),
            row.rounds.to_string(),
            units::short(row.tokens),
            format!("{}{seeds}", row.loss_text()),
            number(row.bits_per_byte, 4),
            number(row.ratios.one_rate, 4),
            number(row.ratios.own_rate, 4),
            row.bytes.map_or(units::NONE.to_owned(), units::bytes),
            number(row.bits, 3),
        ];
        let cells: String = cells.iter().map(|cell| format!("<td class=\"number\">{}</td>", escape(cell))).collect();
        let tip = row.failed.as_ref().map_or(String::new(), |why| format!(" title=\"{}\"", escape(why)));
        let _ = writeln!(body, "<tr{tip}><th scope=\"row\">{}</th>{cells}</tr>", escape(&row.name));
    }
    let heads = [
        "method",
        "miners",
        "rounds",
        "tokens",
        "loss",
        "bits a byte",
        "to AdamW, one rate",
        "to AdamW, embedding's own",
        "bytes a miner",
        "bits a parameter and round",
    ];
    let heads: String = heads.iter().map(|head| format!("<th scope=\"col\" class=\"number\">{head}</th>")).collect();
    format!(
        "<section class=\"card\"><h2>All experiments</h2><p>Mean over seeds ± 95 % confidence (Student's t). Ratios: to the best AdamW on all data, as many tokens, with one rate for all tensors and with the embedding's own.</p>\n\
         <div class=\"scroll\"><table class=\"rows\"><thead><tr><th scope=\"col\">experiment</th>{heads}</tr></thead>\n<tbody>\n{body}</tbody></table></div></section>\n"
    )
}
