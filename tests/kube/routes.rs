//! Routes as the Gateway API means them, on real traffic.

use derny_tests::{
    Agent, Pod, Vip, clients, config::PodEntry, eventually, kube::objects, upstream::HTTP_PORT,
};
use serde_json::{Value, json};

use crate::{
    status::condition,
    world::{SOON, World},
};

/// A [`World`] with the services `web` and `other`, which speak HTTP, of the first and the second server.
struct Routed {
    world: World,
    web: Vip,
    other: Vip,
}

impl Routed {
    fn new() -> Self {
        let world = World::new(2, &[]);
        let service = |name: &str, server: &Pod| {
            let vip = world.node.service(name, 80, HTTP_PORT, &[server]).unwrap();
            world.apply(&[
                objects::service(name, &vip.ip().to_string(), "http"),
                objects::slice(
                    name,
                    &format!("{name}-1"),
                    ("http", HTTP_PORT),
                    &objects::ready(&[server]),
                ),
            ]);
            vip
        };
        let web = service("web", &world.servers[0]);
        let other = service("other", &world.servers[1]);
        let this = Self { world, web, other };
        this.answers("server-1", &this.world.client);
        this
    }

    /// Another client, of this namespace.
    fn client_of(&mut self, namespace: &str) -> Pod {
        let pod = self.world.node.pod(&format!("of-{namespace}")).unwrap();
        let mut config = self.world.agent.config().clone();
        config.pods.push(PodEntry {
            namespace: namespace.to_owned(),
            ..config.clone().pod(&pod, "client").pods.remove(1)
        });
        self.world.agent.reload(config).unwrap();
        let enrolled = |agent: &Agent| {
            let pods = agent.cli(&["pods"]).unwrap().success().unwrap();
            pods.lines()
                .any(|line| line.contains(pod.name()) && line.contains("enrolled"))
        };
        eventually("the pod is enrolled", SOON, || enrolled(&self.world.agent)).unwrap();
        pod
    }

    /// What a call of `web` comes to: the server's name, or the status of the failure.
    fn call(&self, from: &Pod, path: &str) -> String {
        let url = self.web.url(path);
        let said = from
            .run(clients::curl(["-w", "\n%{http_code}", &url]))
            .unwrap()
            .stdout;
        let (body, code) = said.trim_end().rsplit_once('\n').unwrap_or(("", &said));
        match serde_json::from_str::<Value>(body) {
            Ok(answer) if code == "200" => answer["endpoint"].as_str().unwrap_or_default().to_owned(),
            _ => code.to_owned(),
        }
    }

    fn answers(&self, whom: &str, from: &Pod) {
        let what = format!("{whom} answers {}", from.name());
        eventually(&what, SOON, || self.call(from, "/") == whom).unwrap();
    }

