//! `covey export`, `covey generate` and `covey model`.

mod describe;
mod export;
mod generate;

pub(super) use describe::{ModelCommand, run as model};
pub(super) use export::{ExportArgs, export};
pub(super) use generate::{GenerateArgs, generate};
