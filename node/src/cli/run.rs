//! `covey run`: a run.toml made, shown, checked. What is in one, and what may be, is `covey_proto::run`'s.

mod show;

use super::{Done, Failure, Plain};
use crate::chain::substrate::{Settings, SubstrateLedger, check_space};
use crate::chain::{Ledger, LedgerError};
use crate::preset::{Template, genesis_state, given_state};
use crate::service::read_run;
use clap::{Args, Subcommand, ValueEnum};
use covey_proto::run::{Chain, Phase, Run};
use covey_proto::{BlockNumber, Digest, Hotkey, Round};
use covey_round::clock;
use covey_round::engine::Roles;
use covey_trainer::data::Dataset;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum RunCommand {
    /// Show a run: its id, a round in blocks and time, the model, what a node needs for it.
    Show {
        /// The run.toml.
        #[arg(value_name = "FILE", default_value = "run.toml")]
        file: PathBuf,
        /// Seconds of a block, which the chain decides: Bittensor's are 12.
        #[arg(long, value_name = "SECONDS", default_value_t = 12.0)]
        block: f64,
    },
    /// Make a run.toml from a preset, for a chain and a data set.
    New(NewArgs),
    /// Check a run.toml: its numbers, the genesis state, and what it says of data and chain.
    Check(CheckArgs),
}

#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// demo, covenant, internet, tiny, or a run file that ends in .toml.
    #[arg(long, default_value = "demo")]
    preset: String,
    /// The chain's genesis hash [default: asked of --chain].
    #[arg(long, value_name = "HEX", value_parser = hash, required_unless_present = "chain")]
    genesis: Option<Digest>,
    /// A chain, as a WebSocket URL: it must have the genesis hash and the subnet.
    #[arg(long, value_name = "URL")]
    chain: Option<String>,
    /// The subnet.
    #[arg(long, value_name = "N")]
    netuid: u16,
    /// The block at which round 0 starts.
    #[arg(long, value_name = "BLOCK")]
    start: u32,
    /// The training data: a prepared data set (`covey data prepare`).
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// A model's folder in Hugging Face's layout to go on from: its shapes are the run's, and its state is what the run
    /// begins with. The data must be of its tokenizer (`covey data prepare --tokenizer`).
    #[arg(long, value_name = "DIR")]
    from_model: Option<PathBuf>,
    /// Another prepared data set from this round on. May be repeated.
    #[arg(long = "phase", value_name = "ROUND:DIR", value_parser = super::data::phase)]
    phases: Vec<(Round, PathBuf)>,
    /// A round's blocks and electorate: those of the preset suit a chain of one's own.
    #[arg(long, value_enum, default_value = "preset")]
    clock: ClockArg,
    /// Another number than the preset's, like inner.batch=32. May be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    changes: Vec<String>,
    /// The file to write; one that is there stays.
    #[arg(long, value_name = "FILE", default_value = "run.toml")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ClockArg {
    /// The preset's.
    Preset,
    /// 23 minutes of blocks of 12 s, up to 20 contributions a round of at least 4.
    Bittensor,
}

/// The table of docs/protocol.md, section 3.
const BITTENSOR: [&str; 10] = [
    "clock.length=115",
    "clock.anchor=5",
    "clock.commit=92",
    "clock.vote=108",
    "clock.commit_margin=4",
    "clock.announce_margin=8",
    "clock.vote_margin=3",
    "electorate.window=8",
    "electorate.contributions_max=20",
    "electorate.contributions_min=4",
];

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The run.toml.
    #[arg(value_name = "FILE", default_value = "run.toml")]
    file: PathBuf,
    /// The data set that should be the run's, or one of its phases'.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The chain that should be the run's, as a WebSocket URL.
    #[arg(long, value_name = "URL")]
    chain: Option<String>,
    /// The folder of the model that the run should go on from.
    #[arg(long, value_name = "DIR")]
    genesis: Option<PathBuf>,
    /// Leave the genesis state out, which takes four bytes a parameter of memory.
    #[arg(long)]
    no_state: bool,
}

/// A genesis hash, as chains write it (0x…) or as Covey does.
fn hash(text: &str) -> Result<Digest, String> {
    text.strip_prefix("0x").unwrap_or(text).parse().map_err(|error| format!("{error}"))
}

