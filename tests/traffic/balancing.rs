//! Who gets the next request, and what becomes of requests when an endpoint goes.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use derny_tests::{World, load::Load, upstream::TestdOptions};

const SECONDS: Duration = Duration::from_secs(10);

fn h2load(world: &World, requests: usize) {
    let mut command = Command::new("h2load");
    let requests_text = requests.to_string();
    command
        .args(["-n", &requests_text, "-c", "4", "-m", "4"])
        .arg(world.url("http2", "/x").unwrap());
    let said = world.client.run(command).unwrap().success().unwrap();
    assert!(
        said.contains(&format!("{requests} succeeded, 0 failed")),
        "{said}"
    );
    let all = |sum: f64| sum >= requests as f64;
    world
        .agent
        .metric("derny_access_log_lines_total", &[], all)
        .unwrap();
}

#[test]
fn round_robin_is_even_over_workers_and_connections() {
    let world = World::with(3, &TestdOptions::default(), |options| options.workers = 2).unwrap();
    h2load(&world, 3000);
    let calls = world.calls("http2").unwrap();
    assert!(
        calls.iter().all(|count| (900..=1100).contains(count)),
        "{calls:?}"
    );
}

#[test]
fn a_slow_endpoint_gets_less() {
    for algorithm in ["leastRequest", "peakEwma"] {
        let mut world = World::with(3, &TestdOptions::default(), |options| {
            options.config.set_algorithm("http2", algorithm).unwrap();
        })
        .unwrap();
        world.kill_server(1).unwrap();
        let slow = TestdOptions {
            arguments: vec!["--slow".to_owned(), "50".to_owned()],
            ..TestdOptions::default()
        };
        world.start_server(1, &slow).unwrap();
        h2load(&world, 3000);
        let calls = world.calls("http2").unwrap();
        // An even share would be 1000.
        assert!(
            calls[1] < 300 && calls[0] > 900 && calls[2] > 900,
            "{algorithm}: {calls:?}"
        );
    }
}

#[test]
fn an_endpoint_that_is_killed_under_load_costs_no_call() {
    // The gRPC calls may be done twice; of GETs that is known.
    let mut world = World::with(3, &TestdOptions::default(), |options| {
        let policy = options.config.policy_of("grpc").unwrap();
        let retry = serde_json::json!({"idempotent": true});
        policy.more.insert("retry".to_owned(), retry);
    })
    .unwrap();
    let grpc = Load::grpc(&world.client, &world.target("grpc").unwrap()).unwrap();
    let gets = Load::connections(&world.client, &world.target("http").unwrap()).unwrap();
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "-c16", "-d4", &world.url("http", "/x").unwrap()])
        .stdout(Stdio::piped());
    let wrk = world.client.spawn(wrk).unwrap();
    grpc.wait_for("calls", 300, 0.0, SECONDS, |call| call.endpoint == "server-2")
        .unwrap();
    gets.wait_for("calls", 10, 0.0, SECONDS, |call| call.endpoint == "server-2")
        .unwrap();
    world.kill_server(1).unwrap();
    let said = wrk.output(SECONDS).unwrap().success().unwrap();
    assert!(
        !said.contains("Socket errors") && !said.contains("Non-2xx"),
        "{said}"
    );
    for load in [grpc, gets] {
        load.end_unharmed().unwrap();
    }
}

#[test]
fn without_an_endpoint_callers_are_told_so() {
    let mut world = World::new(1).unwrap();
    let mut config = world.config();
    config.port_of("http").unwrap().endpoints.clear();
    world.reload(config).unwrap();

    let answer = world
        .curl(&["--include", &world.url("http", "/x").unwrap()])
        .unwrap()
        .stdout;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("no endpoint of demo/http:80"),
        "{answer}"
    );
    world
        .agent
        .access_line("the refusal", |line| line["flags"] == "UH" && line["code"] == 503)
        .unwrap();

    world.kill_server(0).unwrap();
    world.curl(&[&world.url("http2", "/x").unwrap()]).unwrap();
    world
        .agent
        .access_line("the failure", |line| line["flags"] == "UF" && line["code"] == 503)
        .unwrap();
    world.talk("tcp", &["closed"]).unwrap();
    let tcp = |line: &serde_json::Value| line["protocol"] == "tcp" && line["flags"] == "UF";
    world.agent.access_line("the connection", tcp).unwrap();
}

#[test]
fn an_endpoint_dialled_by_its_own_address_is_the_one() {
    let mut world = World::new(3).unwrap();
    let address = world.servers[1].pod.address(8080).to_string();
    let url = format!("http://{address}/[1-6]");
    let said = world.curl(&[&url]).unwrap().success().unwrap();
    assert_eq!(said.matches("\"server-2\"").count(), 6, "{said}");
    let dialled = |line: &serde_json::Value| line["path"] == "/6" && line["endpoint"] == address.as_str();
    world.agent.access_line("the last call", dialled).unwrap();

    world.kill_server(1).unwrap();
    let said = world.curl(&[&format!("http://{address}/x")]).unwrap().stdout;
    assert!(
        said.contains(&format!("no connection to {address}")),
        "no other is asked: {said}"
    );
}
