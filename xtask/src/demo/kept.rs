//! A node that was left up: what to do with it.

use std::{
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, anyhow};
use derny_tests::{agent, node};

use super::world::World;

/// Leaves everything running and says how to look around.
pub(crate) fn keep(world: World) -> Result<()> {
    world.node.keep()?;
    let client = world.clients[0].name();
    println!("\nThe node {} is left up. Look around:", world.node.prefix());
    println!("  cargo xtask exec {client} curl {}", world.web.vip.url("/"));
    println!("  cargo xtask exec {client} bash");
    if let Some(derny) = &world.agent {
        let socket = derny.socket_path();
        for command in ["status", "pods", "redirects"] {
            println!(
                "  cargo xtask exec node derny --admin-socket {} {command}",
                socket.display()
            );
        }
        println!(
            "  cargo xtask exec node curl http://{}/metrics",
            agent::HTTP_ADDRESS
        );
        println!("  tail -f {}", derny.access_log_path().display());
    }
    println!("and take it down:\n  cargo xtask down {}", world.node.prefix());
    // Dropping would take it down now.
    std::mem::forget(world);
    Ok(())
}

/// Becomes `command` inside a pod of the kept node.
pub(crate) fn exec(pod: &str, command: &[String]) -> Result<ExitCode> {
    let kept = node::kept();
    let prefix = kept.first().context("no node is up: cargo xtask demo --keep")?;
    let (program, arguments) = command.split_first().context("no command")?;
    let mut command = match program.as_str() {
        "derny" => Command::new(agent::derny()?),
        program => Command::new(program),
    };
    node::enter_kept(prefix, pod, command.args(arguments))?;
    Err(anyhow!(command.exec()).context(format!("starting {program}")))
}

/// Takes the kept node of this name down, or every one.
pub(crate) fn down(name: Option<&str>) -> Result<()> {
    for prefix in node::kept()
        .into_iter()
        .filter(|prefix| name.is_none_or(|name| name == prefix))
    {
        node::remove_kept(&prefix);
        println!("{prefix} is down");
    }
    Ok(())
}
