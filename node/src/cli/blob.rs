//! `covey blob`: blobs by hand.

use super::transfer::{self, NetArgs, ServeArgs, Wanted};
use super::{Done, Failure};
use clap::{Args, Subcommand};
use covey_proto::blob::BlobRef;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(super) enum BlobCommand {
    /// Serve the store's blobs, and files that are added first.
    Serve(ServeArgs),
    /// Get a blob: from peers, or out of the store.
    Get(GetArgs),
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The blob's name, as `covey blob serve` and `covey blob ls` say it: ROOT:SIZE.
    #[arg(value_name = "ROOT:SIZE", value_parser = transfer::parse_name)]
    blob: BlobRef,
    /// A peer that may have it: a multiaddr that ends in /p2p/ID. May be repeated.
    #[arg(long, value_name = "MULTIADDR")]
    from: Vec<String>,
    /// Where its bytes go [default: they stay in the store].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Serve others once it is here, until Ctrl-C. While it comes, pieces are served in any case.
    #[arg(long)]
    serve_on: bool,
    /// Give up after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    timeout: u64,
    #[command(flatten)]
    net: NetArgs,
}

pub(super) fn run(command: BlobCommand) -> Result<Done, Failure> {
    match command {
        BlobCommand::Serve(args) => transfer::serve(&args),
        BlobCommand::Get(args) => {
            let GetArgs { blob, from, out, serve_on, timeout, net } = args;
            let timeout = Duration::from_secs(timeout);
            transfer::get(&net, &Wanted { blob, from, out, serve_on, timeout })
        }
    }
}
