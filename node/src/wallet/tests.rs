//! Files that btcli wrote are keys here, ours are files as btcli writes them, and no secret leaves by mistake.

use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// Substrate's development phrase; the seed and address are those of `subkey inspect`.
const PHRASE: &str = "bottom drive obey lake curtain smoke basket hold race lonely fit walk";
const SEED: &str = "fac7959dbfe72f052e5a0c3c8d6530f202b02fd8f9f5ca3580ec8deb7797479e";
const ADDRESS: &str = "5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV";
/// bittensor-wallet 4.1.0: `Wallet.regenerate_coldkey(mnemonic=PHRASE, use_password=False)`.
const BTCLI: &str = r#"{"secretSeed":"0xfac7959dbfe72f052e5a0c3c8d6530f202b02fd8f9f5ca3580ec8deb7797479e","ss58Address":"5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV","cryptoType":1,"privateKey":"0x05d65584630d16cd4af6d0bec10f34bb504a5dcb62dba2122d49f5a663763d0afd190cce74df356432b410bd64682309d6dedb27c76845daf388557cbac3ca34","publicKey":"0x46ebddef8cd9bb167dc30878d7113b7e168e6f0646beffd77d69d39bad76b47a","secretPhrase":"bottom drive obey lake curtain smoke basket hold race lonely fit walk","accountId":"0x46ebddef8cd9bb167dc30878d7113b7e168e6f0646beffd77d69d39bad76b47a"}"#;

fn address(json: &str) -> Result<String, String> {
    keyfile::secret(json.as_bytes()).map(|secret| secret.coldkey().to_string()).map_err(|error| error.to_string())
}

