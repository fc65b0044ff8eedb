//! Wallets that Bittensor's own library wrote are read here, encrypted ones too, and it reads ours.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use covey::wallet::{Password, Secret, Unlock, Wallet, Write};
use covey_proto::{Hotkey, verify};
use covey_tests::foreign::{PythonEnv, wallet_env};
use serde_json::Value;
use std::path::Path;

/// Substrate's development phrase and its well-known address.
const PHRASE: &str = "bottom drive obey lake curtain smoke basket hold race lonely fit walk";
const ADDRESS: &str = "5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV";
const PASSWORD: &str = "Secret1!päss";

/// What the library says, a JSON object in its last line.
fn ask(env: &PythonEnv, words: &[&str]) -> Value {
    let output = env.command("wallet.py").args(words).output().unwrap();
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{error}");
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

fn password() -> Password {
    Password::new(PASSWORD.into()).unwrap()
}

#[test]
fn bittensors_wallets_are_read_and_ours_by_it() {
    let Some(env) = wallet_env() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    // Stretching a password takes seconds of one core each time: both sides at once.
    std::thread::scope(|scope| {
        scope.spawn(|| theirs(&env, path));
        scope.spawn(|| ours(&env, path));
    });
}

fn theirs(env: &PythonEnv, path: &Path) {
    let said = ask(env, &["write", path.to_str().unwrap(), PASSWORD, PHRASE]);
    assert_eq!(said["coldkey"], ADDRESS);
    let wallet = Wallet::open(path, "theirs").unwrap();
    assert_eq!(wallet.coldkey_public().unwrap().to_string(), ADDRESS);
    assert_eq!(wallet.hotkey("h", &Unlock::Environment).unwrap().hotkey().to_string(), said["hotkey"]);
    assert_eq!(wallet.hotkey_public("h").unwrap().to_string(), said["hotkey"]);
    let coldkey = wallet.coldkey(&Unlock::With(password())).unwrap();
    assert_eq!(coldkey.coldkey().to_string(), ADDRESS);
}

fn ours(env: &PythonEnv, path: &Path) {
    let (cold, hot) = (Secret::from_phrase(PHRASE).unwrap(), Secret::from_seed([7; 32]));
    let hotkey: Hotkey = hot.hotkey();
    let write = Write { password: Some(&password()), force: false };
    Wallet::create(path, "ours", &cold, &[("h", &hot)], write).unwrap();
    let said = ask(env, &["read", path.to_str().unwrap(), PASSWORD]);
    for (key, address) in [
        ("coldkey", ADDRESS),
        ("coldkeypub", ADDRESS),
        ("hotkey", &hotkey.to_string()),
        ("hotkeypub", &hotkey.to_string()),
    ] {
        assert_eq!(said[key], address, "{key}");
    }
    let signature = hex::decode(said["signature"].as_str().unwrap()).unwrap();
    assert!(verify(&hotkey, b"hello", &signature), "it signs with our key");
}
