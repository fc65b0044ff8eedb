//! One provider and one fetcher over loopback, each contestant in turn, so that whatever disturbs the machine disturbs
//! all of them: the median of the runs counts.
//!
//! The clock runs from the request on a standing connection until the fetcher has the whole blob, verified where the
//! contestant verifies. Importing is not on it.

use super::process::{Done, Process, Usage, here};
use super::role::{Part, Task};
use super::table::{Table, cell, median, mib};
use super::{Congestion, Contestant, Failure, Options, Places, Storage, content};
use crate::report::Report;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

/// The slowest rate that is worth waiting for, bytes a second.
const RATE_MIN: u64 = 5_000_000;

const ROWS: [(Storage, Contestant); 10] = [
    (Storage::Discard, Contestant::Tcp),
    (Storage::Discard, Contestant::Stream),
    (Storage::Memory, Contestant::Tcp),
    (Storage::Memory, Contestant::Stream),
    (Storage::Memory, Contestant::Iroh),
    (Storage::Memory, Contestant::Covey),
    (Storage::Files, Contestant::Tcp),
    (Storage::Files, Contestant::Stream),
    (Storage::Files, Contestant::Iroh),
    (Storage::Files, Contestant::Covey),
];

/// One run of one row.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// MB (10⁶ bytes) a second.
    pub rate: f64,
    /// Processor seconds a GB at the provider and the fetcher.
    pub cpu: [f64; 2],
    /// Peak memory of both, bytes.
    pub rss: [f64; 2],
}

/// Samples of one row, and why it has none.
#[derive(Default)]
struct Row {
    samples: Vec<Sample>,
    failure: Option<String>,
}

impl Row {
    fn median(&self, pick: impl Fn(&Sample) -> f64) -> f64 {
        median(&self.samples.iter().map(pick).collect::<Vec<_>>())
    }
}

/// A task over loopback.
pub fn task(contestant: Contestant, storage: Storage, bytes: u64, places: &Places) -> Result<Task, Failure> {
    Ok(Task {
        contestant,
        part: Part::Provide,
        storage,
        folder: places.role(storage, "provider")?,
        source: places.source(storage, bytes)?,
        bytes,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        congestion: Congestion::System,
        offers: vec![],
        members: 2,
        uid: 0,
        nodes: 1,
    })
}

/// Fills the report.
pub fn measure(options: &Options, places: &Places, report: &mut Report) -> Result<(), Failure> {
    report.number("bytes", options.bytes as f64, 0, "");
    report.number("runs", options.runs as f64, 0, "of which the median counts");
    let mut rows: Vec<Row> = ROWS.iter().map(|_| Row::default()).collect();
    for run in 0..options.runs {
        for turn in 0..ROWS.len() {
            // Nobody is always first, or always after the same one.
            let number = (turn + run) % ROWS.len();
            let (storage, contestant) = ROWS[number];
            if !options.wants(&name(storage, contestant)) {
                continue;
            }
            match once(contestant, storage, options.bytes, places, run == 0) {
                Ok((sample, ..)) => {
                    eprintln!("run {}: {} {:.0} MB/s", run + 1, name(storage, contestant), sample.rate);
                    rows[number].samples.push(sample);
                }
                Err(error) => {
                    eprintln!("run {}: {} failed: {error}", run + 1, name(storage, contestant));
                    rows[number].failure = Some(error.to_string());
                }
            }
        }
    }
    print(options, &rows, report);
    Ok(())
}

