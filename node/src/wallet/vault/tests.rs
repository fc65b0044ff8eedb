//! Encrypted files that others wrote open, and nothing else does.

use super::*;

const CHEAP: Cost = Cost { passes: 3, kib: 8 };
const PLAIN: &[u8] = b"{\"ss58Address\":\"a\"}";

fn password() -> Password {
    Password::new("Secret1!pass".into()).unwrap()
}

/// PyNaCl: `argon2i.kdf(32, b"Secret1!pass", SALT, opslimit=3, memlimit=8192)`, `SecretBox(key).encrypt(PLAIN, nonce)`.
const LIBSODIUM: &str = "244e41434c000102030405060708090a0b0c0d0e0f1011121314151617f06e99e2654a12cc98b9efbafbb9faf65c298bf9797df6\
                         eed1e5d1a3d49f67f2845cca";

#[test]
fn what_libsodium_sealed_opens_and_is_sealed_alike() {
    let sealed = hex::decode(LIBSODIUM).unwrap();
    assert_eq!(Kind::of(&sealed), Some(Kind::Nacl));
    assert_eq!(**open_nacl(&sealed, &password(), CHEAP).unwrap(), *PLAIN);
    let nonce = std::array::from_fn(|at| at as u8);
    assert_eq!(seal_nacl(PLAIN, &password(), nonce, CHEAP).unwrap(), sealed);
}

#[test]
fn a_wrong_password_and_a_flipped_bit_are_refused() {
    let sealed = hex::decode(LIBSODIUM).unwrap();
    let wrong = Password::new("Secret1!pasS".into()).unwrap();
    assert_eq!(open_nacl(&sealed, &wrong, CHEAP).unwrap_err(), VaultError::Wrong);
    for at in NACL.len()..sealed.len() {
        let mut damaged = sealed.clone();
        damaged[at] ^= 1;
        assert_eq!(open_nacl(&damaged, &password(), CHEAP).unwrap_err(), VaultError::Wrong, "byte {at}");
    }
    for length in NACL.len()..sealed.len() {
        assert!(open_nacl(&sealed[..length], &password(), CHEAP).is_err(), "{length} bytes");
    }
}

/// bittensor-wallet 4.1.0: `legacy_encrypt_keyfile_data(PLAIN, "Secret1!pass")`.
const VAULT: &str = "$ANSIBLE_VAULT;1.1;AES256
61393432306363383937383431373566346561316533633131363238373361303838366639353133
6433396231663436386531613431316230346333303661610a643835323134383030643635303339
31376332353532653732343431336264656262616234636131313636323435633438386164323836
6662353733363538330a616533626561623061386631333764653739306539343234333462623663
66656337643338373631613735363661303036646234383337373939323535376361
";

#[test]
fn the_older_kind_opens_too() {
    assert_eq!(Kind::of(VAULT.as_bytes()), Some(Kind::Ansible));
    assert_eq!(**open(Kind::Ansible, VAULT.as_bytes(), &password()).unwrap(), *PLAIN);
    let wrong = Password::new("Secret1!pasS".into()).unwrap();
    assert_eq!(open(Kind::Ansible, VAULT.as_bytes(), &wrong).unwrap_err(), VaultError::Wrong);
}

/// The key is stretched once for each that still has three parts; the others fail before.
#[test]
fn a_damaged_older_file_never_panics() {
    for length in 0..VAULT.len() {
        assert!(open_ansible(&VAULT.as_bytes()[..length.min(60)], &password()).is_err());
    }
    let text = VAULT.replace("0a", "0g");
    assert_eq!(open_ansible(text.as_bytes(), &password()).unwrap_err(), VaultError::Form("Ansible"));
    let other = VAULT.replace("1.1;AES256", "1.2;AES256;x");
    assert_eq!(open_ansible(other.as_bytes(), &password()).unwrap_err(), VaultError::Form("Ansible"));
}

#[test]
fn the_oldest_kind_is_named() {
    let token = b"gAAAAABlU_EAAAECAwQFBgcICQoLDA0ODw==";
    assert_eq!(Kind::of(token), Some(Kind::Fernet));
    assert!(open(Kind::Fernet, token, &password()).unwrap_err().to_string().contains("covey wallet import"));
    assert_eq!(Kind::of(b"{\"accountId\":\"0x00\"}"), None);
    assert_eq!(Kind::of(b""), None);
}

#[test]
fn padding_is_taken_off_exactly() {
    let unpadded = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        unpad(&mut bytes).map(|()| bytes)
    };
    assert_eq!(unpadded(b"ab\x02\x02"), Some(b"ab".to_vec()));
    assert_eq!(unpadded(&[16; 16]), Some(vec![]));
    for wrong in [&b""[..], b"ab\x00", b"ab\x01\x02", b"\x03\x03", &[17; 17]] {
        assert_eq!(unpadded(wrong), None, "{wrong:?}");
    }
}
