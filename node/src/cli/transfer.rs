//! `covey blob serve` and `covey blob get --from`: blobs over the network, without run, chain or keys of value.

use super::bar::Bar;
use super::blob_lines::{Where, say, text as name};
use super::signals::{StopSignal, stopped};
use super::{Done, Failure, Plain};
use crate::config::{Mbit, Size};
use crate::observe::{self, Nodes};
use crate::report::units;
use clap::{Args, ValueEnum};
use covey_gossip::store::Store;
use covey_gossip::{ByteRate, Class, Config, Congestion, Event, Events, FetchError, Handle, Hint, PeerKey, Progress};
use covey_proto::blob::BlobRef;
use covey_proto::pieces::Pieces;
use covey_proto::{Digest, RunId};
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How the network is entered.
#[derive(Debug, Args)]
pub(super) struct NetArgs {
    #[command(flatten)]
    pub(super) place: Where,
    /// What the store may hold: 20GiB. The least recently used that nothing pins make room.
    #[arg(long, value_name = "SIZE", default_value = "100GB")]
    quota: Size,
    /// Where to listen: /ip4/0.0.0.0/tcp/4001. May be repeated [default: any TCP and QUIC port].
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// What decides how fast TCP sends: bbr where the kernel allows it, or what the system has.
    #[arg(long, value_enum, default_value = "bbr")]
    congestion: CongestionArg,
    /// Send no faster than so many Mbit/s.
    #[arg(long, value_name = "MBIT")]
    upload: Option<f64>,
    /// Ask for no more than so many Mbit/s.
    #[arg(long, value_name = "MBIT")]
    download: Option<f64>,
    /// Show metrics and peers on this local port, for `covey peers` and Prometheus: 127.0.0.1:9464.
    #[arg(long, value_name = "ADDRESS")]
    status: Option<SocketAddr>,
    /// One JSON object a line instead of words and a progress bar.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CongestionArg {
    Bbr,
    System,
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Files to add first.
    files: Vec<PathBuf>,
    #[command(flatten)]
    net: NetArgs,
}

/// What to get, from whom.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) blob: BlobRef,
    pub(super) from: Vec<String>,
    pub(super) out: Option<PathBuf>,
    pub(super) serve_on: bool,
    pub(super) timeout: Duration,
}

pub(super) fn serve(args: &ServeArgs) -> Result<Done, Failure> {
    let net = &args.net;
    let store = open(net)?;
    let mut blobs = Vec::new();
    for file in &args.files {
        let total = std::fs::metadata(file).map_err(|error| Plain(format!("{}: {error}", file.display())))?.len();
        let mut bar = Bar::new(&format!("add {}", file.display()), total);
        blobs.push((file, store.add_file(file, &mut |done| bar.at(done))?));
    }
    runtime()?.block_on(async {
        let stop = stopped();
        let (network, events) = start(net, store, vec![]).await?;
        for (file, blob) in &blobs {
            say_serving(net, &network, file, blob);
        }
        if blobs.is_empty() && !net.json {
            say(&format!("serving what {} holds, at", net.place.dir.display()));
        }
        if !net.json {
            network.addresses().iter().for_each(|address| say(&format!("  {address}")));
        }
        Ok(until_stopped(network, events, stop).await)
    })
}

pub(super) fn get(net: &NetArgs, wanted: &Download) -> Result<Done, Failure> {
    let store = open(net)?;
    let peers = wanted.from.iter().map(|address| peer_of(address)).collect::<Result<Vec<_>, _>>()?;
    let hints: Vec<Hint> = peers.into_iter().map(Hint::Peer).collect();
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let mut stop = std::pin::pin!(stopped());
        let (network, events) = start(net, store.clone(), wanted.from.clone()).await?;
        if wanted.serve_on {
            say_serving(net, &network, wanted.out.as_deref().unwrap_or(Path::new("")), &wanted.blob);
        }
        tokio::select! {
            got = fetch_and_export(net, (&network, store), wanted, &hints) => got?,
            by = &mut stop => {
                eprintln!("stopped: what came is kept in {}; the same command goes on from there", net.place.dir.display());
                network.shutdown().await;
                return Ok(Done::Stopped(by));
            }
        }
        if wanted.serve_on {
            return Ok(until_stopped(network, events, stop).await);
        }
        network.shutdown().await;
        Ok(Done::Well)
    });
    // Stopped while a file is copied out: it is not waited for.
    runtime.shutdown_background();
    done
}

async fn fetch_and_export(
    net: &NetArgs,
    (network, store): (&Handle, Store),
    wanted: &Download,
    hints: &[Hint],
) -> Result<(), Failure> {
    let fetched = fetch(network, wanted, hints).await?;
    if let Some(out) = wanted.out.clone() {
        let blob = wanted.blob;
        tokio::task::spawn_blocking(move || store.export(&blob, &out, &mut |_| ())).await??;
    }
    fetched.say(net, wanted);
    Ok(())
}

