//! A caller's mistake is not held against an endpoint, and what only callers notice is.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use derny_tests::{World, clients, config::Config, eventually, upstream::TestdOptions};
use serde_json::json;

use super::{SECONDS, policy};

const H2: &str = "--http2-prior-knowledge";

fn ejections(world: &World) -> f64 {
    world.agent.metrics().unwrap().sum("derny_ejections_total", &[])
}

/// One of the two servers takes every request and never answers; by `algorithm`.
fn silent(algorithm: &str) -> World {
    let mut world = World::with(2, &TestdOptions::default(), |options| {
        for service in ["http", "http2"] {
            options.config.set_algorithm(service, algorithm).unwrap();
        }
    })
    .unwrap();
    world.kill_server(0).unwrap();
    let never = TestdOptions {
        arguments: vec!["--slow".to_owned(), "600000".to_owned()],
        ..TestdOptions::default()
    };
    world.start_server(0, &never).unwrap();
    world
}

/// How many of 40 requests their caller gives up, one after the other.
fn given_up(world: &World, service: &str, version: &str) -> usize {
    let url = world.url(service, "/x").unwrap();
    let script = format!(
        "for i in $(seq 40); do curl -s -o /dev/null {version} --max-time 0.3 {url} || echo given up; done"
    );
    world.shell(&script).unwrap().lines().count()
}

#[test]
fn who_accepts_and_never_answers_is_ejected_though_only_callers_notice() {
    let world = silent("roundRobin");
    for (count, (service, version)) in [("http", "--http1.1"), ("http2", H2)].into_iter().enumerate() {
        // Before the other one has answered, nobody knows how long is too long.
        let lost = given_up(&world, service, version);
        assert!((5..=8).contains(&lost), "{service}: {lost}");
        let labels = [("reason", "consecutive5xx")];
        let ejected = |sum: f64| sum == (count + 1) as f64;
        world
            .agent
            .metric("derny_ejections_total", &labels, ejected)
            .unwrap();
    }
}

#[test]
fn who_accepts_and_never_answers_is_not_preferred() {
    let world = silent("peakEwma");
    let lost = given_up(&world, "http", "--http1.1");
    assert!(lost <= 6, "{lost} of 40 went to the one that never answers");
}

#[test]
fn deadlines_that_nobody_can_keep_eject_nobody() {
    let world = World::new(2).unwrap();
    let script = format!(
        "import grpc; u = grpc.insecure_channel('{}').unary_unary('/derny.test.v1.Echo/Unary')\n\
         for i in range(30):\n\
         \x20try: u(b'', timeout=0.03, metadata=[('x-test-delay', '60')])\n\
         \x20except grpc.RpcError as e: print(e.code().name)\n\
         \x20u(b'', metadata=[('x-test-delay', '60')])",
        world.target("grpc").unwrap()
    );
    let python = clients::python("grpc_load.py").unwrap();
    let mut command = Command::new(python.get_program());
    command.args(["-c", &script]);
    let said = world.client.run(command).unwrap().success().unwrap();
    assert_eq!(
        said.lines().filter(|line| *line == "DEADLINE_EXCEEDED").count(),
        30,
        "{said}"
    );
    assert_eq!(ejections(&world), 0.0);
}

#[test]
fn calls_that_end_without_a_status_are_unknown() {
    let world = World::with(3, &TestdOptions::default(), |options| {
        let retries: fn(&mut Config, &str) =
            |config, service| policy(config, service, json!({"retry": {"attempts": 0}}));
        retries(&mut options.config, "grpc");
    })
    .unwrap();
    let script = format!(
        "import grpc; u = grpc.insecure_channel('{}').unary_unary('/derny.test.v1.Echo/Unary')\n\
         for i in range(15):\n\
         \x20try: u(b'', metadata=[('x-test-status', '0'), ('x-test-status-in', 'nowhere')])\n\
         \x20except grpc.RpcError as e: print(e.code().name)",
        world.target("grpc").unwrap()
    );
    let python = clients::python("grpc_load.py").unwrap();
    let mut command = Command::new(python.get_program());
    command.args(["-c", &script]);
    world.client.run(command).unwrap().success().unwrap();
    let line = world
        .agent
        .access_line("a call", |line| line["protocol"] == "grpc")
        .unwrap();
    assert_eq!(line["grpc_status"], 2, "{line}");
    let counted = [("grpc_status", "2")];
    world
        .agent
        .metric("derny_requests_total", &counted, |n| n == 15.0)
        .unwrap();
    world
        .agent
        .metric("derny_ejections_total", &[], |n| n >= 1.0)
        .unwrap();
}

