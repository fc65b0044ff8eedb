//! The binary `covey`.

use std::process::ExitCode;

fn main() -> ExitCode {
    covey::cli::main()
}