    /// The condition of our entry for the first parent that is ours, once its message has `word` in it.
    fn is_told(&self, route: &Value, kind: &str, expect: &str, word: &str) {
        let conditions = || {
            let object = self.world.cluster.get(route).unwrap();
            let parents = object["status"]["parents"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let ours = parents
                .iter()
                .find(|parent| parent["controllerName"] == "derny.dev/agent");
            ours.map_or(Value::Null, |parent| parent["conditions"].clone())
        };
        eventually(&format!("{kind} is {expect}"), SOON, || {
            let conditions = conditions();
            condition(&conditions, kind) == expect && conditions.to_string().contains(word)
        })
        .unwrap_or_else(|error| panic!("{error}: {}", conditions()));
    }
}

/// A route of `namespace` on `demo/web`.
fn route(kind: &str, namespace: &str, rules: Value) -> Value {
    let mut route = objects::route(kind, "r", "web", rules);
    route["metadata"]["namespace"] = json!(namespace);
    route["spec"]["parentRefs"][0]["namespace"] = json!("demo");
    route
}

fn backend(name: &str) -> Value {
    json!({"group": "", "kind": "Service", "name": name, "namespace": "demo", "port": 80, "weight": 1})
}

/// GEP-1294, GEP-1686.
#[test]
fn a_consumers_route_counts_for_the_callers_of_its_namespace_and_takes_the_producers_place() {
    let mut routed = Routed::new();
    let consumer = routed.client_of("shop");
    routed.answers("server-1", &consumer);
    // To a backend of another namespace, for which a mesh asks nobody's leave.
    let own = route("HTTPRoute", "shop", json!([{"backendRefs": [backend("other")]}]));
    routed.world.apply(std::slice::from_ref(&own));
    routed.answers("server-2", &consumer);
    assert_eq!(routed.call(&routed.world.client, "/"), "server-1");
    routed.is_told(&own, "Accepted", "True/Accepted", "");
    routed.is_told(&own, "ResolvedRefs", "True/ResolvedRefs", "");

    // The producer's is for everybody else, whatever there is of its kind.
    let nobody = json!([{"matches": [{"path": {"type": "Exact", "value": "/nowhere"}}], "backendRefs": [backend("web")]}]);
    let producer = route("HTTPRoute", "demo", nobody);
    routed.world.apply(std::slice::from_ref(&producer));
    routed.answers("404", &routed.world.client);
    assert_eq!(routed.call(&consumer, "/"), "server-2");
    let explained = |pod: &str| {
        let url = routed.web.url("/");
        let explained = routed
            .world
            .agent
            .cli_json(&["explain", "--from", pod, &url])
            .unwrap();
        explained["outcome"].as_str().unwrap().to_owned()
    };
    let from_shop = explained(&format!("shop/{}", consumer.name()));
    assert_eq!(from_shop, "rule 0 of shop/r sends it to its backends, by weight");
    let from_demo = explained(&format!("demo/{}", routed.world.client.name()));
    assert!(from_demo.starts_with("refused with 404"), "{from_demo}");

    routed.world.cluster.delete(&own).unwrap();
    routed.answers("404", &consumer);
    routed.world.cluster.delete(&producer).unwrap();
    routed.answers("server-1", &consumer);
    routed.answers("server-1", &routed.world.client);
    assert_eq!(routed.other.port(), 80);
}

/// Gateway API, `HTTPBackendRef`: "If multiple backends are specified, and some are invalid, the proportion of requests
/// that would otherwise have been routed to an invalid backend MUST receive a 500 status code."
#[test]
fn a_backend_of_another_kind_answers_500_to_its_share_and_no_more() {
    let routed = Routed::new();
    let bucket = json!({"group": "storage.example", "kind": "Bucket", "name": "files", "weight": 1});
    let split = route(
        "HTTPRoute",
        "demo",
        json!([
            {"matches": [{"path": {"type": "Exact", "value": "/other"}}], "backendRefs": [backend("other")]},
            {"backendRefs": [bucket, backend("web")]},
        ]),
    );
    routed.world.apply(std::slice::from_ref(&split));
    eventually("the rule beside it is in force", SOON, || {
        routed.call(&routed.world.client, "/other") == "server-2"
    })
    .unwrap();
    routed.is_told(&split, "Accepted", "True/Accepted", "");
    routed.is_told(
        &split,
        "ResolvedRefs",
        "False/InvalidKind",
        "Bucket.storage.example",
    );
    let calls: Vec<String> = (0..60).map(|_| routed.call(&routed.world.client, "/")).collect();
    let of = |what: &str| calls.iter().filter(|call| *call == what).count();
    assert_eq!(of("500") + of("server-1"), 60, "{calls:?}");
    // Six standard deviations.
    assert!((7..=53).contains(&of("500")), "{calls:?}");
    let line = routed
        .world
        .agent
        .access_line("a refusal", |line| line["code"] == 500)
        .unwrap();
    assert_eq!(
        (&line["flags"], &line["route"]),
        (&json!("NR"), &json!("demo/r")),
        "{line}"
    );
    let from = format!("demo/{}", routed.world.client.name());
    let explained = ["explain", "--from", &from, &routed.web.url("/")];
    let explained = routed.world.agent.cli(&explained).unwrap().success().unwrap();
    assert!(
        explained.contains("demo/files is a Bucket.storage.example, and no Service"),
        "{explained}"
    );
}

/// Gateway API, `RouteConditionPartiallyInvalid`.
#[test]
fn a_rule_with_a_fault_leaves_the_others_in_force() {
    let routed = Routed::new();
    let exact = |path: &str| json!([{"path": {"type": "Exact", "value": path}}]);
    let pattern = json!([{"path": {"type": "RegularExpression", "value": "/("}}]);
    let extension =
        json!({"type": "ExtensionRef", "extensionRef": {"group": "x.example", "kind": "Auth", "name": "a"}});
    let rules = |with_faults: bool| {
        let mut rules = json!([
            {"matches": exact("/other"), "backendRefs": [backend("other")]},
            {"backendRefs": [backend("web")]},
        ]);
        if with_faults {
            let rules = rules.as_array_mut().unwrap();
            rules.push(json!({"matches": pattern, "backendRefs": [backend("other")]}));
            rules.push(json!({"matches": exact("/guarded"), "filters": [extension], "backendRefs": [backend("web")]}));
        }
        rules
    };
    let newest = route("HTTPRoute", "demo", rules(true));
    routed.world.apply(std::slice::from_ref(&newest));
    let calls = |path: &str, expect: &str| {
        eventually(&format!("{expect} answers {path}"), SOON, || {
            routed.call(&routed.world.client, path) == expect
        })
        .unwrap();
    };
    calls("/other", "server-2");
    calls("/(", "server-1");
    // What the filter would have done is not left out.
    calls("/guarded", "500");
    routed.is_told(&newest, "Accepted", "True/Accepted", "");
    routed.is_told(&newest, "ResolvedRefs", "True/ResolvedRefs", "");
    routed.is_told(
        &newest,
        "PartiallyInvalid",
        "True/UnsupportedValue",
        "Dropped Rule 2",
    );
    let status = routed.world.agent.cli(&["status"]).unwrap().success().unwrap();
    assert!(
        status.contains("httproutes demo/r is in force in part"),
        "{status}"
    );

    // Without faults, and with them again: now there is a last good version.
    let good = route("HTTPRoute", "demo", rules(false));
    routed.world.apply(std::slice::from_ref(&good));
    calls("/guarded", "server-1");
    routed.is_told(&good, "PartiallyInvalid", "", "");
    routed.world.apply(std::slice::from_ref(&newest));
    routed.is_told(&newest, "PartiallyInvalid", "True/UnsupportedValue", "Fall Back");
    calls("/guarded", "server-1");
    calls("/other", "server-2");
    let object = routed.world.cluster.get(&newest).unwrap();
    let conditions = object["status"]["parents"][0]["conditions"].as_array().unwrap();
    let observed = |kind: &str| {
        let of = conditions
            .iter()
            .find(|condition| condition["type"] == kind)
            .unwrap();
        of["observedGeneration"].as_i64().unwrap()
    };
    assert!(
        observed("Accepted") < observed("PartiallyInvalid"),
        "{conditions:?}"
    );
}

/// Lets the server keep a rule's `retry`, which the definition of the experimental channel has.
fn define_retries(world: &World) {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "httproutes.gateway.networking.k8s.io"},
    });
    let had = world.cluster.get(&definition).unwrap();
    let mut wanted = json!({
        "apiVersion": had["apiVersion"], "kind": had["kind"], "spec": had["spec"],
        "metadata": {"name": had["metadata"]["name"], "annotations": had["metadata"]["annotations"]},
    });
    let rule = "/schema/openAPIV3Schema/properties/spec/properties/rules/items/properties";
    for version in wanted["spec"]["versions"].as_array_mut().unwrap() {
        if let Some(fields) = version.pointer_mut(rule) {
            fields["retry"] = json!({"type": "object", "properties": {
                "attempts": {"type": "integer"}, "backoff": {"type": "string"},
                "codes": {"type": "array", "items": {"type": "integer"}},
            }});
        }
    }
    world.apply(&[wanted]);
}

