//! The deciding half of the blob exchange: no socket, no clock, no file.
//!
//! [`scheduler`] says which piece to ask of whom, [`governor`] who may send next; [`frames`] is what they say to one
//! another, as bytes. The first two are told what happens, and the time, and are generic over what names a peer: a
//! network of sockets drives them, or a simulation.

mod class;
pub mod frames;
pub mod governor;
pub mod scheduler;

pub use class::Class;
