//! A contribution's bytes: had, checked, decoded once, and pinned, because a vote vouches for them.

use crate::chain::Ledger;
use crate::compute::off_the_queue;
use crate::contribution::{Contribution, Expected};
use crate::peer::context::Context;
use crate::peer::obtain::{ObtainError, obtain};
use covey_gossip::store::{Durability, StoreError};
use covey_gossip::{Hint, PeerKey};
use covey_proto::message::Announcement;
use covey_proto::{Digest, Round, Uid};
use covey_round::engine::Collection;
use std::sync::Arc;
use std::time::Duration;

/// A contribution to fetch.
pub struct Fetch {
    /// What its round offers.
    pub collection: Arc<Collection>,
    /// Its author.
    pub uid: Uid,
    /// Its name.
    pub digest: Digest,
    /// Who announced it, and what came along; none if it is this node's own.
    pub from: Option<(PeerKey, Announcement)>,
}

/// What came of a fetch.
pub struct Fetched {
    /// The round.
    pub round: Round,
    /// The author.
    pub uid: Uid,
    /// The contribution, on the disk.
    pub found: Result<Arc<Contribution>, ObtainError>,
}

/// Has a contribution's bytes, checks and decodes them, and makes sure that they stay; with the time that decoding took.
pub async fn fetch<L: Ledger>(context: Arc<Context<L>>, job: Fetch) -> (Fetched, Duration) {
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
    let (store, tag) = (context.network.store().clone(), format!("offer-{}-{uid}", collection.round.0 % 4));
    // Pinning brings the bytes to the disk.
    off_the_queue(move || store.pin(&tag, &names)).await?;
    Ok((contribution, took))
}

/// Stores the manifest, and the shards that travelled inside the announcement.
async fn put_inline<L: Ledger>(context: &Arc<Context<L>>, announcement: Announcement) -> Result<(), StoreError> {
    let store = context.network.store().clone();
    let put = move || {
        let manifest = announcement.manifest.to_bytes();
        let blobs: Vec<Vec<u8>> = announcement.inline.into_iter().chain([manifest]).collect();
        store.put_batch(&blobs, Durability::Buffered).map(drop)
    };
    off_the_queue(put).await
}
