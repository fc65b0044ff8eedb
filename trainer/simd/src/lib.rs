//! Plain Rust loops, compiled once for each level of vector instructions; which of them runs is chosen when they are called.
//!
//! Start with [`vectorised!`]: it takes functions as one writes them and makes each of them several, one a [`Level`]. The
//! compiler turns their loops into the level's vector instructions; nobody writes an instruction by hand. [`level()`] says
//! which level this processor has; it is asked once.
//!
//! What is computed, the callers decide: `covey-sparseloco` (whose bits must be the same at every level, and are, since no
//! compiler fuses or reorders f32 operations by itself) and the CPU backend of `covey-trainer` (which fuses
//! multiply-adds where that is one instruction, and so may round differently on an old processor).
//!
//! Tests ask for a lower level than the processor's with [`lower_to`], so that what runs on other machines is tested on this
//! one. Processors other than x86-64 have one level: what their target guarantees.

mod level;

pub use level::{Level, best, level, levels, lower_to};
