//! What was carried over, as a file of ours or as objects of Kubernetes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Note, NoteKind};
use crate::config::{self, Problem};

/// How the result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One document: the file of `derny run --config`.
    File,
    /// One document for each object: Services, EndpointSlices, HTTPRoutes, TrafficPolicies.
    Kubernetes,
}

/// In the file's form.
#[derive(Debug, Default)]
pub struct Objects {
    /// By namespace and name.
    pub(super) services: BTreeMap<(String, String), Service>,
    pub(super) policies: Vec<Value>,
    pub(super) routes: Vec<Value>,
}

#[derive(Debug, Default)]
pub(super) struct Service {
    pub(super) addresses: Vec<String>,
    pub(super) ports: BTreeMap<u64, Port>,
    /// Kubernetes has it already.
    pub(super) is_of_kubernetes: bool,
}

#[derive(Debug, Default)]
pub(super) struct Port {
    pub(super) protocol: &'static str,
    pub(super) endpoints: Vec<Value>,
    pub(super) dns: Option<Value>,
}

/// Faults that are taken out before it is given up.
const ROUNDS: usize = 64;

impl Objects {
    /// The documents of this form.
    pub fn documents(&self, form: Form) -> Vec<Value> {
        match form {
            Form::File => vec![self.file()],
            Form::Kubernetes => self.kubernetes(),
        }
    }

    /// Takes out what the check of a configuration would refuse, such as a value out of its range here.
    ///
    /// # Errors
    /// What is still wrong when nothing more can be taken out.
    pub fn settle(&mut self) -> Result<Vec<Note>, config::Error> {
        let mut notes = Vec::new();
        for _ in 0..ROUNDS {
            let error = match config::from_value(self.file()) {
                Ok(_) => return Ok(notes),
                Err(error) => error,
            };
            let config::Error::Faults(problems) = &error else {
                return Err(error);
            };
            let Some(problem) = problems.iter().find(|problem| self.take_out(&problem.path)) else {
                return Err(error);
            };
            notes.push(note(problem));
        }
        config::from_value(self.file()).map(|_| notes)
    }

    /// Removes the field at a path such as `policies[0].connectionPool.idleTimeout`.
    fn take_out(&mut self, path: &str) -> bool {
        let (list, rest) = match path.split_once('[') {
            Some(("policies", rest)) => (&mut self.policies, rest),
            Some(("routes", rest)) => (&mut self.routes, rest),
            _ => return false,
        };
        let Some((index, field)) = rest.split_once("].") else {
            return false;
        };
        let Some(mut value) = index.parse::<usize>().ok().and_then(|index| list.get_mut(index)) else {
            return false;
        };
        let steps: Vec<&str> = field
            .split(['.', '[', ']'])
            .filter(|step| !step.is_empty())
            .collect();
        let Some((last, above)) = steps.split_last() else {
            return false;
        };
        for step in above {
            let next = match step.parse::<usize>() {
                Ok(index) => value.get_mut(index),
                Err(_) => value.get_mut(step),
            };
            let Some(next) = next else { return false };
            value = next;
        }
        match (value, last.parse::<usize>()) {
            (Value::Array(items), Ok(index)) if index < items.len() => {
                items.remove(index);
                true
            }
            (Value::Object(fields), _) => fields.remove(*last).is_some(),
            _ => false,
        }
    }

    fn file(&self) -> Value {
        let services = self.services.iter().map(|((namespace, name), service)| {
            let ports = service.ports.iter().map(|(number, port)| {
                let mut written = json!({"port": number, "protocol": port.protocol});
                match &port.dns {
                    Some(dns) => written["dns"] = dns.clone(),
                    None if port.endpoints.is_empty() => {}
                    None => written["endpoints"] = json!(port.endpoints),
                }
                written
            });
            let mut written = json!({"name": name, "namespace": namespace});
            if !service.addresses.is_empty() {
                written["addresses"] = json!(service.addresses);
            }
            written["ports"] = ports.collect();
            written
        });
        let mut file = json!({"services": services.collect::<Vec<_>>(), "policies": self.policies});
        if !self.routes.is_empty() {
            file["routes"] = json!(self.routes);
        }
        file
    }

