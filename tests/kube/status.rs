use std::time::Duration;

use derny_tests::{clients, eventually, kube::objects, load::unix_now};
use serde_json::{Value, json};

use crate::world::{SOON, World};

/// `status/reason` of a condition.
pub(crate) fn condition(conditions: &Value, kind: &str) -> String {
    let mut all = conditions.as_array().into_iter().flatten();
    let found = all.find(|condition| condition["type"] == kind);
    found.map_or_else(String::new, |c| {
        format!(
            "{}/{}",
            c["status"].as_str().unwrap(),
            c["reason"].as_str().unwrap()
        )
    })
}

#[test]
fn the_leader_tells_objects_how_they_stand() {
    let world = World::new(1, &[]);
    let policy = |name: &str, service: &str, sections: Value| objects::policy(name, service, sections);
    let good = policy("a-good", "echo", json!({}));
    let second = policy("b-second", "echo", json!({}));
    let lost = policy("lost", "nowhere", json!({}));
    let table = json!({"algorithm": "maglev", "hashOn": {"sourceAddress": true}, "tableSize": 2000});
    let bad = policy("bad", "echo", json!({"loadBalancer": table}));
    world.apply(&[good.clone(), second.clone(), lost.clone(), bad.clone()]);
    let accepted = |object: &Value, expect: &str| {
        let what = format!("{} is {expect}", object["metadata"]["name"]);
        let status = || world.cluster.get(object).unwrap()["status"]["conditions"].clone();
        eventually(&what, SOON, || condition(&status(), "Accepted") == expect).unwrap();
    };
    accepted(&good, "True/Accepted");
    accepted(&second, "False/Conflicted");
    accepted(&lost, "False/TargetNotFound");
    accepted(&bad, "False/Invalid");
    // The older one goes, and with it the conflict.
    world.cluster.delete(&good).unwrap();
    accepted(&second, "True/Accepted");

    let backend = |name: &str, namespace: &str| {
        json!([{"backendRefs": [{"group": "", "kind": "Service", "name": name, "namespace": namespace,
            "port": 80, "weight": 1}]}])
    };
    // A route with a fault is told so, although it was never any better.
    let path = json!({"type": "RegularExpression", "value": "("});
    let broken = objects::route(
        "HTTPRoute",
        "broken",
        "echo",
        json!([{"matches": [{"path": path}]}]),
    );
    world.apply(std::slice::from_ref(&broken));
    eventually("the route is refused", SOON, || {
        let conditions = world.cluster.get(&broken).unwrap()["status"]["parents"][0]["conditions"].clone();
        condition(&conditions, "Accepted") == "False/UnsupportedValue"
    })
    .unwrap();

    let route = |backends: Value| objects::route("HTTPRoute", "r", "echo", backends);
    let resolved = |object: &Value, expect: &str| {
        let status = || {
            let object = world.cluster.get(object).unwrap();
            let parents = object["status"]["parents"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            parents
                .into_iter()
                .find(|parent| parent["controllerName"] == "derny.dev/agent")
                .unwrap_or_default()
        };
        eventually(&format!("the route's references are {expect}"), SOON, || {
            let conditions = status()["conditions"].clone();
            condition(&conditions, "Accepted") == "True/Accepted"
                && condition(&conditions, "ResolvedRefs") == expect
        })
        .unwrap();
    };
    for (name, namespace, expect) in [
        ("echo", "demo", "True/ResolvedRefs"),
        ("nobody", "demo", "False/BackendNotFound"),
        ("echo", "far", "False/BackendNotFound"),
    ] {
        let route = route(backend(name, namespace));
        world.apply(std::slice::from_ref(&route));
        resolved(&route, expect);
    }
    assert!(!holder(&world).is_empty());
}

/// Who writes statuses.
fn holder(world: &World) -> String {
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "derny-status", "namespace": "default"}});
    let lease = world.cluster.get(&lease).unwrap_or_default();
    let holder = lease["spec"]["holderIdentity"].as_str();
    holder.unwrap_or_default().to_owned()
}

