//! The agent's own sockets in a pod leave its applications what they had without them: ports, and as many connections.

use std::{net::SocketAddr, process::Command};

use derny_tests::{Pod, Wire, World, upstream::TCP_PORT};

use crate::strangers::{Called, SECONDS};

/// Ephemeral ports of the pods in question.
const FEW: (&str, &str) = ("ipv4/ip_local_port_range", "40000 40099");

/// How many connections to these targets, each `HOST PORT COUNT`, are answered; all are kept, or reset one after the other.
const DIALS: &str = r#"
import socket, struct, sys
made, kept = 0, []
for target in sys.argv[2:]:
    host, port, count = target.split()
    for _ in range(int(count)):
        try:
            s = socket.create_connection((host, int(port)), 5)
            s.sendall(b"\1")
            made += s.recv(1) == b"\1"
            if sys.argv[1] == "reset":
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.close()
            kept.append(s)
        except OSError as error:
            print(host, error, file=sys.stderr)
print(made)
"#;

fn dials(pod: &Pod, how: &str, targets: &[(SocketAddr, usize)]) -> usize {
    let mut python = Command::new("python3");
    python.args(["-c", DIALS, how]);
    python.args(
        targets
            .iter()
            .map(|(to, count)| format!("{} {} {count}", to.ip(), to.port())),
    );
    let output = pod.run(python).unwrap();
    let said = output.stderr.clone();
    let made = output.success().unwrap().trim().parse().unwrap();
    if made < targets.iter().map(|(_, count)| count).sum() {
        eprintln!("{said}");
    }
    made
}

#[test]
fn a_pod_with_few_ports_is_called_by_as_many_as_want_to() {
    let called = Called::new();
    let server = &called.world.servers[0].pod;
    server.netns().sysctl(&[FEW]).unwrap();
    for to in [server.address(TCP_PORT), server.address6(TCP_PORT)] {
        let mut callers: Vec<Wire> = (0..150)
            .map(|_| Wire::say(&called.mallory, to, "hello").unwrap())
            .collect();
        for caller in &mut callers {
            caller.expect("hello", SECONDS).unwrap();
        }
    }
}

#[test]
fn a_pod_with_few_ports_has_them_for_each_service() {
    let world = World::new(1).unwrap();
    world.client.netns().sysctl(&[FEW]).unwrap();
    let (one, other) = (world.vip("tcp").unwrap(), world.vip("any-tcp").unwrap());
    let v4 = [(one.address(), 80), (other.address(), 80)];
    let v6 = [(one.address6(), 80), (other.address6(), 80)];
    assert_eq!(dials(&world.client, "keep", &v4), 160);
    assert_eq!(dials(&world.client, "keep", &v6), 160);
}

#[test]
fn connections_that_end_by_a_reset_use_up_nothing() {
    let world = World::new(1).unwrap();
    world.client.netns().sysctl(&[FEW]).unwrap();
    let tcp = world.vip("tcp").unwrap();
    for to in [tcp.address(), tcp.address6()] {
        assert_eq!(dials(&world.client, "reset", &[(to, 300)]), 300, "{to}");
    }
    // Nothing waits for its time to pass.
    let mut ss = Command::new("ss");
    ss.args(["-Htan", "state", "time-wait"]);
    let left = world.client.run(ss).unwrap().success().unwrap();
    assert_eq!(left, "");
}
