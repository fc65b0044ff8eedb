//! A run survives both its forms, its id is its numbers', and every fault of a file is told at once.

use super::*;
use proptest::prelude::*;

fn run() -> Run {
    let digest = |number: u8| Digest::of(&[number]);
    Run {
        chain: Chain { genesis: digest(1), netuid: 3, start: 1000, genesis_state: digest(2) },
        clock: Clock {
            length: 115,
            anchor: 5,
            commit: 92,
            vote: 108,
            commit_margin: 4,
            announce_margin: 8,
            vote_margin: 3,
            beacon: Beacon::Chain,
        },
        electorate: Electorate {
            window: 8,
            contributions_max: 20,
            contributions_min: 4,
            stake_min: 0,
            electorate_min: 0,
            checkpoint: 10,
        },
        model: Model {
            vocabulary: 4096,
            width: 256,
            layers: 4,
            heads: 8,
            kv_heads: 4,
            feed_forward: 768,
            sequence: 256,
            rope_theta: 10_000.0,
            norm_epsilon: 1e-5,
            tied: true,
            seed: Some(7),
            head: None,
            rope_scaling: None,
        },
        data: Data { digest: digest(3), samples: 100_000 },
        inner: Inner {
            steps: Schedule::constant(30.0),
            batch: 8,
            rate: Schedule::points(vec![(0, 1e-3), (100, 1e-4)]),
            warmup_steps: 10,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
            clip: 1.0,
            steps_min: 5,
            optimizer: Optimizer::AdamW,
            momentum: None,
            embed_rate: None,
        },
        outer: Outer { rate: Schedule::constant(1.0), rho: 0.5 },
        compress: Compress {
            k: Schedule::constant(64.0),
            beta: 0.95,
            quantiser: Quantiser::TwoMagnitudes,
            shard_chunks: 256,
            state_elements: 1 << 20,
            inline_max: 4096,
        },
        scoring: Scoring { sequences: 16, rate: 0.1, average: 0.05, share: 0.3, power: 2.0 },
        phases: Vec::new(),
    }
}

