//! What an operator sees: metrics, access log, command line, probes. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use derny_tests::{World, clients, eventually};
use nix::sys::signal::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);

fn h2load(requests: usize, url: &str) -> Command {
    let mut command = Command::new("h2load");
    command
        .args(["-n", &requests.to_string(), "-c", "2", "-m", "4", url])
        .stdout(Stdio::piped());
    command
}

#[test]
fn metrics_are_openmetrics_and_count_what_was_asked() {
    let world = World::new(2).unwrap();
    let target = world.target("grpc").unwrap();
    world
        .client
        .run(clients::testc(["tonic", &target]).unwrap())
        .unwrap()
        .success()
        .unwrap();
    world
        .client
        .run(h2load(500, &world.url("http2", "/x").unwrap()))
        .unwrap()
        .success()
        .unwrap();
    world.curl(&[&world.url("http", "/status/404").unwrap()]).unwrap();
    world
        .talk("tcp", &["send:hello", "expect:hello", "shut", "end"])
        .unwrap();
    let closed = |sum: f64| sum == 0.0;
    world
        .agent
        .metric("derny_connections_active", &[], closed)
        .unwrap();

    let (status, page) = world.agent.get("/metrics").unwrap();
    assert_eq!(status, 200);
    let mut parser = clients::python("openmetrics.py").unwrap();
    parser
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut parser = world.node.host().spawn(parser).unwrap();
    parser
        .child()
        .stdin
        .take()
        .unwrap()
        .write_all(page.as_bytes())
        .unwrap();
    let sums: Value = serde_json::from_str(&parser.output(SOON).unwrap().success().unwrap()).unwrap();
    // tonic: thirty unary calls, three streams, two failures.
    assert_eq!(sums["derny_requests_total"], 536.0, "{sums}");
    assert_eq!(
        sums["derny_request_duration_seconds_count"], sums["derny_requests_total"],
        "{sums}"
    );
    assert_eq!(sums["derny_tcp_received_bytes_total"], 5.0, "{sums}");

    let metrics = world.agent.metrics().unwrap();
    let requests = |labels: &[(&str, &str)]| metrics.sum("derny_requests_total", labels);
    assert_eq!(
        requests(&[
            ("destination_service", "http2"),
            ("code", "200"),
            ("protocol", "http2")
        ]),
        500.0
    );
    assert_eq!(
        requests(&[
            ("destination_service", "http"),
            ("code", "404"),
            ("protocol", "http1")
        ]),
        1.0
    );
    assert_eq!(
        requests(&[("destination_service", "grpc"), ("grpc_status", "0")]),
        33.0
    );
    assert_eq!(requests(&[("source_workload", "client"), ("flag", "-")]), 536.0);
    let redirected = [("pod", "client"), ("decision", "redirected")];
    let connections = metrics.sum("derny_connections_total", &[]);
    assert_eq!(
        metrics.sum("derny_kernel_decisions_total", &redirected),
        connections
    );
}

