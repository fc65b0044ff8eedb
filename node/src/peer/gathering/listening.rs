//! What the network says, read before the node's loop hears of it: announcements are decoded and hashed here, one after
//! another. The loop is slower than this seldom, and then the network waits.

use super::Announcement;
use crate::compute::off_the_queue;
use crate::peer::context::Context;
use covey_gossip::{Event, Events, PeerKey, Ticket, Verdict};
use covey_proto::RunId;
use covey_proto::message::{self, AnnouncementError};
use covey_round::gather::Announced;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What was heard.
pub enum Heard {
    /// An announcement of this run, by gossip.
    Announcement(Announcement),
    /// Peers have come or gone.
    PeersChanged,
}

/// An announcement's content, with what goes along.
#[derive(Debug)]
pub struct Received {
    /// What is announced.
    pub announcement: message::Announcement,
    /// Its bytes, to be handed on.
    pub bytes: Vec<u8>,
    /// To judge it by; none if it was asked for.
    ticket: Option<Ticket>,
}

impl Received {
    /// Tells gossip what becomes of it.
    pub fn judge(&mut self, verdict: Verdict) {
        if let Some(ticket) = self.ticket.take() {
            ticket.judge(verdict);
        }
    }

    /// Whether gossip brought it; else a peer was asked.
    pub fn is_gossiped(&self) -> bool {
        self.ticket.is_some()
    }

    /// The same, judged by this ticket.
    pub fn with_ticket(self, ticket: Ticket) -> Received {
        Received { ticket: Some(ticket), ..self }
    }
}

/// Why bytes are no announcement of this run: whoever handed them over is to blame.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// Not an announcement at all.
    #[error(transparent)]
    Form(#[from] AnnouncementError),
    /// Another run's.
    #[error("announced for another run")]
    OtherRun,
}

/// Reads an announcement: decodes up to 512 KiB and hashes the manifest.
///
/// # Errors
/// It is none of this run.
pub fn read(run_id: RunId, inline_max: u32, bytes: Vec<u8>, from: PeerKey) -> Result<Announcement, Malformed> {
    let announcement = message::Announcement::from_bytes(&bytes, inline_max)?;
    let manifest = &announcement.manifest;
    if manifest.run != run_id {
        return Err(Malformed::OtherRun);
    }
    let (round, uid, digest) = (manifest.round, manifest.uid, manifest.digest());
    Ok(Announced { round, uid, digest, from, body: Received { announcement, bytes, ticket: None } })
}

/// Listens until the network ends; what is heard goes to `heard`.
pub async fn listen<L: Send + Sync + 'static>(
    context: Arc<Context<L>>,
    mut events: Events,
    heard: mpsc::Sender<Heard>,
) {
    while let Some(event) = events.next().await {
        let news = match event {
            Event::Announcement { bytes, from, ticket } => {
                let (run_id, inline_max) = (context.run_id, context.run.compress.inline_max);
                let read = off_the_queue(move || read(run_id, inline_max, bytes, from)).await;
                match read {
                    Ok(Announced { round, uid, digest, from, body }) => {
                        let body = body.with_ticket(ticket);
                        Heard::Announcement(Announced { round, uid, digest, from, body })
                    }
                    Err(blame) => {
                        tracing::debug!(node = %context.name, %from, %blame, "announcement refused");
                        context.network.judge(ticket, Verdict::Reject);
                        continue;
                    }
                }
            }
            Event::NetworkRestarted => {
                tracing::error!(node = %context.name, "the network task was restarted");
                continue;
            }
            _ => Heard::PeersChanged,
        };
        if heard.send(news).await.is_err() {
            return;
        }
    }
}
