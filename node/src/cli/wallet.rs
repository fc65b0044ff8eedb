//! `covey wallet`: makes keys, brings them in, shows which there are. Secrets are never arguments, which other users of
//! the machine can see, and a new phrase is shown once, on a terminal.

use super::{Done, Failure, Plain};
use crate::config::{WALLETS, of_home};
use crate::wallet::{KeyEntry, Password, Secret, Wallet, WalletEntry, Write, list};
use clap::{Args, Subcommand};
use covey_proto::Coldkey;
use std::io::{BufRead, IsTerminal, Read};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Characters of the longest line that a secret is read from.
const LINE_MAX: u64 = 1024;

#[derive(Debug, Subcommand)]
pub(super) enum WalletCommand {
    /// Make a wallet: a coldkey, encrypted, and a hotkey. Shows their phrases once.
    New(NewArgs),
    /// Bring a key in: its phrase or seed is asked for, or read from standard input.
    #[command(subcommand)]
    Import(ImportCommand),
    /// Show all wallets with the addresses of their keys.
    List {
        /// The folder of all wallets.
        #[arg(long, visible_alias = "wallet-path", value_name = "DIR", default_value = WALLETS)]
        path: PathBuf,
    },
}

/// Which wallet.
#[derive(Debug, Args)]
pub(super) struct WhichArgs {
    /// The folder of all wallets.
    #[arg(long, visible_alias = "wallet-path", value_name = "DIR", default_value = WALLETS)]
    path: PathBuf,
    /// The wallet.
    #[arg(long, visible_alias = "wallet-name", value_name = "NAME", default_value = "default")]
    wallet: String,
}

impl WhichArgs {
    fn wallet(&self) -> Result<Wallet, Failure> {
        Ok(Wallet::at(&of_home(&self.path), &self.wallet)?)
    }
}

#[derive(Debug, Args)]
pub(super) struct NewArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// The hotkey.
    #[arg(long, value_name = "NAME", default_value = "default")]
    hotkey: String,
    /// Make no coldkey: one more hotkey for a wallet that is there.
    #[arg(long)]
    hotkey_only: bool,
    #[command(flatten)]
    how: HowArgs,
}

/// How a key is written.
#[derive(Debug, Args)]
pub(super) struct HowArgs {
    /// Do not encrypt the coldkey: whoever reads the file can spend.
    #[arg(long)]
    no_password: bool,
    /// Replace a key that is there. It is gone then, unless its phrase is written down somewhere.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum ImportCommand {
    /// A coldkey, from its phrase or seed.
    Coldkey {
        #[command(flatten)]
        which: WhichArgs,
        #[command(flatten)]
        how: HowArgs,
    },
    /// A hotkey, from its phrase or seed.
    Hotkey {
        #[command(flatten)]
        which: WhichArgs,
        /// The hotkey.
        #[arg(long, value_name = "NAME", default_value = "default")]
        hotkey: String,
        /// Replace a key that is there. It is gone then, unless its phrase is written down somewhere.
        #[arg(long)]
        force: bool,
    },
    /// A coldkey's address alone: all that a machine needs that only mines or validates.
    Coldkeypub {
        #[command(flatten)]
        which: WhichArgs,
        /// The address.
        #[arg(long, value_name = "SS58")]
        ss58: Coldkey,
        /// Replace one that is there.
        #[arg(long)]
        force: bool,
    },
}

pub(super) fn run(command: WalletCommand) -> Result<Done, Failure> {
    match command {
        WalletCommand::New(args) => new(&args)?,
        WalletCommand::Import(ImportCommand::Coldkey { which, how }) => {
            let wallet = which.wallet()?;
            if !how.force {
                wallet.check_free(true, &[])?;
            }
            let secret = asked_for("coldkey")?;
            write_coldkey(&wallet, &secret, &how)?;
            println!("coldkey {}: {}", secret.coldkey(), wallet.coldkey_path().display());
        }
        WalletCommand::Import(ImportCommand::Hotkey { which, hotkey, force }) => {
            let wallet = which.wallet()?;
            if !force {
                wallet.check_free(false, &[&hotkey])?;
            }
            let secret = asked_for("hotkey")?;
            wallet.write_hotkey(&hotkey, &secret, Write { password: None, force })?;
            println!("hotkey {}: {}", secret.hotkey(), wallet.hotkey_path(&hotkey)?.display());
        }
        WalletCommand::Import(ImportCommand::Coldkeypub { which, ss58, force }) => {
            let wallet = which.wallet()?;
            wallet.write_coldkey_public(&ss58, force)?;
            println!("coldkey {ss58}, its address alone: {}", wallet.folder().display());
        }
        WalletCommand::List { path } => {
            let path = of_home(&path);
            let wallets = if path.exists() { list(&path)? } else { Vec::new() };
            print!("{}", tree(&path.display().to_string(), &wallets));
        }
    }
    Ok(Done::Well)
}

