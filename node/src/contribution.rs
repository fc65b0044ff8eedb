//! A contribution, from its digest to decoded shards: what is checked before a vote, and how its bytes are had.

use crate::chain::Ledger;
use crate::peer::Context;
use covey_gossip::store::StoreError;
use covey_gossip::{FetchError, Hint};
use covey_proto::blob::{DecodeError, LIST_BYTES_MAX, Manifest};
use covey_proto::chain::Member;
use covey_proto::layout::Layout;
use covey_proto::run::Run;
use covey_proto::{Digest, Round, RunId};
use covey_round::assign::samples_per_member;
use covey_sparseloco::{CODEC_VERSION, CodecError, SparseShard, decode_shard, max_shard_bytes};
use futures::stream::{self, StreamExt, TryStreamExt};
use std::sync::Arc;
use std::time::Duration;

/// Shards of one contribution fetched at once: twenty contributions stay far below what the network takes on.
const FETCHES_MAX: usize = 32;

/// A contribution whose every shard has decoded.
#[derive(Debug)]
pub struct Contribution {
    /// Its name.
    pub digest: Digest,
    /// What it says of itself.
    pub manifest: Manifest,
    /// The shards, in order.
    pub shards: Vec<SparseShard>,
}

/// Why a contribution does not count. Its author is to blame for each.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// The blob of the committed digest is no manifest.
    #[error("what was committed is no manifest: {0}")]
    NoManifest(#[from] DecodeError),
    /// A field is not what it must be.
    #[error("the manifest's {field} is {got}; it must be {needed}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it is.
        got: String,
        /// What it must be.
        needed: String,
    },
    /// A shard larger than any honest one.
    #[error("shard {shard} is {got} bytes; no honest one has more than {max}")]
    ShardTooLarge {
        /// Its number.
        shard: usize,
        /// Its bytes.
        got: u64,
        /// What it may have.
        max: usize,
    },
    /// A shard of another size than the manifest says.
    #[error("blob {root} is {got} bytes; {named} were named")]
    Size {
        /// The blob.
        root: Digest,
        /// Its size as named.
        named: u64,
        /// Its size.
        got: u64,
    },
    /// A shard that does not decode.
    #[error("shard {shard} does not decode: {error}")]
    Shard {
        /// Its number.
        shard: usize,
        /// What is wrong.
        error: CodecError,
    },
}

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

impl From<FetchError> for ObtainError {
    fn from(error: FetchError) -> ObtainError {
        match error {
            // Whoever named the blob gave a false size: the manifest's author.
            FetchError::Size { root, named, got } => Unfit::Size { root, named, got }.into(),
            error => ObtainError::Fetch(error),
        }
    }
}

/// What a contribution must say of itself.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The run.
    pub run_id: RunId,
    /// The round.
    pub round: Round,
    /// head(round − 1).
    pub base: Digest,
    /// Its author, as registered at the anchor.
    pub author: Member,
}

/// Checks all that a manifest says but the shards' bytes.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_manifest(run: &Run, layout: &Layout, expected: &Expected, manifest: &Manifest) -> Result<(), Unfit> {
    let must = |field, holds: bool, got: String, needed: String| {
        if holds { Ok(()) } else { Err(Unfit::Field { field, got, needed }) }
    };
    let Expected { run_id, round, base, author } = expected;
    must("run", manifest.run == *run_id, manifest.run.to_string(), run_id.to_string())?;
    must("round", manifest.round == *round, manifest.round.to_string(), round.to_string())?;
    must("uid", manifest.uid == author.uid, manifest.uid.to_string(), author.uid.to_string())?;
    must("hotkey", manifest.hotkey == author.hotkey, manifest.hotkey.to_string(), author.hotkey.to_string())?;
    let registered = author.registered_at.0;
    must(
        "registered_at",
        manifest.registered_at == registered,
        manifest.registered_at.to_string(),
        registered.to_string(),
    )?;
    must("base", manifest.base == *base, manifest.base.to_string(), base.to_string())?;
    let least = u64::from(run.inner.steps_min) * u64::from(run.inner.batch);
    let most = samples_per_member(run, *round);
    let enough = (least.min(most)..=most).contains(&u64::from(manifest.samples));
    must("samples", enough, manifest.samples.to_string(), format!("{least} to {most}"))?;
    check_shape(run, layout, manifest)
}

/// Checks what a decoder relies on: codec, number and sizes of shards.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn check_shape(run: &Run, layout: &Layout, manifest: &Manifest) -> Result<(), Unfit> {
    if manifest.codec != CODEC_VERSION {
        let (got, needed) = (manifest.codec.to_string(), CODEC_VERSION.to_string());
        return Err(Unfit::Field { field: "codec", got, needed });
    }
    let chunks = run.compress.shard_chunks as usize;
    let needed = layout.shards(chunks);
    if manifest.shards.len() != needed {
        let got = manifest.shards.len().to_string();
        return Err(Unfit::Field { field: "number of shards", got, needed: needed.to_string() });
    }
    let k = run.compress.k.count(manifest.round);
    for (shard, named) in manifest.shards.iter().enumerate() {
        let max = max_shard_bytes(layout, layout.shard(shard, chunks), k, run.compress.quantiser);
        if named.size > max as u64 {
            return Err(Unfit::ShardTooLarge { shard, got: named.size, max });
        }
    }
    Ok(())
}

/// Decodes a contribution's shards.
///
/// # Errors
/// The first shard that is not the one encoding of anything.
pub fn decode<B: AsRef<[u8]>>(
    run: &Run,
    layout: &Layout,
    manifest: Manifest,
    shards: &[B],
) -> Result<Contribution, Unfit> {
    let (chunks, k) = (run.compress.shard_chunks as usize, run.compress.k.count(manifest.round));
    let decode = |(shard, bytes): (usize, &B)| {
        decode_shard(bytes.as_ref(), layout, layout.shard(shard, chunks), k, run.compress.quantiser)
            .map_err(|error| Unfit::Shard { shard, error })
    };
    let shards = shards.iter().enumerate().map(decode).collect::<Result<Vec<_>, _>>()?;
    Ok(Contribution { digest: manifest.digest(), manifest, shards })
}

/// Has a contribution's bytes from the store or from peers, and decodes them; with the time that decoding took. With `expected`, what the manifest says
/// is checked first; without, it is one that the electorate has taken already.
///
/// # Errors
/// It does not count, nobody gave it within `patience`, or the disk refuses.
///
/// # Cancel safety
/// What has been fetched stays in the store.
pub async fn obtain<L: Ledger>(
    context: &Arc<Context<L>>,
    digest: Digest,
    expected: Option<Expected>,
    hints: &[Hint],
    patience: Duration,
) -> Result<(Contribution, Duration), ObtainError> {
    let network = &context.network;
    let bytes = network.fetch_unsized(digest, LIST_BYTES_MAX as u64, hints, patience).await?;
    let manifest = Manifest::from_bytes(&bytes).map_err(Unfit::NoManifest)?;
    match &expected {
        Some(expected) => check_manifest(&context.run, &context.layout, expected, &manifest)?,
        None => check_shape(&context.run, &context.layout, &manifest)?,
    }
    let fetches = manifest.shards.clone().into_iter().map(|blob| network.fetch(blob, hints, patience));
    let shards: Vec<_> = stream::iter(fetches).buffered(FETCHES_MAX).try_collect().await?;
    let owned = context.clone();
    let decoded = context.compute.run(move || decode(&owned.run, &owned.layout, manifest, &shards)).await;
    Ok((decoded.0?, decoded.1))
}
