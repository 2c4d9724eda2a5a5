//! The agent goes away under load and comes back.

use std::time::Duration;

use anyhow::Result;
use derny_tests::load::{Call, Load, unix_now};

use super::{measured::Absence, show, world::World};

/// How long the agent stays away.
const AWAY: Duration = Duration::from_millis(2500);
/// How long a client may take to be served as it should.
const SERVED: Duration = Duration::from_secs(10);
/// How long it goes on after the agent is back.
const AFTER: Duration = Duration::from_secs(1);

/// The agent is killed with SIGKILL, and started again.
pub(crate) fn killed(world: &mut World) -> Result<Absence> {
    show::heading(
        "4",
        "The agent is killed (kill -9) under load, then started again",
    );
    away(
        world,
        |world| world.derny()?.kill9(),
        |world| world.derny()?.start_again(),
    )
}

/// The agent is stopped with SIGSTOP: it holds its sockets and answers nothing. Then it goes on.
pub(crate) fn hung(world: &mut World) -> Result<Absence> {
    show::heading(
        "5",
        "The agent hangs (SIGSTOP) under load, then goes on (SIGCONT)",
    );
    away(
        world,
        |world| world.derny()?.stop(),
        |world| world.derny()?.cont(),
    )
}

fn away(
    world: &mut World,
    go: impl FnOnce(&mut World) -> Result<()>,
    come_back: impl FnOnce(&mut World) -> Result<()>,
) -> Result<Absence> {
    let grpc = Load::grpc(&world.clients[0], &world.echo.target())?;
    let connections = Load::connections(&world.clients[1], &world.web.target())?;
    grpc.wait_for("gRPC calls pass Derny", 100, 0.0, SERVED, Call::by_derny)?;
    connections.wait_for("new connections pass Derny", 10, 0.0, SERVED, Call::by_derny)?;

    let gone = unix_now();
    go(world)?;
    show::watch("without the agent", &[&grpc, &connections], AWAY);
    come_back(world)?;
    let back = unix_now();
    let again = connections.wait_for(
        "new connections pass Derny again",
        10,
        back,
        SERVED,
        Call::by_derny,
    );
    show::watch("the agent is back", &[&grpc, &connections], AFTER);

    let (grpc, connections) = (grpc.end()?, connections.end()?);
    table(&grpc, &connections, gone, back);
    again?;
    Ok(Absence::new(&grpc, &connections, gone, back))
}

fn table(grpc: &[Call], connections: &[Call], gone: f64, back: f64) {
    println!(
        "   {:<32} {:>6} {:>7} {:>12} {:>16} {:>15}",
        "client", "calls", "failed", "last failed", "served directly", "by Derny again"
    );
    for (name, calls) in [
        ("gRPC over one standing channel", grpc),
        ("HTTP, a new connection each", connections),
    ] {
        let it = Absence::new(&[], calls, gone, back);
        println!(
            "   {name:<32} {:>6} {:>7} {:>10.2} s {:>16} {:>15}",
            it.calls,
            it.failed,
            it.last_failed_new_connection_s,
            it.served_directly,
            it.served_by_derny_again
        );
    }
    if let Some(failed) = grpc.iter().find(|call| !call.ok) {
        println!(
            "   Calls in the engine when it went fail as with any proxy: {}.",
            failed.code
        );
    }
    if !grpc.iter().any(|call| call.begun >= back && call.by_derny()) {
        println!("   The channel came back directly, and stays so until it connects again.");
    }
    if let Some(failed) = connections.iter().rfind(|call| !call.ok) {
        println!("   The last new connection that failed: {}", failed.error);
    }
}
