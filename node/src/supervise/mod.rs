//! Processes that a process starts and looks after: each has a pipe of its own in both directions and a log, is started
//! again when it dies, and ends when whoever started it is gone, even by `kill -9`.
//!
//! A child says [`Line`]s on its standard output, one JSON object a line. The end of its standard input tells it that
//! nobody listens any more; [`lifeline`] is the child's side of both pipes. [`Restarts`] decides, without clock or process,
//! whether a child that has ended is started again; [`Keeper`] starts, listens, waits and obeys. What the children are
//! for, and what their lines mean, is their owner's business.

mod keeper;
pub mod lifeline;
mod lines;
mod restarts;

pub use keeper::{Keeper, ProcessEvent, Program, SpawnError};
pub use lines::{LINE_BYTES_MAX, Line, Pace};
pub use restarts::{Death, Limits, Next, Restarts, Wanted};
