//! Swarms that go on from somebody's model: one node is given its folder, the others have its state from that one.

use crate::rig::{Rig, dataset};
use covey::preset::Template;
use covey_proto::Digest;
use covey_proto::run::{Chain, Data, Model, Run};
use covey_sparseloco::state_root;
use covey_trainer::genesis::initial_state;
use covey_trainer::hf::{self, ExportOptions, WeightType};
use std::fs;
use std::path::Path;

/// The model of the tiny preset.
fn tiny() -> Model {
    let chain = Chain { genesis: Digest::ZERO, netuid: 1, start: 8, genesis_state: Digest::ZERO };
    let data = Data { digest: Digest::ZERO, samples: 1 };
    Template::load("tiny").unwrap().resolve(&chain, &data).unwrap().model
}

/// A small model of the data's tokenizer in Hugging Face's layout, in shards of bf16, with a chat template. It has more
/// tokens than its tokenizer, as many have, other weights than the preset draws, and was made for longer texts.
fn write_checkpoint(dir: &Path) -> Model {
    let drawn = Model { vocabulary: 520, sequence: 96, rope_theta: 500.0, tied: false, seed: Some(99), ..tiny() };
    let state = initial_state(&drawn).unwrap();
    let options = ExportOptions { weights: WeightType::Bf16, shard_bytes_max: 20_000, like: None, chat: None };
    hf::export_as(dir, &drawn, &state, &dataset().tokenizer_path(), &options).unwrap();
    fs::write(dir.join("chat_template.jinja"), "{{ messages[0].content }}").unwrap();
    drawn
}

/// Who was not given the model has its first state from peers, and so has who starts again without it; a newcomer needs it
/// no more. All end with the same bits, an audit agrees from the model on, and what came out is exported like the model.
#[test]
fn a_swarm_goes_on_from_a_model_that_one_node_has() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("model");
    let drawn = write_checkpoint(&dir);
    let swarm = Rig::seeded(21).rounds(6).miners(3).validators(1).beginning_with(&dir).join(3).kill("miner-1@1").run();
    swarm.expect_agreement();
    let folder = &swarm.folder;
    let run = Run::from_toml(&fs::read_to_string(folder.run()).unwrap()).unwrap();
    let (model, state) = hf::load(&dir).unwrap();
    assert_eq!(run.model, Model { sequence: 32, ..model });
    assert_eq!(run.chain.genesis_state, state_root(&state, run.compress.state_elements as usize));
    assert_ne!(state, initial_state(&drawn).unwrap(), "it was rounded");
    let log = |node: &str| fs::read_to_string(folder.log(node)).unwrap();
    for node in ["miner-0", "miner-1", "miner-2", "validator-0"] {
        assert!(log(node).contains("the run's first state is here"), "{node} had it from peers");
    }
    assert!(!log("seeder-0").contains("the run's first state is here"));
    assert!(log("miner-3").contains("caught up"), "who comes in round 3 has a checkpoint");
    let losses = &swarm.summary.heldout_loss;
    assert!(losses[0].is_finite() && losses[6] < losses[0], "{losses:?}");

    let newest = folder.newest_state(run.layout().elements()).unwrap().unwrap();
    let out = temporary.path().join("out");
    let options = ExportOptions { like: Some(folder.model()), ..ExportOptions::default() };
    hf::export_as(&out, &run.model, &newest.state.parameters, &folder.tokenizer(), &options).unwrap();
    assert_eq!(hf::load_model(&out).unwrap().sequence, 96, "made for longer texts than it was trained on here");
    assert_eq!(fs::read(out.join("chat_template.jinja")).unwrap(), b"{{ messages[0].content }}");
}
