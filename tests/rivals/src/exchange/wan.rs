//! Over an emulated wide-area network: home lines of 110 Mbit/s up and 500 down, 50 ms one way between any two, one
//! packet in a thousand lost, drop-tail queues of 100 ms.
//!
//! What a line can carry is meant as TCP payload in full packets, 94.1 % of its rate. Bytes lie in memory: the disk is not
//! measured. A slow contestant gets fewer bytes: at a few Mbit/s the rate settles long before.

mod scenes;

use super::table::{Table, median};
use super::{Contestant, Failure, Options, Places};
use crate::report::Report;
use covey_wan::{Node, Rate, Wan, WanError};
use std::collections::BTreeMap;
use std::time::Duration;

const UP: Rate = Rate::mbit(110);
const DOWN: Rate = Rate::mbit(500);
const ONE_WAY: Duration = Duration::from_millis(50);
const LOSS: f64 = 0.001;
const SEED: u64 = 1;
/// Each namespace has its own.
const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// Fetchers that serve on, one to many.
const FETCHERS: u8 = 8;
/// Sources of one fetcher where no BBR is to be had.
const SOURCES: u8 = 8;
/// Without BBR a connection gets a twentieth of the line: so many times fewer bytes.
const SLOW_SHARE: u64 = 16;

/// Headers of IP and TCP with timestamps, and of IP and UDP, in bytes a packet: they are no overhead of an exchange.
const TCP_HEADERS: u64 = 52;
const UDP_HEADERS: u64 = 28;

/// The emulated network, of so many homes.
fn homes(nodes: u8) -> Result<Wan, WanError> {
    Wan::build(&vec![Node::of_path(UP, DOWN, ONE_WAY, LOSS); usize::from(nodes)], SEED)
}

/// Makes something else than BBR what the homes' systems have: on some machines it is BBR. CUBIC, or Reno where the
/// machine does not let namespaces have that; at this loss they are equally slow.
fn without_bbr(wan: &Wan, nodes: u8) -> Result<&'static str, Failure> {
    let set = |name: &str| -> std::io::Result<()> {
        (0..nodes).try_for_each(|node| wan.within(node.into(), || std::fs::write(CONGESTION, name))?)
    };
    if set("cubic").is_ok() {
        return Ok("cubic");
    }
    set("reno").map_err(|error| format!("the homes' congestion control cannot be set: {error}"))?;
    Ok("reno")
}

/// Bytes a second of payload.
fn payload(rate: Rate) -> f64 {
    rate.payload().bits_per_second() as f64 / 8.0
}

/// Bytes that packets carried beside their headers.
fn carried(counted: covey_wan::Counted, contestant: Contestant) -> f64 {
    let headers = if contestant == Contestant::Iroh { UDP_HEADERS } else { TCP_HEADERS };
    counted.bytes.saturating_sub(headers * counted.packets) as f64
}

/// Fills the report, or says why there is no such network here.
pub fn measure(options: &Options, places: &Places, report: &mut Report) -> Result<(), Failure> {
    match homes(1) {
        Ok(_) => {}
        Err(error @ WanError::Unavailable { .. }) => {
            report.text("skipped", &error.to_string());
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    }
    report.number("bytes", options.bytes as f64, 0, "");
    report.number("line_payload_up", payload(UP) * 8e-6, 1, "Mbit/s");
    report.number("line_payload_down", payload(DOWN) * 8e-6, 1, "Mbit/s");
    let table = Table::new(
        "one way, payload; share: of what the line carries; overhead: wire over payload",
        &[("", 26), ("MB", 5), ("seconds", 7), ("Mbit/s", 6), ("share", 6), ("overhead", 8)],
    );
    for scene in scenes::ALL {
        if !options.wants(scene.name) {
            continue;
        }
        let mut runs: BTreeMap<String, (Vec<f64>, usize)> = BTreeMap::new();
        for _ in 0..options.runs {
            match (scene.play)(&scene, options, places, &table) {
                Ok(numbers) => {
                    for (name, value, decimals) in numbers {
                        runs.entry(name).or_insert((vec![], decimals)).0.push(value);
                    }
                }
                Err(error) => {
                    table.failed(scene.name, &error.to_string());
                    report.text(&format!("{}_failed", scene.key()), &error.to_string());
                }
            }
        }
        for (name, (values, decimals)) in runs {
            report.keep(&name, median(&values), decimals);
        }
    }
    println!();
    for (name, of, beside, goal) in GOALS {
        let (Some(value), Some(beside)) = (report.kept(of), beside.map_or(Some(0.0), |name| report.kept(name))) else {
            continue;
        };
        report.number(name, value - beside, 4, goal);
    }
    if let (Some(covey), Some(iroh)) = (report.kept("covey_BBR_mbit_s"), report.kept("iroh_blobs_mbit_s")) {
        report.number("wan_vs_iroh_blobs", covey / iroh, 1, "x");
    }
    Ok(())
}

/// What the figures are to be: a name, which number, less which, and the goal.
const GOALS: [(&str, &str, Option<&str>, &str); 7] = [
    ("one_to_one_share", "covey_BBR_share", None, "of the line (goal: 0.9 or more)"),
    ("wire_overhead", "covey_BBR_wire_overhead", None, "of the payload (goal: 0.02 or less)"),
    ("no_bbr_one_source_share", "covey_no_BBR_share", None, "of the line"),
    ("no_bbr_eight_sources_share", "covey_no_BBR_8_sources_share", None, "of the line"),
    ("one_to_eight_times_bound", "covey_1_to_8_BBR_times_bound", None, "x (goal: 1.25 or less)"),
    ("one_to_eight_duplicates", "covey_1_to_8_BBR_duplicates", None, "of the payload (goal: 0.03 or less)"),
    // What came in all, less what every transfer needs beside its payload.
    ("fetched_twice", "covey_killed_and_resumed_extra", Some("covey_BBR_wire_overhead"), "(goal: 0.02 or less)"),
];
