//! Clusters and listeners → services, policies and routes.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::{Map, Value, json};

use super::{
    NoteKind,
    cluster::{self, Cluster},
    dialled::{DialledServices, never},
    fields::put,
    listener::{self, Listener, VirtualHost},
    names::{Named, Names, kubernetes},
    objects::{Objects, Port},
    reading::Node,
    route::Route,
};

/// Everything that the document's clusters and listeners stand for.
pub(super) fn assemble(clusters: &[Node<'_>], listeners: &[Node<'_>], namespace: &str) -> Objects {
    let mut assembly = Assembly {
        namespace,
        names: Names::default(),
        route_names: Names::default(),
        clusters: Vec::new(),
        objects: Objects::default(),
        dialled: DialledServices::default(),
        retried: BTreeSet::new(),
        given: BTreeSet::new(),
    };
    for node in clusters {
        assembly.cluster(node);
    }
    for node in listeners {
        let listener = listener::read(node);
        for cluster in &listener.relayed {
            assembly.relay(cluster, &listener);
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
    /// What routes say to the policy of what their callers dial.
    dialled: DialledServices,
    /// Places of clusters to which any route retries.
    retried: BTreeSet<usize>,
    /// Addresses that a service has.
    given: BTreeSet<(IpAddr, u64)>,
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
    fn relay(&mut self, name: &Node<'_>, listener: &Listener<'_>) {
        let Some(place) = name.text().and_then(|name| self.find(name)) else {
            return name.note(NoteKind::Missing, "there is no such cluster");
        };
        self.clusters[place].protocol = "tcp";
        if let Some(said) = self.instead(place, listener) {
            name.remark(NoteKind::Missing, said);
        }
    }

    /// What callers of a listener dial instead. `None` where connections were captured: these go on as before.
    fn instead(&self, place: usize, listener: &Listener<'_>) -> Option<String> {
        let Cluster { service, port, .. } = &self.clusters[place];
        let at = listener.ip.map_or_else(String::new, |ip| format!(" {ip}"));
        (!listener.captures).then(|| {
            format!(
                "callers dialled the listener{at}, port {}: they dial {}/{}, port {port}, now",
                listener.port, service.namespace, service.name
            )
        })
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
        let rules: Vec<(&Route<'_>, Map<String, Value>)> = host
            .routes
            .iter()
            .filter_map(|route| Some((route, self.rule(route)?)))
            .collect();
        if rules.is_empty() {
            return;
        }
        let (parent, port) = self.parent(host, listener);
        let key = (parent.clone(), port);
        let rules = rules.into_iter().map(|(route, mut rule)| {
            if !route.backends.is_empty() {
                put(
                    &mut rule,
                    "retry",
                    self.dialled.dial(key.clone(), route, Map::new()),
                );
            }
            Value::Object(rule)
        });
        let rules: Vec<Value> = rules.collect();
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
        self.used(place, route);
        let mut timeouts = Map::new();
        put(&mut timeouts, "request", route.request.clone());
        let per_try = route.retry.as_ref().and_then(|retry| retry.per_try.clone());
        put(&mut timeouts, "perTry", per_try);
        let service = self.clusters[place].service.clone();
        let key = (service.clone(), Some(self.clusters[place].port));
        if self.dialled.dial(key, route, timeouts).is_some() {
            route.node.remark(
                NoteKind::Differs,
                "another host retries otherwise at the same service, and counts",
            );
        }
        if host.named_domains().next().is_none()
            && let Some(said) = self.instead(place, listener)
        {
            host.missing(said);
        }
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
        // An address is one service's: who is called by other names there has to be given one of its own.
        let own = own.filter(|ip| says_service || self.given.insert((*ip, listener.port)));
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
    fn rule(&mut self, route: &Route<'_>) -> Option<Map<String, Value>> {
        let mut rule = Map::new();
        rule.insert("matches".to_owned(), json!([route.matching.written]));
        let mut filters = route.filters.clone();
        let mut refs = Vec::new();
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
            self.used(place, route);
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
        put(&mut timeouts, "request", route.request.clone());
        let per_try = route.retry.as_ref().and_then(|retry| retry.per_try.clone());
        put(&mut timeouts, "backendRequest", per_try);
        if !timeouts.is_empty() {
            rule.insert("timeouts".to_owned(), Value::Object(timeouts));
        }
        Some(rule)
    }

    fn reference(&self, place: usize) -> Value {
        let Cluster { service, port, .. } = &self.clusters[place];
        json!({"name": service.name, "namespace": service.namespace, "port": port})
    }

    /// A route leads to a cluster: what it says of hashing belongs to the policy of the cluster's service.
    fn used(&mut self, place: usize, route: &Route<'_>) {
        if route.retry.as_ref().is_some_and(|retry| retry.policy != never()) {
            self.retried.insert(place);
        }
        let Some(hash_on) = &route.hash_on else { return };
        let balancer = self.clusters[place].policy.get_mut("loadBalancer");
        let Some(balancer) = balancer.filter(|balancer| hashes(balancer)) else {
            return;
        };
        match balancer.get("hashOn") {
            None => balancer["hashOn"] = hash_on.clone(),
            Some(first) if first == hash_on => {}
            Some(_) => route.node.remark(
                NoteKind::Differs,
                "another route of this cluster hashes something else, and counts",
            ),
        }
    }

    fn finish(mut self) -> Objects {
        for (place, cluster) in self.clusters.iter_mut().enumerate() {
            if !self.retried.contains(&place) {
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
            let target = (cluster.service.clone(), Some(cluster.port));
            self.dialled.tell(&target, &mut cluster.policy);
            hashing(&mut cluster.policy);
            cluster.policy.retain(|_, section| *section != json!({}));
        }
        for cluster in self.clusters {
            self.objects.add(cluster);
        }
        while let Some(target) = self.dialled.next() {
            let mut policy = Map::new();
            self.dialled.tell(&target, &mut policy);
            let (service, port) = target;
            self.objects.policy(&service, port, policy);
        }
        self.objects
    }
}

fn hashes(balancer: &Value) -> bool {
    matches!(balancer["algorithm"].as_str(), Some("ringHash" | "maglev"))
}

/// A route to a cluster to which Envoy speaks TLS.
const IN_TLS: &str = "its cluster speaks TLS, which is for the application to begin now: what it asks cannot be seen, and \
     the route is left out";

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
