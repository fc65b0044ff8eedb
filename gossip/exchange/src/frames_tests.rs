//! Frames there and back, and the bytes that are none.

use super::*;
use covey_proto::pieces::{LARGE_BYTES, PIECED_BLOB_BYTES_MAX};
use proptest::prelude::*;

fn bytes_of(frame: &impl Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

/// A frame of this kind and body.
fn raw(kind: u8, body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 1).to_le_bytes(), &[kind][..], body].concat()
}

/// There and back, from any number of bytes; whatever follows is left.
fn travels<F: Frame + PartialEq + std::fmt::Debug + Clone>(frame: &F) {
    let mut bytes = bytes_of(frame);
    let length = bytes.len();
    bytes.extend_from_slice(b"what follows");
    assert_eq!(split(&bytes), Ok(Split::Frame(frame.clone(), length)));
    let mut have = 0;
    while let Ok(Split::Need(need)) = split::<F>(&bytes[..have]) {
        assert!(need > have && need <= length && need <= CONTROL_BYTES_MAX);
        have = need;
    }
    assert_eq!(have, length, "the last need is the whole");
}

fn a_root() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::new)
}

fn a_blob() -> impl Strategy<Value = BlobRef> {
    let size = prop_oneof![0..=PIECED_BLOB_BYTES_MAX, 0..200u64 << 20, LARGE_BYTES - 2..LARGE_BYTES + 2];
    (a_root(), size).prop_map(|(root, size)| BlobRef { root, size })
}

fn asked() -> impl Strategy<Value = Asked> {
    (any::<u32>(), a_blob(), any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(id, blob, piece, first, count)| {
        let pieces = Pieces::of_blob(&blob).unwrap();
        let groups = pieces.groups_of(piece % pieces.count());
        let first = groups.start + first % (groups.end - groups.start);
        let count = 1 + count % (groups.end - first);
        Asked::new(id, blob, first, count as u16).unwrap()
    })
}

fn runs() -> impl Strategy<Value = Vec<Range<u32>>> {
    prop::collection::vec((1u32..50, 1u32..50), 1..20).prop_map(|steps| {
        let mut end = 0;
        steps
            .into_iter()
            .map(|(gap, count)| {
                let first = end + gap;
                end = first + count;
                first..end
            })
            .collect()
    })
}

fn tried<F: Frame + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    match split::<F>(bytes) {
        // One frame has one encoding.
        Ok(Split::Frame(frame, used)) => assert_eq!(bytes_of(&frame), bytes[..used]),
        Ok(Split::Need(need)) => assert!(need > bytes.len() && need <= CONTROL_BYTES_MAX),
        Err(_) => {}
    }
}

proptest! {
    #[test]
    fn every_frame_travels(
        blob in a_blob(), id in any::<u32>(), asked in asked(), runs in runs(),
        set in prop::collection::vec(any::<u8>(), 1..400), bytes in 0..ANSWER_BYTES_MAX, which in 0usize..4,
    ) {
        travels(&Wish::Want(blob));
        travels(&Wish::Unwant(blob.root));
        travels(&Holding::Bitfield { root: blob.root, set });
        travels(&Holding::Have { root: blob.root, runs });
        Class::ALL.into_iter().for_each(|class| travels(&Order::Hello(class)));
        prop_assert!(asked.answer_bytes() <= ANSWER_BYTES_MAX);
        travels(&Order::Request(asked));
        travels(&Order::Cancel(id));
        travels(&Answer::Piece { id, bytes });
        travels(&Answer::Reject { id, why: Reject::ALL[which] });
    }

    #[test]
    fn any_bytes_are_a_frame_of_those_bytes_or_none(
        kind in prop_oneof![0u8..6, 0x0fu8..0x16, any::<u8>()],
        body in prop::collection::vec(prop_oneof![Just(0u8), Just(1u8), any::<u8>()], 0..80),
        length in prop::option::of(any::<u32>()),
    ) {
        let mut bytes = raw(kind, &body);
        if let Some(length) = length {
            bytes[..4].copy_from_slice(&length.to_le_bytes());
        }
        tried::<Wish>(&bytes);
        tried::<Holding>(&bytes);
        tried::<Order>(&bytes);
        tried::<Answer>(&bytes);
    }
}

