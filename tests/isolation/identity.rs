//! Whoever an enrolment was made for is served by it, and nobody after that.

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    process::{ChildStdout, Command, Stdio},
    time::Duration,
};

use derny_tests::{
    Agent, AgentOptions, Config, Node, Pod, Process, World, eventually, observe::now, upstream::HTTP_PORT,
};

use crate::enrolling::{Kept, Mesh, SOON};

/// Seen: the first pod's kept connection opened a connection to the server that the next pod's request was sent on, and
/// it could read that in its own namespace.
#[test]
fn a_pod_that_kept_a_connection_does_not_carry_the_requests_of_the_next() {
    let mut mesh = Mesh::new(2, "2s");
    mesh.enrol([0]);
    let mut kept = Kept::connect(&mesh.pods[0], &mesh.target());
    assert_eq!(kept.get("/x"), format!("200 {}", mesh.pods[0].ip()));
    mesh.enrol([1]);
    let stranger = kept.get("/x");
    assert!(
        ["closed".to_owned(), format!("200 {}", mesh.pods[0].ip())].contains(&stranger),
        "{stranger}"
    );
    let mut next = Kept::connect(&mesh.pods[1], &mesh.target());
    for _ in 0..5 {
        assert_eq!(next.get("/x"), format!("200 {}", mesh.pods[1].ip()));
    }
}

/// The reverse: what the next pod had opened was used by the pod before it, past a policy for the former's address.
#[test]
fn a_withdrawn_pod_does_not_call_as_the_next() {
    let mut mesh = Mesh::new(2, "30s");
    mesh.enrol([0]);
    let mut kept = Kept::connect(&mesh.pods[0], &mesh.target());
    // A request in flight keeps the connection over the withdrawal.
    kept.asks("/delay/3s");
    eventually("the request is under way", SOON, || {
        let address = mesh.server.address(HTTP_PORT).to_string();
        mesh.agent.in_flight(&address).unwrap() == 1
    })
    .unwrap();
    mesh.enrol([1]);
    let mut next = Kept::connect(&mesh.pods[1], &mesh.target());
    assert_eq!(next.get("/x"), format!("200 {}", mesh.pods[1].ip()));
    assert!(kept.hears().starts_with("200 "), "what was in flight is finished");
    let after = kept.get("/x");
    assert!(
        !after.contains(&mesh.pods[1].ip().to_string()),
        "it called as the next pod: {after}"
    );
}

/// A script in a pod, and the lines that it says.
fn bash(pod: &Pod, script: &str) -> (Process, Lines<BufReader<ChildStdout>>) {
    let mut command = Command::new("bash");
    command
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut process = pod.spawn(command).unwrap();
    let said = BufReader::new(process.child().stdout.take().unwrap()).lines();
    (process, said)
}

#[test]
fn after_a_withdrawn_pod_the_agent_holds_nothing_of_it() {
    let mut world = World::with(1, &Default::default(), |options| {
        options.arguments = ["--drain-timeout", "3s"].map(str::to_owned).into();
    })
    .unwrap();
    let netns = world.client.namespace().unwrap();
    let tunnel = |target: String| {
        let script = format!(
            "exec 3<>/dev/tcp/{}; echo hello >&3; head -n1 <&3; if read -r -t 60 <&3; then echo more; else echo end; fi",
            target.replace(':', "/")
        );
        let (process, mut said) = bash(&world.client, &script);
        assert_eq!(said.next().unwrap().unwrap(), "hello");
        (process, said)
    };
    let mut relayed = tunnel(world.target("tcp").unwrap());
    let mut idle = Kept::connect(&world.client, &world.target("http").unwrap());
    assert!(idle.get("/x").starts_with("200"));
    let mut busy = Kept::connect(&world.client, &world.target("http").unwrap());
    busy.asks("/delay/2s");
    let mut late = Kept::connect(&world.client, &world.target("http").unwrap());
    late.asks("/delay/60s");
    eventually("the requests are under way", SOON, || {
        let address = world.servers[0].pod.address(HTTP_PORT).to_string();
        world.agent.in_flight(&address).unwrap() == 2
    })
    .unwrap();
    let mut config = world.config();
    config.pods.clear();
    world.reload(config).unwrap();
    let withdrawn = now();
    let ended = || idle.get("/x") == "closed";
    eventually("what is idle ends, after one more answer at most", SOON, ended).unwrap();
    assert!(busy.hears().starts_with("200"), "what is in flight is finished");
    assert!(withdrawn.elapsed() < Duration::from_secs(3));
    // And what is not finished in time ends.
    let end = late.hears();
    assert!(end == "closed" || end.starts_with("failed"), "{end}");
    assert_eq!(relayed.1.next().unwrap().unwrap(), "end");
    assert!(withdrawn.elapsed() >= Duration::from_secs(2), "not at once");
    eventually("nothing is held", SOON, || {
        world.agent.holdings().unwrap().of(netns) == 0
    })
    .unwrap();
}

