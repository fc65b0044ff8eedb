//! A contribution's bytes: had, checked, decoded once, and pinned, because a vote vouches for them.

use crate::chain::Ledger;
use crate::compute::off_the_queue;
use crate::contribution::{Contribution, Expected};
use crate::peer::context::Context;
use crate::peer::obtain::{ObtainError, obtain};
use crate::peer::validating::ROUNDS_WAITING_MAX;
use covey_gossip::store::{Durability, StoreError};
use covey_gossip::{Hint, PeerKey};
use covey_proto::message::Announcement;
use covey_proto::{Digest, Round, Uid};
use covey_round::engine::Collection;
use std::sync::Arc;
use std::time::Duration;

/// Rounds whose offers stay in the store: those that wait to be scored, the one that is, and the one that is gathered.
const OFFERS_KEPT: u32 = ROUNDS_WAITING_MAX as u32 + 2;

/// A contribution to fetch.
pub(in crate::peer) struct Fetch {
    /// What its round offers.
    pub collection: Arc<Collection>,
    /// Its author.
    pub uid: Uid,
    /// Its name.
    pub digest: Digest,
    /// Who announced it, and the announcement's bytes; none if it is this node's own.
    pub from: Option<(PeerKey, Vec<u8>)>,
}

/// What came of a fetch.
pub(in crate::peer) struct Fetched {
    /// The round.
    pub round: Round,
    /// The author.
    pub uid: Uid,
    /// The contribution, on the disk.
    pub found: Result<Arc<Contribution>, ObtainError>,
}

/// Has a contribution's bytes, checks and decodes them, and makes sure that they stay; with the time that decoding took.
pub(in crate::peer) async fn fetch<L: Ledger>(context: Arc<Context<L>>, job: Fetch) -> (Fetched, Duration) {
    let (round, uid) = (job.collection.round, job.uid);
    match obtain_and_pin(&context, job).await {
        Ok((contribution, took)) => (Fetched { round, uid, found: Ok(Arc::new(contribution)) }, took),
        Err(error) => (Fetched { round, uid, found: Err(error) }, Duration::ZERO),
    }
}

async fn obtain_and_pin<L: Ledger>(
    context: &Arc<Context<L>>,
    job: Fetch,
) -> Result<(Contribution, Duration), ObtainError> {
    let Fetch { collection, uid, digest, from } = job;
    let mut hints = vec![Hint::Uid(uid)];
    if let Some((peer, announcement)) = from {
        hints.push(peer.into());
        put_inline(context, announcement).await?;
    }
    let expected = collection.members.get(&uid).map(|author| Expected {
        run_id: context.run_id,
        round: collection.round,
        base: collection.base,
        author: *author,
    });
    // A slow link may take the whole round; who votes has looked at what is held by then.
    let (contribution, took) = obtain(context, digest, expected.as_ref(), &hints, 10 * context.patience).await?;
    let names: Vec<Digest> = contribution.blobs().collect();
    let (store, tag) = (context.network.store().clone(), format!("offer-{}-{uid}", collection.round.0 % OFFERS_KEPT));
    // Pinning brings the bytes to the disk.
    off_the_queue(move || store.pin(&tag, &names)).await?;
    Ok((contribution, took))
}

/// Stores the manifest, and the shards that travelled inside the announcement.
async fn put_inline<L: Ledger>(context: &Arc<Context<L>>, announcement: Vec<u8>) -> Result<(), StoreError> {
    let (store, inline_max) = (context.network.store().clone(), context.run.compress.inline_max);
    let put = move || {
        // It was read before.
        let Ok(announcement) = Announcement::from_bytes(&announcement, inline_max) else { return Ok(()) };
        let manifest = announcement.manifest.to_bytes();
        let blobs: Vec<Vec<u8>> = announcement.inline.into_iter().chain([manifest]).collect();
        store.put_batch(&blobs, Durability::Buffered).map(drop)
    };
    off_the_queue(put).await
}
