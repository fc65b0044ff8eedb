//! Counts what a message lists before it is decoded: an entry that takes two bytes on the wire takes 32 or more in memory,
//! and a growing list is there twice.
//!
//! A walk over the message's own fields; what an entry is made of is for the decoder.

use crate::error::DecodeError;
use prost::encoding::{WireType, decode_key, decode_varint};

/// What a message may hold of one repeated field.
pub(crate) struct Entries {
    /// The field's name in `covey.proto`.
    pub name: &'static str,
    /// Its number.
    pub tag: u32,
    /// How many there may be.
    pub max: usize,
    /// Bytes of the shortest valid one, without its tag and length.
    pub bytes_min: usize,
}

impl Entries {
    /// Counts and measures them.
    ///
    /// # Errors
    /// Too many, or one too short to be valid; bytes that are no protobuf.
    pub(crate) fn check(&self, message: &[u8]) -> Result<(), DecodeError> {
        let Entries { name, tag, max, bytes_min } = *self;
        let mut count = 0;
        for field in fields(message) {
            let (number, content) = field?;
            if number != tag {
                continue;
            }
            count += 1;
            if count > max {
                return Err(DecodeError::Count { name, max });
            }
            if content.len() < bytes_min {
                return Err(DecodeError::Short { name, got: content.len(), min: bytes_min });
            }
        }
        Ok(())
    }
}

/// A message's own fields, in order: number, and content if it is length-delimited. Ends after the first error.
pub(crate) fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u32, &[u8]), DecodeError>> {
    let mut rest = Some(message);
    std::iter::from_fn(move || {
        let mut bytes = rest.take().filter(|rest| !rest.is_empty())?;
        let field = take_field(&mut bytes);
        rest = field.is_ok().then_some(bytes);
        Some(field)
    })
}

fn take_field<'a>(rest: &mut &'a [u8]) -> Result<(u32, &'a [u8]), DecodeError> {
    let protobuf = |error: prost::DecodeError| DecodeError::Protobuf(error.to_string());
    let (tag, form) = decode_key(rest).map_err(protobuf)?;
    let (length, is_content) = match form {
        WireType::Varint => {
            decode_varint(rest).map_err(protobuf)?;
            (0, false)
        }
        WireType::ThirtyTwoBit => (4, false),
        WireType::SixtyFourBit => (8, false),
        WireType::LengthDelimited => (decode_varint(rest).map_err(protobuf)?, true),
        // proto3 has none.
        WireType::StartGroup | WireType::EndGroup => return Err(DecodeError::NotCanonical),
    };
    let split = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (content, after) = split.ok_or_else(|| DecodeError::Protobuf(format!("field {tag} goes beyond the end")))?;
    *rest = after;
    Ok((tag, if is_content { content } else { &[] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: Entries = Entries { name: "listed", tag: 9, max: 3, bytes_min: 2 };

    #[test]
    fn entries_are_counted_and_measured_among_fields_of_every_form() {
        // Varint 1, 64 bits, 32 bits, another string, a tag of two bytes.
        let others = [[8, 0x96, 1].as_slice(), &[17; 9], &[29; 5], &[34, 1, 9], &[0x82, 1, 0]].concat();
        let listed = |count| [others.clone(), [74, 2, 7, 7].repeat(count)].concat();
        assert_eq!(LISTED.check(&listed(3)), Ok(()));
        assert_eq!(LISTED.check(&listed(4)), Err(DecodeError::Count { name: "listed", max: 3 }));
        let short = [listed(1), vec![74, 1, 7]].concat();
        assert_eq!(LISTED.check(&short), Err(DecodeError::Short { name: "listed", got: 1, min: 2 }));
        assert_eq!(fields(&others).map(|field| field.unwrap().0).collect::<Vec<_>>(), [1, 2, 3, 4, 16]);
    }

    #[test]
    fn what_is_no_message_ends_the_walk() {
        // A group, a length and a varint beyond the end, a fixed number that is cut, field 0, a length above any memory.
        let huge = [&[74], [0xff; 9].as_slice(), &[1]].concat();
        for bytes in [[11, 12].as_slice(), &[74, 3, 0, 0], &[8, 0x80], &[17, 0, 0], &[2, 0], &huge] {
            assert!(fields(bytes).last().is_some_and(|field| field.is_err()), "{bytes:?}");
            assert!(LISTED.check(bytes).is_err(), "{bytes:?}");
        }
    }
}
