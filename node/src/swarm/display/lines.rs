//! The words of the display: a frame, a round or an event as lines that fit a width. Writes nothing.

use super::shown::{Frame, NodeLine, RoundLine, WorkLine};
use crate::report::units;
use console::measure_text_width;
use std::time::Duration;

/// Columns of a name.
const NAME_MAX: usize = 18;
/// Narrowest and widest useful curve.
const CURVE: (usize, usize) = (6, 32);
/// Columns from which a node's own round is shown; the swarm's is on the first line.
const ROUND_COLUMNS: usize = 50;
/// Heights of a curve.
const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Whether lines carry colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    None,
    Colours,
}

/// How a piece of a line is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Plain,
    Strong,
    Faint,
    Good,
    Warn,
    Loud,
}

impl Tone {
    /// The terminal's own sixteen colours, which its owner chose to be readable.
    fn code(self) -> &'static str {
        match self {
            Tone::Plain => "",
            Tone::Strong => "1",
            Tone::Faint => "2",
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Loud => "1;31",
        }
    }
}

/// A line that is being put together.
#[derive(Clone, Debug, Default)]
struct Line(Vec<(Tone, String)>);

impl Line {
    fn push(&mut self, tone: Tone, text: impl Into<String>) {
        self.0.push((tone, text.into()));
    }

    fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| measure_text_width(text)).sum()
    }

    /// Cut to `width` columns, with its colours.
    fn finish(self, width: usize, paint: Paint) -> String {
        let mut out = String::new();
        let mut left = width;
        for (tone, text) in self.0 {
            let text = cut(&clean(&text), left);
            left = left.saturating_sub(measure_text_width(&text));
            match (paint, tone.code()) {
                _ if text.is_empty() => {}
                (Paint::None, _) | (_, "") => out.push_str(&text),
                (Paint::Colours, code) => out.push_str(&format!("\x1b[{code}m{text}\x1b[0m")),
            }
        }
        out.truncate(out.trim_end_matches(' ').len());
        out
    }
}

/// Without what would steer the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// At most `width` columns of `text`; what is cut ends in `…`.
fn cut(text: &str, width: usize) -> String {
    if measure_text_width(text) <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 1;
    for letter in text.chars() {
        used += measure_text_width(letter.encode_utf8(&mut [0; 4]));
        if used > width {
            break;
        }
        out.push(letter);
    }
    if width > 0 {
        out.push('…');
    }
    out
}

/// The whole block: at most `rows` lines of at most `columns`.
pub(super) fn block(frame: &Frame, columns: usize, rows: usize, paint: Paint) -> Vec<String> {
    let mut lines = vec![progress(frame, columns), figures(frame, columns)];
    let last = usize::from(frame.last.is_some());
    lines.extend(nodes(&frame.nodes, columns, rows.saturating_sub(lines.len() + last)));
    if let Some(text) = &frame.last {
        let mut line = Line::default();
        line.push(Tone::Faint, " last  ");
        line.push(if is_loud(text) { Tone::Loud } else { Tone::Faint }, text);
        lines.push(line);
    }
    lines.truncate(rows);
    lines.into_iter().map(|line| line.finish(columns, paint)).collect()
}

/// ` round 13/48  ━━━━━━──────  0:34, 1:31 left`
fn progress(frame: &Frame, columns: usize) -> Line {
    let mut line = Line::default();
    line.push(Tone::Strong, format!(" round {}/{}", frame.round, frame.rounds));
    let mut time = units::clock(frame.elapsed);
    if let Some(left) = time_left(frame) {
        time.push_str(&format!(", {} left", units::clock(left)));
    }
    bar(&mut line, (frame.round.into(), frame.rounds.into()), time, columns);
    line
}

/// ` held-out loss of the last state  ━━━━━━──────  512/2,048, 0:04 of at most 0:30`, cut to `columns`.
pub(super) fn work_line(work: &WorkLine, columns: usize, paint: Paint) -> String {
    let mut line = Line::default();
    line.push(Tone::Strong, format!(" {}", work.what));
    let (done, of) = (units::thousands(work.done), units::thousands(work.of));
    let (elapsed, at_most) = (units::clock(work.elapsed), units::clock(work.at_most));
    bar(&mut line, (work.done, work.of), format!("{done}/{of}, {elapsed} of at most {at_most}"), columns);
    line.finish(columns, paint)
}

/// `held-out loss of the last state: 512 of 2,048 sequences after 0:10, at most 0:30`
pub(super) fn work_text(work: &WorkLine) -> String {
    let (done, of) = (units::thousands(work.done), units::count(work.of, work.noun));
    let (elapsed, at_most) = (units::clock(work.elapsed), units::clock(work.at_most));
    format!("{}: {done} of {of} after {elapsed}, at most {at_most}", work.what)
}

