//! What the network says, read before the node's loop hears of it: announcements are decoded and hashed here, one after
//! another. Should the loop be slower than this, gossip lets announcements go that find no room; they are asked for later.

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
pub(in crate::peer) enum Heard {
    /// An announcement of this run, by gossip.
    Announcement(Box<Announcement>),
    /// Peers have come or gone.
    PeersChanged,
}

/// An announcement that was read, with what goes along. Many may wait: it is held once, as bytes, and read again by who
/// fetches.
#[derive(Debug)]
pub struct Received {
    /// Its bytes, to be handed on.
    pub bytes: Vec<u8>,
    /// Bytes of all shards that it announces.
    pub shard_bytes: u64,
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
    let shard_bytes = manifest.shards.iter().map(|shard| shard.size).sum();
    Ok(Announced { round, uid, digest, from, body: Received { bytes, shard_bytes, ticket: None } })
}

/// Listens until the network ends; what is heard goes to `heard`.
pub(in crate::peer) async fn listen<L: Send + Sync + 'static>(
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
                        Heard::Announcement(Box::new(Announced { round, uid, digest, from, body }))
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

#[cfg(test)]
mod tests {
    use super::*;
    use covey_proto::blob::{BlobRef, Manifest};
    use covey_proto::{Digest, Hotkey, Round, Uid};

    fn announcement(run: RunId) -> Vec<u8> {
        let manifest = Manifest {
            run,
            round: Round(3),
            uid: Uid::from(5),
            hotkey: Hotkey::new([1; 32]),
            registered_at: 7,
            base: Digest::of(b"base"),
            samples: 9,
            codec: 1,
            shards: vec![BlobRef::of(b"shard")],
        };
        message::Announcement { manifest, inline: vec![b"shard".to_vec()] }.to_bytes()
    }

    #[test]
    fn an_announcement_of_this_run_is_read_with_its_name_and_others_blame_who_gave_them() {
        let run = RunId(Digest::of(b"run"));
        // An Ed25519 key, as peers are named.
        let from = PeerKey::from_bytes(&[&[0, 36, 8, 1, 18, 32][..], &[7; 32]].concat()).unwrap();
        let read = |bytes: Vec<u8>| read(run, 16, bytes, from);
        let announced = read(announcement(run)).unwrap();
        assert_eq!((announced.round, announced.uid, announced.from), (Round(3), Uid::from(5), from));
        let again = message::Announcement::from_bytes(&announced.body.bytes, 16).unwrap();
        assert_eq!((announced.digest, announced.body.shard_bytes), (again.manifest.digest(), 5));
        assert!(!announced.body.is_gossiped());
        let other = announcement(RunId(Digest::of(b"other")));
        assert!(matches!(read(other), Err(Malformed::OtherRun)));
        assert!(matches!(read(b"no announcement".to_vec()), Err(Malformed::Form(_))));
    }
}
