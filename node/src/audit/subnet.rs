//! A swarm's chain once more: its blocks executed again from the genesis, and a subnet as a block's state has it. Read by
//! the runtime's own types, not by the client that the nodes had.

use codec::{Compact, DecodeAll, Encode};
use covey_devnet::Replayed;
use covey_devnet::chain::CallError;
use covey_devnet::pallets::commitments::{Data, Registration};
use covey_devnet::pallets::subtensor::info::SelectiveMetagraph;
use covey_proto::chain::{ChainView, Member, Slot};
use covey_proto::{BlockNumber, Digest, Hotkey, Uid};
use std::collections::BTreeMap;

/// The parts of a metagraph that a round goes by: hotkeys, permits, registrations, stakes, commitments.
const PARTS: [u16; 5] = [52, 57, 66, 69, 73];

/// The subnet at a block; none if there is no such subnet, or it has more members than there are uids.
///
/// # Errors
/// The runtime does not answer.
pub fn view(netuid: u16, number: u32, replayed: &Replayed) -> Result<Option<ChainView>, CallError> {
    let asked = (netuid, PARTS.to_vec()).encode();
    let graph: Option<SelectiveMetagraph> =
        replayed.state.ask("SubnetInfoRuntimeApi_get_selective_metagraph", &asked)?;
    let hash = Digest::new(replayed.block.hash.0);
    Ok(graph.and_then(|graph| of(graph, BlockNumber(number), hash)))
}

fn of(graph: SelectiveMetagraph, block: BlockNumber, hash: Digest) -> Option<ChainView> {
    let rows = graph.hotkeys?.into_iter().zip(graph.validator_permit?);
    let rows = rows.zip(graph.block_at_registration?).zip(graph.total_stake?);
    let mut members = BTreeMap::new();
    for (uid, (((hotkey, permit), Compact(since)), Compact(stake))) in (0_u32..).zip(rows) {
        let uid = Uid::new(uid)?;
        let (hotkey, registered_at) =
            (Hotkey::new(hotkey.into()), BlockNumber(u32::try_from(since).unwrap_or(u32::MAX)));
        members.insert(uid, Member { uid, hotkey, registered_at, permit, stake });
    }
    let slots = graph.commitments?.into_iter().filter_map(|(hotkey, bytes)| {
        let bytes: Vec<u8> = bytes.into_iter().map(|Compact(byte)| byte).collect();
        Some((Hotkey::new(hotkey.into()), slot(&bytes)?))
    });
    Some(ChainView { block, hash, slots: slots.collect(), members })
}

/// A slot's bytes, if they are one field of raw bytes.
fn slot(mut bytes: &[u8]) -> Option<Slot> {
    let Registration { block, info, .. } = Registration::decode_all(&mut bytes).ok()?;
    match &info.fields[..] {
        [Data::Raw(raw)] => Some(Slot { block: BlockNumber(block), bytes: raw.to_vec() }),
        _ => None,
    }
}
