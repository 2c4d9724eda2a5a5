use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use derny_tests::{
    Agent, AgentOptions, Config, Node, Pod, World,
    agent::derny,
    clients, eventually,
    kube::objects,
    upstream::{HTTP_PORT, TestdOptions},
};
use serde_json::{Value, json};

use crate::kubelet::{Driver, Kubelet, NODE_NAME};

/// Who the application behind `url` is told that its caller is.
fn forwarded_for(pod: &Pod, url: &str, flags: &[&str]) -> Value {
    let curl = clients::curl([flags, &["-s", url]].concat());
    let text = pod.run(curl).unwrap().success().unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["headers"]["x-forwarded-for"].clone()
}

/// What a pod with NET_ADMIN may do: another's address, before its own.
fn squat(pod: &Pod, other: &Pod) {
    let (own, other) = (pod.ip(), other.ip());
    let lines = format!(
        "address del {own}/32 dev eth0\naddress add {other}/32 dev eth0\naddress add {own}/32 dev eth0\n\
         route replace 10.0.0.1 dev eth0 scope link\nroute replace default via 10.0.0.1 dev eth0 src {own}\n"
    );
    pod.netns().ip_batch(&lines).unwrap();
}

#[test]
fn a_pod_that_takes_a_neighbours_address_is_not_announced_as_the_neighbour() {
    let mut world = World::new(1).unwrap();
    let mut config = world.config();
    let own = world.client.ip().to_string();
    config.pods[0].addresses = Some(vec![own.clone()]);
    world.reload(config).unwrap();
    let neighbour = world.node.pod("neighbour").unwrap();
    squat(&world.client, &neighbour);
    let url = world.url("http", "/").unwrap();
    eventually(
        "the addresses were looked at again",
        Duration::from_secs(5),
        || world.agent.shown_pod("client").unwrap()["addresses"] == json!([own]),
    )
    .unwrap();
    assert_eq!(forwarded_for(&world.client, &url, &[]), own);
    let forged = ["-H", &format!("x-forwarded-for: {}", neighbour.ip())];
    let told = forwarded_for(&world.client, &url, &forged);
    assert!(told.as_str().unwrap().ends_with(&format!(", {own}")), "{told}");
}

#[test]
fn a_pods_addresses_are_what_its_kubelet_reports() {
    let kubelet = Kubelet::enabled(Driver::Cgroupfs);
    let uid = kubelet.apply(&objects::pod("client", NODE_NAME, ""));
    let (client, neighbour) = (
        kubelet.node.pod("client").unwrap(),
        kubelet.node.pod("neighbour").unwrap(),
    );
    squat(&client, &neighbour);
    let _running = kubelet.run(&client, &uid);
    kubelet.stands("client", "enrolled", "");
    let url = kubelet.echo.url("/");
    assert_eq!(kubelet.shown("client")["addresses"], json!([]));
    assert_eq!(forwarded_for(&client, &url, &[]), "unknown");

    let cookie = kubelet.shown("client")["enrolledAtMs"].clone();
    let own = client.ip().to_string();
    kubelet.reports("client", &own);
    eventually("the address is known", Duration::from_secs(10), || {
        kubelet.shown("client")["addresses"] == json!([own])
    })
    .unwrap();
    assert_eq!(forwarded_for(&client, &url, &[]), own);
    assert_eq!(
        kubelet.shown("client")["enrolledAtMs"],
        cookie,
        "not enrolled anew"
    );
}

/// A pod that answers on `port`, and has it steered.
fn inbound(change: impl FnOnce(&mut AgentOptions)) -> World {
    World::with(1, &TestdOptions::default(), |options| {
        change(options);
    })
    .unwrap()
}

fn with_inbound(world: &World) -> Config {
    world
        .config()
        .pod_inbound(&world.servers[0].pod, "server", HTTP_PORT, Some("http"))
}

#[test]
fn an_address_that_comes_later_is_steered_and_one_that_goes_is_not() {
    let mut world = inbound(|_| {});
    let config = with_inbound(&world);
    world.reload(config).unwrap();
    let caller = world.node.pod("caller").unwrap();
    let server = &world.servers[0].pod;
    world.agent.pod_stands(server.name(), "enrolled", "").unwrap();
    let host = world.node.host().netns();
    host.ip_batch(&format!("route add 192.168.50.7/32 via {}\n", server.ip()))
        .unwrap();
    let passes = |world: &World| {
        let curl = clients::curl(["-s", "-m", "3", &format!("http://192.168.50.7:{HTTP_PORT}/")]);
        let text = caller.run(curl).unwrap().stdout;
        text.contains("x-request-id") && world.agent.log().contains("192.168.50.7")
    };
    server
        .netns()
        .ip_batch("address add 192.168.50.7/32 dev eth0\n")
        .unwrap();
    eventually("a call passes the engine", Duration::from_secs(10), || {
        passes(&world)
    })
    .unwrap();
    let shown = world.agent.shown_pod(server.name()).unwrap();
    assert!(
        shown["addresses"]
            .as_array()
            .unwrap()
            .contains(&json!("192.168.50.7"))
    );
    server
        .netns()
        .ip_batch("address del 192.168.50.7/32 dev eth0\n")
        .unwrap();
    eventually("the address is forgotten", Duration::from_secs(10), || {
        let shown = world.agent.shown_pod(server.name()).unwrap();
        !shown["addresses"]
            .as_array()
            .unwrap()
            .contains(&json!("192.168.50.7"))
    })
    .unwrap();
}

