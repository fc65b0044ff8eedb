//! Whole transfers over an emulated wide-area network, by real programs: one to one, one to many who serve on, killed and
//! started again. Says what came of it; what is good enough is its callers', who run it small in tests and large by hand.
//!
//! How a program is started and what it prints is an [`Exchange`]'s, so that rivals can play the same scenes.

use crate::net::Traffic;
use crate::node::{Node, Rate};
use crate::wan::{Timeliness, Wan, WanError};
use covey_proto::random::SplitMix64;
use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Headers of IP and of TCP with timestamps, a packet.
const HEADER_BYTES: u64 = 52;
/// Lines of a program that wait to be read; then it waits. They are few: addresses, progress, the end.
const LINES_MAX: usize = 1024;
/// Between two looks at what a program says, or at how far a fetcher is that shall be killed.
const LOOK: Duration = Duration::from_millis(2);

/// Who sends what to whom, over which lines.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Size of the one blob.
    pub bytes: u64,
    /// Nodes that want it. Node 0 has it; each fetcher knows those before it and serves on what it has.
    pub fetchers: usize,
    /// Every node's line.
    pub line: Node,
    /// Congestion control of every program: "bbr", or "system" for whatever the kernel does.
    pub congestion: &'static str,
    /// Fetcher 1 is killed when that share of the blob has come to it, and started again on the same folder.
    pub kill_at: Option<f64>,
    /// Of the blob's bytes and the lines' losses.
    pub seed: u64,
    /// Until when, without a line that matters from anybody, it is given up.
    pub patience: Duration,
}

impl Scene {
    /// One source, one fetcher, between homes: 110 Mbit/s up, 500 down, 50 ms one way, 0.1 % of packets lost, BBR.
    pub fn one_to_one(bytes: u64, seed: u64) -> Scene {
        let line = Node::of_path(Rate::mbit(110), Rate::mbit(500), Duration::from_millis(50), 0.001);
        let patience = Duration::from_secs(120) + Rate::mbit(5).time_of(bytes);
        Scene { bytes, fetchers: 1, line, congestion: "bbr", kill_at: None, seed, patience }
    }

    /// One source, eight fetchers.
    pub fn one_to_eight(bytes: u64, seed: u64) -> Scene {
        Scene { fetchers: 8, ..Scene::one_to_one(bytes, seed) }
    }

    /// The fetcher is killed half-way and started again.
    pub fn killed_half_way(bytes: u64, seed: u64) -> Scene {
        Scene { kill_at: Some(0.5), ..Scene::one_to_one(bytes, seed) }
    }

    /// One to eight where BBR is not to be had.
    pub fn without_bbr(bytes: u64, seed: u64) -> Scene {
        Scene { congestion: "system", ..Scene::one_to_eight(bytes, seed) }
    }

    /// The same on lines of a `divisor`th of their rates: nine nodes at 110 Mbit/s are more than two cores carry.
    pub fn slower(self, divisor: u64) -> Scene {
        let rate = |rate: Rate| Rate::bits(rate.bits_per_second() / divisor.max(1));
        // A path's delay and loss are those of two lines.
        let (delay, loss) = (self.line.delay * 2, 1.0 - (1.0 - self.line.loss).powi(2));
        let line = Node::of_path(rate(self.line.up), rate(self.line.down), delay, loss);
        Scene { line, patience: self.patience * divisor.max(1) as u32, ..self }
    }

    /// The least time in which payload can get to all: the source must send it once, each fetcher receive it, and all
    /// together send it as often as there are fetchers.
    pub fn bound(&self) -> Duration {
        let (up, down) = (self.line.up.payload(), self.line.down.payload());
        let together = Rate::bits(up.bits_per_second() * (self.fetchers as u64 + 1));
        let shared = together.time_of(self.bytes * self.fetchers as u64);
        up.time_of(self.bytes).max(down.time_of(self.bytes)).max(shared)
    }
}

/// Where a program runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its node's address.
    pub address: Ipv4Addr,
    /// A folder of its own, which stays when it is killed.
    pub folder: PathBuf,
    /// As in [`Scene::congestion`].
    pub congestion: &'static str,
}

/// What a line of a program's standard output says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It can be reached at this address; a source says of which blob, too.
    Serving {
        /// As other programs of its kind take it.
        address: String,
        /// The blob's name; empty if it is a fetcher.
        root: String,
    },
    /// It has the blob, whole, in the file that it was told.
    Fetched,
    /// Something else.
    Nothing,
}

/// A program that moves blobs.
pub trait Exchange {
    /// Serves this file until it is ended; says once on standard output that it is [`Heard::Serving`].
    fn serve(&self, at: &Place, file: &Path) -> Command;

