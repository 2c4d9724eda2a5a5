//! Derny on a node of this machine, step by step, with real pods, servers and clients.

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use derny_tests::observe::now;

use crate::build;

/// The node, its pods, servers and services.
mod world;
/// What is shown.
mod steps;
/// The agent goes away under load and comes back.
mod absence;
/// What was measured, and what was promised of it.
mod measured;
/// Headings, tables, the progress line.
mod show;
/// A node that was left up.
pub(crate) mod kept;

use measured::Measured;
use world::World;

pub(crate) struct Options {
    /// Leave the node up.
    pub(crate) keep: bool,
    /// Where to write what was measured.
    pub(crate) json: Option<PathBuf>,
}

/// Builds and shows everything. The exit code is 1 when a promise was broken.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    build::run()?;
    let begun = now();
    let mut world = World::new()?;
    let measured = play(&mut world, begun);
    if options.keep {
        kept::keep(world)?;
    } else {
        drop(world);
    }
    let measured = measured?;
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&measured).context("writing JSON")?;
        fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    let broken = measured.broken_promises();
    println!("\n{}", summary(&broken, begun.elapsed()));
    Ok(if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn play(world: &mut World, begun: Instant) -> Result<Measured> {
    show::opening(world, begun.elapsed());
    let without = steps::without(world)?;
    let with = steps::with(world)?;
    let endpoint_kill = steps::endpoint_kill(world)?;
    let agent_kill = absence::killed(world)?;
    let agent_hang = absence::hung(world)?;
    Ok(Measured {
        without,
        with,
        endpoint_kill,
        agent_kill,
        agent_hang,
    })
}

fn summary(broken: &[String], took: Duration) -> String {
    if broken.is_empty() {
        return format!("All promises kept, in {:.0} s.", took.as_secs_f64());
    }
    format!("Broken promises:\n  {}", broken.join("\n  "))
}
