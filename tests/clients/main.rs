//! `derny-testc`: what no ready-made client does, raw conversations above all, and tonic. Run inside a pod, because
//! only a process of the pod has its connections redirected.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod calls;
mod talk;
mod tonic;

#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A TCP conversation, step by step; prints what was received
    Talk(talk::Options),
    /// HTTP and gRPC calls, as lines of standard input say; prints how each ended
    Calls,
    /// All four gRPC kinds, metadata and statuses with tonic; prints who answered
    Tonic(tonic::Options),
}

fn main() -> Result<()> {
    match Options::parse().command {
        Command::Talk(options) => talk::run(&options),
        Command::Calls => calls::run(),
        Command::Tonic(options) => tonic::run(&options),
    }
}
