//! Memory: while a large blob passes, beside one of 100 MB (it must not depend on the size), and of nodes at rest.

use super::loopback::{once, task};
use super::process::{Process, here};
use super::role::{Part, Task};
use super::table::{Table, cell, mib};
use super::{Contestant, Failure, Options, Places, Storage};
use crate::report::Report;
use std::time::Duration;

/// The smaller blob.
const SMALL: u64 = 100_000_000;
/// Nodes in one process: as many as have members' numbers and keys here.
const NODES: usize = 200;
/// For connections to be made, surplus ones to be closed (5 s), records to be shown.
const SETTLE: Duration = Duration::from_secs(15);

/// Fills the report.
pub fn measure(options: &Options, places: &Places, report: &mut Report) -> Result<(), Failure> {
    passing(options, places, report);
    resting(options, places, report)
}

fn passing(options: &Options, places: &Places, report: &mut Report) {
    let small = if options.quick { options.bytes / 4 } else { SMALL };
    let table = Table::new(
        "a blob passes, file to file over loopback: peak memory in MiB",
        &[("", 12), ("MB", 6), ("provider", 8), ("fetcher", 8), ("MB/s", 6)],
    );
    for contestant in [Contestant::Covey, Contestant::Iroh] {
        if !options.wants(contestant.name()) {
            continue;
        }
        let mut peaks = vec![];
        for bytes in [small, options.bytes] {
            match once(contestant, Storage::Files, bytes, places, false) {
                Ok((sample, ..)) => {
                    let [provider, fetcher] = sample.rss;
                    let size = cell(bytes as f64 / 1e6, 0);
                    let name = contestant.name().to_owned();
                    table.row(&[name, size, mib(provider), mib(fetcher), cell(sample.rate, 0)]);
                    peaks.push(sample.rss);
                }
                Err(error) => table.failed(contestant.name(), &error.to_string()),
            }
        }
        if let [small, large] = peaks[..] {
            let name = contestant.name().replace('-', "_");
            for (end, which) in ["provider", "fetcher"].into_iter().enumerate() {
                report.keep(&format!("{name}_{which}_rss_small"), small[end], 0);
                report.keep(&format!("{name}_{which}_rss_large"), large[end], 0);
                report.keep(&format!("{name}_{which}_rss_growth"), large[end] / small[end], 3);
            }
        }
    }
    println!();
}

fn resting(options: &Options, places: &Places, report: &mut Report) -> Result<(), Failure> {
    let many = if options.quick { 8 } else { NODES };
    if !options.wants("rest") {
        return Ok(());
    }
    let (alone, _) = rest(1, options, places)?;
    let (all, connections) = rest(many, options, places)?;
    let each = (all - alone) / (many - 1) as f64;
    report.number("nodes_at_rest", many as f64, 0, "in one process");
    report.number("connections_per_node", connections / many as f64, 1, "");
    report.number("rss_of_one_node", alone / 1_048_576.0, 1, "MiB");
    report.number("rss_of_all", all / 1_048_576.0, 0, "MiB");
    report.number("rss_per_node", each / 1_048_576.0, 2, "MiB, the first one's process aside");
    Ok(())
}

/// Memory and connections of so many nodes in one process.
fn rest(nodes: usize, options: &Options, places: &Places) -> Result<(f64, f64), Failure> {
    let usual = task(Contestant::Covey, Storage::Files, 1, places)?;
    let task = Task { part: Part::Rest, folder: places.role(Storage::Files, "rest")?, nodes, ..usual };
    let mut process = Process::start(&task, &here)?;
    std::thread::sleep(if options.quick { SETTLE / 5 } else { SETTLE });
    let usage = process.usage()?;
    drop(process);
    std::fs::remove_dir_all(&task.folder)?;
    Ok((usage.rss, usage.counter("connected")))
}
