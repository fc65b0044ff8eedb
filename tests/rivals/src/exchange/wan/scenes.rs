//! What is played on the emulated network: who provides, who fetches, what becomes of them, and what counts.

use super::super::process::{Process, Usage};
use super::super::role::{Part, Task};
use super::super::table::{Table, cell, quantile};
use super::super::{Congestion, Contestant, Failure, Options, Places, Storage};
use super::{DOWN, FETCHERS, SLOW_SHARE, SOURCES, UP, carried, homes, payload, without_bbr};
use covey_wan::{Traffic, Wan};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Announcements whose latency is measured, and the time between two.
const ANNOUNCEMENTS: usize = 100;
const BETWEEN_MILLIS: u64 = 200;
/// Packets that the emulator may deliver late before its figures are doubted, in a thousand.
const LATE_MAX: u64 = 10;
/// The slowest rate that is worth waiting for, bytes a second.
const RATE_MIN: u64 = 150_000;

/// Names, values, decimals.
pub type Numbers = Vec<(String, f64, usize)>;
type Play = fn(&Scene, &Options, &Places, &Table) -> Result<Numbers, Failure>;

/// One scene.
#[derive(Clone, Copy)]
pub struct Scene {
    pub name: &'static str,
    contestant: Contestant,
    congestion: Congestion,
    /// Nodes that have the blob at first, and nodes that have not.
    providers: u8,
    fetchers: u8,
    /// Bytes are divided by this.
    share: u64,
    pub play: Play,
}

const ONE_TO_ONE: Scene = Scene {
    name: "covey, BBR",
    contestant: Contestant::Covey,
    congestion: Congestion::Bbr,
    providers: 1,
    fetchers: 1,
    share: 1,
    play: transfer,
};

const SLOW: Scene = Scene { congestion: Congestion::System, share: SLOW_SHARE, ..ONE_TO_ONE };

/// In the order in which they are played. The names are keys of the report, with words joined by `_`.
pub const ALL: [Scene; 8] = [
    Scene { name: "tcp, BBR", contestant: Contestant::Tcp, ..ONE_TO_ONE },
    ONE_TO_ONE,
    Scene { name: "iroh-blobs", contestant: Contestant::Iroh, ..SLOW },
    Scene { name: "covey, no BBR", ..SLOW },
    Scene { name: "covey, no BBR, 8 sources", providers: SOURCES, share: SLOW_SHARE / 4, ..SLOW },
    Scene { name: "covey, 1 to 8, BBR", fetchers: FETCHERS, ..ONE_TO_ONE },
    Scene { name: "covey, killed and resumed", play: killed, ..ONE_TO_ONE },
    Scene { name: "covey, announcements", play: announcements, ..ONE_TO_ONE },
];

impl Scene {
    /// As a name in the report.
    pub fn key(&self) -> String {
        self.name.replace(", ", "_").replace([' ', '-'], "_")
    }

    fn bytes(&self, options: &Options) -> u64 {
        (options.bytes / self.share).max(1)
    }
}

/// The network with the scene's roles in it, all connected.
struct Stage {
    wan: Wan,
    tasks: Vec<Task>,
    /// Providers first.
    processes: Vec<Process>,
    providers: usize,
    bytes: u64,
    before: Vec<Traffic>,
}

impl Stage {
    fn set(scene: &Scene, options: &Options, places: &Places) -> Result<Stage, Failure> {
        let members = scene.providers + scene.fetchers;
        let wan = homes(members)?;
        if scene.congestion == Congestion::System {
            eprintln!("{}: congestion control {}", scene.name, without_bbr(&wan, members)?);
        }
        let bytes = scene.bytes(options);
        let source = places.source(Storage::Memory, bytes)?;
        let mut stage =
            Stage { wan, tasks: vec![], processes: vec![], providers: scene.providers.into(), bytes, before: vec![] };
        for uid in 0..members {
            let fetches = uid >= scene.providers;
            let offers = stage.processes.iter().take(stage.providers).map(|provider| provider.offer.clone());
            let task = Task {
                contestant: scene.contestant,
                part: if fetches { Part::Fetch } else { Part::Provide },
                storage: Storage::Memory,
                folder: places.role(Storage::Memory, &format!("home-{uid}"))?,
                source: source.clone(),
                bytes,
                listen: SocketAddr::from((stage.wan.address(uid.into()), 0)),
                congestion: scene.congestion,
                offers: if fetches { offers.collect() } else { vec![] },
                members,
                uid,
                nodes: 1,
            };
            stage.processes.push(stage.start(usize::from(uid), &task)?);
            stage.tasks.push(task);
        }
        stage.meet()?;
        for process in &mut stage.processes {
            process.mark()?;
        }
        stage.before = stage.wan.traffic();
        Ok(stage)
    }

