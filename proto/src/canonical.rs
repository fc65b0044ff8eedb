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
