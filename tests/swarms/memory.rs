//! What `covey run show` says that a node needs, held against what nodes had.

use crate::rig::Rig;
use covey::footprint::footprint;
use covey::service::DEVICE;
use covey_proto::run::Run;
use covey_round::engine::Roles;

const SEED: u64 = 21;
const MINER: Roles = Roles { miner: true, validator: false };
const VALIDATOR: Roles = Roles { miner: false, validator: true };

/// Eight million parameters. A batch fills the activations: 16 sequences of 32 tokens.
const LARGER: [&str; 9] = [
    "model.width=256",
    "model.layers=10",
    "model.heads=4",
    "model.kv_heads=4",
    "model.feed_forward=768",
    "compress.shard_chunks=64",
    "compress.state_elements=65536",
    "inner.steps=1",
    "inner.batch=16",
];

/// Whoever joins a run knows before how much memory that takes, activations included: within a tenth.
#[test]
fn what_a_node_needs_is_known_before_it_starts() {
    for changes in [&[][..], &LARGER] {
        let swarm = Rig::seeded(SEED).rounds(3).miners(2).validators(1).set(changes).run();
        let run = Run::from_toml(&std::fs::read_to_string(swarm.folder.run()).unwrap()).unwrap();
        let parameters = swarm.summary.parameters;
        for (role, roles) in [("miner", MINER), ("validator", VALIDATOR), ("seeder", Roles::default())] {
            let used = swarm.summary.usage.iter().find(|usage| usage.role == role).unwrap();
            // Where the system does not tell, there is nothing to hold it against.
            let Some(peak) = used.memory_peak else { continue };
            let needed = footprint(&run, roles, &DEVICE).unwrap();
            let ratio = peak as f64 / needed.total() as f64;
            println!("{parameters} parameters, {role}: {peak} bytes, {ratio:.3} of {needed:?}");
            assert!(
                (ratio - 1.0).abs() <= 0.1,
                "seed {SEED}, {parameters} parameters, {role}: {peak} bytes, predicted {needed:?}"
            );
        }
    }
}
