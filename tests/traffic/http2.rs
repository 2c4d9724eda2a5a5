//! HTTP/2 with prior knowledge: streams, their limits, and connections that end.

use std::{process::Command, time::Duration};

use derny_tests::{
    World,
    load::{Load, unix_now},
    upstream::TestdOptions,
};
use nix::sys::signal::Signal;

const H2: &str = "--http2-prior-knowledge";

/// How many of h2load's requests succeeded, of how many.
fn h2load(world: &World, service: &str, path: &str, flags: &[&str]) -> (u64, u64) {
    let mut command = Command::new("h2load");
    command.args(flags).arg(world.url(service, path).unwrap());
    let said = world.client.run(command).unwrap().success().unwrap();
    let line = said.lines().find(|line| line.starts_with("requests:")).unwrap();
    let number = |word: &str| {
        let part = line.split(['\u{20}', ',']).collect::<Vec<_>>();
        let at = part.iter().position(|p| *p == word).unwrap();
        part[at - 1].parse::<u64>().unwrap()
    };
    let total = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    (number("succeeded"), total)
}

#[test]
fn the_version_is_kept_unless_the_port_says_otherwise() {
    let world = World::new(1).unwrap();
    for (service, flag, version) in [
        ("http", H2, "HTTP/2.0"),
        ("http", "--http1.1", "HTTP/1.1"),
        ("http2", H2, "HTTP/2.0"),
        ("http2", "--http1.1", "HTTP/2.0"),
        ("any-http", H2, "HTTP/2.0"),
        ("any-http", "--http1.1", "HTTP/1.1"),
    ] {
        let seen = world.get(service, "/x?y=1", &[flag]).unwrap();
        assert_eq!(seen["version"], version, "{service} {flag}: {seen}");
        assert_eq!(seen["path"], "/x?y=1");
        let host = if version == "HTTP/2.0" {
            &seen["authority"]
        } else {
            &seen["headers"]["host"]
        };
        assert_eq!(
            host,
            world.vip(service).unwrap().ip().to_string().as_str(),
            "{service} {flag}: {seen}"
        );
    }
}

#[test]
fn an_http1_caller_of_an_http2_port_sends_and_gets_bodies() {
    let world = World::new(1).unwrap();
    let said = world
        .shell(&format!(
            "head -c 3000000 /dev/urandom > /tmp/$$.body; sha256sum < /tmp/$$.body; \
             curl -sS --http1.1 -T /tmp/$$.body {0} | sha256sum; \
             curl -sS --http1.1 -T - {0} < /tmp/$$.body | sha256sum; rm /tmp/$$.body",
            world.url("http2", "/echo").unwrap()
        ))
        .unwrap();
    let sums: Vec<&str> = said.lines().collect();
    assert!(sums[0] == sums[1] && sums[0] == sums[2], "{said}");
}

#[test]
fn one_connection_reaches_all_endpoints() {
    let world = World::new(3).unwrap();
    assert_eq!(
        h2load(&world, "http", "/x", &["-n", "9", "-c", "1", "-m", "1"]),
        (9, 9)
    );
    let nine = |sum: f64| sum == 9.0;
    let log = "derny_access_log_lines_total";
    world.agent.metric(log, &[], nine).unwrap();
    assert_eq!(world.calls("http").unwrap(), [3, 3, 3]);
    let metrics = world.agent.metrics().unwrap();
    assert_eq!(
        metrics.sum("derny_connections_total", &[("destination_service", "http")]),
        1.0
    );
}

#[test]
fn a_thousand_concurrent_streams_on_ten_connections() {
    let world = World::new(3).unwrap();
    let flags = ["-n", "20000", "-c", "10", "-m", "100"];
    assert_eq!(h2load(&world, "http2", "/x", &flags), (20_000, 20_000));
    let connections = world
        .agent
        .metrics()
        .unwrap()
        .sum("derny_upstream_connections_total", &[]);
    assert!(
        connections <= 12.0,
        "{connections} connections to three endpoints"
    );
}

#[test]
fn an_endpoints_limit_of_streams_opens_more_connections() {
    let testd = TestdOptions {
        max_concurrent_streams: Some(4),
        ..TestdOptions::default()
    };
    let world = World::with(1, &testd, |_| {}).unwrap();
    let flags = ["-n", "400", "-c", "1", "-m", "40"];
    assert_eq!(h2load(&world, "http2", "/delay/20ms", &flags), (400, 400));
    let connections = world
        .agent
        .metrics()
        .unwrap()
        .sum("derny_upstream_connections_total", &[]);
    assert!(
        (10.0..=40.0).contains(&connections),
        "{connections} connections for 40 streams, 4 on each"
    );
}

