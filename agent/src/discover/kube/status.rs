//! What is said to whoever wrote an object: its conditions. Pure.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    attached::{Attached, Entry, Fault, ObjectName, Reach},
    objects::Watched as _,
    objects::{GrpcRoute, HttpRoute, Resource, TrafficPolicy},
    services::Declared,
    world::World,
};
use crate::{
    config::{PolicyObject, RouteObject, RouteParent},
    model::{RouteKind, ServiceName, ServicePortName},
};

/// Who writes the entries of a route's status that are ours.
pub(super) const CONTROLLER: &str = "derny.dev/agent";

/// One object's standing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) of: Resource,
    pub(super) object: ObjectName,
    pub(super) generation: Option<i64>,
    /// For each parent of a route, and once for a policy, where the parent is null.
    pub(super) parents: Vec<(Value, Vec<Condition>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// Of what was judged, where that is not the newest version.
    pub(super) generation: Option<i64>,
    pub(super) kind: &'static str,
    pub(super) holds: Holds,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    True,
    False,
}

fn condition(
    kind: &'static str,
    holds: Holds,
    reason: &'static str,
    message: impl Into<String>,
) -> Condition {
    let mut message = message.into();
    message.truncate(message.floor_char_boundary(MESSAGE));
    Condition {
        generation: None,
        kind,
        holds,
        reason,
        message,
    }
}

/// Bytes of a message. The API server refuses one of 32 KiB, and nobody reads it.
const MESSAGE: usize = 4096;

/// The standing of all objects that a leader writes a status to.
pub(super) fn verdicts(world: &World) -> Vec<Verdict> {
    let policies = world.policies.all().map(|(name, entry)| Verdict {
        of: TrafficPolicy::OF,
        object: name.clone(),
        generation: entry.generation,
        parents: vec![(Value::Null, vec![of_policy(world, name, entry)])],
    });
    let routes = |routes: &Attached<RouteObject>, of: Resource, kind: RouteKind| -> Vec<Verdict> {
        let all = routes.all();
        all.map(|(name, entry)| Verdict {
            of,
            object: name.clone(),
            generation: entry.generation,
            parents: of_route(world, kind, entry),
        })
        .collect()
    };
    let http = routes(&world.http_routes, HttpRoute::OF, RouteKind::Http);
    let grpc = routes(&world.grpc_routes, GrpcRoute::OF, RouteKind::Grpc);
    policies.chain(http).chain(grpc).collect()
}

/// `Accepted`, with the reasons of the Gateway API's `PolicyConditionReason`.
fn of_policy(world: &World, name: &ObjectName, entry: &Entry<PolicyObject>) -> Condition {
    if let Some(fault) = &entry.fault {
        return condition(
            "Accepted",
            Holds::False,
            "Invalid",
            with_last_good(&fault.message, entry.good.is_some()),
        );
    }
    let Some(good) = &entry.good else {
        return condition("Accepted", Holds::False, "Invalid", "not read");
    };
    let mut missing = BTreeSet::new();
    let mut older = BTreeSet::new();
    for target in &good.targets {
        let section = target.section.as_deref();
        let found = world.services.get(&target.service);
        let is_there =
            found.is_some_and(|service| section.is_none_or(|section| service.port(section).is_some()));
        if !is_there {
            missing.insert(words(&target.service, section));
        }
        let same = |object: &PolicyObject| {
            let mut targets = object.targets.iter();
            targets.any(|other| other.service == target.service && other.section == target.section)
        };
        // In order of precedence: what comes before this one wins.
        let before = world
            .policies
            .of(&target.service)
            .take_while(|(other, _)| *other != name);
        older.extend(
            before
                .filter(|(_, object)| same(object))
                .map(|(other, _)| other.to_string()),
        );
    }
    if let Some(first) = older.first() {
        let message = format!("the older TrafficPolicy {first} is for the same target, and counts alone");
        return condition("Accepted", Holds::False, "Conflicted", message);
    }
    if let Some(first) = missing.first() {
        return condition(
            "Accepted",
            Holds::False,
            "TargetNotFound",
            format!("{first} does not exist"),
        );
    }
    let message = match good.ignored.as_slice() {
        [] => String::new(),
        ignored => format!(
            "fields that this version does not know are left out: {}",
            ignored.join(", ")
        ),
    };
    condition("Accepted", Holds::True, "Accepted", message)
}

/// `Accepted` and `ResolvedRefs`, with the reasons of the Gateway API's `RouteConditionReason`.
fn of_route(world: &World, kind: RouteKind, entry: &Entry<RouteObject>) -> Vec<(Value, Vec<Condition>)> {
    if let Some(fault) = entry.fault.as_ref().filter(|fault| fault.reach != Reach::Part) {
        let message = with_last_good(&fault.message, entry.good.is_some());
        let accepted = condition("Accepted", Holds::False, "UnsupportedValue", message);
        let parents = fault.parents.iter();
        return parents
            .map(|parent| (parent.clone(), vec![accepted.clone()]))
            .collect();
    }
    let Some(good) = &entry.good else {
        return Vec::new();
    };
    let resolved = resolved(world, good);
    let namespace = &good.route.namespace;
    let parents = good.parents.iter().map(|parent| {
        let service = world.services.get(&parent.service);
        let mut accepted = of_parent(world, (kind, namespace), parent, service);
        let mut conditions = vec![resolved.clone()];
        if let Some(fault) = &entry.fault {
            accepted.generation = entry.good_generation;
            conditions.push(in_part(fault, good));
        }
        conditions.insert(0, accepted);
        (parent.written.clone(), conditions)
    });
    parents.collect()
}

