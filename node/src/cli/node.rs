//! `covey miner`, `covey validator`, `covey seeder`: one node, alone in its process.

use super::signals::stopped;
use super::{Done, Failure, Plain, data};
use crate::config::NodeConfig;
use crate::misbehave::Misbehaviour;
use crate::observe::Board;
use crate::peer::Ended;
use crate::service::{self, Service};
use crate::supervise::{Line, lifeline};
use crate::wallet::{Unlock, Wallet};
use clap::Args;
use covey_round::engine::Roles;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long the last threads may take to notice the end. What they still write is whole or beside.
const THREADS_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    /// The node's node.toml; `covey init` writes one.
    #[arg(long, value_name = "FILE", default_value = "node.toml")]
    config: PathBuf,
    /// The folder of the model that the run goes on from: at whoever brings it, once; everybody else has its state from
    /// peers. A run that begins with a drawn state needs none.
    #[arg(long, value_name = "DIR")]
    genesis: Option<PathBuf>,
    /// Say what happens as JSON lines on standard output, and end when standard input does.
    #[arg(long, hide = true)]
    supervised: bool,
    /// Misbehave, in a swarm of one's own.
    #[arg(long, hide = true, value_name = "KIND")]
    misbehave: Option<Misbehaviour>,
}

#[derive(Debug, Args)]
pub(super) struct MinerArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Validate, too, with the same hotkey.
    #[arg(long)]
    validate: bool,
}

pub(super) fn miner(args: MinerArgs) -> Result<Done, Failure> {
    run(args.node, Roles { miner: true, validator: args.validate })
}

pub(super) fn validator(args: NodeArgs) -> Result<Done, Failure> {
    run(args, Roles { miner: false, validator: true })
}

pub(super) fn seeder(args: NodeArgs) -> Result<Done, Failure> {
    run(args, Roles::default())
}

fn run(args: NodeArgs, roles: Roles) -> Result<Done, Failure> {
    let supervised = args.supervised;
    let done = run_here(args, roles);
    if let (true, Err(error)) = (supervised, &done) {
        tracing::error!("{error}");
        lifeline::say(&Line::Failed { error: error.to_string() });
    }
    done
}

fn run_here(args: NodeArgs, roles: Roles) -> Result<Done, Failure> {
    let config = NodeConfig::load(&args.config)?;
    let run = Arc::new(service::read_run(&config.run)?);
    let board = Board::new(&config.name, service::role(roles), run.id().to_string());
    service::log::start(&config.log, board.clone())
        .map_err(|error| Plain(format!("log = {:?}: {error}", config.log)))?;
    let (hotkey, dataset) = match roles == Roles::default() {
        true => (None, Vec::new()),
        false => {
            let unlock = if args.supervised { Unlock::Environment } else { Unlock::Ask };
            let wallet = Wallet::open(&config.wallet.path, &config.wallet.name)?;
            let hotkey = wallet.hotkey(&config.wallet.hotkey, &unlock)?;
            let nothing =
                || Plain(format!("{} has no data: a {} needs the run's", args.config.display(), service::role(roles)));
            let path = config.data.as_deref().ok_or_else(nothing)?;
            (Some(hotkey), data::for_node(path, &config.phases, run.model.vocabulary)?)
        }
    };
    let (misbehaviour, supervised, genesis) = (args.misbehave, args.supervised, args.genesis);
    let name = config.name.clone();
    let service = Service { config, run, roles, hotkey, data: dataset, genesis, misbehaviour, supervised, board };
    let mut by = None;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async {
        let signal = stopped();
        let stop = async {
            tokio::select! {
                signal = signal => by = Some(signal),
                () = lifeline::cut(), if supervised => {}
            }
        };
        service.run(stop).await
    });
    runtime.shutdown_timeout(THREADS_TIMEOUT);
    match ended? {
        Ended::Halted(why) => Err(Plain(format!("{name} has halted: {why}")).into()),
        Ended::Stopped => Ok(by.map_or(Done::Well, Done::Stopped)),
    }
}
