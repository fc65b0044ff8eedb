//! What a process of its own does: provide, or fetch. It is told what by `key=value` arguments and by lines on its
//! standard input, and answers with JSON objects, one a line, on its standard output:
//!
//! - `{"event":"ready","offer":TEXT}` once it listens, or is connected; the offer is what a fetcher needs.
//! - `go` → `{"event":"progress","bytes":N}` now and then, if it can tell, then `{"event":"done","seconds":S,"bytes":N}`.
//! - `mark` → forgets the peak of memory and notes the processor time; → `{"event":"marked"}`.
//! - `usage` → `{"event":"usage","cpu":S,"rss_peak":B,"rss":B,"counters":{…}}` since the last mark.
//! - Covey only: `meet` → `{"event":"met"}` once it knows all members; `publish COUNT MILLIS` → `{"event":"published"}`
//!   once so many announcements went out, one each so many milliseconds; `heard` → `{"event":"heard","millis":[…]}`, how
//!   long each announcement took that came since it was last asked.
//! - `{"event":"failed","why":TEXT}`, and it ends. It ends, too, when its input does.

use super::{Congestion, Contestant, Failure, Storage, covey, iroh, stream, tcp, usage};
use crate::report::{peak_memory, reset_peak};
use serde_json::{Value, json};
use std::any::Any;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use tokio::sync::mpsc;

/// The first argument of such a process. No subcommand of the user's.
pub const WORD: &str = "exchange-role";

/// Lines that wait to be read: the parent waits for an answer before the next one.
const LINES_MAX: usize = 16;

/// Which part it plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Has the bytes and gives them.
    Provide,
    /// Has none and gets them; Covey serves them on.
    Fetch,
    /// Many nodes of Covey at rest.
    Rest,
}

/// All that it is told at its start.
#[derive(Clone, Debug)]
pub struct Task {
    pub contestant: Contestant,
    pub part: Part,
    pub storage: Storage,
    /// Its own: what it stores goes here.
    pub folder: PathBuf,
    /// The file to provide.
    pub source: PathBuf,
    /// Of the file.
    pub bytes: u64,
    pub listen: SocketAddr,
    pub congestion: Congestion,
    /// What providers offer; the first one is where a fetcher starts.
    pub offers: Vec<String>,
    /// Nodes of the run, and which of them it is: Covey's members.
    pub members: u8,
    pub uid: u8,
    /// Nodes in this process, for [`Part::Rest`].
    pub nodes: usize,
}

impl Task {
    /// The first offer.
    pub fn offer(&self) -> Result<&str, Failure> {
        self.offers.first().map(String::as_str).ok_or_else(|| "a fetcher needs an offer".into())
    }

    /// As arguments of the process.
    pub fn words(&self) -> Vec<String> {
        let mut words = vec![
            WORD.to_owned(),
            format!("contestant={}", self.contestant.name()),
            format!("part={}", part_name(self.part)),
            format!("storage={}", self.storage.name()),
            format!("folder={}", self.folder.display()),
            format!("source={}", self.source.display()),
            format!("bytes={}", self.bytes),
            format!("listen={}", self.listen),
            format!("congestion={}", self.congestion.name()),
            format!("members={}", self.members),
            format!("uid={}", self.uid),
            format!("nodes={}", self.nodes),
        ];
        words.extend(self.offers.iter().map(|offer| format!("offer={offer}")));
        words
    }

    fn parse(words: &[&str]) -> Result<Task, Failure> {
        let one = |key: &str| {
            let value = words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            value.ok_or_else(|| Failure::from(format!("the role is not told its {key}")))
        };
        let parts = [Part::Provide, Part::Fetch, Part::Rest];
        let part = one("part")?;
        Ok(Task {
            contestant: Contestant::parse(one("contestant")?)?,
            part: parts.into_iter().find(|&known| part_name(known) == part).ok_or("no such part")?,
            storage: Storage::parse(one("storage")?)?,
            folder: one("folder")?.into(),
            source: one("source")?.into(),
            bytes: one("bytes")?.parse()?,
            listen: one("listen")?.parse()?,
            congestion: Congestion::parse(one("congestion")?)?,
            members: one("members")?.parse()?,
            uid: one("uid")?.parse()?,
            nodes: one("nodes")?.parse()?,
            offers: words.iter().filter_map(|word| word.strip_prefix("offer=")).map(str::to_owned).collect(),
        })
    }
}

