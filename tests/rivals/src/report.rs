//! What was measured: printed line by line as it comes, and written as JSON at the end; the same numbers in both.

use serde_json::{Map, Value, json};
use std::fs;
use std::io;
use std::time::Instant;

/// Numbers by name.
pub struct Report {
    rows: Map<String, Value>,
}

impl Report {
    /// Begins with the machine.
    pub fn new() -> Report {
        let mut report = Report { rows: Map::new() };
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
        report.text("cpu", model.trim_start_matches([' ', '\t', ':']));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        report.number("cores", cores as f64, 0, "");
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        report.number("load_at_start", load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0), 2, "");
        report
    }

    /// Takes a number, to as many decimals.
    pub fn number(&mut self, name: &str, value: f64, decimals: usize, unit: &str) {
        let printed = format!("{value:.decimals$}");
        println!("{name:<34} {printed:>12} {unit}");
        let value: f64 = printed.parse().unwrap_or(value);
        self.rows.insert(name.to_owned(), json!(value));
    }

    /// Takes a number that a table shows: nothing is printed. What is no number (a measurement that failed) is left out.
    #[cfg(all(feature = "exchange", target_os = "linux"))]
    pub fn keep(&mut self, name: &str, value: f64, decimals: usize) {
        if value.is_finite() {
            let value: f64 = format!("{value:.decimals$}").parse().unwrap_or(value);
            self.rows.insert(name.to_owned(), json!(value));
        }
    }

    /// A number that was taken.
    #[cfg(all(feature = "exchange", target_os = "linux"))]
    pub fn kept(&self, name: &str) -> Option<f64> {
        self.rows.get(name).and_then(Value::as_f64)
    }

    /// Takes a text.
    pub fn text(&mut self, name: &str, value: &str) {
        println!("{name:<34} {value}");
        self.rows.insert(name.to_owned(), json!(value));
    }

    /// Writes all that was taken.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&self, file: &str) -> io::Result<()> {
        fs::write(file, serde_json::to_string_pretty(&self.rows)? + "\n")
    }
}

/// Seconds that `work` takes.
pub fn seconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_secs_f64(), result)
}

/// Keeps the least: what the machine can do, other work aside.
pub fn keep_least(least: &mut f64, seconds: f64) {
    *least = least.min(seconds);
}

/// The most memory that the process had since [`reset_peak`], in bytes.
pub fn peak_memory() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
}

/// Forgets the peak so far. Where the system does not let us, the peak is that of the whole run.
pub fn reset_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}
