//! Clusters and listeners → services, policies and routes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    NoteKind,
    cluster::{self, Cluster},
    listener::{self, Listener, VirtualHost},
    names::{Named, Names, kubernetes},
    reading::Node,
    route::Route,
    write::{Objects, Port},
};

/// Everything that the document's clusters and listeners stand for.
pub(super) fn assemble(clusters: &[Node<'_>], listeners: &[Node<'_>], namespace: &str) -> Objects {
    let mut assembly = Assembly {
        namespace,
        names: Names::default(),
        route_names: Names::default(),
        clusters: Vec::new(),
        objects: Objects::default(),
        retried: BTreeMap::new(),
    };
    for node in clusters {
        assembly.cluster(node);
    }
    for node in listeners {
        let listener = listener::read(node);
        for cluster in &listener.relayed {
            assembly.relay(cluster);
        }
        for host in &listener.hosts {
            assembly.virtual_host(host, &listener);
        }
    }
    assembly.finish()
}

struct Assembly<'n> {
    namespace: &'n str,
    names: Names,
    route_names: Names,
    clusters: Vec<Cluster>,
    objects: Objects,
    /// By a cluster's place: the `retry` that its policy has from a route.
    retried: BTreeMap<usize, Map<String, Value>>,
}

impl Assembly<'_> {
    fn cluster(&mut self, node: &Node<'_>) {
        let Some(cluster) = cluster::read(node, &mut self.names, self.namespace) else {
            return;
        };
        let same = |known: &Cluster| known.service == cluster.service && known.port == cluster.port;
        if self.clusters.iter().any(same) {
            node.remark(
                NoteKind::Differs,
                "another cluster stands for the same service and port, and its policy counts",
            );
        }
        self.clusters.push(cluster);
    }

    /// The place of a cluster, by Envoy's name.
    fn find(&self, name: &str) -> Option<usize> {
        self.clusters.iter().position(|cluster| cluster.name == name)
    }

    /// A cluster behind a TCP proxy.
    fn relay(&mut self, name: &Node<'_>) {
        match name.text().and_then(|name| self.find(name)) {
            Some(place) => self.clusters[place].protocol = "tcp",
            None => name.note(NoteKind::Missing, "there is no such cluster"),
        }
    }

    fn virtual_host(&mut self, host: &VirtualHost<'_>, listener: &Listener<'_>) {
        if let [only] = host.routes.as_slice()
            && only.is_plain()
            && let Some(place) = only
                .backends
                .first()
                .and_then(|backend| self.find(backend.cluster))
        {
            self.plain(place, only, host, listener);
            return;
        }
        if host.routes.is_empty() {
            return;
        }
        overtaken(&host.routes);
        let rules: Vec<Value> = host
            .routes
            .iter()
            .filter_map(|route| self.rule(route, listener))
            .collect();
        if rules.is_empty() {
            return;
        }
        let (parent, port) = self.parent(host, listener);
        let mut parent_ref = json!({"kind": "Service", "name": parent.name});
        if let Some(port) = port {
            parent_ref["port"] = json!(port);
        }
        let name = self.route_names.take(host.name, &parent.namespace).name;
        self.objects.routes.push(json!({
            "kind": "HTTPRoute",
            "name": name,
            "namespace": parent.namespace,
            "parentRefs": [parent_ref],
            "rules": rules,
        }));
    }

    /// All that the host gets goes to one service: its policy says how.
    fn plain(&mut self, place: usize, route: &Route<'_>, host: &VirtualHost<'_>, listener: &Listener<'_>) {
        if self.clusters[place].is_tls() {
            route.node.note(NoteKind::NoEquivalent, IN_TLS);
            return;
        }
        self.used(place, route, listener);
        let mut timeouts = Map::new();
        cluster::put(&mut timeouts, "request", route.request.clone());
        cluster::put(
            &mut timeouts,
            "perTry",
            route.retry.as_ref().and_then(|retry| retry.per_try.clone()),
        );
        let cluster = &mut self.clusters[place];
        merge(&mut cluster.policy, "timeouts", timeouts);
        let service = cluster.service.clone();
        let others: Vec<&str> = host
            .named_domains()
            .filter(|domain| kubernetes(domain, self.namespace).as_ref() != Some(&service))
            .collect();
        if !others.is_empty() {
            host.missing(format!(
                "callers dialled {}: they dial {}/{} now",
                others.join(", "),
                service.namespace,
                service.name
            ));
        }
    }

    /// The service whose callers the host's routes are for, and its port; `None` for all that it has.
    fn parent(&mut self, host: &VirtualHost<'_>, listener: &Listener<'_>) -> (Named, Option<u64>) {
        // Nothing else has such names.
        let says_service = host.named_domains().any(|domain| domain.contains(".svc"));
        let named: Vec<Named> = host
            .named_domains()
            .filter_map(|domain| kubernetes(domain, self.namespace))
            .collect();
        let known = self
            .clusters
            .iter()
            .find(|cluster| named.contains(&cluster.service));
        if let Some(cluster) = known {
            return (cluster.service.clone(), Some(cluster.port));
        }
        let parent = match named.into_iter().next() {
            Some(named) => self.names.share(named),
            None => self.names.take(host.name, self.namespace),
        };
        let own = listener.ip.filter(|ip| !ip.is_unspecified() && !ip.is_loopback());
        let addresses: Vec<String> = own.iter().map(ToString::to_string).collect();
        if says_service {
            host.missing(format!(
                "callers dialled the listener's port {}: they dial {}/{} now, at its own port",
                listener.port, parent.namespace, parent.name
            ));
        } else if addresses.is_empty() {
            host.missing(format!(
                "callers dialled the listener's port {}: give the service {}/{} an address that they dial instead",
                listener.port, parent.namespace, parent.name
            ));
        }
        let service = self
            .objects
            .services
            .entry((parent.namespace.clone(), parent.name.clone()));
        let service = service.or_default();
        host.node.path().clone_into(&mut service.at);
        service.addresses = addresses;
        service.is_of_kubernetes |= says_service;
        let port = Port {
            protocol: "http",
            ..Port::default()
        };
        service.ports.entry(listener.port).or_insert(port);
        (parent, (!says_service).then_some(listener.port))
    }

    /// `None` when a backend is not there.
    fn rule(&mut self, route: &Route<'_>, listener: &Listener<'_>) -> Option<Value> {
        let mut rule = Map::new();
        rule.insert("matches".to_owned(), json!([route.matching.written]));
        let mut filters = route.filters.clone();
        let mut refs = Vec::new();
        let mut own_retry = None;
        for backend in &route.backends {
            let Some(place) = self.find(backend.cluster) else {
                let said = format!("there is no cluster {}: the route is left out", backend.cluster);
                route.node.note(NoteKind::Missing, said);
                return None;
            };
            if self.clusters[place].is_tls() {
                route.node.note(NoteKind::NoEquivalent, IN_TLS);
                return None;
            }
            own_retry = self.used(place, route, listener).or(own_retry);
            let mut reference = self.reference(place);
            if let Some(weight) = backend.weight {
                reference["weight"] = json!(weight);
            }
            if !backend.filters.is_empty() {
                reference["filters"] = json!(backend.filters);
            }
            refs.push(reference);
        }
        for mirror in &route.mirrors {
            let Some(place) = self.find(mirror.cluster) else {
                mirror.node.note(NoteKind::Missing, "there is no such cluster");
                continue;
            };
            let mut copy = json!({"backendRef": self.reference(place)});
            if let Some((numerator, denominator)) = mirror.fraction {
                copy["fraction"] = json!({"numerator": numerator, "denominator": denominator});
            }
            filters.push(json!({"type": "RequestMirror", "requestMirror": copy}));
        }
        if !filters.is_empty() {
            rule.insert("filters".to_owned(), Value::Array(filters));
        }
        if !refs.is_empty() {
            rule.insert("backendRefs".to_owned(), Value::Array(refs));
        }
        let mut timeouts = Map::new();
        cluster::put(&mut timeouts, "request", route.request.clone());
        let per_try = route.retry.as_ref().and_then(|retry| retry.per_try.clone());
        cluster::put(&mut timeouts, "backendRequest", per_try);
        if !timeouts.is_empty() {
            rule.insert("timeouts".to_owned(), Value::Object(timeouts));
        }
        cluster::put(&mut rule, "retry", own_retry);
        Some(Value::Object(rule))
    }

    fn reference(&self, place: usize) -> Value {
        let Cluster { service, port, .. } = &self.clusters[place];
        json!({"name": service.name, "namespace": service.namespace, "port": port})
    }

    /// A route leads to a cluster: what it says of retries, hashing and silence belongs to the service's policy. The
    /// first route's retries do; for one that says otherwise, the rule's own are given back.
    fn used(&mut self, place: usize, route: &Route<'_>, listener: &Listener<'_>) -> Option<Value> {
        let policy = &mut self.clusters[place].policy;
        if let Some(hash_on) = &route.hash_on
            && let Some(balancer) = policy.get_mut("loadBalancer")
            && matches!(balancer["algorithm"].as_str(), Some("ringHash" | "maglev"))
        {
            balancer["hashOn"] = hash_on.clone();
        }
        let idle = route.idle.clone().or_else(|| listener.idle.clone());
        if let Some(idle) = idle {
            merge(
                policy,
                "timeouts",
                Map::from_iter([("idle".to_owned(), json!(idle))]),
            );
        }
        let said = route
            .retry
            .as_ref()
            .map_or_else(never, |retry| retry.policy.clone());
        match self.retried.get(&place) {
            None => {
                self.retried.insert(place, said);
                None
            }
            Some(first) if *first == said => None,
            Some(_) => match &route.retry {
                Some(retry) => {
                    let node = &retry.node;
                    node.remark(
                        NoteKind::Differs,
                        "another route of this cluster retries otherwise: the rule has what a rule can say of it, and \
                         the conditions of the first one's besides",
                    );
                    Some(retry.of_rule())
                }
                None => Some(json!({"attempts": 0})),
            },
        }
    }

    fn finish(mut self) -> Objects {
        for (place, cluster) in self.clusters.iter_mut().enumerate() {
            let retry = self.retried.remove(&place).unwrap_or_else(never);
            if retry == never() {
                // Nothing is retried, so nothing bounds it.
                cluster.policy.remove("retry");
                if let Some(breaking) = cluster
                    .policy
                    .get_mut("circuitBreaking")
                    .and_then(Value::as_object_mut)
                {
                    breaking.remove("maxRetries");
                }
            }
            merge(&mut cluster.policy, "retry", retry);
            hashing(&mut cluster.policy);
            cluster.policy.retain(|_, section| *section != json!({}));
        }
        for cluster in self.clusters {
            self.objects.add(cluster);
        }
        self.objects
    }
}

