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

#[cfg(test)]
mod tests {
    use super::*;
    use codec::Decode;
    use covey_devnet::AccountId32;

    /// A registration of these fields, each raw bytes: deposit, block 7, their number, each with its length and one.
    fn registration(fields: &[&[u8]]) -> Vec<u8> {
        let mut bytes = [&0_u64.to_le_bytes()[..], &7_u32.to_le_bytes(), &[fields.len() as u8 * 4]].concat();
        for field in fields {
            bytes.push(field.len() as u8 + 1);
            bytes.extend_from_slice(field);
        }
        bytes
    }

    #[test]
    fn only_one_field_of_raw_bytes_is_a_slot() {
        let found = slot(&registration(&[b"record"])).unwrap();
        assert_eq!((found.block, &found.bytes[..]), (BlockNumber(7), &b"record"[..]));
        assert!(slot(&registration(&[])).is_none() && slot(&registration(&[b"a", b"b"])).is_none());
        let mut longer = registration(&[b"record"]);
        longer.push(0);
        assert!(slot(&longer).is_none() && slot(b"").is_none(), "what does not decode whole");
    }

    #[test]
    fn a_metagraph_becomes_members_by_uid_and_slots_by_hotkey() {
        // Nothing was asked for: a netuid, and a zero for each part.
        let mut graph = SelectiveMetagraph::decode(&mut &[0_u8; 256][..]).unwrap();
        assert!(of(graph.clone(), BlockNumber(1), Digest::ZERO).is_none(), "a subnet that is not there has no parts");
        let account = |number: u8| AccountId32::new([number; 32]);
        let bytes = |bytes: Vec<u8>| bytes.into_iter().map(Compact).collect();
        graph.hotkeys = Some(vec![account(1), account(2)]);
        graph.validator_permit = Some(vec![false, true]);
        graph.block_at_registration = Some(vec![Compact(5), Compact(u64::MAX)]);
        graph.total_stake = Some(vec![Compact(0), Compact(9)]);
        graph.commitments = Some(vec![(account(3), bytes(registration(&[b"x"]))), (account(2), bytes(b"?".to_vec()))]);
        let view = of(graph, BlockNumber(8), Digest::of(b"hash")).unwrap();
        let second = &view.members[&Uid::from(1)];
        assert_eq!((second.hotkey, second.permit, second.stake), (Hotkey::new([2; 32]), true, 9));
        assert_eq!(second.registered_at, BlockNumber(u32::MAX), "a number that no block has");
        // Of who has left, too: chains never clear them. What is none of ours is no slot.
        assert_eq!(view.slots.keys().collect::<Vec<_>>(), [&Hotkey::new([3; 32])]);
    }
}
