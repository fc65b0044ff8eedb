//! The supervision of the network's task: after a panic a new swarm is built around what outlives it.

use super::behaviour::Behaviour;
use super::lasting::Network;
use super::running::{End, Running};
use crate::event::Event;
use futures::FutureExt;
use libp2p::Swarm;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long the ports of a network that broke may take to come free.
const REBIND_TIMEOUT: Duration = Duration::from_secs(5);
/// First and longest wait before a network that broke is rebuilt; doubles unless it ran for [`RAN_WELL`].
const REBUILD_MIN: Duration = Duration::from_millis(50);
const REBUILD_MAX: Duration = Duration::from_secs(30);
const RAN_WELL: Duration = Duration::from_secs(60);

/// The wait before the next rebuilding, after one that was preceded by `last` and ran for `ran`.
fn next_wait(last: Duration, ran: Duration) -> Duration {
    if ran > RAN_WELL { REBUILD_MIN } else { (last * 2).min(REBUILD_MAX) }
}

impl Network {
    /// Runs the network until it is shut down; rebuilds it after a panic.
    pub(super) async fn supervise(mut self, swarm: Swarm<Behaviour>, ready: oneshot::Sender<()>) {
        let mut ready = Some(ready);
        let mut next = Some(swarm);
        let mut wait = REBUILD_MIN;
        while let Some(swarm) = next.take() {
            let started = Instant::now();
            let running = Running::new(&mut self, swarm, ready.take());
            // Nothing that the panic may have left half done is used again, but for what [`Shared`] explains.
            let end = AssertUnwindSafe(running.run()).catch_unwind().await;
            match end {
                Ok(end) => return self.finish(end).await,
                Err(panic) => self.after_fault(panic.as_ref()),
            }
            wait = next_wait(wait, started.elapsed());
            tokio::time::sleep(wait).await;
            next = self.rebuild().await;
        }
    }

    fn after_fault(&mut self, panic: &(dyn std::any::Any + Send)) {
        let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(panic = text.unwrap_or("?"), "the network broke and is rebuilt; please report this");
        self.life += 1;
        self.shared.traffic.restarts.add(1);
        self.pieces.renew();
        let gone = std::mem::take(&mut *self.shared.connected());
        for peer in gone.into_keys() {
            self.mail.events.tell(Event::Disconnected { peer });
        }
        self.mail.events.tell(Event::NetworkRestarted);
    }

    /// A new swarm, once the old one's ports are free; without listeners rather than never.
    async fn rebuild(&mut self) -> Option<Swarm<Behaviour>> {
        let until = Instant::now() + REBIND_TIMEOUT;
        let swarm = loop {
            match self.build_swarm() {
                Ok(swarm) => break Some(swarm),
                Err(error) if Instant::now() > until => {
                    tracing::error!(%error, "going on without listening");
                    self.listeners.give_up();
                    break self.build_swarm().ok();
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        self.dialling.renew(self.listeners.are_here());
        swarm
    }

    async fn finish(mut self, end: End) {
        self.dialling.remember(&mut self.jobs);
        self.pieces.links.close().await;
        while self.jobs.join_next().await.is_some() {}
        if let End::Shutdown(reply) = end {
            // Let go of the store before saying so.
            drop(self);
            let _ = reply.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_breaks_at_once_is_rebuilt_ever_more_seldom_until_it_ran_well() {
        let mut wait = REBUILD_MIN;
        let waits = std::iter::repeat_with(|| {
            wait = next_wait(wait, Duration::ZERO);
            wait.as_millis()
        });
        assert_eq!(
            waits.take(11).collect::<Vec<_>>(),
            [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]
        );
        assert_eq!(next_wait(REBUILD_MAX, RAN_WELL), REBUILD_MAX);
        assert_eq!(next_wait(REBUILD_MAX, RAN_WELL + Duration::from_millis(1)), REBUILD_MIN);
    }
}
