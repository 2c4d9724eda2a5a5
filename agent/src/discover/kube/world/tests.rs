mod saved;

use serde_json::{Value, json};

use super::*;
use crate::{
    discover::kube::shares::{RawRoute, Shares},
    model::{Endpoints, PatternShare, ServicePort, Update},
};

/// A world that has listed all kinds, with what is told of it.
#[derive(Default)]
struct Told {
    world: World,
    shown: BTreeMap<ServiceName, Arc<Service>>,
}

fn name(text: &str) -> ServiceName {
    let (namespace, name) = text.split_once('/').unwrap_or(("demo", text));
    ServiceName {
        namespace: namespace.into(),
        name: name.into(),
    }
}

fn object<T: serde::de::DeserializeOwned>(at: &str, created: u8, spec: Value) -> T {
    let name = name(at);
    serde_json::from_value(json!({
        "metadata": {
            "namespace": &*name.namespace, "name": &*name.name,
            "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z"),
        },
        "spec": spec,
    }))
    .unwrap()
}

fn service(at: &str, ip: &str) -> Event<objects::Service> {
    let ports = json!([{"port": 80, "name": "http"}, {"port": 90, "name": "tcp-x"}]);
    Event::Applied(object(at, 0, json!({"clusterIPs": [ip], "ports": ports})))
}

fn policy(at: &str, created: u8, target: Value, algorithm: &str) -> Event<objects::TrafficPolicy> {
    let spec = json!({"targetRefs": [target], "loadBalancer": {"algorithm": algorithm}});
    Event::Applied(object(at, created, spec))
}

fn route(at: &str, parent: Value, backend: Value) -> Value {
    let spec = json!({"parentRefs": [parent], "rules": [{"backendRefs": [backend]}]});
    serde_json::to_value(object::<objects::HttpRoute>(at, 0, spec)).unwrap()
}

