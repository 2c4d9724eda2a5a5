//! One object of an API server, read by the same types and checked by the same rules as a section of the file.
//!
//! An object stands alone: what it refers to comes and goes by itself, so that only what it says of itself is checked
//! here. An API server may know fields that this version does not: they are left out and named in `ignored`, where the
//! file, which is written for this version, has a fault.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use serde_path_to_error::Segment;

use super::{
    Error,
    check::{policies, policy, routes},
    error::{self, At, Faults},
    schema,
    traffic_policy::TrafficPolicy,
};
use crate::model::{PatternShare, Policy, Route, RouteKind, RuleFault, ServiceName};

/// Fields that are left out of one object; with more of them it is something else than it says.
const MAX_IGNORED: usize = 64;

/// A good TrafficPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyObject {
    pub policy: Arc<Policy>,
    pub targets: Vec<PolicyTarget>,
    /// Paths of fields that this version does not know.
    pub ignored: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTarget {
    pub service: ServiceName,
    /// Name or number of one port; all ports without it.
    pub section: Option<String>,
}

/// A good HTTPRoute or GRPCRoute.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteObject {
    pub route: Arc<Route>,
    pub parents: Vec<RouteParent>,
    /// Which rules are not in force, and why, while the others are.
    pub dropped: Option<String>,
    /// References to backends and mirrors that can be none, whatever there is.
    pub foreign: Option<String>,
    /// What its regular expressions take.
    pub patterns: PatternShare,
    /// Paths of fields that this version does not know.
    pub ignored: Vec<String>,
}

/// A service whose requests go by a route. Parents of other kinds, such as Gateways, are not listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteParent {
    pub service: ServiceName,
    /// All ports that carry HTTP without it.
    pub port: Option<u16>,
    /// The port's name.
    pub section: Option<String>,
    /// As it is written, for the status.
    pub written: Value,
}

/// Reads `spec` of a TrafficPolicy in `namespace`.
pub fn traffic_policy(namespace: &str, spec: Value) -> Result<PolicyObject, Error> {
    let (spec, ignored): (TrafficPolicy, _) = tolerant(spec)?;
    let mut faults = Faults::default();
    let at = At::Section("spec");
    let policy = Arc::new(policy::check(&spec, at, &mut faults));
    let refs = at.field("targetRefs");
    let mut targets = Vec::with_capacity(spec.target_refs.len());
    for (index, target) in spec.target_refs.iter().enumerate() {
        let at = refs.item(index);
        let Some(service) = policies::service(target, namespace, at, &mut faults) else {
            continue;
        };
        if *service.namespace != *namespace {
            let remedy = "leave it out; a policy is for services of its own namespace";
            let at = at.field("namespace");
            faults.add(at, &service.namespace, "is not the policy's namespace", remedy);
        }
        targets.push(PolicyTarget {
            service,
            section: target.section_name.clone(),
        });
    }
    if targets.is_empty() {
        let remedy = "name at least one service, or remove the policy";
        faults.add(refs, "[]", "names no target", remedy);
    }
    faults.or(PolicyObject {
        policy,
        targets,
        ignored,
    })
}

