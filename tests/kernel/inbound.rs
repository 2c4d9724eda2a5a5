//! Connections to pods: steered to the agent, once.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::{IpAddr, SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use derny::intercept::{Enrolled, Netns, Path};
use derny_tests::Pod;
use serde_json::json;

use crate::mesh::{APP, ID, Mesh, address, app, dial, slot, word};

/// What the engine's upstream connections are: opened in the pod's namespace, marked.
fn dial_as_agent(pod: &Pod, to: SocketAddr) -> String {
    let socket = Netns::open(pod.netns_path()).unwrap().tcp_socket(to).unwrap();
    assert!(socket.tcp_nodelay().unwrap());
    socket.set_nonblocking(false).unwrap();
    socket
        .connect_timeout(&to.into(), Duration::from_secs(3))
        .unwrap();
    let mut said = String::new();
    TcpStream::from(socket).read_to_string(&mut said).unwrap();
    said
}

struct Two {
    mesh: Mesh,
    client: Pod,
    server: Pod,
}

/// A server pod with slot 6, enrolled with its port, and a client that is not enrolled.
fn two() -> Two {
    let mut mesh = Mesh::new();
    let (client, server) = (mesh.node.pod("client").unwrap(), mesh.node.pod("server").unwrap());
    app(&server, server.ip().into(), APP);
    app(&server, server.ip6().into(), APP);
    mesh.enrol(6, &server, &[APP]);
    Two { mesh, client, server }
}

#[test]
fn a_call_from_elsewhere_is_steered() {
    let Two { mesh, client, server } = two();
    let to = server.address(APP);
    let seen = dial(&client, to, json!({}));
    assert_eq!(seen.said, format!("inbound {to} from {}", client.ip()));
    assert_eq!(seen.peer, Some(to));
    mesh.assert_counted(6, |counters| counters[Path::SteeredInbound] = 1);
}

#[test]
fn an_ipv6_call_from_elsewhere_is_steered() {
    let Two { mesh, client, server } = two();
    let to = server.address6(APP);
    assert_eq!(
        dial(&client, to, json!({})).said,
        format!("inbound {to} from {}", client.ip6())
    );
    mesh.assert_counted(6, |counters| counters[Path::SteeredInbound] = 1);
}

#[test]
fn a_port_that_is_not_enrolled_is_not_steered() {
    let Two { mesh, client, server } = two();
    app(&server, server.ip().into(), 9090);
    assert!(
        dial(&client, server.address(9090), json!({}))
            .said
            .starts_with("app")
    );
    mesh.assert_counted(6, |_| {});
}

#[test]
fn a_call_that_passed_this_agent_is_not_steered_again() {
    let Two { mesh, client, server } = two();
    assert_eq!(
        dial_as_agent(&client, server.address(APP)),
        format!("app here from {}", client.ip())
    );
    assert_eq!(
        dial_as_agent(&client, server.address6(APP)),
        format!("app here from {}", client.ip6())
    );
    mesh.assert_counted(6, |counters| counters[Path::SkippedSameNode] = 2);
}

#[test]
fn a_pods_mark_does_not_pass_for_the_agents() {
    let Two { mesh, client, server } = two();
    let to = server.address(APP);
    let seen = dial(&client, to, json!({"mark": derny::intercept::MARK}));
    assert_eq!(seen.said, format!("inbound {to} from {}", client.ip()));
    mesh.assert_counted(6, |counters| counters[Path::SteeredInbound] = 1);
}

#[test]
fn a_call_from_the_node_is_not_steered_once_its_addresses_are_known() {
    let Two { mut mesh, server, .. } = two();
    let to = server.address(APP);
    let call = |mesh: &Mesh| {
        mesh.node
            .host()
            .netns()
            .run(|| {
                let mut said = String::new();
                TcpStream::connect(to).unwrap().read_to_string(&mut said).unwrap();
                said
            })
            .unwrap()
    };
    let node: IpAddr = address("10.0.0.1:0").ip();
    assert_eq!(call(&mesh), format!("inbound {to} from {node}"));
    mesh.kernel
        .set_node_addresses(&[node, address("[fd00::1]:0").ip()])
        .unwrap();
    assert_eq!(call(&mesh), format!("app here from {node}"));
    mesh.assert_counted(6, |counters| {
        (counters[Path::SteeredInbound], counters[Path::SkippedNodeAddress]) = (1, 1)
    });
    // The set is replaced, not added to.
    mesh.kernel
        .set_node_addresses(&[address("10.0.0.9:0").ip()])
        .unwrap();
    assert_eq!(call(&mesh), format!("inbound {to} from {node}"));
}

