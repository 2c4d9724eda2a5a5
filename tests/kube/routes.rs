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
