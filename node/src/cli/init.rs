//! `covey init`: writes a node.toml with every key explained, for a role.

use super::{Done, Failure, Plain};
use crate::config::NodeConfig;
use clap::{Args, ValueEnum};
use covey_proto::run::Run;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The file to write.
    #[arg(value_name = "FILE", default_value = "node.toml")]
    file: PathBuf,
    /// What the node is for.
    #[arg(long, value_enum, default_value = "miner")]
    role: Role,
    /// The run's run.toml.
    #[arg(long, value_name = "FILE", default_value = "run.toml")]
    run: PathBuf,
    /// The node's own folder [default: node, beside FILE].
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// The training data: a prepared data set, or text. Miners and validators need it.
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// The folder of all wallets.
    #[arg(long, visible_alias = "wallet-path", value_name = "DIR")]
    path: Option<PathBuf>,
    /// The wallet.
    #[arg(long, visible_alias = "wallet-name", value_name = "NAME")]
    wallet: Option<String>,
    /// The hotkey.
    #[arg(long, value_name = "NAME")]
    hotkey: Option<String>,
    /// The chain, as a WebSocket URL. May be repeated; the first is preferred [default: Bittensor's].
    #[arg(long, value_name = "URL")]
    chain: Vec<String>,
    /// Whom to dial first. May be repeated.
    #[arg(long, value_name = "MULTIADDR")]
    bootstrap: Vec<String>,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    Miner,
    Validator,
    Seeder,
}

pub(super) fn run(args: InitArgs) -> Result<Done, Failure> {
    let file = args.file.clone();
    let (force, role, run) = (args.force, args.role, args.run.clone());
    let config = config(args)?;
    let text = config.to_toml();
    // What was typed is checked as what is read: names, addresses, URLs.
    NodeConfig::parse(&text)?;
    write(&file, &text, force)?;
    println!("{} written", file.display());
    match std::fs::read_to_string(&run).map(|text| Run::from_toml(&text)) {
        Ok(Ok(run)) => println!("it is of run {}", run.id()),
        Ok(Err(error)) => println!("{} is no run yet: {error}", run.display()),
        Err(error) => println!("{}: {error}; ask whoever began the run for it", run.display()),
    }
    let name = role.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    println!("next:");
    if role != Role::Seeder {
        println!("  covey wallet list                          are the keys here? covey wallet new makes some");
        println!("  covey register --config {}", file.display());
    }
    println!("  covey {name} --config {}", file.display());
    Ok(Done::Well)
}

fn config(args: InitArgs) -> Result<NodeConfig, Failure> {
    let here = |path: PathBuf| from_folder_of(&args.file, path);
    let folder = args.folder.map(here).transpose()?.unwrap_or_else(|| "node".into());
    let mut config = NodeConfig::new(here(args.run)?, folder);
    config.data = match (args.data, args.role) {
        (Some(data), _) => Some(here(data)?),
        (None, Role::Seeder) => None,
        (None, _) => Some("data".into()),
    };
    config.name = args.hotkey.clone().unwrap_or(config.name);
    if args.role == Role::Seeder {
        config.name = "seeder".into();
        config.storage.archive = true;
        config.network.reachable = true;
    }
    config.wallet.path = args.path.map(here).transpose()?.unwrap_or(config.wallet.path);
    config.wallet.name = args.wallet.unwrap_or(config.wallet.name);
    config.wallet.hotkey = args.hotkey.unwrap_or(config.wallet.hotkey);
    if !args.chain.is_empty() {
        config.chain.endpoints = args.chain;
    }
    config.network.bootstrap = args.bootstrap;
    Ok(config)
}

/// A path that was typed here, as it must stand in a file that may lie elsewhere.
fn from_folder_of(file: &Path, path: PathBuf) -> Result<PathBuf, Failure> {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !path.starts_with("~") => Ok(std::path::absolute(path)?),
        _ => Ok(path),
    }
}

fn write(file: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut beside| {
        beside.write_all(text.as_bytes())?;
        beside.as_file().sync_all()?;
        let kept = if force { beside.persist(file) } else { beside.persist_noclobber(file) };
        Ok(kept.map(drop)?)
    });
    written.map_err(|error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => Plain(format!("{} is there already; --force replaces it", file.display())).into(),
        _ => Plain(format!("{}: {error}", file.display())).into(),
    })
}