#[test]
fn an_endpoint_that_says_goaway_costs_no_request() {
    let world = World::new(2).unwrap();
    // Every answer of `/close` is followed by GOAWAY.
    let flags = ["-n", "2000", "-c", "2", "-m", "10"];
    assert_eq!(h2load(&world, "http2", "/close", &flags), (2000, 2000));
    // Nor is it held against the endpoint.
    let metrics = world.agent.metrics().unwrap();
    assert_eq!(metrics.sum("derny_ejections_total", &[]), 0.0);
}

#[test]
fn an_endpoint_that_drains_costs_no_call() {
    let mut world = World::new(2).unwrap();
    let load = Load::grpc(&world.client, &world.target("grpc").unwrap()).unwrap();
    let soon = Duration::from_secs(20);
    load.wait_for("it is called", 100, 0.0, soon, |call| call.endpoint == "server-1")
        .unwrap();
    let mut testd = world.servers[0].testd.take().unwrap();
    testd.process().signal(Signal::SIGTERM).unwrap();
    assert!(testd.process().wait(soon).unwrap().success());
    load.wait_for("calls go on", 100, unix_now(), soon, |call| call.ok)
        .unwrap();
    load.end_unharmed().unwrap();
}

#[test]
fn callers_are_told_goaway_and_served_to_the_end() {
    let mut world = World::new(1).unwrap();
    let url = world.url("http2", "/delay/1500ms").unwrap();
    let mut slow = derny_tests::clients::curl([H2, "--verbose", &url]);
    slow.stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let slow = world.client.spawn(slow).unwrap();
    let in_flight = |sum: f64| sum == 1.0;
    world
        .agent
        .metric("derny_upstream_connections_active", &[], in_flight)
        .unwrap();

    world.agent.signal(Signal::SIGTERM).unwrap();
    let said = slow.output(Duration::from_secs(5)).unwrap();
    assert!(said.stdout.contains("\"server-1\""), "{said:?}");
    let status = world.agent.ended(Duration::from_secs(5)).unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn an_endpoints_reset_reaches_the_caller() {
    let world = World::new(1).unwrap();
    let answer = world
        .curl(&[
            H2,
            "--write-out",
            "%{http_code}",
            &world.url("http2", "/reset").unwrap(),
        ])
        .unwrap();
    assert!(
        answer.stdout.contains("reset the stream") && answer.stdout.ends_with("503"),
        "{answer:?}"
    );
    world
        .agent
        .access_line("the reset", |line| {
            line["path"] == "/reset" && line["flags"] == "URX"
        })
        .unwrap();

    // After its headers there is nothing left to answer: the caller's stream is reset as well.
    let broken = world
        .curl(&[H2, &world.url("http2", "/truncate/100000").unwrap()])
        .unwrap();
    assert_eq!(
        broken.status.code(),
        Some(92),
        "CURLE_HTTP2_STREAM: {}",
        broken.stderr
    );
    world
        .agent
        .access_line("the break", |line| {
            line["path"] == "/truncate/100000" && line["flags"] == "UR"
        })
        .unwrap();

    // HTTP/1.1 has no reset: the connection ends before the announced length.
    let broken = world
        .curl(&["--http1.1", &world.url("http", "/truncate/100000").unwrap()])
        .unwrap();
    assert_eq!(
        broken.status.code(),
        Some(18),
        "CURLE_PARTIAL_FILE: {}",
        broken.stderr
    );
}

#[test]
fn a_callers_reset_reaches_the_endpoint() {
    let world = World::new(1).unwrap();
    for (flag, service) in [(H2, "http2"), ("--http1.1", "http")] {
        let url = world.url(service, "/delay/30s").unwrap();
        let given_up = world.curl(&[flag, "--max-time", "0.3", &url]).unwrap();
        assert_eq!(given_up.status.code(), Some(28), "{given_up:?}");
    }
    let count = || {
        world
            .curl(&[&world.url("http", "/cancelled").unwrap()])
            .unwrap()
            .stdout
    };
    derny_tests::eventually("both are cancelled", Duration::from_secs(5), || count() == "2").unwrap();
    world
        .agent
        .access_line("a caller that left", |line| {
            line["flags"] == "DC" && line["code"] == 0
        })
        .unwrap();
}
