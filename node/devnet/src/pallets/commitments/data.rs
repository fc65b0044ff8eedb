//! What a commitment is made of: `Data`, an enum with one variant for each length of raw bytes, and its encoding.

use codec::{Decode, DecodeWithMemTracking, Encode, Error, Input, MaxEncodedLen, Output};
use frame_support::BoundedVec;
use frame_support::traits::ConstU32;
use scale_info::build::{Fields, Variants};
use scale_info::{Path, Type, TypeInfo};

/// Raw bytes of an ordinary field.
const RAW_MAX: u8 = 128;
/// Bytes of the large raw field.
const BIG_RAW_MAX: u32 = 512;
/// Bytes of an encrypted field.
const TIMELOCK_MAX: u32 = 1_024;

/// Fields of a commitment.
pub type MaxFields = ConstU32<3>;

/// One field of a commitment.
#[derive(Clone, Debug, PartialEq, Eq, DecodeWithMemTracking)]
pub enum Data {
    /// Nothing.
    None,
    /// At most 128 bytes: a variant of its own for each length.
    Raw(BoundedVec<u8, ConstU32<128>>),
    /// A digest; which of four functions is 0 (BLAKE2) to 3 (SHA3).
    Hash(u8, [u8; 32]),
    /// Bytes that open at a drand round.
    Timelock(BoundedVec<u8, ConstU32<TIMELOCK_MAX>>, u64),
    /// A flag of some validators.
    ResetBonds,
    /// At most 512 bytes.
    BigRaw(BoundedVec<u8, ConstU32<BIG_RAW_MAX>>),
}

impl Data {
    /// Bytes that count against an epoch's space: what is carried, without how it is told apart.
    pub fn space(&self) -> u64 {
        match self {
            Self::None | Self::ResetBonds => 0,
            Self::Raw(bytes) => bytes.len() as u64,
            Self::Hash(_, digest) => digest.len() as u64,
            Self::Timelock(bytes, _) => bytes.len() as u64,
            Self::BigRaw(bytes) => bytes.len() as u64,
        }
    }
}

impl Encode for Data {
    fn encode_to<W: Output + ?Sized>(&self, to: &mut W) {
        match self {
            Self::None => to.push_byte(0),
            Self::Raw(bytes) => {
                to.push_byte((bytes.len() as u8).saturating_add(1));
                to.write(bytes);
            }
            Self::Hash(function, digest) => {
                to.push_byte(RAW_MAX + 2 + (*function).min(3));
                to.write(digest);
            }
            Self::Timelock(bytes, round) => {
                to.push_byte(RAW_MAX + 6);
                bytes.encode_to(to);
                round.encode_to(to);
            }
            Self::ResetBonds => to.push_byte(RAW_MAX + 7),
            Self::BigRaw(bytes) => {
                to.push_byte(RAW_MAX + 8);
                bytes.encode_to(to);
            }
        }
    }
}

impl Decode for Data {
    fn decode<I: Input>(input: &mut I) -> Result<Self, Error> {
        Ok(match input.read_byte()? {
            0 => Self::None,
            n @ 1..=129 => {
                let mut bytes = vec![0; usize::from(n - 1)];
                input.read(&mut bytes)?;
                Self::Raw(BoundedVec::truncate_from(bytes))
            }
            n @ 130..=133 => Self::Hash(n - 130, <[u8; 32]>::decode(input)?),
            134 => Self::Timelock(Decode::decode(input)?, u64::decode(input)?),
            135 => Self::ResetBonds,
            136 => Self::BigRaw(Decode::decode(input)?),
            _ => return Err("Data: no such variant".into()),
        })
    }
}

impl MaxEncodedLen for Data {
    fn max_encoded_len() -> usize {
        TIMELOCK_MAX as usize + 16
    }
}

/// The length's own type: scale-info knows arrays by type, so each length needs one.
macro_rules! raw_variants {
    ($variants:ident: $($n:literal)*) => {
        $(let $variants = $variants.variant(concat!("Raw", $n), |v| {
            v.index($n + 1).fields(Fields::unnamed().field(|f| f.ty::<[u8; $n]>()))
        });)*
    };
}

impl TypeInfo for Data {
    type Identity = Self;

    fn type_info() -> Type {
        let v = Variants::new().variant("None", |v| v.index(0));
        // An empty array has no variant's worth of type; the real chain's Raw0 has no field either.
        let v = v.variant("Raw0", |v| v.index(1).fields(Fields::unnamed().field(|f| f.ty::<[u8; 0]>())));
        raw_variants!(v: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34
            35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70
            71 72 73 74 75 76 77 78 79 80 81 82 83 84 85 86 87 88 89 90 91 92 93 94 95 96 97 98 99 100 101 102 103 104
            105 106 107 108 109 110 111 112 113 114 115 116 117 118 119 120 121 122 123 124 125 126 127 128);
        let mut v = v;
        for (index, name) in (130..).zip(["BlakeTwo256", "Sha256", "Keccak256", "ShaThree256"]) {
            v = v.variant(name, |v| v.index(index).fields(Fields::unnamed().field(|f| f.ty::<[u8; 32]>())));
        }
        let timelock = || {
            Fields::named()
                .field(|f| f.name("encrypted").ty::<BoundedVec<u8, ConstU32<TIMELOCK_MAX>>>())
                .field(|f| f.name("reveal_round").ty::<u64>())
        };
        let big = || Fields::unnamed().field(|f| f.ty::<BoundedVec<u8, ConstU32<BIG_RAW_MAX>>>());
        let v = v
            .variant("TimelockEncrypted", |v| v.index(134).fields(timelock()))
            .variant("ResetBondsFlag", |v| v.index(135))
            .variant("BigRaw", |v| v.index(136).fields(big()));
        Type::builder().path(Path::new("Data", module_path!())).variant(v)
    }
}

/// A commitment's fields.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct CommitmentInfo {
    /// At most three.
    pub fields: BoundedVec<Data, MaxFields>,
}

/// A commitment in its slot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct Registration {
    /// Rao held for it; nothing.
    pub deposit: u64,
    /// The block that it was made in.
    pub block: u32,
    /// What was committed.
    pub info: CommitmentInfo,
}

/// What a hotkey has used of an epoch's space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct UsageTracker {
    /// The epoch that is counted.
    pub last_epoch: u64,
    /// Bytes used in it.
    pub used_space: u64,
}