    fn kubernetes(&self) -> Vec<Value> {
        let mut documents = Vec::new();
        for ((namespace, name), service) in &self.services {
            if !service.is_of_kubernetes {
                documents.push(service_object(namespace, name, service));
                documents.extend(slices(namespace, name, service));
            }
        }
        documents.extend(self.routes.iter().map(route_object));
        documents.extend(self.policies.iter().map(policy_object));
        documents
    }
}

fn note(problem: &Problem) -> Note {
    Note {
        path: problem.path.clone(),
        value: problem.value.clone(),
        kind: NoteKind::NoEquivalent,
        said: format!(
            "{}; left out, so the default counts ({})",
            problem.fault, problem.remedy
        ),
    }
}

fn port_name(number: u64, port: &Port) -> String {
    format!("{}-{number}", port.protocol)
}

/// Without a selector: its endpoints are written beside it.
fn service_object(namespace: &str, name: &str, service: &Service) -> Value {
    let ports = service.ports.iter().map(|(number, port)| {
        let app_protocol = match port.protocol {
            "http2" => "kubernetes.io/h2c",
            other => other,
        };
        json!({"name": port_name(*number, port), "port": number, "protocol": "TCP", "appProtocol": app_protocol})
    });
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": "ClusterIP", "ports": ports.collect::<Vec<_>>()},
    })
}

/// One for each port and family, since endpoints of different ports need not be the same.
fn slices(namespace: &str, name: &str, service: &Service) -> Vec<Value> {
    let mut slices = Vec::new();
    for (number, port) in &service.ports {
        for family in ["IPv4", "IPv6"] {
            let mut by_port = BTreeMap::<u16, Vec<Value>>::new();
            for endpoint in &port.endpoints {
                let address = endpoint["address"].as_str().and_then(|text| text.parse().ok());
                let Some(address) =
                    address.filter(|a: &std::net::SocketAddr| a.is_ipv4() == (family == "IPv4"))
                else {
                    continue;
                };
                let terminating = endpoint["state"] == "terminating";
                let mut written = json!({
                    "addresses": [address.ip().to_string()],
                    "conditions": {"ready": !terminating, "serving": true, "terminating": terminating},
                });
                if let Some(zone) = endpoint.get("zone") {
                    written["zone"] = zone.clone();
                }
                by_port.entry(address.port()).or_default().push(written);
            }
            for (target, endpoints) in by_port {
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
    }
    slices
}

fn route_object(route: &Value) -> Value {
    let mut parents = route["parentRefs"].clone();
    for parent in parents.as_array_mut().into_iter().flatten() {
        parent["group"] = json!("");
    }
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": route["kind"],
        "metadata": {"name": route["name"], "namespace": route["namespace"]},
        "spec": {"parentRefs": parents, "rules": route["rules"]},
    })
}

/// The target is in the policy's own namespace, and is not said.
fn policy_object(policy: &Value) -> Value {
    let target = &policy["targetRefs"][0];
    let mut spec = Map::from_iter([(
        "targetRefs".to_owned(),
        json!([{"group": "", "kind": "Service", "name": target["name"], "sectionName": target["sectionName"]}]),
    )]);
    let fields = policy.as_object().into_iter().flatten();
    spec.extend(
        fields
            .filter(|(name, _)| *name != "targetRefs")
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    let name = |field: &str| target[field].as_str().unwrap_or_default();
    json!({
        "apiVersion": "derny.dev/v1alpha1",
        "kind": "TrafficPolicy",
        "metadata": {
            "name": format!("{}-{}", name("name"), name("sectionName")),
            "namespace": target["namespace"],
        },
        "spec": spec,
    })
}
