//! What is read: the headline, whether all roots agree, the essential figures, the tables.

use super::facts::{ByRound, Facts, brief, received};
use super::svg::escape;
use crate::report::{NodeSummary, RoleUsage, Summary, units};
use std::collections::BTreeSet;

/// Rows of a table at most; the rest is in summary.json.
const ROWS_MAX: usize = 1000;

/// Up to the start of the body.
pub(crate) fn head(title: &str, style: &str) -> String {
    let title = escape(title);
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
"#
    )
}

/// The headline, the verdict and the figures.
pub(super) fn opening(summary: &Summary, facts: &Facts<'_>) -> String {
    let eyebrow = escape(&format!("Covey swarm · {} · {} · seed {}", summary.preset, summary.data, summary.seed));
    let (headline, lede) = (escape(&headline(summary)), escape(&lede(summary, facts)));
    let (verdict, tiles) = (verdict(summary), tiles(summary, facts));
    let comparison = comparison(summary);
    let run = summary.run_id;
    format!(
        r#"<header>
<p class="eyebrow">{eyebrow}</p>
<h1>{headline}</h1>
<p class="lede">{lede}</p>
<p class="run">run <code>{run}</code></p>
</header>
{verdict}
<section class="summary" aria-label="Essentials">
<dl class="tiles">{tiles}</dl>
{comparison}</section>
"#
    )
}

/// One sentence that says what came of it.
fn headline(summary: &Summary) -> String {
    let rounds = units::count(u64::from(summary.rounds), "round");
    if summary.rounds == 0 {
        return "No round was finished".to_string();
    }
    let first = summary.heldout_loss.first().copied().unwrap_or(f64::NAN);
    let last = last_loss(summary);
    if !first.is_finite() || !last.is_finite() {
        return format!("{rounds}, and the held\u{2011}out loss is not a number");
    }
    let direction = if last <= first { "to" } else { "up to" };
    // The hyphen does not break, or a headline would end in "held-".
    format!("{rounds} took held\u{2011}out loss from {first:.2} {direction} {last:.2}")
}

/// The best estimate after the last round.
fn last_loss(summary: &Summary) -> f64 {
    match summary.heldout_loss_final.is_finite() {
        true => summary.heldout_loss_final,
        false => summary.heldout_loss.last().copied().unwrap_or(f64::NAN),
    }
}

fn with_role<'a>(summary: &'a Summary, role: &str) -> impl Iterator<Item = &'a NodeSummary> {
    summary.nodes.iter().filter(move |node| node.role == role)
}

fn lede(summary: &Summary, facts: &Facts<'_>) -> String {
    let roles = ["miner", "validator", "seeder"].map(|role| (with_role(summary, role).count() as u64, role));
    let roles: Vec<String> = roles.into_iter().filter(|(n, _)| *n > 0).map(|(n, role)| units::count(n, role)).collect();
    let who = if roles.is_empty() { "No node".to_string() } else { units::list(&roles) };
    let parameters = units::count(summary.parameters, "parameter");
    let mut text = format!("{who} trained {parameters} on {}.", summary.data);
    if !facts.misbehaving.is_empty() {
        let kinds: BTreeSet<&str> = facts.misbehaving.values().copied().collect();
        let kinds: Vec<&str> = kinds.into_iter().collect();
        let miners = units::count(facts.misbehaving.len() as u64, "miner");
        text.push_str(&format!(" {miners} misbehaved on purpose ({}).", units::list(&kinds)));
    }
    let names = |events: &ByRound<'_>| {
        let names: BTreeSet<String> = events.values().flatten().map(|name| (*name).to_owned()).collect();
        let names: Vec<String> = names.into_iter().collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        brief(&names)
    };
    if !facts.killed.is_empty() {
        text.push_str(&format!(" Killed on the way: {}.", names(&facts.killed)));
    }
    if !facts.joined.is_empty() {
        text.push_str(&format!(" Joined late: {}.", names(&facts.joined)));
    }
    text
}

