//! What a swarm writes before anything runs: keys, the chain's beginning, and once that is known the run; then a
//! node.toml a node.

use super::devnet;
use super::error::{ChainError, SwarmError};
use super::plan::{Node, Options, Plan};
use crate::config::{NodeConfig, Size};
use crate::disk::folder::Folder;
use crate::preset::PresetError;
use crate::wallet::{Secret, Wallet, Write};
use covey_proto::run::{Beacon, Chain, Data, Phase, Run};
use covey_proto::{ColdkeyPair, Digest, Hotkey, derive};
use covey_round::engine::Roles;
use covey_trainer::data::Dataset;
use covey_trainer::hf;
use std::ffi::OsString;
use std::iter::once;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The wallet that holds all keys of a swarm; a hotkey has its node's name.
const WALLET: &str = "swarm";
/// Loopback is quick: a mesh need not take seconds to form.
const HEARTBEAT: Duration = Duration::from_millis(200);
/// Bytes of each node's blob store: a demo's rounds are a few megabytes each, and the seeder keeps all.
const STORE_BYTES_MAX: u64 = 16 << 30;

/// The keys of a swarm: all are made from its seed.
pub(super) struct Keys {
    seed: u64,
}

impl Keys {
    /// Of the swarm with this seed.
    pub(super) fn new(seed: u64) -> Keys {
        Keys { seed }
    }

    /// A node's hotkey.
    pub(super) fn hotkey(&self, name: &str) -> Hotkey {
        self.secret("covey/1/swarm-hotkey", name).hotkey()
    }

    /// The coldkey that owns all hotkeys.
    pub(super) fn coldkey(&self) -> ColdkeyPair {
        self.secret("covey/1/swarm-coldkey", WALLET).coldkey_pair()
    }

    fn secret(&self, context: &str, name: &str) -> Secret {
        let mut bytes = [0; 32];
        derive(context, &[&self.seed.to_le_bytes(), name.as_bytes()]).fill(&mut bytes);
        Secret::from_seed(bytes)
    }

    fn write(&self, folder: &Folder, plan: &Plan) -> Result<(), SwarmError> {
        let coldkey = self.secret("covey/1/swarm-coldkey", WALLET);
        let members = plan.nodes().filter(|(_, node)| node.roles != Roles::default());
        let hotkeys: Vec<(&str, Secret)> =
            members.map(|(name, _)| (&**name, self.secret("covey/1/swarm-hotkey", name))).collect();
        let hotkeys: Vec<(&str, &Secret)> = hotkeys.iter().map(|(name, secret)| (*name, secret)).collect();
        Wallet::create(&folder.wallets(), WALLET, &coldkey, &hotkeys, Write::default())?;
        Ok(())
    }
}

/// Makes the swarm's folder: keys, the chain's beginning, the tokenizer, and what stands beside the parameters of the model
/// that it goes on from.
pub(super) fn folder(folder: &Folder, options: &Options, plan: &Plan, keys: &Keys) -> Result<(), SwarmError> {
    for path in [folder.node(""), folder.chain(), folder.path().join("logs")] {
        std::fs::create_dir_all(&path).map_err(fault(&path))?;
    }
    keys.write(folder, plan)?;
    let spec = devnet::spec(options, plan, keys.coldkey().coldkey(), |name| keys.hotkey(name));
    let text = serde_json::to_vec_pretty(&spec).map_err(ChainError::from)?;
    write(&folder.chain_spec(), &text)?;
    let tokenizer = options.data.tokenizer_path();
    std::fs::copy(&tokenizer, folder.tokenizer()).map_err(fault(&tokenizer))?;
    // The last conversations are those that the model ends with.
    let sets = once(&options.data).chain(options.phases.iter().map(|(_, data)| data));
    if let Some(template) = sets.filter_map(|data| data.chat_template_path()).next_back() {
        std::fs::copy(&template, folder.chat_template()).map_err(fault(&template))?;
    }
    if let Some(model) = options.template.model() {
        hf::copy_companions(model, &folder.model()).map_err(PresetError::from)?;
    }
    Ok(())
}

/// The preset on this chain, with this data; written down.
pub(super) fn run(options: &Options, folder: &Folder, genesis: Digest) -> Result<Run, SwarmError> {
    // The template's own clock says how early the anchor is; any start behind it will do.
    let start = 8;
    let mut chain = Chain { genesis, netuid: devnet::NETUID, start, genesis_state: Digest::ZERO };
    let mut data = Data { digest: options.data.digest(), samples: 1 };
    let template = options.template.for_data(&options.data)?;
    let draft = template.resolve(&chain, &data)?;
    let sequence = draft.model.sequence;
    let samples = |data: &Dataset| match (data.samples(sequence), data.heldout_samples(sequence)) {
        (training @ 1.., 1..) => Ok(training),
        (training, held_out) => Err(SwarmError::TooLittleData { held_out, training, sequence }),
    };
    data.samples = samples(&options.data)?;
    chain.genesis_state = template.genesis_state(&draft)?;
    let mut run = template.resolve(&chain, &data)?;
    for (from, data) in &options.phases {
        if data.manifest().tokenizer != options.data.manifest().tokenizer {
            return Err(SwarmError::OtherTokenizer { from: *from });
        }
        run.phases.push(Phase { from: from.0, digest: data.digest(), samples: samples(data)? });
    }
    run = run.checked().map_err(SwarmError::Run)?;
    if options.repeatable {
        run.clock.beacon = Beacon::Seed;
    }
    write(&folder.run(), run.to_toml().as_bytes())?;
    Ok(run)
}