    /// Fetches the blob from those who serve at `from` into `file`, and serves on what it has until it is ended; says
    /// that it is [`Heard::Serving`] as soon as it does, and that it has [`Heard::Fetched`].
    fn fetch(&self, at: &Place, root: &str, from: &[String], file: &Path) -> Command;

    /// What a line of standard output says.
    fn heard(&self, line: &str) -> Heard;
}

/// Why a scene did not end.
#[derive(Debug, thiserror::Error)]
pub enum SceneError {
    /// There is no network, or it broke.
    #[error(transparent)]
    Wan(#[from] WanError),
    /// A program, file or folder could not be used.
    #[error("a program, file or folder of the scene cannot be used: {0}")]
    Io(#[from] io::Error),
    /// Nobody said anything that matters for too long.
    #[error("nothing came from node {node} in {patience:?}; its last words: {last}")]
    Silent {
        /// Whose turn it was.
        node: usize,
        /// How long it had.
        patience: Duration,
        /// The last line that it printed.
        last: String,
    },
    /// A program ended before it was to.
    #[error("the program of node {node} ended by itself; its last words: {last}")]
    Ended {
        /// Whose.
        node: usize,
        /// The last line that it printed.
        last: String,
    },
    /// A fetched file is not what the source served.
    #[error("node {node} fetched other bytes than were served")]
    Different {
        /// Whose.
        node: usize,
    },
}

/// What came of a scene.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// From the first fetcher's start until each had it, in their order.
    pub took: Vec<Duration>,
    /// The least that was possible.
    pub bound: Duration,
    /// Of the blob.
    pub bytes: u64,
    /// What went over each node's line, the source's first, from the first fetcher's start to the last one's end.
    pub traffic: Vec<Traffic>,
    /// Whether the emulator kept up; if not, times mean little.
    pub timeliness: Timeliness,
}

impl Outcome {
    /// The slowest fetcher's time over the least possible.
    pub fn ratio(&self) -> f64 {
        self.took.iter().max().map_or(0.0, |slowest| slowest.as_secs_f64() / self.bound.as_secs_f64())
    }

    /// What came to a fetcher over the blob's size, less 1: the protocol's own, and what came twice. Headers of IP and
    /// TCP do not count, nor does what else it sent or received in acknowledgements; what TCP sent again in vain does.
    pub fn overhead(&self, fetcher: usize) -> f64 {
        let down = self.traffic[fetcher].down;
        down.bytes.saturating_sub(down.packets * HEADER_BYTES) as f64 / self.bytes as f64 - 1.0
    }