/// Adds a bar that is filled by a share, and a text behind it. Where a bar would be too short to be one, only the text.
fn bar(line: &mut Line, (done, of): (u64, u64), text: String, columns: usize) {
    // Two spaces at each end of the bar.
    let room = columns.saturating_sub(line.width() + measure_text_width(&text) + 4);
    if room >= 8 {
        let share = done as f64 / of.max(1) as f64;
        let filled = ((share * room as f64) as usize).min(room);
        line.push(Tone::Plain, "  ");
        line.push(Tone::Good, "━".repeat(filled));
        line.push(Tone::Faint, "─".repeat(room - filled));
    }
    line.push(Tone::Plain, "  ");
    line.push(Tone::Plain, text);
}

/// From the pace so far; after two rounds, since the first one pays for the start.
fn time_left(frame: &Frame) -> Option<Duration> {
    let left = frame.rounds.checked_sub(frame.round).filter(|left| *left > 0)?;
    frame.elapsed.checked_mul(left)?.checked_div(frame.round).filter(|_| frame.round >= 2)
}

/// ` loss 4.812  █▇▅▃▂▁  18,234 tok/s  123 MB  1.2 M tokens  8 peers`, from the right as much as fits.
fn figures(frame: &Frame, columns: usize) -> Line {
    let mut line = Line::default();
    line.push(Tone::Plain, " loss ");
    line.push(Tone::Strong, loss(frame.heldout_loss));
    let others = [
        format!("{} tok/s", units::whole(frame.tokens_per_second)),
        units::bytes(frame.bytes),
        format!("{} tokens", units::short(frame.tokens)),
        units::count(frame.peers as u64, "peer"),
    ];
    let losses = &frame.heldout_by_round;
    // The rate comes before the curve, the curve before the others.
    let curve_room = if losses.len() > 1 { CURVE.0 + 2 } else { 0 };
    let mut rest = String::new();
    for text in others {
        let kept = if rest.is_empty() { 0 } else { curve_room };
        if line.width() + rest.chars().count() + 2 + text.chars().count() + kept > columns {
            break;
        }
        rest.push_str("  ");
        rest.push_str(&text);
    }
    let room = columns.saturating_sub(line.width() + rest.chars().count() + 2).min(CURVE.1);
    if room >= CURVE.0 && losses.len() > 1 {
        line.push(Tone::Plain, "  ");
        line.push(Tone::Good, curve(losses, room));
    }
    line.push(Tone::Plain, rest);
    line
}

