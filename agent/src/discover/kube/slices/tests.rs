use serde_json::{Value, json};

use super::*;

fn slice(name: &str, ports: Value, endpoints: Value) -> objects::EndpointSlice {
    let object = json!({"metadata": {"name": name}, "ports": ports, "endpoints": endpoints});
    serde_json::from_value(object).unwrap()
}

fn words(slices: &Slices, port: Option<&str>) -> Vec<String> {
    let endpoints = slices.endpoints(port, Place::default()).into_iter();
    endpoints
        .map(|e| match e.zone {
            Some(zone) => format!("{} {} {zone}", e.address, e.state.as_str()),
            None => format!("{} {}", e.address, e.state.as_str()),
        })
        .collect()
}

fn conditions(ready: Option<bool>, serving: Option<bool>, terminating: Option<bool>) -> Value {
    json!({"ready": ready, "serving": serving, "terminating": terminating})
}

#[test]
fn conditions_make_states() {
    let (yes, no) = (Some(true), Some(false));
    let cases = [
        (conditions(None, None, None), "ready"),
        (conditions(yes, yes, no), "ready"),
        // publishNotReadyAddresses
        (conditions(yes, no, yes), "ready"),
        (conditions(no, yes, yes), "terminating"),
        (conditions(no, no, yes), "-"),
        (conditions(no, no, no), "-"),
        (conditions(no, None, None), "-"),
    ];
    for (conditions, expect) in cases {
        let of = serde_json::from_value(conditions.clone()).unwrap();
        assert_eq!(
            state(of).map_or("-", EndpointState::as_str),
            expect,
            "{conditions}"
        );
    }
}

#[test]
fn ports_are_found_by_name_and_slices_are_merged() {
    let ready = conditions(Some(true), None, None);
    let going = conditions(Some(false), Some(true), Some(true));
    let (mut slices, mut zones) = (Slices::default(), Zones::default());
    let ports = json!([{"name": "main", "port": 8080}, {"name": "udp", "port": 53, "protocol": "UDP"}, {"name": "any"}]);
    let one = slice(
        "one",
        ports,
        json!([
            {"addresses": ["10.0.0.2"], "conditions": ready, "zone": "a"},
            {"addresses": ["10.0.0.1"], "conditions": going, "zone": "b"},
            {"addresses": ["db.example"], "conditions": ready},
        ]),
    );
    assert!(slices.set(&one, &mut zones));
    assert!(!slices.set(&one, &mut zones), "the same is no change");
    // Another revision of the pods: another number for the same name; and one that has moved.
    let two = json!([{"addresses": ["10.0.0.1"]}, {"addresses": ["fd00::1"]}]);
    slices.set(
        &slice("two", json!([{"name": "main", "port": 8080}]), two),
        &mut zones,
    );
    slices.set(
        &slice(
            "three",
            json!([{"name": "main", "port": 9090}]),
            json!([{"addresses": ["10.0.0.9"]}]),
        ),
        &mut zones,
    );
    let main = [
        "10.0.0.1:8080 ready b",
        "10.0.0.2:8080 ready a",
        "10.0.0.9:9090 ready",
        "[fd00::1]:8080 ready",
    ];
    assert_eq!(words(&slices, Some("main")), main);
    for none in [Some("udp"), Some("any"), None] {
        assert_eq!(words(&slices, none), [""; 0]);
    }
    let mut again = Slices::default();
    for object in slices.to_objects("demo") {
        again.set(&object, &mut zones);
    }
    assert_eq!(words(&again, Some("main")), main);
    assert!(slices.remove("two") && !slices.remove("two"));
    assert_eq!(words(&slices, Some("main"))[0], "10.0.0.1:8080 terminating b");
}

#[test]
fn hints_keep_callers_in_their_zone_when_all_have_them() {
    let near = |hints: [Value; 3], zone: Option<&str>| {
        let ready = json!({"ready": true});
        let going = json!({"ready": false, "serving": true, "terminating": true});
        let endpoint = |n: usize, conditions: &Value| json!({"addresses": [format!("10.0.0.{n}")], "conditions": conditions, "hints": hints[n - 1]});
        let endpoints = json!([endpoint(1, &ready), endpoint(2, &ready), endpoint(3, &going)]);
        let mut slices = Slices::default();
        let object = slice("s", json!([{"port": 80}]), endpoints);
        slices.set(&object, &mut Zones::default());
        let mut again = Slices::default();
        again.set(&slices.to_objects("demo")[0], &mut Zones::default());
        let last = |of: &Slices| {
            let endpoints = of.endpoints(None, Place { zone, node: None }).into_iter();
            endpoints
                .map(|e| e.address.ip().to_string().pop().unwrap())
                .collect::<String>()
        };
        assert_eq!(last(&slices), last(&again), "as saved");
        last(&slices)
    };
    let of = |zones: &[&str]| json!({"forZones": zones.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()});
    let (a, b, both, none) = (of(&["a"]), of(&["b"]), of(&["a", "b"]), json!(null));
    let cases = [
        ([a.clone(), b.clone(), none.clone()], Some("a"), "13"),
        ([a.clone(), b.clone(), none.clone()], Some("b"), "23"),
        ([a.clone(), both, none.clone()], Some("a"), "123"),
        // Nobody is for that zone; the node has no zone; one has no hint.
        ([a.clone(), b.clone(), none.clone()], Some("c"), "123"),
        ([a.clone(), b.clone(), none.clone()], None, "123"),
        ([a.clone(), none.clone(), none], Some("a"), "123"),
        // Who is going away gets nothing new in any case.
        ([b.clone(), b, a], Some("a"), "123"),
    ];
    for (hints, zone, expect) in cases {
        assert_eq!(near(hints.clone(), zone), expect, "{hints:?} {zone:?}");
    }
}

