//! Bytes in their one form: protobuf that decodes to a message which encodes to the same bytes again, behind eight bytes of
//! kind and version where it is a blob of its own.
//!
//! Protobuf allows many encodings of a message (fields in any order, twice, with zeros spelled out). A name is the hash of
//! bytes, so a second encoding would be a second name of the same thing. What a message must hold beyond its form is for
//! the type that it becomes.

use crate::entries::Entries;
use crate::error::DecodeError;
use crate::{Digest, Hotkey, Uid};
use prost::Message;

/// Encodes `message` behind `kind`.
pub(crate) fn encode(kind: &[u8; 8], message: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + message.encoded_len());
    bytes.extend_from_slice(kind);
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes
}

/// Decodes what [`encode`] gives, and nothing else. `entries` is what it may list, if it can list more than a few.
pub(crate) fn decode<M: Message + Default>(
    kind: &'static [u8; 8],
    bytes: &[u8],
    max: usize,
    entries: Option<Entries>,
) -> Result<M, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLarge { got: bytes.len(), max });
    }
    let body = bytes
        .strip_prefix(kind.as_slice())
        .ok_or(DecodeError::Kind(std::str::from_utf8(kind).unwrap_or("its kind")))?;
    canonical(body, max, entries)
}

/// Decodes one message in its one form; `entries` as for [`decode`].
pub(crate) fn canonical<M: Message + Default>(
    bytes: &[u8],
    max: usize,
    entries: Option<Entries>,
) -> Result<M, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLarge { got: bytes.len(), max });
    }
    if let Some(entries) = entries {
        entries.check(bytes)?;
    }
    let message = M::decode(bytes).map_err(|error| DecodeError::Protobuf(error.to_string()))?;
    if message.encoded_len() == bytes.len() && message.encode_to_vec() == bytes {
        Ok(message)
    } else {
        Err(DecodeError::NotCanonical)
    }
}

/// The field `name`, which protobuf lets be absent.
pub(crate) fn need<T>(field: Option<T>, name: &'static str) -> Result<T, DecodeError> {
    field.ok_or(DecodeError::Field(name))
}
pub(crate) fn digest(bytes: &[u8], name: &'static str) -> Result<Digest, DecodeError> {
    Digest::from_slice(bytes).ok_or(DecodeError::Field(name))
}
pub(crate) fn flag(number: u32, name: &'static str) -> Result<bool, DecodeError> {
    match number {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Field(name)),
    }
}
pub(crate) fn uid(number: u32) -> Result<Uid, DecodeError> {
    Uid::new(number).ok_or(DecodeError::Field("uid"))
}
pub(crate) fn hotkey(bytes: &[u8]) -> Result<Hotkey, DecodeError> {
    Hotkey::from_slice(bytes).ok_or(DecodeError::Field("hotkey"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    const KIND: &[u8; 8] = b"CVYTST01";

    fn read(bytes: &[u8], max: usize) -> Result<wire::BlobRef, DecodeError> {
        decode(KIND, bytes, max, None)
    }

    #[test]
    fn what_is_read_is_what_was_written_and_nothing_else() {
        let message = wire::BlobRef { root: vec![7; 32], size: 300 };
        let bytes = encode(KIND, &message);
        assert_eq!(read(&bytes, 64), Ok(message));
        assert_eq!(read(&bytes, bytes.len() - 1), Err(DecodeError::TooLarge { got: 45, max: 44 }));
        assert_eq!(read(&[b"CVYTST02", &bytes[8..]].concat(), 64), Err(DecodeError::Kind("CVYTST01")));
        // The size twice; the size in a varint longer than it need be; a zero spelled out; fields in the other order.
        let (root, size) = (&bytes[8..42], &bytes[42..]);
        for other in [[root, size, size], [root, &[0x10, 0xac, 0x82], &[0]], [root, &[0x10, 0], &[]], [size, root, &[]]]
        {
            let other = [KIND.as_slice(), &other.concat()].concat();
            assert_eq!(read(&other, 64), Err(DecodeError::NotCanonical), "{other:?}");
        }
        assert!(matches!(read(&bytes[..44], 64), Err(DecodeError::Protobuf(_))));
    }

    #[test]
    fn a_field_that_is_missing_or_out_of_range_is_named() {
        assert_eq!(need(None::<u8>, "clock"), Err(DecodeError::Field("clock")));
        assert_eq!(digest(&[1; 31], "base"), Err(DecodeError::Field("base")));
        assert_eq!([0, 1, 2].map(|number| flag(number, "tied").ok()), [Some(false), Some(true), None]);
        assert_eq!([255, 256].map(|number| uid(number).ok()), [Some(Uid::from(255)), None]);
        assert_eq!(hotkey(&[1; 33]), Err(DecodeError::Field("hotkey")));
    }
}