/// What a fetch came to.
struct DownloadReport {
    seconds: f64,
    /// Bytes that came, and that were here before.
    came: u64,
    had: u64,
    duplicate: u64,
}

impl DownloadReport {
    fn say(&self, net: &NetArgs, wanted: &Download) {
        if net.json {
            let DownloadReport { seconds, came, had, duplicate } = self;
            let (root, out) = (name(&wanted.blob), &wanted.out);
            say(&json!({ "event": "fetched", "root": root, "out": out, "seconds": seconds, "bytes": came, "had": had, "duplicate": duplicate }).to_string());
            return;
        }
        let rate = units::bytes((self.came as f64 / self.seconds.max(1e-3)) as u64);
        eprintln!("{} came in {} ({rate}/s)", units::bytes(self.came), units::seconds(self.seconds));
        if let Some(out) = &wanted.out {
            say(&out.display().to_string());
        }
    }
}

async fn fetch(network: &Handle, wanted: &Download, hints: &[Hint]) -> Result<DownloadReport, FetchError> {
    let start = Instant::now();
    let mut bar = Bar::new("get", wanted.blob.size);
    let had = held(network.store(), &wanted.blob);
    let mut last = None;
    let progress = |now: Progress| {
        last = Some(now);
        bar.call(format!("get from {}", units::count(now.holders as u64, "peer")));
        bar.at(now.bytes);
    };
    let result = network.download(wanted.blob, Class::Data, hints, wanted.timeout, progress).await;
    drop(bar);
    result?;
    Ok(DownloadReport {
        seconds: start.elapsed().as_secs_f64(),
        came: wanted.blob.size.saturating_sub(had),
        had,
        duplicate: last.map_or(0, |last: Progress| last.duplicate_bytes),
    })
}

/// Bytes of a blob's pieces that are here already.
fn held(store: &Store, blob: &BlobRef) -> u64 {
    let Some(pieces) = Pieces::of_blob(blob) else { return 0 };
    let bytes = |piece| pieces.bytes_of_piece(piece);
    store.holdings(blob).iter().map(bytes).map(|bytes| bytes.end - bytes.start).sum()
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn open(net: &NetArgs) -> Result<Store, Failure> {
    Ok(Store::open(&net.place.dir, net.quota.0)?)
}

async fn start(net: &NetArgs, store: Store, bootstrap: Vec<String>) -> Result<(Handle, Events), Failure> {
    // Of no run: nobody is a member, and nothing is announced.
    let mut config = Config::new(&net.place.dir, Digest::ZERO, 0, RunId(Digest::of(b"covey blob")));
    if !net.listen.is_empty() {
        config.listen = net.listen.clone();
    }
    config.bootstrap = bootstrap;
    config.transport.congestion = match net.congestion {
        CongestionArg::Bbr => Congestion::Bbr,
        CongestionArg::System => Congestion::System,
    };
    config.limits.governor.upload = net.upload.map(|mbit| rate("--upload", mbit)).transpose()?;
    config.limits.links.download = net.download.map(|mbit| rate("--download", mbit)).transpose()?;
    let (network, events) = covey_gossip::start(config, store).await?;
    if let Some(address) = net.status {
        let nodes = Nodes::default();
        let shown = network.clone();
        nodes.show("blob", None, move || Some(shown.clone()));
        let address =
            observe::listen(address, nodes).await.map_err(|error| Plain(format!("--status {address}: {error}")))?;
        match net.json {
            true => say(&json!({ "event": "status", "address": address }).to_string()),
            false => say(&format!("status at http://{address}/; try: covey peers {address}")),
        }
    }
    Ok((network, events))
}

fn rate(option: &str, mbit: f64) -> Result<ByteRate, Plain> {
    Mbit::new(mbit).map(Mbit::rate).map_err(|error| Plain(format!("{option} is {error}")))
}

fn say_serving(net: &NetArgs, network: &Handle, file: &Path, blob: &BlobRef) {
    if net.json {
        let address = network.addresses().into_iter().next();
        say(&json!({ "event": "serving", "file": file, "root": name(blob), "address": address }).to_string());
    } else {
        say(&format!("{}  {}", name(blob), file.display()));
    }
}

/// Serves on; events are for nodes of a run, and are let go.
async fn until_stopped(network: Handle, mut events: Events, stop: impl Future<Output = StopSignal>) -> Done {
    let drain = async {
        while let Some(event) = events.next().await {
            if let Event::Connected { peer } = event {
                tracing::debug!(%peer, "connected");
            }
        }
    };
    tokio::select! {
        () = drain => Done::Well,
        by = stop => {
            network.shutdown().await;
            Done::Stopped(by)
        }
    }
}

fn peer_of(address: &str) -> Result<PeerKey, Failure> {
    let peer = address.rsplit_once("/p2p/").and_then(|(_, peer)| peer.parse().ok());
    peer.ok_or_else(|| {
        Plain(format!("--from {address}: it must end in /p2p/ID, as `covey blob serve` prints it")).into()
    })
}
