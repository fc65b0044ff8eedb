//! `covey swarm`, `covey report` and `covey audit`.

use super::signals::stopped;
use super::{Done, Failure, Plain, data, logs};
use crate::audit;
use crate::disk::folder::Folder;
use crate::misbehave::Misbehaviour;
use crate::preset::Template;
use crate::report::{Summary, html, usage};
use crate::swarm::display::Display;
use crate::swarm::{self, Counts, Kill, Options, Script, Swarm};
use clap::Args;
use covey_proto::Round;
use covey_proto::layout::Layout;
use covey_trainer::hf;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Held-out sequences behind each round's loss: 8,192 tokens at the demo's length, a tenth of a second.
const HELDOUT_SEQUENCES: u64 = 64;
/// How long what others have is waited for. Only silence costs it; loopback answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes a second that come from a node which trains meanwhile, at least: a contribution to a large model takes its time.
const LOOPBACK_RATE_MIN: u64 = 1_000_000;

#[derive(Debug, Args)]
pub(super) struct SwarmArgs {
    /// Rounds to run. Default: as many as the preset's learning-rate schedule has, 20 if that is constant.
    #[arg(long)]
    rounds: Option<u32>,
    /// Miners.
    #[arg(long, default_value_t = 4)]
    miners: usize,
    /// Validators. Of two equal ones, either stops a round.
    #[arg(long, default_value_t = 3)]
    validators: usize,
    /// So many of the miners, the first ones, validate too, with one hotkey, as `covey miner --validate` does.
    #[arg(long, default_value_t = 0, value_name = "N")]
    both: usize,
    /// Makes keys, chain and data order: two swarms with one seed in which nobody was late end with the same root.
    #[arg(long)]
    seed: Option<u64>,
    /// Your own text (.txt, .md, .jsonl, a folder of them) or a prepared data set. Default: the documentation of some
    /// well-documented crates, fetched by cargo.
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Other data from this round on: text, conversations, or a prepared data set. May be repeated. Rates are schedules by
    /// round: --set "inner.rate=[[0,0.03],[60,0.003]]".
    #[arg(long = "phase", value_name = "ROUND:PATH", value_parser = data::phase)]
    phases: Vec<(Round, PathBuf)>,
    /// How conversations ("messages" in .jsonl) become text: chatml, a Jinja file, or a model's folder.
    #[arg(long, value_name = "TEMPLATE")]
    chat_template: Option<String>,
    /// demo, covenant, internet, tiny, or a run file that ends in .toml.
    #[arg(long, default_value = "demo")]
    preset: String,
    /// A model's folder in Hugging Face's layout to go on from: its shapes are the run's, its tokenizer the data's, and its
    /// parameters what the first round trains from. One node reads it, the others have it from that one.
    #[arg(long, value_name = "DIR", requires = "data")]
    from_model: Option<PathBuf>,
    /// Another number than the preset's, like model.width=512. May be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    changes: Vec<String>,
    /// Where everything goes: report.html, summary.json, logs, the nodes' folders. Default: covey-swarm, or
    /// covey-swarm-2 and so on if that is taken.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// So many miners misbehave: noise=1, flip=1, corrupt=1, withhold=1, drift=1.
    #[arg(long, value_name = "KIND=N", value_parser = misbehaving)]
    misbehave: Vec<(Misbehaviour, usize)>,
    /// Kill a node's process in a round, and start it again two rounds later: miner-1@3. With a phase (joining, wait,
    /// train, commit, exchange, apply, score): miner-1@3:train. The chain's: devnet@3; it is started again at once.
    #[arg(long, value_name = "NODE@ROUND")]
    kill: Vec<Kill>,
    /// One more miner comes in this round.
    #[arg(long, value_name = "ROUND")]
    join: Vec<u32>,
    /// Cores that each node may use at once. There are more nodes than cores, mostly, and the system shares them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    cores: u16,
    /// Hide validators' weights until a later epoch, as is usual on Bittensor.
    #[arg(long)]
    hidden_weights: bool,
    /// Show every node's status, metrics and peers on this local port, for `covey status --swarm`, `covey peers` and
    /// Prometheus.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    status: SocketAddr,
}

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// The --out folder of a finished swarm.
    dir: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// The --out folder of a finished swarm.
    dir: PathBuf,
}

fn misbehaving(text: &str) -> Result<(Misbehaviour, usize), String> {
    let (kind, count) = text.split_once('=').ok_or_else(|| format!("{text:?} is not KIND=N, like noise=1"))?;
    let count = count.parse().map_err(|_| format!("{count:?} is no number of miners"))?;
    Ok((kind.parse()?, count))
}

