use derny_tests::{
    Vip, eventually,
    kube::objects,
    load::{Call, Load},
    upstream::HTTP_PORT,
};
use serde_json::{Value, json};

use crate::{
    kubelet::{Driver, Kubelet, NODE_NAME},
    world::{SOON, World},
};

/// The note of `derny services` on a service.
fn note(world: &World, service: &str) -> String {
    world.shown(service)["note"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn call(world: &World, vip: &Vip) -> Call {
    let calls = Load::grpc_calls(&world.client, &vip.address().to_string(), 1).unwrap();
    calls.finish(SOON).unwrap().remove(0)
}

/// A service at which the node, as another dataplane would, has the first server answer.
fn elsewhere(world: &World, name: &str) -> (Vip, Value) {
    let vip = world
        .node
        .service(name, 80, HTTP_PORT, &[&world.servers[0]])
        .unwrap();
    let service = objects::service(name, &vip.ip().to_string(), "grpc");
    (vip, service)
}

#[test]
fn where_nobody_is_known_the_node_decides_who_answers() {
    let world = World::new(1, &[]);
    let (empty, service) = elsewhere(&world, "empty");
    world.apply(&[service]);
    let (foreign, service) = elsewhere(&world, "foreign");
    let nowhere = [("10.0.0.250".to_owned(), objects::Standing::Ready)];
    let mut slice = objects::slice("foreign", "foreign-1", ("grpc", HTTP_PORT), &nowhere);
    slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] = "another.example".into();
    world.apply(&[service, slice]);
    for (vip, why) in [
        (&empty, "no endpoint is known"),
        (&foreign, "another than the cluster's controllers"),
    ] {
        eventually("the service is known", SOON, || {
            !world.shown(vip.name()).is_null()
        })
        .unwrap();
        for _ in 0..5 {
            let call = call(&world, vip);
            assert!(
                call.by_derny() && call.endpoint == "server-1",
                "{}: {call:?}",
                vip.name()
            );
        }
        eventually("it is said", SOON, || note(&world, vip.name()).contains(why)).unwrap();
    }
}

#[test]
fn what_others_serve_is_left_to_them_and_said() {
    let world = World::new(1, &[]);
    let changes = [
        (
            "proxied",
            "/metadata/labels",
            json!({"service.kubernetes.io/service-proxy-name": "lb"}),
        ),
        (
            "unproxied",
            "/metadata/labels",
            json!({"service.kubernetes.io/headless": ""}),
        ),
        (
            "global",
            "/metadata/annotations",
            json!({"service.cilium.io/global": "true"}),
        ),
        ("sticky", "/spec/sessionAffinity", json!("ClientIP")),
    ];
    for (name, at, value) in changes {
        let (vip, service) = elsewhere(&world, name);
        let ready = objects::ready(&[&world.servers[0]]);
        let slice = objects::slice(name, &format!("{name}-1"), ("grpc", HTTP_PORT), &ready);
        world.apply(&[service.clone(), slice]);
        eventually("it is the mesh's", SOON, || call(&world, &vip).by_derny()).unwrap();
        let mut marked = service;
        let (parent, field) = at.rsplit_once('/').unwrap();
        marked.pointer_mut(parent).unwrap()[field] = value;
        world.apply(&[marked]);
        eventually("it is left alone", SOON, || call(&world, &vip).directly()).unwrap();
        assert!(
            note(&world, name).contains("left alone"),
            "{}",
            note(&world, name)
        );
    }
}

#[test]
fn the_family_that_was_dialled_is_used_and_a_pod_is_one_endpoint() {
    let world = World::new(2, &[]);
    let pods: Vec<_> = world.servers.iter().collect();
    let both = world.node.service("both", 80, HTTP_PORT, &pods).unwrap();
    let mut service = objects::service("both", &both.ip().to_string(), "grpc");
    service["spec"]["clusterIPs"] = json!([both.ip().to_string(), both.ip6().to_string()]);
    service["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
    service["spec"]["ipFamilyPolicy"] = "RequireDualStack".into();
    let slice = |family: &str, addresses: Vec<String>| {
        let name = format!("both-{}", family.to_lowercase());
        let mut slice = objects::slice("both", &name, ("grpc", HTTP_PORT), &[]);
        let endpoint = |(address, pod): (&String, &&derny_tests::Pod)| {
            json!({"addresses": [address], "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "name": pod.name(), "namespace": "demo"}})
        };
        slice["addressType"] = family.into();
        slice["endpoints"] = addresses.iter().zip(&pods).map(endpoint).collect();
        slice
    };
    world.apply(&[
        service,
        slice("IPv4", pods.iter().map(|pod| pod.ip().to_string()).collect()),
        slice("IPv6", pods.iter().map(|pod| pod.ip6().to_string()).collect()),
    ]);
    eventually("it is the mesh's", SOON, || call(&world, &both).by_derny()).unwrap();
    for target in [both.address(), both.address6()] {
        let calls = Load::grpc_calls(&world.client, &target.to_string(), 20).unwrap();
        let calls = calls.finish(SOON).unwrap();
        assert!(calls.iter().all(Call::by_derny), "{calls:?}");
        for name in ["server-1", "server-2"] {
            assert!(calls.iter().any(|call| call.endpoint == name), "{target}: {name}");
        }
    }
    let lines = || {
        let lines = world.agent.access_log().unwrap().into_iter();
        let of_both: Vec<Value> = lines.filter(|line| line["service"] == "demo/both:80").collect();
        of_both
    };
    eventually("all calls are logged", SOON, || lines().len() >= 41).unwrap();
    let by_v6 = lines()
        .iter()
        .filter(|line| line["endpoint"].as_str().unwrap().starts_with('['))
        .count();
    assert_eq!(by_v6, 20, "as many as have dialled IPv6");
    let endpoints = world.agent.cli_json(&["endpoints", "demo/both:80"]).unwrap();
    assert_eq!(endpoints.as_array().unwrap().len(), 2, "{endpoints}");
}

#[test]
fn a_pod_with_another_mesh_in_it_is_left_alone() {
    let kubelet = Kubelet::enabled(Driver::Cgroupfs);
    let mut object = objects::pod("a", NODE_NAME, "");
    object["spec"]["initContainers"] =
        json!([{"name": "istio-proxy", "image": "istio-proxy", "restartPolicy": "Always"}]);
    let uid = kubelet.apply(&object);
    let pod = kubelet.node.pod("a").unwrap();
    let _running = kubelet.run(&pod, &uid);
    kubelet.stands(
        "a",
        "left alone",
        "Istio (container istio-proxy) redirects its connections",
    );
    assert!(!kubelet.is_redirected(&pod));
}

#[test]
fn what_the_api_server_forbids_and_a_wrong_name_are_said() {
    let world = World::new(1, &["--node-name", "no-such-node"]);
    let says = |words: &'static str| {
        let said = || {
            let status = world.agent.cli(&["status"]).unwrap();
            status.stdout.contains(words)
        };
        eventually(words, SOON, said).unwrap();
    };
    says("there is no Node `no-such-node`, as `--node-name` says");
}
