use std::{collections::BTreeSet, time::Duration};

use derny::discover::kube::{RIGHTS, Right};
use derny_tests::{
    Agent, AgentOptions, Config, Node, eventually,
    kube::{Cluster, objects},
};
use serde_json::{Value, json};

use crate::rendered::{find, kustomize};

/// Group, resource, verb, and whether in the agent's own namespace only.
type Granted = (String, String, String, bool);

/// What a role's rules come to, one by one.
fn granted(role: &Value) -> BTreeSet<Granted> {
    let words = |value: &Value| -> Vec<String> {
        let words = value.as_array().unwrap().iter();
        words.map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let mut all = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                for verb in words(&rule["verbs"]) {
                    let one = (group.clone(), resource.clone(), verb, role["kind"] == "Role");
                    assert!(all.insert(one.clone()), "granted twice: {one:?}");
                }
            }
        }
    }
    all
}

#[test]
fn the_roles_grant_what_the_agent_asks_and_nothing_else() {
    let base = kustomize("kustomize/base");
    let mut roles = granted(find(&base, "ClusterRole", "derny"));
    roles.extend(granted(find(&base, "Role", "derny")));
    let asked: BTreeSet<Granted> = RIGHTS
        .iter()
        .flat_map(|right| {
            let one = |verb: &&str| {
                let (group, resource) = (right.group.to_owned(), right.resource.to_owned());
                (group, resource, (*verb).to_owned(), right.in_own_namespace)
            };
            right.verbs.iter().map(one).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(roles, asked);
    let lease = &find(&base, "Role", "derny")["rules"][0];
    assert_eq!(lease["resourceNames"], json!(["derny-status"]));
}

/// The lease is renewed every five seconds.
const RENEWED: Duration = Duration::from_secs(60);

#[test]
fn an_agent_asks_for_all_of_its_rights_and_for_no_more() {
    let node = Node::new().unwrap();
    let cluster = Cluster::start(&node).unwrap();
    let route = |kind, service| {
        let patterns =
            ["/a.*", "/b.*"].map(|value| json!({"path": {"type": "RegularExpression", "value": value}}));
        let mut rules = json!([{"backendRefs": [{"name": "odds", "port": 80}]}]);
        if kind == "HTTPRoute" {
            rules[0]["matches"] = json!(patterns);
        }
        objects::route(kind, service, service, rules)
    };
    let own = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1", "labels": {}}});
    cluster
        .apply(&[
            own,
            objects::service("odds", "10.96.9.9", "grpc"),
            objects::service("bets", "10.96.9.10", "grpc"),
            objects::slice("odds", "odds-1", ("grpc", 8080), &[]),
            objects::policy("odds", "odds", json!({"timeouts": {"request": "2s"}})),
            route("HTTPRoute", "odds"),
            route("GRPCRoute", "bets"),
        ])
        .unwrap();
    let client = node.pod("client").unwrap();
    let mut options = AgentOptions::new(Config::default().pod(&client, "client"));
    options.arguments = cluster.arguments();
    options
        .arguments
        .extend(["--node-name", "node-1"].map(str::to_owned));
    // What is refused to a namespace is said by an Event.
    options
        .arguments
        .extend(["--max-route-patterns", "1"].map(str::to_owned));
    let agent = Agent::start(&node, options).unwrap();
    // Whose endpoints are asked for, a pod has to dial.
    let dial = || {
        client
            .run(derny_tests::clients::curl(["http://10.96.9.9/"]))
            .unwrap()
    };

    let mut missing = BTreeSet::new();
    let asked = eventually("all is asked for", RENEWED, || {
        dial();
        let metrics = agent.metrics().unwrap();
        missing = RIGHTS
            .iter()
            .flat_map(|right| right.verbs.iter().map(move |verb| (right.resource, *verb)))
            .filter(|(resource, verb)| {
                let kind = resource.trim_end_matches("/status");
                metrics.sum("derny_kube_requests_total", &[("resource", kind), ("verb", verb)]) == 0.0
            })
            .collect();
        missing.is_empty()
    });
    asked.unwrap_or_else(|error| panic!("{error:#}: never asked: {missing:?}"));

    let metrics = agent.metrics().unwrap();
    for sample in metrics.matching("derny_kube_requests_total", &[]) {
        let (resource, verb) = (&sample.labels["resource"], &sample.labels["verb"]);
        let of_kind = |right: &Right| right.resource.trim_end_matches("/status") == resource;
        let may = RIGHTS
            .iter()
            .any(|right| of_kind(right) && right.verbs.contains(&verb.as_str()));
        assert!(may, "no right to {verb} {resource}");
    }
}
