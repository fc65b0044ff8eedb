//! `covey blob`: a person's hands in a blob store, which nothing else may have open meanwhile. What needs the network is in
//! `transfer`.

use super::bar::Bar;
use super::blob_lines::{Where, say, text};
use super::transfer::{self, Download, NetArgs, ServeArgs};
use super::{Done, Failure, Plain};
use crate::config::Size;
use crate::report::units::{bytes, seconds};
use clap::{Args, Subcommand};
use covey_gossip::store::{BlobInfo, Store};
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};

#[derive(Debug, Subcommand)]
pub(super) enum BlobCommand {
    /// Copy files into a store; says ROOT:SIZE of each.
    Add(AddArgs),
    /// Get a blob from peers, or out of the store into a file; every byte is checked.
    Get(GetArgs),
    /// Serve a store's blobs to whoever asks, until Ctrl-C.
    Serve(ServeArgs),
    /// List a store's blobs, least recently used first.
    Ls(Where),
    /// Hash blobs again and name the pieces that are damaged.
    Verify(VerifyArgs),
    /// Remove least recently used blobs that are not pinned until a quota holds.
    Gc(GcArgs),
    /// Remove blobs.
    Rm(RmArgs),
    /// Let go of what a tag pins.
    Unpin(UnpinArgs),
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The files.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The store's folder; it is made if it is not there.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Pin them under this tag, which then stands for them and what it stood for.
    #[arg(long, value_name = "TAG")]
    pin: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The blob: its root, 64 hexadecimal digits, and its size if it is known.
    #[arg(value_name = "ROOT[:SIZE]")]
    blob: BlobName,
    /// The file that it is written to [with --from it may stay in the store alone].
    #[arg(long, value_name = "FILE", required_unless_present = "from")]
    out: Option<PathBuf>,
    /// A peer that may have it: a multiaddr that ends in /p2p/ID, as `covey blob serve` says it. May be repeated. The
    /// blob's size must be known then, and DIR is made if it is not there.
    #[arg(long, value_name = "MULTIADDR")]
    from: Vec<String>,
    /// Go on serving it once it is here, until Ctrl-C. What has come is served in any case.
    #[arg(long, requires = "from")]
    serve_on: bool,
    /// Give up after so many seconds; what came is kept.
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    timeout: u64,
    #[command(flatten)]
    net: NetArgs,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The blobs [default: all].
    #[arg(value_name = "ROOT[:SIZE]")]
    blobs: Vec<BlobName>,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Args)]
pub(super) struct GcArgs {
    /// What may stay: 500MB, 20GiB.
    #[arg(long, value_name = "SIZE")]
    quota: Size,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// The blobs.
    #[arg(value_name = "ROOT[:SIZE]", required = true)]
    blobs: Vec<BlobName>,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Args)]
pub(super) struct UnpinArgs {
    /// The tag, as `covey blob ls` shows it.
    #[arg(value_name = "TAG")]
    tag: String,
    #[command(flatten)]
    place: Where,
}

/// A blob as a person names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BlobName {
    root: Digest,
    size: Option<u64>,
}

impl FromStr for BlobName {
    type Err = Plain;
    fn from_str(text: &str) -> Result<BlobName, Plain> {
        let (root, size) = match text.split_once(':') {
            Some((root, size)) => (root, Some(size)),
            None => (text, None),
        };
        let root = root.parse().map_err(|error| Plain(format!("{error}")))?;
        let size = size.map(|size| size.parse().map_err(|_| Plain(format!("{size:?} is no number of bytes"))));
        Ok(BlobName { root, size: size.transpose()? })
    }
}

pub(super) fn run(command: BlobCommand) -> Result<Done, Failure> {
    match command {
        BlobCommand::Add(args) => add(&args),
        BlobCommand::Get(args) if !args.from.is_empty() => get_from(args),
        BlobCommand::Get(args) => get(&args),
        BlobCommand::Serve(args) => transfer::serve(&args),
        BlobCommand::Ls(place) => list(&place),
        BlobCommand::Verify(args) => verify(&args),
        BlobCommand::Gc(args) => gc(&args),
        BlobCommand::Rm(args) => remove(&args),
        BlobCommand::Unpin(args) => unpin(&args),
    }
}

