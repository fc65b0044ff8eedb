//! A wide-area network on one machine, for tests and benches: real programs and real TCP over lines of chosen rate,
//! delay, loss and queue.
//!
//! Each node is a network namespace with one TUN device. A thread of this process reads every device and writes packets
//! on to where they go, when they would have come there: Linux's own emulation (`netem`) is a kernel module that many
//! machines lack, and one queue in one place can count what went over the wire.
//!
//! - [`node`]: what a node's line is, in words and numbers
//! - [`line`](mod@line), [`net`]: the model, in virtual time: serialisation, drop-tail queue, delay, loss from a seed.
//!   No clock, no sockets
//! - `wan` ([`Wan`], Linux only): namespaces, devices, the emulator's thread, programs inside, and their end
//! - `scene` (Linux only): whole transfers by programs: one to one, one to many, killed half-way
//!
//! What it leaves out: jitter, reordering, cross traffic, NAT, and IPv6, whose packets are not carried.

pub mod line;
pub mod net;
pub mod node;

#[cfg(target_os = "linux")]
mod emulator;
#[cfg(target_os = "linux")]
mod namespace;
#[cfg(target_os = "linux")]
mod processes;
#[cfg(target_os = "linux")]
pub mod scene;
#[cfg(target_os = "linux")]
mod wan;

pub use line::Counted;
pub use net::Traffic;
pub use node::{Node, Rate};
#[cfg(target_os = "linux")]
pub use wan::{Timeliness, Wan, WanError};
