//! `covey serve`: a model behind OpenAI's interface, until it is told to stop.

use super::signals::stopped;
use super::{Done, Failure, Plain};
use crate::serve::{Engine, Server, Source};
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["model", "node"]))]
pub(super) struct ServeArgs {
    /// A folder that `covey export` wrote, or another LLaMA model in Hugging Face's layout.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// The newest state of a node (its node.toml or that file's folder), or of a swarm (its --out folder); newer ones as
    /// they appear.
    #[arg(long, value_name = "PATH")]
    node: Option<PathBuf>,
    /// The tokenizer.json of a node's state, where it is not with the node's data.
    #[arg(long, value_name = "FILE", requires = "node")]
    tokenizer: Option<PathBuf>,
    /// A chat template to use in place of the model's.
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Where to listen. There is no password: beyond this machine, put something in front that has one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// Cores to use; all, unless said.
    #[arg(long)]
    threads: Option<usize>,
}

pub(super) fn run(args: &ServeArgs) -> Result<Done, Failure> {
    let source = match (&args.model, &args.node) {
        (Some(model), _) => Source::Model(model.clone()),
        (None, Some(path)) => Source::Node { path: path.clone(), tokenizer: args.tokenizer.clone() },
        (None, None) => return Err(Plain("name a --model or a --node".into()).into()),
    };
    let engine = Engine::open(&source, args.template.as_deref(), args.threads)?;
    let (name, state, context) = (engine.name(), engine.state(), engine.context());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let stop = stopped();
        let bound = Server::bind(args.listen, engine).await;
        let server = bound.map_err(|error| Plain(format!("{}: {error}: choose another --listen", args.listen)))?;
        println!("http://{}/v1 answers as {name:?} ({state}), context {context} tokens", server.address()?);
        let mut by = None;
        server.run(async { by = Some(stop.await) }).await;
        Ok(by.map_or(Done::Well, Done::Stopped))
    })
}
