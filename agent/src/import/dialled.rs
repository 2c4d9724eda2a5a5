//! What routes say of calls as a whole: it belongs to the policy of the service that is dialled, wherever they lead.

use std::collections::{BTreeMap, btree_map::Entry};

use serde_json::{Map, Value, json};

use super::{NoteKind, fields::put, names::Named, route::Route};

/// A service, and its port or all of it.
pub(super) type Target = (Named, Option<u64>);

/// The sections of a policy that count at the service that is dialled, and not at a route's backend.
#[derive(Debug, PartialEq)]
struct Dialled {
    retry: Map<String, Value>,
    timeouts: Map<String, Value>,
}

/// All that are dialled.
#[derive(Debug, Default)]
pub(super) struct DialledServices(BTreeMap<Target, Dialled>);

impl DialledServices {
    /// What a route says of retries, silence and `timeouts` belongs to the policy of the service that is dialled. The
    /// first route's does; for one that retries otherwise, the rule's own `retry` is given back.
    pub(super) fn dial(
        &mut self,
        key: Target,
        route: &Route<'_>,
        mut timeouts: Map<String, Value>,
    ) -> Option<Value> {
        put(&mut timeouts, "idle", route.idle.clone());
        let retry = route
            .retry
            .as_ref()
            .map_or_else(never, |retry| retry.policy.clone());
        let first = match self.0.entry(key) {
            Entry::Vacant(place) => {
                place.insert(Dialled { retry, timeouts });
                return None;
            }
            Entry::Occupied(first) => first,
        };
        if first.get().timeouts != timeouts {
            route.node.remark(
                NoteKind::Differs,
                "another route of the same service has other timeouts, which count",
            );
        }
        if first.get().retry == retry {
            return None;
        }
        let Some(retry) = &route.retry else {
            return Some(json!({"attempts": 0}));
        };
        if !retry.covers_a_rule() {
            if retry.policy != never() {
                retry.node.remark(
                    NoteKind::NoEquivalent,
                    "another route of the same service retries otherwise, and a rule's own retries send again what an \
                     endpoint may have acted on, which this one does not: this rule retries nothing",
                );
            }
            return Some(json!({"attempts": 0}));
        }
        match retry.beyond_a_rule().as_slice() {
            [] => retry.node.remark(
                NoteKind::Differs,
                "another route of the same service retries otherwise: this rule has attempts, statuses and the least \
                 back-off of its own, and the rest from there",
            ),
            conditions => retry.node.remark(
                NoteKind::NoEquivalent,
                format!(
                    "another route of the same service retries otherwise, and a rule's own retries have no condition \
                     like {}",
                    conditions.join(", ")
                ),
            ),
        }
        Some(retry.of_rule())
    }

    /// Adds to a policy what the routes say that are dialled at its service. Without any, nothing is retried.
    pub(super) fn tell(&mut self, target: &Target, policy: &mut Map<String, Value>) {
        let dialled = self.0.remove(target);
        let (retry, timeouts) = dialled.map_or_else(|| (never(), Map::new()), |d| (d.retry, d.timeouts));
        merge(policy, "timeouts", timeouts);
        merge(policy, "retry", retry);
    }

    /// One that nobody was told of yet.
    pub(super) fn next(&self) -> Option<Target> {
        self.0.keys().next().cloned()
    }
}

/// A cluster whose routes have no retry policy.
pub(super) fn never() -> Map<String, Value> {
    Map::from_iter([("attempts".to_owned(), json!(0))])
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
