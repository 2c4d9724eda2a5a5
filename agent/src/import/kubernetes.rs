//! What was carried over, as objects of Kubernetes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use serde_json::{Map, Value, json};

use super::{
    Note, NoteKind,
    objects::{Objects, Port, Service, Written},
};

/// Rules of one HTTPRoute, at most (its definition's `maxItems`).
const RULES: usize = 16;

pub(super) fn written(objects: &Objects) -> Written {
    let mut out = Written::default();
    let mut external = BTreeSet::new();
    for ((namespace, name), service) in &objects.services {
        if service.is_of_kubernetes {
            own_protocol(name, service, &mut out.notes);
            continue;
        }
        if let Some((port, host)) = host(service) {
            out.notes.push(note(
                &port.at,
                host,
                NoteKind::NoEquivalent,
                "a Service's endpoints are no DNS name's: this is an ExternalName, which is left alone, and its policy \
                 is left out; the file's form has both, and may stand beside Kubernetes'",
            ));
            external.insert((namespace.as_str(), name.as_str()));
            out.documents.push(external_name(namespace, name, service, host));
            continue;
        }
        if let Some(address) = service.addresses.first() {
            let said = format!("Kubernetes chooses a Service's address: callers dial {name}.{namespace} now");
            out.notes
                .push(note(&service.at, address, NoteKind::Missing, said));
        }
        out.documents.push(service_object(namespace, name, service));
        out.documents
            .extend(slices(namespace, name, service, &mut out.notes));
    }
    for (index, route) in objects.routes.iter().enumerate() {
        route_objects(index, route, &mut out);
    }
    let policies = objects.policies.iter().filter(|policy| {
        let target = &policy["targetRefs"][0];
        let text = |field: &str| target[field].as_str().unwrap_or_default();
        !external.contains(&(text("namespace"), text("name")))
    });
    out.documents.extend(policies.map(policy_object));
    out
}

fn note(path: &str, value: &str, kind: NoteKind, said: impl Into<String>) -> Note {
    Note {
        path: path.to_owned(),
        value: value.to_owned(),
        kind,
        said: said.into(),
    }
}

/// The name whose addresses are the service's endpoints.
fn host(service: &Service) -> Option<(&Port, &str)> {
    service.ports.values().find_map(|port| {
        let host = port.dns.as_ref()?["name"].as_str()?;
        Some((port, host))
    })
}

/// Says what a Service that is there already has to say itself.
fn own_protocol(name: &str, service: &Service, notes: &mut Vec<Note>) {
    for (number, port) in service.ports.iter().filter(|(_, port)| port.protocol == "tcp") {
        notes.push(note(
            &port.at,
            name,
            NoteKind::Missing,
            format!("say appProtocol: tcp of port {number} in the Service itself, so that nothing is to be detected"),
        ));
    }
}

fn ports(service: &Service) -> Vec<Value> {
    let ports = service.ports.iter().map(|(number, port)| {
        let app_protocol = match port.protocol {
            "http2" => "kubernetes.io/h2c",
            other => other,
        };
        json!({"name": port_name(*number, port), "port": number, "protocol": "TCP", "appProtocol": app_protocol})
    });
    ports.collect()
}

fn port_name(number: u64, port: &Port) -> String {
    format!("{}-{number}", port.protocol)
}

/// Without a selector: its endpoints are written beside it.
fn service_object(namespace: &str, name: &str, service: &Service) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": "ClusterIP", "ports": ports(service)},
    })
}

fn external_name(namespace: &str, name: &str, service: &Service, host: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": "ExternalName", "externalName": host, "ports": ports(service)},
    })
}