pub(super) fn run(command: RunCommand) -> Result<Done, Failure> {
    match command {
        RunCommand::Show { file, block } => {
            if !(block > 0.0 && block < 1e6) {
                return Err(Plain(format!("--block is {block}; it must be a number of seconds above 0")).into());
            }
            print!("{}", show::text(&read_run(&file)?, block));
            Ok(Done::Well)
        }
        RunCommand::New(args) => new(&args),
        RunCommand::Check(args) => check(&args),
    }
}

fn new(args: &NewArgs) -> Result<Done, Failure> {
    let mut template = Template::load(&args.preset)?;
    if let Some(model) = &args.from_model {
        template = template.from_model(model)?;
    }
    if args.clock == ClockArg::Bittensor {
        template = template.with(&BITTENSOR.map(str::to_owned))?;
    }
    let template = template.with(&args.changes)?;
    let dataset = Dataset::open(&args.data, None)?;
    let genesis = match (&args.chain, args.genesis) {
        (Some(url), genesis) => on_chain(url, args.netuid, genesis, async |ledger| Ok(ledger.genesis()))?,
        (None, Some(genesis)) => genesis,
        (None, None) => return Err(Plain("give --genesis or --chain".into()).into()),
    };
    let chain = Chain { genesis, netuid: args.netuid, start: args.start, genesis_state: Digest::ZERO };
    let mut run = template.fill(chain, &dataset)?;
    for (from, folder) in &args.phases {
        run.phases.push(phase(&run, *from, &dataset, &Dataset::open(folder, None)?)?);
    }
    let run = run.checked()?;
    let out = args.out.display();
    let written = File::create_new(&args.out).and_then(|mut file| {
        file.write_all(run.to_toml().as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Plain(format!("{out} is there already; give another --out")),
        _ => Plain(format!("{out}: {error}")),
    })?;
    println!("{out} written: run {}", run.id());
    println!("every node of the run needs this file; covey run show {out} prints its id");
    if let Some(model) = &args.from_model {
        println!(
            "the run begins with {}: start the first node with it, the others have its state from peers:",
            model.display()
        );
        println!("  covey seeder --config node.toml --genesis {}", model.display());
    }
    Ok(Done::Well)
}

/// The data of a phase, cut into the tokens of the run's first data.
fn phase(run: &Run, from: Round, first: &Dataset, data: &Dataset) -> Result<Phase, Failure> {
    let place = data.folder().display();
    if data.manifest().tokenizer != first.manifest().tokenizer {
        let first = first.tokenizer_path();
        return Err(
            Plain(format!("{place} has another tokenizer: prepare it with --tokenizer {}", first.display())).into()
        );
    }
    match data.samples(run.model.sequence) {
        0 => Err(Plain(format!("{place} holds no whole sequence of {} tokens", run.model.sequence)).into()),
        samples => Ok(Phase { from: from.0, digest: data.digest(), samples }),
    }
}

/// Connects, asks, disconnects.
fn on_chain<T>(
    url: &str,
    netuid: u16,
    genesis: Option<Digest>,
    ask: impl AsyncFnOnce(&SubstrateLedger) -> Result<T, LedgerError>,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let settings = Settings { genesis, ..Settings::new(vec![url.to_owned()], netuid) };
        let ledger = SubstrateLedger::connect(settings).await?;
        Ok(ask(&ledger).await?)
    })
}

/// Who commits, and what.
const ROLES: [(&str, Roles); 2] =
    [("miner", Roles { miner: true, validator: false }), ("validator", Roles { miner: false, validator: true })];

/// What a check has found, said as it is found.
#[derive(Default)]
struct Findings {
    differs: bool,
}

impl Findings {
    fn say(&mut self, what: &str, fine: bool, says: &str) {
        self.differs |= !fine;
        let mark = if fine { "ok  " } else { "NOT " };
        println!("{mark} {what:<14} {says}");
    }
}

fn check(args: &CheckArgs) -> Result<Done, Failure> {
    let run = read_run(&args.file)?;
    println!("run {}", run.id());
    let mut findings = Findings::default();
    findings.say("numbers", true, "every one is within its bounds");
    if !args.no_state {
        check_state(&run, args.genesis.as_deref(), &mut findings)?;
    }
    if let Some(folder) = &args.data {
        check_data(&run, &Dataset::open(folder, None)?, &mut findings);
    }
    if let Some(url) = &args.chain {
        check_chain(&run, url, &mut findings)?;
    }
    Ok(if findings.differs { Done::Differs } else { Done::Well })
}

