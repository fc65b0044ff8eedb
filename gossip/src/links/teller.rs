//! Tells one peer what is held of the blobs that it wants: all at once, then what is new, in batches.
//!
//! What was told is compared with what the store holds, so that whatever changes the store is told, and nothing has to
//! say so: pieces that came, blobs that were put, what was evicted.

use super::block::Block;
use super::end::End;
use super::env::{Env, flush, write};
use super::protocol::StreamPlace;
use super::report::Reports;
use crate::peers::PeerKey;
use covey_exchange::frames::{Frame, HAVE_RUNS_MAX, Holding, Wish};
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::PieceSet;
use libp2p::swarm::Stream;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

/// Blobs that a peer may want to hear of at a time.
const WANTS_MAX: usize = 256;
/// Bytes of the sets that are kept of what a peer wants to hear of: as many as it may keep of this node's.
const SETS_BYTES_MAX: usize = 2 << 20;
/// Wishes answered at once, and in each time of news: an answer may be 64 KiB for a wish of 45 bytes.
const WISHES_AT_ONCE: u32 = 2 * WANTS_MAX as u32;
const WISHES_EACH: u32 = 64;
/// Bytes gathered before they are written.
const OUT_BYTES_MAX: usize = 64 * 1024;

struct ToldHoldings {
    blob: BlobRef,
    set: PieceSet,
}

struct Teller {
    env: Arc<Env>,
    stream: Stream,
    block: Block,
    told: HashMap<Digest, ToldHoldings>,
    out: Vec<u8>,
    wishes: u32,
}

/// Serves one stream of holdings until it ends.
pub(super) async fn run(env: Arc<Env>, peer: PeerKey, stream: Stream, place: StreamPlace) {
    let news = env.news.watch();
    let wishes = WISHES_AT_ONCE;
    let mut teller =
        Teller { env: env.clone(), stream, block: Block::new(), told: HashMap::new(), out: Vec::new(), wishes };
    let end = teller.run(news).await;
    tracing::debug!(%peer, %end, "a stream of holdings has ended");
    drop((teller, place));
    let mut reports = Reports::new();
    reports.end(peer, end);
    reports.send(&env).await;
}

impl Teller {
    async fn run(&mut self, mut news: watch::Receiver<u64>) -> End {
        let mut clock = tokio::time::interval_at(Instant::now() + self.env.limits.news_each, self.env.limits.news_each);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let step = tokio::select! {
                _ = clock.tick() => {
                    self.wishes = (self.wishes + WISHES_EACH).min(WISHES_AT_ONCE);
                    self.tell().await
                }
                changed = news.changed() => match changed {
                    Ok(()) => self.tell().await,
                    Err(_) => Err(End::Released),
                },
                wish = self.block.next::<Wish, _>(&mut self.stream), if self.wishes > 0 => match wish {
                    Ok(wish) => self.hear(wish).await,
                    Err(end) => Err(end),
                },
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn hear(&mut self, wish: Wish) -> Result<(), End> {
        self.wishes -= 1;
        match wish {
            Wish::Want(blob) => {
                let set = self.env.shared.store.public().holdings(&blob);
                Holding::Bitfield { root: blob.root, set: set.as_bytes().to_vec() }.encode(&mut self.out);
                self.told.insert(blob.root, ToldHoldings { blob, set });
                let bytes: usize = self.told.values().map(|told| told.set.as_bytes().len()).sum();
                if self.told.len() > WANTS_MAX || bytes > SETS_BYTES_MAX {
                    // Not proof of ill will: its stream ends, with all that it wanted to hear.
                    return Err(End::Closed);
                }
            }
            Wish::Unwant(root) => drop(self.told.remove(&root)),
        }
        self.send().await
    }

    /// Tells what has changed.
    async fn tell(&mut self) -> Result<(), End> {
        let roots: Vec<Digest> = self.told.keys().copied().collect();
        for root in roots {
            let Some(told) = self.told.get_mut(&root) else { continue };
            let now = self.env.shared.store.public().holdings(&told.blob);
            if now == told.set {
                continue;
            }
            match gained(&told.set, &now) {
                Some(runs) => {
                    for runs in runs.chunks(HAVE_RUNS_MAX) {
                        Holding::Have { root, runs: runs.to_vec() }.encode(&mut self.out);
                    }
                }
                None => Holding::Bitfield { root, set: now.as_bytes().to_vec() }.encode(&mut self.out),
            }
            told.set = now;
            if self.out.len() >= OUT_BYTES_MAX {
                self.send().await?;
            }
        }
        self.send().await
    }

    async fn send(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        write(&mut self.stream, &self.out, &self.env.limits).await?;
        flush(&mut self.stream, &self.env.limits).await?;
        self.out = Vec::new();
        Ok(())
    }
}

/// The pieces of `now` that `before` lacks, as runs; none if something was lost.
fn gained(before: &PieceSet, now: &PieceSet) -> Option<Vec<Range<u32>>> {
    if before.count() != now.count() || before.iter().any(|piece| !now.contains(piece)) {
        return None;
    }
    let mut new = PieceSet::none(now.count());
    for piece in now.iter().filter(|piece| !before.contains(*piece)) {
        new.insert(piece);
    }
    Some(new.runs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_told_by_the_whole_set() {
        let mut before = PieceSet::none(20);
        before.insert_range(3..6);
        let mut now = before.clone();
        now.insert_range(6..8);
        now.insert(12);
        assert_eq!(gained(&before, &now), Some(vec![6..8, 12..13]));
        now.remove(4);
        assert_eq!(gained(&before, &now), None);
    }
}
