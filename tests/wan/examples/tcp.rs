//! Plain TCP over an emulated line: what one connection or several reach there, before anything of Covey's. Also the
//! measure of the emulator itself.
//!
//! ```text
//! cargo run --release -p covey-wan --example tcp -- [mb=500] [up=110] [down=500] [delay=50] [loss=0.1]
//!     [queue=BYTES] [fetchers=1] [connections=1] [congestion=bbr] [seed=1]
//! ```
//! Rates in Mbit/s, the path's delay one way in ms, the path's loss in %, queue of both directions (100 ms of the rate
//! if not given), connections of each fetcher. Node 0 sends `mb` MB (10⁶ bytes) to each of the fetchers, as many on
//! each connection.

#![cfg_attr(not(target_os = "linux"), allow(unused))]

#[cfg(target_os = "linux")]
use covey_wan::{Node, Rate, Wan};
#[cfg(target_os = "linux")]
use nix::sys::socket::{setsockopt, sockopt::TcpCongestion};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn Error>> {
    let settings: BTreeMap<String, String> = std::env::args()
        .skip(1)
        .map(|argument| argument.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
        .collect::<Option<_>>()
        .ok_or("settings are KEY=VALUE; the head of tests/wan/examples/tcp.rs has them")?;
    let number = |key: &str, otherwise: f64| settings.get(key).map_or(Ok(otherwise), |value| value.parse::<f64>());
    let rate = |mbit: f64| Rate::bits((mbit * 1e6) as u64);
    let (up, down) = (rate(number("up", 110.0)?), rate(number("down", 500.0)?));
    let delay = Duration::from_secs_f64(number("delay", 50.0)? / 1e3);
    let mut node = Node::of_path(up, down, delay, number("loss", 0.1)? / 100.0);
    if let Some(queue) = settings.get("queue") {
        (node.up_queue, node.down_queue) = (queue.parse()?, queue.parse()?);
    }
    let (fetchers, connections) = (number("fetchers", 1.0)? as usize, number("connections", 1.0)? as usize);
    let bytes = (number("mb", 500.0)? * 1e6) as u64 / connections as u64;
    let congestion = settings.get("congestion").map_or("bbr", String::as_str);
    let wan = Wan::build(&vec![node; fetchers + 1], number("seed", 1.0)? as u64)?;

    let address = SocketAddrV4::new(wan.address(0), 4000);
    let listener = wan.within(0, || TcpListener::bind(address))??;
    setsockopt(&listener, TcpCongestion, &congestion.into())?;
    let total = bytes * (connections * fetchers) as u64;
    let (received, half) = (AtomicU64::new(0), AtomicU64::new(0));
    let start = Instant::now();
    thread::scope(|scope| {
        for at in 0..fetchers * connections {
            let (wan, received, half) = (&wan, &received, &half);
            scope.spawn(move || -> std::io::Result<()> {
                let mut stream = wan.within(1 + at % fetchers, || TcpStream::connect(address))??;
                let mut buffer = vec![0; 256 << 10];
                loop {
                    let length = stream.read(&mut buffer)? as u64;
                    let before = received.fetch_add(length, Ordering::Relaxed);
                    if before < total / 2 && before + length >= total / 2 {
                        half.store(start.elapsed().as_micros() as u64, Ordering::Relaxed);
                    }
                    if length == 0 {
                        return Ok(());
                    }
                }
            });
        }
        for _ in 0..fetchers * connections {
            let Ok((mut stream, _)) = listener.accept() else { continue };
            scope.spawn(move || -> std::io::Result<()> {
                let buffer = vec![7; 256 << 10];
                let mut left = bytes;
                while left > 0 {
                    let now = left.min(buffer.len() as u64);
                    stream.write_all(&buffer[..now as usize])?;
                    left -= now;
                }
                Ok(())
            });
        }
    });
    let took = start.elapsed();
    let received = received.into_inner();
    let mbit = |bytes: u64, time: Duration| bytes as f64 * 8.0 / 1e6 / time.as_secs_f64();
    let (whole, late) = (mbit(received, took), mbit(received / 2, took - Duration::from_micros(half.into_inner())));
    let ceiling = up.payload().min(down.payload()).bits_per_second() as f64 / 1e6;
    println!(
        "{received} of {total} bytes in {:.2} s with {congestion}: {whole:.1} Mbit/s, {late:.1} in the second half; the lines carry {ceiling:.1} of payload: {:.3}, {:.3}",
        took.as_secs_f64(),
        whole / ceiling,
        late / ceiling
    );
    for (node, traffic) in wan.traffic().iter().enumerate() {
        println!("node {node}: up {:?}, down {:?}", traffic.up, traffic.down);
    }
    println!("{:?}; {:.2} s of a core for the emulator", wan.timeliness()?, emulator_seconds());
    Ok(())
}

/// What the emulator's thread has used of a core: user and system time, in hundredths of a second in proc_pid_stat(5).
fn emulator_seconds() -> f64 {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let stat = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    let emulator = stat.filter(|stat| stat.contains("(wan emulator)")).last().unwrap_or_default();
    let fields = emulator.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