    fn start(&self, node: usize, task: &Task) -> Result<Process, Failure> {
        Process::start(task, &|command| self.wan.spawn(node, command))
    }

    fn meet(&mut self) -> Result<(), Failure> {
        if self.tasks.iter().all(|task| task.contestant == Contestant::Covey) {
            for process in &mut self.processes {
                process.ask("meet", "met")?;
            }
        }
        Ok(())
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(60 + self.bytes / RATE_MIN)
    }

    /// All fetch at once. Seconds until the last one has all, by this process's clock.
    fn fetch(&mut self) -> Result<f64, Failure> {
        let start = Instant::now();
        let patience = self.patience();
        for fetcher in &mut self.processes[self.providers..] {
            fetcher.tell("go")?;
        }
        for fetcher in &mut self.processes[self.providers..] {
            let got = fetcher.done(patience)?.bytes;
            if got != self.bytes {
                return Err(format!("a node fetched {got} bytes of {}", self.bytes).into());
            }
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// Bytes beside headers that came down to the fetchers since the stage was set.
    fn came(&self, contestant: Contestant) -> f64 {
        let traffic = self.wan.traffic();
        let since = traffic.iter().zip(&self.before).skip(self.providers).map(|(now, before)| now.since(before).down);
        since.map(|counted| carried(counted, contestant)).sum()
    }

    fn usages(&mut self) -> Result<Vec<Usage>, Failure> {
        self.processes.iter_mut().map(Process::usage).collect()
    }

    /// Says so if the emulator was too slow for its figures to be trusted.
    fn warn(&self, name: &str) -> Result<(), Failure> {
        let timely = self.wan.timeliness()?;
        if timely.late * 1000 > timely.packets * LATE_MAX || timely.overruns > 0 {
            eprintln!(
                "{name}: the emulator was late with {} packets of {}, overruns {}",
                timely.late, timely.packets, timely.overruns
            );
        }
        Ok(())
    }
}

/// Providers to fetchers, all at once.
fn transfer(scene: &Scene, options: &Options, places: &Places, table: &Table) -> Result<Numbers, Failure> {
    let mut numbers = Numbers::new();
    let mut stage = Stage::set(scene, options, places)?;
    let seconds = stage.fetch()?;
    let fetchers = f64::from(scene.fetchers);
    let wanted = stage.bytes as f64 * fetchers;
    let overhead = stage.came(scene.contestant) / wanted - 1.0;
    let usages = stage.usages()?;
    stage.warn(scene.name)?;
    let (size, up) = (stage.bytes as f64, payload(UP));
    let senders = f64::from(scene.providers) + if scene.fetchers > 1 { fetchers } else { 0.0 };
    // One fetcher's own line up carries nothing of use; with several, all serve on.
    let bound = (size / (up * f64::from(scene.providers))).max(size / payload(DOWN)).max(wanted / (up * senders));
    row(table, scene.name, size, seconds, bound, overhead);
    let key = scene.key();
    numbers.push((format!("{key}_seconds"), seconds, 2));
    numbers.push((format!("{key}_mbit_s"), size * 8e-6 / seconds, 2));
    numbers.push((format!("{key}_share"), bound / seconds, 3));
    numbers.push((format!("{key}_times_bound"), seconds / bound, 3));
    numbers.push((format!("{key}_wire_overhead"), overhead, 4));
    if scene.contestant == Contestant::Covey {
        let sum = |name: &str| usages.iter().skip(stage.providers).map(|usage| usage.counter(name)).sum::<f64>();
        numbers.push((format!("{key}_socket_overhead"), sum("tcp_bytes_in") / wanted - 1.0, 4));
        numbers.push((format!("{key}_duplicates"), sum("duplicate_bytes") / wanted, 4));
        let peak = usages.iter().map(|usage| usage.rss_peak).fold(0.0, f64::max);
        numbers.push((format!("{key}_rss_peak"), peak, 0));
    }
    Ok(numbers)
}

/// The fetcher is killed half-way and started again.
fn killed(scene: &Scene, options: &Options, places: &Places, table: &Table) -> Result<Numbers, Failure> {
    let mut numbers = Numbers::new();
    let mut stage = Stage::set(scene, options, places)?;
    let start = Instant::now();
    let mut victim = stage.processes.pop().ok_or("no fetcher")?;
    victim.tell("go")?;
    let half = stage.bytes / 2;
    let patience = stage.patience();
    victim.wait_until(patience, "that it is half-way", |event| {
        event["event"] == "progress" && event["bytes"].as_u64().is_some_and(|bytes| bytes >= half)
    })?;
    victim.kill()?;
    let task = stage.tasks.last().ok_or("no task")?.clone();
    let again = stage.start(task.uid.into(), &task)?;
    stage.processes.push(again);
    stage.meet()?;
    stage.fetch()?;
    let seconds = start.elapsed().as_secs_f64();
    let size = stage.bytes as f64;
    let extra = stage.came(scene.contestant) / size - 1.0;
    let second = stage.usages()?.last().map_or(0.0, |usage| usage.counter("tcp_bytes_in"));
    stage.warn(scene.name)?;
    row(table, scene.name, size, seconds, size / payload(UP), extra);
    let key = scene.key();
    numbers.push((format!("{key}_extra"), extra, 4));
    numbers.push((format!("{key}_second_part"), second / size, 4));
    Ok(numbers)
}

/// How long announcements take to the fetcher: at rest, then while its blob fills the line.
fn announcements(scene: &Scene, options: &Options, places: &Places, table: &Table) -> Result<Numbers, Failure> {
    let mut numbers = Numbers::new();
    let mut stage = Stage::set(scene, options, places)?;
    let count = if options.quick { 3 } else { ANNOUNCEMENTS };
    let patience = stage.patience() + Duration::from_millis(count as u64 * BETWEEN_MILLIS);
    let publish = format!("publish {count} {BETWEEN_MILLIS}");
    // Gossip needs a heartbeat or two to know who listens.
    std::thread::sleep(Duration::from_secs(3));
    for bulk in [false, true] {
        let [provider, fetcher] = &mut stage.processes[..] else { return Err("two nodes play this scene".into()) };
        if bulk {
            fetcher.tell("go")?;
            // Past the start, when the queues are full.
            std::thread::sleep(Duration::from_secs(if options.quick { 0 } else { 5 }));
        }
        provider.tell(&publish)?;
        provider.wait("published", patience)?;
        if bulk {
            let busy = fetcher.done(Duration::ZERO).is_err();
            if !busy && !options.quick {
                return Err("the blob came before the announcements were sent: take more bytes".into());
            }
            if busy {
                fetcher.done(patience)?;
            }
        }
        std::thread::sleep(Duration::from_secs(2));
        let heard = fetcher.ask("heard", "heard")?;
        let millis: Vec<f64> = heard["millis"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        let which = if bulk { "bulk" } else { "rest" };
        let (p50, p99) = (quantile(&millis, 0.5), quantile(&millis, 0.99));
        let worst = millis.iter().copied().fold(f64::NAN, f64::max);
        table.note(&format!(
            "announcements, {which}: {} of {count} heard, p50 {} ms, p99 {}, most {}",
            millis.len(),
            cell(p50, 0),
            cell(p99, 0),
            cell(worst, 0)
        ));
        numbers.push((format!("announcement_{which}_p50_ms"), p50, 1));
        numbers.push((format!("announcement_{which}_p99_ms"), p99, 1));
        numbers.push((format!("announcement_{which}_heard"), millis.len() as f64 / count as f64, 3));
    }
    stage.warn(scene.name)?;
    Ok(numbers)
}

fn row(table: &Table, name: &str, size: f64, seconds: f64, bound: f64, overhead: f64) {
    table.row(&[
        name.to_owned(),
        cell(size / 1e6, 0),
        cell(seconds, 1),
        cell(size * 8e-6 / seconds, 1),
        cell(100.0 * bound / seconds, 1) + " %",
        cell(100.0 * overhead, 2) + " %",
    ]);
}
