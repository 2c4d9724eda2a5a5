use std::{fs, process::Stdio, time::Duration};

use derny_tests::{
    Pod, Testd, clients,
    config::NAMESPACE,
    eventually,
    kube::objects,
    load::{Load, unix_now},
    upstream::HTTP_PORT,
};
use serde_json::{Value, json};

use crate::{
    are_told,
    claims::{called, of},
    kubelet::{Driver, Kubelet, NODE_NAME, Running, SOON},
};

const GREEDY: &str = "greedy";

fn greedy(arguments: &[&str]) -> Kubelet {
    let kubelet = Kubelet::with(
        Driver::Cgroupfs,
        &objects::namespace(NAMESPACE, "enabled"),
        arguments,
    );
    kubelet
        .cluster
        .apply(&[objects::namespace(GREEDY, "enabled")])
        .unwrap();
    kubelet
}

/// A pod that is enrolled, named after its namespace.
fn start(kubelet: &Kubelet, mut object: Value, namespace: &str) -> (Pod, Running) {
    object["metadata"]["name"] = namespace.into();
    let uid = kubelet.apply(&of(namespace, object));
    let pod = kubelet.node.pod(namespace).unwrap();
    let running = kubelet.run(&pod, &uid);
    kubelet.stands(namespace, "enrolled", "");
    (pod, running)
}

fn pod() -> Value {
    objects::pod("", NODE_NAME, "")
}

/// Whether `derny status` says that this was refused to the greedy namespace.
fn is_refused(kubelet: &Kubelet, budget: &str) -> bool {
    // An agent that has just been started is not ready, which is an error.
    let Ok(status) = kubelet.agent.cli_json(&["status"]) else {
        return false;
    };
    let refused = status["refused"].as_array().unwrap();
    assert!(refused.iter().all(|of| of["namespace"] == GREEDY), "{refused:?}");
    refused.iter().any(|of| of["budget"] == budget)
}

/// The most memory that the agent has had, in MiB.
fn peak_memory(kubelet: &Kubelet) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", kubelet.agent.id().unwrap())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// A route with so many matches, each by its path and 32 other regular expressions, which end like this.
fn many_patterns(name: &str, matches: usize, end: &str) -> Value {
    let pattern = |n: usize| json!({"type": "RegularExpression", "name": format!("x-{n}"), "value": format!("(a|b)*c[0-9]{{{n}}}{end}")});
    let values: Vec<Value> = (1..=16).map(pattern).collect();
    let one = |n: usize| {
        let path = json!({"type": "RegularExpression", "value": format!("/{n}/[^/]+/{end}")});
        json!({"path": path, "headers": values, "queryParams": values})
    };
    let all: Vec<Value> = (0..matches).map(one).collect();
    let backend = json!([{"group": "", "kind": "Service", "name": "echo", "port": 80, "weight": 1}]);
    let rules: Vec<Value> = (all.chunks(64))
        .map(|matches| json!({"matches": matches, "backendRefs": backend}))
        .collect();
    objects::route("HTTPRoute", name, "echo", rules.into())
}

#[test]
fn a_route_of_thousands_of_patterns_is_refused_to_its_namespace_alone() {
    let mut kubelet = greedy(&[]);
    let service = of(GREEDY, objects::service("echo", "10.96.77.1", "http"));
    let small = of(GREEDY, many_patterns("small", 2, "x+"));
    kubelet.cluster.apply(&[service, small.clone()]).unwrap();
    let condition =
        |route: &Value| kubelet.cluster.get(route).unwrap()["status"]["parents"][0]["conditions"][0].clone();
    eventually("the small one is accepted", SOON, || {
        condition(&small)["status"] == "True"
    })
    .unwrap();
    let huge = of(GREEDY, many_patterns("huge", 128, r"\w+"));
    kubelet.cluster.apply(std::slice::from_ref(&huge)).unwrap();
    let is_told = || {
        let said = condition(&huge);
        said["status"] == "False" && said["message"].as_str().unwrap().contains("--max-route-patterns")
    };
    eventually("the huge one is refused", SOON, is_told).unwrap();
    assert_eq!(condition(&small)["status"], "True");
    kubelet.agent.kill9().unwrap();
    kubelet.agent.start_again().unwrap();
    eventually("it is refused again", SOON, || {
        is_refused(&kubelet, "route_patterns")
    })
    .unwrap();
    let peak = peak_memory(&kubelet);
    println!("peak of an agent that starts with the route: {peak} MiB");
    assert!(peak < 150, "{peak} MiB");
    let labels = [("budget", "route_patterns"), ("namespace", GREEDY)];
    kubelet
        .agent
        .metric("derny_budget_refusals_total", &labels, |n| n >= 1.0)
        .unwrap();
}

