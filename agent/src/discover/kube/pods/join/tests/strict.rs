use super::*;

#[test]
fn a_strict_namespaces_pods_are_told_before_their_first_process() {
    let mut node = Node::new();
    node.join
        .namespace(Event::Applied(strict("demo", "enabled", "true")));
    node.apply(pod("a", "u1", ""));
    assert!(node.told().is_empty(), "no control group yet");
    node.stands("u1", Network::NoProcess);
    assert_eq!(node.told(), ["strict a in 1"]);
    node.runs("u1", Some(5));
    assert_eq!(node.told(), ["+a@5"]);
    // The processes end, and the group stays.
    node.stands("u1", Network::NoProcess);
    assert_eq!(node.told(), ["-a"]);
    node.ends("u1");
    assert_eq!(node.told(), ["not strict a"]);
    // The same name in another control group.
    node.stands("u1", Network::NoProcess);
    assert_eq!(node.told(), ["strict a in 1"]);
    node.stands("u2", Network::NoProcess);
    node.apply(pod("a", "u2", ""));
    assert_eq!(node.told(), ["strict a in 2"]);
    node.join.pod(Event::Gone(pod("a", "u2", "")));
    assert_eq!(node.told(), ["not strict a"]);
}

#[test]
fn who_is_left_alone_is_not_strict() {
    let mut node = Node::new();
    node.join
        .namespace(Event::Applied(strict("demo", "enabled", "true")));
    let special = |name: &str, uid: &str, spec: Value, phase: &str| {
        let mut object = json!({"metadata": {"name": name, "namespace": "demo", "uid": uid}, "spec": spec});
        object["status"] = json!({"phase": phase});
        serde_json::from_value::<objects::Pod>(object).unwrap()
    };
    let all = [
        pod("out", "u1", "disabled"),
        special("host", "u2", json!({"hostNetwork": true}), "Running"),
        special("gvisor", "u3", json!({"runtimeClassName": "gvisor"}), "Running"),
        special("finished", "u4", json!({}), "Succeeded"),
    ];
    for (object, uid) in all.into_iter().zip(["u1", "u2", "u3", "u4"]) {
        node.stands(uid, Network::NoProcess);
        node.apply(object);
    }
    assert!(node.told().is_empty());
    // In and out by the pod's own label.
    node.apply(pod("out", "u1", ""));
    assert_eq!(node.told(), ["strict out in 1"]);
    node.apply(pod("out", "u1", "disabled"));
    assert_eq!(node.told(), ["not strict out"]);
}

#[test]
fn strictness_follows_the_namespaces_labels() {
    let mut node = Node::new();
    node.runs("u1", Some(5));
    node.apply(pod("a", "u1", "enabled"));
    let mut check = |object: objects::Namespace, told: &[&str]| {
        node.join.namespace(Event::Applied(object));
        assert_eq!(node.told(), told);
    };
    let enrolled = ["+a@5"];
    check(namespace("demo", "enabled"), &enrolled);
    check(strict("demo", "enabled", "true"), &["strict a in 1"]);
    check(strict("demo", "enabled", "false"), &["not strict a"]);
    // Those that ask for the mesh by themselves are held to it as well.
    check(strict("demo", "disabled", "true"), &["strict a in 1"]);
    check(namespace("demo", "enabled"), &["not strict a"]);
    check(strict("demo", "enabled", "yes"), &[]);
    let notes = node.join.shown(|uid| node.sandboxes.get(uid)).notes;
    let note = notes.values().next().unwrap();
    assert_eq!(
        note,
        "its namespace's label derny.dev/strict: `yes` is neither true nor false"
    );
    node.join
        .namespace(Event::Applied(strict("demo", "enabled", "true")));
    assert_eq!(node.told(), ["strict a in 1"]);
    node.join.namespace(Event::Gone(namespace("demo", "enabled")));
    assert_eq!(node.told(), ["not strict a"], "enrolled by its own label");
}

#[test]
fn a_pod_is_not_strict_before_its_namespace_is_known_and_is_again_from_what_was_saved() {
    let mut node = Node::unlisted();
    node.stands("u1", Network::NoProcess);
    node.apply(pod("a", "u1", ""));
    assert!(node.told().is_empty());
    node.join.namespace(Event::Listing);
    node.join
        .namespace(Event::Applied(strict("demo", "enabled", "true")));
    node.join.namespace(Event::Listed);
    node.join.pod(Event::Listing);
    node.apply(pod("a", "u1", ""));
    node.join.pod(Event::Listed);
    assert_eq!(node.told(), ["strict a in 1"]);

    let mut next = Node::unlisted();
    next.stands("u1", Network::NoProcess);
    next.join.restore(node.join.to_save());
    assert_eq!(next.told(), ["strict a in 1"]);
}
