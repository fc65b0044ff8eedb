//! What the devnet offers has the names and the shapes that the real chain has, as its metadata of December 2025 says.

#![allow(clippy::unwrap_used)] // Tests stop where something is not as they say.

mod common;

use codec::{Decode, Encode};
use common::*;
use frame_metadata::v14::StorageEntryType;
use frame_metadata::v16::{PalletMetadata, RuntimeMetadataV16};
use frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed};
use scale_info::form::PortableForm;
use scale_info::{PortableRegistry, TypeDef};
use std::collections::HashSet;

/// What came after that metadata, and what only a devnet has. Names of the chain's June version, by which clients of
/// today go.
const LATER: [&str; 7] = [
    "SubtensorModule.register_limit",
    "SubtensorModule.LastEpochBlock",
    "SubtensorModule.PendingEpochAt",
    "SubtensorModule.SubnetEpochIndex",
    "SubtensorModule.SubnetEpochConsensus",
    "SubtensorModule.RegistrationPriceLimitExceeded",
    "SubnetInfoRuntimeApi.get_next_epoch_start_block",
];
/// FRAME is newer here than there: its own pallets are compared by the calls that are used, not whole.
const OURS: [&str; 3] = ["SubtensorModule", "Commitments", "Drand"];

fn decode(bytes: &[u8]) -> RuntimeMetadataV16 {
    match RuntimeMetadataPrefixed::decode(&mut &bytes[..]).unwrap().1 {
        RuntimeMetadata::V16(metadata) => metadata,
        _ => panic!("not V16"),
    }
}

fn real() -> RuntimeMetadataV16 {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/finney.scale");
    decode(&std::fs::read(path).unwrap())
}

/// Whether two types encode alike: names of fields and variants count where they say something, paths do not.
fn alike(
    a: (&PortableRegistry, u32),
    b: (&PortableRegistry, u32),
    seen: &mut HashSet<(u32, u32)>,
) -> Result<(), String> {
    if !seen.insert((a.1, b.1)) {
        return Ok(());
    }
    let (left, right) = (unwrapped(a), unwrapped(b));
    let (x, y) = (&a.0.resolve(left).unwrap().type_def, &b.0.resolve(right).unwrap().type_def);
    let mut inner = |x: u32, y: u32| alike((a.0, x), (b.0, y), seen);
    match (x, y) {
        (TypeDef::Primitive(x), TypeDef::Primitive(y)) if x == y => Ok(()),
        (TypeDef::Compact(x), TypeDef::Compact(y)) => inner(x.type_param.id, y.type_param.id),
        (TypeDef::Sequence(x), TypeDef::Sequence(y)) => inner(x.type_param.id, y.type_param.id),
        (TypeDef::Array(x), TypeDef::Array(y)) if x.len == y.len => inner(x.type_param.id, y.type_param.id),
        (TypeDef::Tuple(x), TypeDef::Tuple(y)) if x.fields.len() == y.fields.len() => {
            x.fields.iter().zip(&y.fields).try_for_each(|(x, y)| inner(x.id, y.id))
        }
        (TypeDef::Composite(x), TypeDef::Composite(y)) if x.fields.len() == y.fields.len() => {
            x.fields.iter().zip(&y.fields).try_for_each(|(x, y)| {
                if x.name != y.name {
                    return Err(format!("field {:?} is {:?} there", x.name, y.name));
                }
                inner(x.ty.id, y.ty.id).map_err(|why| format!("{:?}: {why}", x.name))
            })
        }
        (TypeDef::Variant(x), TypeDef::Variant(y)) => x.variants.iter().try_for_each(|x| {
            let Some(y) = y.variants.iter().find(|y| y.name == x.name && y.index == x.index) else {
                return Err(format!("variant {} = {} is not there", x.name, x.index));
            };
            if x.fields.len() != y.fields.len() {
                return Err(format!("variant {} has other fields there", x.name));
            }
            x.fields.iter().zip(&y.fields).try_for_each(|(x, y)| inner(x.ty.id, y.ty.id))
        }),
        (x, y) => Err(format!("{x:?} is {y:?} there")),
    }
}

/// Types around one unnamed field encode as it does.
fn unwrapped((types, id): (&PortableRegistry, u32)) -> u32 {
    match &types.resolve(id).unwrap().type_def {
        TypeDef::Composite(one) if one.fields.len() == 1 && one.fields[0].name.is_none() => {
            unwrapped((types, one.fields[0].ty.id))
        }
        TypeDef::Tuple(one) if one.fields.len() == 1 => unwrapped((types, one.fields[0].id)),
        _ => id,
    }
}

struct Both {
    ours: RuntimeMetadataV16,
    real: RuntimeMetadataV16,
    breaches: Vec<String>,
}

impl Both {
    fn compare(&mut self, name: &str, ours: u32, real: u32) {
        if let Err(why) = alike((&self.ours.types, ours), (&self.real.types, real), &mut HashSet::new()) {
            self.breaches.push(format!("{name}: {why}"));
        }
    }

    fn pallets(&self, name: &str) -> (PalletMetadata<PortableForm>, PalletMetadata<PortableForm>) {
        let find = |of: &RuntimeMetadataV16| of.pallets.iter().find(|pallet| pallet.name == name).cloned().unwrap();
        (find(&self.ours), find(&self.real))
    }

