//! What `covey blob` and its transfers share: where the store is, how a blob is written, and a line of the result.

use super::shown;
use clap::Args;
use covey_proto::blob::BlobRef;
use std::io::Write;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Where {
    /// The store's folder: a node's own, OUT/nodes/NAME of a swarm.
    #[arg(long, value_name = "DIR")]
    pub(super) dir: PathBuf,
}

/// Says a line of the result. A closed pipe is no error: whoever read has enough.
pub(super) fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{}", shown::line(line));
}

/// A blob as it is named on the command line: `ROOT:SIZE`.
pub(super) fn text(blob: &BlobRef) -> String {
    format!("{}:{}", blob.root, blob.size)
}