/// Reads `spec` of a route. `created` is in seconds since the epoch; `left` is what its patterns may take. `None`: no parent
/// of it is a service.
pub fn route(
    kind: RouteKind,
    (namespace, name): (&str, &str),
    created: u64,
    mut spec: Value,
    left: PatternShare,
) -> Result<Option<RouteObject>, Error> {
    let mut written = Vec::new();
    if let Some(Value::Array(parents)) = spec.get_mut("parentRefs") {
        parents.retain(is_service);
        written.clone_from(parents);
    }
    if written.is_empty() {
        return Ok(None);
    }
    if let Value::Object(fields) = &mut spec {
        fields.insert("kind".to_owned(), json!(routes::kind_word(&kind)));
        fields.insert("name".to_owned(), json!(name));
        fields.insert("namespace".to_owned(), json!(namespace));
        fields.entry("rules").or_insert_with(|| json!([]));
    }
    let (spec, ignored): (schema::route::Route, _) = tolerant(spec)?;
    let mut faults = Faults::within(left);
    let at = At::Section("spec");
    let route = routes::alone(&spec, kind, created, at, &mut faults);
    let refs = at.field("parentRefs");
    let mut parents = Vec::with_capacity(spec.parent_refs.len());
    for (index, (parent, written)) in spec.parent_refs.iter().zip(written).enumerate() {
        let at = refs.item(index);
        let of = parent.namespace.as_deref().unwrap_or(namespace);
        let port = parent.port.map(u16::try_from).transpose().unwrap_or_else(|_| {
            faults.add(
                at.field("port"),
                parent.port.unwrap_or_default(),
                "is not a port",
                "use 1 to 65535",
            );
            None
        });
        parents.push(RouteParent {
            service: ServiceName {
                namespace: of.into(),
                name: parent.name.as_str().into(),
            },
            port,
            section: parent.section_name.clone(),
            written,
        });
    }
    if route.rules.iter().all(|rule| rule.fault.is_some()) {
        faults.count_all();
    }
    let dropped = faults.aside().iter().map(|(position, problems)| {
        let refused = matches!(route.rules[*position].fault, Some(RuleFault::Refused(_)));
        let instead = match refused {
            true => "its requests are answered with 500",
            false => "its requests go to the other rules",
        };
        format!(
            "Dropped Rule {position} ({instead}): {}",
            error::one_line(problems)
        )
    });
    let dropped: Vec<String> = dropped.collect();
    let foreign = faults.foreign();
    let foreign = (!foreign.is_empty()).then(|| error::one_line(foreign));
    let patterns = faults.patterns();
    faults.or(Some(RouteObject {
        route,
        parents,
        dropped: (!dropped.is_empty()).then(|| dropped.join("; ")),
        foreign,
        patterns,
        ignored,
    }))
}

/// The `parentRefs` of a route's `spec` that are services, as they are written.
pub fn service_parents(spec: &Value) -> impl Iterator<Item = &Value> {
    let parents = spec.get("parentRefs").and_then(Value::as_array);
    parents.into_iter().flatten().filter(|parent| is_service(parent))
}

/// The API server has filled in group and kind; without them a parent is a Gateway.
fn is_service(parent: &Value) -> bool {
    let text = |field: &str| parent.get(field).and_then(Value::as_str);
    text("kind") == Some("Service") && matches!(text("group"), Some("" | "core"))
}

/// Reads a `T`, without the fields that it does not have.
fn tolerant<T: DeserializeOwned>(mut spec: Value) -> Result<(T, Vec<String>), Error> {
    let mut ignored = Vec::new();
    loop {
        let error = match serde_path_to_error::deserialize(&spec) {
            Ok(read) => return Ok((read, ignored)),
            Err(error) => error,
        };
        let path = error.path().clone();
        let message = error.into_inner().to_string();
        let unknown = message.starts_with("unknown field") && ignored.len() < MAX_IGNORED;
        if !unknown || !remove(&mut spec, path.iter()) {
            let path = match path.to_string() {
                root if root == "." => "spec".to_owned(),
                path => format!("spec.{path}"),
            };
            return Err(Error::Shape { path, message });
        }
        ignored.push(format!("spec.{path}"));
    }
}

/// Takes out what `path` leads to. False when it leads nowhere.
fn remove<'a>(from: &mut Value, path: impl Iterator<Item = &'a Segment>) -> bool {
    let mut path = path.peekable();
    let mut at = from;
    while let Some(segment) = path.next() {
        let next = match (segment, at) {
            (Segment::Map { key }, Value::Object(fields)) => {
                if path.peek().is_none() {
                    return fields.shift_remove(key).is_some();
                }
                fields.get_mut(key)
            }
            (Segment::Seq { index }, Value::Array(items)) => items.get_mut(*index),
            _ => None,
        };
        let Some(next) = next else { return false };
        at = next;
    }
    false
}

impl Error {
    /// The faults of one object in one line, for its status.
    pub fn one_line(&self) -> String {
        match self {
            Self::Faults(problems) => error::one_line(problems),
            other => other.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
