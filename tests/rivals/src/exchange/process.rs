//! A role in a process of its own, seen from the parent: told lines, asked for events, ended with its owner.

use super::Failure;
use super::role::Task;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// For starting, importing and connecting: far more than it takes.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Events that wait to be read; a process that says more waits.
const EVENTS_MAX: usize = 256;

/// How to start a command, and so where: on this machine, or inside a node of an emulated network.
pub type Launch<'a> = &'a dyn Fn(&mut Command) -> io::Result<Child>;

/// On this machine, as it is.
pub fn here(command: &mut Command) -> io::Result<Child> {
    command.spawn()
}

/// A running role.
pub struct Process {
    name: String,
    child: Child,
    input: ChildStdin,
    events: Receiver<Value>,
    /// What it offers.
    pub offer: String,
}

/// What a role used since its mark.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Seconds of processor time.
    pub cpu: f64,
    /// Most memory, bytes; of files that are mapped, too.
    pub rss_peak: f64,
    /// Memory now, bytes.
    pub rss: f64,
    /// The contestant's own.
    pub counters: Value,
}

impl Usage {
    /// One of the contestant's own counters; 0 if it has none of that name.
    pub fn counter(&self, name: &str) -> f64 {
        self.counters.get(name).and_then(Value::as_f64).unwrap_or(0.0)
    }
}

/// How a fetch went.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    pub seconds: f64,
    pub bytes: u64,
}

impl Process {
    /// Starts the role and waits until it is ready.
    pub fn start(task: &Task, launch: Launch<'_>) -> Result<Process, Failure> {
        let name = format!("{} ({:?})", task.contestant.name(), task.part);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(task.words()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = launch(&mut command).map_err(|error| format!("cannot start {name}: {error}"))?;
        let input = child.stdin.take().expect("its input is piped");
        let output = child.stdout.take().expect("its output is piped");
        let (sender, events) = sync_channel(EVENTS_MAX);
        std::thread::spawn(move || {
            let values = BufReader::new(output).lines().map_while(Result::ok);
            for value in values.filter_map(|line| serde_json::from_str(&line).ok()) {
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        let mut process = Process { name, child, input, events, offer: String::new() };
        let ready = process.wait("ready", PATIENCE)?;
        process.offer = ready.get("offer").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(process)
    }

    /// Sends a line.
    pub fn tell(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.input, "{line}").map_err(|error| format!("{} is gone: {error}", self.name).into())
    }

    /// The next event of this kind; others before it are dropped.
    pub fn wait(&mut self, kind: &str, patience: Duration) -> Result<Value, Failure> {
        self.wait_until(patience, &format!("{kind:?}"), |event| event["event"] == kind)
    }

    /// The first event that `wanted` takes; others before it are dropped.
    pub fn wait_until(
        &mut self,
        patience: Duration,
        what: &str,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> Result<Value, Failure> {
        let deadline = Instant::now() + patience;
        loop {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) if wanted(&event) => return Ok(event),
                Ok(event) if event["event"] == "failed" => {
                    return Err(format!("{} failed: {}", self.name, event["why"]).into());
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = patience.as_secs();
                    return Err(format!("{} did not say {what} within {seconds} s", self.name).into());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait()?;
                    return Err(format!("{} ended ({status}) before it said {what}", self.name).into());
                }
            }
        }
    }

    /// Says a word and waits for the answer.
    pub fn ask(&mut self, line: &str, answer: &str) -> Result<Value, Failure> {
        self.tell(line)?;
        self.wait(answer, PATIENCE)
    }

    /// From here on usage counts.
    pub fn mark(&mut self) -> Result<(), Failure> {
        self.ask("mark", "marked").map(drop)
    }

    /// Since the mark.
    pub fn usage(&mut self) -> Result<Usage, Failure> {
        let event = self.ask("usage", "usage")?;
        let number = |name: &str| event.get(name).and_then(Value::as_f64).unwrap_or(0.0);
        Ok(Usage {
            cpu: number("cpu"),
            rss_peak: number("rss_peak"),
            rss: number("rss"),
            counters: event.get("counters").cloned().unwrap_or_default(),
        })
    }

    /// Waits for the end of a fetch that `go` began.
    pub fn done(&mut self, patience: Duration) -> Result<Done, Failure> {
        let event = self.wait("done", patience)?;
        let bytes = event.get("bytes").and_then(Value::as_u64).unwrap_or(0);
        Ok(Done { seconds: event.get("seconds").and_then(Value::as_f64).unwrap_or(f64::NAN), bytes })
    }

    /// Ends it as a crash does.
    pub fn kill(mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Whatever it is at: nothing of it is needed any more. It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
