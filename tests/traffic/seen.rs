//! What applications see of who is at the other end of their connections.

use std::{net::SocketAddr, process::Command, time::Duration};

use derny_tests::{Pod, Testd, World, clients, eventually, upstream::HTTP_PORT};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);

/// The answer of the echoing application at `url`, which says whom it sees.
fn ask(from: &Pod, url: &str, flags: &[&str]) -> Value {
    let flags = [&["--globoff"], flags, &[url]].concat();
    let answer = from.run(clients::curl(flags)).unwrap().success().unwrap();
    serde_json::from_str(&answer).unwrap()
}

fn peer(answer: &Value) -> SocketAddr {
    answer["peer"].as_str().unwrap().parse().unwrap()
}

/// Whatever the port's protocol, and however many callers take turns at kept connections of the engine.
#[test]
fn an_application_sees_each_of_its_callers() {
    for protocol in ["http", "tcp", "detect"] {
        let mut world = World::new(1).unwrap();
        let server = world.node.pod("inbound").unwrap();
        let _testd = Testd::start(&server).unwrap();
        let callers = ["one", "two"].map(|name| world.node.pod(name).unwrap());
        let config = world
            .config()
            .pod_inbound(&server, "inbound", HTTP_PORT, Some(protocol));
        world.reload(config).unwrap();
        let passed = || {
            let metrics = world.agent.metrics().unwrap();
            metrics.sum("derny_connections_total", &[("direction", "inbound")])
        };
        let v4 = format!("http://{}/x", server.address(HTTP_PORT));
        eventually("calls pass the engine", SOON, || {
            ask(&callers[0], &v4, &[]);
            passed() > 0.0
        })
        .unwrap();
        let before = passed();
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            for _ in 0..3 {
                for caller in &callers {
                    let seen = peer(&ask(caller, &v4, &[version]));
                    assert_eq!(seen.ip(), caller.ip(), "{protocol} {version}");
                    let v6 = format!("http://{}/x", server.address6(HTTP_PORT));
                    assert_eq!(peer(&ask(caller, &v6, &[version])).ip(), caller.ip6());
                }
            }
        }
        assert!(
            passed() - before >= 24.0,
            "{protocol}: {} passed",
            passed() - before
        );
        let line = (world.agent)
            .access_line("a call", |line| line["direction"] == "inbound")
            .unwrap();
        assert_eq!(line["source"], callers[0].ip().to_string(), "{line}");
    }
}

/// A relayed connection has its caller's port too.
#[test]
fn a_relayed_connection_shows_the_callers_port() {
    let mut world = World::new(1).unwrap();
    let server = world.node.pod("inbound").unwrap();
    let _testd = Testd::start(&server).unwrap();
    let caller = world.node.pod("caller").unwrap();
    let config = world
        .config()
        .pod_inbound(&server, "inbound", HTTP_PORT, Some("tcp"));
    world.reload(config).unwrap();
    let url = format!("http://{}/x", server.address(HTTP_PORT));
    let from = SocketAddr::new(caller.ip().into(), 45_678);
    let seen = || peer(&ask(&caller, &url, &["--local-port", "45678"]));
    assert_eq!(seen(), from);
}

/// The endpoint sees it, the next request by another address does not use its connection, and nothing else changes.
#[test]
fn a_source_address_that_was_bound_is_the_one_that_arrives() {
    let world = World::new(1).unwrap();
    let second = "10.0.0.200";
    let mut add = Command::new("ip");
    add.args(["address", "add", "10.0.0.200/32", "dev", "eth0"]);
    world.client.run(add).unwrap().success().unwrap();
    let url = world.url("http", "/x").unwrap();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for _ in 0..2 {
            let bound = ask(&world.client, &url, &[version, "--interface", second]);
            assert_eq!(peer(&bound).ip().to_string(), second);
            assert!(bound["headers"]["x-request-id"].is_string(), "{bound}");
            assert_eq!(
                peer(&ask(&world.client, &url, &[version])).ip(),
                world.client.ip()
            );
        }
    }
}
