//! Objects as they are written, complete: a small server fills nothing in.

use serde_json::{Value, json};

use crate::{Pod, config::NAMESPACE};

fn object(api_version: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    })
}

/// A Service at a virtual address with one port, 80, of this name.
pub fn service(name: &str, ip: &str, port_name: &str) -> Value {
    let spec = json!({
        "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "selector": {"app": name},
        "sessionAffinity": "None", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
        "ports": [{"name": port_name, "port": 80, "targetPort": 8080, "protocol": "TCP"}],
    });
    object("v1", "Service", name, spec)
}

/// An EndpointSlice of a service: addresses, and whether each is ready or terminating.
pub fn slice(service: &str, name: &str, port: (&str, u16), endpoints: &[(String, Standing)]) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(ip, standing)| {
            let ready = *standing == Standing::Ready;
            json!({
                "addresses": [ip],
                "conditions": {"ready": ready, "serving": true, "terminating": !ready},
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": port.0, "port": port.1, "protocol": "TCP"}],
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Ready,
    Terminating,
}

/// What [`slice`] takes, of pods that are ready.
pub fn ready(pods: &[&Pod]) -> Vec<(String, Standing)> {
    pods.iter()
        .map(|pod| (pod.ip().to_string(), Standing::Ready))
        .collect()
}

/// A TrafficPolicy for a service, with these sections.
pub fn policy(name: &str, service: &str, sections: Value) -> Value {
    let mut spec = json!({"targetRefs": [{"group": "", "kind": "Service", "name": service}]});
    if let (Some(spec), Some(sections)) = (spec.as_object_mut(), sections.as_object()) {
        spec.extend(sections.clone());
    }
    object("derny.dev/v1alpha1", "TrafficPolicy", name, spec)
}

/// An HTTPRoute or a GRPCRoute of a service.
pub fn route(kind: &str, name: &str, service: &str, rules: Value) -> Value {
    let parent = json!({"group": "", "kind": "Service", "name": service});
    let spec = json!({"parentRefs": [parent], "rules": rules});
    object("gateway.networking.k8s.io/v1", kind, name, spec)
}

/// A namespace with the label `derny.dev/mesh`, unless that is empty.
pub fn namespace(name: &str, mesh: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels(mesh)}})
}

/// A pod with one container, on a node, or on none when that is empty. The server gives it a UID.
pub fn pod(name: &str, node: &str, mesh: &str) -> Value {
    let container = json!({
        "name": "main", "image": "main",
        "ports": [{"name": "grpc", "containerPort": 8080, "protocol": "TCP"}],
    });
    let mut pod = object("v1", "Pod", name, json!({"containers": [container]}));
    pod["metadata"]["labels"] = labels(mesh);
    if !node.is_empty() {
        pod["spec"]["nodeName"] = node.into();
    }
    pod
}

fn labels(mesh: &str) -> Value {
    match mesh {
        "" => json!({}),
        mesh => json!({"derny.dev/mesh": mesh}),
    }
}

/// Definitions of the Gateway API's kinds that take whatever is written: for machines without the upstream ones.
pub(super) fn gateway_definitions() -> Vec<Value> {
    let kinds = [
        ("HTTPRoute", "httproutes", "v1"),
        ("GRPCRoute", "grpcroutes", "v1"),
    ];
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = |(kind, plural, version): (&str, &str, &str)| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": format!("{plural}.gateway.networking.k8s.io"),
                "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
            },
            "spec": {
                "group": "gateway.networking.k8s.io",
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
                "scope": "Namespaced",
                "versions": [{
                    "name": version, "served": true, "storage": true, "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": anything, "status": anything}}},
                }],
            },
        })
    };
    kinds.map(definition).to_vec()
}