#[test]
fn a_length_above_the_limit_is_refused_before_its_bytes_come() {
    let oversized = |kind: u8| [&u32::MAX.to_le_bytes()[..], &[kind]].concat();
    assert!(matches!(split::<Holding>(&oversized(BITFIELD)), Err(FrameError::Length { kind: "BITFIELD", .. })));
    assert!(matches!(split::<Holding>(&oversized(HAVE)), Err(FrameError::Length { kind: "HAVE", .. })));
    assert!(matches!(split::<Answer>(&oversized(PIECE)), Err(FrameError::Length { kind: "PIECE", .. })));
    assert!(matches!(split::<Order>(&oversized(REQUEST)), Err(FrameError::Length { kind: "REQUEST", .. })));
    assert_eq!(split::<Order>(&[0, 0, 0, 0, HELLO]), Err(FrameError::Empty));
}

#[test]
fn a_frame_of_the_other_side_may_not_come() {
    let root = Digest::of(b"a blob");
    let want = bytes_of(&Wish::Want(BlobRef { root, size: 9 }));
    assert_eq!(split::<Holding>(&want), Err(FrameError::Kind(WANT)));
    assert_eq!(split::<Order>(&bytes_of(&Answer::Piece { id: 1, bytes: 1 })), Err(FrameError::Kind(PIECE)));
    assert_eq!(split::<Answer>(&raw(0x77, &[])), Err(FrameError::Kind(0x77)));
}

#[test]
fn requests_stay_within_one_piece() {
    let blob = BlobRef { root: Digest::of(b"a blob"), size: (3 << 20) + 5 };
    for (first, count, may) in [
        (0, 16, true),
        (15, 1, true),
        (15, 2, false),
        (48, 1, true),
        (48, 2, false),
        (0, 0, false),
        (u64::MAX, 9, false),
    ] {
        assert_eq!(Asked::new(1, blob, first, count).is_ok(), may, "{count} from {first}");
    }
    let huge = BlobRef { size: PIECED_BLOB_BYTES_MAX + 1, ..blob };
    assert_eq!(Asked::new(1, huge, 0, 1), Err(FrameError::Size(huge.size)));
    assert_eq!(split::<Wish>(&bytes_of(&Wish::Want(huge))), Err(FrameError::Size(huge.size)));
}

#[test]
fn runs_rise_lie_apart_and_are_not_empty() {
    let have = |runs: &[(u32, u32)]| {
        let mut body = vec![7; 32];
        runs.iter().for_each(|(first, count)| body.extend([first.to_le_bytes(), count.to_le_bytes()].concat()));
        split::<Holding>(&raw(HAVE, &body)).map(|_| ())
    };
    assert_eq!(have(&[(0, 2), (3, 1)]), Ok(()));
    for runs in [&[(0, 0)][..], &[(0, 2), (2, 1)], &[(5, 1), (3, 1)], &[(u32::MAX, 1)], &[(0, 1 << 20)]] {
        assert!(matches!(have(runs), Err(FrameError::Run { .. })), "{runs:?}");
    }
    assert!(matches!(split::<Holding>(&raw(HAVE, &[0; 44])), Err(FrameError::Length { .. })));
}

#[test]
fn hello_and_reject_name_what_they_do_not_know() {
    assert_eq!(split::<Order>(&raw(HELLO, &[2, 0])), Err(FrameError::Version(2)));
    assert_eq!(split::<Order>(&raw(HELLO, &[1, 3])), Err(FrameError::Class(3)));
    assert_eq!(split::<Answer>(&raw(REJECT, &[0, 0, 0, 0, 5])), Err(FrameError::Code(5)));
}

/// What the protocol's description shows.
#[test]
fn the_bytes_are_those_of_the_description() {
    let blob = BlobRef { root: Digest::new([0xab; 32]), size: 0x0102 };
    let asked = Asked::new(7, blob, 0, 1).unwrap();
    let bytes = bytes_of(&Order::Request(asked));
    let root = "ab".repeat(32);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, format!("3700000011{}{root}{}{}{}", "07000000", "0201000000000000", "0000000000000000", "0100"));
}