#[test]
fn each_request_and_connection_has_its_line() {
    let world = World::new(1).unwrap();
    let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let flags = [
        "-H",
        trace,
        "-A",
        "browser",
        "-d",
        "12345",
        &world.url("http", "/a?b=c").unwrap(),
    ];
    world.curl(&flags).unwrap().success().unwrap();
    let line = world
        .agent
        .access_line("the request", |line| line["path"] == "/a?b=c")
        .unwrap();
    let endpoint = world.servers[0].pod.address(8080).to_string();
    for (field, value) in [
        ("direction", "outbound"),
        ("source", "demo/client"),
        ("source_namespace", "demo"),
        ("source_workload", "client"),
        ("service", "demo/http:80"),
        ("endpoint", endpoint.as_str()),
        ("method", "POST"),
        ("protocol", "http1"),
        ("flags", "-"),
        ("user_agent", "browser"),
        ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
        ("authority", world.vip("http").unwrap().ip().to_string().as_str()),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert_eq!(
        (&line["code"], &line["attempts"], &line["bytes_received"]),
        (&200.into(), &1.into(), &5.into())
    );
    assert!(line["bytes_sent"].as_u64().unwrap() > 100, "{line}");
    let (duration, upstream) = (
        line["duration_ms"].as_f64().unwrap(),
        line["upstream_ms"].as_f64().unwrap(),
    );
    assert!(duration >= upstream && upstream > 0.0, "{line}");
    assert!(
        line["time"].as_str().unwrap().ends_with('Z') && line["request_id"].is_string(),
        "{line}"
    );

    world
        .talk("tcp", &["send:hello", "expect:hello", "shut", "end"])
        .unwrap();
    let line = world
        .agent
        .access_line("the connection", |line| line["protocol"] == "tcp")
        .unwrap();
    let fields: BTreeSet<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let all = [
        "time",
        "direction",
        "source",
        "source_namespace",
        "source_workload",
        "service",
        "endpoint",
        "protocol",
        "flags",
        "bytes_received",
        "bytes_sent",
        "duration_ms",
    ];
    assert_eq!(fields, BTreeSet::from(all));
    assert_eq!(
        (&line["bytes_received"], &line["bytes_sent"]),
        (&5.into(), &5.into()),
        "{line}"
    );
}

#[test]
fn a_log_that_is_rotated_under_load_loses_no_line() {
    const REQUESTS: usize = 20_000;
    let mut world = World::new(1).unwrap();
    let load = world
        .client
        .spawn(h2load(REQUESTS, &world.url("http2", "/x").unwrap()))
        .unwrap();
    let path = world.agent.access_log_path();
    let old: Vec<_> = (0..3).map(|n| path.with_extension(format!("log.{n}"))).collect();
    for old in &old {
        let written = || fs::metadata(&path).is_ok_and(|file| file.len() > 0);
        eventually("the log has lines", SOON, written).unwrap();
        fs::rename(&path, old).unwrap();
        world.agent.signal(Signal::SIGHUP).unwrap();
    }
    let said = load.output(SOON).unwrap().success().unwrap();
    assert!(said.contains("20000 succeeded"), "{said}");
    let read = |path: &std::path::Path| fs::read_to_string(path).unwrap_or_default();
    let lines = || {
        let all: String = old.iter().chain([&path]).map(|path| read(path)).collect();
        all.lines()
            .filter(|line| serde_json::from_str::<Value>(line).is_ok())
            .count()
    };
    let every_one = || lines() == REQUESTS;
    let found = eventually("every line is there", SOON, every_one);
    assert!(found.is_ok(), "{} of {REQUESTS}", lines());
    assert_eq!(
        world
            .agent
            .metrics()
            .unwrap()
            .sum("derny_access_log_dropped_total", &[]),
        0.0
    );
}

#[test]
fn the_command_line_shows_tables_and_json() {
    let world = World::new(2).unwrap();
    world.get("http", "/x", &[]).unwrap();
    let table = |command: &str| world.agent.cli(&[command]).unwrap().success().unwrap();
    let json = |command: &str| world.agent.cli_json(&[command]).unwrap();

    assert!(
        table("status").starts_with("ready          yes\n"),
        "{}",
        table("status")
    );
    let status = json("status");
    assert_eq!(
        (&status["podsEnrolled"], &status["podsWaiting"]),
        (&1.into(), &0.into()),
        "{status}"
    );
    assert_eq!(status["services"], 9, "{status}");

    assert!(
        table("pods").contains("demo       client  client    0     10.0.0.2 fd00::2"),
        "{}",
        table("pods")
    );
    assert_eq!(json("pods")[0]["state"], "enrolled");

    assert!(table("services").contains("roundRobin"), "{}", table("services"));
    let services = json("services");
    let http = services
        .as_array()
        .unwrap()
        .iter()
        .find(|service| service["name"] == "http")
        .unwrap();
    assert_eq!(http["endpoints"].as_array().unwrap().len(), 2, "{http}");

    assert!(
        table("redirects").contains("demo/client"),
        "{}",
        table("redirects")
    );
    let redirects = json("redirects").to_string();
    let address = world.target("http").unwrap();
    let hit = format!("\"address\":\"{address}\",\"label\":\"demo/http:80\",\"hits\":1");
    assert!(redirects.contains(&hit), "{redirects}");
}

#[test]
fn exit_codes_tell_a_good_agent_from_a_hung_and_a_dead_one() {
    let mut world = World::new(1).unwrap();
    let code = |world: &World, arguments: &[&str]| world.agent.cli(arguments).unwrap().status.code();
    assert_eq!(code(&world, &["status"]), Some(0));
    assert_eq!(code(&world, &["no-such-command"]), Some(64));

    world.agent.stop().unwrap();
    let hung = world.agent.cli(&["status"]).unwrap();
    assert_eq!(hung.status.code(), Some(69), "{hung:?}");
    // The kernel's own tables need no agent that answers.
    let stale = || {
        world
            .agent
            .cli(&["redirects"])
            .unwrap()
            .stdout
            .contains("standing aside")
    };
    eventually("the kernel stands aside", SOON, stale).unwrap();
    let redirects = world.agent.cli(&["redirects", "-o", "json"]).unwrap().stdout;
    let agents: Vec<Value> = serde_json::from_str(&redirects).unwrap();
    let hung = |agent: &Value| agent["redirecting"] == false && agent.to_string().contains("demo/client");
    assert!(agents.iter().any(hung), "{redirects}");

    world.agent.cont().unwrap();
    let again = || code(&world, &["status"]) == Some(0);
    eventually("the agent answers again", SOON, again).unwrap();
    world.agent.kill9().unwrap();
    let dead = world.agent.cli(&["pods"]).unwrap();
    assert_eq!(
        (dead.status.code(), dead.stdout.as_str()),
        (Some(69), ""),
        "{dead:?}"
    );
    assert!(dead.stderr.starts_with("derny: "), "{dead:?}");
}

#[test]
fn probes_are_answered() {
    let world = World::new(1).unwrap();
    for path in ["/livez", "/readyz"] {
        assert_eq!(world.agent.get(path).unwrap().0, 200, "{path}");
    }
    assert_eq!(world.agent.get("/nothing").unwrap().0, 404);
}
