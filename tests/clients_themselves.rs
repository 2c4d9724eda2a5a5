//! Each real client against the server without an agent: what fails here is not the agent's fault.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::BTreeSet, process::Command};

use derny_tests::{
    Node, Pod, Testd, Vip, clients,
    upstream::{GREET_PORT, HTTP_PORT},
};
use serde_json::Value;

/// A client pod, a server pod, and a service on the server's HTTP port.
struct World {
    client: Pod,
    vip: Vip,
    server: Pod,
    _testd: Testd,
    _node: Node,
}

fn world() -> World {
    let node = Node::new().unwrap();
    let (client, server) = (node.pod("client").unwrap(), node.pod("server").unwrap());
    let testd = Testd::start(&server).unwrap();
    let vip = node.service("echo", 80, HTTP_PORT, &[&server]).unwrap();
    World {
        client,
        vip,
        server,
        _testd: testd,
        _node: node,
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn grpcio_calls_and_streams() {
    let world = world();
    let target = world.vip.address().to_string();
    let mut load = clients::python("grpc_load.py").unwrap();
    load.args(["--target", &target, "--calls", "200"]);
    let said = lines(&world.client.run(load).unwrap().success().unwrap());
    let (summary, calls) = said.split_last().unwrap();
    assert_eq!(calls.len(), 200);
    assert_eq!(summary["summary"]["failed"], 0);
    assert_eq!(summary["summary"]["endpoints"]["server"], 200);
    assert!(
        calls.iter().all(|call| call["request_id"] == ""),
        "nobody stands between"
    );

    let mut streams = clients::python("grpc_streams.py").unwrap();
    streams.args(["--target", &target]);
    let said = lines(&world.client.run(streams).unwrap().success().unwrap());
    assert_eq!(said[0]["bidi"][0], "server");
}

#[test]
fn grpcio_reports_failures() {
    let world = world();
    let mut load = clients::python("grpc_load.py").unwrap();
    // A port on which nobody listens.
    load.args(["--target", &world.server.address(1).to_string(), "--calls", "3"]);
    let said = lines(&world.client.run(load).unwrap().success().unwrap());
    assert_eq!(said.last().unwrap()["summary"]["codes"]["UNAVAILABLE"], 3);
}

#[test]
fn grpc_js_calls_and_streams() {
    let world = world();
    let mut client = clients::node_js("grpc_client.js").unwrap();
    client.arg(world.vip.address().to_string());
    let said = lines(&world.client.run(client).unwrap().success().unwrap());
    assert_eq!(said[0]["unary"]["server"], 100);
}

#[test]
fn websocket_messages_come_back() {
    let world = world();
    let mut client = clients::python("websocket_echo.py").unwrap();
    client.args(["--url", &format!("ws://{}/ws", world.vip.address())]);
    assert_eq!(world.client.run(client).unwrap().success().unwrap(), "100\n");
}

#[test]
fn the_probe_makes_a_new_connection_each_time() {
    let world = world();
    let mut probe = clients::python("connect_probe.py").unwrap();
    probe.args(["--target", &world.vip.address().to_string(), "--seconds", "0.5"]);
    let said = lines(&world.client.run(probe).unwrap().success().unwrap());
    assert!(said.len() > 10, "{}", said.len());
    assert!(
        said.iter()
            .all(|line| line["ok"] == true && line["endpoint"] == "server"),
        "{said:?}"
    );
}

#[test]
fn curl_sees_both_versions_and_whole_bodies() {
    let world = world();
    for (version, flag) in [("HTTP/1.1", "--http1.1"), ("HTTP/2.0", "--http2-prior-knowledge")] {
        let get = |path: &str| {
            let url = world.vip.url(path);
            world.client.run(clients::curl([flag, &url])).unwrap().success()
        };
        let seen: Value = serde_json::from_str(&get("/x").unwrap()).unwrap();
        assert_eq!(seen["version"], version);
        assert_eq!(
            seen["peer"].as_str().unwrap().split(':').next().unwrap(),
            world.client.ip().to_string()
        );
        assert!(get("/truncate/100000").is_err());
        assert!(get("/reset").is_err());
        let mut hashed = Command::new("sh");
        let url = world.vip.url("/bytes/10000000");
        hashed.args([
            "-c",
            &format!("curl -s {flag} {url} | sha256sum | cut -d' ' -f1 | tr -d '\\n'"),
        ]);
        assert_eq!(
            world.client.run(hashed).unwrap().success().unwrap(),
            get("/bytes/10000000/sha256").unwrap()
        );
    }
}

#[test]
fn the_greeting_port_speaks_first() {
    use std::io::{Read, Write};
    let world = world();
    let address = world.server.address(GREET_PORT);
    let (greeting, echoed) = world
        .client
        .inside(|| {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            let mut greeting = [0; 78];
            stream.read_exact(&mut greeting).unwrap();
            stream.write_all(b"query").unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut echoed = String::new();
            stream.read_to_string(&mut echoed).unwrap();
            (greeting, echoed)
        })
        .unwrap();
    assert_eq!(&greeting[..4], &[74, 0, 0, 0]);
    assert_eq!(echoed, "query");
    let unique: BTreeSet<u8> = greeting.into_iter().collect();
    assert!(unique.contains(&b'8'));
}
