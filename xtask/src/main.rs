//! What a developer runs: `cargo xtask <command>`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

mod shell;
/// What must be installed before anything builds.
mod setup;
/// The agent and the test server.
mod build;
/// Unit and end-to-end tests.
mod test;
/// Inputs that nobody would send.
mod fuzz;
/// What dependencies must keep to.
mod deny;
/// CPU per request.
mod bench;
/// The repository's own rules.
mod tidy;
/// The container image.
mod image;
/// Derny on a node of this machine, step by step.
mod demo;

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    about = "What a developer runs",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Installs what building, the demo and the tests need; quick when all is there
    Setup,
    /// Builds the agent with its kernel programs, and the test server
    Build,
    /// Shows Derny at work on seven pods of this machine, then removes them
    Demo {
        /// Leave the node up at the end and say how to look around
        #[arg(long)]
        keep: bool,
        /// Write what was measured to this file
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Runs a program in a pod of the node that `demo --keep` left up; the pod `node` is the host
    Exec {
        pod: String,
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Takes down what `demo --keep` left up, or one node of it
    Down { node: Option<String> },
    /// Runs all tests, or those whose names contain a word
    Test { filter: Option<String> },
    /// Gives all parsers and the engine many inputs that nobody would send
    Fuzz(fuzz::Options),
    /// Checks licenses, sources and bans of what the workspace depends on
    Deny,
    /// Compares CPU per request with a bare hyper relay and with Envoy, on the same traffic
    Bench {
        /// Measures what one pod's flood does to another pod's calls instead
        #[arg(value_enum)]
        what: Option<bench::What>,
        /// One round instead of three
        #[arg(long)]
        quick: bool,
    },
    /// Builds a static program and packs it as a container image: an OCI layout in one tar file
    Image {
        #[arg(long, value_enum, default_value = "derny")]
        program: image::Program,
        #[arg(long, value_name = "FILE", default_value = "target/derny-image.tar")]
        output: PathBuf,
        #[arg(long, default_value = "dist")]
        profile: String,
        /// The compiler's target [default: x86-64 with musl where that is installed, else with glibc]
        #[arg(long, value_name = "TRIPLE")]
        target: Option<String>,
        /// Registry, repository and tag [default: localhost/PROGRAM:VERSION]
        #[arg(long)]
        name: Option<String>,
    },
    /// Checks import rules, file lengths and that maps and metrics are documented
    Tidy {
        /// Write the table of import rules into docs/architecture.md
        #[arg(long)]
        write: bool,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Setup => setup::run().map(|()| ExitCode::SUCCESS),
        Task::Build => build::run().map(|()| ExitCode::SUCCESS),
        Task::Demo { keep, json } => demo::run(&demo::Options { keep, json }),
        Task::Exec { pod, command } => demo::kept::exec(&pod, &command),
        Task::Down { node } => demo::kept::down(node.as_deref()).map(|()| ExitCode::SUCCESS),
        Task::Test { filter } => test::run(filter.as_deref()),
        Task::Fuzz(options) => fuzz::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Deny => deny::run().map(|()| ExitCode::SUCCESS),
        Task::Bench { what, quick } => {
            let rounds = if quick {
                bench::Rounds::One
            } else {
                bench::Rounds::Three
            };
            bench::run(what, rounds).map(|()| ExitCode::SUCCESS)
        }
        Task::Image {
            program,
            output,
            profile,
            target,
            name,
        } => image::run(&image::Options {
            program,
            output,
            profile,
            target,
            name,
        })
        .map(|()| ExitCode::SUCCESS),
        Task::Tidy { write: true } => tidy::run(tidy::Table::Write).map(|()| ExitCode::SUCCESS),
        Task::Tidy { write: false } => tidy::run(tidy::Table::Check).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}
