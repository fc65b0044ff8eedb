//! The command line: what was typed becomes options, errors become a sentence and an exit code.
//!
//! Exit codes: 0 done, 1 an error, 2 a command line that cannot be, 3 roots disagreed, or a check found a difference,
//! 129, 130, 143 stopped by SIGHUP, Ctrl-C, SIGTERM.

#[macro_use]
mod out;

mod bar;
mod blob;
mod blob_lines;
mod data;
#[cfg(feature = "devnet")]
mod devnet;
mod eval;
mod init;
mod lab;
#[cfg(feature = "devnet")]
mod logs;
mod model;
mod node;
mod outcome;
mod peers;
mod register;
mod run;
mod serve;
mod shown;
mod signals;
mod state;
mod status;
#[cfg(feature = "devnet")]
mod swarm;
mod transfer;
mod wallet;
mod watch;

use clap::{Parser, Subcommand};
use outcome::{Done, Failure, Plain};
use std::process::ExitCode;

/// Strangers train one large language model together over the internet.
#[derive(Debug, Parser)]
#[command(name = "covey", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole swarm on this machine: miners train, validators score, everyone ends with the same bits.
    #[cfg(feature = "devnet")]
    Swarm(swarm::SwarmArgs),
    /// Write a finished swarm's report.html again, from its summary.json.
    #[cfg(feature = "devnet")]
    Report(swarm::ReportArgs),
    /// Compute a finished swarm again from what it left, and name the first round that differs.
    #[cfg(feature = "devnet")]
    Audit(swarm::AuditArgs),
    /// Train for a run: one node, on the chain that its run.toml names.
    Miner(node::MinerArgs),
    /// Score and vote for a run.
    Validator(node::NodeArgs),
    /// Follow a run, and keep every round for others.
    Seeder(node::NodeArgs),
    /// Show what a running node does, or all nodes of a swarm.
    Status(status::StatusArgs),
    /// Compare methods and settings in one process, without network or chain.
    Lab(lab::LabArgs),
    /// Make keys, bring them in, show which there are: btcli's own folders and files.
    #[command(subcommand)]
    Wallet(wallet::WalletCommand),
    /// Write a node.toml with every key explained.
    Init(init::InitArgs),
    /// Take a uid on the subnet for a node's hotkey, paid by its coldkey.
    Register(register::RegisterArgs),
    /// Make a run.toml, show what it asks of a node, check it against data and chain.
    #[command(subcommand)]
    Run(run::RunCommand),
    /// Prepare training data.
    #[command(subcommand)]
    Data(data::DataCommand),
    /// Put files into a blob store, get them out, move them between machines, look at what is there.
    #[command(subcommand)]
    Blob(blob::BlobCommand),
    /// Check a node's saved state.
    #[command(subcommand)]
    State(state::StateCommand),
    /// Run a Substrate chain of your own: subtensor's names on this machine.
    #[cfg(feature = "devnet")]
    Devnet(devnet::DevnetArgs),
    /// Show whom a running node is connected to.
    Peers(peers::PeersArgs),
    /// Follow any run from the chain and the topics alone: who commits, what is selected, roots, weights.
    Watch(watch::WatchArgs),
    /// Say what a model is and what it takes to train it.
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Write a trained state in Hugging Face's layout, or as a GGUF file for llama.cpp.
    Export(model::ExportArgs),
    /// Continue a prompt with an exported model, or talk with it.
    Generate(model::GenerateArgs),
    /// Measure what a model knows: multiple choice and perplexity, as lm-eval does.
    Eval(eval::EvalArgs),
    /// Answer over HTTP with a model, or with a running node's newest state, as OpenAI's interface does.
    Serve(serve::ServeArgs),
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        #[cfg(feature = "devnet")]
        Command::Swarm(args) => swarm::run(args),
        #[cfg(feature = "devnet")]
        Command::Report(args) => swarm::report(&args),
        #[cfg(feature = "devnet")]
        Command::Audit(args) => swarm::audit(&args),
        Command::Miner(args) => node::miner(args),
        Command::Validator(args) => node::validator(args),
        Command::Seeder(args) => node::seeder(args),
        Command::Status(args) => status::run(&args),
        Command::Lab(args) => lab::run(args),
        Command::Wallet(command) => wallet::run(command),
        Command::Init(args) => init::run(args),
        Command::Register(args) => register::run(&args),
        Command::Run(command) => run::run(command),
        Command::Data(command) => data::run(command),
        Command::State(command) => state::run(command),
        Command::Blob(command) => blob::run(command),
        #[cfg(feature = "devnet")]
        Command::Devnet(args) => devnet::run(&args),
        Command::Peers(args) => peers::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Model(command) => model::model(command),
        Command::Export(args) => model::export(&args),
        Command::Generate(args) => model::generate(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Serve(args) => serve::run(&args),
    };
    match result {
        Ok(Done::Well) => ExitCode::SUCCESS,
        Ok(Done::Differs) => ExitCode::from(3),
        Ok(Done::Stopped(by)) => ExitCode::from(by.exit_code()),
        Err(failure) => {
            eprintln!("error: {failure}");
            let mut cause = failure.source();
            while let Some(error) = cause {
                eprintln!("  cause: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}
