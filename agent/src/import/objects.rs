//! What was carried over, in the form of a file.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Note, NoteKind, cluster::Cluster, discovery::Found, names::Named};
use crate::config::{self, Problem};

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

impl Objects {
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
        self.policy(&named, Some(port), policy);
    }

    /// A policy for a port, or for all that a service has.
    pub(super) fn policy(&mut self, service: &Named, port: Option<u64>, policy: Map<String, Value>) {
        let mut target = json!({"kind": "Service", "name": service.name, "namespace": service.namespace});
        if let Some(port) = port {
            target["sectionName"] = json!(port.to_string());
        }
        let mut spec = Map::from_iter([("targetRefs".to_owned(), json!([target]))]);
        spec.extend(policy);
        self.policies.push(Value::Object(spec));
    }

    /// Takes out what the check of a configuration would refuse, such as a value out of its range here. A rule goes
    /// whole when its condition would, or when it could not be read any more: it must not match more than it did.
    ///
    /// # Errors
    /// What is still wrong when nothing more can be taken out.
    pub fn settle(&mut self) -> Result<Vec<Note>, config::Error> {
        let mut notes = Vec::new();
        loop {
            let error = match config::from_value(self.file()) {
                Ok(_) => return Ok(notes),
                Err(error) => error,
            };
            let mut places = BTreeSet::new();
            match &error {
                config::Error::Faults(problems) => {
                    for problem in problems {
                        places.extend(place(&problem.path));
                        notes.push(note(problem));
                    }
                }
                config::Error::Shape { path, message } => {
                    places.extend(whole_rule(&steps(path)));
                    notes.push(Note {
                        path: path.clone(),
                        value: String::new(),
                        kind: NoteKind::NoEquivalent,
                        said: format!("{message}: the rule is left out"),
                    });
                }
                _ => {}
            }
            // From the last, so that the places of the others stay as they are.
            let taken = places.iter().rev().filter(|place| self.take_out(place)).count();
            if taken == 0 {
                return Err(error);
            }
            // Not before all places have been visited: those of the routes behind it would move.
            self.routes.retain(|route| route["rules"] != json!([]));
        }
    }

    /// Removes what is at a place such as `policies[0].connectionPool.idleTimeout`.
    fn take_out(&mut self, place: &[Step]) -> bool {
        let (list, [Step::Index(index), within @ ..]) = (match place.split_first() {
            Some((Step::Field(name), rest)) if name == "policies" => (&mut self.policies, rest),
            Some((Step::Field(name), rest)) if name == "routes" => (&mut self.routes, rest),
            _ => return false,
        }) else {
            return false;
        };
        let (Some(mut value), Some((last, above))) = (list.get_mut(*index), within.split_last()) else {
            return false;
        };
        for step in above {
            let next = match step {
                Step::Index(index) => value.get_mut(index),
                Step::Field(name) => value.get_mut(name),
            };
            let Some(next) = next else { return false };
            value = next;
        }
        match (value, last) {
            (Value::Array(items), Step::Index(index)) if *index < items.len() => {
                items.remove(*index);
                true
            }
            (Value::Object(fields), Step::Field(name)) => fields.shift_remove(name).is_some(),
            _ => false,
        }
    }

    /// Says which names were whole to Envoy's resolver alone.
    pub(super) fn short_names(&self) -> Vec<Note> {
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

    pub(super) fn file(&self) -> Value {
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

/// A part of the way to a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Field(String),
    Index(usize),
}

/// `routes[0].rules[1].retry` in its parts.
fn steps(path: &str) -> Vec<Step> {
    let words = path.split(['.', '[', ']']).filter(|word| !word.is_empty());
    let step = |word: &str| {
        word.parse()
            .map_or_else(|_| Step::Field(word.to_owned()), Step::Index)
    };
    words.map(step).collect()
}

/// The rule that a place is in.
fn whole_rule(place: &[Step]) -> Option<Vec<Step>> {
    match place {
        [
            Step::Field(routes),
            Step::Index(_),
            Step::Field(rules),
            Step::Index(_),
            ..,
        ] if routes == "routes" && rules == "rules" => Some(place[..4].to_vec()),
        _ => None,
    }
}

fn in_a_match(place: &[Step]) -> bool {
    whole_rule(place).is_some() && place.get(4) == Some(&Step::Field("matches".to_owned()))
}

/// What is taken out because of a fault at `path`.
fn place(path: &str) -> Option<Vec<Step>> {
    let place = steps(path);
    if in_a_match(&place) {
        return whole_rule(&place);
    }
    Some(place)
}

fn note(problem: &Problem) -> Note {
    let left_out = if in_a_match(&steps(&problem.path)) {
        "the rule is left out, and its requests go to the others"
    } else {
        "left out, so the default counts"
    };
    Note {
        path: problem.path.clone(),
        value: problem.value.clone(),
        kind: NoteKind::NoEquivalent,
        said: format!("{}; {left_out} ({})", problem.fault, problem.remedy),
    }
}