/// Whether all nodes computed the same, large; and whether it was stopped.
fn verdict(summary: &Summary) -> String {
    let agree = summary.roots_agree && summary.disagreements.is_empty();
    let (class, sign, title, text) = if !agree {
        let rounds: BTreeSet<u32> = summary.disagreements.iter().map(|d| d.round.0).collect();
        let nodes: BTreeSet<&str> = summary.disagreements.iter().map(|d| d.node.as_str()).collect();
        let (nodes, rounds) = (nodes.len() as u64, rounds.len() as u64);
        let text = match nodes {
            0 => "Which nodes differ was not recorded.".to_string(),
            _ => format!(
                "{} had another state in {}. Same bits are a contract: this is a fault.",
                units::count(nodes, "node"),
                units::count(rounds, "round")
            ),
        };
        ("bad", "✕", "State roots disagree", text)
    } else if summary.rounds == 0 {
        ("none", "–", "No state root to compare", "No round was finished.".to_string())
    } else {
        let nodes = units::count(summary.nodes.len() as u64, "node");
        let text = format!("{nodes}, {}, one state root each.", units::count(u64::from(summary.rounds), "round"));
        ("good", "✓", "All state roots agree", text)
    };
    let mut html = format!(
        r#"<p class="verdict {class}"><span class="sign" aria-hidden="true">{sign}</span><span><strong>{title}</strong> <span class="detail">{text}</span></span></p>
"#
    );
    if summary.interrupted {
        html.push_str(
            r#"<p class="verdict stopped"><span class="sign" aria-hidden="true">!</span><span><strong>Interrupted</strong> <span class="detail">It was stopped before its last round; this is what it had measured.</span></span></p>
"#,
        );
    }
    html
}

fn tiles(summary: &Summary, facts: &Facts<'_>) -> String {
    let wall = summary.wall_seconds;
    let rounds = u64::from(summary.rounds);
    let miners = with_role(summary, "miner").count() as u64;
    let estimate = summary.heldout_loss.first().copied().unwrap_or(f64::NAN);
    let rate = summary.tokens as f64 / wall;
    let voids = match summary.void_rounds.len() as u64 {
        0 => "none void".to_string(),
        n => format!("{n} void"),
    };
    let bad = match facts.misbehaving.len() {
        0 => "all honest".to_string(),
        n => format!("{n} misbehaving"),
    };
    let each = |part: Option<String>| part.map_or_else(|| units::NONE.to_string(), |part| format!("{part} a round"));
    let pace = (rounds > 0).then(|| units::seconds(wall / rounds as f64));
    let tiles = [
        ("Held-out loss", units::decimal(last_loss(summary), 3), format!("from {}", units::decimal(estimate, 3))),
        ("Bits per byte", units::decimal(summary.bits_per_byte, 3), judged_on(summary)),
        ("Rounds", units::thousands(rounds), voids),
        ("Miners", units::thousands(miners), bad),
        ("Parameters", units::short(summary.parameters), units::thousands(summary.parameters)),
        ("Tokens", units::short(summary.tokens), format!("{} a second", units::whole(rate))),
        ("Wall time", units::seconds(wall), each(pace)),
        ("Moved", units::bytes(facts.bytes), each(facts.bytes.checked_div(rounds).map(units::bytes))),
    ];
    let tile = |(name, value, note): (&str, String, String)| {
        format!("<div class=\"tile\"><dt>{name}</dt><dd>{}<small>{}</small></dd></div>", escape(&value), escape(&note))
    };
    tiles.into_iter().map(tile).collect()
}

/// How much text the last state was judged on.
fn judged_on(summary: &Summary) -> String {
    match summary.heldout_sequences_final {
        0 => "of held-out text".to_string(),
        sequences => format!("of {}", units::count(sequences, "held-out sequence")),
    }
}