#[test]
fn a_request_that_meets_a_namespaces_whole_share_of_patterns_is_answered_at_once() {
    let kubelet = greedy(&[]);
    // More than the share has room for. None begins with a path element, so that each is tried.
    let path =
        |n: usize| json!({"path": {"type": "RegularExpression", "value": format!(".*\\w+-\\w+x{{{n}}}y")}});
    let route = |n: usize| {
        let matches: Vec<Value> = (8 * n..8 * (n + 1)).map(path).collect();
        let backend = json!([{"group": "", "kind": "Service", "name": "echo", "port": 80, "weight": 1}]);
        let rules = json!([{"matches": matches, "backendRefs": backend}]);
        objects::route("HTTPRoute", &format!("r{n:02}"), "echo", rules)
    };
    let routes: Vec<Value> = (0..32).map(route).collect();
    kubelet.cluster.apply(&routes).unwrap();
    let (client, _running) = start(&kubelet, pod(), NAMESPACE);
    let accepted = |route: &Value| {
        let parents = kubelet.cluster.get(route).unwrap()["status"]["parents"].clone();
        parents[0]["conditions"][0]["status"]
            .as_str()
            .map(|status| status == "True")
    };
    let are_refused = || routes.iter().any(|route| accepted(route) == Some(false));
    eventually("some routes are refused", Duration::from_secs(60), are_refused).unwrap();
    let shown = || {
        let services = kubelet.agent.cli_json(&["services"]).unwrap();
        services[0]["routes"].as_u64().unwrap_or_default()
    };
    eventually("routes are in force", SOON, || (4..32).contains(&shown())).unwrap();
    let in_force = shown();
    let url = format!("http://{}/{}", kubelet.echo.address(), "abcdefghx".repeat(200));
    let (before, begun) = (peak_memory(&kubelet), unix_now());
    let curl = [
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--http2-prior-knowledge",
        &url,
    ];
    let code = client.run(clients::curl(curl)).unwrap().stdout;
    let (took, grown) = (unix_now() - begun, peak_memory(&kubelet) - before);
    println!(
        "first request past {in_force} routes: {:.0} ms, {grown} MiB",
        took * 1000.0
    );
    assert_eq!(code, "404", "none of them matches");
    assert!(took < 2.0, "{took} s");
    assert!(grown < 40, "{grown} MiB");
}

#[test]
fn an_annotation_does_not_open_a_connection_for_each_of_its_names() {
    let kubelet = greedy(&["--max-watched-services", "20"]);
    let names: Vec<String> = (0..100).map(|n| format!("s{n}")).collect();
    let service =
        |(n, name): (usize, &String)| of(GREEDY, objects::service(name, &format!("10.96.78.{n}"), "http"));
    let services: Vec<Value> = names.iter().enumerate().map(service).collect();
    kubelet.cluster.apply(&services).unwrap();
    let mut annotated = pod();
    annotated["metadata"]["annotations"] = json!({"derny.dev/services": names.join(",")});
    let (_greedy, _running) = start(&kubelet, annotated, GREEDY);
    eventually("it is refused", SOON, || is_refused(&kubelet, "watched_services")).unwrap();
    let told = || are_told(&kubelet, &["default"], "ShareUsedUp");
    eventually("an Event says so", SOON, told).unwrap();
    let watched = || {
        kubelet
            .agent
            .metrics()
            .unwrap()
            .sum("derny_kube_watches", &[("resource", "endpointslices")])
    };
    eventually("its share is watched", SOON, || watched() == 20.0).unwrap();
    // Another namespace's service is watched all the same.
    let (client, _running) = start(&kubelet, pod(), NAMESPACE);
    eventually("the other's calls are balanced", SOON, || {
        called(&client, &kubelet.echo.address().to_string()) && watched() == 21.0
    })
    .unwrap();
}

/// A headless service of the greedy namespace with so many endpoints at which nobody answers, probed all the time.
fn unanswered(endpoints: usize) -> [Value; 3] {
    let mut service = objects::service("dead", "None", "http");
    service["spec"]["clusterIPs"] = json!(["None"]);
    let dead = |n: usize| (format!("10.0.250.{n}"), objects::Standing::Ready);
    let dead: Vec<_> = (1..=endpoints).map(dead).collect();
    let slice = objects::slice("dead", "dead-1", ("http", HTTP_PORT), &dead);
    let check = json!({"tcp": {}, "interval": "1s", "timeout": "2500ms"});
    [
        service,
        slice,
        objects::policy("dead", "dead", json!({"healthCheck": check})),
    ]
    .map(|object| of(GREEDY, object))
}

