//! Over an emulated wide-area network: home lines of 110 Mbit/s up and 500 down, 50 ms one way between any two, one
//! packet in a thousand lost, drop-tail queues of 100 ms.
//!
//! What a line can carry is meant as TCP payload in full packets, 94.1 % of its rate. Bytes lie in memory: the disk is not
//! measured. A slow contestant gets fewer bytes: at a few Mbit/s the rate settles long before.

mod scenes;

use super::table::Table;
use super::{Contestant, Failure, Options, Places};
use crate::report::Report;
use covey_wan::{Node, Rate, Wan, WanError};
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
        for run in 0..options.runs {
            if let Err(error) = (scene.play)(&scene, options, places, &table, report) {
                table.failed(scene.name, &error.to_string());
                report.text(&format!("{}_failed_{run}", scene.key()), &error.to_string());
            }
        }
    }
    Ok(())
}