    /// Each variant of ours, of calls, events or errors, is there with the same fields.
    fn variants(&mut self, pallet: &str, ours: Option<u32>, real: Option<u32>, numbers: bool) {
        let (Some(ours), Some(real)) = (ours, real) else { return };
        let of = |types: &PortableRegistry, id| match &types.resolve(id).unwrap().type_def {
            TypeDef::Variant(all) => all.variants.clone(),
            other => panic!("{other:?}"),
        };
        let (ours, real) = (of(&self.ours.types, ours), of(&self.real.types, real));
        for x in ours {
            let name = format!("{pallet}.{}", x.name);
            if LATER.contains(&&name[..]) {
                continue;
            }
            let Some(y) = real.iter().find(|y| y.name == x.name) else {
                self.breaches.push(format!("{name} is not there"));
                continue;
            };
            if numbers && x.index != y.index {
                self.breaches.push(format!("{name} is number {}, there {}", x.index, y.index));
            }
            if x.fields.len() != y.fields.len() {
                self.breaches.push(format!("{name} has {} fields, there {}", x.fields.len(), y.fields.len()));
            }
            for (x, y) in x.fields.iter().zip(&y.fields) {
                if x.name != y.name {
                    self.breaches.push(format!("{name}: {:?} is called {:?} there", x.name, y.name));
                }
                self.compare(&name, x.ty.id, y.ty.id);
            }
        }
    }

    fn storage(&mut self, pallet: &str) {
        let (ours, real) = self.pallets(pallet);
        let (Some(ours), Some(real)) = (ours.storage, real.storage) else { return };
        for x in &ours.entries {
            let name = format!("{pallet}.{}", x.name);
            if LATER.contains(&&name[..]) {
                continue;
            }
            let Some(y) = real.entries.iter().find(|y| y.name == x.name) else {
                self.breaches.push(format!("{name} is not there"));
                continue;
            };
            if x.modifier != y.modifier {
                self.breaches.push(format!("{name} is {:?}, there {:?}", x.modifier, y.modifier));
            }
            match (&x.ty, &y.ty) {
                (StorageEntryType::Plain(x), StorageEntryType::Plain(y)) => self.compare(&name, x.id, y.id),
                (
                    StorageEntryType::Map { hashers, key, value },
                    StorageEntryType::Map { hashers: real_hashers, key: real_key, value: real_value },
                ) => {
                    if hashers != real_hashers {
                        self.breaches.push(format!("{name}: {hashers:?}, there {real_hashers:?}"));
                    }
                    self.compare(&name, key.id, real_key.id);
                    self.compare(&name, value.id, real_value.id);
                }
                _ => self.breaches.push(format!("{name}: a map here or there, but not both")),
            }
        }
    }

    fn apis(&mut self) {
        for api in self.ours.apis.clone() {
            let Some(real) = self.real.apis.iter().find(|real| real.name == api.name).cloned() else {
                self.breaches.push(format!("{} is not there", api.name));
                continue;
            };
            // FRAME's own are of another version here; those of subtensor are compared.
            if !["SubnetInfo", "NeuronInfo", "StakeInfo", "Swap", "AccountNonce"]
                .iter()
                .any(|of| api.name.starts_with(of))
            {
                continue;
            }
            for x in &api.methods {
                let name = format!("{}.{}", api.name, x.name);
                if LATER.contains(&&name[..]) {
                    continue;
                }
                let Some(y) = real.methods.iter().find(|y| y.name == x.name) else {
                    self.breaches.push(format!("{name} is not there"));
                    continue;
                };
                for (x, y) in x.inputs.iter().zip(&y.inputs) {
                    if x.name != y.name {
                        self.breaches.push(format!("{name}: {} is called {} there", x.name, y.name));
                    }
                    self.compare(&name, x.ty.id, y.ty.id);
                }
                self.compare(&name, x.output.id, y.output.id);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_offered_is_there_with_the_same_shape() {
    let world = world().await;
    let bytes: Option<Vec<u8>> =
        world.devnet.chain().best_state().ask("Metadata_metadata_at_version", &16_u32.encode()).unwrap();
    let mut both = Both { ours: decode(&bytes.unwrap()), real: real(), breaches: Vec::new() };
    for pallet in OURS {
        let (ours, real) = both.pallets(pallet);
        assert_eq!(ours.index, real.index, "{pallet}");
        let ids = |of: &PalletMetadata<PortableForm>| {
            let (calls, events) = (of.calls.as_ref().map(|of| of.ty.id), of.event.as_ref().map(|of| of.ty.id));
            (calls, events, of.error.as_ref().map(|of| of.ty.id))
        };
        let ((calls, events, errors), (real_calls, real_events, real_errors)) = (ids(&ours), ids(&real));
        both.variants(pallet, calls, real_calls, true);
        both.variants(pallet, events, real_events, false);
        both.variants(pallet, errors, real_errors, false);
        both.storage(pallet);
    }
    both.storage("Balances");
    both.apis();
    // Extensions that carry bytes are the same and in the same order; the chain's others encode to nothing.
    let names = |of: &RuntimeMetadataV16| -> Vec<String> {
        of.extrinsic.transaction_extensions.iter().map(|extension| extension.identifier.clone()).collect()
    };
    let (ours, mut there) = (names(&both.ours), names(&both.real));
    there.retain(|name| ours.contains(name));
    assert_eq!(ours, there);
    assert!(both.breaches.is_empty(), "{} differ:\n{}", both.breaches.len(), both.breaches.join("\n"));
}
