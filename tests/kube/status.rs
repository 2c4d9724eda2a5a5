use derny_tests::{eventually, kube::objects};
use serde_json::{Value, json};

use crate::world::{SOON, World};

/// `status/reason` of a condition.
fn condition(conditions: &Value, kind: &str) -> String {
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
        ("echo", "far", "False/RefNotPermitted"),
    ] {
        let route = route(backend(name, namespace));
        world.apply(std::slice::from_ref(&route));
        resolved(&route, expect);
    }
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "derny-status", "namespace": "default"}});
    let lease = world.cluster.get(&lease).unwrap();
    assert!(
        lease["spec"]["holderIdentity"]
            .as_str()
            .is_some_and(|holder| !holder.is_empty()),
        "{lease}"
    );
}