/// Writes a node's folder with its node.toml, and gives what its process is told.
pub(super) fn node(
    options: &Options,
    folder: &Folder,
    (name, node): (&Arc<str>, &Node),
    url: &str,
    bootstrap: Vec<String>,
) -> Result<Vec<OsString>, SwarmError> {
    let directory = folder.node(name);
    std::fs::create_dir_all(&directory).map_err(fault(&directory))?;
    // Relative paths: a swarm's folder can be moved, and a node of it started by hand.
    let mut config = NodeConfig::new("../../run.toml", ".");
    config.name = name.to_string();
    config.cores = Some(options.cores);
    config.status = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    if node.roles != Roles::default() {
        let absolute = |data: &Dataset| std::path::absolute(data.folder()).map_err(fault(data.folder()));
        config.data = Some(absolute(&options.data)?);
        config.phases = options.phases.iter().map(|(_, data)| absolute(data)).collect::<Result<_, _>>()?;
    }
    config.wallet.path = "../../wallets".into();
    (config.wallet.name, config.wallet.hotkey) = (WALLET.into(), name.to_string());
    config.chain.endpoints = vec![url.to_owned()];
    config.network.listen = vec!["/ip4/127.0.0.1/tcp/0".into(), "/ip4/127.0.0.1/udp/0/quic-v1".into()];
    config.network.bootstrap = bootstrap;
    config.network.reachable = true;
    config.network.heartbeat = HEARTBEAT;
    config.network.patience = options.patience;
    config.storage.quota = Size(STORE_BYTES_MAX);
    config.storage.archive = node.roles == Roles::default();
    let path = folder.node_config(name);
    write(&path, config.to_toml().as_bytes())?;
    let mut arguments: Vec<OsString> =
        vec![node.command().into(), "--config".into(), path.into(), "--supervised".into()];
    if node.roles == (Roles { miner: true, validator: true }) {
        arguments.push("--validate".into());
    }
    // One node brings the model; the others have its state from it.
    if let Some(model) = options.template.model().filter(|_| node.is_seeder()) {
        let model = std::path::absolute(model).map_err(fault(model))?;
        arguments.extend(["--genesis".into(), model.into()]);
    }
    if let Some(kind) = node.misbehaviour {
        arguments.extend(["--misbehave".into(), kind.to_string().into()]);
    }
    Ok(arguments)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), SwarmError> {
    std::fs::write(path, bytes).map_err(fault(path))
}

pub(super) fn fault(path: &Path) -> impl FnOnce(std::io::Error) -> SwarmError {
    let path = path.to_owned();
    move |error| SwarmError::Folder { path, error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset::Template;
    use crate::swarm::plan::{Counts, Script};
    use crate::testing::made_up_text;

    #[test]
    fn keys_come_from_the_seed_and_the_name() {
        let hotkey = |seed, name| Keys::new(seed).hotkey(name);
        assert_eq!(hotkey(1, "miner-0"), hotkey(1, "miner-0"));
        assert_ne!(hotkey(1, "miner-0"), hotkey(2, "miner-0"));
        assert_ne!(hotkey(1, "miner-0"), hotkey(1, "miner-1"));
    }

    #[test]
    fn a_folder_has_all_that_a_node_is_told_by() {
        let (_data_folder, data) = made_up_text(3);
        let counts = Counts { miners: 2, validators: 1, both: 1 };
        let script = Script { misbehave: vec![("noise".parse().unwrap(), 1)], ..Script::default() };
        let options = Options {
            template: Template::load("tiny").unwrap(),
            data: Arc::new(data),
            phases: Vec::new(),
            rounds: 1,
            counts,
            seed: 3,
            repeatable: true,
            script,
            cores: 1,
            hidden_weights: false,
            program: "covey".into(),
            patience: Duration::from_secs(1),
            heldout_sequences: 8,
        };
        let plan = Plan::new(&options).unwrap();
        let temporary = tempfile::tempdir().unwrap();
        let swarm = Folder::at(temporary.path());
        folder(&swarm, &options, &plan, &Keys::new(3)).unwrap();
        let run = run(&options, &swarm, Digest::of(b"genesis")).unwrap();
        assert_eq!(run.clock.beacon, Beacon::Seed, "with a seed, a swarm can be repeated");
        assert!(swarm.chain_spec().exists() && swarm.tokenizer().exists() && swarm.run().exists());
        let told = |name: &str| {
            let name: Arc<str> = name.into();
            let told = node(&options, &swarm, (&name, plan.node(&name)), "ws://here", vec!["/ip4/127.0.0.1".into()]);
            told.unwrap().iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        let both = told("miner-0");
        assert!(both.starts_with("miner ") && both.contains("--supervised --validate"), "{both}");
        assert!(told("miner-1").ends_with("--misbehave noise"));
        assert!(told("validator-0").starts_with("validator ") && told("seeder-0").starts_with("seeder "));
        let config = |name: &str| NodeConfig::load(&swarm.node_config(name)).unwrap();
        assert!(config("seeder-0").storage.archive && config("seeder-0").data.is_none());
        assert!(!config("miner-0").storage.archive && config("miner-0").data.is_some());
    }
}
