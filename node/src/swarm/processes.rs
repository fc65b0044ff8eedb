//! How long a swarm waits for its processes: for their first word, and for their end, after which they are killed.

use crate::supervise::{Line, Next, ProcessEvent};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How long a process may take from its start to its first word.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(180);
/// How long nodes may take to have a model's state from the one that brings it: 36 GB at a quarter of a gigabit a second.
pub(super) const MODEL_TIMEOUT: Duration = Duration::from_secs(1200);
/// How long processes may take to end once they were told to; then they are killed, and may take as long again.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Waits until all of `left` have ended, and `kill`s those that take longer than `patience`. What is said meanwhile goes
/// to `said`. Gives the others that have ended for good in that time.
pub(super) async fn ended_in_time(
    events: &mut mpsc::Receiver<ProcessEvent>,
    mut left: Vec<Arc<str>>,
    patience: Duration,
    kill: impl Fn(&str),
    mut said: impl FnMut(Arc<str>, Line),
) -> Vec<Arc<str>> {
    let (mut until, mut killed, mut others) = (Instant::now() + patience, false, Vec::new());
    while !left.is_empty() {
        match tokio::time::timeout_at(until, events.recv()).await {
            Ok(Some(ProcessEvent::Ended { name, next: Next::AsTold | Next::Never(_), .. })) => {
                match left.iter().position(|other| *other == name) {
                    Some(at) => drop(left.swap_remove(at)),
                    None => others.push(name),
                }
            }
            Ok(Some(ProcessEvent::Said { name, line })) => said(name, line),
            Ok(Some(_)) => {}
            Ok(None) => break,
            // Not even a kill ends who waits for a disk that does not answer.
            Err(_) if killed => {
                tracing::error!(?left, "killed, and not ended in time: left alone");
                break;
            }
            Err(_) => {
                tracing::warn!(?left, "not ended in time: killed");
                left.iter().for_each(|name| kill(name));
                (until, killed) = (Instant::now() + patience, true);
            }
        }
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn ended(name: &str) -> ProcessEvent {
        ProcessEvent::Ended { name: name.into(), how: "ended".into(), next: Next::AsTold }
    }

    #[tokio::test]
    async fn who_does_not_end_in_time_is_killed_and_the_others_are_heard_until_then() {
        let (sender, mut events) = mpsc::channel(8);
        let (killed, heard) = (RefCell::new(Vec::new()), RefCell::new(0));
        let line = Line::Halted { why: "last words".into() };
        sender.send(ProcessEvent::Said { name: "b".into(), line }).await.unwrap();
        sender.send(ended("a")).await.unwrap();
        sender.send(ended("devnet")).await.unwrap();
        let kill = |name: &str| {
            killed.borrow_mut().push(name.to_owned());
            sender.try_send(ended(name)).unwrap();
        };
        let (left, said) = (vec!["a".into(), "b".into()], |_, _| *heard.borrow_mut() += 1);
        let others = ended_in_time(&mut events, left, Duration::ZERO, kill, said).await;
        assert_eq!((&*killed.borrow(), *heard.borrow()), (&vec!["b".to_owned()], 1));
        assert_eq!(others, ["devnet".into()], "the chain ended, too, and need not be waited for");
    }

    #[tokio::test]
    async fn who_is_not_ended_by_a_kill_is_left_alone() {
        let (_sender, mut events) = mpsc::channel(1);
        let kills = RefCell::new(0);
        ended_in_time(&mut events, vec!["a".into()], Duration::ZERO, |_| *kills.borrow_mut() += 1, |_, _| {}).await;
        assert_eq!(*kills.borrow(), 1);
    }
}
