//! A subnet with all its members and their commitments, by one request of the chain, and what of it a run goes by.

use super::runtime::{Misfit, Runtime};
use covey_proto::chain::{COMMITMENT_BYTES_MAX, ChainView, Member, Slot};
use covey_proto::{BlockNumber, Coldkey, Digest, Hotkey, Uid};
use std::collections::{BTreeMap, HashSet};
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

/// Slots of hotkeys that are no members any more which are read: a chain never clears them, and a round needs those of
/// members that left while it went on.
const DEPARTED_MAX: usize = 16_384;

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
    /// Blocks of an epoch, or one less: see [`super::Epochs`].
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
    let present: HashSet<Hotkey> = members.values().map(|member| member.hotkey).collect();
    let mut departed = 0;
    for (hotkey, bytes) in commitments {
        let hotkey = Hotkey::new(hotkey);
        if !present.contains(&hotkey) {
            departed += 1;
            if departed > DEPARTED_MAX {
                continue;
            }
        }
        // What is not one field of raw bytes is another protocol's, whatever it is.
        if let Ok(Some(slot)) = slot(runtime, registration, &bytes) {
            slots.insert(hotkey, slot);
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

#[cfg(test)]
mod tests {
    use super::super::needs::tests::finney;
    use super::*;
    use codec::{Compact, Encode};
    use std::sync::OnceLock;

    const BLOCK: BlockNumber = BlockNumber(4_711);

    /// A slot as the chain keeps it, with these fields.
    fn registration(fields: &[Vec<u8>]) -> Vec<Compact<u8>> {
        let fields = [Compact(fields.len() as u32).encode(), fields.concat()].concat();
        let bytes = [0_u64.encode(), 4_700_u32.encode(), fields].concat();
        bytes.into_iter().map(Compact).collect()
    }

    fn raw(bytes: &[u8]) -> Vec<u8> {
        [&[bytes.len() as u8 + 1], bytes].concat()
    }

    /// An answer by hand: the netuid, then 73 parts, of which those that were asked for are there.
    fn answer(members: u8, slots: &[([u8; 32], Vec<Compact<u8>>)]) -> Vec<u8> {
        let mut bytes = [vec![1], Compact(3_u16).encode()].concat();
        let each = |of: fn(u8) -> u64| (0..members).map(|uid| Compact(of(uid))).collect::<Vec<_>>();
        for number in 1..=73_u16 {
            bytes.extend(match number {
                7 => Some(Compact(u64::from(BLOCK.0))).encode(),
                52 => Some((0..members).map(|uid| [uid; 32]).collect::<Vec<_>>()).encode(),
                57 => Some((0..members).map(|uid| uid == 0).collect::<Vec<_>>()).encode(),
                66 => Some(each(|uid| 10 * u64::from(uid))).encode(),
                69 => Some(each(|uid| 5_000_000_000 * u64::from(uid))).encode(),
                73 => Some(slots.to_vec()).encode(),
                _ => vec![0],
            });
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Result<ChainView, MetagraphError> {
        static FINNEY: OnceLock<Runtime> = OnceLock::new();
        view(FINNEY.get_or_init(finney), 3, BLOCK, Digest::ZERO, bytes)
    }

    #[test]
    fn an_answer_is_read_as_the_real_chain_encodes_it() {
        let slots = [
            ([0; 32], registration(&[raw(&[0xc5; 114])])),
            ([1; 32], registration(&[raw(&[1; 5]), raw(&[2; 5])])),
            ([2; 32], registration(&[[vec![130], vec![7; 32]].concat()])),
            ([9; 32], registration(&[raw(b"of one who left")])),
        ];
        let view = read(&answer(3, &slots)).unwrap();
        let member = |uid: u8, permit| Member {
            uid: Uid::from(uid),
            hotkey: Hotkey::new([uid; 32]),
            registered_at: BlockNumber(10 * u32::from(uid)),
            permit,
            stake: 5_000_000_000 * u64::from(uid),
        };
        let members: Vec<Member> = view.members.into_values().collect();
        assert_eq!(members, [member(0, true), member(1, false), member(2, false)]);
        let slot = |bytes: &[u8]| Slot { block: BlockNumber(4_700), bytes: bytes.to_vec() };
        let slots: Vec<(Hotkey, Slot)> = view.slots.into_iter().collect();
        let expected = [(Hotkey::new([0; 32]), slot(&[0xc5; 114])), (Hotkey::new([9; 32]), slot(b"of one who left"))];
        assert_eq!(slots, expected, "two fields, or a hash, are another protocol's");
    }

    #[test]
    fn what_is_not_there_or_does_not_fit_is_named() {
        let said = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert_eq!(said(&[0]), "there is no subnet 3 at block 4711");
        let bare = [vec![1], Compact(3_u16).encode(), vec![0; 73]].concat();
        assert!(said(&bare).contains("part 7, \"block\""), "{}", said(&bare));
        let mut late = answer(1, &[]);
        let at = late.windows(2).position(|two| two == &Compact(4_711_u64).encode()[..2]).unwrap();
        late[at] ^= 4;
        assert!(said(&late).contains("asked for block 4711, the chain answered for 4710"), "{}", said(&late));
        assert!(said(&answer(3, &[])[..100]).contains("does not fit the chain's runtime 365"));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let whole = answer(3, &[([0; 32], registration(&[raw(&[0xc5; 46])]))]);
        let mut state = 1_u64;
        for round in 0..3_000 {
            let mut bytes = whole.clone();
            for _ in 0..1 + round % 4 {
                // Knuth's generator: a failure repeats itself.
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = (state >> 25) as u8;
            }
            // Read or refused.
            let _ = read(&bytes);
        }
    }
}
