//! Structured blobs have one form each, and what cannot be is refused by name.

use super::*;

fn digest_of(number: u8) -> Digest {
    Digest::of(&[number])
}

fn a_manifest() -> Manifest {
    Manifest {
        run: RunId(digest_of(1)),
        round: Round(300),
        uid: Uid::from(200),
        hotkey: Hotkey::new([9; 32]),
        registered_at: 77,
        base: digest_of(2),
        samples: 640,
        codec: 1,
        shards: vec![BlobRef::of(&[1; 300]), BlobRef::of(&[]), BlobRef::of(&[2; 5000])],
    }
}

fn header(selected: &[u8]) -> Header {
    Header {
        run: RunId(digest_of(1)),
        round: Round(7),
        parent: digest_of(2),
        hash_a: digest_of(3),
        hash_c: digest_of(4),
        hash_v: digest_of(5),
        selected: selected.iter().map(|uid| (Uid::from(*uid), digest_of(*uid))).collect(),
        state: digest_of(6),
    }
}

#[test]
fn each_has_one_form() {
    let manifest = a_manifest();
    assert_eq!(Manifest::from_bytes(&manifest.to_bytes()), Ok(manifest.clone()));
    let header = header(&[0, 3, 255]);
    assert_eq!(Header::from_bytes(&header.to_bytes()), Ok(header.clone()));
    for bytes in [manifest.to_bytes(), header.to_bytes()] {
        // A field that protobuf would take: number 31, a varint.
        let more = [&bytes[..], &[0xf8, 1, 1]].concat();
        let errors = [Manifest::from_bytes(&more).err(), Header::from_bytes(&more).err()];
        assert!(errors.contains(&Some(DecodeError::NotCanonical)), "{errors:?}");
    }
}

#[test]
fn a_kind_is_not_taken_for_another() {
    let bytes = a_manifest().to_bytes();
    assert_eq!(Header::from_bytes(&bytes), Err(DecodeError::Kind("CVYHDR01")));
    assert_eq!(Manifest::from_bytes(b"CVYMAN02"), Err(DecodeError::Kind("CVYMAN01")));
    let long = vec![0; HEADER_BYTES_MAX + 1];
    assert_eq!(Header::from_bytes(&long), Err(DecodeError::TooLarge { got: 16_385, max: 16_384 }));
}

#[test]
fn a_headers_uids_rise() {
    for selected in [&[3, 3][..], &[9, 3]] {
        assert_eq!(Header::from_bytes(&header(selected).to_bytes()), Err(DecodeError::Field("selected")));
    }
}

/// A state of ten elements in runs of four: 16, 16 and 8 bytes.
#[test]
fn a_state_is_cut_into_whole_runs_and_a_rest() {
    let of = |sizes: &[u64]| StateManifest {
        elements: 10,
        shards: sizes.iter().map(|size| BlobRef { root: digest_of(*size as u8), size: *size }).collect(),
    };
    let right = of(&[16, 16, 8]);
    assert_eq!(StateManifest::from_bytes(&right.to_bytes(), 10, 4), Ok(right.clone()));
    for sizes in [&[16, 8, 16][..], &[16, 16, 8, 0], &[16, 16, 9], &[40]] {
        let refused = StateManifest::from_bytes(&of(sizes).to_bytes(), 10, 4);
        assert_eq!(refused, Err(DecodeError::Field("shards")), "{sizes:?}");
    }
    for (sizes, elements) in [(&[16, 16][..], 10), (&[16, 16, 8], 11)] {
        assert!(StateManifest::from_bytes(&of(sizes).to_bytes(), elements, 4).is_err(), "{sizes:?} of {elements}");
    }
    // Nothing overflows, whatever a caller says.
    assert!(StateManifest::from_bytes(&right.to_bytes(), usize::MAX, usize::MAX).is_err());
}
