use std::{process::Stdio, time::Duration};

use derny_tests::{
    clients,
    config::NAMESPACE,
    eventually,
    kube::objects,
    load::{Call, Load},
    upstream::HTTP_PORT,
};
use serde_json::Value;

use crate::{
    kubelet::{Kubelet, SOON, repeatable},
    pod::{FIRST, RunningPod, replica},
};

/// Labels of what `shop` calls of `echo`.
const TRAFFIC: [(&str, &str); 7] = [
    ("direction", "outbound"),
    ("source_namespace", NAMESPACE),
    ("source_workload", "shop"),
    ("destination_namespace", NAMESPACE),
    ("destination_service", "echo"),
    ("destination_port", "80"),
    ("protocol", "grpc"),
];

#[test]
fn a_namespace_is_opted_in_and_its_calls_are_balanced_retried_and_logged() {
    let mut kubelet = Kubelet::new("", repeatable());
    let servers = [1, 2, 3].map(|number| kubelet.server(FIRST, number));
    kubelet.endpoints(&servers.each_ref(), &[]);
    let client = kubelet.client();

    nobody_is_in_the_mesh(&kubelet, &client);
    kubelet
        .cluster
        .apply(&[objects::namespace(NAMESPACE, "enabled")])
        .unwrap();
    for pod in servers.iter().chain([&client]) {
        kubelet.is_enrolled(pod);
    }
    calls_are_balanced_and_logged(&kubelet, &client, &servers);
    streams_pass_too(&kubelet, &client);
    the_server_sees_its_caller(&kubelet, &client);
    calls_from_outside_are_logged(&kubelet, &servers[0]);
    an_unavailable_server_is_not_noticed(&mut kubelet, &client, &servers);
    a_killed_server_is_not_noticed(&kubelet, &client, &servers);
}

fn nobody_is_in_the_mesh(kubelet: &Kubelet, client: &RunningPod) {
    let reason = "no label derny.dev/mesh";
    kubelet
        .agent
        .pod_stands(&client.name, "left alone", reason)
        .unwrap();
    let calls = run(client, "before", &kubelet.echo.address().to_string(), 300);
    assert!(calls.iter().all(Call::directly));
    let first = &calls[0].endpoint;
    assert!(
        calls.iter().all(|call| call.endpoint == *first),
        "one connection, one server"
    );
    assert_eq!(kubelet.agent.access_log().unwrap(), [] as [Value; 0]);
}

fn calls_are_balanced_and_logged(kubelet: &Kubelet, client: &RunningPod, servers: &[RunningPod; 3]) {
    let calls = run(client, "after", &kubelet.echo.address().to_string(), 300);
    assert!(calls.iter().all(Call::by_derny));
    for server in servers {
        let share = calls.iter().filter(|call| call.endpoint == server.name).count();
        assert!((90..=110).contains(&share), "{}: {share} of 300", server.name);
    }
    let all = |sum: f64| sum == 300.0;
    let counted = kubelet.agent.metric("derny_requests_total", &TRAFFIC, all);
    counted.unwrap();
    let caller = format!("{NAMESPACE}/{}", client.name);
    for server in servers {
        let endpoint = server.address().to_string();
        let line = kubelet
            .agent
            .access_line(&server.name, |line| line["endpoint"] == *endpoint);
        let line = line.unwrap();
        assert_eq!(line["source"], *caller, "{line}");
        assert_eq!(line["source_namespace"], NAMESPACE, "{line}");
        assert_eq!(line["source_workload"], "shop", "{line}");
        assert_eq!(line["service"], "demo/echo:80", "{line}");
        assert_eq!(line["protocol"], "grpc", "{line}");
        assert_eq!(line["path"], "/derny.test.v1.Echo/Unary", "{line}");
        assert_eq!(line["flags"], "-", "{line}");
    }
}

/// All four kinds of gRPC calls, and another client.
fn streams_pass_too(kubelet: &Kubelet, client: &RunningPod) {
    let tonic = clients::testc(["tonic", &kubelet.echo.address().to_string()]).unwrap();
    client.container.exec(&tonic).unwrap();
    for kind in ["ServerStream", "ClientStream", "Bidi"] {
        let of_kind = |line: &Value| line["path"] == format!("/derny.test.v1.Echo/{kind}");
        let line = kubelet.agent.access_line(kind, of_kind).unwrap();
        assert_eq!(
            (&line["source_workload"], &line["flags"]),
            (&"shop".into(), &"-".into())
        );
    }
}

fn the_server_sees_its_caller(kubelet: &Kubelet, client: &RunningPod) {
    let curl = clients::curl([kubelet.web.url("/")]);
    let answer: Value = serde_json::from_str(&client.container.exec(&curl).unwrap()).unwrap();
    assert!(answer["headers"]["x-request-id"].is_string(), "{answer}");
    let peer = answer["peer"].as_str().unwrap();
    assert!(peer.starts_with(&format!("{}:", client.ip)), "{answer}");
}

