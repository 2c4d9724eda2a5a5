//! A workload that calls too much opens its own breaker. Its neighbour, which calls the same service from the same
//! node, does not notice.

use std::time::Duration;

use derny_tests::{
    Agent, AgentOptions, Config, Node, Pod, Testd, World,
    load::Load,
    upstream::{HTTP_PORT, TestdOptions},
};
use serde_json::json;

use super::policy;

const SOON: Duration = Duration::from_secs(10);

/// Two workloads and one service, which answers after 50 ms and takes four requests of a workload at a time.
struct Neighbours {
    greedy: Pod,
    modest: Pod,
    target: String,
    agent: Agent,
    _testd: Testd,
    _server: Pod,
    _node: Node,
}

fn neighbours(protocol: &str) -> Neighbours {
    let node = Node::new().unwrap();
    let (greedy, modest) = (node.pod("greedy").unwrap(), node.pod("modest").unwrap());
    let server = node.pod("server-1").unwrap();
    let slow = TestdOptions {
        arguments: vec!["--slow".to_owned(), "50".to_owned()],
        ..TestdOptions::default()
    };
    let testd = Testd::start_with(&server, &slow).unwrap();
    let vip = node.service("echo", 80, HTTP_PORT, &[&server]).unwrap();
    let mut config = Config::default()
        .pod(&greedy, "greedy")
        .pod(&modest, "modest")
        .service(&vip, Some(protocol))
        .algorithm("echo", "roundRobin");
    policy(
        &mut config,
        "echo",
        json!({"circuitBreaking": {"maxRequests": 4}, "retry": {"attempts": 2}}),
    );
    let agent = Agent::start(&node, AgentOptions::new(config)).unwrap();
    Neighbours {
        greedy,
        modest,
        target: vip.address().to_string(),
        agent,
        _testd: testd,
        _server: server,
        _node: node,
    }
}

impl Neighbours {
    /// Lets both work, and returns when the greedy one has been refused for a while.
    fn contend(&self, greedy: Load, modest: Load, refused: impl Fn(&derny_tests::load::Call) -> bool) {
        greedy
            .wait_for("some are refused", 50, 0.0, SOON, &refused)
            .unwrap();
        greedy
            .wait_for("some are served", 20, 0.0, SOON, |call| call.ok)
            .unwrap();
        modest
            .wait_for("the neighbour's calls", 30, 0.0, SOON, |call| call.by_derny())
            .unwrap();
        modest.end_unharmed().unwrap();
        let failed: Vec<_> = greedy
            .end()
            .unwrap()
            .into_iter()
            .filter(|call| !call.ok)
            .collect();
        assert!(failed.iter().all(refused), "{failed:?}");
        let of = |workload| {
            let labels = [("source_workload", workload), ("flag", "UO")];
            self.agent.metrics().unwrap().sum("derny_requests_total", &labels)
        };
        assert!(of("greedy") >= 50.0, "{}", of("greedy"));
        assert_eq!(of("modest"), 0.0);
        let line = self
            .agent
            .access_line("a refusal", |line| line["flags"] == "UO")
            .unwrap();
        assert_eq!(
            (&line["attempts"], &line["source_workload"]),
            (&0.into(), &"greedy".into()),
            "{line}"
        );
    }
}

#[test]
fn of_http() {
    let world = neighbours("http");
    let greedy = Load::http(
        &world.greedy,
        &world.target,
        &["--connections", "12", "--pause", "5"],
    )
    .unwrap();
    let modest = Load::http(&world.modest, &world.target, &["--connections", "2"]).unwrap();
    greedy
        .wait_for("a refusal", 1, 0.0, SOON, |call| !call.ok)
        .unwrap();
    let url = format!("http://{}/x", world.target);
    derny_tests::eventually("a refusal that says so", SOON, || {
        let answer = derny_tests::clients::curl(["--include", &url]);
        let answer = world.greedy.run(answer).unwrap().stdout.to_lowercase();
        answer.starts_with("http/1.1 503") && answer.contains("x-derny-overloaded: true")
    })
    .unwrap();
    world.contend(greedy, modest, |call| {
        call.error.contains(": 503 derny: demo/echo:80")
    });
}

#[test]
fn of_grpc() {
    let world = neighbours("grpc");
    let greedy = Load::grpc_with(
        &world.greedy,
        &world.target,
        &["--threads", "12", "--rate", "300"],
    )
    .unwrap();
    let modest = Load::grpc_with(&world.modest, &world.target, &["--threads", "2"]).unwrap();
    world.contend(greedy, modest, |call| call.code == "UNAVAILABLE");
}

#[test]
fn more_that_wait_than_may_are_refused_and_blame_no_endpoint() {
    // One connection that takes one stream, one request that waits for it: the third is too many.
    let testd = TestdOptions {
        max_concurrent_streams: Some(1),
        ..TestdOptions::default()
    };
    let fields = json!({
        "circuitBreaking": {"maxConnections": 1, "maxPendingRequests": 1},
        "outlierDetection": {"consecutive5xx": 1, "maxEjectionPercent": 100},
    });
    let world = World::with(1, &testd, |options| {
        for service in ["http", "http2"] {
            policy(&mut options.config, service, fields.clone());
        }
    })
    .unwrap();
    for (service, flag) in [("http", "--http1.1"), ("http2", "--http2-prior-knowledge")] {
        let url = world.url(service, "/delay/1s").unwrap();
        let labels = [("destination_service", service), ("flag", "UO")];
        let mut first = derny_tests::clients::curl([flag, "--output", "/dev/null", &url]);
        first.stdout(std::process::Stdio::null());
        let mut first = world.client.spawn(first).unwrap();
        let service_name = format!("demo/{service}");
        derny_tests::eventually("the only stream is taken", SOON, || {
            let endpoints = world.agent.cli_json(&["endpoints", &service_name]).unwrap();
            let open = world
                .agent
                .metrics()
                .unwrap()
                .sum("derny_upstream_connections_active", &labels[..1]);
            endpoints.to_string().contains("\"inFlight\":1") && open == 1.0
        })
        .unwrap();
        let call = format!("curl -s -o /dev/null -w '%{{http_code}} ' {flag} {url}");
        let codes = world
            .shell(&format!("for i in 1 2 3 4; do {call} & done; wait"))
            .unwrap();
        let mut codes: Vec<&str> = codes.split_whitespace().collect();
        codes.sort_unstable();
        assert_eq!(codes, ["200", "503", "503", "503"], "{service}");
        assert!(first.wait(SOON).unwrap().success());
        world
            .agent
            .metric("derny_requests_total", &labels, |refused| refused == 3.0)
            .unwrap();
        assert_eq!(super::status(&world, service, "/"), "200", "{service}");
    }
}
