//! `model_config` of `tests/src/fuzz/`, under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (covey_tests::fuzz::target("model_config").run)(data);
});
