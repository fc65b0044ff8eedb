//! One node of a swarm: its own runtime, folder and sockets. It can be killed: its runtime is dropped without notice, and
//! its folder is what it was at that instant.

use crate::chain::memory::MemoryLedger;
use crate::peer::{Config, Context, Peer, StartError, Status};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

/// How long a killed node's last thread may take to notice. A training step of a large model on a busy machine.
const DEATH_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a node may take to say good-bye.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A node that runs.
pub(super) struct Host {
    /// Taken when the node goes: a runtime must not be dropped where blocking is not allowed.
    runtime: Option<Runtime>,
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
    /// Gone when its last thread is.
    pub(super) context: Weak<Context<MemoryLedger>>,
    directory: PathBuf,
    /// What the node tells of itself.
    pub status: watch::Receiver<Status>,
    /// Where it can be dialled.
    pub addresses: Vec<String>,
}

/// Why a node of the swarm does not run.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// It does not start.
    #[error("{name} does not start: {error}")]
    Start {
        /// The node.
        name: Arc<str>,
        /// Why.
        error: Box<StartError>,
    },
    /// The system gives no more threads.
    #[error("no thread for {name}: {error}")]
    Runtime {
        /// The node.
        name: Arc<str>,
        /// What the system says.
        error: std::io::Error,
    },
    /// The folder of a killed node cannot be moved.
    #[error("{path}: {error}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A killed node's threads go on.
    #[error("a thread of the killed node in {0} does not end")]
    Undead(PathBuf),
}

impl Host {
    /// Starts a node on a runtime of its own.
    ///
    /// # Errors
    /// It does not start.
    pub(super) async fn start(config: Config<MemoryLedger>) -> Result<Host, HostError> {
        let (name, directory) = (config.name.clone(), config.directory.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(&*name)
            .enable_all()
            .build()
            .map_err(|error| HostError::Runtime { name: name.clone(), error })?;
        let (stop, stopped) = watch::channel(false);
        let (ready, started) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        runtime.spawn(async move {
            match Peer::start(config).await {
                Ok(peer) => {
                    let _ = ready.send(Ok((peer.status(), peer.addresses(), peer.context())));
                    peer.run(stopped).await;
                }
                Err(error) => drop(ready.send(Err(error))),
            }
            let _ = end.send(());
        });
        match started.await {
            Ok(Ok((status, addresses, context))) => {
                Ok(Host { runtime: Some(runtime), stop, ended, context, directory, status, addresses })
            }
            Ok(Err(error)) => {
                runtime.shutdown_background();
                Err(HostError::Start { name, error: Box::new(error) })
            }
            Err(_) => {
                runtime.shutdown_background();
                let error = std::io::Error::other("the node's task panicked while starting");
                Err(HostError::Runtime { name, error })
            }
        }
    }

    /// Kills the node: no notice, no clean-up. Gives its folder back when its last thread has ended; what that thread
    /// tried to write after the kill has failed, since the folder was not there.
    ///
    /// # Errors
    /// The folder cannot be moved, or a thread does not end.
    pub(super) async fn kill(mut self) -> Result<PathBuf, HostError> {
        let aside = self.directory.with_extension("killed");
        rename(&self.directory, &aside)?;
        self.end_runtime();
        let start = std::time::Instant::now();
        while self.context.strong_count() > 0 {
            if start.elapsed() > DEATH_TIMEOUT {
                return Err(HostError::Undead(aside));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        rename(&aside, &self.directory)?;
        Ok(self.directory.clone())
    }

    /// Stops the node in good order.
    pub(super) async fn stop(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(STOP_TIMEOUT, &mut self.ended).await.is_err() {
            tracing::warn!(folder = %self.directory.display(), "the node did not stop in time");
        }
    }

    /// What the node tells of itself; if it is gone without a word, that.
    pub(super) fn now(&self) -> Status {
        let mut status = self.status.borrow().clone();
        if self.status.has_changed().is_err() && status.halted.is_none() {
            status.live = false;
            status.halted = Some("its task broke: see its log".into());
        }
        status
    }

    fn end_runtime(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end_runtime();
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), HostError> {
    std::fs::rename(from, to).map_err(|error| HostError::Folder { path: from.to_owned(), error })
}
