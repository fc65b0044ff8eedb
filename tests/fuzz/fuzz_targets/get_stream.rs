//! `get_stream` of `tests/src/fuzz/`, under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (covey_tests::fuzz::target("get_stream").run)(data);
});
