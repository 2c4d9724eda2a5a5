//! The agent goes away and comes back; the pods work on. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{process::Stdio, time::Duration};

use derny_tests::{
    Agent, World, clients,
    load::{Call, Load, unix_now},
};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(10);
/// After so many seconds without an agent no new connection may fail.
const FAIL_OPEN: f64 = 1.5;

/// New connections before, during and after an absence of the agent.
fn absence(go: fn(&mut Agent), come_back: fn(&mut Agent)) {
    let mut world = World::new(2).unwrap();
    let load = Load::connections(&world.client, &world.target("http").unwrap()).unwrap();
    load.wait_for("redirected connections", 20, 0.0, SOON, Call::by_derny)
        .unwrap();
    go(&mut world.agent);
    let gone = unix_now();
    load.wait_for("direct connections", 50, gone, SOON, Call::directly)
        .unwrap();
    come_back(&mut world.agent);
    let back = unix_now();
    load.wait_for("redirected connections again", 20, back, SOON, Call::by_derny)
        .unwrap();

    let calls = load.end().unwrap();
    let late: Vec<_> = calls
        .iter()
        .filter(|call| !call.ok && call.ended() > gone + FAIL_OPEN)
        .collect();
    assert!(late.is_empty(), "{} s after: {late:?}", late[0].ended() - gone);
    let early: Vec<_> = calls
        .iter()
        .filter(|call| !call.ok && call.ended() < gone)
        .collect();
    assert!(early.is_empty(), "{early:?}");
}

#[test]
fn without_a_killed_agent_pods_work_directly() {
    absence(
        |agent| agent.kill9().unwrap(),
        |agent| agent.start_again().unwrap(),
    );
}

#[test]
fn without_a_hung_agent_pods_work_directly() {
    absence(|agent| agent.stop().unwrap(), |agent| agent.cont().unwrap());
}

#[test]
fn an_agent_that_is_told_to_end_loses_no_request() {
    let mut world = World::new(2).unwrap();
    let loads = [
        Load::grpc(&world.client, &world.target("grpc").unwrap()).unwrap(),
        Load::connections(&world.client, &world.target("http").unwrap()).unwrap(),
    ];
    for load in &loads {
        load.wait_for("redirected calls", 20, 0.0, SOON, Call::by_derny)
            .unwrap();
    }
    let in_flight: Vec<_> = ["--http1.1", "--http2-prior-knowledge"]
        .into_iter()
        .map(|flag| {
            let mut curl = clients::curl([flag, &world.url("http", "/delay/2s?slow").unwrap()]);
            curl.stdout(Stdio::piped()).stderr(Stdio::piped());
            world.client.spawn(curl).unwrap()
        })
        .collect();
    let both = |sum: f64| sum >= 2.0;
    let http = [("destination_service", "http")];
    world
        .agent
        .metric("derny_connections_active", &http, both)
        .unwrap();

    world.agent.signal(Signal::SIGTERM).unwrap();
    let told = unix_now();
    for load in &loads {
        load.wait_for("direct calls", 50, told, SOON, Call::directly)
            .unwrap();
    }
    for curl in in_flight {
        let said = curl.output(SOON).unwrap().success().unwrap();
        assert!(
            said.contains("x-request-id"),
            "it was answered through the engine: {said}"
        );
    }
    assert!(world.agent.ended(SOON).unwrap().success());
    for load in loads {
        let calls = load.end().unwrap();
        let failed: Vec<_> = calls.iter().filter(|call| !call.ok).collect();
        assert!(
            failed.is_empty(),
            "{} of {}, told at {told}: {failed:?}",
            failed.len(),
            calls.len()
        );
    }
    // The log of an agent that has ended is whole.
    let log = world.agent.access_log().unwrap();
    assert_eq!(
        log.iter().filter(|line| line["path"] == "/delay/2s?slow").count(),
        2
    );
}
