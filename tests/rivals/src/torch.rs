//! PyTorch as a rival: a process of its own, told when to take its turn.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A script that waits for its turns.
pub struct Torch {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// What it says about itself.
    pub version: String,
}

impl Torch {
    /// Starts `tests/rivals/<script>` with the Python of `COVEY_TORCH_PYTHON` (or `python3`); none if that has no PyTorch.
    pub fn start(script: &str, arguments: &[&str]) -> Option<Torch> {
        let python = std::env::var("COVEY_TORCH_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
        let mut command = Command::new(python);
        command.arg(script).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().ok()?;
        let (input, output) = (process.stdin.take()?, BufReader::new(process.stdout.take()?));
        let mut torch = Torch { process, input, output, version: String::new() };
        torch.version = torch.line().filter(|line| !line.is_empty())?;
        Some(torch)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).ok()?;
        Some(line.trim().to_owned())
    }

    /// Lets it do the work once, on as many threads: seconds, by its own clock.
    pub fn turn(&mut self, threads: usize) -> Option<f64> {
        writeln!(self.input, "{threads}").ok()?;
        self.input.flush().ok()?;
        self.line()?.parse().ok()
    }
}

impl Drop for Torch {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