#[test]
fn a_namespaces_health_checks_do_not_hold_up_those_of_others() {
    let kubelet = greedy(&["--max-probes", "4", "--max-namespace-probes", "2"]);
    let check =
        json!({"http": {"path": "/health"}, "interval": "200ms", "timeout": "1s", "unhealthyThreshold": 2});
    let policy = objects::policy("checked", "echo", json!({"healthCheck": check}));
    let server = kubelet.node.pod("second").unwrap();
    let testd = Testd::start(&server).unwrap();
    let slice = objects::slice("echo", "echo-1", ("grpc", HTTP_PORT), &objects::ready(&[&server]));
    kubelet.cluster.apply(&[policy, slice]).unwrap();
    let (client, _running) = start(&kubelet, pod(), NAMESPACE);
    eventually("the service is known", SOON, || {
        called(&client, &kubelet.echo.address().to_string())
    })
    .unwrap();
    kubelet.cluster.apply(&unanswered(100)).unwrap();
    eventually("the greedy ones wait", SOON, || is_refused(&kubelet, "probes")).unwrap();
    let begun = unix_now();
    drop(testd);
    let is_seen = || {
        let endpoints = kubelet.agent.cli_json(&["endpoints", "demo/echo"]).unwrap();
        endpoints.to_string().contains("unhealthy")
    };
    eventually("the dead one is seen", Duration::from_secs(20), is_seen).unwrap();
    let took = unix_now() - begun;
    println!("a dead endpoint was seen after {took:.1} s");
    assert!(took < 6.0, "{took} s");
}

#[test]
fn tables_of_a_flapping_service_do_not_stop_a_worker() {
    let kubelet = greedy(&["--max-hash-table-bytes", "200000000"]);
    let table = json!({"algorithm": "maglev", "hashOn": {"sourceAddress": true}, "tableSize": 1_048_573});
    let (count, address) = (40, |n: usize| format!("10.96.79.{n}"));
    let endpoints = |n: usize| -> Vec<(String, objects::Standing)> {
        (1..=n)
            .map(|n| (format!("10.0.250.{n}"), objects::Standing::Ready))
            .collect()
    };
    let slices = |of_each: usize| -> Vec<Value> {
        let slice = |n: usize| {
            objects::slice(
                &format!("s{n}"),
                &format!("s{n}-1"),
                ("http", HTTP_PORT),
                &endpoints(of_each),
            )
        };
        (1..=count).map(|n| of(GREEDY, slice(n))).collect()
    };
    let services: Vec<Value> = (1..=count)
        .flat_map(|n| {
            let name = format!("s{n}");
            [
                objects::service(&name, &address(n), "http"),
                objects::policy(&name, &name, json!({"loadBalancer": table})),
            ]
        })
        .map(|object| of(GREEDY, object))
        .collect();
    kubelet.cluster.apply(&services).unwrap();
    kubelet.cluster.apply(&slices(20)).unwrap();
    let (greedy, _running) = start(&kubelet, pod(), GREEDY);
    let (client, _client_running) = start(&kubelet, pod(), NAMESPACE);
    let mut dial = clients::curl(["--max-time", "5", "--parallel", "--parallel-max", "50"]);
    dial.args((1..=count).map(|n| format!("http://{}/", address(n))))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _ = greedy.spawn(dial).unwrap().wait(Duration::from_secs(120));

    let load = Load::grpc(&client, &kubelet.echo.address().to_string()).unwrap();
    load.wait_for("calls", 100, 0.0, SOON, |call| call.ok).unwrap();
    for of_each in [19, 20, 18] {
        kubelet.cluster.apply(&slices(of_each)).unwrap();
    }
    let since = unix_now();
    load.wait_for("calls after the flapping", 300, since, SOON, |call| call.ok)
        .unwrap();
    let calls = load.end_unharmed().unwrap();
    let slowest = calls.iter().map(|call| call.took).fold(0.0, f64::max) / 1000.0;
    println!("slowest of {} calls: {:.0} ms", calls.len(), slowest * 1000.0);
    assert!(slowest < 0.5, "{slowest} s");
}
