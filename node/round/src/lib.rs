//! What decides and never waits: the round's clock, data assignment, selection, ratings, and the state machine that tells
//! a node what to do next.
//!
//! No socket, clock, file or task: the chain's state at final blocks goes in, decisions come out, so that ten thousand peers
//! can be simulated in one process and a test can kill a node at every step.
//!
//! Start with [`clock`]: a round in blocks. It begins at S; the anchor A before it says who takes part, the commit deadline C
//! what is offered, the vote deadline V what was voted. Everything else is told when one of these is final.
//!
//! Some of it all nodes must compute alike, bit by bit:
//!
//! - [`select`]: which contributions a round applies, from the states at A, C and V. One function that one can audit.
//! - [`assign`]: who trains on which samples, and which samples judge; a permutation that a beacon keys.
//! - the tie and probation orders, derived from beacons that nobody knows beforehand.
//!
//! Some is each validator's own, and may be replaced without asking anybody:
//!
//! - [`rating`]: from loss scores to what is thought of each peer, and to weights on the chain.
//! - [`ballot`]: whom to vote for, of those whose contributions are held.
//!
//! Three state machines put them into an order; events and the time go in, actions come out:
//!
//! - [`engine`]: one node's way through its rounds. A block is final, a step is done: train, apply, vote. Its world, in the
//!   tests, is a chain and several nodes that are killed and late in every way that a seed can think of.
//! - [`gather`]: which announcements of a round count, when peers are asked for missing ones, when to give up. Whom they are
//!   asked of is the network's decision (`covey_gossip`).
//! - [`submit`]: a node's calls on their way into blocks: what to sign, send again, give up.
//!
//! Whoever drives them does the I/O, and nothing else: `covey`'s room `peer`.

pub mod assign;
pub mod ballot;
pub mod clock;
pub mod engine;
pub mod gather;
pub mod rating;
pub mod reach;
pub mod select;
pub mod submit;
