//! `covey register`: takes a uid for a node's hotkey, which its coldkey pays for. Shows the price and asks first.

use super::{Done, Failure, Plain};
use crate::chain::Ledger;
use crate::chain::substrate::{Price, Settings, SubstrateLedger};
use crate::config::NodeConfig;
use crate::service::read_run;
use crate::wallet::{Unlock, Wallet};
use clap::Args;
use covey_proto::{Coldkey, Hotkey};
use std::fmt;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::str::FromStr;

const RAO_OF_TAO: u64 = 1_000_000_000;

#[derive(Debug, Args)]
pub(super) struct RegisterArgs {
    /// The node's node.toml: run, chain and wallet.
    #[arg(long, value_name = "FILE", default_value = "node.toml")]
    config: PathBuf,
    /// Pay no more than so many TAO [default: a twentieth more than the price that is shown].
    #[arg(long, value_name = "TAO")]
    limit: Option<Tao>,
    /// Pay without asking.
    #[arg(long)]
    yes: bool,
}

/// An amount, in rao.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tao(u64);

impl fmt::Display for Tao {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:09}", self.0 % RAO_OF_TAO);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        write!(f, "{}{point}{fraction} TAO", self.0 / RAO_OF_TAO)
    }
}

impl FromStr for Tao {
    type Err = Plain;
    fn from_str(text: &str) -> Result<Tao, Plain> {
        let wrong =
            || Plain(format!("{text:?} is no amount of TAO, like 0.5: digits, and at most nine after the point"));
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) || fraction.len() > 9 {
            return Err(wrong());
        }
        let rao = format!("{fraction:0<9}").parse::<u64>().map_err(|_| wrong())?;
        let whole = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(RAO_OF_TAO));
        whole.and_then(|whole| whole.checked_add(rao)).map(Tao).ok_or_else(wrong)
    }
}

/// Who registers, and who pays.
struct Keys {
    wallet: Wallet,
    hotkey: Hotkey,
    coldkey: Coldkey,
}

pub(super) fn run(args: &RegisterArgs) -> Result<Done, Failure> {
    let config = NodeConfig::load(&args.config)?;
    let run = read_run(&config.run)?;
    let wallet = Wallet::open(&config.wallet.path, &config.wallet.name)?;
    // Public halves are enough until it is paid.
    let (hotkey, coldkey) = (wallet.hotkey_public(&config.wallet.hotkey)?, wallet.coldkey_public()?);
    let keys = Keys { wallet, hotkey, coldkey };
    let settings = Settings::new(config.chain.endpoints, run.chain.netuid);
    let second_opinion = config.chain.second_opinion;
    let settings = Settings { genesis: Some(run.chain.genesis), second_opinion, ..settings };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let done = runtime.block_on(async {
        tokio::select! {
            done = register(args, keys, settings) => done,
            by = super::signals::stopped() => Ok(Done::Stopped(by)),
        }
    });
    // A prompt may still wait for an answer.
    runtime.shutdown_background();
    done
}

async fn register(args: &RegisterArgs, keys: Keys, settings: Settings) -> Result<Done, Failure> {
    let Keys { wallet, hotkey, coldkey } = keys;
    let netuid = settings.netuid;
    let ledger = SubstrateLedger::connect(settings).await?;
    let finalised = ledger.heads().borrow().finalised;
    if let Some(member) = ledger.view(finalised).await?.member(&hotkey) {
        println!("hotkey {hotkey} is registered on subnet {netuid}: uid {}", member.uid);
        return Ok(Done::Well);
    }
    let price = ledger.price(coldkey, hotkey).await?;
    let limit = args.limit.unwrap_or(Tao(price.burn.saturating_add(price.burn / 20)));
    println!("{}", bill(netuid, hotkey, coldkey, &price, limit));
    affordable(&price, limit)?;
    let yes = args.yes;
    let agreed = tokio::task::spawn_blocking(move || if yes { Ok(true) } else { ask() }).await??;
    if !agreed {
        println!("nothing was paid");
        return Ok(Done::Well);
    }
    // Opening it takes seconds of a core and half a gigabyte.
    let pair = tokio::task::spawn_blocking(move || wallet.coldkey(&Unlock::Ask)).await??;
    println!("registering; final in some blocks …");
    let registered = ledger.register(&pair, hotkey, Some(limit.0)).await?;
    println!("registered: uid {} on subnet {netuid}, at block {}", registered.uid, registered.block);
    Ok(Done::Well)
}

fn bill(netuid: u16, hotkey: Hotkey, coldkey: Coldkey, price: &Price, limit: Tao) -> String {
    let holds =
        if price.limited { "" } else { "\n          this chain takes the price of its block, whatever the limit" };
    format!(
        "a uid on subnet {netuid}\n  for     hotkey {hotkey}\n  price   {}, at most {limit}; fee {}{holds}\n  from    coldkey \
         {coldkey}, which has {}",
        Tao(price.burn),
        Tao(price.fee),
        Tao(price.funds)
    )
}

fn affordable(price: &Price, limit: Tao) -> Result<(), Plain> {
    if price.burn > limit.0 {
        let burn = Tao(price.burn);
        return Err(Plain(format!(
            "the price is {burn}, the limit {limit}: raise --limit, or wait: it falls with time"
        )));
    }
    let needed = price.burn.saturating_add(price.fee);
    if price.funds < needed {
        return Err(Plain(format!(
            "the coldkey has {}, and {} is needed: send it some",
            Tao(price.funds),
            Tao(needed)
        )));
    }
    Ok(())
}

fn ask() -> Result<bool, Plain> {
    if !std::io::stdin().is_terminal() {
        return Err(Plain("nobody can be asked without a terminal: give --yes to pay".into()));
    }
    let failed = |error| Plain(format!("the answer cannot be read: {error}"));
    print!("pay and register? [y/N] ");
    std::io::stdout().flush().map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().lock().take(64).read_line(&mut answer).map_err(failed)?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_shown_to_the_rao() {
        for (text, rao, shown) in [
            ("0.5", 500_000_000, "0.5 TAO"),
            ("12", 12_000_000_000, "12 TAO"),
            ("0.000000001", 1, "0.000000001 TAO"),
            ("1.100", 1_100_000_000, "1.1 TAO"),
        ] {
            let tao: Tao = text.parse().unwrap();
            assert_eq!((tao.0, tao.to_string().as_str()), (rao, shown));
        }
        for wrong in ["", ".5", "1.", "-1", "1e3", "0.0000000001", "1 TAO", "99999999999", "½"] {
            assert!(wrong.parse::<Tao>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_too_dear_or_not_there_is_refused_before_a_password_is_asked() {
        let price = Price { burn: 1_000_000_000, fee: 1_000, funds: 1_000_000_500, limited: true };
        let said = |price: &Price, limit| affordable(price, Tao(limit)).unwrap_err().to_string();
        assert!(said(&price, 999_999_999).contains("--limit"));
        assert!(said(&price, 2_000_000_000).contains("1.000001 TAO is needed"), "{}", said(&price, 2_000_000_000));
        assert!(affordable(&Price { funds: 1_000_001_000, ..price }, Tao(1_000_000_000)).is_ok());
    }
}
