//! A pod's server that ends and starts again while the engine holds connections to the pod's port.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use derny_tests::{Agent, AgentOptions, Config, Node, Testd, upstream::HTTP_PORT};

/// The client is not enrolled, so its connections are the engine's on the server's side, under the server's port.
#[test]
fn a_server_binds_its_port_again_while_callers_stay_connected() {
    let node = Node::new().unwrap();
    let (client, server) = (node.pod("client").unwrap(), node.pod("server").unwrap());
    let testd = Testd::start(&server).unwrap();
    let config = Config::default().pod_inbound(&server, "server", HTTP_PORT, Some("http"));
    let agent = Agent::start(&node, AgentOptions::new(config)).unwrap();

    let connect = || {
        let caller = client.inside(|| TcpStream::connect(server.address(HTTP_PORT)).unwrap());
        let caller = caller.unwrap();
        caller.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        caller
    };
    let ask = |caller: &mut TcpStream| {
        caller
            .write_all(b"GET / HTTP/1.1\r\nhost: server\r\n\r\n")
            .unwrap();
        let mut answer = [0; 4096];
        let length = caller.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    let mut stays = connect();
    assert!(ask(&mut stays).starts_with("HTTP/1.1 200"));
    testd.kill9().unwrap();
    // Who is told that the application has gone is also told to come anew.
    let told = ask(&mut connect());
    assert!(
        told.starts_with("HTTP/1.1 503"),
        "the engine stands between: {told}"
    );
    assert!(told.contains("connection: close"), "{told}");
    let _testd = Testd::start(&server).unwrap();
    assert!(ask(&mut connect()).starts_with("HTTP/1.1 200"));
    drop(stays);
    drop(agent);
}