fn faults(change: impl FnOnce(&mut Run)) -> Vec<String> {
    let mut run = run();
    change(&mut run);
    match run.checked() {
        Ok(_) => Vec::new(),
        Err(RunError::Faults(faults)) => faults,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_run_survives_its_text_and_its_bytes() {
    let run = run();
    assert_eq!(Run::from_toml(&run.to_toml()).unwrap(), run);
    assert_eq!(Run::from_bytes(&run.to_bytes()).unwrap(), run);
    // Comments, order and spelling are not part of it.
    let text = format!("# A run.\n{}", run.to_toml().replace("netuid = 3", "netuid = 0x3"));
    assert_eq!(Run::from_toml(&text).unwrap().id(), run.id());
}

fn phase(from: u32) -> Phase {
    Phase { from, digest: Digest::of(&from.to_le_bytes()), samples: from.into() }
}

#[test]
fn a_round_trains_on_its_phases_data() {
    let run = with_everything();
    let samples = [0, 39, 40, 89, 90, u32::MAX].map(|round| run.data_of(Round(round)).samples);
    assert_eq!(samples, [100_000, 100_000, 40, 40, 90, 90]);
    assert_eq!([0, 40, 90].map(|round| run.phase_of(Round(round))), [0, 1, 2]);
    for wrong in [vec![phase(0)], vec![phase(7), phase(7)], vec![phase(9), phase(7)]] {
        assert!(faults(|run| run.phases = wrong.clone())[0].contains("later round"), "{wrong:?}");
    }
    assert!(faults(|run| run.phases = vec![Phase { samples: 0, ..phase(7) }])[0].contains("samples"));
    assert!(faults(|run| run.phases = (1..=65).map(phase).collect())[0].contains("the limit is 64"));
}

fn with_everything() -> Run {
    let mut run = run();
    run.model.seed = None;
    run.model.head = Some(64);
    run.model.rope_scaling = Some(RopeScaling {
        factor: 8.0,
        low_frequency_factor: 1.0,
        high_frequency_factor: 4.0,
        original_sequence: 8192,
    });
    run.inner.optimizer = Optimizer::Muon;
    run.inner.momentum = Some(0.95);
    run.phases = vec![phase(40), phase(90)];
    run.inner.embed_rate = Some(Schedule::points(vec![(0, 0.064), (100, 0.0064)]));
    run
}

#[test]
fn what_a_run_need_not_say_survives_both_forms_when_it_does() {
    let run = with_everything().checked().unwrap();
    assert_eq!(Run::from_toml(&run.to_toml()).unwrap(), run);
    assert_eq!(Run::from_bytes(&run.to_bytes()).unwrap(), run);
    assert_eq!(run.layout().tensor("model.layers.0.self_attn.o_proj.weight").unwrap().shape, [256, 8 * 64]);
    let mut still = run.clone();
    still.inner.momentum = Some(0.0);
    assert_eq!(Run::from_bytes(&still.to_bytes()).unwrap(), still);
}

#[test]
fn what_goes_without_saying_has_one_form() {
    let run = run();
    let mut said = run.clone();
    said.model.head = Some(32);
    assert_eq!(Run::from_toml(&said.to_toml()).unwrap().id(), run.id());
    assert!(matches!(Run::from_bytes(&said.to_bytes()), Err(RunError::Bytes(DecodeError::Field("head")))));
    assert!(!run.to_toml().contains("optimizer") && !run.to_toml().contains("head ="));
}

#[test]
fn numbers_of_another_optimizer_or_model_are_faults() {
    let with = |change: fn(&mut Run)| {
        let mut run = with_everything();
        change(&mut run);
        match run.checked() {
            Err(RunError::Faults(faults)) => faults.join("; "),
            other => panic!("{other:?}"),
        }
    };
    assert!(with(|run| run.inner.momentum = None).contains("inner.momentum must be there"));
    assert!(with(|run| run.inner.optimizer = Optimizer::AdamW).contains("inner.momentum is Muon's"));
    assert!(with(|run| run.inner.momentum = Some(f64::NAN)).contains("inner.momentum is NaN"));
    assert!(with(|run| run.inner.embed_rate = Some(Schedule::constant(2.0))).contains("inner.embed_rate is 2"));
    assert!(with(|run| run.model.head = Some(63)).contains("even number"));
    assert!(with(|run| run.model.head = Some(1 << 20)).contains("model.head is 1048576"));
    let stretched = |change: fn(&mut RopeScaling)| {
        let mut run = with_everything();
        change(run.model.rope_scaling.as_mut().unwrap());
        run.checked().unwrap_err().to_string()
    };
    assert!(stretched(|scaling| scaling.factor = 0.5).contains("model.rope_scaling: factor"));
    assert!(stretched(|scaling| scaling.high_frequency_factor = 1.0).contains("model.rope_scaling: factor"));
    assert!(stretched(|scaling| scaling.original_sequence = 0).contains("original_sequence is 0"));
}

#[test]
fn one_other_number_is_another_run() {
    let mut other = run();
    other.scoring.power = 2.5;
    assert_ne!(other.id(), run().id());
}

#[test]
fn every_fault_is_told_at_once() {
    let faults = faults(|run| {
        run.clock.vote = 92;
        run.electorate.contributions_max = 257;
        run.inner.beta1 = -0.0;
        run.outer.rate = Schedule::constant(0.0);
        run.compress.k = Schedule::constant(63.5);
        run.scoring.rate = f64::NAN;
    });
    for fault in [
        "clock: commit 92 < vote 92 < length 115 must hold",
        "clock: margins must satisfy",
        "electorate.contributions_max is 257; it must be 1 to 256",
        "inner.beta1 is -0; it must be 0 to 1",
        "outer.rate is 0 at round 0; it must be 0.0009765625 to 16",
        "compress.k is 63.5 at round 0; it must be a whole number 1 to 4096",
        "scoring.rate is NaN; it must be above 0",
    ] {
        assert!(faults.iter().any(|told| told.contains(fault)), "{fault:?} is not in {faults:#?}");
    }
    assert_eq!(faults.len(), 7, "{faults:#?}");
}

/// Numbers that are right each alone, and cannot be together.
#[test]
fn what_does_not_fit_together_is_told_with_its_sum() {
    let kept = faults(|run| run.clock.length = 150);
    assert_eq!(kept, ["clock: length + anchor + vote is 263; a chain node keeps 256 blocks"]);
    let heads = faults(|run| run.model.heads = 24);
    assert_eq!(heads, ["model: width must divide by heads into an even number (or head be one), heads by kv_heads"]);
    let large = faults(|run| (run.model.width, run.model.layers) = (1 << 16, 1000));
    assert!(large[0].starts_with("model: about 17") && large[0].contains("100000000000"), "{large:?}");
    let announced = faults(|run| (run.compress.shard_chunks, run.compress.inline_max) = (1, 65_536));
    assert!(announced[0].contains("raise shard_chunks or lower inline_max"), "{announced:?}");
}

#[test]
fn a_key_that_is_unknown_or_missing_is_refused() {
    let text = run().to_toml();
    assert!(matches!(Run::from_toml(&format!("surprise = 1\n{text}")), Err(RunError::Toml(_))));
    assert!(matches!(Run::from_toml(&text.replace("netuid = 3\n", "")), Err(RunError::Toml(_))));
}

#[test]
fn bytes_of_another_form_are_no_run() {
    let bytes = run().to_bytes();
    let refused = |bytes: &[u8]| matches!(Run::from_bytes(bytes), Err(RunError::Bytes(_)));
    assert!(refused(&bytes[8..]) && refused(&bytes[..bytes.len() - 1]) && refused(&[&bytes[..], &[0]].concat()));
    let long = vec![0; blob::RUN_BYTES_MAX + 1];
    let error = Run::from_bytes(&long).unwrap_err().to_string();
    assert!(error.contains("8193 bytes; the limit is 8192"), "{error}");
}

proptest! {
    /// Of whatever numbers the checks let through, the two forms say the same.
    #[test]
    fn what_is_checked_survives_both_forms(
        seed in 0..i64::MAX as u64, samples in 1..u64::MAX >> 1, k in 1u32..=4096, rate in 0.0f64..1.0, quantiser in 1u32..=3,
    ) {
        let mut run = run();
        run.model.seed = Some(seed);
        run.data.samples = samples;
        run.compress.k = Schedule::constant(k.into());
        run.compress.quantiser = Quantiser::from_byte(quantiser).unwrap();
        run.inner.rate = Schedule::constant(rate);
        let run = run.checked().unwrap();
        prop_assert_eq!(Run::from_bytes(&run.to_bytes()).unwrap(), run.clone());
        prop_assert_eq!(Run::from_toml(&run.to_toml()).unwrap().id(), run.id());
    }
}