/// Whether the state that the run begins with is what its file says: drawn here, or the state of a model that is given.
fn check_state(run: &Run, model: Option<&Path>, findings: &mut Findings) -> Result<(), Failure> {
    let needed = run.chain.genesis_state;
    let (got, from) = match (model, genesis_state(run)) {
        (Some(model), _) => (given_state(run, model)?, model.display().to_string()),
        (None, Ok(drawn)) => (drawn, "this binary".to_owned()),
        (None, Err(_)) => {
            let says = format!("{}, of a model: give its folder (--genesis) to have it checked", needed.short());
            findings.say("genesis state", true, &says);
            return Ok(());
        }
    };
    let says = match got == needed {
        true => format!("{from} gives the same"),
        false => format!("{from} gives {}, the run says {}", got.short(), needed.short()),
    };
    findings.say("genesis state", got == needed, &says);
    Ok(())
}

fn check_data(run: &Run, dataset: &Dataset, findings: &mut Findings) {
    // The phase that has it; the first one's data is meant where none has.
    let firsts = std::iter::once(0).chain(run.phases.iter().map(|phase| phase.from));
    let mut sets = firsts.map(|from| run.data_of(Round(from)));
    let data = sets.find(|data| data.digest == dataset.digest()).unwrap_or(run.data);
    let (got, needed) = (dataset.digest(), data.digest);
    let says = match got == needed {
        true => format!("{}, of {} tokens", got.short(), dataset.train_tokens()),
        false => format!("this is {}, the run's is {}", got.short(), needed.short()),
    };
    findings.say("data", got == needed, &says);
    let (has, counts) = (dataset.samples(run.model.sequence), data.samples);
    findings.say("samples", counts <= has, &format!("the run counts {counts}, the data has {has}"));
    let (has, needed) = (dataset.vocabulary(), run.model.vocabulary);
    findings.say("vocabulary", has <= needed, &format!("{has} tokens in the data, {needed} in the model"));
}

fn check_chain(run: &Run, url: &str, findings: &mut Findings) -> Result<(), Failure> {
    // What is free for a hotkey that has committed nothing, as nobody's zeros have.
    let nobody = Hotkey::new([0; 32]);
    let ask = async |ledger: &SubstrateLedger| {
        let at = ledger.heads().borrow().finalised;
        Ok((ledger.genesis(), at, ledger.space(nobody).await?))
    };
    let (genesis, at, space) = on_chain(url, run.chain.netuid, None, ask)?;
    let needed = run.chain.genesis;
    let says = match genesis == needed {
        true => format!("{}, with subnet {}", genesis.short(), run.chain.netuid),
        false => format!("this is {}, the run is on {}", genesis.short(), needed.short()),
    };
    findings.say("chain", genesis == needed, &says);
    for (role, roles) in ROLES {
        let fits = check_space(run.clock.length, roles, space.epoch, space.max);
        let says = match &fits {
            Ok(()) => format!("a {role}'s commitments fit into the {} bytes of an epoch", space.max),
            Err(error) => format!("as a {role}: {error}"),
        };
        findings.say("space", fits.is_ok(), &says);
    }
    if genesis == needed {
        findings.say("start", true, &when(run, at));
    }
    Ok(())
}

/// Where the run is at a block.
fn when(run: &Run, at: BlockNumber) -> String {
    let start = run.chain.start;
    match clock::last_anchored(run, at) {
        Some(round) => format!("round {round} at final block {at}"),
        None => format!("round 0 begins at block {start}; the final block is {at}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use covey_proto::run::{Chain, Data};

    #[test]
    fn the_internet_preset_has_bittensors_clock() {
        let chain = Chain { genesis: Digest::ZERO, netuid: 1, start: 10, genesis_state: Digest::ZERO };
        let data = Data { digest: Digest::ZERO, samples: 1000 };
        let id = |template: &Template| template.resolve(&chain, &data).unwrap().id();
        let [internet, demo] = ["internet", "demo"].map(|name| Template::load(name).unwrap());
        let on_bittensor = |template: Template| template.with(&BITTENSOR.map(str::to_owned)).unwrap();
        let (before, other) = (id(&internet), id(&demo));
        assert_eq!(id(&on_bittensor(internet)), before);
        assert_ne!(id(&on_bittensor(demo)), other);
    }
}