    /// The most that any fetcher had of it.
    pub fn overhead_max(&self) -> f64 {
        (1..self.traffic.len()).map(|fetcher| self.overhead(fetcher)).fold(f64::NEG_INFINITY, f64::max)
    }
}

/// A program in its node, and what it says.
struct Running {
    node: usize,
    child: Child,
    lines: Receiver<String>,
    last: String,
}

/// Plays a scene in this folder, which gets a folder for each node and keeps what they left.
///
/// # Errors
/// [`WanError::Unavailable`] where there can be no network; the others if the program did not do its work.
pub fn play(scene: &Scene, exchange: &dyn Exchange, folder: &Path) -> Result<Outcome, SceneError> {
    let nodes = scene.fetchers + 1;
    let wan = Wan::build(&vec![scene.line; nodes], scene.seed)?;
    let places: Vec<Place> = (0..nodes).map(|node| place(scene, &wan, folder, node)).collect::<io::Result<_>>()?;
    let original = folder.join("original");
    write_blob(&original, scene.bytes, scene.seed)?;

    let mut source = Running::start(&wan, 0, &mut exchange.serve(&places[0], &original))?;
    let (address, root) = source.serving(exchange, scene.patience)?;
    let mut addresses = vec![address];
    let before = wan.traffic();
    let start = Instant::now();
    let mut fetchers = Vec::new();
    for (node, place) in (0..).zip(&places).skip(1) {
        let mut command = exchange.fetch(place, &root, &addresses, &place.folder.join("fetched"));
        let mut fetcher = Running::start(&wan, node, &mut command)?;
        addresses.push(fetcher.serving(exchange, scene.patience)?.0);
        if let Some(share) = scene.kill_at.filter(|_| node == 1) {
            fetcher.wait_for(&wan, (scene.bytes as f64 * share) as u64, scene.patience)?;
            fetcher.end()?;
            fetcher = Running::start(&wan, node, &mut command)?;
        }
        fetchers.push(fetcher);
    }
    let took = fetched(&mut fetchers, exchange, start, scene.patience)?;
    let traffic = wan.traffic().iter().zip(&before).map(|(now, before)| now.since(before)).collect();
    for place in (1..).zip(&places[1..]) {
        compare(&original, place)?;
    }
    let timeliness = wan.timeliness()?;
    Ok(Outcome { took, bound: scene.bound(), bytes: scene.bytes, traffic, timeliness })
}

/// Waits until all have the blob; when each had it, to within a look at all of them.
fn fetched(
    fetchers: &mut [Running],
    exchange: &dyn Exchange,
    start: Instant,
    patience: Duration,
) -> Result<Vec<Duration>, SceneError> {
    let mut took = vec![None; fetchers.len()];
    while took.contains(&None) {
        for (fetcher, took) in fetchers.iter_mut().zip(&mut took).filter(|(_, took)| took.is_none()) {
            if start.elapsed() > patience {
                return Err(fetcher.silent(patience));
            }
            if fetcher.hears(exchange, LOOK)? == Some(Heard::Fetched) {
                *took = Some(start.elapsed());
            }
        }
    }
    Ok(took.into_iter().flatten().collect())
}

impl Running {
    fn start(wan: &Wan, node: usize, command: &mut Command) -> Result<Running, SceneError> {
        let mut child = wan.spawn(node, command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let (said, lines) = sync_channel(LINES_MAX);
        if let Some(output) = child.stdout.take() {
            thread::spawn(move || listen(output, &said));
        }
        Ok(Running { node, child, lines, last: String::new() })
    }

    /// What it says next within this time; nothing if it says nothing.
    fn hears(&mut self, exchange: &dyn Exchange, wait: Duration) -> Result<Option<Heard>, SceneError> {
        match self.lines.recv_timeout(wait) {
            Ok(line) => {
                self.last = line;
                Ok(Some(exchange.heard(&self.last)))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(SceneError::Ended { node: self.node, last: self.last.clone() }),
        }
    }

    /// Where it serves, and what.
    fn serving(&mut self, exchange: &dyn Exchange, patience: Duration) -> Result<(String, String), SceneError> {
        let start = Instant::now();
        while start.elapsed() < patience {
            if let Some(Heard::Serving { address, root }) = self.hears(exchange, LOOK)? {
                return Ok((address, root));
            }
        }
        Err(self.silent(patience))
    }

    /// Until so many bytes of payload have come to it.
    fn wait_for(&self, wan: &Wan, bytes: u64, patience: Duration) -> Result<(), SceneError> {
        let start = Instant::now();
        while start.elapsed() < patience {
            let down = wan.traffic()[self.node].down;
            if down.bytes.saturating_sub(down.packets * HEADER_BYTES) >= bytes {
                return Ok(());
            }
            thread::sleep(LOOK);
        }
        Err(self.silent(patience))
    }

    /// Kills it without notice.
    fn end(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    fn silent(&self, patience: Duration) -> SceneError {
        SceneError::Silent { node: self.node, patience, last: self.last.clone() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end().ok();
    }
}

fn listen(output: impl io::Read, said: &SyncSender<String>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if said.send(line).is_err() {
            return;
        }
    }
}

fn place(scene: &Scene, wan: &Wan, folder: &Path, node: usize) -> io::Result<Place> {
    let folder = folder.join(format!("node-{node}"));
    fs::create_dir_all(&folder)?;
    Ok(Place { address: wan.address(node), folder, congestion: scene.congestion })
}

/// Bytes that no program can compress or guess, and that differ from seed to seed.
fn write_blob(path: &Path, bytes: u64, seed: u64) -> io::Result<()> {
    let mut random = SplitMix64::seeded(seed);
    let mut file = BufWriter::new(fs::File::create(path)?);
    for _ in 0..bytes / 8 {
        file.write_all(&random.draw().to_le_bytes())?;
    }
    file.write_all(&random.draw().to_le_bytes()[..(bytes % 8) as usize])?;
    file.flush()
}

fn compare(original: &Path, (node, place): (usize, &Place)) -> Result<(), SceneError> {
    let open = |path: &Path| fs::File::open(path).map(|file| BufReader::with_capacity(1 << 20, file));
    let (mut one, mut other) = (open(original)?, open(&place.folder.join("fetched"))?);
    loop {
        let (expected, found) = (one.fill_buf()?, other.fill_buf()?);
        let length = expected.len().min(found.len());
        if expected[..length] != found[..length] || expected.is_empty() != found.is_empty() {
            return Err(SceneError::Different { node });
        }
        if length == 0 {
            return Ok(());
        }
        one.consume(length);
        other.consume(length);
    }
}