fn calls_from_outside_are_logged(kubelet: &Kubelet, server: &RunningPod) {
    let outside = kubelet.node.pod("outside").unwrap();
    let calls = Load::grpc_calls(&outside, &server.address().to_string(), 10).unwrap();
    let calls = calls.finish(SOON).unwrap();
    assert!(
        calls
            .iter()
            .all(|call| call.by_derny() && call.endpoint == server.name)
    );
    let inbound = |line: &Value| line["direction"] == "inbound";
    let line = kubelet.agent.access_line("a call from outside", inbound).unwrap();
    assert_eq!(line["service"], format!("demo/echo:{HTTP_PORT}"), "{line}");
    assert_eq!(
        line["source"].as_str().unwrap().split(':').next(),
        Some(&*outside.ip().to_string())
    );
}

fn an_unavailable_server_is_not_noticed(
    kubelet: &mut Kubelet,
    client: &RunningPod,
    servers: &[RunningPod; 3],
) {
    let mut command = clients::python("grpc_unavailable.py").unwrap();
    command.args(["--port", &HTTP_PORT.to_string()]);
    let unavailable = kubelet.start(replica("echo", FIRST, 4), command);
    kubelet.probe(&unavailable);
    let [one, two, three] = servers;
    kubelet.endpoints(&[one, two, three, &unavailable], &[]);
    let tried = unavailable.address().to_string();
    let calls = run(client, "unavailable", &kubelet.echo.address().to_string(), 300);
    assert!(calls.iter().all(Call::by_derny));
    let traffic: Vec<_> = TRAFFIC
        .into_iter()
        .filter(|(name, _)| *name != "protocol")
        .collect();
    let some = |sum: f64| sum >= 1.0;
    kubelet
        .agent
        .metric("derny_retries_total", &traffic, some)
        .unwrap();
    // It has failed too often since to be asked any more.
    let shown = kubelet.agent.cli_json(&["endpoints", "demo/echo"]).unwrap();
    let shown = shown
        .as_array()
        .unwrap()
        .iter()
        .find(|endpoint| endpoint["address"] == *tried);
    assert!(shown.unwrap().to_string().contains("ejected"), "{shown:?}");
    kubelet.endpoints(&[one, two, three], &[]);
    unavailable.end(SOON);
}

/// Nobody has told the API server yet that it is dead.
fn a_killed_server_is_not_noticed(kubelet: &Kubelet, client: &RunningPod, servers: &[RunningPod; 3]) {
    let load = client.grpc("killed", &kubelet.echo.address().to_string());
    let of = |server: &RunningPod| {
        let name = server.name.clone();
        move |call: &Call| call.by_derny() && call.endpoint == name
    };
    load.wait_for("calls of all", 20, 0.0, SOON, of(&servers[0]))
        .unwrap();
    servers[0].crash();
    let since = derny_tests::load::unix_now();
    load.wait_for("calls of the others", 50, since, SOON, of(&servers[1]))
        .unwrap();
    load.end_unharmed().unwrap();
    let retried = |line: &Value| line["attempts"].as_u64() > Some(1) && line["flags"] == "-";
    kubelet
        .agent
        .access_line("a call that was made twice", retried)
        .unwrap();
}

/// The bridge of the pods comes with the first of them. A probe is the kubelet's matter, not a call of the mesh.
#[test]
fn a_probe_passes_by_although_the_agent_is_older_than_the_pods_network() {
    let kubelet = Kubelet::opted_in();
    let server = kubelet.server(FIRST, 1);
    kubelet.is_enrolled(&server);
    let probe = || {
        let mut curl = clients::curl([format!("http://{}/health", server.address())]);
        curl.stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let probe = kubelet.node.host().spawn(curl).unwrap();
        probe.output(SOON).unwrap().success().unwrap()
    };
    let passes_by = || !probe().contains("x-request-id");
    eventually("a probe passes by", Duration::from_secs(2), passes_by).unwrap();
    assert!(passes_by());
    let skipped = [("decision", "skipped_node_address")];
    kubelet
        .agent
        .metric("derny_kernel_decisions_total", &skipped, |sum| sum >= 2.0)
        .unwrap();
}

/// Calls by a client to their end; none failed.
fn run(client: &RunningPod, name: &str, target: &str, calls: u32) -> Vec<Call> {
    let calls = client.grpc_calls(name, target, calls).finish(SOON).unwrap();
    assert!(
        calls.iter().all(|call| call.ok),
        "{:?}",
        calls.iter().find(|call| !call.ok)
    );
    calls
}
