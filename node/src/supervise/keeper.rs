//! One process over its lives: a thread that starts it, passes on what it says, waits for its end, and starts it again
//! where [`Restarts`] says so. Decides nothing itself.

use super::restarts::{Death, Limits, Next, Restarts, Wanted};
use super::{LINE_BYTES_MAX, Line};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Between two looks at a process that has closed its output and still lives.
const LOOK: Duration = Duration::from_millis(10);

/// What to start.
#[derive(Clone, Debug)]
pub struct Program {
    /// For people, and the name of its thread.
    pub name: Arc<str>,
    /// The executable.
    pub path: PathBuf,
    /// What it is told.
    pub arguments: Vec<OsString>,
    /// Where its standard error goes, at the end of what is there.
    pub log: PathBuf,
}

/// Why a process cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// Its log cannot be written.
    #[error("the log of {name}, {path}: {error}")]
    Log {
        /// The process.
        name: Arc<str>,
        /// The log.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It does not start.
    #[error("{name} does not start: {path}: {error}")]
    Program {
        /// The process.
        name: Arc<str>,
        /// The executable.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// No thread to watch it with.
    #[error("no thread for {name}: {error}")]
    Thread {
        /// The process.
        name: Arc<str>,
        /// What the system says.
        error: io::Error,
    },
}

/// What becomes of a process, in the order in which it does.
#[derive(Clone, Debug, PartialEq)]
pub enum ProcessEvent {
    /// It says something.
    Said {
        /// The process.
        name: Arc<str>,
        /// What it says.
        line: Line,
    },
    /// It has ended.
    Ended {
        /// The process.
        name: Arc<str>,
        /// How, in words: `was killed by signal 9`.
        how: String,
        /// What comes now.
        next: Next,
    },
    /// It was started again.
    Begun {
        /// The process.
        name: Arc<str>,
    },
}

/// A process that is looked after. Dropping this tells it to end.
pub struct Keeper {
    shared: Arc<Shared>,
}

struct Shared {
    life: Mutex<Life>,
    /// Told when somebody wants an end.
    told: Condvar,
}

struct Life {
    program: Program,
    /// Taken while nobody runs.
    child: Option<Child>,
    /// Its end tells the child to end.
    input: Option<ChildStdin>,
    /// What its owner wants of it.
    wanted: Wanted,
}

impl Keeper {
    /// Starts a process, and tells `events` what becomes of it.
    ///
    /// # Errors
    /// It cannot be started for the first time.
    pub fn start(program: Program, limits: Limits, events: mpsc::Sender<ProcessEvent>) -> Result<Keeper, SpawnError> {
        let name = program.name.clone();
        let life = Life { program, child: None, input: None, wanted: Wanted::Running };
        let shared = Arc::new(Shared { life: Mutex::new(life), told: Condvar::new() });
        let output = shared.life().spawn()?;
        let kept = shared.clone();
        std::thread::Builder::new()
            .name(format!("keeper {name}"))
            .spawn(move || kept.keep(&name, output, Restarts::new(limits), &events))
            .map_err(|error| {
                let mut life = shared.life();
                life.kill();
                SpawnError::Thread { name: life.program.name.clone(), error }
            })?;
        Ok(Keeper { shared })
    }

    /// Tells it to end in good order. Its [`ProcessEvent::Ended`] says when it has.
    pub fn stop(&self) {
        let mut life = self.shared.life();
        life.wanted = Wanted::Ended;
        life.input = None;
        self.shared.told.notify_all();
    }

    /// Kills it, for good: SIGKILL.
    pub fn kill(&self) {
        let mut life = self.shared.life();
        life.wanted = Wanted::Ended;
        life.kill();
        self.shared.told.notify_all();
    }

    /// Kills it with SIGKILL, as a crash would end it, and lets it be started again. This death does not count among
    /// those after which a process is given up. Nothing happens while it is between two lives.
    pub fn crash(&self) {
        let mut life = self.shared.life();
        if life.child.is_some() && life.wanted == Wanted::Running {
            life.wanted = Wanted::Crashed;
            life.kill();
        }
    }

    /// The arguments with which it is started from its next life on.
    pub fn set_arguments(&self, arguments: Vec<OsString>) {
        self.shared.life().program.arguments = arguments;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Life {
    fn spawn(&mut self) -> Result<ChildStdout, SpawnError> {
        let Program { name, path, arguments, log } = &self.program;
        let no_log = |error| SpawnError::Log { name: name.clone(), path: log.clone(), error };
        let log = File::options().create(true).append(true).open(log).map_err(no_log)?;
        let (name, path) = (name.clone(), path.clone());
        let no_program = |error| SpawnError::Program { name: name.clone(), path: path.clone(), error };
        let mut child = Command::new(&path)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // A group of its own: Ctrl-C on the terminal is for the supervisor, who tells the others in order.
            .process_group(0)
            .spawn()
            .map_err(no_program)?;
        self.input = child.stdin.take();
        let output = child.stdout.take();
        self.child = Some(child);
        output.ok_or_else(|| no_program(io::Error::other("no pipe for its output")))
    }

    fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            // One that has ended cannot be killed, and need not.
            let _ = child.kill();
        }
    }
}

/// What a process said in one life, as far as it matters for the next.
#[derive(Default)]
struct Said {
    /// It came as far as doing what it was started for.
    ready: bool,
    /// It said that a person must look.
    halted: Option<String>,
    /// It said why it cannot.
    failed: Option<String>,
}

impl Shared {
    fn life(&self) -> MutexGuard<'_, Life> {
        // Each change of it is whole before anything can panic.
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, name: &Arc<str>, output: ChildStdout, mut restarts: Restarts, events: &mpsc::Sender<ProcessEvent>) {
        let (mut output, mut was_ready) = (Some(output), false);
        loop {
            let born = Instant::now();
            let said = output.take().map(|output| listen(name, output, events)).unwrap_or_default();
            was_ready |= said.ready;
            let status = self.wait();
            let next = restarts.after(Death {
                wanted: self.take_wanted(),
                was_ready,
                halted: said.halted,
                failed: said.failed,
                exit_code: status.and_then(|status| status.code()),
                lived: born.elapsed(),
            });
            let pause = if let Next::Again(pause) = &next { Some(*pause) } else { None };
            let ended = ProcessEvent::Ended { name: name.clone(), how: describe(status), next };
            if events.blocking_send(ended).is_err() {
                return;
            }
            let Some(pause) = pause else { return };
            match self.spawn_after(pause) {
                Ok(Some(begun)) => {
                    output = Some(begun);
                    if events.blocking_send(ProcessEvent::Begun { name: name.clone() }).is_err() {
                        return;
                    }
                }
                // Told to end during the pause: there is nobody left to end.
                Ok(None) => {
                    let how = "was not started again".to_owned();
                    let _ = events.blocking_send(ProcessEvent::Ended { name: name.clone(), how, next: Next::AsTold });
                    return;
                }
                Err(error) => tracing::error!(%error, "not started again"),
            }
        }
    }

    /// Waits for the end of a process that has closed its output. None if there was none to wait for.
    fn wait(&self) -> Option<ExitStatus> {
        loop {
            {
                let mut life = self.life();
                match life.child.as_mut()?.try_wait() {
                    Ok(None) => {}
                    Ok(Some(status)) => {
                        (life.child, life.input) = (None, None);
                        return Some(status);
                    }
                    Err(error) => {
                        tracing::error!(name = %life.program.name, %error, "a child cannot be waited for");
                        (life.child, life.input) = (None, None);
                        return None;
                    }
                }
            }
            std::thread::sleep(LOOK);
        }
    }

    /// What its owner wants. A crash is wanted once: the next life is to run.
    fn take_wanted(&self) -> Wanted {
        let mut life = self.life();
        let wanted = life.wanted;
        if wanted == Wanted::Crashed {
            life.wanted = Wanted::Running;
        }
        wanted
    }

    /// Lets a pause pass, and starts the process again if it is still wanted then.
    fn spawn_after(&self, pause: Duration) -> Result<Option<ChildStdout>, SpawnError> {
        let waited = self.told.wait_timeout_while(self.life(), pause, |life| life.wanted == Wanted::Running);
        let mut life = waited.unwrap_or_else(PoisonError::into_inner).0;
        if life.wanted == Wanted::Running { life.spawn().map(Some) } else { Ok(None) }
    }
}

