//! Policies and routes, and the services that they are for.
//!
//! Each object is judged alone. One with a fault leaves its last good version in force, and where there was none,
//! what of it is good.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use serde_json::Value;

use super::objects::Meta;
use crate::{
    config::{PolicyObject, RouteObject},
    model::ServiceName,
};

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ObjectName {
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
}

impl ObjectName {
    pub(super) fn of(meta: &Meta) -> Self {
        Self {
            namespace: meta.namespace.as_str().into(),
            name: meta.name.as_str().into(),
        }
    }
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Of two objects that say different things of the same, the older one counts, then the first by name (Gateway API,
/// "Conflict resolution" of policy attachment).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Precedence {
    created: String,
    name: ObjectName,
}

/// What an object is for.
pub(super) trait Attaches {
    fn services(&self) -> BTreeSet<ServiceName>;

    /// The fault because of which a part of it is not in force.
    fn fault_in_part(&self) -> Option<Fault> {
        None
    }
}

impl Attaches for PolicyObject {
    fn services(&self) -> BTreeSet<ServiceName> {
        self.targets.iter().map(|target| target.service.clone()).collect()
    }
}

impl Attaches for RouteObject {
    fn services(&self) -> BTreeSet<ServiceName> {
        self.parents.iter().map(|parent| parent.service.clone()).collect()
    }

    fn fault_in_part(&self) -> Option<Fault> {
        Some(Fault {
            message: self.dropped.clone()?,
            reach: Reach::Part,
            parents: self.parents.iter().map(|parent| parent.written.clone()).collect(),
        })
    }
}

#[derive(Clone, Debug)]
pub(super) struct Entry<T> {
    pub(super) precedence: Precedence,
    pub(super) generation: Option<i64>,
    /// The version that is in force: the last good one, or else the newest with what of it is good.
    pub(super) good: Option<Arc<T>>,
    pub(super) good_generation: Option<i64>,
    /// Why the newest version is not in force.
    pub(super) fault: Option<Fault>,
    /// The object as it was when `good` was read, to be saved.
    saved: Value,
}

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) reach: Reach,
    /// The services of a route's `parentRefs`, as they are written: who is told.
    pub(super) parents: Vec<Value>,
}

/// How much of an object a fault takes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Whole,
    /// Some of a route's rules. Where an earlier version had no such fault, that one stays in force instead.
    Part,
    /// Its namespace has no room for it: the last good version is not in force either.
    OverShare,
}

impl<T: Attaches> Entry<T> {
    /// To which it is attached.
    fn services(&self) -> BTreeSet<ServiceName> {
        self.good.as_ref().map(|good| good.services()).unwrap_or_default()
    }
}

/// All objects of one kind.
#[derive(Debug)]
pub(super) struct Attached<T> {
    entries: BTreeMap<ObjectName, Entry<T>>,
    by_service: HashMap<ServiceName, BTreeSet<Precedence>>,
}

impl<T> Default for Attached<T> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            by_service: HashMap::new(),
        }
    }
}

impl<T: Attaches + PartialEq> Attached<T> {
    /// Takes the newest version of an object; the services for which that changes something. `judged` is `Ok(None)`
    /// for an object that is none of the mesh's business.
    pub(super) fn set(
        &mut self,
        meta: &Meta,
        judged: Result<Option<T>, Fault>,
        object: &impl serde::Serialize,
    ) -> BTreeSet<ServiceName> {
        let name = ObjectName::of(meta);
        let had = self.entries.get(&name).and_then(|entry| entry.good.as_ref());
        let had_whole = had.is_some_and(|had| had.fault_in_part().is_none());
        let (good, fault) = match judged {
            Ok(None) => return self.remove(&name),
            Ok(Some(newest)) => match newest.fault_in_part() {
                Some(fault) if had_whole => (None, Some(fault)),
                fault => (Some(Arc::new(newest)), fault),
            },
            Err(fault) => (None, Some(fault)),
        };
        let mut before = self.entries.remove(&name);
        let mut changed = self.detach(before.as_ref());
        if let Some(before) = &mut before
            && fault
                .as_ref()
                .is_some_and(|fault| fault.reach == Reach::OverShare)
        {
            before.good = None;
        }
        let precedence = Precedence {
            created: meta.creation_timestamp.clone().unwrap_or_default(),
            name: name.clone(),
        };
        if let Some(fault) = &fault
            && before.as_ref().and_then(|before| before.fault.as_ref()) != Some(fault)
        {
            let error = &fault.message;
            if good.is_some() {
                tracing::warn!(object = %name, error, "object in force in part");
            } else {
                let in_force = before.as_ref().is_some_and(|before| before.good.is_some());
                tracing::warn!(object = %name, error, last_good_in_force = in_force, "object refused");
            }
        }
        let saved = match (&good, &before) {
            (None, Some(before)) => before.saved.clone(),
            // What was read can be written.
            _ => serde_json::to_value(object).unwrap_or_default(),
        };
        let same = good.is_some() && good == before.as_ref().and_then(|before| before.good.clone());
        let entry = Entry {
            precedence,
            generation: meta.generation,
            good_generation: match &good {
                Some(_) => meta.generation,
                None => before.as_ref().and_then(|before| before.good_generation),
            },
            good: good.or_else(|| before.as_ref().and_then(|before| before.good.clone())),
            fault,
            saved,
        };
        let same = same
            && before
                .as_ref()
                .is_some_and(|before| before.precedence == entry.precedence);
        let attached = self.attach(&entry);
        self.entries.insert(name, entry);
        if same {
            return BTreeSet::new();
        }
        changed.extend(attached);
        changed
    }

    pub(super) fn remove(&mut self, name: &ObjectName) -> BTreeSet<ServiceName> {
        let before = self.entries.remove(name);
        self.detach(before.as_ref())
    }

    fn attach(&mut self, entry: &Entry<T>) -> BTreeSet<ServiceName> {
        let services = entry.services();
        for service in &services {
            let of = self.by_service.entry(service.clone()).or_default();
            of.insert(entry.precedence.clone());
        }
        services
    }

    fn detach(&mut self, entry: Option<&Entry<T>>) -> BTreeSet<ServiceName> {
        let Some(entry) = entry else {
            return BTreeSet::new();
        };
        let services = entry.services();
        for service in &services {
            if let Some(of) = self.by_service.get_mut(service) {
                of.remove(&entry.precedence);
                if of.is_empty() {
                    self.by_service.remove(service);
                }
            }
        }
        services
    }

    /// The good objects that are for a service, those that win first.
    pub(super) fn of(&self, service: &ServiceName) -> impl Iterator<Item = (&ObjectName, &Arc<T>)> {
        let of = self.by_service.get(service).into_iter().flatten();
        of.filter_map(|precedence| {
            let good = self.entries.get(&precedence.name)?.good.as_ref()?;
            Some((&precedence.name, good))
        })
    }

    /// The services that any object is for, with the namespace of each object.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = (&ServiceName, &Arc<str>)> {
        self.by_service.iter().flat_map(|(service, objects)| {
            objects
                .iter()
                .map(move |object| (service, &object.name.namespace))
        })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &ObjectName> {
        self.entries.keys()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&ObjectName, &Entry<T>)> {
        self.entries.iter()
    }

    /// The objects whose last good versions are in force, as they were read.
    pub(super) fn saved(&self) -> Vec<&Value> {
        let good = self.entries.values().filter(|entry| entry.good.is_some());
        good.map(|entry| &entry.saved).collect()
    }
}
