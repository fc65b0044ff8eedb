//! The log of a command that shows something else on the terminal: a file.

use crate::config::LOG_FILTER;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use tracing_subscriber::EnvFilter;

/// Logs to the end of the file at `path` from now on, by `COVEY_LOG` or else the usual filter.
///
/// # Errors
/// The file or its folder cannot be made.
pub(super) fn start(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let file = File::options().create(true).append(true).open(path)?;
    let filter = EnvFilter::try_from_env("COVEY_LOG").unwrap_or_else(|_| EnvFilter::new(LOG_FILTER));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Mutex::new(file));
    // Set once, by the binary's main command.
    let _ = tracing::subscriber::set_global_default(log.finish());
    Ok(())
}
