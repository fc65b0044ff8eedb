//! The scenes with the plainest program that can play them: TCP, from the source alone, going on where a file ends.
//! Skipped, and said so, without root and `/dev/net/tun`.

#![cfg(target_os = "linux")]

use covey_wan::scene::{Exchange, Heard, Outcome, Place, Scene, SceneError, play};
use covey_wan::{Node, Rate, Wan};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

const SEED: u64 = 5;
const ROLE: &str = "COVEY_WAN_TEST_ROLE";

/// This test binary, started again as [`the_program`]; with a fault, if one is wanted.
struct Plain {
    fault: &'static str,
}

impl Plain {
    fn command(&self, role: &str, at: &Place, file: &Path) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("it runs"));
        command.args(["--exact", "the_program", "--nocapture", "--quiet"]).env(ROLE, role).env("FAULT", self.fault);
        command.env("ADDRESS", format!("{}:4000", at.address)).env("FILE", file);
        command
    }
}

impl Exchange for Plain {
    fn serve(&self, at: &Place, file: &Path) -> Command {
        self.command("serve", at, file)
    }

    fn fetch(&self, at: &Place, root: &str, from: &[String], file: &Path) -> Command {
        assert_eq!(root, "the blob");
        let mut command = self.command("fetch", at, file);
        command.env("FROM", &from[0]);
        command
    }

    fn heard(&self, line: &str) -> Heard {
        match line.split_once(' ') {
            Some(("serving", address)) => Heard::Serving { address: address.to_owned(), root: "the blob".to_owned() },
            _ if line == "fetched" => Heard::Fetched,
            _ => Heard::Nothing,
        }
    }
}

/// Not a test: the program of the scenes. Does nothing if it is not started as one.
#[test]
fn the_program() -> io::Result<()> {
    let Ok(role) = std::env::var(ROLE) else { return Ok(()) };
    let given = |name: &str| std::env::var(name).expect("given to the program");
    println!("\nserving {}", given("ADDRESS"));
    if role == "serve" {
        let listener = TcpListener::bind(given("ADDRESS"))?;
        for stream in listener.incoming() {
            let (mut stream, file) = (stream?, given("FILE"));
            thread::spawn(move || -> io::Result<()> {
                let (mut file, mut from) = (fs::File::open(file)?, [0; 8]);
                stream.read_exact(&mut from)?;
                file.seek(SeekFrom::Start(u64::from_le_bytes(from)))?;
                io::copy(&mut file, &mut stream).map(drop)
            });
        }
    }
    let mut file = OpenOptions::new().append(true).create(true).open(given("FILE"))?;
    let mut stream = TcpStream::connect(given("FROM"))?;
    stream.write_all(&file.metadata()?.len().to_le_bytes())?;
    if given("FAULT") == "ends" {
        println!("no more");
        return Ok(());
    }
    io::copy(&mut stream, &mut file)?;
    if given("FAULT") == "more" {
        file.write_all(b"!")?;
    }
    println!("fetched");
    loop {
        thread::park();
    }
}

/// 200 Mbit/s, 5 ms, no loss: seconds are for the rates that people measure.
fn quick(scene: Scene) -> Scene {
    Scene { line: Node::of_path(Rate::mbit(200), Rate::mbit(200), Duration::from_millis(5), 0.0), ..scene }
}

fn played(scene: &Scene, fault: &'static str) -> Option<Result<Outcome, SceneError>> {
    drop(Wan::build_or_skip(&[scene.line], SEED)?);
    let folder = std::env::temp_dir().join(format!("covey-wan-{}-{:?}", std::process::id(), thread::current().id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    let outcome = play(scene, &Plain { fault }, &folder);
    fs::remove_dir_all(&folder).expect("our own folder");
    Some(outcome)
}

#[test]
fn one_to_one_is_fetched_whole_and_costs_what_tcp_does() {
    let scene = quick(Scene::one_to_one(4_000_001, SEED));
    let Some(outcome) = played(&scene, "") else { return };
    let outcome = outcome.expect("the program works");
    assert_eq!((outcome.took.len(), outcome.traffic.len()), (1, 2), "seed {SEED}");
    assert!((0.0..0.02).contains(&outcome.overhead_max()), "seed {SEED}: {outcome:?}");
    assert_eq!(outcome.bound, Rate::mbit(200).payload().time_of(4_000_001));
}

#[test]
fn who_is_killed_goes_on_and_nothing_comes_twice_but_what_was_in_flight() {
    let scene = quick(Scene::killed_half_way(8_000_000, SEED));
    let Some(outcome) = played(&scene, "") else { return };
    let outcome = outcome.expect("the program works");
    assert!(outcome.overhead_max() < 0.25, "seed {SEED}: {outcome:?}");
}

#[test]
fn many_take_from_one_what_the_bound_says_at_the_least() {
    let scene = quick(Scene { fetchers: 3, ..Scene::one_to_one(1_000_000, SEED) });
    let Some(outcome) = played(&scene, "") else { return };
    let outcome = outcome.expect("the program works");
    assert_eq!(outcome.took.len(), 3, "seed {SEED}");
    // The source alone sends it three times.
    assert!(outcome.traffic[0].up.bytes >= 3_000_000, "seed {SEED}: {outcome:?}");
    assert_eq!(outcome.bound, Rate::mbit(200).payload().time_of(1_000_000));
}

#[test]
fn a_program_that_ends_or_brings_other_bytes_is_named() {
    let scene = quick(Scene::one_to_one(100_000, SEED));
    let Some(ended) = played(&scene, "ends") else { return };
    assert!(matches!(ended, Err(SceneError::Ended { node: 1, .. })), "seed {SEED}: {ended:?}");
    let Some(different) = played(&scene, "more") else { return };
    assert!(matches!(different, Err(SceneError::Different { node: 1 })), "seed {SEED}: {different:?}");
}

#[test]
fn the_bound_is_the_tightest_of_three() {
    let mbit = |up, down, fetchers| {
        let line = Node::of_path(Rate::mbit(up), Rate::mbit(down), Duration::ZERO, 0.0);
        let scene = Scene { line, fetchers, ..Scene::one_to_one(1_000_000_000, SEED) };
        8e9 / scene.bound().as_secs_f64() / 1e6 / 0.9415
    };
    let near = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-3, "{found}, not {expected}");
    near(mbit(110, 500, 1), 110.0); // the source's line
    near(mbit(500, 110, 1), 110.0); // the fetcher's
    near(mbit(110, 500, 8), 110.0); // nine lines carry it eight times
}
