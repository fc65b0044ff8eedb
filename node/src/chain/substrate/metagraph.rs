//! A subnet with all its members and their commitments, by one request of the chain, and what of it a run goes by.

use super::runtime::{Misfit, Runtime};
use covey_proto::chain::{COMMITMENT_BYTES_MAX, ChainView, Member, Slot};
use covey_proto::{BlockNumber, Coldkey, Digest, Hotkey, Uid};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use subxt::ext::scale_decode::ext::scale_type_resolver::TypeResolver;
use subxt::ext::scale_decode::visitor::types::{Composite, Variant};
use subxt::ext::scale_decode::visitor::{TypeIdFor, Unexpected};
use subxt::ext::scale_decode::{self, DecodeAsType, IntoVisitor, Visitor};

/// The runtime API, and its method.
pub(super) const API: &str = "SubnetInfoRuntimeApi";
/// See [`API`].
pub(super) const METHOD: &str = "get_selective_metagraph";

/// The parts that are asked for, by their numbers and by the names that the answer must have for them. Nine kilobytes
/// for 256 members without commitments.
pub(super) const PARTS: [(u16, &str); 6] = [
    (7, "block"),
    (52, "hotkeys"),
    (57, "validator_permit"),
    (66, "block_at_registration"),
    (69, "total_stake"),
    (73, "commitments"),
];

/// More of a member than a round needs: for who looks.
pub(super) const MORE: [(u16, &str); 5] =
    [(8, "tempo"), (53, "coldkeys"), (55, "axons"), (59, "last_update"), (62, "incentives")];

/// Why what the chain says of a subnet cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum MetagraphError {
    /// There is no such subnet.
    #[error("there is no subnet {netuid} at block {block}")]
    NoSubnet { netuid: u16, block: BlockNumber },
    /// A part is not there.
    #[error(
        "the chain's metagraph lacks part {number}, {name:?}: this runtime numbers its parts otherwise; update Covey"
    )]
    Missing { number: u16, name: &'static str },
    /// Lists by uid of different lengths.
    #[error("the metagraph lists {got} of {name:?} for {members} members")]
    Lengths { name: &'static str, got: usize, members: usize },
    /// A subnet of more uids than there are.
    #[error("subnet {netuid} has {members} members; a run has at most 256")]
    TooMany { netuid: u16, members: usize },
    /// The state of another block.
    #[error("asked for block {asked}, the chain answered for {got}")]
    OtherBlock { asked: BlockNumber, got: u64 },
    /// It does not decode.
    #[error(transparent)]
    Misfit(#[from] Misfit),
}

#[derive(DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct Answer {
    block: Option<u64>,
    tempo: Option<u16>,
    hotkeys: Option<Vec<[u8; 32]>>,
    validator_permit: Option<Vec<bool>>,
    block_at_registration: Option<Vec<u64>>,
    total_stake: Option<Vec<u64>>,
    commitments: Option<Vec<([u8; 32], Vec<u8>)>>,
    coldkeys: Option<Vec<[u8; 32]>>,
    axons: Option<Vec<Axon>>,
    last_update: Option<Vec<u64>>,
    incentives: Option<Vec<u16>>,
}

#[derive(DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct Axon {
    ip: u128,
    port: u16,
    ip_type: u8,
}

impl Axon {
    fn address(&self) -> Option<SocketAddr> {
        let ip = match self.ip_type {
            4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(self.ip).ok()?)),
            6 => IpAddr::V6(Ipv6Addr::from(self.ip)),
            _ => return None,
        };
        (self.port != 0 && !ip.is_unspecified()).then(|| SocketAddr::new(ip, self.port))
    }
}

/// A member as whoever looks at a subnet sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neuron {
    /// What a run goes by.
    pub member: Member,
    /// Its owner.
    pub coldkey: Coldkey,
    /// The block of its last weights or commit to weights; 0 for never.
    pub last_update: u64,
    /// Its share of what miners earn; of `u16::MAX`.
    pub incentive: u16,
    /// Where it says it is reached.
    pub axon: Option<SocketAddr>,
}

/// A subnet at a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metagraph {
    /// The block.
    pub block: BlockNumber,
    /// Its hash.
    pub hash: Digest,
    /// Blocks of an epoch, or one less: see [`super::epoch`].
    pub tempo: u16,
    /// The members.
    pub neurons: BTreeMap<Uid, Neuron>,
}

fn part<T>(of: Option<T>, name: &'static str) -> Result<T, MetagraphError> {
    let number = PARTS.iter().chain(&MORE).find(|part| part.1 == name).map_or(0, |part| part.0);
    of.ok_or(MetagraphError::Missing { number, name })
}

fn by_uid<T>(of: Option<Vec<T>>, name: &'static str, members: usize) -> Result<Vec<T>, MetagraphError> {
    let all = part(of, name)?;
    if all.len() != members {
        return Err(MetagraphError::Lengths { name, got: all.len(), members });
    }
    Ok(all)
}

fn decode(runtime: &Runtime, netuid: u16, at: BlockNumber, bytes: &[u8]) -> Result<Answer, MetagraphError> {
    let answer: Option<Answer> = runtime.answer(API, METHOD, bytes)?;
    let answer = answer.ok_or(MetagraphError::NoSubnet { netuid, block: at })?;
    match answer.block {
        Some(block) if block == u64::from(at.0) => Ok(answer),
        Some(got) => Err(MetagraphError::OtherBlock { asked: at, got }),
        None => Err(MetagraphError::Missing { number: 7, name: "block" }),
    }
}