pub(super) fn run(args: SwarmArgs) -> Result<Done, Failure> {
    let out = out_folder(args.out.as_deref())?;
    let status = args.status;
    let options = options(args)?;
    logs::start(&out.log("swarm"))?;
    let mut by = None;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(async {
        let mut swarm = Swarm::start(options, out.clone(), Display::new()).await?;
        swarm.show(status).await?;
        Ok::<_, Failure>(swarm.run_to_end(async { by = Some(stopped().await) }).await)
    })?;
    // On the screen first: a full disk must not take the result with it.
    println!("{}", summary_text(&outcome.summary));
    write_report(&outcome.folder, &outcome.summary)?;
    println!("report: {}", outcome.folder.path().join("report.html").display());
    if let Some(error) = outcome.error {
        return Err(error.into());
    }
    Ok(match by {
        _ if !outcome.summary.roots_agree => Done::Differs,
        // Only the report was hastened.
        Some(_) if !outcome.summary.interrupted => Done::Well,
        Some(by) => Done::Stopped(by),
        None => Done::Well,
    })
}

/// What was asked for, checked as far as it can be before anything runs; with the data, which may take a minute to prepare.
fn options(args: SwarmArgs) -> Result<Options, Failure> {
    let template = Template::load(&args.preset)?;
    let template = match &args.from_model {
        Some(model) => template.from_model(model)?,
        None => template,
    };
    let template = template.with(&args.changes)?;
    let rounds = args.rounds.unwrap_or_else(|| template.rounds());
    if rounds == 0 {
        return Err(Plain("--rounds must be at least 1".into()).into());
    }
    let joins = args.join.into_iter().map(Round).collect();
    let script = Script { misbehave: args.misbehave, kills: args.kill, joins };
    let counts = Counts { miners: args.miners, validators: args.validators, both: args.both };
    swarm::check(rounds, counts, &script)?;
    let patience = match template.model() {
        // A quarter of a byte a parameter of each miner, as presets send.
        Some(dir) => {
            let elements = Layout::of(&hf::load_model(dir)?).elements() as u64;
            PATIENCE + Duration::from_secs(elements / 4 * counts.miners as u64 / LOOPBACK_RATE_MIN)
        }
        None => PATIENCE,
    };
    let vocabulary = template.vocabulary().ok_or_else(|| Plain(format!("{} has no model.vocabulary", args.preset)))?;
    let tokens = match &args.from_model {
        Some(model) => data::Tokens::given(model)?,
        None => data::Tokens::Trained(vocabulary),
    };
    let chat_template = args.chat_template.as_deref().map(data::chat_template).transpose()?;
    let data = data::for_swarm(args.data.as_deref(), &tokens, chat_template.as_ref())?;
    let given = data::Tokens::given(&data.tokenizer_path())?;
    let later = |(from, path): (Round, PathBuf)| -> Result<_, Failure> {
        Ok((from, data::for_swarm(Some(&path), &given, chat_template.as_ref())?))
    };
    let phases = args.phases.into_iter().map(later).collect::<Result<_, _>>()?;
    Ok(Options {
        template,
        data,
        phases,
        rounds,
        counts,
        seed: args.seed.map_or_else(random_seed, Ok)?,
        repeatable: args.seed.is_some(),
        script,
        cores: args.cores.into(),
        hidden_weights: args.hidden_weights,
        program: std::env::current_exe()?,
        patience,
        heldout_sequences: HELDOUT_SEQUENCES,
    })
}

fn random_seed() -> Result<u64, Failure> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes)
        .map_err(|error| Plain(format!("the system gives no random seed ({error}); give --seed")))?;
    // Short enough to type again.
    Ok(u64::from(u32::from_le_bytes(bytes)))
}

/// The swarm's folder: the one asked for, which must be new or empty, or the next one of the default's name.
fn out_folder(asked: Option<&Path>) -> Result<Folder, Failure> {
    let is_free = |path: &Path| std::fs::read_dir(path).map_or(!path.exists(), |mut entries| entries.next().is_none());
    let path = match asked {
        Some(path) if is_free(path) => path.to_owned(),
        Some(path) => {
            return Err(Plain(format!("{} is there already and not empty; give another --out", path.display())).into());
        }
        None => {
            let mut names = std::iter::once("covey-swarm".to_owned()).chain((2..).map(|n| format!("covey-swarm-{n}")));
            names.find(|name| is_free(Path::new(name))).map(PathBuf::from).unwrap_or_default()
        }
    };
    std::fs::create_dir_all(&path).map_err(|error| Plain(format!("{}: {error}", path.display())))?;
    Ok(Folder::at(path))
}

fn write_report(folder: &Folder, summary: &Summary) -> Result<(), Failure> {
    write(&folder.path().join("summary.json"), &summary.to_json())?;
    write(&folder.path().join("report.html"), &html(summary))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    Ok(std::fs::write(path, text).map_err(|error| Plain(format!("{}: {error}", path.display())))?)
}

pub(super) fn report(args: &ReportArgs) -> Result<Done, Failure> {
    let path = args.dir.join("summary.json");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Plain(format!("{}: {error}; give the --out folder of a swarm", path.display())))?;
    let summary = Summary::from_json(&text)
        .map_err(|error| Plain(format!("{}: {error}; it is no summary, or another version's", path.display())))?;
    let report = args.dir.join("report.html");
    write(&report, &html(&summary))?;
    println!("report: {}", report.display());
    Ok(Done::Well)
}