/// That some rules have faults and others count (Gateway API, `RouteConditionPartiallyInvalid`, which prescribes how the
/// message begins).
fn in_part(fault: &Fault, in_force: &RouteObject) -> Condition {
    let message = match in_force.dropped {
        Some(_) => fault.message.clone(),
        None => format!("Fall Back to the last good version: {}", fault.message),
    };
    condition("PartiallyInvalid", Holds::True, "UnsupportedValue", message)
}

/// Whether a route without a fault counts at any port of its parent.
fn of_parent(
    world: &World,
    (kind, namespace): (RouteKind, &str),
    parent: &RouteParent,
    service: Option<&Declared>,
) -> Condition {
    let served = service.filter(|service| service.kind.left_alone().is_none());
    let ports = served.into_iter().flat_map(|service| {
        let ports = service.ports.iter();
        let meant = ports.filter(|port| port.is_meant_by(parent) && port.is_routed());
        meant.map(move |port| (service, port))
    });
    let mut before = None;
    for (service, port) in ports {
        let grpc = match kind {
            RouteKind::Http => world.before_http(namespace, service, port),
            RouteKind::Grpc => None,
        };
        match grpc {
            None => return condition("Accepted", Holds::True, "Accepted", String::new()),
            Some(grpc) => before = before.or(Some(grpc)),
        }
    }
    let (reason, message) = match before {
        Some(grpc) => (
            "Conflicted",
            format!("the GRPCRoute {grpc} is for the same port, where HTTPRoutes then do not count"),
        ),
        None => (
            "NoMatchingParent",
            format!(
                "{} has no such port that carries HTTP, or is not served",
                parent.service
            ),
        ),
    };
    condition("Accepted", Holds::False, reason, message)
}

/// A mesh asks for no ReferenceGrant: the callers could call a backend of another namespace themselves (GEP-1294).
fn resolved(world: &World, object: &RouteObject) -> Condition {
    if let Some(foreign) = &object.foreign {
        return condition("ResolvedRefs", Holds::False, "InvalidKind", foreign);
    }
    match object.route.backends().find_map(|to| unresolved(world, to)) {
        Some(message) => condition("ResolvedRefs", Holds::False, "BackendNotFound", message),
        None => condition("ResolvedRefs", Holds::True, "ResolvedRefs", String::new()),
    }
}

/// Why requests for a backend are answered with 500.
fn unresolved(world: &World, to: &ServicePortName) -> Option<String> {
    let ServicePortName { service, port } = to;
    // What a file gives is known to this node's engine, and not here.
    if world.taken.contains(service) {
        return None;
    }
    let Some(declared) = world.services.get(service) else {
        return Some(format!("{service} does not exist"));
    };
    if let Some(why) = declared.kind.left_alone() {
        return Some(format!("{service} cannot be a backend, {why}"));
    }
    let has_port = declared.ports.iter().any(|declared| declared.port == *port);
    (!has_port).then(|| format!("{service} has no TCP port {port}"))
}

fn with_last_good(fault: &str, is_in_force: bool) -> String {
    match is_in_force {
        true => format!("{fault} (the last good version is in force)"),
        false => fault.to_owned(),
    }
}

fn words(service: &ServiceName, section: Option<&str>) -> String {
    match section {
        Some(section) => format!("port {section} of {service}"),
        None => service.to_string(),
    }
}

impl Verdict {
    /// The status that the object is to have, made from the one that it has; `None` when it has it. What others wrote
    /// into it stays. `now` as the API writes times.
    pub(super) fn merge(&self, had: &Value, now: &str) -> Option<Value> {
        let next = match self.parents.as_slice() {
            [(Value::Null, conditions)] => {
                json!({"conditions": self.conditions(conditions, &had["conditions"], now)})
            }
            parents => {
                let empty = Vec::new();
                let all = had["parents"].as_array().unwrap_or(&empty);
                let is_ours = |entry: &&Value| entry["controllerName"] == CONTROLLER;
                let mut next: Vec<Value> = all.iter().filter(|entry| !is_ours(entry)).cloned().collect();
                for (parent, conditions) in parents {
                    let before = all
                        .iter()
                        .filter(is_ours)
                        .find(|entry| entry["parentRef"] == *parent);
                    let before = before.map_or(&Value::Null, |entry| &entry["conditions"]);
                    next.push(json!({
                        "parentRef": parent,
                        "controllerName": CONTROLLER,
                        "conditions": self.conditions(conditions, before, now),
                    }));
                }
                if next.is_empty() && all.is_empty() {
                    return None;
                }
                json!({"parents": next})
            }
        };
        (next != *had).then_some(next)
    }

    /// A condition keeps the time of its last change of `status`.
    fn conditions(&self, conditions: &[Condition], had: &Value, now: &str) -> Vec<Value> {
        let empty = Vec::new();
        let had = had.as_array().unwrap_or(&empty);
        let written = conditions.iter().map(|condition| {
            let status = match condition.holds {
                Holds::True => "True",
                Holds::False => "False",
            };
            let before = had
                .iter()
                .find(|had| had["type"] == condition.kind && had["status"] == status);
            let since = before
                .and_then(|had| had["lastTransitionTime"].as_str())
                .unwrap_or(now);
            json!({
                "type": condition.kind,
                "status": status,
                "observedGeneration": condition.generation.or(self.generation).unwrap_or_default(),
                "lastTransitionTime": since,
                "reason": condition.reason,
                "message": condition.message,
            })
        });
        written.collect()
    }
}

#[cfg(test)]
mod tests;
