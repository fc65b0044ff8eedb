//! `covey watch`: follows a run from outside and prints what happens, a line each.

use super::signals::stopped;
use super::{Done, Failure, shown};
use crate::chain::substrate::{Settings, SubstrateLedger};
use crate::config::NodeConfig;
use crate::service::read_run;
use crate::watch::{News, Watch};
use clap::Args;
use covey_gossip::store::Store;
use covey_proto::run::Run;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Bytes of the store: an observer keeps headers.
const STORE_BYTES: u64 = 64 << 20;
/// Lines that wait for a slow terminal.
const NEWS_MAX: usize = 1024;

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// Take run, chain and first peers from a node's node.toml.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["run", "chain", "bootstrap"])]
    config: Option<PathBuf>,
    /// The run's run.toml.
    #[arg(long, value_name = "FILE", required_unless_present = "config", requires = "chain")]
    run: Option<PathBuf>,
    /// WebSocket URLs of the chain, the preferred one first.
    #[arg(long, value_name = "URL", num_args = 1..)]
    chain: Vec<String>,
    /// Whom to dial first, as multiaddrs. Without one, only what the chain says is seen.
    #[arg(long, value_name = "ADDRESS", num_args = 1..)]
    bootstrap: Vec<String>,
    /// End after so many decided rounds.
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// A JSON object a line.
    #[arg(long)]
    json: bool,
}

/// What is watched, and how.
struct Target {
    run: Run,
    endpoints: Vec<String>,
    bootstrap: Vec<String>,
}

impl WatchArgs {
    fn target(&self) -> Result<Target, Failure> {
        match &self.config {
            Some(path) => {
                let config = NodeConfig::load(path)?;
                let (endpoints, bootstrap) = (config.chain.endpoints, config.network.bootstrap);
                Ok(Target { run: read_run(&config.run)?, endpoints, bootstrap })
            }
            None => Ok(Target {
                run: read_run(self.run.as_deref().unwrap_or(Path::new("run.toml")))?,
                endpoints: self.chain.clone(),
                bootstrap: self.bootstrap.clone(),
            }),
        }
    }
}

pub(super) fn run(args: &WatchArgs) -> Result<Done, Failure> {
    let target = args.target()?;
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            done = follow(args, target, folder.path()) => done.map(|()| Done::Well),
            by = stopped() => Ok(Done::Stopped(by)),
        }
    })
}

async fn follow(args: &WatchArgs, target: Target, folder: &Path) -> Result<(), Failure> {
    let run = Arc::new(target.run);
    let settings = Settings::new(target.endpoints, run.chain.netuid);
    let ledger = SubstrateLedger::connect(Settings { genesis: Some(run.chain.genesis), ..settings }).await?;
    let mut config = covey_gossip::Config::new(folder, run.chain.genesis, run.chain.netuid, run.id());
    config.listen.clear();
    config.bootstrap = target.bootstrap;
    let (network, events) = covey_gossip::start(config, Store::open(folder, STORE_BYTES)?).await?;
    if !args.json {
        println!("run {}, subnet {} of chain {}", run.id(), run.chain.netuid, run.chain.genesis.short());
    }
    let (tell, mut told) = mpsc::channel(NEWS_MAX);
    let watching = Watch::new(run, ledger, network.clone()).follow(events, move |news| {
        if tell.try_send(news).is_err() {
            tracing::warn!("the terminal does not keep up: a line is lost");
        }
    });
    let mut watching = std::pin::pin!(watching);
    let mut decided = 0;
    loop {
        let news = tokio::select! {
            ended = &mut watching => return Ok(ended?),
            Some(news) = told.recv() => news,
        };
        if !print(args, &news)? {
            return Ok(());
        }
        decided += u32::from(matches!(news, News::Decided { .. }));
        if args.rounds.is_some_and(|rounds| decided >= rounds) {
            network.shutdown().await;
            return Ok(());
        }
    }
}

/// Prints a line; false if nobody reads any more, which is no error.
fn print(args: &WatchArgs, news: &News) -> Result<bool, Failure> {
    let line = match args.json {
        true => shown::json(&serde_json::to_string(news)?).into_owned(),
        false => shown::line(&news.to_string()).into_owned(),
    };
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => Ok(written.map(|()| true)?),
    }
}