/// Opens a store that is there: a folder that was mistyped is not made into one. Nothing is evicted by looking.
fn open(dir: &Path, quota: u64) -> Result<Store, Failure> {
    if !dir.join("blobs").is_dir() {
        return Err(Plain(format!("{} is no blob store: it has no folder named blobs", dir.display())).into());
    }
    Ok(Store::open(dir, quota)?)
}

fn add(args: &AddArgs) -> Result<Done, Failure> {
    let store = Store::open(&args.dir, u64::MAX)?;
    let mut roots = args.pin.as_ref().and_then(|tag| store.pins().remove(tag)).unwrap_or_default();
    for file in &args.files {
        let size = std::fs::metadata(file).map_or(0, |about| about.len());
        let mut bar = Bar::new(&format!("add {}", file.display()), size);
        let blob = store.add_file(file, &mut |done| bar.at(done))?;
        drop(bar);
        say(&format!("{}  {}", text(&blob), file.display()));
        roots.push(blob.root);
    }
    if let Some(tag) = &args.pin {
        roots.sort_unstable();
        roots.dedup();
        // What the tag stood for and is gone by other hands keeps nobody from pinning the rest.
        roots.retain(|root| store.has(root));
        store.pin(tag, &roots)?;
    }
    Ok(Done::Well)
}

/// What the store has under a name.
fn find(store: &Store, named: &BlobName) -> Result<BlobInfo, Failure> {
    let found = store.list().into_iter().find(|info| info.blob.root == named.root);
    let info = found.ok_or_else(|| {
        Plain(format!("blob {} is not in {}; covey blob ls shows what is", named.root, store.root().display()))
    })?;
    match named.size.filter(|size| *size != info.blob.size) {
        Some(asked) => {
            let known = info.blob.size;
            Err(Plain(format!("blob {} has {known} bytes here, not {asked}", named.root)).into())
        }
        None => Ok(info),
    }
}

fn get_from(args: GetArgs) -> Result<Done, Failure> {
    let size = args.blob.size.ok_or_else(|| Plain(format!("--from needs the blob's size: {}:SIZE", args.blob.root)))?;
    let blob = BlobRef { root: args.blob.root, size };
    let timeout = Duration::from_secs(args.timeout);
    let wanted = Download { blob, from: args.from, out: args.out, serve_on: args.serve_on, timeout };
    transfer::get(&args.net, &wanted)
}

fn get(args: &GetArgs) -> Result<Done, Failure> {
    let store = open(&args.net.place.dir, u64::MAX)?;
    let Some(out) = &args.out else { return Err(Plain("--out is missing".into()).into()) };
    let mut info = find(&store, &args.blob)?;
    if !info.held.is_full() && store.begin(info.blob)?.held().is_full() {
        // It was whole when whoever fetched it was killed.
        info = find(&store, &args.blob)?;
    }
    if !info.held.is_full() {
        let (held, count) = (info.held.len(), info.held.count());
        return Err(Plain(format!("of blob {} only {held} of {count} pieces are here", args.blob.root)).into());
    }
    let start = Instant::now();
    let mut bar = Bar::new(&format!("get {}", info.blob.root.short()), info.blob.size);
    store.export(&info.blob, out, &mut |done| bar.at(done))?;
    drop(bar);
    let took = seconds(start.elapsed().as_secs_f64());
    say(&format!("{}: {}, checked, in {took}", out.display(), bytes(info.blob.size)));
    Ok(Done::Well)
}

fn list(place: &Where) -> Result<Done, Failure> {
    let store = open(&place.dir, u64::MAX)?;
    let (blobs, now) = (store.list(), SystemTime::now());
    for info in &blobs {
        say(&row(info, now));
    }
    let pinned: u64 = blobs.iter().filter(|info| !info.pins.is_empty()).map(|info| info.blob.size).sum();
    let partial = blobs.iter().filter(|info| !info.held.is_full()).count();
    let (count, all) = (blobs.len(), bytes(store.bytes()));
    let noun = if count == 1 { "blob" } else { "blobs" };
    say(&format!("{count} {noun}, {all}; {} pinned; {partial} unfinished", bytes(pinned)));
    Ok(Done::Well)
}

