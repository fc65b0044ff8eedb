//! News as lines for people, at most 80 columns wide where uids are few.

use super::News;
use crate::report::units;
use covey_proto::{Round, Uid};
use std::collections::BTreeMap;
use std::fmt;

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            News::Opened { round, first, last, members, validators } => {
                let people = units::count(*members as u64, "member");
                write!(f, "{}blocks {first} to {last}; {people}, {validators} may vote", head(*round))
            }
            News::Committed { round, uids } if uids.is_empty() => write!(f, "{}nobody committed", head(*round)),
            News::Committed { round, uids } => write!(f, "{}committed: {}", head(*round), list(uids)),
            News::Announced { round, uid, bytes, gossiped } => {
                let way = if *gossiped { "" } else { ", when asked" };
                write!(f, "{}uid {uid} revealed {}{way}", head(*round), units::bytes(*bytes))
            }
            News::Decided { .. } => self.decided(f),
            News::Applied { round, head: digest, root, selected, as_decided } => {
                let what = units::count(*selected as u64, "contribution");
                write!(f, "{}state root {}, head {}, {what}", head(*round), root.short(), digest.short())?;
                match as_decided {
                    Some(false) => f.write_str(" – NOT WHAT THE CHAIN DECIDED"),
                    _ => Ok(()),
                }
            }
            News::NoHeader { round, head: digest, why } => {
                write!(f, "{}nobody gives the header {}: {why}", head(*round), digest.short())
            }
            News::Weights { validators, shares } => {
                let by = units::count(*validators as u64, "validator");
                write!(f, "weights by {by}: {}", percents(shares))
            }
            News::Skipped { block, why } => write!(f, "skipped to the newest round: block {block}: {why}"),
        }
    }
}

impl News {
    fn decided(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let News::Decided { round, selected, missed, void, voted, electorate, heads } = self else { return Ok(()) };
        match void {
            Some(reason) => write!(f, "{}void: {reason}", head(*round))?,
            None => write!(f, "{}selected: {}", head(*round), list(selected))?,
        }
        write!(f, "; {} of {electorate} voted", voted.len())?;
        if !missed.is_empty() {
            write!(f, "; support of the rest: {}", percents(missed))?;
        }
        if heads.len() > 1 {
            write!(f, "; HEADS DIFFER:")?;
            heads.iter().try_for_each(|(head, share)| write!(f, " {} {:.0} %", head.short(), share * 100.0))?;
        }
        Ok(())
    }
}

fn head(round: Round) -> String {
    format!("round {round:<5} ")
}

/// Uids, with runs of more than two as FIRST–LAST.
fn list(uids: &[Uid]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for uid in uids.iter().map(|uid| uid.number()) {
        match runs.last_mut() {
            Some((_, last)) if uid == *last + 1 => *last = uid,
            _ => runs.push((uid, uid)),
        }
    }
    let run = |(first, last): (u32, u32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first} {last}"),
        _ => format!("{first}–{last}"),
    };
    runs.into_iter().map(run).collect::<Vec<_>>().join(" ")
}

fn percents(shares: &BTreeMap<Uid, f64>) -> String {
    let one = |(uid, share): (&Uid, &f64)| format!("{uid}: {:.0} %", share * 100.0);
    shares.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use covey_proto::Digest;

    fn uids(numbers: &[u8]) -> Vec<Uid> {
        numbers.iter().map(|number| Uid::from(*number)).collect()
    }

    #[test]
    fn uids_are_written_in_runs() {
        assert_eq!(list(&uids(&[0, 1, 2, 3, 7, 9, 10])), "0–3 7 9 10");
        assert_eq!(list(&[]), "");
    }

    #[test]
    fn a_split_electorate_is_shouted_about() {
        let news = News::Decided {
            round: Round(3),
            selected: uids(&[0, 1]),
            missed: [(Uid::from(2), 0.25)].into(),
            void: None,
            voted: uids(&[4, 5]),
            electorate: 3,
            heads: [(Digest::of(b"a"), 0.6), (Digest::of(b"b"), 0.4)].into(),
        };
        let text = news.to_string();
        assert!(text.starts_with("round 3     selected: 0 1; 2 of 3 voted; support of the rest: 2: 25 %"), "{text}");
        assert!(text.contains("HEADS DIFFER"), "{text}");
    }
}