fn put(wallet: &Wallet, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = wallet.hotkey_path(name).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn a_phrase_becomes_the_seed_and_address_that_substrate_says() {
    for phrase in [PHRASE.to_owned(), PHRASE.to_uppercase(), format!("\n {} ", PHRASE.replace(' ', "\t  "))] {
        let secret = Secret::from_phrase(&phrase).unwrap();
        assert_eq!(hex::encode(secret.seed().unwrap()), SEED);
        assert_eq!(secret.hotkey().to_string(), ADDRESS);
        assert_eq!(secret.phrase(), Some(PHRASE));
    }
}

#[test]
fn a_phrase_that_is_none_says_where_and_never_which_word() {
    let error = |phrase: &str| Secret::from_phrase(phrase).unwrap_err();
    assert_eq!(error(""), PhraseError::Count(0));
    assert_eq!(error("bottom drive"), PhraseError::Count(2));
    assert_eq!(error(&PHRASE.replace("lake", "lakes")), PhraseError::Word(4));
    assert_eq!(error(&PHRASE.replace("drive obey", "obey drive")), PhraseError::Checksum);
    assert!(matches!(error(&"walk ".repeat(1000)), PhraseError::Count(1000)));
    assert_eq!(error(&"w".repeat(100_000)), PhraseError::Word(1));
    assert!(!error(&PHRASE.replace("lake", "lakes")).to_string().contains("lake"));
}

#[test]
fn a_new_key_has_its_own_phrase_of_twelve_words() {
    let (one, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
    assert_ne!(one.public(), other.public());
    assert_eq!(one.phrase().unwrap().split(' ').count(), 12);
    assert_eq!(Secret::from_phrase(one.phrase().unwrap()).unwrap().public(), one.public());
}

#[test]
fn what_btcli_wrote_is_read_whatever_else_is_in_it() {
    assert_eq!(address(BTCLI).unwrap(), ADDRESS);
    assert_eq!(address(&BTCLI.replacen('{', "{\"meta\":{\"whenCreated\":1},", 1)).unwrap(), ADDRESS);
    let secret = keyfile::secret(BTCLI.as_bytes()).unwrap();
    let btcli: serde_json::Value = serde_json::from_str(BTCLI).unwrap();
    let ours: serde_json::Value = serde_json::from_slice(&keyfile::json(&secret)).unwrap();
    assert_eq!(ours, btcli, "the same fields, with the same values");
}

/// What counts is the secret of the public key that the file names: some versions wrote a seed that is none.
#[test]
fn any_one_of_the_secrets_is_enough() {
    let field = |name: &str| {
        let value: serde_json::Value = serde_json::from_str(BTCLI).unwrap();
        format!("{{\"{name}\":{},\"publicKey\":{}}}", value[name], value["publicKey"])
    };
    for name in ["privateKey", "secretSeed", "secretPhrase"] {
        assert_eq!(address(&field(name)).unwrap(), ADDRESS, "{name}");
    }
    assert_eq!(address(&BTCLI.replace(&format!("0x{SEED}"), "0x\\u0011\\u0011")).unwrap(), ADDRESS);
    assert_eq!(address(&format!("0x{SEED}\n")).unwrap(), ADDRESS, "the oldest files");
}

#[test]
fn a_file_that_is_no_key_says_why() {
    let said = |json: &str| address(json).unwrap_err();
    assert!(said("hello").contains("line 1"), "{}", said("hello"));
    assert!(said("{}").contains("neither"));
    assert!(said(&BTCLI.replace("\"cryptoType\":1", "\"cryptoType\":0")).contains("cryptoType 0"));
    assert!(said(&String::from_utf8(keyfile::public_json(&[7; 32])).unwrap()).contains("only a public key"));
    let other = Secret::from_seed([9; 32]);
    let mixed =
        BTCLI.replace(&hex::encode(Secret::from_phrase(PHRASE).unwrap().public()), &hex::encode(other.public()));
    assert!(said(&mixed).contains("another key's"), "{}", said(&mixed));
}

/// Without the phrase, whose stretching would take most of the time.
#[test]
fn a_damaged_keyfile_never_panics() {
    let (before, rest) = BTCLI.split_once("\"secretPhrase\"").unwrap();
    let (_, after) = rest.split_once(',').unwrap();
    let whole = format!("{before}{after}");
    assert_eq!(address(&whole).unwrap(), ADDRESS);
    for at in 0..whole.len() {
        let cut = keyfile::secret(&whole.as_bytes()[..at]);
        assert!(cut.is_err(), "{at} bytes");
        let mut changed = whole.clone().into_bytes();
        changed[at] ^= 0x11;
        if let Ok(secret) = keyfile::secret(&changed) {
            assert_eq!(secret.coldkey().to_string(), ADDRESS, "byte {at}");
        }
    }
}

#[test]
fn errors_and_debug_show_no_secret() {
    let secret = Secret::from_phrase(PHRASE).unwrap();
    let shown = format!("{secret:?} {:?}", Wallet::at(Path::new("/w"), "a").unwrap());
    assert!(!shown.contains("bottom") && !shown.contains(&SEED[..8]), "{shown}");
    let broken = BTCLI.replace("\"cryptoType\":1", "\"cryptoType\":\"bottom drive\"");
    let error = format!("{:?} {0}", keyfile::secret(broken.as_bytes()).unwrap_err());
    assert!(!error.contains("bottom"), "{error}");
}

#[test]
fn a_wallet_is_made_in_btcli_s_layout_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wallets");
    let (cold, hot) = (Secret::from_phrase(PHRASE).unwrap(), Secret::from_seed([3; 32]));
    let wallet = Wallet::create(&path, "alice", &cold, &[("h1", &hot)], Write::default()).unwrap();
    for (file, mode) in [
        ("", 0o700),
        ("hotkeys", 0o700),
        ("coldkey", 0o600),
        ("coldkeypub.txt", 0o600),
        ("hotkeys/h1", 0o600),
        ("hotkeys/h1pub.txt", 0o600),
    ] {
        assert_eq!(fs::metadata(wallet.folder().join(file)).unwrap().mode() & 0o777, mode, "{file}");
    }
    assert_eq!(fs::read_dir(wallet.folder().join("hotkeys")).unwrap().count(), 2, "nothing is left beside");
    assert_eq!(wallet.hotkey("h1", &Unlock::Environment).unwrap().hotkey(), hot.hotkey());
    assert_eq!(wallet.coldkey(&Unlock::Environment).unwrap().coldkey().to_string(), ADDRESS);
    assert_eq!(wallet.coldkey_public().unwrap().to_string(), ADDRESS);
    assert_eq!(wallet.hotkey_public("h1").unwrap(), hot.hotkey());
    // Older wallets have no public files of hotkeys.
    fs::remove_file(wallet.folder().join("hotkeys/h1pub.txt")).unwrap();
    assert_eq!(wallet.hotkey_public("h1").unwrap(), hot.hotkey());
}

#[test]
fn a_key_that_is_there_stays_unless_it_is_forced() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (Secret::from_seed([1; 32]), Secret::from_seed([2; 32]));
    let create = |cold: &Secret, hotkey: &str, force| {
        Wallet::create(folder.path(), "w", cold, &[(hotkey, &one)], Write { password: None, force })
    };
    let wallet = create(&one, "a", false).unwrap();
    let before = fs::read(wallet.coldkey_path()).unwrap();
    let error = create(&other, "b", false).unwrap_err().to_string();
    assert!(error.contains("coldkey is there already") && error.contains("--force"), "{error}");
    assert_eq!(fs::read(wallet.coldkey_path()).unwrap(), before);
    assert!(!wallet.hotkey_path("b").unwrap().exists(), "all or nothing");
    assert!(wallet.write_hotkey("a", &other, Write::default()).is_err());
    create(&other, "a", true).unwrap();
    assert_eq!(wallet.coldkey_public().unwrap(), other.coldkey());
    // A machine without the coldkey has its public file, which is not made another's.
    let bare = Wallet::at(folder.path(), "bare").unwrap();
    bare.write_coldkey_public(&one.coldkey(), false).unwrap();
    assert!(bare.write_coldkey(&other, Write::default()).unwrap_err().to_string().contains("coldkeypub.txt is there"));
    bare.write_coldkey(&one, Write::default()).unwrap();
}

