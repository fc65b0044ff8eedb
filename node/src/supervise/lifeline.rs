//! The child's side of a supervisor's pipes: standard input that ends when the supervisor does, lines on standard output.

use super::Line;
use std::io::{Read, Write};
use std::process::exit;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a child that nobody listens to any more may take to end in good order; then it ends at once.
const GRACE: Duration = Duration::from_secs(30);

/// What a child exits with that did not end in good order in time: as if by SIGKILL.
const EXIT_LATE: i32 = 137;

/// Ends when the supervisor closes its pipe, or is gone. The process then has some seconds to end in good order.
pub async fn cut() {
    let (cut, was_cut) = oneshot::channel();
    let watch = move || {
        let (mut input, mut buffer) = (std::io::stdin().lock(), [0; 256]);
        // What a supervisor might write means nothing; an error is as good as the end.
        while matches!(input.read(&mut buffer), Ok(read) if read > 0) {}
        let _ = cut.send(());
        std::thread::sleep(GRACE);
        exit(EXIT_LATE);
    };
    // Not a task: a runtime that ends would wait for its read.
    if std::thread::Builder::new().name("lifeline".into()).spawn(watch).is_err() {
        tracing::error!("no thread to watch the supervisor with: ending");
        return;
    }
    // An error would mean that the thread is gone without a word; it cannot be.
    let _ = was_cut.await;
}

/// Says a line to the supervisor. One that is gone hears nothing, and the lifeline says so.
pub fn say(line: &Line) {
    let Ok(mut text) = serde_json::to_vec(line) else { return };
    text.push(b'\n');
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(&text).and_then(|()| out.flush());
}