fn row(info: &BlobInfo, now: SystemTime) -> String {
    let size = bytes(info.blob.size);
    let ago = seconds(now.duration_since(info.used).map_or(0.0, |ago| ago.as_secs_f64()));
    let mut row = format!("{}  {size:>7}  used {ago} ago", text(&info.blob));
    if !info.held.is_full() {
        row += &format!("  {} of {} pieces", info.held.len(), info.held.count());
    }
    if !info.pins.is_empty() {
        row += &format!("  pinned by {}", info.pins.join(", "));
    }
    row
}

fn verify(args: &VerifyArgs) -> Result<Done, Failure> {
    let store = open(&args.place.dir, u64::MAX)?;
    let wanted: Vec<BlobInfo> = match args.blobs.is_empty() {
        true => store.list(),
        false => args.blobs.iter().map(|named| find(&store, named)).collect::<Result<_, Failure>>()?,
    };
    let (start, total) = (Instant::now(), wanted.iter().map(|info| info.blob.size).sum());
    let mut bar = Bar::new("verify", total);
    let (mut done, mut damaged) = (0, Vec::new());
    for info in &wanted {
        let verified = store.verify(&info.blob.root, &mut |bytes| bar.at(done + bytes))?;
        done += info.blob.size;
        if !verified.damaged.is_empty() {
            damaged.push(verified);
        }
    }
    drop(bar);
    for verified in &damaged {
        let (blob, pieces) = (text(&verified.blob), runs(&verified.damaged));
        say(&format!("{blob}: damaged: pieces {pieces}; they count as missing from now on"));
    }
    let took = seconds(start.elapsed().as_secs_f64());
    say(&format!("{} of {} damaged; {} checked in {took}", damaged.len(), wanted.len(), bytes(total)));
    Ok(if damaged.is_empty() { Done::Well } else { Done::Differs })
}

/// Rising numbers as runs: `1, 4-7`.
fn runs(numbers: &[u32]) -> String {
    let runs = numbers.chunk_by(|one, next| next - one == 1).filter_map(|run| Some((*run.first()?, *run.last()?)));
    let run = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    runs.map(run).collect::<Vec<_>>().join(", ")
}

fn gc(args: &GcArgs) -> Result<Done, Failure> {
    let store = open(&args.place.dir, args.quota.0)?;
    let freed = store.gc()?;
    let left = store.bytes();
    say(&format!("{} freed, {} left", bytes(freed), bytes(left)));
    if left > args.quota.0 {
        say(&format!("pins hold more than {}", bytes(args.quota.0)));
    }
    Ok(Done::Well)
}

fn remove(args: &RmArgs) -> Result<Done, Failure> {
    let store = open(&args.place.dir, u64::MAX)?;
    for named in &args.blobs {
        let info = find(&store, named)?;
        store.remove(&info.blob.root)?;
        say(&format!("{} removed", text(&info.blob)));
    }
    Ok(Done::Well)
}

fn unpin(args: &UnpinArgs) -> Result<Done, Failure> {
    let store = open(&args.place.dir, u64::MAX)?;
    if !store.pins().contains_key(&args.tag) {
        return Err(Plain(format!("{} pins nothing; covey blob ls shows the tags", args.tag)).into());
    }
    store.unpin(&args.tag)?;
    Ok(Done::Well)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_named_by_its_root_and_its_size_if_known() {
        let root = Digest::of(b"x");
        assert_eq!(root.to_string().parse::<BlobName>().unwrap(), BlobName { root, size: None });
        assert_eq!(format!("{root}:17").parse::<BlobName>().unwrap(), BlobName { root, size: Some(17) });
        for wrong in [format!("{root}:"), format!("{root}:x"), format!("{root}:-1"), "ab:1".into(), String::new()] {
            assert!(wrong.parse::<BlobName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_in_a_row_are_said_as_runs() {
        assert_eq!(runs(&[1, 4, 5, 6, 9]), "1, 4-6, 9");
        assert_eq!(runs(&[]), "");
    }
}