#[test]
fn a_secret_that_others_can_read_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let wallet = Wallet::at(folder.path(), "w").unwrap();
    for mode in [0o640, 0o604, 0o620, 0o666] {
        let path = put(&wallet, "h", BTCLI, mode);
        let error = wallet.hotkey("h", &Unlock::Environment).unwrap_err().to_string();
        assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
        assert!(error.contains(&format!("{mode:04o}")), "{error}");
    }
    put(&wallet, "h", BTCLI, 0o400);
    assert!(wallet.hotkey("h", &Unlock::Environment).is_ok());
}

#[test]
fn a_huge_or_missing_file_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let wallet = Wallet::at(folder.path(), "w").unwrap();
    assert!(Wallet::open(folder.path(), "w").unwrap_err().to_string().contains("covey wallet"));
    put(&wallet, "h", &"x".repeat(files::KEYFILE_BYTES_MAX + 1), 0o600);
    assert!(wallet.hotkey("h", &Unlock::Environment).unwrap_err().to_string().contains("no keyfile"));
    assert!(
        wallet.hotkey("none", &Unlock::Environment).unwrap_err().to_string().contains("hotkeys/none: No such file")
    );
}

#[test]
fn a_name_is_one_part_of_a_path() {
    for wrong in ["", ".", "..", "a/b", "../x", ".hidden", "a b", "ä", &"x".repeat(65)] {
        assert!(Wallet::at(Path::new("/w"), wrong).is_err(), "{wrong:?}");
        assert!(Wallet::at(Path::new("/w"), "w").unwrap().hotkey_path(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn an_encrypted_key_without_its_password_names_the_variable() {
    let folder = tempfile::tempdir().unwrap();
    let wallet = Wallet::at(folder.path(), "w").unwrap();
    let path = put(&wallet, "h", "$NACLxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 0o600);
    let error = wallet.hotkey("h", &Unlock::Environment).unwrap_err().to_string();
    assert!(error.contains("is encrypted") && error.contains(&variable(&path)), "{error}");
    assert!(wallet.hotkey_public("h").unwrap_err().to_string().contains("public file"));
}

#[test]
fn a_list_names_every_key_and_opens_none() {
    let folder = tempfile::tempdir().unwrap();
    let hot = Secret::from_seed([3; 32]);
    let cold = Secret::from_phrase(PHRASE).unwrap();
    let wallet = Wallet::create(folder.path(), "alice", &cold, &[("h2", &hot)], Write::default()).unwrap();
    put(&wallet, "h1", BTCLI, 0o644);
    put(&wallet, "h3", "$NACLx", 0o600);
    Wallet::at(folder.path(), "bob").unwrap().write_coldkey_public(&cold.coldkey(), false).unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let all = list(folder.path()).unwrap();
    assert_eq!(all.iter().map(|wallet| wallet.name.as_str()).collect::<Vec<_>>(), ["alice", "bob"]);
    assert_eq!(all[0].coldkey.as_ref().unwrap().address.as_deref().ok(), Some(ADDRESS));
    let hotkeys: Vec<_> =
        all[0].hotkeys.iter().map(|(name, key)| (name.as_str(), key.encrypted, key.open_mode)).collect();
    assert_eq!(hotkeys, [("h1", false, Some(0o644)), ("h2", false, None), ("h3", true, None)]);
    assert!(all[0].hotkeys[2].1.address.is_err());
    assert!(!all[1].coldkey.as_ref().unwrap().is_here, "only the public half");
}