/// The values as blocks of eight heights, the newest last: as many columns as values, at most `width`, each the mean of
/// its share; blank where nothing is finite.
fn curve(values: &[f64], width: usize) -> String {
    let columns = width.min(values.len());
    let mean = |i: usize| {
        let share = &values[i * values.len() / columns..(i + 1) * values.len() / columns];
        let finite: Vec<f64> = share.iter().copied().filter(|value| value.is_finite()).collect();
        finite.iter().sum::<f64>() / finite.len() as f64
    };
    let means: Vec<f64> = (0..columns).map(mean).collect();
    let finite = means.iter().copied().filter(|value| value.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    let step = |value: &f64| match value.is_finite() {
        true if high > low => STEPS[(((value - low) / (high - low) * 7.0).round() as usize).min(7)],
        true => STEPS[0],
        false => ' ',
    };
    means.iter().map(step).collect()
}

/// One line a node. Where there are more than `rows`, the odd ones are kept first, and the last line counts the others.
fn nodes(nodes: &[NodeLine], columns: usize, rows: usize) -> Vec<Line> {
    let width = nodes.iter().map(|node| measure_text_width(&node.name)).max().unwrap_or(0).min(NAME_MAX);
    let rounds = columns >= ROUND_COLUMNS;
    if nodes.len() <= rows {
        return nodes.iter().map(|node| node_line(node, width, rounds)).collect();
    }
    let room = rows.saturating_sub(1);
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by_key(|i| (nodes[*i].live && nodes[*i].note.is_none(), *i));
    let hidden = order.split_off(room.min(order.len()));
    order.sort_unstable();
    let mut lines: Vec<Line> = order.into_iter().map(|i| node_line(&nodes[i], width, rounds)).collect();
    if rows > 0 {
        let mut roles: Vec<(&str, u64)> = Vec::new();
        for i in hidden {
            let role = nodes[i].role.as_str();
            match roles.iter_mut().find(|(known, _)| *known == role) {
                Some((_, count)) => *count += 1,
                None => roles.push((role, 1)),
            }
        }
        let roles: Vec<String> = roles.into_iter().map(|(role, n)| units::count(n, role)).collect();
        let mut line = Line::default();
        line.push(Tone::Faint, format!(" … and {}", units::list(&roles)));
        lines.push(line);
    }
    lines
}

/// ` ● miner-0      train      13   4.812  noise`
fn node_line(node: &NodeLine, width: usize, rounds: bool) -> Line {
    let mut line = Line::default();
    let (sign, tone) = if node.live { (" ● ", Tone::Good) } else { (" ○ ", Tone::Warn) };
    line.push(tone, sign);
    let name = cut(&node.name, width);
    let pad = width.saturating_sub(measure_text_width(&name));
    line.push(Tone::Plain, format!("{name}{}", " ".repeat(pad)));
    line.push(Tone::Faint, format!("  {:<9}", node.phase));
    if rounds {
        line.push(Tone::Plain, format!("{:>6}", node.round));
    }
    let loss = node.loss.map_or(String::new(), |value| loss(Some(value)));
    line.push(Tone::Plain, format!("{loss:>7}"));
    if let Some(note) = &node.note {
        line.push(Tone::Warn, format!("  {note}"));
    }
    line
}

/// `round 3/48  loss 6.812  1,234 tok/s  12.3 MB  selected 4/4  root 9f31c2d1  1.4 s`. Where that is too wide, the least
/// important parts go first.
pub(super) fn round_text(round: &RoundLine, width: usize, paint: Paint) -> String {
    let void = round.selected == 0;
    let selected = format!("selected {}/{}", round.selected, round.offered);
    // What stays longest has the lowest number.
    let mut parts = vec![
        (0, Tone::Strong, format!("round {}/{}", round.round, round.rounds)),
        (1, Tone::Plain, format!("loss {}", loss(round.loss))),
        (5, Tone::Plain, format!("{} tok/s", units::whole(round.tokens_per_second))),
        (6, Tone::Plain, units::bytes(round.bytes)),
        (2, if void { Tone::Warn } else { Tone::Plain }, selected),
        (4, Tone::Faint, format!("root {}", round.root)),
        (3, Tone::Plain, units::seconds(round.took.as_secs_f64())),
    ];
    let total = |parts: &[(u8, Tone, String)]| {
        parts.iter().map(|(_, _, text)| measure_text_width(text) + 2).sum::<usize>().saturating_sub(2)
    };
    while parts.len() > 1 && total(&parts) > width {
        let last = parts.iter().map(|(rank, ..)| *rank).max();
        parts.retain(|(rank, ..)| Some(*rank) != last);
    }
    let mut line = Line::default();
    for (i, (_, tone, text)) in parts.into_iter().enumerate() {
        if i > 0 {
            line.push(Tone::Plain, "  ");
        }
        line.push(tone, text);
    }
    line.finish(width, paint)
}

fn loss(loss: Option<f64>) -> String {
    units::decimal(loss.unwrap_or(f64::NAN), 3)
}

/// Whether the first word is in capitals.
fn is_loud(text: &str) -> bool {
    let first = text.split_whitespace().next().unwrap_or_default();
    first.chars().filter(|letter| letter.is_alphabetic()).count() > 1 && !first.chars().any(char::is_lowercase)
}

/// An event, broken between words into lines of at most `width`: of what happened, nothing is cut.
pub(super) fn event_lines(text: &str, width: usize, paint: Paint) -> Vec<String> {
    let (sign, tone) = if is_loud(text) { ("!!! ", Tone::Loud) } else { ("  * ", Tone::Warn) };
    let room = width.saturating_sub(sign.len()).max(1);
    let mut lines: Vec<String> = vec![String::new()];
    for word in clean(text).split_whitespace() {
        for piece in pieces(word, room) {
            let line = lines.last_mut().expect("there is a first line");
            let used = measure_text_width(line);
            if used == 0 {
                line.push_str(&piece);
            } else if used.saturating_add(1 + measure_text_width(&piece)) <= room {
                line.push(' ');
                line.push_str(&piece);
            } else {
                lines.push(piece);
            }
        }
    }
    let finish = |(i, text): (usize, String)| {
        let mut line = Line::default();
        line.push(tone, if i == 0 || tone == Tone::Loud { sign } else { "    " });
        line.push(if tone == Tone::Loud { tone } else { Tone::Plain }, text);
        line.finish(width, paint)
    };
    lines.into_iter().enumerate().map(finish).collect()
}

/// A word in pieces of at most `room` columns.
fn pieces(word: &str, room: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut used = 0usize;
    for letter in word.chars() {
        let width = measure_text_width(letter.encode_utf8(&mut [0; 4]));
        if used.saturating_add(width) > room && used > 0 {
            pieces.push(String::new());
            used = 0;
        }
        used += width;
        pieces.last_mut().expect("there is a first piece").push(letter);
    }
    pieces
}
