//! `derny`: the agent of a node, and its command line.

use std::process::ExitCode;

/// Workers allocate and free on their own threads; mimalloc keeps that free of locks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    derny::cli::main(std::env::args_os())
}
