//! The command line. One file per subcommand; what they share is here.

mod run;
mod status;
mod pods;
mod services;
mod endpoints;
mod explain;
mod redirects;
mod check;
mod crd;
mod import;
mod output;
mod failure;

use std::{ffi::OsString, future::Future, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{admin::Client, options::RunArgs};
use failure::Failure;
use output::Output;

/// Per-node service mesh: the agent, and windows into it.
#[derive(Debug, Parser)]
#[command(name = "derny", version, after_help = EXIT_CODES)]
struct Cli {
    /// Unix socket of the agent
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "DERNY_ADMIN_SOCKET",
        default_value = "/run/derny/admin.sock"
    )]
    admin_socket: PathBuf,

    /// Tables for people, JSON for programs
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Output,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent of this node
    Run(Box<RunArgs>),
    /// How the agent is: ready, configuration in force, heartbeat, workers
    Status,
    /// The pods of this node and whether their connections are redirected
    Pods,
    /// The services that the mesh serves, with their endpoints
    Services,
    /// Who answers for a service, and how each is doing
    Endpoints {
        /// `name`, `namespace/name` or `namespace/name:port`; all services without it
        #[arg(default_value_t, hide_default_value = true)]
        service: String,
    },
    /// What would become of a request, and why
    Explain(explain::ExplainArgs),
    /// What the kernel redirects, from its own tables: works without the agent
    Redirects,
    /// Look at configuration files
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Carry another proxy's configuration over
    #[command(subcommand)]
    Import(ImportCommand),
    /// Print the CustomResourceDefinition of TrafficPolicy
    Crd,
    /// Take the agents' conditions out of the statuses of a cluster's routes and policies, when no agent runs any more
    ClearStatuses {
        /// How to reach the API server [default: the pod's service account, else KUBECONFIG]
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum ImportCommand {
    /// An Envoy bootstrap (YAML or JSON): prints what means the same here, and says of every other field why not
    Envoy(import::EnvoyArgs),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say all that is wrong with a file
    Check {
        /// The file
        file: PathBuf,
    },
}

const EXIT_CODES: &str = "Exit codes: 0 good; 1 something is wrong (a fault in the configuration, an agent that \
    is not ready or cannot start); 64 the command line is wrong; 69 no agent answers";

/// Does what `args` say (the first is the program's name) and gives the process's exit code.
pub fn main(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Fails only when nobody reads. `--help` and `--version` come here too, and are no errors.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(64)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            match &failure {
                Failure::Finding => {}
                Failure::Error(error) | Failure::Usage(error) => eprintln!("derny: {}", with_causes(error)),
                Failure::Unreachable(error) => eprintln!("derny: {error}"),
            }
            ExitCode::from(failure.code())
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    let Cli {
        admin_socket,
        output,
        command,
    } = cli;
    match command {
        Command::Run(args) => run::run(RunArgs {
            admin_socket,
            ..*args
        }),
        Command::Status => asking(async {
            let status = Client::connect(&admin_socket).await?.status().await?;
            status::show(&status, output)
        }),
        Command::Pods => asking(async {
            let pods = Client::connect(&admin_socket).await?.pods().await?;
            pods::show(&pods, output)
        }),
        Command::Services => asking(async {
            let services = Client::connect(&admin_socket).await?.services().await?;
            services::show(&services, output)
        }),
        Command::Endpoints { service } => asking(async {
            let endpoints = Client::connect(&admin_socket).await?.endpoints(service).await?;
            endpoints::show(&endpoints, output)
        }),
        Command::Explain(args) => {
            let request = args.request().map_err(Failure::Usage)?;
            asking(async {
                let explanation = Client::connect(&admin_socket).await?.explain(request).await?;
                explain::show(&explanation, output)
            })
        }
        Command::Redirects => redirects::run(output),
        Command::Config(ConfigCommand::Check { file }) => check::run(&file, output),
        Command::Import(ImportCommand::Envoy(args)) => import::run(&args, output),
        Command::Crd => crd::show(),
        Command::ClearStatuses { kubeconfig } => {
            let cleared = crate::app::clear_statuses(kubeconfig.as_deref())?;
            output::write(&format!("conditions of {cleared} objects removed"))
        }
    }
}

/// The error and its causes, each said once: many of our errors end with their cause already.
fn with_causes(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .fold(String::new(), |text, cause| {
            if text.is_empty() {
                cause
            } else if text.contains(&cause) {
                text
            } else {
                format!("{text}: {cause}")
            }
        })
}

/// Runs what talks with the agent.
fn asking(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(anyhow::Error::from)?.block_on(command)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::admin::ClientError;

    fn parse(args: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(args.split_whitespace())
    }

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_anywhere() {
        for args in [
            "derny -o json --admin-socket /s status",
            "derny status --admin-socket /s -o json",
        ] {
            let cli = parse(args).unwrap();
            assert_eq!((cli.output, cli.admin_socket), (Output::Json, "/s".into()));
        }
    }

    #[test]
    fn every_cause_is_said_once() {
        let cause = std::io::Error::other("no space");
        let error = ClientError::Open {
            path: "/s".into(),
            source: cause,
        };
        let error = anyhow::Error::from(error).context("cannot start");
        assert_eq!(
            with_causes(&error),
            "cannot start: cannot open the admin socket /s: no space"
        );
    }

    #[test]
    fn usage_is_64_and_help_is_good() {
        fn check(args: &str, expect: ExitCode) {
            assert_eq!(
                format!("{:?}", main(args.split_whitespace())),
                format!("{expect:?}"),
                "{args}"
            );
        }
        check("derny", ExitCode::from(64));
        check("derny stauts", ExitCode::from(64));
        check("derny run", ExitCode::from(64));
        check("derny run --config /x --workers 0", ExitCode::from(64));
        check("derny explain --from demo/client http://", ExitCode::from(64));
        check("derny explain --from client http://echo", ExitCode::from(64));
        check("derny --help", ExitCode::SUCCESS);
        check("derny --version", ExitCode::SUCCESS);
        check(
            "derny status --admin-socket /nowhere/derny.sock",
            ExitCode::from(69),
        );
        check("derny config check /nowhere/derny.yaml", ExitCode::from(1));
    }
}