#[test]
fn a_pod_with_two_addresses_that_calls_one_from_the_other_is_not_steered() {
    let mut mesh = Mesh::new();
    let pod = mesh.node.pod("server").unwrap();
    pod.netns()
        .ip_batch("address add 10.1.0.9/32 dev eth0\n")
        .unwrap();
    app(&pod, pod.ip().into(), APP);
    mesh.enrol(6, &pod, &[APP]);
    let seen = dial(&pod, pod.address(APP), json!({"bind": ["10.1.0.9", 0]}));
    assert_eq!(seen.said, "app here from 10.1.0.9");
    mesh.assert_counted(6, |counters| {
        (counters[Path::PassedUnknown], counters[Path::SkippedLoopback]) = (1, 1)
    });
}

#[test]
fn a_pod_that_calls_itself_passes_the_agent_on_its_way_out_only() {
    let Two { mut mesh, server, .. } = two();
    let own = server.address(APP);
    // By its own address, that the mesh does not serve: over the loopback, past the agent.
    assert_eq!(
        dial(&server, own, json!({})).said,
        format!("app here from {}", server.ip())
    );
    mesh.assert_counted(6, |counters| {
        (counters[Path::PassedUnknown], counters[Path::SkippedLoopback]) = (1, 1)
    });
    assert_eq!(
        dial(&server, server.address6(APP), json!({})).said,
        format!("app here from {}", server.ip6())
    );
    let from_loopback = dial(&server, own, json!({"bind": ["127.0.0.1", 0]}));
    assert_eq!(from_loopback.said, "app here from 127.0.0.1");
    mesh.assert_counted(6, |counters| {
        (counters[Path::PassedUnknown], counters[Path::SkippedLoopback]) = (3, 3)
    });
    // By an address that the mesh serves: out through the agent, which then calls the pod itself.
    mesh.redirect(own);
    let seen = dial(&server, own, json!({}));
    assert_eq!(
        (seen.said, seen.peer),
        (format!("outbound {ID} from 127.0.0.1"), Some(own))
    );
    assert_eq!(
        dial_as_agent(&server, own),
        format!("app here from {}", server.ip())
    );
    mesh.assert_counted(6, |counters| {
        (
            counters[Path::PassedUnknown],
            counters[Path::Redirected],
            counters[Path::SteeredOutbound],
        ) = (3, 1, 1);
        counters[Path::SkippedLoopback] = 4;
    });
}

/// A client of this address is shown to whatever the pod has at `to`.
fn dial_for(enrolled: &Enrolled, to: SocketAddr, caller: SocketAddr) -> TcpStream {
    let socket = enrolled.netns.tcp_socket(to).unwrap();
    socket.set_nonblocking(false).unwrap();
    enrolled.callers.show(&socket, caller).unwrap();
    socket
        .connect_timeout(&to.into(), Duration::from_secs(3))
        .unwrap();
    TcpStream::from(socket)
}

/// What `accept` and `getpeername` tell an application of the pod, and to whom its peer thinks it is connected.
fn told(to: &str, caller: &str, listener: &str) -> (String, SocketAddr) {
    let mut mesh = Mesh::new();
    let server = mesh.node.pod("server").unwrap();
    let enrolled = mesh.kernel.enrol(slot(6), &word(&server, &[APP]), 1).unwrap();
    let application = format!(
        "import socket; s = {listener}
s.listen()
print('ready', flush=True); c, peer = s.accept(); print(peer[:2], c.getpeername()[:2], flush=True); c.recv(1)"
    );
    let mut command = Command::new("python3");
    command.args(["-c", &application]).stdout(Stdio::piped());
    let mut running = server.spawn(command).unwrap();
    let mut lines = BufReader::new(running.child().stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let to = match address(to).is_ipv4() {
        true => server.address(APP),
        false => server.address6(APP),
    };
    let dialled = dial_for(&enrolled, to, address(caller));
    (lines.next().unwrap().unwrap(), dialled.peer_addr().unwrap())
}

#[test]
fn an_application_sees_for_whom_the_agent_dials_it() {
    let both = format!("socket.create_server(('', {APP}), family=socket.AF_INET6, dualstack_ipv6=True)");
    let (seen, peer) = told("0.0.0.0:0", "192.0.2.7:4711", &both);
    assert_eq!(seen, "('::ffff:192.0.2.7', 4711) ('::ffff:192.0.2.7', 4711)");
    assert_eq!(peer.port(), APP);
    let (seen, _) = told("[::]:0", "[2001:db8::7]:4711", &both);
    assert_eq!(seen, "('2001:db8::7', 4711) ('2001:db8::7', 4711)");
    // What Go's net.Listen makes.
    let multipath = format!("socket.socket(proto=262); s.bind(('', {APP}))");
    let (seen, _) = told("0.0.0.0:0", "192.0.2.7:4711", &multipath);
    assert_eq!(seen, "('192.0.2.7', 4711) ('192.0.2.7', 4711)");
}
