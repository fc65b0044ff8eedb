//! How a command that runs until it is told to stop is told: Ctrl-C (SIGINT), SIGTERM, SIGHUP. The first one ends it in
//! good order, a second one at once.

use std::process::exit;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Which signal ended a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopSignal {
    /// Ctrl-C.
    Interrupt,
    /// What a service manager sends.
    Terminate,
    /// The terminal is gone.
    HangUp,
}

impl StopSignal {
    /// The exit code that shells give to a process which such a signal ended: 128 and the signal's number.
    pub(super) const fn exit_code(self) -> u8 {
        match self {
            StopSignal::HangUp => 129,
            StopSignal::Interrupt => 130,
            StopSignal::Terminate => 143,
        }
    }
}

/// Listens from the call on, which a runtime must make: whoever has read that a command serves may end it. The future
/// waits for the first signal. The one after it ends the process, whatever it does then.
pub(super) fn stopped() -> impl Future<Output = StopSignal> {
    let mut signals = Signals::new();
    async move {
        let first = signals.next().await;
        tokio::spawn(async move { exit(signals.next().await.exit_code().into()) });
        first
    }
}

/// A signal that cannot be listened to does what the system says, and so does SIGHUP where `nohup` has turned it off.
struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hang_up: Option<Signal>,
}

impl Signals {
    fn new() -> Signals {
        let hang_up = SignalKind::hangup();
        Signals {
            interrupt: signal(SignalKind::interrupt()).ok(),
            terminate: signal(SignalKind::terminate()).ok(),
            hang_up: if is_ignored(hang_up) { None } else { signal(hang_up).ok() },
        }
    }

    async fn next(&mut self) -> StopSignal {
        tokio::select! {
            () = received(&mut self.interrupt) => StopSignal::Interrupt,
            () = received(&mut self.terminate) => StopSignal::Terminate,
            () = received(&mut self.hang_up) => StopSignal::HangUp,
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    let came = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if came.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Whether this process was started with the signal ignored, as Linux says; nothing is known elsewhere.
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let bit = u32::try_from(kind.as_raw_value() - 1).unwrap_or(u32::MAX);
    1u64.checked_shl(bit).is_some_and(|bit| ignored & bit != 0)
}