fn slice(slice: &str, ips: &[&str]) -> Event<objects::EndpointSlice> {
    let endpoints: Vec<Value> = ips.iter().map(|ip| json!({"addresses": [ip]})).collect();
    let object = json!({"metadata": {"name": slice}, "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}]});
    Event::Applied(serde_json::from_value(object).unwrap())
}

impl Told {
    fn new() -> Self {
        let mut told = Self::default();
        let world = &mut told.world;
        world.service(Event::Listing);
        world.service(Event::Listed);
        world.policy(Event::Absent);
        world.route((RouteKind::Http, Event::Absent));
        world.route((RouteKind::Grpc, Event::Absent));
        assert!(told.world.is_whole());
        told
    }

    fn route(&mut self, kind: RouteKind, object: Value) {
        let raw = RawRoute {
            kind,
            metadata: serde_json::from_value(object["metadata"].clone()).unwrap(),
            spec: object["spec"].clone(),
        };
        let mut shares = Shares::new(PatternShare::UNLIMITED);
        let told = shares.take(kind, Event::Applied(raw));
        told.into_iter().for_each(|told| self.world.route(told));
    }

    /// What changed, as `name` and `-name`.
    fn changes(&mut self) -> Vec<String> {
        let changes = self.world.changes().into_iter();
        changes
            .map(|update| match update {
                Update::Service(service) => {
                    let text = service.name.name.to_string();
                    self.shown.insert(service.name.clone(), service);
                    text
                }
                Update::ServiceGone(name) => {
                    self.shown.remove(&name);
                    format!("-{}", name.name)
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn port(&mut self, of: &str, number: u16) -> Arc<ServicePort> {
        self.changes();
        let service = &self.shown[&name(of)];
        service
            .ports
            .iter()
            .find(|p| p.name.port == number)
            .unwrap()
            .clone()
    }

    fn endpoints(&mut self, of: &str) -> String {
        match &self.port(of, 80).endpoints {
            Endpoints::Unknown { instead } => format!("unknown, else {}", instead.as_ref().unwrap().address),
            Endpoints::LeftToNode { instead, why } => format!("{}: {why}", instead.address),
            Endpoints::Known(known) => {
                let words: Vec<String> = known.iter().map(|e| e.address.to_string()).collect();
                words.join(" ")
            }
        }
    }
}

#[test]
fn endpoints_are_known_when_their_list_was_whole() {
    let mut told = Told::new();
    told.world.service(service("echo", "10.96.0.1"));
    assert_eq!(told.changes(), ["echo"]);
    assert_eq!(told.endpoints("echo"), "unknown, else 10.96.0.1:80");
    let echo = name("echo");
    // Not watched: not taken.
    told.world.slice(&echo, slice("a", &["10.0.0.9"]));
    assert_eq!(told.changes(), [""; 0]);
    told.world.watch_endpoints(&echo);
    told.world.slice(&echo, Event::Listing);
    told.world.slice(&echo, slice("a", &["10.0.0.1"]));
    assert_eq!(
        told.changes(),
        [""; 0],
        "half a list would pass for a loss of endpoints"
    );
    told.world.slice(&echo, slice("b", &["10.0.0.2"]));
    told.world.slice(&echo, Event::Listed);
    assert_eq!(told.endpoints("echo"), "10.0.0.1:8080 10.0.0.2:8080");
    // Listed anew: what is gone goes with the end of the list and not before.
    told.world.slice(&echo, Event::Listing);
    told.world.slice(&echo, slice("b", &["10.0.0.2", "10.0.0.3"]));
    assert_eq!(
        told.endpoints("echo"),
        "10.0.0.1:8080 10.0.0.2:8080 10.0.0.3:8080"
    );
    told.world.slice(&echo, Event::Listed);
    assert_eq!(told.endpoints("echo"), "10.0.0.2:8080 10.0.0.3:8080");
    // All gone is known, too: then whoever else serves the address may answer.
    told.world.slice(&echo, Event::Listing);
    told.world.slice(&echo, Event::Listed);
    assert_eq!(
        told.endpoints("echo"),
        "10.96.0.1:80: no endpoint is known: the node decides whether somebody answers"
    );
    told.world.forget_endpoints(&echo);
    assert_eq!(told.endpoints("echo"), "unknown, else 10.96.0.1:80");
}

#[test]
fn services_come_change_and_go() {
    let mut told = Told::new();
    told.world.service(service("a", "10.96.0.1"));
    told.world.service(service("b", "10.96.0.2"));
    assert_eq!(told.changes(), ["a", "b"]);
    told.world.service(service("a", "10.96.0.1"));
    assert_eq!(told.changes(), [""; 0], "the same is no change");
    told.world.service(service("a", "10.96.0.9"));
    assert_eq!(told.changes(), ["a"]);
    // A list without it.
    told.world.service(Event::Listing);
    told.world.service(service("b", "10.96.0.2"));
    told.world.service(Event::Listed);
    assert_eq!(told.changes(), ["-a"]);
    // It becomes another name.
    let external = json!({"type": "ExternalName", "externalName": "b.example"});
    told.world.service(Event::Applied(object("b", 0, external)));
    assert_eq!(told.changes(), ["-b"]);
    // Its calls are to stay on their node.
    told.world.service(service("b", "10.96.0.2"));
    assert_eq!(told.changes(), ["b"]);
    let mut local = serde_json::to_value(told.world.services[&name("b")].to_object()).unwrap();
    local["spec"]["internalTrafficPolicy"] = json!("Local");
    told.world
        .service(Event::Applied(serde_json::from_value(local).unwrap()));
    assert_eq!(told.changes(), ["-b"]);
    let kept = &told.world.services[&name("b")];
    assert_eq!(
        Declared::from_object(&kept.to_object()).as_ref(),
        Some(kept),
        "saved and read again"
    );
}

#[test]
fn a_service_of_the_file_is_the_files() {
    let mut told = Told::new();
    told.world.service(service("a", "10.96.0.1"));
    told.changes();
    told.world.taken(Arc::new(BTreeSet::from([name("a")])));
    assert_eq!(
        told.changes(),
        [""; 0],
        "to withdraw it would withdraw the file's"
    );
    told.world.service(service("a", "10.96.0.2"));
    assert_eq!(told.changes(), [""; 0]);
    told.world.taken(Arc::default());
    assert_eq!(told.changes(), ["a"]);
}

#[test]
fn the_oldest_policy_counts_and_a_ports_own_before_all() {
    let mut told = Told::new();
    told.world.service(service("echo", "10.96.0.1"));
    let whole = json!({"kind": "Service", "name": "echo"});
    let own = json!({"kind": "Service", "name": "echo", "sectionName": "http"});
    let mut check = |event: Option<Event<objects::TrafficPolicy>>, expect: [&str; 2]| {
        if let Some(event) = event {
            told.world.policy(event);
        }
        let of = [80, 90].map(|port| told.port("echo", port).policy.load_balancer.algorithm.as_str());
        assert_eq!(of, expect);
    };
    check(None, ["peakEwma", "peakEwma"]);
    check(
        Some(policy("b", 5, whole.clone(), "random")),
        ["random", "random"],
    );
    check(
        Some(policy("c", 6, whole.clone(), "roundRobin")),
        ["random", "random"],
    );
    check(
        Some(policy("a", 5, whole.clone(), "leastRequest")),
        ["leastRequest", "leastRequest"],
    );
    check(
        Some(policy("d", 9, own, "roundRobin")),
        ["roundRobin", "leastRequest"],
    );
    // A fault: the last good version stays, of this object and of all others.
    check(
        Some(policy("a", 5, whole.clone(), "fastest")),
        ["roundRobin", "leastRequest"],
    );
    check(
        Some(policy("new", 1, whole, "fastest")),
        ["roundRobin", "leastRequest"],
    );
    let faults: Vec<_> = told
        .world
        .policies
        .all()
        .filter(|(_, e)| e.fault.is_some())
        .collect();
    let standing: Vec<_> = faults
        .iter()
        .map(|(name, e)| (name.to_string(), e.good.is_some()))
        .collect();
    assert_eq!(
        standing,
        [("demo/a".to_owned(), true), ("demo/new".to_owned(), false)]
    );
}

#[test]
fn routes_are_given_to_the_ports_that_they_name() {
    let mut told = Told::new();
    told.world.service(service("echo", "10.96.0.1"));
    let parent = |more: Value| {
        let mut parent = json!({"group": "", "kind": "Service", "name": "echo"});
        parent
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        parent
    };
    let near = json!({"name": "other", "port": 80});
    let mut check = |more: Value, expect: [usize; 2]| {
        told.route(RouteKind::Http, route("r", parent(more), near.clone()));
        assert_eq!([80, 90].map(|port| told.port("echo", port).routes.len()), expect);
        let said = &crate::discover::kube::status::verdicts(&told.world)[0].parents[0].1[0];
        let counts = said.reason == "Accepted";
        assert_eq!(counts, expect != [0, 0], "{said:?}");
    };
    // Port 90 carries opaque bytes.
    check(json!({}), [1, 0]);
    check(json!({"port": 90}), [0, 0]);
    check(json!({"port": 80}), [1, 0]);
    check(json!({"sectionName": "tcp-x"}), [0, 0]);
    check(json!({"sectionName": "http", "port": 80}), [1, 0]);
    // GRPCRoutes alone, though the HTTPRoute is first by name; and it is told so.
    told.route(RouteKind::Grpc, route("s", parent(json!({})), near));
    let kinds: Vec<RouteKind> = told.port("echo", 80).routes.iter().map(|r| r.kind).collect();
    assert_eq!(kinds, [RouteKind::Grpc]);
    let mut reasons: Vec<&str> = Vec::new();
    for verdict in crate::discover::kube::status::verdicts(&told.world) {
        reasons.extend(verdict.parents.iter().map(|(_, conditions)| conditions[0].reason));
    }
    assert_eq!(
        reasons,
        ["Conflicted", "Accepted"],
        "the HTTPRoute, the GRPCRoute"
    );
}

#[test]
fn a_consumers_route_is_for_callers_of_its_namespace() {
    let mut told = Told::new();
    for name in ["echo", "other"] {
        told.world.service(service(name, "10.96.0.1"));
    }
    let parent = json!({"group": "", "kind": "Service", "name": "echo", "namespace": "demo"});
    let backend = |name: &str| json!({"name": name, "namespace": "demo", "port": 80});
    told.route(
        RouteKind::Grpc,
        route("producer", parent.clone(), backend("echo")),
    );
    told.route(RouteKind::Http, route("web/consumer", parent, backend("other")));
    let port = told.port("echo", 80);
    let of = |namespace: &str| {
        let routes = port.routes_for(namespace);
        routes
            .iter()
            .map(|route| route.name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        [of("web"), of("demo"), of("else")],
        [["consumer"], ["producer"], ["producer"]]
    );
    for verdict in crate::discover::kube::status::verdicts(&told.world) {
        let (_, conditions) = &verdict.parents[0];
        let reasons: Vec<&str> = conditions.iter().map(|condition| condition.reason).collect();
        assert_eq!(reasons, ["Accepted", "ResolvedRefs"], "{}", verdict.object);
    }
}

#[test]
fn what_is_wanted_follows_use_routes_and_headless_services() {
    let mut told = Told::new();
    for (service_name, ip) in [
        ("echo", "10.96.0.1"),
        ("other", "10.96.0.2"),
        ("idle", "10.96.0.3"),
        ("beta", "10.96.0.4"),
        ("quiet-only", "10.96.0.5"),
    ] {
        told.world.service(service(service_name, ip));
    }
    let headless = json!({"clusterIP": "None", "ports": [{"port": 80}]});
    told.world
        .service(Event::Applied(object("db", 0, headless.clone())));
    told.world.service(Event::Applied(object("quiet", 0, headless)));
    told.world
        .policy(policy("p", 0, json!({"kind": "Service", "name": "db"}), "random"));
    let parent = json!({"group": "", "kind": "Service", "name": "echo"});
    let backend = json!({"name": "other", "port": 80});
    told.route(RouteKind::Http, route("r", parent, backend));
    // Of a consumer, whose namespace does not call the service, and of one that does.
    for (by, to) in [("quiet", "quiet-only"), ("web", "beta")] {
        let parent = json!({"group": "", "kind": "Service", "name": "echo", "namespace": "demo"});
        let far = json!({"name": to, "namespace": "demo", "port": 80});
        told.route(RouteKind::Http, route(&format!("{by}/r"), parent, far));
    }
    let check = |used: &[&str], expect: &[&str]| {
        let used = used
            .iter()
            .map(|used| (name(used), BTreeSet::from(["web".into()])))
            .collect();
        let wanted = told.world.wanted(used);
        let words: Vec<&str> = wanted.keys().map(|name| &*name.name).collect();
        assert_eq!(words, expect);
    };
    check(&[], &["db"]);
    check(&["echo"], &["beta", "db", "echo", "other"]);
    check(&["idle", "nobody"], &["db", "idle"]);
}