/// Bits a byte beside what simpler models need, and what the same model reaches in other ways; the most first.
fn comparison(summary: &Summary) -> String {
    let reached = summary.references.iter().flat_map(|references| &references.reached);
    let others = reached.map(|other| (other.name.as_str(), other.bits_per_byte, "fill rest"));
    let mut models = vec![
        ("unigram", summary.baselines.unigram, "fill rest"),
        ("bigram", summary.baselines.bigram, "fill rest"),
        ("this model", summary.bits_per_byte, "fill s0"),
    ];
    models.extend(others);
    let known = |bits: f64| bits.is_finite() && bits > 0.0;
    if !models.iter().any(|(name, bits, _)| *name != "this model" && known(*bits)) {
        return String::new();
    }
    models.sort_by(|(_, a, _), (_, b, _)| b.total_cmp(a));
    let largest = models.iter().map(|(_, bits, _)| *bits).filter(|bits| known(*bits)).fold(0.0, f64::max);
    let row = |(name, bits, class): &(&str, f64, &str)| {
        let width = if known(*bits) { bits / largest * 100.0 } else { 0.0 };
        let shown = if known(*bits) { format!("{bits:.3}") } else { units::NONE.to_string() };
        let name = escape(name);
        format!(
            r#"<tr><th scope="row">{name}</th><td class="bar"><svg width="100%" height="12" aria-hidden="true"><rect width="{width:.2}%" height="12" rx="2" class="{class}"/></svg></td><td class="number">{shown}</td></tr>"#
        )
    };
    let rows: String = models.iter().map(row).collect();
    let source = summary.references.as_ref().map_or(String::new(), |references| {
        let command = escape(&references.command);
        format!(" The same model from the same data in other ways: <code>{command}</code>.")
    });
    format!(
        "<div class=\"card comparison\"><h2>Bits per byte</h2><p>Of held-out text; lower is better.{source}</p><table class=\"bars\"><tbody>{rows}</tbody></table></div>\n"
    )
}

/// Which nodes had another root, if any had.
pub(super) fn disagreements(summary: &Summary) -> String {
    if summary.disagreements.is_empty() {
        return String::new();
    }
    let row = |d: &crate::report::Disagreement| {
        let first = summary.state_roots.get(d.round.0 as usize).map_or(units::NONE.to_string(), ToString::to_string);
        let (round, node, root) = (d.round, escape(&d.node), d.root);
        format!(
            "<tr><td class=\"number\">{round}</td><th scope=\"row\">{node}</th><td><code>{root}</code></td><td><code>{first}</code></td></tr>\n"
        )
    };
    let rows: String = summary.disagreements.iter().take(ROWS_MAX).map(row).collect();
    let more = more(summary.disagreements.len());
    format!(
        "<section class=\"card alarm\"><h2>Disagreements</h2><div class=\"scroll\" tabindex=\"0\"><table class=\"rows\"><thead><tr><th class=\"number\">Round</th><th>Node</th><th>Its root</th><th>The first node's root</th></tr></thead><tbody>\n{rows}</tbody></table></div>{more}</section>\n"
    )
}

fn more(rows: usize) -> String {
    match rows.saturating_sub(ROWS_MAX) {
        0 => String::new(),
        n => format!("<p class=\"more\">{} more are in summary.json.</p>", units::thousands(n as u64)),
    }
}

/// The nodes.
pub(super) fn nodes(summary: &Summary) -> String {
    if summary.nodes.is_empty() {
        return String::new();
    }
    let rows: String = summary.nodes.iter().take(ROWS_MAX).map(|node| node_row(summary, node)).collect();
    let more = more(summary.nodes.len());
    format!(
        "<section class=\"card\"><h2>Nodes</h2><div class=\"scroll\" tabindex=\"0\"><table class=\"rows\"><thead><tr><th>Node</th><th class=\"number\">Uid</th><th class=\"number\">Applied</th><th class=\"number\">Weight</th><th class=\"number\">Tokens</th><th class=\"number\">Received</th><th class=\"number\">Work</th></tr></thead><tbody>\n{rows}</tbody></table></div>{more}</section>\n"
    )
}

