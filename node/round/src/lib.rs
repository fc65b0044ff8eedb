//! What decides and never waits: the round's clock, data assignment, selection, ratings, and the state machine that
//! tells a node what to do next.
//!
//! No socket, clock, file or task: the chain's state at final blocks goes in, decisions come out, so ten thousand peers
//! can be simulated in one process. Start with [`clock`]: a round in blocks. [`select`] is the function that every peer
//! must compute alike; [`submit`] brings a node's calls into blocks; [`assign`] says who trains on what; [`rating`] turns loss scores into weights and ballots.

pub mod assign;
pub mod ballot;
pub mod clock;
pub mod engine;
pub mod gather;
pub mod rating;
pub mod select;
pub mod submit;
