//! A contribution: what is checked before anybody votes for it or applies it, and how its shards are had again.
//!
//! Where its bytes come from is `peer::obtain`'s business; here are the rules. A contribution that is small when
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

#[cfg(test)]
mod tests {
    use super::*;
    use covey_proto::blob::BlobRef;
    use covey_proto::{BlockNumber, Hotkey, Uid};
    use covey_sparseloco::{Compression, compress};
    use std::collections::HashMap;

    const ROUND: Round = Round(3);

    /// Makes a manifest say something else.
    type Lie = fn(&mut Manifest);

    /// A run, how its parameters lie, an honest contribution's bytes by name, and its manifest.
    struct Honest {
        run: Run,
        layout: Layout,
        blobs: HashMap<Digest, Vec<u8>>,
        manifest: Manifest,
    }

    fn author() -> Member {
        let hotkey = Hotkey::new([1; 32]);
        Member { uid: Uid::from(5), hotkey, registered_at: BlockNumber(7), permit: false, stake: 0 }
    }

    fn expected(run: &Run) -> Expected {
        Expected { run_id: run.id(), round: ROUND, base: Digest::of(b"base"), author: author() }
    }

    fn honest() -> Honest {
        let run = crate::testing::tiny_run(Digest::ZERO);
        let layout = run.layout();
        let how = Compression {
            beta: run.compress.beta,
            k: run.compress.k.count(ROUND),
            quantiser: run.compress.quantiser,
            shard_chunks: run.compress.shard_chunks as usize,
        };
        let feedback = vec![0.0; layout.elements()];
        let base = feedback.clone();
        let mut trained: Vec<f32> = (0..layout.elements()).map(|at| (at % 97) as f32 * 1e-3 - 0.05).collect();
        let shards = compress(1, &layout, &how, &base, &feedback, &mut trained).unwrap().shards;
        let (of, author) = (expected(&run), author());
        let manifest = Manifest {
            run: of.run_id,
            round: ROUND,
            uid: author.uid,
            hotkey: author.hotkey,
            registered_at: author.registered_at.0,
            base: of.base,
            samples: samples_per_member(&run, ROUND) as u32,
            codec: CODEC_VERSION,
            shards: shards.iter().map(|shard| BlobRef::of(shard)).collect(),
        };
        let blobs = shards.into_iter().map(|shard| (Digest::of(&shard), shard)).collect();
        Honest { run, layout, blobs, manifest }
    }

    impl Honest {
        fn check(&self) -> Result<Contribution, Unfit> {
            let mut check = ShardCheck::new(self.manifest.clone());
            for shard in &self.manifest.shards {
                check.push(&self.run, &self.layout, &self.blobs[&shard.root])?;
            }
            Ok(check.finish().unwrap())
        }
    }

    #[test]
    fn an_honest_manifest_passes_and_one_with_any_other_field_is_named_by_it() {
        let Honest { run, layout, manifest, .. } = honest();
        let check = |manifest: &Manifest| check_manifest(&run, &layout, &expected(&run), manifest);
        assert!(check(&manifest).is_ok());
        let lies: [(&str, Lie); 8] = [
            ("run", |manifest| manifest.run.0 = Digest::ZERO),
            ("round", |manifest| manifest.round = ROUND.next()),
            ("uid", |manifest| manifest.uid = Uid::from(6)),
            ("hotkey", |manifest| manifest.hotkey = Hotkey::new([2; 32])),
            ("registered_at", |manifest| manifest.registered_at += 1),
            ("base", |manifest| manifest.base = Digest::ZERO),
            ("samples", |manifest| manifest.samples += 1),
            ("codec", |manifest| manifest.codec += 1),
        ];
        for (field, lie) in lies {
            let mut manifest = manifest.clone();
            lie(&mut manifest);
            assert!(matches!(check(&manifest), Err(Unfit::Field { field: named, .. }) if named == field), "{field}");
        }
        let mut more = manifest.clone();
        more.shards.push(more.shards[0]);
        assert!(matches!(check(&more), Err(Unfit::Field { field: "number of shards", .. })));
        let mut larger = manifest;
        larger.shards[0].size = 1 << 40;
        assert!(matches!(check(&larger), Err(Unfit::ShardTooLarge { shard: 0, .. })));
    }

    #[test]
    fn a_small_contribution_stays_decoded_and_is_the_same_from_its_blobs() {
        let honest = honest();
        let small = honest.check().unwrap();
        assert_eq!(small.digest, honest.manifest.digest());
        let decoded = small.decoded().unwrap().to_vec();
        let large = Contribution { decoded: None, manifest: honest.manifest.clone(), digest: small.digest };
        let blobs = |root: &Digest| Ok(honest.blobs.get(root).cloned());
        for (number, shard) in decoded.iter().enumerate() {
            for contribution in [&small, &large] {
                assert_eq!(&contribution.shard(&honest.run, &honest.layout, &blobs, number).unwrap(), shard);
            }
        }
        let none = |_: &Digest| Ok(None);
        assert!(matches!(large.shard(&honest.run, &honest.layout, &none, 0), Err(ShardError::Gone(_))));
        let other = |_: &Digest| Ok(Some(vec![0; 9]));
        let broken = large.shard(&honest.run, &honest.layout, &other, 0);
        assert!(matches!(broken, Err(ShardError::Codec { shard: 0, .. })));
    }

    #[test]
    fn a_shard_that_does_not_decode_is_named_and_none_may_be_missing() {
        let mut honest = honest();
        let missing = ShardCheck::new(honest.manifest.clone()).finish();
        assert!(missing.is_none());
        let last = honest.manifest.shards.len() - 1;
        honest.blobs.get_mut(&honest.manifest.shards[last].root).unwrap().push(0);
        assert!(matches!(honest.check(), Err(Unfit::Shard { shard, .. }) if shard == last));
    }
}