fn members(answer: &mut Answer, netuid: u16) -> Result<BTreeMap<Uid, Member>, MetagraphError> {
    let hotkeys = part(answer.hotkeys.take(), "hotkeys")?;
    let n = hotkeys.len();
    let permits = by_uid(answer.validator_permit.take(), "validator_permit", n)?;
    let since = by_uid(answer.block_at_registration.take(), "block_at_registration", n)?;
    let stakes = by_uid(answer.total_stake.take(), "total_stake", n)?;
    let mut members = BTreeMap::new();
    let rows = hotkeys.into_iter().zip(permits).zip(since).zip(stakes);
    for (uid, (((hotkey, permit), since), stake)) in (0_u32..).zip(rows) {
        let uid = Uid::new(uid).ok_or(MetagraphError::TooMany { netuid, members: n })?;
        let registered_at = BlockNumber(u32::try_from(since).unwrap_or(u32::MAX));
        members.insert(uid, Member { uid, hotkey: Hotkey::new(hotkey), registered_at, permit, stake });
    }
    Ok(members)
}

/// What a run goes by, of an answer to a request for [`PARTS`].
pub(super) fn view(
    runtime: &Runtime,
    netuid: u16,
    block: BlockNumber,
    hash: Digest,
    bytes: &[u8],
) -> Result<ChainView, MetagraphError> {
    let mut answer = decode(runtime, netuid, block, bytes)?;
    let members = members(&mut answer, netuid)?;
    let commitments = part(answer.commitments, "commitments")?;
    let registration = runtime.value_type("Commitments", "CommitmentOf")?;
    let mut slots = BTreeMap::new();
    // Members have one slot each; more would be a fault of the chain.
    for (hotkey, bytes) in commitments.into_iter().take(members.len()) {
        // What is not one field of raw bytes is another protocol's, whatever it is.
        if let Ok(slot) = slot(runtime, registration, &bytes) {
            slots.extend(slot.map(|slot| (Hotkey::new(hotkey), slot)));
        }
    }
    Ok(ChainView { block, hash, members, slots })
}

/// Everything, of an answer to a request for [`PARTS`] and [`MORE`].
pub(super) fn metagraph(
    runtime: &Runtime,
    netuid: u16,
    block: BlockNumber,
    hash: Digest,
    bytes: &[u8],
) -> Result<Metagraph, MetagraphError> {
    let mut answer = decode(runtime, netuid, block, bytes)?;
    let members = members(&mut answer, netuid)?;
    let n = members.len();
    let coldkeys = by_uid(answer.coldkeys, "coldkeys", n)?;
    let axons = by_uid(answer.axons, "axons", n)?;
    let updates = by_uid(answer.last_update, "last_update", n)?;
    let incentives = by_uid(answer.incentives, "incentives", n)?;
    let rows = members.into_values().zip(coldkeys).zip(axons).zip(updates).zip(incentives);
    let neurons = rows.map(|((((member, coldkey), axon), last_update), incentive)| {
        let coldkey = Coldkey::new(coldkey);
        (member.uid, Neuron { member, coldkey, last_update, incentive, axon: axon.address() })
    });
    Ok(Metagraph { block, hash, tempo: part(answer.tempo, "tempo")?, neurons: neurons.collect() })
}

#[derive(DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct Registration {
    block: u32,
    info: Info,
}

#[derive(DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct Info {
    fields: Vec<Field>,
}

/// A field of a commitment.
enum Field {
    /// Bytes as they are.
    Raw(Vec<u8>),
    /// Anything else.
    Other,
}

/// A slot's bytes, if they are one field of raw bytes.
fn slot(runtime: &Runtime, id: u32, mut bytes: &[u8]) -> Result<Option<Slot>, scale_decode::Error> {
    let Registration { block, info } = runtime.decode(&mut bytes, id)?;
    Ok(match <[Field; 1]>::try_from(info.fields) {
        Ok([Field::Raw(bytes)]) if bytes.len() <= COMMITMENT_BYTES_MAX => {
            Some(Slot { block: BlockNumber(block), bytes })
        }
        _ => None,
    })
}

struct FieldVisitor<R>(std::marker::PhantomData<R>);

impl IntoVisitor for Field {
    type AnyVisitor<R: TypeResolver> = FieldVisitor<R>;
    fn into_visitor<R: TypeResolver>() -> FieldVisitor<R> {
        FieldVisitor(std::marker::PhantomData)
    }
}

impl<R: TypeResolver> Visitor for FieldVisitor<R> {
    type Value<'scale, 'resolver> = Field;
    type Error = scale_decode::Error;
    type TypeResolver = R;

    fn visit_variant<'scale, 'resolver>(
        self,
        value: &mut Variant<'scale, 'resolver, R>,
        _: TypeIdFor<Self>,
    ) -> Result<Self::Value<'scale, 'resolver>, scale_decode::Error> {
        let length = value.name().strip_prefix("Raw").and_then(|length| length.parse::<usize>().ok());
        let Some(length) = length else { return Ok(Field::Other) };
        match value.fields().decode_item(Vec::<u8>::into_visitor()) {
            Some(bytes) => Ok(Field::Raw(bytes?)),
            None if length == 0 => Ok(Field::Raw(Vec::new())),
            None => Ok(Field::Other),
        }
    }

    fn visit_composite<'scale, 'resolver>(
        self,
        value: &mut Composite<'scale, 'resolver, R>,
        _: TypeIdFor<Self>,
    ) -> Result<Self::Value<'scale, 'resolver>, scale_decode::Error> {
        // A newtype around the enum, should there ever be one.
        match value.decode_item(self) {
            Some(field) if value.remaining() == 0 => field,
            _ => Ok(Field::Other),
        }
    }

    fn visit_unexpected<'scale, 'resolver>(
        self,
        _: Unexpected,
    ) -> Result<Self::Value<'scale, 'resolver>, scale_decode::Error> {
        Ok(Field::Other)
    }
}
