//! Every fuzz target, on every machine: the corpus in `tests/fuzz/corpus/` as it is, then changed in ways that a seed
//! decides. More, and guided by coverage, is found by cargo-fuzz: `tests/fuzz/README.md`.
//!
//! One test alone in its process, because it measures the process's memory.

use covey_tests::fuzz::mutate::Mutator;
use covey_tests::fuzz::{self, TARGETS, Target};
use peak_alloc::PeakAlloc;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Files that are valid, and must stay so until the format changes.
const VALID: &str = "valid-";

fn corpus_folder(target: &Target) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus")).join(target.name)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn no_bytes_break_what_a_decoder_promises() {
    // To look for more: COVEY_FUZZ_SEED=2 COVEY_FUZZ_TIMES=100 cargo test -p covey-tests --test fuzz
    let (seed, times) = (number("COVEY_FUZZ_SEED", 1), number("COVEY_FUZZ_TIMES", 1));
    for (name, list) in fuzz::longest_lists() {
        assert!(!check(fuzz::target(name), &list, "a long list of short entries"), "{name}: a hollow list is valid");
    }
    for target in TARGETS {
        let files = corpus(target);
        for (name, bytes) in &files {
            let accepted = check(target, bytes, &format!("corpus file {name}"));
            assert!(accepted || !name.starts_with(VALID), "{}: {name} is not valid any more: {REMEDY}", target.name);
        }
        let corpus = half_valid(files);
        let mut mutator = Mutator::seeded(seed);
        let mut accepted = 0;
        let inputs = u64::from(target.inputs) * times;
        for nth in 0..inputs {
            let input = mutator.input(&corpus);
            accepted += u64::from(check(target, &input, &format!("input {nth} of seed {seed}")));
        }
        println!("{}: {inputs} inputs of seed {seed}, {accepted} valid", target.name);
    }
}

const REMEDY: &str = "if the format changed, run this test's `write_the_corpus` and commit what it writes";

/// The corpus, by name.
fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = corpus_folder(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}: {REMEDY}", folder.display()));
    let entries = entries.map(|entry| entry.expect("an entry of the corpus"));
    let name = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut files: Vec<_> =
        entries.map(|entry| (name(&entry), fs::read(entry.path()).expect("a file of the corpus"))).collect();
    files.sort();
    files
}

/// What to change: valid files as often as all others, since most changes of those are refused at the door.
fn half_valid(files: Vec<(String, Vec<u8>)>) -> Vec<Vec<u8>> {
    let (valid, mut others): (Vec<_>, Vec<_>) = files.into_iter().partition(|(name, _)| name.starts_with(VALID));
    let times = others.len().div_ceil(valid.len().max(1)).max(1);
    others.extend(valid.iter().cycle().take(times * valid.len()).cloned());
    others.into_iter().map(|(_, bytes)| bytes).collect()
}

/// Runs one input within its bound of memory; a failure names the input, so that it can be kept.
fn check(target: &Target, input: &[u8], which: &str) -> bool {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let (fixed, each) = target.memory_max;
    let (taken, most) = (MEMORY.peak_usage().saturating_sub(before), fixed + each * input.len());
    let keep = || {
        let kept = std::env::temp_dir().join(format!("covey-fuzz-{}", target.name));
        format!("kept as {}: {:?}", kept.display(), fs::write(&kept, input))
    };
    let Ok(accepted) = outcome else { panic!("{}: {which} breaks a promise (above); {}", target.name, keep()) };
    if taken > most {
        panic!("{}: {which}, {} bytes, takes {taken} bytes; at most {most}; {}", target.name, input.len(), keep());
    }
    accepted
}

/// Makes the valid part of the corpus anew: `cargo test -p covey-tests --test fuzz -- --ignored write_the_corpus`.
#[test]
#[ignore = "writes into the source tree"]
fn write_the_corpus() {
    for target in TARGETS {
        let folder = corpus_folder(target);
        fs::create_dir_all(&folder).expect("a folder for the corpus");
        for (nth, seed) in (target.seeds)().into_iter().enumerate() {
            assert!((target.run)(&seed), "{}: seed {nth} is not valid", target.name);
            fs::write(folder.join(format!("{VALID}{nth}")), seed).expect("a file of the corpus");
        }
    }
}
