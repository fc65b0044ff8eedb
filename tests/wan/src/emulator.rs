//! The thread between the devices: reads what nodes send, asks the model when it arrives, and writes it there then.
//!
//! It looks every 100 µs while packets go, so that one turn carries several of them (42,000 full packets a second are
//! 500 Mbit/s), and sleeps while none do. Buffers are used again and again.

use crate::net::{Net, Step, Traffic};
use crate::node::{MTU, Node};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl;
use nix::sys::time::TimeSpec;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use thread_priority::ThreadPriority;
use thread_priority::unix::{
    RealtimeThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};
use tun_rs::SyncDevice;

/// Between two looks while packets go.
const TICK: Duration = Duration::from_micros(100);
/// Between two looks at whether to stop, while none do.
const IDLE: Duration = Duration::from_millis(20);
/// Packets read from one device before the next has its turn.
const BATCH: usize = 64;
/// Packets under way at most: 200 MB of memory, and what ten lines of 500 Mbit/s with 100 ms of queue and 100 ms of delay
/// hold in full packets. What finds none is an overrun.
const BUFFERS_MAX: usize = 1 << 17;
/// Later than this is not what the model said.
const LATE: Duration = Duration::from_millis(1);

/// Whether the emulator kept up with its own model. What is late or overrun was delayed or lost by the machine, not by
/// the lines: a measurement with more than a few is void.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeliness {
    /// Packets delivered.
    pub packets: u64,
    /// Of them, those more than 1 ms after their time.
    pub late: u64,
    /// The latest.
    pub latest: Duration,
    /// Packets that found no buffer, or that a device did not take or did not keep.
    pub overruns: u64,
}

/// A running emulator; it ends with this value.
pub(crate) struct Emulator {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    stop: AtomicBool,
}

/// Held by the thread for one turn, by others to read counts.
struct State {
    net: Net<Box<Packet>>,
    buffers: Buffers,
    timeliness: Timeliness,
}

struct Packet {
    bytes: [u8; MTU as usize],
    length: usize,
}

#[derive(Default)]
#[expect(clippy::vec_box, reason = "a packet changes hands four times: a pointer each, not 1.5 KB")]
struct Buffers {
    free: Vec<Box<Packet>>,
    made: usize,
}

impl Emulator {
    /// Carries packets between these devices, the first being that of node 0. `node_of` says whose an address is.
    pub(crate) fn start(
        devices: Vec<SyncDevice>,
        nodes: &[Node],
        seed: u64,
        node_of: fn([u8; 4]) -> Option<usize>,
    ) -> std::io::Result<Emulator> {
        let state =
            State { net: Net::new(nodes, seed), buffers: Buffers::default(), timeliness: Timeliness::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), stop: AtomicBool::new(false) });
        let its = shared.clone();
        let thread =
            thread::Builder::new().name("wan emulator".to_owned()).spawn(move || its.run(&devices, node_of))?;
        Ok(Emulator { shared, thread: Some(thread) })
    }

    pub(crate) fn traffic(&self) -> Vec<Traffic> {
        self.shared.lock().net.traffic()
    }

    pub(crate) fn timeliness(&self) -> Timeliness {
        self.shared.lock().timeliness
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, devices: &[SyncDevice], node_of: fn([u8; 4]) -> Option<usize>) {
        // Sleeps end 50 µs late by default, and later beside programs that want the core: those measured, for a start.
        // The thread takes little of a core and sleeps each turn, so it may go before them all: beside two builds that
        // leaves 0.3 % of packets late by 1 ms, where the best `nice` leaves 4 % and none 20 %. If it is refused,
        // timeliness says what that costs.
        prctl::set_timerslack(1).ok();
        let first = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
        set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, first).ok();
        let mut watched: Vec<PollFd<'_>> =
            devices.iter().map(|device| PollFd::new(device.as_fd(), PollFlags::POLLIN)).collect();
        let start = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            let mut state = self.lock();
            let now = start.elapsed();
            let read = state.collect(devices, now, node_of);
            state.deliver(devices, start);
            let pause = state.net.next_at().map_or(IDLE, |at| at.saturating_sub(start.elapsed()).min(IDLE));
            drop(state);
            if read || pause <= TICK {
                thread::sleep(TICK);
            } else {
                // An interrupted wait is a short one.
                ppoll(&mut watched, Some(TimeSpec::from_duration(pause)), None).ok();
            }
        }
    }
}

impl State {
    /// Takes from each device what is there; whether there was anything.
    fn collect(&mut self, devices: &[SyncDevice], now: Duration, node_of: fn([u8; 4]) -> Option<usize>) -> bool {
        let mut any = false;
        for (from, device) in devices.iter().enumerate() {
            for _ in 0..BATCH {
                let Some(mut packet) = self.buffers.take() else {
                    let mut nowhere = [0; MTU as usize];
                    if device.recv(&mut nowhere).is_err() {
                        break;
                    }
                    self.timeliness.overruns += 1;
                    continue;
                };
                let Ok(length) = device.recv(&mut packet.bytes) else {
                    self.buffers.give(packet);
                    break;
                };
                any = true;
                packet.length = length;
                match packet.destination().and_then(node_of) {
                    Some(to) => {
                        if let Err(packet) = self.net.send(now, from, to, length as u64, packet) {
                            self.buffers.give(packet);
                        }
                    }
                    None => self.buffers.give(packet),
                }
            }
        }
        any
    }

    /// Gives each device what has come by now.
    fn deliver(&mut self, devices: &[SyncDevice], start: Instant) {
        let until = start.elapsed();
        while let Some(step) = self.net.next(until) {
            let packet = match step {
                Step::Gone(packet) => packet,
                Step::Arrived { at, to, packet } => {
                    let late = start.elapsed().saturating_sub(at);
                    self.timeliness.packets += 1;
                    self.timeliness.late += u64::from(late > LATE);
                    self.timeliness.latest = self.timeliness.latest.max(late);
                    if devices[to].send(&packet.bytes[..packet.length]).is_err() {
                        self.timeliness.overruns += 1;
                    }
                    packet
                }
            };
            self.buffers.give(packet);
        }
    }
}

impl Packet {
    /// The destination of an IPv4 packet; other packets have none.
    fn destination(&self) -> Option<[u8; 4]> {
        let header = self.bytes[..self.length].first_chunk::<20>()?;
        (header[0] >> 4 == 4).then(|| [header[16], header[17], header[18], header[19]])
    }
}

impl Buffers {
    fn take(&mut self) -> Option<Box<Packet>> {
        self.free.pop().or_else(|| {
            (self.made < BUFFERS_MAX).then(|| {
                self.made += 1;
                Box::new(Packet { bytes: [0; MTU as usize], length: 0 })
            })
        })
    }

    fn give(&mut self, packet: Box<Packet>) {
        self.free.push(packet);
    }
}