fn part_name(part: Part) -> &'static str {
    match part {
        Part::Provide => "provide",
        Part::Fetch => "fetch",
        Part::Rest => "rest",
    }
}

/// Plays the part until the parent ends it.
pub fn run(words: &[&str]) -> ExitCode {
    let result = Task::parse(words).and_then(|task| {
        std::fs::create_dir_all(&task.folder)?;
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(play(&task))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&json!({"event": "failed", "why": error.to_string()}));
            ExitCode::FAILURE
        }
    }
}

/// One line for the parent. A parent that is gone ends this process by its closed input.
pub fn say(value: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}

/// What a role has to live with while it is commanded.
enum Player {
    /// Serves as long as it is kept.
    Provider {
        _kept: Box<dyn Any + Send>,
    },
    Tcp(tcp::Fetcher),
    Stream(stream::Fetcher),
    Iroh(iroh::Fetcher),
    Covey(Box<covey::Node>),
    Rest(Vec<covey::Node>),
}

impl Player {
    async fn start(task: &Task) -> Result<(String, Player), Failure> {
        fn provider<T: Any + Send>((offer, server): (String, T)) -> (String, Player) {
            (offer, Player::Provider { _kept: Box::new(server) })
        }
        Ok(match (task.part, task.contestant) {
            (Part::Rest, _) => (String::new(), Player::Rest(covey::at_rest(task).await?)),
            (_, Contestant::Covey) => {
                let (offer, node) = covey::Node::start(task).await?;
                (offer, Player::Covey(Box::new(node)))
            }
            (Part::Provide, Contestant::Tcp) => provider(tcp::provide(task).await?),
            (Part::Provide, Contestant::Stream) => provider(stream::provide(task).await?),
            (Part::Provide, Contestant::Iroh) => provider(iroh::provide(task).await?),
            (Part::Fetch, Contestant::Tcp) => (String::new(), Player::Tcp(tcp::Fetcher::connect(task).await?)),
            (Part::Fetch, Contestant::Stream) => (String::new(), Player::Stream(stream::Fetcher::connect(task).await?)),
            (Part::Fetch, Contestant::Iroh) => (String::new(), Player::Iroh(iroh::Fetcher::connect(task).await?)),
        })
    }

    async fn fetch(&mut self, task: &Task) -> Result<u64, Failure> {
        match self {
            Player::Provider { .. } | Player::Rest(_) => Err("this role does not fetch".into()),
            Player::Tcp(fetcher) => fetcher.fetch(task).await,
            Player::Stream(fetcher) => fetcher.fetch(task).await,
            Player::Iroh(fetcher) => fetcher.fetch().await,
            Player::Covey(node) => node.fetch(task).await,
        }
    }

    fn node(&self) -> Result<&covey::Node, Failure> {
        match self {
            Player::Covey(node) => Ok(node),
            _ => Err("only Covey knows this command".into()),
        }
    }

    fn counters(&self) -> Value {
        match self {
            Player::Covey(node) => node.counters(),
            Player::Rest(nodes) => covey::connections(nodes),
            _ => json!({}),
        }
    }
}

async fn play(task: &Task) -> Result<(), Failure> {
    let mut lines = input();
    let (offer, mut player) = Player::start(task).await?;
    say(&json!({"event": "ready", "offer": offer}));
    let mut cpu = usage::cpu_seconds();
    while let Some(line) = lines.recv().await {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["mark"] => {
                reset_peak();
                cpu = usage::cpu_seconds();
                say(&json!({"event": "marked"}));
            }
            ["go"] => {
                let start = Instant::now();
                let bytes = player.fetch(task).await?;
                let seconds = start.elapsed().as_secs_f64();
                say(&json!({"event": "done", "seconds": seconds, "bytes": bytes}));
            }
            ["usage"] => say(&json!({
                "event": "usage", "cpu": usage::cpu_seconds() - cpu, "rss_peak": peak_memory(),
                "rss": usage::memory(), "counters": player.counters(),
            })),
            ["meet"] => {
                player.node()?.meet().await?;
                say(&json!({"event": "met"}));
            }
            ["publish", count, millis] => {
                player.node()?.publish(count.parse()?, millis.parse()?).await?;
                say(&json!({"event": "published"}));
            }
            ["heard"] => say(&json!({"event": "heard", "millis": player.node()?.heard()})),
            _ => return Err(format!("no such command: {line:?}").into()),
        }
    }
    Ok(())
}

/// The standard input's lines. Its end ends the process even in the middle of a fetch.
fn input() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
        std::process::exit(0);
    });
    receiver
}
