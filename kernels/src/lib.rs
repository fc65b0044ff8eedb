//! CUDA C++ sources, and the contract that they must meet. There are none yet: training runs on the CPU.
//!
//! The crate is here so that whoever writes the first kernel finds its place and its rules. Nothing depends on it.
//!
//! # Where to start
//! With the trait that kernels sit behind, `covey_trainer::Backend`: a device that owns parameters and optimizer moments.
//! Then with the function on the CPU whose result a kernel must give: for the agreed state that is `covey-sparseloco`
//! (`aggregate`, `state`, `codec`), for training `covey_trainer::cpu`. Which device a node uses, and when a tensor moves to
//! it, is decided there, not here.
//!
//! # The contract
//! - **Same bits where bits are promised.** What touches the agreed state (decoding, norms, aggregation, the outer step,
//!   the state root) gives the bits of `covey-sparseloco` on the CPU: the same order, no atomics on floats, `__fadd_rn`,
//!   `__fmul_rn`, `__fdiv_rn`, `__fsqrt_rn` instead of operators that a compiler may fuse, no fast-math. Training itself
//!   need not agree between machines.
//! - **Loaded, not linked.** Driver, NVRTC and cuBLASLt are opened when the process starts and finds them; without them it
//!   says one line and uses the CPU. Each library is asked for before its first call, since a missing one must not
//!   panic.
//! - **Compiled where it runs**, by NVRTC, for the device that is there; in tests for `sm_80`, `sm_90a` and `sm_100a`
//!   without a GPU, so that every source is checked everywhere.
//! - **Read like a paper.** A file opens with the idea, names the Rust function whose result it must give, and states what
//!   it reads and writes a value. The slow reference and the fastest version stay; what lies between goes.