/// One for each port and family, since endpoints of different ports need not be the same.
fn slices(namespace: &str, name: &str, service: &Service, notes: &mut Vec<Note>) -> Vec<Value> {
    let mut slices = Vec::new();
    for (number, port) in &service.ports {
        if let Some(weighted) = port
            .endpoints
            .iter()
            .find(|endpoint| endpoint.get("weight").is_some())
        {
            let weight = weighted["weight"].to_string();
            notes.push(note(
                &port.at,
                &weight,
                NoteKind::NoEquivalent,
                "an EndpointSlice has no weights",
            ));
        }
        // By family and port.
        let mut groups = BTreeMap::<(&str, u16), Vec<Value>>::new();
        for endpoint in &port.endpoints {
            let address = endpoint["address"]
                .as_str()
                .and_then(|text| text.parse::<SocketAddr>().ok());
            let Some(address) = address else { continue };
            if is_link_local(address.ip()) {
                let address = address.to_string();
                let said = "an EndpointSlice has no link-local addresses: dial it itself";
                notes.push(note(&port.at, &address, NoteKind::NoEquivalent, said));
                continue;
            }
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            groups
                .entry((family, address.port()))
                .or_default()
                .push(slice_endpoint(address.ip(), endpoint));
        }
        for ((family, target), endpoints) in groups {
            slices.push(json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("{name}-{number}-{}-{target}", family.to_ascii_lowercase()),
                    "namespace": namespace,
                    "labels": {"kubernetes.io/service-name": name},
                },
                "addressType": family,
                "ports": [{"name": port_name(*number, port), "port": target, "protocol": "TCP"}],
                "endpoints": endpoints,
            }));
        }
    }
    slices
}

fn slice_endpoint(ip: IpAddr, endpoint: &Value) -> Value {
    let terminating = endpoint["state"] == "terminating";
    let mut written = json!({
        "addresses": [ip.to_string()],
        "conditions": {"ready": !terminating, "serving": true, "terminating": terminating},
    });
    if let Some(zone) = endpoint.get("zone") {
        written["zone"] = zone.clone();
    }
    written
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// As many as its rules need. A rule's `retry` is not in the definition that clusters have (the standard channel's).
fn route_objects(index: usize, route: &Value, out: &mut Written) {
    let mut parents = route["parentRefs"].clone();
    for parent in parents.as_array_mut().into_iter().flatten() {
        parent["group"] = json!("");
    }
    let mut rules = route["rules"].as_array().cloned().unwrap_or_default();
    for (number, rule) in rules.iter_mut().enumerate() {
        if let Some(retry) = rule.as_object_mut().and_then(|rule| rule.remove("retry")) {
            out.notes.push(note(
                &format!("routes[{index}].rules[{number}].retry"),
                &retry.to_string(),
                NoteKind::NoEquivalent,
                "an HTTPRoute of the standard channel has no retry: the service's policy counts for all of its routes",
            ));
        }
    }
    let name = route["name"].as_str().unwrap_or_default();
    for (part, rules) in rules.chunks(RULES).enumerate() {
        let name = match part {
            0 => name.to_owned(),
            // Of equal rules those of the first name count.
            _ => format!("{name}-{:03}", part + 1),
        };
        out.documents.push(json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": route["kind"],
            "metadata": {"name": name, "namespace": route["namespace"]},
            "spec": {"parentRefs": parents, "rules": rules},
        }));
    }
}

/// The target is in the policy's own namespace, and is not said.
fn policy_object(policy: &Value) -> Value {
    let target = &policy["targetRefs"][0];
    let mut written = json!({"group": "", "kind": "Service", "name": target["name"]});
    let section = target["sectionName"].as_str();
    if let Some(section) = section {
        written["sectionName"] = json!(section);
    }
    let mut spec = Map::from_iter([("targetRefs".to_owned(), json!([written]))]);
    let fields = policy.as_object().into_iter().flatten();
    spec.extend(
        fields
            .filter(|(name, _)| *name != "targetRefs")
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    let service = target["name"].as_str().unwrap_or_default();
    json!({
        "apiVersion": "derny.dev/v1alpha1",
        "kind": "TrafficPolicy",
        "metadata": {
            "name": section.map_or_else(|| service.to_owned(), |section| format!("{service}-{section}")),
            "namespace": target["namespace"],
        },
        "spec": spec,
    })
}
