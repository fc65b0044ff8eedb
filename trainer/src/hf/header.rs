//! The head of a safetensors file: where each tensor lies. Read and checked without the tensors, whose bytes may be many.
//!
//! A file is eight bytes (the head's length, little-endian), the head (JSON), the tensors one after the other without gaps.
//! What must be in it is decided by whoever reads the tensors.

use super::fault::WeightsFault;
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use std::collections::BTreeMap;
use std::io::Read;

/// Bytes of the head's length.
const LENGTH_BYTES: u64 = 8;

/// A tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its numbers.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Where in the file it begins, in bytes.
    pub start: u64,
    /// Its bytes: as many as its shape and numbers need.
    pub bytes: u64,
}

/// Reads the head of a file of `file_bytes` bytes from its beginning. No more than `head_bytes_max` bytes are read, however
/// long the head says it is.
///
/// # Errors
/// No safetensors, a head that is too long, tensors that overlap, leave gaps, or are not as long as their shapes say; a
/// file that is shorter or longer than its head says.
pub fn read_head(
    from: &mut dyn Read,
    file_bytes: u64,
    head_bytes_max: u64,
) -> Result<BTreeMap<String, Entry>, WeightsFault> {
    let cut = |error: std::io::Error| WeightsFault::File(error.to_string());
    let mut length = [0; LENGTH_BYTES as usize];
    from.read_exact(&mut length).map_err(cut)?;
    let length = u64::from_le_bytes(length);
    if length > head_bytes_max {
        return Err(WeightsFault::Head { got: length, max: head_bytes_max });
    }
    let mut head = Vec::new();
    from.take(length).read_to_end(&mut head).map_err(cut)?;
    if head.len() as u64 != length {
        return Err(WeightsFault::File(format!("its head has {} of {length} bytes", head.len())));
    }
    // Checks that tensors follow one another and have their shapes' bytes.
    let metadata: Metadata =
        serde_json::from_slice(&head).map_err(|error| WeightsFault::File(format!("its head: {error}")))?;
    let data_start = LENGTH_BYTES + length;
    let needed = data_start.checked_add(metadata.data_len() as u64);
    if needed != Some(file_bytes) {
        let needed = needed.unwrap_or(u64::MAX);
        return Err(WeightsFault::File(format!("{file_bytes} bytes; its head speaks of {needed}")));
    }
    let entry = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let (start, end) = info.data_offsets;
        let start = data_start + start as u64;
        (name, Entry { dtype: info.dtype, shape: info.shape.clone(), start, bytes: data_start + end as u64 - start })
    };
    Ok(metadata.tensors().into_iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(head: &str, data: usize) -> Vec<u8> {
        [&(head.len() as u64).to_le_bytes(), head.as_bytes(), &vec![0; data]].concat()
    }

    fn read(bytes: &[u8]) -> Result<BTreeMap<String, Entry>, WeightsFault> {
        read_head(&mut &*bytes, bytes.len() as u64, 1000)
    }

    #[test]
    fn tensors_are_where_the_head_says() {
        let head = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]},"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}"#;
        let found = read(&file(head, 14)).unwrap();
        let start = 8 + head.len() as u64;
        assert_eq!(found["a"], Entry { dtype: Dtype::F32, shape: vec![1, 2], start, bytes: 8 });
        assert_eq!(found["b"], Entry { dtype: Dtype::BF16, shape: vec![3], start: start + 8, bytes: 6 });
    }

    #[test]
    fn heads_that_cannot_be_are_refused() {
        let head = |a: &str| format!(r#"{{"a":{a}}}"#);
        let whole = head(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#);
        assert!(read(&file(&whole, 8)).is_ok());
        let refused = |bytes: &[u8], word: &str| {
            let fault = read(bytes).unwrap_err().to_string();
            assert!(fault.contains(word), "{fault}");
        };
        refused(&file(&whole, 7), "its head speaks of");
        refused(&file(&whole, 9), "its head speaks of");
        refused(&file(&whole, 8)[..20], "its head has 12 of");
        refused(b"1234567", "cut short");
        refused(&u64::MAX.to_le_bytes(), "the limit is 1000");
        refused(&file("[]", 0), "its head");
        for broken in [
            r#"{"dtype":"F32","shape":[3],"data_offsets":[0,8]}"#,
            r#"{"dtype":"F32","shape":[2],"data_offsets":[4,12]}"#,
            r#"{"dtype":"F32","shape":[2],"data_offsets":[8,0]}"#,
            r#"{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}"#,
            r#"{"dtype":"F7","shape":[2],"data_offsets":[0,8]}"#,
            r#"{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}"#,
        ] {
            refused(&file(&head(broken), 8), "its head");
        }
    }
}
