//! The runtime's metadata, V14 to V16, with the type paths that the real chain has, and without what a chain of an
//! older kind of epoch would not have.
//!
//! Some clients find types by path: an event's must have two segments, which a runtime inside a module has not.

use super::Runtime;
use crate::pallets::settings;
use codec::{Decode, Encode};
use frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed};
use scale_info::PortableRegistry;
use sp_core::OpaqueMetadata;

/// Versions of metadata that there are.
pub const VERSIONS: [u32; 3] = [14, 15, 16];

/// Where this crate's types are on the real chain.
const PATHS: [(&[&str], &[&str]); 6] = [
    (&["covey_devnet", "pallets", "subtensor"], &["pallet_subtensor"]),
    (&["covey_devnet", "pallets", "commitments"], &["pallet_commitments"]),
    (&["covey_devnet", "pallets", "drand"], &["pallet_drand"]),
    (&["covey_devnet", "pallets"], &["covey"]),
    (&["covey_devnet", "runtime", "runtime"], &["node_subtensor_runtime"]),
    (&["covey_devnet", "runtime"], &["node_subtensor_runtime"]),
];

/// Storage that a chain whose epochs go by block number has not.
const STATEFUL: [&str; 3] = ["LastEpochBlock", "PendingEpochAt", "SubnetEpochIndex"];
/// The call of a runtime API that it has not.
const STATEFUL_METHOD: &str = "get_next_epoch_start_block";

/// Metadata in a version, if there is one.
pub fn at_version(version: u32) -> Option<OpaqueMetadata> {
    let bytes: Vec<u8> = match version {
        14 => Runtime::metadata().encode(),
        version if VERSIONS.contains(&version) => (*Runtime::metadata_at_version(version)?).clone(),
        _ => return None,
    };
    let mut metadata = RuntimeMetadataPrefixed::decode(&mut &bytes[..]).ok()?;
    let stateful = settings::StatefulEpochs::<Runtime>::get();
    let keep_entry = |name: &str| stateful || !STATEFUL.contains(&name);
    let keep_method = |name: &str| stateful || name != STATEFUL_METHOD;
    match &mut metadata.1 {
        RuntimeMetadata::V14(all) => {
            rename(&mut all.types);
            for storage in all.pallets.iter_mut().filter_map(|pallet| pallet.storage.as_mut()) {
                storage.entries.retain(|entry| keep_entry(&entry.name));
            }
        }
        RuntimeMetadata::V15(all) => {
            rename(&mut all.types);
            for storage in all.pallets.iter_mut().filter_map(|pallet| pallet.storage.as_mut()) {
                storage.entries.retain(|entry| keep_entry(&entry.name));
            }
            all.apis.iter_mut().for_each(|api| api.methods.retain(|method| keep_method(&method.name)));
        }
        RuntimeMetadata::V16(all) => {
            rename(&mut all.types);
            for storage in all.pallets.iter_mut().filter_map(|pallet| pallet.storage.as_mut()) {
                storage.entries.retain(|entry| keep_entry(&entry.name));
            }
            all.apis.iter_mut().for_each(|api| api.methods.retain(|method| keep_method(&method.name)));
        }
        _ => return None,
    }
    Some(OpaqueMetadata::new(metadata.encode()))
}

fn rename(types: &mut PortableRegistry) {
    for each in &mut types.types {
        let path = &mut each.ty.path.segments;
        if let Some((from, to)) =
            PATHS.iter().find(|(from, _)| path.len() > from.len() && path.iter().zip(*from).all(|(a, b)| a == b))
        {
            let rest = path.split_off(from.len());
            *path = to.iter().map(|part| (*part).to_owned()).chain(rest).collect();
        }
    }
}