#[test]
fn a_backend_at_a_port_that_its_service_has_not_is_said_and_answered_with_500() {
    let world = World::new(1, &[]);
    let rules = |port: u16| json!([{"backendRefs": [{"group": "", "kind": "Service", "name": "echo", "port": port, "weight": 1}]}]);
    let route = |port: u16| objects::route("HTTPRoute", "r", "echo", rules(port));
    let resolved = |expect: &str, word: &str| {
        let conditions =
            || world.cluster.get(&route(80)).unwrap()["status"]["parents"][0]["conditions"].clone();
        eventually(&format!("the route's references are {expect}"), SOON, || {
            let conditions = conditions();
            condition(&conditions, "Accepted") == "True/Accepted"
                && condition(&conditions, "ResolvedRefs") == expect
                && conditions.to_string().contains(word)
        })
        .unwrap();
    };
    world.apply(&[route(81)]);
    resolved("False/BackendNotFound", "demo/echo has no TCP port 81");
    let url = format!("http://{}/", world.target());
    let curl = [
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--http2-prior-knowledge",
        &url,
    ];
    let status = || world.client.run(clients::curl(curl)).unwrap().stdout;
    eventually("it is answered with 500", SOON, || status() == "500").unwrap();
    let line = world
        .agent
        .access_line("the call", |line| line["code"] == 500)
        .unwrap();
    assert_eq!(line["flags"], "NR", "{line}");
    world.apply(&[route(80)]);
    resolved("True/ResolvedRefs", "");
    eventually("it is answered by the service", SOON, || status() != "500").unwrap();
}

#[test]
fn a_lease_goes_on_to_another_agent() {
    let mut world = World::new(1, &[]);
    let next = |world: &World, before: &str, within: Duration| {
        let begun = unix_now();
        let other = || {
            let holder = holder(world);
            !holder.is_empty() && holder != before
        };
        eventually("another agent holds the lease", within, other).unwrap();
        (holder(world), unix_now() - begun)
    };
    let (first, _) = next(&world, "", SOON);
    // One that dies leaves it to lapse.
    world.agent.kill9().unwrap();
    world.agent.start_again().unwrap();
    let (second, took) = next(&world, &first, Duration::from_secs(35));
    println!("after the holder's death: taken over in {took:.1} s");
    assert!(took > 8.0, "it was the other's for {took} s");
    // One that ends releases it.
    world.agent.terminate(SOON).unwrap();
    assert_eq!(holder(&world), "", "after {second}");
    world.agent.start_again().unwrap();
    let (_, took) = next(&world, &second, Duration::from_secs(8));
    println!("after the holder's end: taken over in {took:.1} s");
}

/// At the end of Derny in a cluster. What another controller has said of a route stays.
#[test]
fn conditions_are_taken_back_when_derny_leaves() {
    let mut world = World::new(1, &[]);
    let policy = objects::policy("p", "echo", json!({}));
    let rules =
        json!([{"backendRefs": [{"group": "", "kind": "Service", "name": "echo", "port": 80, "weight": 1}]}]);
    let route = objects::route("HTTPRoute", "r", "echo", rules);
    world.apply(&[policy.clone(), route.clone()]);
    let statuses = || [&policy, &route].map(|object| world.cluster.get(object).unwrap()["status"].clone());
    let said = || {
        let [of_policy, of_route] = statuses();
        condition(&of_policy["conditions"], "Accepted") == "True/Accepted" && !of_route["parents"].is_null()
    };
    eventually("the leader has said how they stand", SOON, said).unwrap();
    let mut with_another = world.cluster.get(&route).unwrap();
    let mut another = with_another["status"]["parents"][0].clone();
    another["controllerName"] = "a.example/controller".into();
    with_another["status"]["parents"]
        .as_array_mut()
        .unwrap()
        .push(another);
    with_another["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("managedFields");
    world.cluster.apply_status(&with_another).unwrap();
    world.agent.terminate(SOON).unwrap();

    let kubeconfig = world.cluster.arguments().remove(2);
    let cleared = world.agent.cli(&["clear-statuses", "--kubeconfig", &kubeconfig]);
    let said = cleared.unwrap().success().unwrap();
    assert_eq!(said.trim(), "conditions of 2 objects removed");
    let [of_policy, of_route] =
        [&policy, &route].map(|object| world.cluster.get(object).unwrap()["status"].clone());
    assert!(of_policy["conditions"].is_null(), "{of_policy}");
    let left = of_route["parents"].as_array().unwrap();
    assert_eq!(left.len(), 1, "{of_route}");
    assert_eq!(left[0]["controllerName"], "a.example/controller");
}
