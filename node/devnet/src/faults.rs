//! Switches of what goes wrong outside the chain itself: the timer stands still, connections are cut or refused.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// The switches, which all that serve look at.
#[derive(Clone)]
pub(crate) struct Faults(Arc<Switches>);

struct Switches {
    stalled: AtomicBool,
    refusing: AtomicBool,
    /// How often connections are cut.
    cutting: watch::Sender<Option<Duration>>,
    /// A second handle on each connection's socket, with which it can be shut from outside.
    connections: Mutex<Vec<TcpStream>>,
}

impl Default for Faults {
    fn default() -> Self {
        Self(Arc::new(Switches {
            stalled: AtomicBool::default(),
            refusing: AtomicBool::default(),
            cutting: watch::Sender::new(None),
            connections: Mutex::default(),
        }))
    }
}

impl Faults {
    pub(crate) fn stall(&self, stalled: bool) {
        self.0.stalled.store(stalled, Ordering::Relaxed);
    }

    pub(crate) fn stalled(&self) -> bool {
        self.0.stalled.load(Ordering::Relaxed)
    }

    pub(crate) fn refuse(&self, refusing: bool) {
        self.0.refusing.store(refusing, Ordering::Relaxed);
    }

    pub(crate) fn drop_connections(&self) {
        for connection in self.0.connections.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // One that is closed already need not be closed.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn drop_every(&self, interval: Option<Duration>) {
        self.0.cutting.send_replace(interval.map(|interval| interval.max(Duration::from_millis(1))));
    }

    /// Cuts connections as often as it is told to.
    pub(crate) async fn cut_again_and_again(self) {
        let mut told = self.0.cutting.subscribe();
        loop {
            let interval = *told.borrow_and_update();
            let pause = async {
                match interval {
                    Some(interval) => tokio::time::sleep(interval).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = pause => self.drop_connections(),
                changed = told.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Remembers a connection, unless there are too many or none are wanted; forgets those that have ended.
    pub(crate) fn admit(&self, connection: &TcpStream, most: usize) -> bool {
        if self.0.refusing.load(Ordering::Relaxed) {
            return false;
        }
        let mut all = self.0.connections.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|connection| !matches!(connection.peek(&mut [0]), Ok(0)) && connection.peer_addr().is_ok());
        let Ok(second) = connection.try_clone() else { return false };
        let room = all.len() < most;
        if room {
            all.push(second);
        }
        room
    }
}
