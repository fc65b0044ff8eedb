//! Ending what was started inside: everything in a namespace that goes, and what a killed run left. Touches no process
//! that neither is in such a namespace nor carries the mark of a run that is over.

use crate::namespace::NamespaceId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// The variable in the environment of what is started inside: who started it, as [`owner`] says.
pub(crate) const MARK: &str = "COVEY_WAN";

/// How often ending is tried: a program may start others while it is being looked for. 2 s in all.
const ROUNDS_MAX: usize = 200;
const BETWEEN_ROUNDS: Duration = Duration::from_millis(10);

/// This process, told from a later one of the same number by when it began.
pub(crate) fn owner() -> String {
    let pid = std::process::id();
    format!("{pid}:{}", began(pid).unwrap_or_default())
}

/// Ends every process in these namespaces, and waits until they are gone.
pub(crate) fn end_all_in(namespaces: &[NamespaceId]) {
    let inside =
        |pid: u32| NamespaceId::of(&process(pid).join("ns/net")).is_ok_and(|namespace| namespaces.contains(&namespace));
    end(inside);
}

/// Ends what runs that are over left: processes that carry the mark of one that is not there any more.
pub(crate) fn end_leftovers() {
    let left = |pid: u32| {
        let environment = fs::read(process(pid).join("environ")).unwrap_or_default();
        let mark = environment
            .split(|byte| *byte == 0)
            .find_map(|entry| std::str::from_utf8(entry).ok()?.strip_prefix(MARK)?.strip_prefix('='));
        mark.and_then(|mark| mark.split_once(':')).is_some_and(|(owner, start)| {
            owner.parse().is_ok_and(|owner: u32| began(owner).is_none_or(|began| began.to_string() != start))
        })
    };
    end(left);
}

fn end(meant: impl Fn(u32) -> bool) {
    let own = std::process::id();
    for _ in 0..ROUNDS_MAX {
        let found: Vec<u32> = processes().into_iter().filter(|pid| *pid != own && meant(*pid)).collect();
        if found.is_empty() {
            return;
        }
        for pid in found {
            // It may have ended by itself since.
            kill(Pid::from_raw(pid as i32), Signal::SIGKILL).ok();
        }
        thread::sleep(BETWEEN_ROUNDS);
    }
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn process(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

/// When a process began, in ticks since the machine did; none if there is no such process. Field 22 of proc_pid_stat(5),
/// the 20th after the name, which may hold anything.
fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(process(pid).join("stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn sleeper(mark: Option<String>) -> Child {
        let mut command = Command::new("sleep");
        command.arg("1000").env_remove(MARK);
        command.envs(mark.map(|mark| (MARK, mark))).spawn().expect("a program that every system has")
    }

    #[test]
    fn what_a_killed_run_left_is_ended_and_nothing_else() {
        let mut other_start = sleeper(Some(format!("{}:1", std::process::id())));
        let mut no_process = sleeper(Some("4294967295:1".to_owned()));
        let mut of_a_live_run = sleeper(Some(owner()));
        let mut of_nobody = sleeper(None);
        let mut odd = sleeper(Some("odd".to_owned()));
        end_leftovers();
        let ended = |child: &mut Child| child.wait().is_ok_and(|status| !status.success());
        assert!(ended(&mut other_start) && ended(&mut no_process));
        for alive in [&mut of_a_live_run, &mut of_nobody, &mut odd] {
            assert!(alive.try_wait().is_ok_and(|status| status.is_none()), "it was not a leftover");
            alive.kill().and_then(|()| alive.wait()).expect("it runs");
        }
    }
}
