//! `safetensors` of `tests/src/fuzz/`, under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (covey_tests::fuzz::target("safetensors").run)(data);
});
