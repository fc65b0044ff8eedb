//! node.toml survives being written and read, and says all that is wrong with it.

use super::*;
use crate::chain::substrate::SecondOpinion;
use covey_gossip::{Congestion, Limits};
use std::path::Path;
use std::time::Duration;

fn faults(text: &str) -> Vec<String> {
    match NodeConfig::parse(text) {
        Err(ConfigError::Faults { faults, .. }) => faults.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

fn unusual() -> NodeConfig {
    let mut config = NodeConfig::new("../run.toml", "/var/lib/covey \"1\"");
    config.name = "miner-3".into();
    config.data = Some("../data".into());
    config.cores = Some(3);
    config.status = None;
    config.log = "warn".into();
    config.wallet = WalletConfig { path: "../wallets".into(), name: "swarm".into(), hotkey: "miner-3".into() };
    config.chain.endpoints = vec!["ws://127.0.0.1:9944".into(), "wss://example.org".into()];
    config.chain.second_opinion = SecondOpinion::Preferred;
    config.network = NetworkConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".into()],
        bootstrap: vec!["/dns4/seed.example.org/tcp/4001".into()],
        external: Some("[2001:db8::1]:4001".parse().unwrap()),
        reachable: true,
        congestion: Congestion::System,
        upload: Some(Mbit::new(99.5).unwrap()),
        download: Some(Mbit::new(450.0).unwrap()),
        connections_max: 40,
        peers_target: 7,
        heartbeat: Duration::from_millis(200),
        patience: Duration::from_millis(2500),
    };
    config.storage = StorageConfig { quota: Size(16 << 30), archive: true, save_rounds: 9 };
    config
}

#[test]
fn a_configuration_is_read_as_it_was_written() {
    for config in [NodeConfig::new("run.toml", "node"), unusual()] {
        assert_eq!(NodeConfig::parse(&config.to_toml()).unwrap(), config);
    }
}

/// What stands in comments is what holds without them.
#[test]
fn every_commented_key_shows_its_default() {
    let config = NodeConfig::new("run.toml", "node");
    let text = config.to_toml();
    let bare = text.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') => key,
        _ => line,
    });
    let bare = bare.collect::<Vec<_>>().join("\n");
    assert!(bare.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count() > 20);
    assert_eq!(NodeConfig::parse(&bare).unwrap(), config);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn a_file_without_keys_is_the_default() {
    assert_eq!(NodeConfig::parse("").unwrap(), NodeConfig::new("run.toml", "node"));
}

#[test]
fn every_fault_is_told_at_once() {
    let faults = faults(
        "surprise = 1\ncores = -1\nlog = \"a=b=c\"\nstorage = 5\nstatus = \"nowhere\"\n[wallet]\nname = \"../x\"\npassword = \"p\"\n\
         [chain]\nendpoints = [\"http://x\", \"ws://\"]\nsecond_opinion = \"maybe\"\n[network]\nlisten = [\"here\"]\nupload_mbit = -3\nreachable = 1\n\
         connections_max = 4\npeers_target = 9\n",
    );
    for fault in [
        "surprise: there is no such key",
        "cores is -1; it must be 0 to 4096",
        "log is \"a=b=c\"",
        "storage must be a section",
        "status is \"nowhere\"; it must be IP:PORT",
        "wallet.name is \"../x\"",
        "wallet.password: there is no such key",
        "chain.endpoints: \"http://x\" is no WebSocket URL",
        "chain.endpoints: \"ws://\" is no WebSocket URL",
        "chain.second_opinion is \"maybe\"; it must be \"required\"",
        "network.listen: \"here\" is no address",
        "network.upload_mbit is -3",
        "network.reachable is 1; it must be true or false",
        "network.peers_target is 9; network.connections_max allows 4",
    ] {
        assert!(faults.iter().any(|told| told.contains(fault)), "{fault:?} is not in {faults:#?}");
    }
    assert_eq!(faults.len(), 14, "{faults:#?}");
}

#[test]
fn a_list_has_bounds_and_texts() {
    assert!(faults("[chain]\nendpoints = []")[0].contains("has 0 entries; it must have 1 to 8"));
    assert!(faults("[chain]\nendpoints = \"ws://x\"")[0].contains("a list of texts"));
    assert!(faults("[chain]\nendpoints = [1]")[0].contains("a list of texts"));
}

#[test]
fn relative_paths_count_from_the_file_s_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    std::fs::write(&path, "run = \"../run.toml\"\nfolder = \"/n\"\ndata = \"d\"\n[wallet]\npath = \"~/w\"").unwrap();
    let config = NodeConfig::load(&path).unwrap();
    assert_eq!(config.run, folder.path().join("../run.toml"));
    assert_eq!(config.folder, Path::new("/n"));
    assert_eq!(config.data, Some(folder.path().join("d")));
    assert_eq!(config.wallet.path, Path::new(&std::env::var_os("HOME").unwrap()).join("w"));
}

#[test]
fn a_missing_or_huge_file_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    let error = NodeConfig::load(&path).unwrap_err().to_string();
    assert!(error.contains("node.toml") && error.contains("covey init"), "{error}");
    std::fs::write(&path, "#".repeat((1 << 20) + 1)).unwrap();
    assert!(matches!(NodeConfig::load(&path), Err(ConfigError::Large { .. })));
    std::fs::write(&path, "a = = 1").unwrap();
    let error = NodeConfig::load(&path).unwrap_err().to_string();
    assert!(error.contains("node.toml does not parse"), "{error}");
}

#[test]
fn limits_follow_the_numbers_of_the_file() {
    let limits = unusual().limits();
    assert_eq!((limits.connections.all_max, limits.connections.in_max, limits.connections.out_max), (40, 30, 15));
    assert_eq!(limits.peers_target, 7);
    assert_eq!(limits.governor.upload.unwrap().per_second, 12_437_500);
    let usual = NodeConfig::new("r", "n").limits();
    let known = Limits::default();
    assert_eq!(usual.connections.all_max, known.connections.all_max);
    assert_eq!(
        (usual.connections.in_max, usual.connections.out_max),
        (known.connections.in_max, known.connections.out_max)
    );
}
