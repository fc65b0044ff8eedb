//! Each node's log in a file of its own: a node's threads carry its name, and the name says the file.

use crate::config::LOG_FILTER;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The log of threads that belong to no node.
const OTHER: &str = "swarm";

/// Writes logs into `folder`, a file a node, from now on.
///
/// # Errors
/// The folder cannot be made.
pub(super) fn start(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let filter = EnvFilter::try_from_env("COVEY_LOG").unwrap_or_else(|_| EnvFilter::new(LOG_FILTER));
    let files = Files { folder: folder.to_owned(), open: Arc::default() };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(files).finish();
    // Set once, by the binary's main command.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

#[derive(Clone)]
struct Files {
    folder: PathBuf,
    open: Arc<Mutex<HashMap<String, File>>>,
}

impl<'a> MakeWriter<'a> for Files {
    type Writer = Line;
    fn make_writer(&'a self) -> Line {
        let thread = std::thread::current();
        let is_node = |name: &&str| ["miner-", "validator-", "seeder-"].iter().any(|role| name.starts_with(role));
        Line { files: self.clone(), name: thread.name().filter(is_node).unwrap_or(OTHER).to_owned() }
    }
}

struct Line {
    files: Files,
    name: String,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut open = self.files.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !open.contains_key(&self.name) {
            let path = self.files.folder.join(format!("{}.log", self.name));
            open.insert(self.name.clone(), File::options().create(true).append(true).open(path)?);
        }
        match open.get_mut(&self.name) {
            Some(file) => file.write(bytes),
            None => Ok(bytes.len()),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