/// Passes on what a process says, until it closes its output.
fn listen(name: &Arc<str>, output: ChildStdout, events: &mpsc::Sender<ProcessEvent>) -> Said {
    let (mut reader, mut buffer, mut said) = (BufReader::new(output), Vec::new(), Said::default());
    loop {
        buffer.clear();
        let mut bounded = Read::take(&mut reader, LINE_BYTES_MAX as u64);
        match bounded.read_until(b'\n', &mut buffer) {
            Ok(read) if read > 0 => {}
            // An error is the end of a pipe, too.
            _ => return said,
        }
        let line = match serde_json::from_slice::<Line>(&buffer) {
            Ok(line) => line,
            Err(error) => {
                // Torn by a kill, or printed by a library.
                tracing::warn!(%name, %error, bytes = buffer.len(), "a line that is none of ours");
                continue;
            }
        };
        match &line {
            Line::Started { .. } | Line::Serving { .. } => said.ready = true,
            Line::Halted { why } => said.halted = Some(why.clone()),
            Line::Failed { error } => said.failed = Some(error.clone()),
            Line::Pace(_) | Line::Status(_) | Line::Applied(_) => {}
        }
        if events.blocking_send(ProcessEvent::Said { name: name.clone(), line }).is_err() {
            return said;
        }
    }
}

