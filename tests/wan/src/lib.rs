//! A wide-area network on one machine, for tests and benches: real programs and real TCP over lines of chosen rate,
//! delay, loss and queue.
//!
//! Each node is a network namespace with one TUN device. A thread of this process reads every device and writes packets
//! on to where they go, when they would have come there: Linux's own emulation (`netem`) is a kernel module that many
//! machines lack, and one queue in one place can count what went over the wire.
//!
//! Start with [`node`]: what a node's line is, in words and numbers (say 110 Mbit/s up, 500 down, 40 ms, one packet
//! in a thousand lost). What becomes of a packet is decided in two places, both in virtual time, without clocks or sockets:
//!
//! - [`line`](mod@line): one direction of one node's line: serialisation, a drop-tail queue, delay, loss from a seed
//! - [`net`]: all lines together: from which device to which, and what was counted on the way
//!
//! What does it, on Linux only:
//!
//! - `emulator`: the thread that moves packets, as `net` says, and says of itself whether it kept up
//! - `namespace`, `processes`: rooms of the kernel for nodes, programs in them, and the end of both
//! - `wan` ([`Wan`]): all of that as one value, which cleans up when it goes
//! - `scene`: whole transfers by programs: one to one, one to many, killed half-way
//!
//! What it leaves out: jitter, reordering, cross traffic, NAT, and IPv6, whose packets are not carried. Of Covey it knows
//! the source of seeded numbers alone, so that rivals can run in it as well.

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