fn new(args: &NewArgs) -> Result<(), Failure> {
    let wallet = args.which.wallet()?;
    if !args.how.force {
        wallet.check_free(!args.hotkey_only, &[&args.hotkey]).map_err(|error| {
            let has_coldkey = !args.hotkey_only && wallet.coldkey_path().exists();
            let more = if has_coldkey { "; --hotkey-only adds a hotkey to this wallet" } else { "" };
            Plain(format!("{error}{more}"))
        })?;
    }
    let hotkey = Secret::generate()?;
    if !args.hotkey_only {
        let coldkey = Secret::generate()?;
        write_coldkey(&wallet, &coldkey, &args.how)?;
        println!("coldkey {}: {}", coldkey.coldkey(), wallet.coldkey_path().display());
        show_phrase("coldkey", &coldkey);
    }
    wallet.write_hotkey(&args.hotkey, &hotkey, Write { password: None, force: args.how.force })?;
    println!("hotkey  {}: {}", hotkey.hotkey(), wallet.hotkey_path(&args.hotkey)?.display());
    show_phrase("hotkey", &hotkey);
    Ok(())
}

fn write_coldkey(wallet: &Wallet, secret: &Secret, how: &HowArgs) -> Result<(), Failure> {
    let password = match how.no_password {
        true => None,
        false => Some(Password::for_new(&wallet.coldkey_path())?),
    };
    if password.is_some() {
        eprintln!("encrypting, some seconds …");
    }
    Ok(wallet.write_coldkey(secret, Write { password: password.as_ref(), force: how.force })?)
}

/// On a terminal only: what is written to a file or a log stays there.
fn show_phrase(kind: &str, secret: &Secret) {
    let Some(phrase) = secret.phrase() else { return };
    if !std::io::stdout().is_terminal() {
        eprintln!("the {kind}'s phrase is in its file alone: standard output is no terminal, so it is not shown");
        return;
    }
    println!("\nThe {kind}'s phrase. Write it down and keep it where nobody finds it: whoever");
    println!("has it has the key, and it is not shown again.\n");
    let words: Vec<&str> = phrase.split(' ').collect();
    for line in words.chunks(6) {
        println!("    {}", line.join(" "));
    }
    println!();
}

/// A phrase or a seed, from a terminal without echo or from standard input.
fn asked_for(kind: &str) -> Result<Secret, Failure> {
    let text = if std::io::stdin().is_terminal() {
        Zeroizing::new(rpassword::prompt_password(format!("the {kind}'s phrase, or its seed (not shown): "))?)
    } else {
        // Room for it from the beginning: growing would leave copies behind.
        let mut line = Zeroizing::new(String::with_capacity(LINE_MAX as usize));
        std::io::stdin().lock().take(LINE_MAX).read_line(&mut line)?;
        line
    };
    let text = text.trim();
    if text.is_empty() {
        return Err(Plain(format!("no phrase or seed of the {kind} was given")).into());
    }
    let is_seed = !text.contains(char::is_whitespace) && (text.starts_with("0x") || text.len() == 64);
    Ok(if is_seed { Secret::from_seed_hex(text)? } else { Secret::from_phrase(text)? })
}

/// Wallets with their keys, at most 80 columns where names are short.
fn tree(path: &str, wallets: &[WalletEntry]) -> String {
    let mut text = format!("{path}\n");
    if wallets.is_empty() {
        text += "no wallets; covey wallet new makes one\n";
    }
    for (at, wallet) in wallets.iter().enumerate() {
        let is_last = at + 1 == wallets.len();
        let (branch, stem) = if is_last { ("└── ", "    ") } else { ("├── ", "│   ") };
        let coldkey = wallet.coldkey.as_ref().map_or_else(|| "no coldkey".to_owned(), |key| said(key, "coldkey "));
        text += &format!("{branch}{}  {coldkey}\n", wallet.name);
        for (at, (name, key)) in wallet.hotkeys.iter().enumerate() {
            let branch = if at + 1 == wallet.hotkeys.len() { "└── " } else { "├── " };
            text += &format!("{stem}{branch}{name}  {}\n", said(key, ""));
        }
    }
    text
}

fn said(key: &KeyEntry, kind: &str) -> String {
    let mut text = match &key.address {
        Ok(address) => format!("{kind}{address}"),
        Err(_) if key.encrypted => format!("{kind}of an address that only its password tells"),
        Err(error) => format!("{kind}that cannot be read: {error}"),
    };
    match (key.is_here, key.encrypted) {
        (false, _) => text += "  address only",
        (true, true) => text += "  encrypted",
        (true, false) => {}
    }
    if let Some(mode) = key.open_mode {
        text += &format!("  MODE {mode:04o}: chmod 600");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_tree() {
        let key = |address: &str| KeyEntry {
            address: Ok(address.to_owned()),
            is_here: true,
            encrypted: false,
            open_mode: None,
        };
        let wallets = [
            WalletEntry {
                name: "alice".into(),
                coldkey: Some(KeyEntry { encrypted: true, ..key("5A") }),
                hotkeys: vec![
                    ("h1".into(), key("5B")),
                    ("h2".into(), KeyEntry { open_mode: Some(0o644), ..key("5C") }),
                ],
            },
            WalletEntry {
                name: "bob".into(),
                coldkey: Some(KeyEntry { is_here: false, ..key("5D") }),
                hotkeys: vec![],
            },
        ];
        assert_eq!(
            tree("/w", &wallets),
            "/w\n├── alice  coldkey 5A  encrypted\n│   ├── h1  5B\n│   └── h2  5C  MODE 0644: chmod 600\n\
             └── bob  coldkey 5D  address only\n"
        );
        assert!(tree("/w", &[]).contains("covey wallet new"));
    }
}
