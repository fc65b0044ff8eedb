//! Every decoder of hostile bytes as a fuzz target: a plain function that takes any bytes and panics if a promise is broken.
//!
//! `tests/fuzz/` runs these under libFuzzer, `tests/tests/fuzz.rs` under [`mutate`] on every machine: the same functions,
//! the same corpus. A target promises that no bytes panic, that what decodes encodes again to the same bytes, and that no
//! more memory is taken than its bytes justify.

mod chain;
mod files;
mod frames;
mod gossip;
pub mod mutate;
mod proto;
mod receive;
mod shard;

/// One decoder.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name: of its program in `tests/fuzz/fuzz_targets/`, and its folder in `tests/fuzz/corpus/`.
    pub name: &'static str,
    /// Decodes and checks, and says whether the bytes were valid. Panics if a promise is broken.
    pub run: fn(&[u8]) -> bool,
    /// Valid encodings, from which a corpus begins.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Inputs of a bounded run, such that each target takes a fraction of a second.
    pub inputs: u32,
    /// Bytes of memory that an input may take at once: so many, and so many for each of its bytes.
    pub memory_max: (usize, usize),
}

/// What an error's texts, a report of a panic and the like may take.
const SMALL: usize = 64 << 10;
/// A blob of a list is 36 bytes on the wire, 64 as protobuf has it and 40 checked; a growing list is there twice, and its
/// bytes are encoded once more to compare. Shorter entries are refused before they are decoded.
const LISTED: usize = 8;
/// Of what nobody sends: an entry may be two bytes, and 24 or 32 in memory.
const PARSED: usize = 64;

/// All targets, by name.
pub const TARGETS: &[Target] = &[
    Target {
        name: "announcement",
        run: proto::announcement,
        seeds: proto::announcements,
        inputs: 20_000,
        memory_max: (SMALL, LISTED),
    },
    Target {
        name: "commitment",
        run: chain::commitment,
        seeds: chain::commitments,
        inputs: 20_000,
        memory_max: (SMALL, 16),
    },
    Target {
        name: "dataset",
        run: files::dataset,
        seeds: files::datasets,
        inputs: 10_000,
        memory_max: (SMALL, PARSED),
    },
    Target {
        name: "extrinsic",
        run: chain::extrinsic,
        seeds: chain::extrinsics,
        inputs: 1_000,
        // The runtime's own work, and what the chain keeps at hand of its state.
        memory_max: (16 << 20, PARSED),
    },
    Target { name: "feedback", run: files::feedback, seeds: files::feedbacks, inputs: 5_000, memory_max: (1 << 20, 8) },
    Target { name: "frames", run: frames::frames, seeds: frames::seeds, inputs: 50_000, memory_max: (SMALL, 8) },
    Target {
        name: "get_stream",
        run: gossip::get_stream,
        seeds: gossip::get_streams,
        inputs: 10_000,
        // What a frame's length promises is allocated up to 64 KiB before it comes, on each side.
        memory_max: (256 << 10, LISTED),
    },
    Target { name: "header", run: proto::header, seeds: proto::headers, inputs: 20_000, memory_max: (SMALL, LISTED) },
    Target { name: "journal", run: files::journal, seeds: files::journals, inputs: 2_000, memory_max: (SMALL, PARSED) },
    Target {
        name: "manifest",
        run: proto::manifest,
        seeds: proto::manifests,
        inputs: 20_000,
        memory_max: (SMALL, LISTED),
    },
    Target {
        name: "model_config",
        run: files::model_config,
        seeds: files::model_configs,
        inputs: 5_000,
        memory_max: (SMALL, PARSED),
    },
    Target { name: "moments", run: files::moments, seeds: files::momentss, inputs: 10_000, memory_max: (SMALL, 8) },
    Target {
        name: "peer_record",
        run: proto::peer_record,
        seeds: proto::peer_records,
        inputs: 2_000,
        memory_max: (SMALL, LISTED),
    },
    Target {
        name: "piece_set",
        run: proto::piece_set,
        seeds: proto::piece_sets,
        inputs: 5_000,
        memory_max: (SMALL, 80),
    },
    Target { name: "ratings", run: files::ratings, seeds: files::ratingss, inputs: 10_000, memory_max: (SMALL, 16) },
    Target { name: "receive", run: receive::receive, seeds: receive::seeds, inputs: 500, memory_max: (8 << 20, 8) },
    Target { name: "record", run: proto::record, seeds: proto::records, inputs: 50_000, memory_max: (SMALL, 8) },
    Target { name: "request", run: proto::request, seeds: proto::requests, inputs: 5_000, memory_max: (SMALL, LISTED) },
    Target {
        name: "response",
        run: proto::response,
        seeds: proto::responses,
        inputs: 5_000,
        memory_max: (SMALL, LISTED),
    },
    Target { name: "run", run: proto::run, seeds: proto::runs, inputs: 5_000, memory_max: (64 << 20, PARSED) },
    Target { name: "rpc", run: chain::rpc, seeds: chain::rpcs, inputs: 1_000, memory_max: (16 << 20, 1024) },
    Target {
        name: "run_toml",
        run: proto::run_toml,
        seeds: proto::run_tomls,
        inputs: 1_000,
        memory_max: (1 << 20, 1024),
    },
    Target {
        name: "safetensors",
        run: files::safetensors,
        seeds: files::safetensorss,
        inputs: 10_000,
        memory_max: (SMALL, PARSED),
    },
    Target {
        name: "saved_state",
        run: files::saved_state,
        seeds: files::saved_states,
        inputs: 500,
        memory_max: (SMALL, 16),
    },
    Target { name: "shard", run: shard::shard, seeds: shard::seeds, inputs: 5_000, memory_max: (4 << 20, 8) },
    Target {
        name: "state_manifest",
        run: proto::state_manifest,
        seeds: proto::state_manifests,
        inputs: 20_000,
        memory_max: (SMALL, LISTED),
    },
    Target {
        name: "timelock",
        run: chain::timelock,
        seeds: chain::timelocks,
        inputs: 200,
        memory_max: (SMALL, LISTED),
    },
];

/// The target of this name.
///
/// # Panics
/// If there is none.
pub fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no fuzz target {name}"))
}

/// The longest lists of the shortest entries that messages from peers have room for, each with its target's name: none is
/// valid, and none may take more memory than the target's bound.
pub fn longest_lists() -> Vec<(&'static str, Vec<u8>)> {
    proto::longest_lists()
}

/// Takes so many bytes off the front: what a target is asked to do with the rest. Beyond the end there are zeros.
fn take<const N: usize>(data: &mut &[u8]) -> [u8; N] {
    let (head, rest) = data.split_at(N.min(data.len()));
    *data = rest;
    std::array::from_fn(|at| head.get(at).copied().unwrap_or(0))
}