#[test]
fn the_only_port_may_be_without_a_name() {
    for name in [json!(null), json!("")] {
        let mut slices = Slices::default();
        slices.set(
            &slice(
                "s",
                json!([{"name": name, "port": 1}]),
                json!([{"addresses": ["10.0.0.1"]}]),
            ),
            &mut Zones::default(),
        );
        assert_eq!(words(&slices, None), ["10.0.0.1:1 ready"]);
    }
}

#[test]
fn hints_for_nodes_go_before_those_for_zones() {
    let near = |conditions: [&Value; 2], node: Option<&str>| {
        let hints = |node: &str| json!({"forZones": [{"name": "a"}], "forNodes": [{"name": node}]});
        let endpoint = |n: usize, node: &str| json!({"addresses": [format!("10.0.0.{n}")], "conditions": conditions[n - 1], "hints": hints(node)});
        let mut slices = Slices::default();
        let endpoints = json!([endpoint(1, "n1"), endpoint(2, "n2")]);
        slices.set(
            &slice("s", json!([{"port": 80}]), endpoints),
            &mut Zones::default(),
        );
        let mut again = Slices::default();
        again.set(&slices.to_objects("demo")[0], &mut Zones::default());
        let place = Place {
            zone: Some("a"),
            node,
        };
        assert_eq!(
            slices.endpoints(None, place),
            again.endpoints(None, place),
            "as saved"
        );
        slices.endpoints(None, place).len()
    };
    let (ready, not) = (json!({"ready": true}), json!({"ready": false}));
    assert_eq!(near([&ready, &ready], Some("n1")), 1);
    assert_eq!(near([&ready, &ready], Some("n3")), 2, "nobody is for that node");
    assert_eq!(near([&ready, &ready], None), 2);
    assert_eq!(near([&not, &ready], Some("n1")), 1, "those of the zone");
}

#[test]
fn a_pod_with_addresses_of_both_families_is_one_endpoint() {
    let of = |name: &str, addresses: [&str; 2]| {
        let endpoints: Vec<Value> = addresses
            .iter()
            .zip(["p1", "p2"])
            .map(|(address, pod)| json!({"addresses": [address], "targetRef": {"kind": "Pod", "name": pod}}))
            .collect();
        slice(name, json!([{"name": "main", "port": 80}]), json!(endpoints))
    };
    let mut slices = Slices::default();
    slices.set(&of("v4", ["10.0.0.1", "10.0.0.2"]), &mut Zones::default());
    slices.set(&of("v6", ["fd00::1", "fd00::2"]), &mut Zones::default());
    let mut again = Slices::default();
    for object in slices.to_objects("demo") {
        again.set(&object, &mut Zones::default());
    }
    for slices in [&slices, &again] {
        let endpoints = slices.endpoints(Some("main"), Place::default());
        let words: Vec<String> = (endpoints.iter())
            .map(|e| format!("{} {}", e.address, e.other.unwrap()))
            .collect();
        assert_eq!(words, ["10.0.0.1:80 [fd00::1]:80", "10.0.0.2:80 [fd00::2]:80"]);
    }
    slices.remove("v4");
    let alone = slices.endpoints(Some("main"), Place::default());
    assert_eq!(
        alone
            .iter()
            .map(|e| e.address.is_ipv6() && e.other.is_none())
            .collect::<Vec<_>>(),
        [true; 2]
    );
}

#[test]
fn who_writes_slices_is_known_by_its_label() {
    let check = |labels: Value, expect: bool| {
        let object = json!({"metadata": {"name": "s", "labels": labels}, "endpoints": []});
        let mut slices = Slices::default();
        slices.set(&serde_json::from_value(object).unwrap(), &mut Zones::default());
        assert_eq!(slices.are_foreign(), expect, "{labels}");
        let mut again = Slices::default();
        again.set(&slices.to_objects("demo")[0], &mut Zones::default());
        assert_eq!(again.are_foreign(), expect, "as saved");
    };
    check(json!({}), false);
    for controller in CONTROLLERS {
        check(json!({objects::MANAGED_BY: controller}), false);
    }
    check(
        json!({objects::MANAGED_BY: "lighthouse-agent.submariner.io"}),
        true,
    );
}
