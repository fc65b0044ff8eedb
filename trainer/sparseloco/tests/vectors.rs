//! Same bits on every machine: shards, refusals, outer steps and digests, pinned in tests/data/sparseloco_vectors.json.
//!
//! The vectors are made anew and compared with the file as a whole. A change that is meant is written with
//! `COVEY_REGENERATE=1 cargo test -p covey-sparseloco --test vectors`: another version of the codec, or another run.
//! tests/interop/decode_shard.py, which shares no code with us, must agree with the file.

mod common;
mod pinned;

use std::process::Command;

#[test]
fn everything_made_has_the_pinned_bits() {
    pinned::everything_made_is_as_pinned();
}

#[test]
fn a_decoder_in_another_language_agrees() {
    let script = pinned::root().join("tests/interop/decode_shard.py");
    let output = match Command::new("python3").arg(&script).output() {
        Ok(output) => output,
        Err(error) => return println!("skipped: python3 does not start ({error})"),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains(" 0 failed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