#[test]
fn a_pod_whose_network_namespace_is_gone_ends_at_once() {
    let mut mesh = Mesh::new(2, "10m");
    mesh.enrol([0, 1]);
    let mut kept = Kept::connect(&mesh.pods[0], &mesh.target());
    assert!(kept.get("/x").starts_with("200"));
    kept.asks("/delay/300s");
    let netns = mesh.pods[0].namespace().unwrap();
    assert!(mesh.agent.holdings().unwrap().of(netns) > 3);
    // The name goes; the namespace would stay for as long as anybody holds it.
    drop(mesh.pods.remove(0));
    mesh.holds_nothing_of(netns, SOON);
    // Withdrawn first, it drains, and its network goes meanwhile.
    let netns = mesh.pods[0].namespace().unwrap();
    let mut kept = Kept::connect(&mesh.pods[0], &mesh.target());
    kept.asks("/delay/300s");
    eventually("the request is under way", SOON, || {
        let address = mesh.server.address(HTTP_PORT).to_string();
        mesh.agent.in_flight(&address).unwrap() == 1
    })
    .unwrap();
    mesh.enrol([]);
    assert!(mesh.agent.holdings().unwrap().of(netns) > 0, "it drains");
    drop(mesh.pods.remove(0));
    mesh.holds_nothing_of(netns, SOON);
}

#[test]
fn a_pod_that_is_only_changed_keeps_its_relayed_connections() {
    let mut world = World::with(1, &Default::default(), |options| {
        options.arguments = ["--drain-timeout", "0s"].map(str::to_owned).into();
    })
    .unwrap();
    let target = world.target("tcp").unwrap();
    let script = format!(
        "exec 3<>/dev/tcp/{}; for word in one two; do echo $word >&3; head -n1 <&3; read -r; done",
        target.replace(':', "/")
    );
    let (mut process, mut said) = bash(&world.client, &script);
    let mut stdin = process.child().stdin.take().unwrap();
    assert_eq!(said.next().unwrap().unwrap(), "one");
    let mut config = world.config();
    config.pods[0].inbound.push(derny_tests::config::InboundEntry {
        port: 8081,
        protocol: None,
        more: Default::default(),
    });
    world.reload(config).unwrap();
    // Longer than listeners linger.
    let netns = world.client.namespace().unwrap();
    eventually("the listeners of before are closed", SOON, || {
        world.agent.holdings().unwrap().listeners(netns).len() == 4
    })
    .unwrap();
    writeln!(stdin).unwrap();
    assert_eq!(said.next().unwrap().unwrap(), "two");
    // And it ends with the pod.
    let mut config = world.config();
    config.pods.clear();
    world.reload(config).unwrap();
    eventually("nothing is held", SOON, || {
        world.agent.holdings().unwrap().of(netns) == 0
    })
    .unwrap();
}

/// Ports where a listener could stand, few enough to name all of them.
const PORTS: std::ops::Range<u16> = 65_528..65_535;

