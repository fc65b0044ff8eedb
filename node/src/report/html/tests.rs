//! The page over lively and odd summaries: well-formed, self-contained, escaped, and of a bearable size.
//!
//! `COVEY_REPORT_SAMPLES=folder cargo test -p covey samples` writes the pages, to be looked at.

use super::{html, sample};
use crate::report::{Summary, VoidRound};
use covey_proto::{Digest, Round, RunId, Uid};

fn samples() -> Vec<(&'static str, Summary)> {
    let mut long = sample::swarm(2000, 6);
    long.interrupted = true;
    vec![
        ("swarm", sample::swarm(48, 4)),
        ("broken", sample::broken()),
        ("nothing", sample::nothing()),
        ("none", sample::swarm(0, 4)),
        ("one", sample::swarm(1, 4)),
        ("diverged", sample::diverged()),
        ("many", sample::swarm(200, 256)),
        ("long", long),
    ]
}

/// Panics unless every element is closed in order; returns how many there are.
fn check_nesting(name: &str, page: &str) -> usize {
    const VOID: [&str; 2] = ["meta", "!doctype"];
    let (mut open, mut count): (Vec<&str>, usize) = (Vec::new(), 0);
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        let inside = &rest[start + 1..];
        let end = inside.find('>').unwrap_or_else(|| panic!("{name}: a tag without an end"));
        let (tag, after) = (&inside[..end], &inside[end + 1..]);
        rest = after;
        let word = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "{name}: what </{closed}> closes");
        } else if !tag.ends_with('/') && !VOID.contains(&word) {
            open.push(word);
        }
        count += 1;
        // What is in these is no markup.
        if word == "script" || word == "style" {
            let close = rest.find(&format!("</{word}>")).filter(|_| !tag.starts_with('/'));
            rest = close.map_or(rest, |close| &rest[close..]);
        }
    }
    assert!(open.is_empty(), "{name}: open at the end: {open:?}");
    count
}

#[test]
fn samples_are_well_formed_and_without_foreign_parts() {
    for (name, summary) in samples() {
        let page = html(&summary);
        assert!(check_nesting(name, &page) > 40, "{name}");
        for foreign in ["http://", "https://", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(foreign), "{name} has {foreign}");
        }
        for number in ["NaN", "inf%", "\"inf", "-inf"] {
            assert!(!page.contains(number), "{name} shows {number}");
        }
        if let Some(folder) = std::env::var_os("COVEY_REPORT_SAMPLES") {
            std::fs::write(std::path::Path::new(&folder).join(format!("{name}.html")), &page).unwrap();
        }
    }
}

#[test]
fn every_svg_that_says_something_has_a_title() {
    for (name, summary) in samples() {
        let page = html(&summary);
        for svg in page.split("<svg ").skip(1) {
            let (tag, inside) = svg.split_once('>').unwrap();
            let named = !tag.contains("role=\"img\"") || inside.starts_with("<title id=");
            assert!(named, "{name}: <svg {tag}>");
        }
    }
}

#[test]
fn ids_are_unique() {
    let page = html(&sample::swarm(48, 4));
    let ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let unique: std::collections::BTreeSet<&&str> = ids.iter().collect();
    assert_eq!(ids.len(), unique.len(), "{ids:?}");
}

#[test]
fn no_text_of_a_summary_becomes_markup() {
    const EVIL: &str = "</title></text><script>alert('x')</script>\"onload=\"y";
    let mut summary = sample::broken();
    summary.preset = EVIL.into();
    summary.data = EVIL.into();
    summary.void_rounds = vec![VoidRound { round: Round(3), reason: EVIL.into() }];
    summary.misbehaving.values_mut().for_each(|kind| *kind = EVIL.into());
    summary.bytes.insert(EVIL.into(), 1 << 40);
    summary.seconds.insert(EVIL.into(), 1e6);
    for node in &mut summary.nodes {
        node.name = EVIL.into();
    }
    summary.disagreements[0].node = EVIL.into();
    let page = html(&summary);
    check_nesting("evil", &page);
    assert!(!page.contains("<script>alert"));
    assert!(!page.contains("\"onload"));
    assert_eq!(page.matches("<script").count(), 1);
}

#[test]
fn the_verdict_tells_agreement_from_disagreement_and_from_nothing() {
    assert!(html(&sample::swarm(48, 4)).contains("verdict good"));
    assert!(html(&sample::swarm(0, 4)).contains("verdict none"));
    let page = html(&sample::broken());
    assert!(page.contains("verdict bad") && page.contains("2 nodes had another state in 2 rounds"));
    assert!(page.contains("Interrupted"));
    // Lists that contradict the flag are no agreement.
    let mut contradictory = sample::broken();
    contradictory.roots_agree = true;
    assert!(html(&contradictory).contains("verdict bad"));
    let mut unexplained = sample::swarm(3, 4);
    unexplained.roots_agree = false;
    assert!(html(&unexplained).contains("verdict bad"));
}

#[test]
fn the_headline_says_what_came_of_it() {
    let headline = |summary: &Summary| {
        let page = html(summary);
        page.split("<h1>").nth(1).and_then(|rest| rest.split("</h1>").next()).map(str::to_owned).unwrap()
    };
    assert_eq!(headline(&sample::swarm(0, 4)), "No round was finished");
    assert_eq!(headline(&sample::diverged()), "12 rounds, and the held\u{2011}out loss is not a number");
    let mut summary = sample::swarm(1, 4);
    summary.heldout_loss = vec![6.0, 7.0];
    summary.heldout_loss_final = 7.1;
    assert_eq!(headline(&summary), "1 round took held\u{2011}out loss from 6.00 up to 7.10");
    assert!(headline(&sample::swarm(48, 4)).starts_with("48 rounds took held\u{2011}out loss from 6.2"));
}

/// A bar of shares would be a lie where phases hold more time than the cores had.
#[test]
fn time_beyond_what_cores_can_do_is_said_to_be() {
    let mut summary = sample::swarm(12, 4);
    assert!(html(&summary).contains("unused"));
    summary.seconds.insert("check".into(), 1000.0);
    let page = html(&summary);
    assert!(page.contains("can do: some phases also count time") && !page.contains("unused 0"));
}

#[test]
fn lists_of_different_lengths_are_survived() {
    let mut summary = sample::swarm(8, 4);
    summary.heldout_loss.truncate(3);
    summary.offered.truncate(2);
    summary.weights_by_round.truncate(5);
    summary.round_ends.clear();
    summary.state_roots.truncate(1);
    summary.wall_seconds = 0.0;
    summary.cores = 0;
    summary.run_id = RunId(Digest::ZERO);
    summary.selected.push(vec![Uid::from(255), Uid::from(255), Uid::from(0)]);
    let page = html(&summary);
    check_nesting("ragged", &page);
    assert!(!page.contains("NaN") && !page.contains("inf "));
}

/// A page of 256 miners over 200 rounds, and one of 2,000 rounds, must still open on a phone.
#[test]
fn large_swarms_make_pages_under_two_megabytes() {
    for (name, summary) in samples() {
        let size = html(&summary).len();
        assert!(size < 2_000_000, "{name}: {size} bytes");
    }
}