fn describe(status: Option<ExitStatus>) -> String {
    match status {
        None => "did not start".into(),
        Some(status) => match (status.signal(), status.code()) {
            (Some(signal), _) => format!("was killed by signal {signal}"),
            (None, Some(code)) => format!("ended with exit code {code}"),
            (None, None) => "ended".into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Limits = Limits {
        pause: Duration::from_millis(1),
        pause_max: Duration::from_millis(4),
        recovered: Duration::from_secs(3600),
        deaths_max: 3,
    };

    /// A shell that does this, kept.
    fn keep(script: &str) -> (Keeper, mpsc::Receiver<ProcessEvent>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let (events, receiver) = mpsc::channel(64);
        let arguments = vec!["-c".into(), script.into()];
        let log = folder.path().join("log");
        let program = Program { name: "child".into(), path: "/bin/sh".into(), arguments, log };
        (Keeper::start(program, QUICK, events).unwrap(), receiver, folder)
    }

    fn runs(keeper: &Keeper) -> bool {
        keeper.shared.life().child.is_some()
    }

    const SERVING: &str = r#"echo '{"serving":{"url":"ws://here"}}'"#;

    fn ended(event: Option<ProcessEvent>) -> (String, Next) {
        match event {
            Some(ProcessEvent::Ended { how, next, .. }) => (how, next),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_a_child_says_is_passed_on_and_the_end_of_its_input_ends_it() {
        let (keeper, mut events, _folder) = keep(&format!("{SERVING}; echo nonsense; cat >/dev/null; exit 7"));
        let line = Line::Serving { url: "ws://here".into() };
        assert_eq!(events.recv().await, Some(ProcessEvent::Said { name: "child".into(), line }));
        assert!(runs(&keeper));
        keeper.stop();
        assert_eq!(ended(events.recv().await), ("ended with exit code 7".into(), Next::AsTold));
        assert!(!runs(&keeper));
        assert_eq!(events.recv().await, None, "its thread has ended");
    }

    #[tokio::test]
    async fn who_dies_is_started_again_and_who_always_dies_is_given_up() {
        let (keeper, mut events, folder) = keep(&format!("{SERVING}; echo oh >&2; kill -9 $$"));
        for pause in [1, 2] {
            assert!(matches!(events.recv().await, Some(ProcessEvent::Said { .. })));
            let again = Next::Again(Duration::from_millis(pause));
            assert_eq!(ended(events.recv().await), ("was killed by signal 9".into(), again));
            assert!(matches!(events.recv().await, Some(ProcessEvent::Begun { .. })));
        }
        assert!(matches!(events.recv().await, Some(ProcessEvent::Said { .. })));
        let (_, next) = ended(events.recv().await);
        assert!(matches!(&next, Next::Never(why) if why.contains("3 times")), "{next:?}");
        assert_eq!(std::fs::read_to_string(folder.path().join("log")).unwrap(), "oh\n".repeat(3));
        drop(keeper);
    }

    #[tokio::test]
    async fn a_child_that_is_killed_on_purpose_stays_dead_and_one_that_crashes_does_not() {
        let (keeper, mut events, _folder) = keep(&format!("{SERVING}; cat >/dev/null"));
        assert!(matches!(events.recv().await, Some(ProcessEvent::Said { .. })));
        keeper.crash();
        assert!(matches!(ended(events.recv().await).1, Next::Again(_)));
        assert!(matches!(events.recv().await, Some(ProcessEvent::Begun { .. })));
        assert!(matches!(events.recv().await, Some(ProcessEvent::Said { .. })));
        keeper.kill();
        assert_eq!(ended(events.recv().await), ("was killed by signal 9".into(), Next::AsTold));
        assert_eq!(events.recv().await, None);
    }

    #[tokio::test]
    async fn deaths_on_purpose_are_not_counted() {
        let (keeper, mut events, _folder) = keep(&format!("{SERVING}; cat >/dev/null"));
        for _ in 0..2 * QUICK.deaths_max {
            assert!(matches!(events.recv().await, Some(ProcessEvent::Said { .. })));
            keeper.crash();
            assert_eq!(ended(events.recv().await).1, Next::Again(QUICK.pause));
            assert!(matches!(events.recv().await, Some(ProcessEvent::Begun { .. })));
        }
    }

    #[tokio::test]
    async fn who_halts_or_cannot_start_is_left_alone() {
        let halted = r#"echo '{"started":{"addresses":[],"status":null}}'; echo '{"halted":{"why":"fork"}}'; exit 1"#;
        let (_keeper, mut events, _folder) = keep(halted);
        events.recv().await;
        events.recv().await;
        assert_eq!(ended(events.recv().await).1, Next::Never("halted: fork".into()));
        let (_keeper, mut events, _folder) = keep(r#"echo '{"failed":{"error":"no disk"}}'; exit 1"#);
        events.recv().await;
        assert_eq!(ended(events.recv().await).1, Next::Never("no disk".into()));
        let (_keeper, mut events, _folder) = keep("exit 143");
        assert!(matches!(ended(events.recv().await).1, Next::Never(_)), "somebody sent it SIGTERM");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (events, _receiver) = mpsc::channel(1);
        let (path, log) = (folder.path().join("nobody"), folder.path().join("log"));
        let program = Program { name: "child".into(), path, arguments: vec![], log };
        let error = Keeper::start(program, QUICK, events).err().unwrap().to_string();
        assert!(error.contains("child does not start") && error.contains("nobody"), "{error}");
    }
}