/// Seen: one connection became 20,000 descriptors.
#[test]
fn a_listener_of_the_agent_is_nobodys_application() {
    let node = Node::new().unwrap();
    let pod = node.pod("client").unwrap();
    let netns = pod.namespace().unwrap();
    let vip = node.service("loop", 80, PORTS.start, &[&pod]).unwrap();
    let mut config = Config::default().service(&vip, Some("tcp")).pod(&pod, "client");
    config.pods[0].inbound = PORTS
        .map(|port| derny_tests::config::InboundEntry {
            port,
            protocol: Some("tcp".to_owned()),
            more: Default::default(),
        })
        .collect();
    let mut agent = Agent::start(&node, AgentOptions::new(config.clone())).unwrap();
    let holdings = agent.holdings().unwrap();
    let idle = holdings.of(netns);
    let listeners = holdings.listeners(netns);
    assert_eq!(
        listeners.len(),
        4,
        "of both families and directions: {listeners:?}"
    );
    // As endpoints. (What a redirected connection is given instead is refused in the file already.)
    config.port_of("loop").unwrap().endpoints = listeners
        .iter()
        .map(|address| derny_tests::config::EndpointEntry {
            address: address.to_string(),
            ..Default::default()
        })
        .collect();
    agent.reload(config).unwrap();
    agent
        .metric("derny_snapshot_version", &[], |version| version > 1.0)
        .unwrap_or_else(|error| panic!("{error}: {}", agent.log()));

    for address in listeners {
        let ended = pod.inside(|| by_hand(address)).unwrap();
        assert!(ended, "nobody listens at {address}");
    }
    for host in [vip.ip().to_string(), vip.ip6().to_string()] {
        let script = format!("exec 3<>/dev/tcp/{host}/80 && timeout 5 cat <&3; echo $?");
        for _ in 0..24 {
            let mut command = Command::new("bash");
            command.args(["-c", &script]);
            let ended = pod.run(command).unwrap().success().unwrap();
            assert!(!ended.contains("124"), "a call to {host} goes round: {ended}");
        }
    }
    eventually("nothing goes round", SOON, || {
        agent.holdings().unwrap().of(netns) <= idle
    })
    .unwrap();
}

/// Whether somebody listens, who then ends the connection without a word.
fn by_hand(address: std::net::SocketAddr) -> bool {
    let Ok(mut stream) = std::net::TcpStream::connect(address) else {
        return false;
    };
    // TCP lets a socket connect to itself.
    if stream.local_addr().unwrap() == stream.peer_addr().unwrap() {
        return false;
    }
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    match std::io::Read::read(&mut stream, &mut [0; 16]) {
        Ok(0) => {}
        Ok(_) => panic!("{address:?} answered"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{address:?}"),
    }
    true
}

/// Seen: SYNs of one pod were billed to another and took places in its backlog.
#[test]
fn a_redirected_address_of_another_slot_reaches_nobody() {
    let mut mesh = Mesh::new(2, "1s");
    mesh.enrol([0, 1]);
    let counters = |name: &str| {
        let agents = mesh.agent.cli_json(&["redirects"]).unwrap();
        let agents = agents.as_array().unwrap().iter();
        let pods = agents.flat_map(|agent| agent["pods"].as_array().unwrap());
        let mut ours = pods.filter(|pod| pod["label"].as_str().unwrap().ends_with(name));
        ours.next().unwrap().clone()
    };
    let other = counters("pod-1");
    let slot = u32::try_from(other["slot"].as_u64().unwrap()).unwrap();
    let forged = std::net::Ipv4Addr::from_bits(0x7fc0_0000 | slot << 12);
    let answered = mesh.pods[0]
        .inside(|| {
            let address = (forged, 0x8000).into();
            std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok()
        })
        .unwrap();
    assert!(!answered);
    assert_eq!(
        counters("pod-1")["counters"],
        other["counters"],
        "nothing is billed to it"
    );
}
