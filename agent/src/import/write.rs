//! What was carried over, as a file of ours or as objects of Kubernetes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Note, NoteKind, cluster::Cluster, discovery::Found, kubernetes};
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
    /// Where its virtual host stands in the document; empty for one that clusters alone are for.
    pub(super) at: String,
    pub(super) addresses: Vec<String>,
    pub(super) ports: BTreeMap<u64, Port>,
    /// Kubernetes has it already.
    pub(super) is_of_kubernetes: bool,
}

#[derive(Debug, Default)]
pub(super) struct Port {
    /// Where its cluster stands in the document; empty for a port that no cluster is for.
    pub(super) at: String,
    pub(super) protocol: &'static str,
    pub(super) endpoints: Vec<Value>,
    pub(super) dns: Option<Value>,
}

/// The result in one form.
#[derive(Debug, Default)]
pub struct Written {
    pub documents: Vec<Value>,
    /// What this form cannot say.
    pub notes: Vec<Note>,
}

/// Faults that are taken out before it is given up.
const ROUNDS: usize = 64;

impl Objects {
    /// All of it in this form.
    pub fn written(&self, form: Form) -> Written {
        match form {
            Form::File => Written {
                documents: vec![self.file()],
                notes: self.short_names(),
            },
            Form::Kubernetes => kubernetes::written(self),
        }
    }

    /// A service's port with its policy; the first cluster that stands for it counts.
    pub(super) fn add(&mut self, cluster: Cluster) {
        let Cluster {
            at,
            service: named,
            port,
            protocol,
            found,
            policy,
            ..
        } = cluster;
        let service = self
            .services
            .entry((named.namespace.clone(), named.name.clone()))
            .or_default();
        if service.ports.contains_key(&port) {
            return;
        }
        service.is_of_kubernetes |= found.kubernetes().is_some();
        let mut written = Port {
            at,
            protocol,
            ..Port::default()
        };
        match found {
            Found::Static { endpoints, .. } => {
                written.endpoints = endpoints.into_iter().map(|endpoint| endpoint.written).collect();
            }
            Found::Dns {
                host, port, logical, ..
            } => {
                let mut dns = json!({"name": host, "port": port});
                if logical {
                    dns["mode"] = json!("logical");
                }
                written.dns = Some(dns);
            }
        }
        service.ports.insert(port, written);
        let target = json!({
            "kind": "Service", "name": named.name, "namespace": named.namespace, "sectionName": port.to_string(),
        });
        let mut spec = Map::from_iter([("targetRefs".to_owned(), json!([target]))]);
        spec.extend(policy);
        self.policies.push(Value::Object(spec));
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

    /// Says which names were whole to Envoy's resolver alone.
    fn short_names(&self) -> Vec<Note> {
        let services = self.services.values().filter(|service| service.is_of_kubernetes);
        let ports = services.flat_map(|service| service.ports.values());
        let short = ports.filter_map(|port| {
            let name = port.dns.as_ref()?["name"].as_str()?;
            (!name.trim_end_matches('.').ends_with(".cluster.local")).then(|| Note {
                path: port.at.clone(),
                value: name.to_owned(),
                kind: NoteKind::Differs,
                said: "no search domain is added to a name: write the whole one".to_owned(),
            })
        });
        short.collect()
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
