//! Real sockets and programs over emulated lines. Skipped, and said so, without root and `/dev/net/tun`.

#![cfg(target_os = "linux")]

use covey_wan::{Node, Rate, Traffic, Wan};
use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const SEED: u64 = 11;
const MS: Duration = Duration::from_millis(1);

fn line() -> Node {
    Node::of_path(Rate::mbit(200), Rate::mbit(200), 10 * MS, 0.0)
}

/// Bytes that depend on where they are: a hole or a swap would show.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect()
}

/// Node 0 sends `bytes` to node 1, which returns what came.
fn transfer(wan: &Wan, port: u16, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let address = SocketAddrV4::new(wan.address(0), port);
    let listener = wan.within(0, || TcpListener::bind(address))??;
    let mut sink = wan.within(1, || TcpStream::connect(address))??;
    thread::scope(|scope| {
        let sender = scope.spawn(move || listener.accept()?.0.write_all(bytes));
        let mut received = Vec::new();
        sink.read_to_end(&mut received)?;
        sender.join().expect("the sender does not panic")?;
        Ok(received)
    })
}

#[test]
fn a_transfer_arrives_whole_and_is_counted_on_both_lines() -> io::Result<()> {
    let Some(wan) = Wan::build_or_skip(&[line(); 2], SEED) else { return Ok(()) };
    let bytes = pattern(4_000_000);
    assert!(transfer(&wan, 4000, &bytes)? == bytes, "seed {SEED}: other bytes came than were sent");
    let [source, sink]: [Traffic; 2] = wan.traffic().try_into().expect("two nodes");
    // What is there of headers: 52 bytes in each packet of 1500 at most, and a handshake.
    let overhead = source.up.bytes as f64 / bytes.len() as f64;
    assert!((1.0..1.1).contains(&overhead), "seed {SEED}: {overhead} bytes a byte of payload: {source:?}");
    assert!(sink.down.bytes >= bytes.len() as u64, "seed {SEED}: {sink:?}");
    assert!(sink.down.packets <= source.up.packets && source.down.packets <= sink.up.packets);
    assert!(sink.up.bytes < source.up.bytes / 10, "seed {SEED}: acknowledgements are small: {sink:?}");
    Ok(())
}

#[test]
fn a_transfer_survives_losses_and_a_small_queue() -> io::Result<()> {
    let node = Node { loss: 0.01, up_queue: 40_000, delay: MS, ..line() };
    let Some(wan) = Wan::build_or_skip(&[node; 2], SEED) else { return Ok(()) };
    let bytes = pattern(2_000_000);
    assert!(transfer(&wan, 4000, &bytes)? == bytes, "seed {SEED}: other bytes came than were sent");
    let traffic = wan.traffic();
    assert!(traffic[0].up.losses + traffic[1].down.losses > 0, "seed {SEED}: nothing was lost: {traffic:?}");
    assert!(traffic[0].up.bytes > bytes.len() as u64, "seed {SEED}: nothing was sent again: {traffic:?}");
    Ok(())
}

#[test]
fn an_answer_takes_at_least_both_lines_delays_both_ways() -> io::Result<()> {
    let (near, far) = (Node { delay: 10 * MS, ..line() }, Node { delay: 30 * MS, ..line() });
    let Some(wan) = Wan::build_or_skip(&[near, far], SEED) else { return Ok(()) };
    let at = |node| wan.within(node, || UdpSocket::bind(SocketAddrV4::new(wan.address(node), 4000)));
    let (here, there) = (at(0)??, at(1)??);
    here.set_read_timeout(Some(Duration::from_secs(10)))?;
    there.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut buffer = [0; 8];
    for number in 0..5u8 {
        let start = Instant::now();
        here.send_to(&[number], there.local_addr()?)?;
        let (length, from) = there.recv_from(&mut buffer)?;
        there.send_to(&buffer[..length], from)?;
        here.recv_from(&mut buffer)?;
        assert_eq!(buffer[0], number);
        let took = start.elapsed();
        assert!(took >= 80 * MS, "{took:?}, but 10 + 30 ms lie between them, twice");
    }
    Ok(())
}

#[test]
fn programs_see_only_their_node_and_end_with_the_network() -> io::Result<()> {
    let Some(wan) = Wan::build_or_skip(&[line(); 3], SEED) else { return Ok(()) };
    let mut show = Command::new("cat");
    let output = wan.spawn(2, show.arg("/proc/self/net/fib_trie").stdout(Stdio::piped()))?.wait_with_output()?;
    let routes = String::from_utf8_lossy(&output.stdout);
    assert!(routes.contains("10.3.0.1") && !routes.contains("10.1.0.1"), "{routes}");
    let mut sleepers = Vec::new();
    for node in 0..3 {
        // A program that starts another: both must go.
        sleepers.push(wan.spawn(node, Command::new("sh").args(["-c", "sleep 1000; true"]))?);
    }
    let unwound = thread::scope(|scope| {
        let fails = scope.spawn(move || {
            let _wan = wan;
            std::panic::resume_unwind(Box::new("a test that fails"));
        });
        fails.join().is_err()
    });
    assert!(unwound);
    for mut sleeper in sleepers {
        assert!(!sleeper.wait()?.success());
    }
    Ok(())
}

#[test]
fn two_networks_do_not_meet() -> io::Result<()> {
    let Some(one) = Wan::build_or_skip(&[line(); 2], SEED) else { return Ok(()) };
    let Some(other) = Wan::build_or_skip(&[line(); 2], SEED) else { return Ok(()) };
    assert_eq!(transfer(&one, 4000, b"one")?, b"one");
    assert_eq!(other.traffic().iter().map(|node| node.up.packets).sum::<u64>(), 0);
    assert_eq!(transfer(&other, 4000, b"other")?, b"other");
    Ok(())
}
