//! `covey devnet`: a chain of one's own, for swarms and for whoever writes a client.

use super::signals::stopped;
use super::{Done, Failure, Plain};
use crate::supervise::{Line, lifeline};
use clap::Args;
use covey_devnet::{Blocks, ChainSpec, Config, Devnet, known};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a folder's chain began with.
const SPEC: &str = "spec.json";
/// Bytes of a spec that is read: 256 members have some 40,000.
const SPEC_BYTES_MAX: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(super) struct DevnetArgs {
    /// Where clients reach it; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9944")]
    listen: SocketAddr,
    /// Where it keeps its blocks; the same chain goes on there the next time. Default: they are gone at the end.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Milliseconds between blocks.
    #[arg(long, value_name = "MS", default_value = "1000", conflicts_with = "on_demand")]
    block_time: u64,
    /// Make blocks only when a client asks, by covey_makeBlock.
    #[arg(long)]
    on_demand: bool,
    /// Blocks from the newest to the newest final one.
    #[arg(long, value_name = "N", default_value = "2")]
    finality_lag: u32,
    /// What the chain begins with, in JSON: accounts, subnets, members [default: the folder's chain, or one of
    /// well-known accounts].
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// Say its URL as a JSON line, and end when standard input does.
    #[arg(long, hide = true)]
    supervised: bool,
}

pub(super) fn run(args: &DevnetArgs) -> Result<Done, Failure> {
    let done = run_here(args);
    if let (true, Err(error)) = (args.supervised, &done) {
        lifeline::say(&Line::Failed { error: error.to_string() });
    }
    done
}

fn run_here(args: &DevnetArgs) -> Result<Done, Failure> {
    if args.block_time == 0 {
        return Err(Plain("--block-time must be at least 1 ms".into()).into());
    }
    let blocks = match args.on_demand {
        true => Blocks::OnDemand,
        false => Blocks::Every(Duration::from_millis(args.block_time)),
    };
    let chain = spec(args)?;
    if let Some(dir) = &args.dir {
        keep(dir, &chain)?;
    }
    let config = Config {
        listen: args.listen,
        dir: args.dir.clone(),
        blocks,
        finality_lag: args.finality_lag,
        chain,
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let by = runtime.block_on(async {
        let mut stop = std::pin::pin!(stopped());
        let devnet = Devnet::start(config.clone()).await?;
        if args.supervised {
            lifeline::say(&Line::Serving { url: devnet.url() });
        } else {
            // First, and alone on its line, for scripts.
            println!("{}", devnet.url());
            introduce(&config);
        }
        let by = tokio::select! {
            by = &mut stop => Some(by),
            () = cut(args.supervised) => None,
        };
        devnet.stop().await;
        Ok::<_, Failure>(by)
    })?;
    Ok(by.map_or(Done::Well, Done::Stopped))
}

async fn cut(supervised: bool) {
    if supervised { lifeline::cut().await } else { std::future::pending().await }
}

/// The spec asked for, the folder's, or the well-known one.
fn spec(args: &DevnetArgs) -> Result<ChainSpec, Failure> {
    if let Some(path) = &args.spec {
        return read(path);
    }
    match args.dir.as_ref().map(|dir| dir.join(SPEC)).filter(|path| path.exists()) {
        Some(path) => read(&path),
        // As fast as its blocks, so that clients wait no longer than they must.
        None if args.on_demand => Ok(ChainSpec::well_known()),
        None => Ok(ChainSpec { slot_ms: args.block_time, ..ChainSpec::well_known() }),
    }
}

fn read(path: &Path) -> Result<ChainSpec, Failure> {
    let fault = |what: String| Plain(format!("{}: {what}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| fault(error.to_string()))?.len();
    if size > SPEC_BYTES_MAX {
        return Err(fault(format!("{size} bytes; a chain's spec has at most {SPEC_BYTES_MAX}")).into());
    }
    let text = std::fs::read(path).map_err(|error| fault(error.to_string()))?;
    Ok(serde_json::from_slice(&text).map_err(|error| fault(format!("no chain's spec: {error}")))?)
}

/// Notes in its folder what a chain begins with: the same command goes on with it.
fn keep(dir: &Path, spec: &ChainSpec) -> Result<(), Failure> {
    let fault = |path: &Path, error: std::io::Error| Plain(format!("{}: {error}", path.display()));
    std::fs::create_dir_all(dir).map_err(|error| fault(dir, error))?;
    let path = dir.join(SPEC);
    let text = serde_json::to_vec_pretty(spec)?;
    let before = std::fs::read(&path);
    match before {
        Ok(before) if serde_json::from_slice::<ChainSpec>(&before).is_ok_and(|before| before == *spec) => return Ok(()),
        Ok(_) => {
            let what = "is another chain's: take another --dir, or leave --spec out to go on with this one";
            return Err(Plain(format!("{} {what}", path.display())).into());
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(fault(&path, error).into()),
    }
    let part = dir.join(format!("{SPEC}.part"));
    std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, &path)).map_err(|error| fault(&path, error))?;
    Ok(())
}

fn introduce(config: &Config) {
    let clock = match config.blocks {
        Blocks::OnDemand => "blocks on demand: covey_makeBlock".to_owned(),
        Blocks::Every(time) => format!("a block each {} ms", time.as_millis()),
    };
    eprintln!("{clock}; final after {}", config.finality_lag);
    for subnet in &config.chain.subnets {
        let hidden = if subnet.commit_reveal { "weights hidden for an epoch" } else { "weights open" };
        eprintln!("subnet {}: {} members, tempo {}, {hidden}", subnet.netuid, subnet.members.len(), subnet.tempo);
    }
    if config.chain.accounts == ChainSpec::well_known().accounts {
        eprintln!("coldkeys with funds: //{}", known::NAMES.join(", //"));
        eprintln!("hotkeys of members: //Alice//hotkey, //Bob//hotkey, //Charlie//hotkey");
    }
    if config.dir.is_none() {
        eprintln!("nothing is kept: give --dir DIR to keep it");
    }
}