/// What each role has cost its machine.
pub(super) fn usage(summary: &Summary) -> String {
    if summary.usage.iter().all(|role| role.memory_peak.is_none() && role.disk_written.is_none()) {
        return String::new();
    }
    let row = |role: &RoleUsage| {
        let or_none = |value: Option<String>| value.unwrap_or_else(|| units::NONE.to_string());
        let numbers = [
            units::thousands(role.nodes.into()),
            or_none(role.memory_peak.map(units::bytes)),
            or_none(role.memory_a_parameter.map(|bytes| units::decimal(bytes, 1))),
            or_none(role.disk_written.map(units::bytes)),
            or_none(role.disk_written_a_round.map(units::bytes)),
        ];
        let numbers: String = numbers.iter().map(|text| format!("<td class=\"number\">{text}</td>")).collect();
        format!("<tr><th scope=\"row\">{}</th>{numbers}</tr>\n", escape(&role.role))
    };
    let rows: String = summary.usage.iter().map(row).collect();
    format!(
        "<section class=\"card\"><h2>Memory and disk</h2><p>Of each role the process that took most. Written is what was handed to the system for disks.</p><div class=\"scroll\" tabindex=\"0\"><table class=\"rows\"><thead><tr><th>Role</th><th class=\"number\">Processes</th><th class=\"number\">Peak memory</th><th class=\"number\">Bytes a parameter</th><th class=\"number\">Written</th><th class=\"number\">Written a round</th></tr></thead><tbody>\n{rows}</tbody></table></div></section>\n"
    )
}

fn node_row(summary: &Summary, node: &NodeSummary) -> String {
    let none = || units::NONE.to_string();
    let miner = node.role == "miner";
    let of_miner = |text: String| if miner { text } else { none() };
    let uid = node.uid.map_or_else(none, |uid| uid.to_string());
    let applied = of_miner(units::thousands(u64::from(node.rounds_contributed)));
    let weight = node.uid.and_then(|uid| summary.weights.get(&uid)).map_or_else(none, |weight| units::percent(*weight));
    let tokens = of_miner(units::short(node.tokens));
    let bytes = units::bytes(received(&node.bytes));
    let work = units::seconds(node.seconds.values().filter(|seconds| seconds.is_finite()).sum());
    let numbers = [uid, applied, weight, tokens, bytes, work];
    let numbers: String = numbers.iter().map(|text| format!("<td class=\"number\">{text}</td>")).collect();
    let (name, remarks) = (escape(&node.name), remarks(summary, node));
    format!("<tr><th scope=\"row\">{name}{remarks}</th>{numbers}</tr>\n")
}

fn remarks(summary: &Summary, node: &NodeSummary) -> String {
    let mut remarks = Vec::new();
    if let Some(kind) = node.uid.and_then(|uid| summary.misbehaving.get(&uid)) {
        remarks.push(format!("<span class=\"tag misbehaves\">{}</span>", escape(kind)));
    }
    if !node.killed.is_empty() {
        let rounds: Vec<String> = node.killed.iter().map(ToString::to_string).collect();
        let rounds: Vec<&str> = rounds.iter().map(String::as_str).collect();
        let word = if rounds.len() == 1 { "round" } else { "rounds" };
        remarks.push(format!("<span class=\"tag killed\">killed in {word} {}</span>", brief(&rounds)));
    }
    if let Some(round) = node.joined {
        remarks.push(format!("<span class=\"tag joined\">joined in round {round}</span>"));
    }
    if summary.disagreements.iter().any(|d| d.node == node.name) {
        remarks.push("<span class=\"tag misbehaves\">another root</span>".to_string());
    }
    remarks.concat()
}

/// Every state root, folded away.
pub(super) fn state_roots(summary: &Summary) -> String {
    if summary.state_roots.is_empty() {
        return String::new();
    }
    let root = |(round, root): (usize, &covey_proto::Digest)| {
        format!("<li><span class=\"round\">{round}</span><code>{root}</code></li>\n")
    };
    let roots: String = summary.state_roots.iter().enumerate().map(root).collect();
    let count = units::count(summary.state_roots.len() as u64, "round");
    format!(
        "<details class=\"card\"><summary><h2>State roots</h2><span>{count}</span></summary><ol class=\"roots\">\n{roots}</ol></details>\n"
    )
}

/// From the end of the content to the end of the document.
pub(super) fn end(script: &str) -> String {
    format!(
        "<footer><p>Everything here is in <code>summary.json</code> too. Losses are in nats a token. Rounds are counted from 0.</p></footer>\n</main>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )
}