#[test]
fn a_pod_over_its_share_of_the_table_keeps_what_fits_and_is_told() {
    let mut world = inbound(|options| {
        options
            .arguments
            .extend(["--max-inbound", "3"].map(str::to_owned));
    });
    let (greedy, modest) = (world.node.pod("greedy").unwrap(), &world.servers[0].pod);
    let mut config = with_inbound(&world);
    for port in 1000..1010 {
        config = match port {
            1000 => config.pod_inbound(&greedy, "greedy", port, None),
            _ => {
                let mut more = config.clone().pod_inbound(&greedy, "greedy", port, None);
                let last = more.pods.pop().unwrap();
                more.pods.last_mut().unwrap().inbound.extend(last.inbound);
                more
            }
        };
    }
    let modest = modest.name().to_owned();
    world.reload(config).unwrap();
    let greedy = world.agent.pod_stands("greedy", "enrolled", "").unwrap();
    assert!(
        greedy["note"]
            .as_str()
            .unwrap()
            .contains("17 of its addresses and ports"),
        "{greedy}"
    );
    let modest = world.agent.pod_stands(&modest, "enrolled", "").unwrap();
    assert_eq!(modest["note"], "");
    world
        .agent
        .metric("derny_inbound_over_share_total", &[], |refused| refused == 17.0)
        .unwrap();
}

#[test]
fn a_second_agent_does_not_start_beside_the_first_and_takes_its_place_when_it_ends() {
    let mut world = World::new(1).unwrap();
    let beside = world.node.host().run_directory().join("second.sock");
    let second = |wait: &str| {
        let mut command = Command::new(derny().unwrap());
        command
            .args([
                "run",
                "--workers",
                "1",
                "--access-log",
                "off",
                "--wait-for-other",
                wait,
            ])
            .args(["--http-address", "127.0.0.1:15092"])
            .args(["--probe-address", "127.0.0.1:15093"])
            .arg("--config")
            .arg(world.agent.config_path())
            .arg("--cgroup")
            .arg(world.node.host().kubepods())
            .arg("--admin-socket")
            .arg(&beside);
        command
    };
    let mut refused = second("0s");
    refused
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = world
        .node
        .host()
        .spawn(refused)
        .unwrap()
        .output(Duration::from_secs(30))
        .unwrap();
    let said = format!("{}{}", output.stdout, output.stderr);
    let pid = format!("of process {}", world.agent.id().unwrap());
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("another agent is on the same control groups") && said.contains(&pid),
        "{said}"
    );

    let mut successor = second("20s");
    successor
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _successor = world.node.host().spawn(successor).unwrap();
    world.agent.terminate(Duration::from_secs(20)).unwrap();
    eventually("the second serves", Duration::from_secs(20), || beside.exists()).unwrap();
}

#[test]
fn a_control_group_that_was_made_anew_is_attached_to() {
    let node = Node::new().unwrap();
    let (client, nobody) = (node.pod("client").unwrap(), node.pod("nobody").unwrap());
    let vip = node.service("nobody", 80, HTTP_PORT, &[&nobody]).unwrap();
    let config = Config::default()
        .pod(&client, "client")
        .service(&vip, Some("tcp"));
    let agent = Agent::start(&node, AgentOptions::new(config)).unwrap();
    let group = node.host().kubepods();
    let redirected = |agent: &Agent| {
        let call = clients::curl(["-s", "-m", "2", &vip.url("/")]);
        client.run_from(node.host(), &group.join("client"), call).unwrap();
        let labels = [("pod", "client"), ("decision", "redirected")];
        agent
            .metrics()
            .unwrap()
            .sum("derny_kernel_decisions_total", &labels)
    };
    assert_eq!(redirected(&agent), 1.0);
    for pod in [&client, &nobody] {
        fs::remove_dir(pod.cgroup()).unwrap();
    }
    fs::remove_dir(&group).unwrap();
    eventually(
        "the agent is not ready",
        Duration::from_secs(10),
        || matches!(agent.get("/readyz"), Ok((503, text)) if text.contains("control group")),
    )
    .unwrap();
    let status = agent.cli(&["status"]).unwrap();
    assert!(status.stdout.contains("control group"), "{}", status.stdout);

    fs::create_dir(&group).unwrap();
    eventually("the agent is ready", Duration::from_secs(10), || {
        matches!(agent.get("/readyz"), Ok((200, _)))
    })
    .unwrap();
    assert_eq!(redirected(&agent), 2.0);
    assert_eq!(
        agent
            .metrics()
            .unwrap()
            .sum("derny_pods_cgroup_losses_total", &[]),
        1.0
    );
}
