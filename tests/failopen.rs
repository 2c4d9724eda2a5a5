//! The agent goes away and comes back; the pods work on. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use derny_tests::{
    Agent, World, clients,
    load::{Call, Load, unix_now},
    upstream::TestdOptions,
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

/// Connections that are kept, then new ones, one after the other, for a while: says how many were made and refused.
const DIALS: &str = r#"
import socket, sys, time
host, port = sys.argv[1].rsplit(":", 1)
kept = [socket.create_connection((host, int(port))) for _ in range(800)]
print("kept", flush=True)
made = refused = 0
end = time.time() + 3
while time.time() < end:
    try:
        socket.create_connection((host, int(port)), 2).close()
        made += 1
    except ConnectionRefusedError:
        refused += 1
print(made, refused)
"#;

/// The kernel takes a killed process apart piece by piece: what redirects must go before who listens.
#[test]
fn nobody_is_refused_while_a_killed_agent_is_taken_apart() {
    for _ in 0..4 {
        let mut world = World::new(1).unwrap();
        let mut python = Command::new("python3");
        python
            .args(["-c", DIALS, &world.target("http").unwrap()])
            .stdout(Stdio::piped());
        let mut dialling = world.client.spawn(python).unwrap();
        let mut said = BufReader::new(dialling.child().stdout.take().unwrap()).lines();
        assert_eq!(said.next().unwrap().unwrap(), "kept");
        world
            .agent
            .metric("derny_connections_total", &[], |n| n > 1000.0)
            .unwrap();
        world.agent.kill9().unwrap();
        let counts = said.next().unwrap().unwrap();
        let (made, refused) = counts.split_once(' ').unwrap();
        assert!(made.parse::<u64>().unwrap() > 1000, "{counts}");
        assert_eq!(refused, "0", "of {made}");
    }
}

#[test]
fn without_a_hung_agent_pods_work_directly() {
    absence(|agent| agent.stop().unwrap(), |agent| agent.cont().unwrap());
}

/// How soon after a hang a channel that stands must work again.
const ENDED: f64 = 5.0;

/// A channel that stands on an agent which hangs from `hang` on.
fn standing(hang: fn(&mut Agent)) {
    let mut world = World::with(2, &TestdOptions::default(), |agent| {
        agent.environment.clear();
    })
    .unwrap();
    let load = Load::grpc_with(&world.client, &world.target("grpc").unwrap(), &["--rate", "100"]).unwrap();
    load.wait_for("redirected calls", 50, 0.0, SOON, Call::by_derny)
        .unwrap();
    hang(&mut world.agent);
    let gone = unix_now();
    load.wait_for("direct calls", 50, gone, SOON, Call::directly)
        .unwrap();
    let calls = load.end().unwrap();
    let late = calls.iter().find(|call| !call.ok && call.begun > gone + ENDED);
    assert!(late.is_none(), "{late:?}");
    let first = calls
        .iter()
        .find(|call| call.begun > gone && call.directly())
        .unwrap();
    println!("direct after {:.1} s", first.ended() - gone);
    assert!(first.ended() < gone + ENDED, "{first:?}");
}

#[test]
fn a_channel_does_not_stand_for_long_on_an_agent_that_is_stopped() {
    standing(|agent| agent.stop().unwrap());
}

#[test]
fn a_channel_does_not_stand_for_long_on_a_worker_that_is_blocked() {
    standing(|agent| agent.stop_thread("derny-worker-0").unwrap());
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

/// Connections that ask for nothing: HTTP/1.1 after an answer, HTTP/2 that acknowledges nothing, and no word at all.
const IDLE: &str = r#"
import socket, sys
def opened(target, first, expect):
    host, port = target.rsplit(":", 1)
    s = socket.create_connection((host, int(port)), 10)
    s.sendall(first)
    got = b""
    while expect not in got:
        got += s.recv(4096)
    return s
http, http2 = sys.argv[1:]
kept = [
    opened(http, b"GET /bytes/5 HTTP/1.1\r\nhost: a\r\n\r\n", b"200 OK"),
    opened(http2, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", b"\0\0\0\4\1"),
    opened(http, b"", b""),
]
print("open", flush=True)
sys.stdin.read()
"#;

#[test]
fn an_agent_with_nothing_in_flight_ends_soon() {
    let mut world = World::new(1).unwrap();
    let mut python = Command::new("python3");
    python
        .args([
            "-c",
            IDLE,
            &world.target("http").unwrap(),
            &world.target("http2").unwrap(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut idle = world.client.spawn(python).unwrap();
    let mut said = BufReader::new(idle.child().stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "open");
    let told = derny_tests::observe::now();
    world.agent.signal(Signal::SIGTERM).unwrap();
    assert!(world.agent.ended(SOON).unwrap().success());
    let took = told.elapsed();
    assert!(
        took < Duration::from_secs(5),
        "with 10 s for what is in flight: {took:?}"
    );
}
