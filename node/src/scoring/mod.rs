//! A validator's look at a round's contributions: whom it looks at first, and what each of them does to the loss.
//!
//! [`order()`] decides whom to evaluate and how many there is time for. [`loss`] is Gauntlet's evaluation of one
//! contribution: does it lower the loss, on its author's data and on nobody's? It is tried as loud as [`scale`] says that it
//! would be applied. What is done with the answer (ratings,
//! weights, ballots) is `covey_round`'s; where a contribution's bytes come from, the caller's.

pub mod loss;
pub mod order;
pub mod scale;

pub use loss::{Bench, ScoreError, Setting};
pub use order::{evaluations_max, order};
pub use scale::{Scale, norms};
