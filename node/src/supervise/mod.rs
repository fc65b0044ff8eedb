//! Processes that a process starts and looks after: each has a pipe of its own in both directions and a log, is started
//! again when it dies, and ends when whoever started it is gone, even by `kill -9`.
//!
//! [`Line`] is what a child says on its standard output, one JSON object a line; the end of its standard input, which
//! [`lifeline`] watches, says that nobody listens any more. [`Restarts`] decides, without clock or process, when a child
//! is started again; [`Keeper`] does it. What the children are and what their lines mean is their owner's business.

mod keeper;
pub mod lifeline;
mod lines;
mod restarts;

pub use keeper::{Event, Keeper, Next, Program, SpawnError};
pub use lines::{LINE_BYTES_MAX, Line, Pace};
pub use restarts::{Limits, Restarts, Verdict};