#[test]
fn each_attempt_is_told_what_is_left_of_the_deadline() {
    let world = super::world(
        3,
        &json!({"retry": {"idempotent": true}, "outlierDetection": {"enabled": false}}),
    );
    let script = format!(
        "import grpc; u = grpc.insecure_channel('{}').unary_unary('/derny.test.v1.Echo/Unary')\n\
         try: u(b'', timeout=5, metadata=[('x-test-status', '14'), ('x-test-delay', '300')])\n\
         except grpc.RpcError as e: print(e.details())",
        world.target("grpc").unwrap()
    );
    let python = clients::python("grpc_load.py").unwrap();
    let mut command = Command::new(python.get_program());
    command.args(["-c", &script]);
    let said = world.client.run(command).unwrap().success().unwrap();
    let told = said.trim().rsplit(' ').next().unwrap().strip_suffix('m').unwrap();
    // What the third of three attempts hears, after 600 ms and the pauses between them.
    let told: u64 = told.parse().unwrap();
    assert!((2000..4400).contains(&told), "{said}");
}

#[test]
fn a_websocket_is_a_request_until_it_ends() {
    let world = super::world(
        1,
        &json!({"circuitBreaking": {"maxRequests": 1}, "retry": {"attempts": 0}}),
    );
    let target = world.target("http").unwrap();
    let shake = r"send:GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let tunnel = r"send:CONNECT b:443 HTTP/1.1\r\nhost: b:443\r\n\r\n";
    let endpoint = format!("{}:8080", world.servers[0].pod.ip());
    for (head, answer) in [(shake, "expect:101"), (tunnel, "expect:200")] {
        let mut talk = clients::testc(["talk", &target, head, answer, "hold"]).unwrap();
        talk.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut talk = world.client.spawn(talk).unwrap();
        let refused = || super::status(&world, "http", "/x") == "503";
        eventually("it takes the only place", SECONDS, refused).unwrap();
        assert_eq!(world.agent.in_flight(&endpoint).unwrap(), 1, "{answer}");
        assert!(refused(), "{answer}");
        talk.kill9().unwrap();
        let served = || super::status(&world, "http", "/x") == "200";
        eventually("its place is free", SECONDS, served).unwrap();
    }
}

#[test]
fn a_connection_whose_packets_are_lost_gets_no_further_request() {
    let world = super::world(
        1,
        &json!({"timeouts": {"request": "1s"}, "retry": {"attempts": 0}}),
    );
    let url = world.url("http", "/x").unwrap();
    let call = || {
        let said = world
            .curl(&["-s", "-o", "/dev/null", "-w", "%{http_code}", H2, &url])
            .unwrap();
        said.stdout
    };
    assert_eq!(call(), "200");
    let peer = world.get("http", "/x", &[H2]).unwrap()["peer"]
        .as_str()
        .unwrap()
        .to_owned();
    let port = peer.rsplit(':').next().unwrap();
    let rules = format!(
        "table inet lost {{\n\
         chain i {{\n type filter hook input priority 0\n tcp sport {port} drop\n }}\n\
         chain o {{\n type filter hook output priority 0\n tcp dport {port} drop\n }}\n}}\n"
    );
    let mut command = Command::new("bash");
    command.args(["-c", &format!("nft -f - <<'END'\n{rules}END")]);
    world.servers[0].pod.run(command).unwrap().success().unwrap();
    let begun = derny_tests::observe::now();
    eventually("calls go on", Duration::from_secs(30), || call() == "200").unwrap();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
}
