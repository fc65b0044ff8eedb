//! GGUF's metadata: named values, encoded as version 3 of the format has them (little-endian).
//!
//! Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
}

impl Value {
    /// The format's number of its type.
    fn kind(&self) -> u32 {
        match self {
            Value::U32(_) => 4,
            Value::F32(_) => 6,
            Value::Bool(_) => 7,
            Value::Text(_) => TEXT,
            Value::Texts(_) | Value::I32s(_) => ARRAY,
        }
    }

    fn append(&self, to: &mut Vec<u8>) {
        match self {
            Value::U32(value) => to.extend(value.to_le_bytes()),
            Value::F32(value) => to.extend(value.to_le_bytes()),
            Value::Bool(value) => to.push((*value).into()),
            Value::Text(text) => append_text(text, to),
            Value::Texts(texts) => {
                append_array_head(TEXT, texts.len(), to);
                texts.iter().for_each(|text| append_text(text, to));
            }
            Value::I32s(values) => {
                append_array_head(I32, values.len(), to);
                to.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
        }
    }
}

const I32: u32 = 5;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

fn append_array_head(kind: u32, length: usize, to: &mut Vec<u8>) {
    to.extend(kind.to_le_bytes());
    to.extend((length as u64).to_le_bytes());
}

/// Appends a text with its length.
pub(super) fn append_text(text: &str, to: &mut Vec<u8>) {
    to.extend((text.len() as u64).to_le_bytes());
    to.extend(text.as_bytes());
}

/// Appends a value with its name.
pub(super) fn append_named(name: &str, value: &Value, to: &mut Vec<u8>) {
    append_text(name, to);
    to.extend(value.kind().to_le_bytes());
    value.append(to);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_a_name_a_kind_and_their_bytes() {
        let bytes = |value: Value| {
            let mut bytes = Vec::new();
            append_named("n", &value, &mut bytes);
            assert_eq!(&bytes[..9], [1, 0, 0, 0, 0, 0, 0, 0, b'n']);
            bytes.split_off(9)
        };
        assert_eq!(bytes(Value::U32(258)), [4, 0, 0, 0, 2, 1, 0, 0]);
        assert_eq!(bytes(Value::F32(1.0)), [6, 0, 0, 0, 0, 0, 0x80, 0x3f]);
        assert_eq!(bytes(Value::Bool(true)), [7, 0, 0, 0, 1]);
        assert_eq!(bytes(Value::Text("é".into())), [8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0xc3, 0xa9]);
        let array = [9, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(bytes(Value::I32s(vec![-1])), array);
        let texts = [9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'a'];
        assert_eq!(bytes(Value::Texts(vec!["a".into()])), texts);
    }
}