/// GEP-1731.
#[test]
fn a_rules_retry_is_followed() {
    let mut routed = Routed::new();
    define_retries(&routed.world);
    let retry = json!({"attempts": 1, "codes": [500], "backoff": "300ms"});
    let retried = route(
        "HTTPRoute",
        "demo",
        json!([{"backendRefs": [backend("web")], "retry": retry}]),
    );
    eventually("the server keeps it", SOON, || {
        let taken = routed.world.cluster.apply(std::slice::from_ref(&retried)).is_ok();
        taken && routed.world.cluster.get(&retried).unwrap()["spec"]["rules"][0]["retry"] == retry
    })
    .unwrap();
    // A watch from before goes on without the field for a while.
    routed.world.agent.kill9().unwrap();
    routed.world.agent.start_again().unwrap();
    let from = format!("demo/{}", routed.world.client.name());
    let policy = || {
        let explained = ["explain", "--from", &from, &routed.web.url("/")];
        routed.world.agent.cli_json(&explained).unwrap()["policy"].to_string()
    };
    eventually("it is in force", SOON, || {
        policy().contains("rule retry.attempts")
    })
    .unwrap_or_else(|error| panic!("{error}: {}", policy()));
    for (path, code) in [("/status/500", "500"), ("/reset", "503")] {
        assert_eq!(routed.call(&routed.world.client, path), code);
        let line = (routed.world.agent)
            .access_line(path, |line| line["path"] == path)
            .unwrap();
        let took = line["duration_ms"].as_f64().unwrap();
        assert!(line["attempts"] == 2 && took >= 300.0, "{line}");
    }
}