/// Sends the blob once, between two new processes.
pub fn once(
    contestant: Contestant,
    storage: Storage,
    bytes: u64,
    places: &Places,
    compare: bool,
) -> Result<(Sample, Usage, Usage), Failure> {
    let task = task(contestant, storage, bytes, places)?;
    let mut provider = Process::start(&task, &here)?;
    let fetch = Task {
        part: Part::Fetch,
        folder: places.role(storage, "fetcher")?,
        offers: vec![provider.offer.clone()],
        uid: 1,
        ..task.clone()
    };
    let mut fetcher = Process::start(&fetch, &here)?;
    if contestant == Contestant::Covey {
        fetcher.ask("meet", "met")?;
        provider.ask("meet", "met")?;
    }
    // What earlier runs left to be written must not disturb this one.
    Command::new("sync").status()?;
    provider.mark()?;
    fetcher.mark()?;
    fetcher.tell("go")?;
    let Done { seconds, bytes: got } = fetcher.done(Duration::from_secs(60 + bytes / RATE_MIN))?;
    let (sent, received) = (provider.usage()?, fetcher.usage()?);
    if got != bytes {
        return Err(format!("it fetched {got} bytes of {bytes}").into());
    }
    let fetched = fetch.folder.join("fetched");
    if compare && fetched.exists() && !content::same(&task.source, &fetched)? {
        return Err("what it fetched is not what was sent".into());
    }
    drop((provider, fetcher));
    std::fs::remove_dir_all(&task.folder)?;
    std::fs::remove_dir_all(&fetch.folder)?;
    let gigabytes = bytes as f64 / 1e9;
    let sample = Sample {
        rate: bytes as f64 / 1e6 / seconds,
        cpu: [sent.cpu / gigabytes, received.cpu / gigabytes],
        rss: [sent.rss_peak, received.rss_peak],
    };
    Ok((sample, sent, received))
}

fn name(storage: Storage, contestant: Contestant) -> String {
    format!("{} {}", storage.name(), contestant.name())
}

fn print(options: &Options, rows: &[Row], report: &mut Report) {
    let table = Table::new(
        "loopback, one provider, one fetcher; CPU in seconds a GB, peak memory in MiB",
        &[("", 19), ("MB/s", 6), ("least", 6), ("most", 6), ("CPU out", 7), ("in", 5), ("MiB out", 7), ("in", 5)],
    );
    for ((storage, contestant), row) in ROWS.into_iter().zip(rows) {
        let name = name(storage, contestant);
        if let Some(why) = &row.failure {
            table.failed(&name, why);
        } else if options.wants(&name) {
            let rates = || row.samples.iter().map(|sample| sample.rate);
            table.row(&[
                name.clone(),
                cell(row.median(|sample| sample.rate), 0),
                cell(rates().fold(f64::INFINITY, f64::min), 0),
                cell(rates().fold(f64::NEG_INFINITY, f64::max), 0),
                cell(row.median(|sample| sample.cpu[0]), 2),
                cell(row.median(|sample| sample.cpu[1]), 2),
                mib(row.median(|sample| sample.rss[0])),
                mib(row.median(|sample| sample.rss[1])),
            ]);
        }
        if !row.samples.is_empty() {
            let name = name.replace([' ', '-'], "_");
            report.keep(&format!("{name}_mb_s"), row.median(|sample| sample.rate), 1);
            report.keep(&format!("{name}_cpu_out"), row.median(|sample| sample.cpu[0]), 3);
            report.keep(&format!("{name}_cpu_in"), row.median(|sample| sample.cpu[1]), 3);
            report.keep(&format!("{name}_rss_out"), row.median(|sample| sample.rss[0]), 0);
            report.keep(&format!("{name}_rss_in"), row.median(|sample| sample.rss[1]), 0);
        }
    }
    println!();
    let rate = |storage, contestant| {
        let at = ROWS.iter().position(|&row| row == (storage, contestant)).expect("the pairs below are rows");
        rows[at].median(|sample| sample.rate)
    };
    for (name, of, to, what) in RATIOS {
        let ratio = rate(of.0, of.1) / rate(to.0, to.1);
        if ratio.is_finite() {
            report.number(name, ratio, 3, what);
        }
    }
}

/// Names, what of, to what, and the goal.
type Ratio = (&'static str, (Storage, Contestant), (Storage, Contestant), &'static str);

const RATIOS: [Ratio; 6] = {
    use Contestant::{Covey, Iroh, Stream, Tcp};
    use Storage::{Discard, Files, Memory};
    [
        ("files_vs_iroh_blobs", (Files, Covey), (Files, Iroh), "x (goal: 2)"),
        ("memory_vs_iroh_blobs", (Memory, Covey), (Memory, Iroh), "x"),
        ("memory_vs_raw_stream", (Memory, Covey), (Memory, Stream), "x (goal: 0.85)"),
        ("memory_vs_discarded_stream", (Memory, Covey), (Discard, Stream), "x"),
        ("memory_vs_tcp", (Memory, Covey), (Memory, Tcp), "x"),
        ("files_vs_tcp", (Files, Covey), (Files, Tcp), "x"),
    ]
};
