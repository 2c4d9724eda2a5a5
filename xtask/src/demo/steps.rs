//! What is shown: without Derny, with it, and an endpoint that dies.

use std::time::Duration;

use anyhow::{Context, Result};
use derny_tests::{
    clients, eventually,
    load::{Call, Load, unix_now},
};

use super::{
    measured::{Kill, Spread, spread},
    show,
    world::{Service, World},
};

/// Calls of the steps that count them by endpoint.
const CALLS: u32 = 3000;
const CALLS_DEADLINE: Duration = Duration::from_secs(30);
/// How long a client may take to make its first calls.
const FIRST_CALLS: Duration = Duration::from_secs(10);

/// One gRPC channel, balanced by connection: all its calls go to one endpoint.
pub(crate) fn without(world: &World) -> Result<Spread> {
    show::heading(
        "1",
        &format!("Without Derny: {CALLS} gRPC calls of client-1 over one channel"),
    );
    let spread = calls_by_endpoint(world)?;
    show::spread(&spread);
    println!("   The virtual address balances connections, and there is one.");
    Ok(spread)
}

/// The same client against the same address, balanced by request.
pub(crate) fn with(world: &mut World) -> Result<Spread> {
    world.start_derny()?;
    show::heading(
        "2",
        "With Derny on the node: the same client, the same address, nothing restarted",
    );
    let spread = calls_by_endpoint(world)?;
    show::spread(&spread);

    println!("\n   Eight requests of client-2's curl over one HTTP/1.1 connection to web:");
    show::quote(&curl_spread(world)?);

    let agent = world.derny()?;
    println!("\n   Two lines of the access log:");
    let mut lines = Vec::new();
    eventually(
        "the access log has lines of both services",
        Duration::from_secs(5),
        || {
            lines = agent.access_log().unwrap_or_default();
            lines.len() > CALLS as usize
        },
    )?;
    for line in [lines.first(), lines.last()].into_iter().flatten() {
        show::quote(&line.to_string());
    }
    println!("\n   derny redirects, from the kernel's own maps:");
    show::quote(&agent.cli(&["redirects"])?.success()?);
    Ok(spread)
}

/// `kill -9` of an endpoint's server while calls flow. Its address stays in the configuration.
pub(crate) fn endpoint_kill(world: &mut World) -> Result<Kill> {
    show::heading("3", "An endpoint is killed (kill -9) while client-1 calls");
    let load = Load::grpc(&world.clients[0], &world.echo.target())?;
    let last = world.echo.pods.last().context("echo has pods")?.name().to_owned();
    let answers = |call: &Call| call.ok && call.endpoint == last;
    load.wait_for(&format!("{last} answers"), 50, 0.0, FIRST_CALLS, answers)?;
    show::watch("before", &[&load], Duration::from_millis(500));
    let killed_at = unix_now();
    world.echo.kill_last()?;
    show::watch("after the kill", &[&load], Duration::from_secs(2));
    world.echo.revive_last()?;
    let back = load.wait_for(
        &format!("{last} answers again"),
        50,
        killed_at + 2.0,
        FIRST_CALLS,
        answers,
    );
    let calls = load.end()?;
    let failed: Vec<&Call> = calls.iter().filter(|call| !call.ok).collect();
    let slowest = calls
        .iter()
        .filter(|call| call.begun >= killed_at)
        .map(|call| call.took)
        .fold(0.0, f64::max);
    show::figures(&[
        ("calls", &calls.len()),
        ("failed", &failed.len()),
        ("slowest after the kill", &format!("{slowest:.1} ms")),
        ("endpoint killed, then started again", &last),
    ]);
    for call in failed.iter().take(3) {
        println!(
            "   failed {:.3} s after the kill: {}",
            call.begun - killed_at,
            call.code
        );
    }
    back?;
    Ok(Kill {
        calls: calls.len(),
        failed: failed.len(),
    })
}

fn calls_by_endpoint(world: &World) -> Result<Spread> {
    let load = Load::grpc_calls(&world.clients[0], &world.echo.target(), CALLS)?;
    let calls = load.finish(CALLS_DEADLINE)?;
    if let Some(failed) = calls.iter().find(|call| !call.ok) {
        anyhow::bail!("a call failed: {failed:?}");
    }
    Ok(spread(names(&world.echo), &calls))
}

fn names(service: &Service) -> impl Iterator<Item = String> {
    service.pods.iter().map(|pod| pod.name().to_owned())
}

/// Who answered each of eight requests over one connection, in order.
fn curl_spread(world: &World) -> Result<String> {
    let url = world.web.vip.url("/[1-8]");
    let answers = world.clients[1].run(clients::curl([url]))?.success()?;
    let mut endpoints = Vec::new();
    for answer in answers.lines() {
        let answer: serde_json::Value =
            serde_json::from_str(answer).with_context(|| format!("web answered {answer:?}"))?;
        endpoints.push(
            answer["endpoint"]
                .as_str()
                .context("an answer without an endpoint")?
                .to_owned(),
        );
    }
    Ok(endpoints.join(" "))
}
