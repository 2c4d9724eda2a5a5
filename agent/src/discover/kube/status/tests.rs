use super::*;

fn verdict(parents: Vec<(Value, Vec<Condition>)>) -> Verdict {
    Verdict {
        of: TrafficPolicy::OF,
        object: ObjectName {
            namespace: "demo".into(),
            name: "p".into(),
        },
        generation: Some(3),
        parents,
    }
}

#[test]
fn a_condition_keeps_its_time_until_it_turns() {
    let good = verdict(vec![(
        Value::Null,
        vec![condition("Accepted", Holds::True, "Accepted", "")],
    )]);
    let first = good.merge(&Value::Null, "1").unwrap();
    assert_eq!(first["conditions"][0]["lastTransitionTime"], "1");
    assert_eq!(first["conditions"][0]["observedGeneration"], 3);
    assert_eq!(good.merge(&first, "2"), None);
    let bad = verdict(vec![(
        Value::Null,
        vec![condition("Accepted", Holds::False, "Invalid", "x")],
    )]);
    let second = bad.merge(&first, "3").unwrap();
    assert_eq!(second["conditions"][0]["lastTransitionTime"], "3");
    let other = verdict(vec![(
        Value::Null,
        vec![condition("Accepted", Holds::False, "Invalid", "y")],
    )]);
    let third = other.merge(&second, "4").unwrap();
    assert_eq!(
        third["conditions"][0]["lastTransitionTime"], "3",
        "another message is no turn"
    );
}

#[test]
fn entries_of_others_stay_in_a_routes_status() {
    let gateway =
        json!({"controllerName": "example.com/gateway", "parentRef": {"name": "g"}, "conditions": []});
    let gone = json!({"controllerName": CONTROLLER, "parentRef": {"name": "old"}, "conditions": []});
    let parent = json!({"kind": "Service", "name": "echo"});
    let of = verdict(vec![(
        parent.clone(),
        vec![condition("Accepted", Holds::True, "Accepted", "")],
    )]);
    let next = of.merge(&json!({"parents": [gone, gateway]}), "1").unwrap();
    assert_eq!(next["parents"][0], gateway);
    assert_eq!(next["parents"][1]["parentRef"], parent);
    assert_eq!(next["parents"].as_array().unwrap().len(), 2);
    assert_eq!(of.merge(&next, "2"), None);
}
