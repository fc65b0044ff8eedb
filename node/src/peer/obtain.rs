//! How a contribution is had: its manifest and shards come from the store or from peers, and are checked as they come.

use super::context::Context;
use crate::chain::Ledger;
use crate::contribution::{Contribution, Expected, ShardCheck, Unfit, check_manifest, check_shape};
use covey_gossip::store::StoreError;
use covey_gossip::{FetchError, Hint};
use covey_proto::Digest;
use covey_proto::blob::{LIST_BYTES_MAX, Manifest};
use futures::stream::{self, StreamExt};
use std::sync::Arc;
use std::time::Duration;

/// Shards of one contribution fetched at once: twenty contributions stay far below what the network takes on.
const FETCHES_MAX: usize = 32;

/// Why a contribution is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum ObtainError {
    /// It does not count.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Nobody gave the bytes in time.
    #[error(transparent)]
    Fetch(FetchError),
    /// The disk refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ObtainError {
    /// Whether it will never count, whoever gives it.
    pub fn is_the_authors_fault(&self) -> bool {
        matches!(self, ObtainError::Unfit(_))
    }
}

impl From<FetchError> for ObtainError {
    fn from(error: FetchError) -> ObtainError {
        match error {
            // Whoever named the blob gave a false size: the manifest's author.
            FetchError::Size { root, named, got } => Unfit::Size { root, named, got }.into(),
            error => ObtainError::Fetch(error),
        }
    }
}

/// Has a contribution's bytes, and decodes each shard once; with the time that decoding took. With `expected`, what the
/// manifest says is checked first; without, it is one that the electorate has taken already.
///
/// # Errors
/// It does not count, nobody gave it within `patience`, or the disk refuses.
///
/// # Cancel safety
/// What has been fetched stays in the store.
pub async fn obtain<L: Ledger>(
    context: &Arc<Context<L>>,
    digest: Digest,
    expected: Option<&Expected>,
    hints: &[Hint],
    patience: Duration,
) -> Result<(Contribution, Duration), ObtainError> {
    let network = &context.network;
    let bytes = network.fetch_unsized(digest, LIST_BYTES_MAX as u64, hints, patience).await?;
    let manifest = Manifest::from_bytes(&bytes).map_err(Unfit::NoManifest)?;
    match expected {
        Some(expected) => check_manifest(&context.run, &context.layout, expected, &manifest)?,
        None => check_shape(&context.run, &context.layout, &manifest)?,
    }
    let fetches = manifest.shards.clone().into_iter().map(|blob| network.fetch(blob, hints, patience));
    let mut shards = stream::iter(fetches).buffered(FETCHES_MAX).ready_chunks(FETCHES_MAX);
    let (mut check, mut took) = (ShardCheck::new(manifest), Duration::ZERO);
    while let Some(ready) = shards.next().await {
        let ready = ready.into_iter().collect::<Result<Vec<Arc<[u8]>>, FetchError>>()?;
        let owned = context.clone();
        let decode = move || {
            let decoded = ready.iter().try_for_each(|bytes| check.push(&owned.run, &owned.layout, bytes));
            decoded.map(|()| check)
        };
        let (checked, decoding) = context.compute.run(decode).await;
        check = checked?;
        took += decoding;
    }
    Ok((check.finish().expect("as many shards came as the manifest names"), took))
}
