//! CPU per request of Derny beside a bare hyper relay and Envoy, on the same traffic in the same run.
//!
//! The proxy under test has one core, everything else the other one, so that the proxies meet the same world one
//! after the other. Figures are CPU time of the proxy's process (`/proc/PID/task/*/schedstat`, nanoseconds) over
//! requests that h2load counted; compare them within a run and not between machines.

mod fairness;
mod proxies;
mod relay;
mod traffic;

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::{Context, Result, ensure};
use derny_tests::{
    node::Node,
    pod::Pod,
    upstream::{HTTP_PORT, Testd},
};
use proxies::{Kind, Running};
use traffic::{Load, PROTOCOLS, Pace, Protocol};

/// The relay's allocator is Derny's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How Derny may compare with the bare relay.
const MOST_OF_RELAY: f64 = 1.5;

/// Rounds of the whole table; the median counts.
const ROUNDS: usize = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("relay") => relay::run(&arguments[1..]).map(|()| ExitCode::SUCCESS),
        Some("fairness") => {
            fairness::run(arguments.iter().any(|a| a == "--quick")).map(|missed| match missed {
                true => ExitCode::FAILURE,
                false => ExitCode::SUCCESS,
            })
        }
        _ => bench(arguments.iter().any(|a| a == "--quick")),
    };
    result.unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        ExitCode::FAILURE
    })
}

fn bench(quick: bool) -> Result<ExitCode> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the bench needs root: network namespaces and eBPF"
    );
    let mut kinds = vec![Kind::Relay, Kind::Derny];
    match proxies::envoy() {
        Some(_) => kinds.push(Kind::Envoy),
        None => println!("no envoy: `cargo xtask bench` installs it\n"),
    }
    let node = Node::new()?;
    let client = node.pod("client")?;
    let pods = ["echo-1", "echo-2", "echo-3"].map(|name| node.pod(name));
    let pods: Vec<Pod> = pods.into_iter().collect::<Result<_>>()?;
    let vip = node.service("bench", 80, HTTP_PORT, &pods.iter().collect::<Vec<_>>())?;
    let servers: Vec<Testd> = pods.iter().map(Testd::start).collect::<Result<_>>()?;
    for server in &servers {
        traffic::pin(server.id(), traffic::WORLD)?;
    }

    let mut samples: BTreeMap<(Protocol, Pace, Kind), Vec<f64>> = BTreeMap::new();
    let rounds = if quick { 1 } else { ROUNDS };
    for round in 0..rounds {
        for kind in &kinds {
            eprintln!("round {} of {}: {}", round + 1, rounds, kind.name());
            let proxy = Running::start(*kind, &node, &client, &pods, &vip)?;
            for protocol in PROTOCOLS {
                for pace in [Pace::Saturated, Pace::Paced] {
                    let load = Load {
                        protocol,
                        pace,
                        target: proxy.target(),
                    };
                    load.warm_up(&client)?;
                    let before = proxy.cpu()?;
                    let requests = load.run(&client)?;
                    let used = (proxy.cpu()? - before).as_secs_f64() * 1e6;
                    samples
                        .entry((protocol, pace, *kind))
                        .or_default()
                        .push(used / requests);
                }
            }
        }
    }
    drop(servers);
    let over = report(&samples, &kinds, rounds);
    Ok(if over {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Prints the table; true when Derny costs more than it may.
fn report(samples: &BTreeMap<(Protocol, Pace, Kind), Vec<f64>>, kinds: &[Kind], rounds: usize) -> bool {
    let median = |protocol, pace, kind| -> Option<f64> {
        let mut values = samples.get(&(protocol, pace, kind))?.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    println!("\nµs of the proxy's CPU per request, median of {rounds} round(s)");
    print!("{:<28}", "");
    kinds.iter().for_each(|kind| print!("{:>10}", kind.name()));
    println!("{:>14}{:>14}", "derny/relay", "derny/envoy");
    let mut over = false;
    for pace in [Pace::Saturated, Pace::Paced] {
        for protocol in PROTOCOLS {
            print!("{:<28}", format!("{} {}", protocol.name(), pace.name()));
            for kind in kinds {
                print!("{:>10.1}", median(protocol, pace, *kind).unwrap_or(f64::NAN));
            }
            let ratio = |to| Some(median(protocol, pace, Kind::Derny)? / median(protocol, pace, to)?);
            let show = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |r| format!("{r:.2}"));
            println!("{:>14}{:>14}", show(ratio(Kind::Relay)), show(ratio(Kind::Envoy)));
            over |= ratio(Kind::Relay).is_some_and(|ratio| ratio > MOST_OF_RELAY);
        }
    }
    println!(
        "Derny's bound: {MOST_OF_RELAY} of the bare relay: {}",
        if over { "exceeded" } else { "kept" }
    );
    over
}

/// The executable's own path, to run itself as the relay.
fn own_path() -> Result<std::path::PathBuf> {
    std::env::current_exe().context("own path")
}