/// A route to a cluster to which Envoy speaks TLS.
const IN_TLS: &str = "its cluster speaks TLS, which is for the application to begin now: what it asks cannot be seen, and \
     the route is left out";

/// A cluster whose routes have no retry policy.
fn never() -> Map<String, Value> {
    Map::from_iter([("attempts".to_owned(), json!(0))])
}

/// Without a `hash_policy` Envoy hashes nothing and chooses at random.
fn hashing(policy: &mut Map<String, Value>) {
    let Some(balancer) = policy.get_mut("loadBalancer").and_then(Value::as_object_mut) else {
        return;
    };
    let algorithm = balancer.get("algorithm").and_then(Value::as_str);
    if matches!(algorithm, Some("ringHash" | "maglev")) && !balancer.contains_key("hashOn") {
        balancer.retain(|name, _| !matches!(name.as_str(), "minRingSize" | "tableSize"));
        balancer.insert("algorithm".to_owned(), json!("random"));
    }
}

/// Adds `fields` to a section; what it says already stays.
fn merge(policy: &mut Map<String, Value>, section: &str, fields: Map<String, Value>) {
    if fields.is_empty() {
        return;
    }
    let section = policy.entry(section).or_insert_with(|| json!({}));
    if let Some(section) = section.as_object_mut() {
        for (name, value) in fields {
            section.entry(name).or_insert(value);
        }
    }
}

/// Says where a later route now goes before an earlier one.
fn overtaken(routes: &[Route<'_>]) {
    for (place, earlier) in routes.iter().enumerate() {
        let later = routes[place + 1..]
            .iter()
            .find(|later| earlier.matching.is_overtaken_by(&later.matching));
        if later.is_some() {
            earlier.node.remark(
                NoteKind::Differs,
                "the first route wins in Envoy, the most specific one here: a later one takes requests that match both",
            );
        }
    }
}
