//! A contribution: what is checked before anybody votes for it or applies it, and how its shards are had again.
//!
//! Where its bytes come from is [`crate::peer::obtain`]'s business; here are the rules. A contribution that is small when
//! decoded stays so; of a large one only the manifest is in memory, and its shards are decoded from the store, one after
//! another, by whoever needs them.

use covey_gossip::store::StoreError;
use covey_proto::blob::{DecodeError, Manifest};
use covey_proto::chain::Member;
use covey_proto::layout::Layout;
use covey_proto::run::Run;
use covey_proto::{Digest, Round, RunId};
use covey_round::assign::samples_per_member;
use covey_sparseloco::{CODEC_VERSION, CodecError, SparseShard, decode_shard, max_shard_bytes};

/// What a decoded contribution may take to be kept so: all of a model of some millions of parameters, of which twenty
/// take 40 MB. Of a larger model twenty would take as much as the model itself, and decoding again is cheap beside it.
pub(crate) const DECODED_BYTES_MAX: usize = 2 << 20;

/// Where a blob's bytes come from: a store's `get`, or several stores'.
pub type Blobs<'a> = dyn Fn(&Digest) -> Result<Option<Vec<u8>>, StoreError> + Sync + 'a;

/// A contribution whose every shard has decoded, and whose bytes are in the store.
#[derive(Debug)]
pub struct Contribution {
    /// Its name.
    pub digest: Digest,
    /// What it says of itself.
    pub manifest: Manifest,
    /// The shards in order, if they are few bytes.
    decoded: Option<Vec<SparseShard>>,
}

/// Why a shard that was there is not.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store has evicted it.
    #[error("shard {0} is not in the store any more")]
    Gone(Digest),
    /// It does not decode, though it did.
    #[error("shard {shard} does not decode any more: {error}")]
    Codec {
        /// Its number.
        shard: usize,
        /// What is wrong.
        error: CodecError,
    },
}

impl Contribution {
    /// The shards in order, if they are kept decoded.
    pub fn decoded(&self) -> Option<&[SparseShard]> {
        self.decoded.as_deref()
    }

    /// The names of all its blobs: the shards', then the manifest's.
    pub fn blobs(&self) -> impl Iterator<Item = Digest> + '_ {
        self.manifest.shards.iter().map(|shard| shard.root).chain([self.digest])
    }

    /// A shard: a copy of what is kept decoded, or decoded from its blob.
    ///
    /// # Errors
    /// It is not there.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn shard(
        &self,
        run: &Run,
        layout: &Layout,
        blobs: &Blobs<'_>,
        shard: usize,
    ) -> Result<SparseShard, ShardError> {
        if let Some(decoded) = &self.decoded {
            return Ok(decoded[shard].clone());
        }
        let root = self.manifest.shards[shard].root;
        let bytes = blobs(&root)?.ok_or(ShardError::Gone(root))?;
        decode_one(run, layout, &self.manifest, shard, &bytes).map_err(|error| ShardError::Codec { shard, error })
    }
}

fn decode_one(
    run: &Run,
    layout: &Layout,
    manifest: &Manifest,
    shard: usize,
    bytes: &[u8],
) -> Result<SparseShard, CodecError> {
    let (chunks, k) = (run.compress.shard_chunks as usize, run.compress.k.count(manifest.round));
    decode_shard(bytes, layout, layout.shard(shard, chunks), k, run.compress.quantiser)
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
pub fn check_shape(run: &Run, layout: &Layout, manifest: &Manifest) -> Result<(), Unfit> {
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

/// Checks a contribution's shards as they come, in order, one at a time in memory.
#[derive(Debug)]
pub struct ShardCheck {
    manifest: Manifest,
    checked: usize,
    /// What has been decoded, until it is too much to keep.
    decoded: Option<Vec<SparseShard>>,
    decoded_bytes: usize,
}

impl ShardCheck {
    /// Of a contribution whose manifest is as it must be.
    pub fn new(manifest: Manifest) -> ShardCheck {
        ShardCheck { manifest, checked: 0, decoded: Some(Vec::new()), decoded_bytes: 0 }
    }

    /// Decodes the next shard.
    ///
    /// # Errors
    /// It is not the one encoding of anything.
    pub fn push(&mut self, run: &Run, layout: &Layout, bytes: &[u8]) -> Result<(), Unfit> {
        let shard = self.checked;
        let decoded =
            decode_one(run, layout, &self.manifest, shard, bytes).map_err(|error| Unfit::Shard { shard, error })?;
        self.checked += 1;
        self.decoded_bytes += size_of_val(decoded.indices()) + size_of_val(decoded.values());
        match &mut self.decoded {
            Some(kept) if self.decoded_bytes <= DECODED_BYTES_MAX => kept.push(decoded),
            _ => self.decoded = None,
        }
        Ok(())
    }

    /// The contribution; none before every shard has come.
    pub fn finish(self) -> Option<Contribution> {
        let ShardCheck { manifest, checked, decoded, .. } = self;
        (checked == manifest.shards.len()).then(|| Contribution { digest: manifest.digest(), manifest, decoded })
    }
}