/// What a person reads at the end.
fn summary_text(summary: &Summary) -> String {
    let loss = |index: Option<&f64>| index.map_or("?".into(), |loss| format!("{loss:.3}"));
    let mut lines = vec![String::new()];
    if summary.interrupted {
        lines.push(format!("Stopped after {} rounds.", summary.rounds));
    }
    let Summary { rounds, tokens, wall_seconds, seed, run_id, bits_per_byte, baselines, .. } = summary;
    lines.push(format!("{rounds} rounds, {tokens} tokens, {wall_seconds:.0} s; seed {seed}, run {}", run_id.0.short()));
    lines.push(format!(
        "held-out loss {} -> {}; {bits_per_byte:.3} bits a byte on {} sequences (token unigram {:.3}, bigram {:.3})",
        loss(summary.heldout_loss.first()),
        loss(summary.heldout_loss.last()),
        summary.heldout_sequences_final,
        baselines.unigram,
        baselines.bigram
    ));
    lines.extend(beside(summary));
    lines.push(match summary.disagreements.first() {
        None => "all nodes had the same state root in every round".into(),
        Some(first) => format!("ROOTS DISAGREED, first in round {} at {}", first.round, first.node),
    });
    for (uid, share) in &summary.weights {
        let kind = summary.misbehaving.get(uid).map(|kind| format!("  ({kind})")).unwrap_or_default();
        lines.push(format!("  uid {uid}: {:5.1} % of the weight{kind}", share * 100.0));
    }
    lines.extend(usage::lines(&summary.usage));
    lines.join("\n")
}

/// The swarm's loss among those that the same model reaches from the same data in other ways; nothing where they are not known.
fn beside(summary: &Summary) -> Vec<String> {
    let Some(references) = &summary.references else { return Vec::new() };
    let mut reached: Vec<(&str, f64)> = references.reached.iter().map(|other| (&*other.name, other.loss)).collect();
    reached.push(("this swarm", summary.heldout_loss_final));
    reached.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    let width = reached.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let head = format!("the same model, data and steps in other ways, measured by {}:", references.command);
    let line = |(name, loss): (&str, f64)| format!("  {name:<width$}  {loss:.3}");
    std::iter::once(head).chain(reached.into_iter().map(line)).collect()
}

pub(super) fn audit(args: &AuditArgs) -> Result<Done, Failure> {
    match audit::audit(&Folder::at(&args.dir)) {
        Ok(report) => {
            println!(
                "{} rounds computed again from {} contributions: every selection, aggregate and root is right",
                report.rounds, report.contributions
            );
            println!("{} of the heads were agreed on by validators", report.vouched);
            if let Some(root) = report.state_roots.last() {
                println!("last state root {root}");
            }
            Ok(Done::Well)
        }
        Err(error @ (audit::AuditError::Differs(_) | audit::AuditError::CutOff { .. })) => {
            println!("{error}");
            Ok(Done::Differs)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::html::sample;

    #[test]
    fn the_last_words_say_what_came_of_it_and_what_it_cost() {
        let text = summary_text(&sample::swarm(48, 4));
        for needed in
            ["48 rounds", "seed 7", "on 2048 sequences", "same state root", "(noise)", "most memory: miner 96.0 MB"]
        {
            assert!(text.contains(needed), "no {needed:?} in {text}");
        }
        let text = summary_text(&sample::broken());
        assert!(
            text.contains("Stopped after 48 rounds.") && text.contains("ROOTS DISAGREED, first in round 31"),
            "{text}"
        );
        let place = |needed: &str| text.find(needed).unwrap_or_else(|| panic!("no {needed:?} in {text}"));
        let ranks = [
            "measured by covey lab grid.toml",
            "AdamW on all data  1.990",
            "this swarm         2.",
            "one miner alone    2.630",
        ];
        assert!(ranks.map(place).is_sorted(), "{text}");
        assert!(summary_text(&sample::nothing()).contains("held-out loss ? -> ?"));
    }

    #[test]
    fn a_swarm_gets_a_folder_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("a/b");
        assert_eq!(out_folder(Some(&new)).unwrap().path(), new);
        assert!(out_folder(Some(&new)).is_ok(), "it is there, but empty");
        std::fs::write(new.join("file"), "").unwrap();
        assert!(out_folder(Some(&new)).is_err());
    }

    #[test]
    fn misbehaviour_is_a_kind_and_a_number() {
        assert_eq!(misbehaving("noise=2").unwrap(), (Misbehaviour::Noise, 2));
        assert!(misbehaving("noise").unwrap_err().contains("KIND=N"));
        assert!(misbehaving("noise=many").is_err() && misbehaving("sloth=1").is_err());
    }
}
