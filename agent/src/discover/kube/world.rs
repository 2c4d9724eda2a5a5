//! All that the API server has told → the services as the engine wants them. Pure: events in, updates out.

mod assemble;
mod faults;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    attached::{Attached, Fault, ObjectName, Reach},
    demand::Users,
    objects,
    seen::Seen,
    services::{self, Declared, Kind},
    shares,
    slices::{Slices, Zones},
    watch::Event,
};
use crate::{
    config::{self, PolicyObject, RouteObject},
    model::{Policy, RouteKind, Service, ServiceName},
};

#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) services: BTreeMap<ServiceName, Declared>,
    pub(super) policies: Attached<PolicyObject>,
    pub(super) http_routes: Attached<RouteObject>,
    pub(super) grpc_routes: Attached<RouteObject>,
    /// Of the services whose endpoints are watched. In force only when a list was whole.
    pub(super) endpoints: HashMap<ServiceName, Watched>,
    zones: Zones,
    /// The node's own.
    zone: Option<Arc<str>>,
    /// The node's name.
    node: Option<Arc<str>>,
    seen: SeenKinds,
    /// Services that a file gives: those are the file's.
    pub(super) taken: Arc<BTreeSet<ServiceName>>,
    /// What was told last.
    shown: HashMap<ServiceName, Arc<Service>>,
    dirty: BTreeSet<ServiceName>,
    /// Of all ports that none is for.
    no_policy: Arc<Policy>,
}

#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) slices: Slices,
    seen: Seen<Box<str>>,
}

#[derive(Debug, Default)]
struct SeenKinds {
    services: Seen<ServiceName>,
    policies: Seen<ObjectName>,
    http_routes: Seen<ObjectName>,
    grpc_routes: Seen<ObjectName>,
}

impl World {
    /// In which zone the node is.
    pub(super) fn zone(&self) -> Option<&Arc<str>> {
        self.zone.as_ref()
    }

    pub(super) fn set_node(&mut self, name: Option<Arc<str>>) {
        self.node = name;
    }

    pub(super) fn set_zone(&mut self, zone: Option<Arc<str>>) {
        if self.zone != zone {
            self.zone = zone;
            self.dirty.extend(self.endpoints.keys().cloned());
        }
    }

    pub(super) fn service(&mut self, event: Event<objects::Service>) {
        let seen = &mut self.seen.services;
        match event {
            Event::Listing => seen.begin(),
            Event::Absent => seen.absent(),
            Event::Applied(object) => {
                let name = services::name(&object.metadata);
                seen.see(name.clone());
                let declared = Declared::from_object(&object);
                let before = match declared.clone() {
                    Some(declared) => self.services.insert(name.clone(), declared),
                    None => self.services.remove(&name),
                };
                if before != declared {
                    self.dirty.insert(name);
                }
            }
            Event::Gone(object) => {
                let name = services::name(&object.metadata);
                seen.lose(&name);
                self.services.remove(&name);
                self.dirty.insert(name);
            }
            Event::Listed => {
                for name in seen.end(self.services.keys()) {
                    self.services.remove(&name);
                    self.dirty.insert(name);
                }
            }
        }
    }

    pub(super) fn policy(&mut self, event: Event<objects::TrafficPolicy>) {
        let judge = |object: &objects::TrafficPolicy| {
            let read = config::traffic_policy(&object.metadata.namespace, object.spec.clone());
            read.map(Some).map_err(|error| Fault {
                message: error.one_line(),
                reach: Reach::Whole,
                parents: Vec::new(),
            })
        };
        let changed = attach(
            event,
            &mut self.policies,
            &mut self.seen.policies,
            |object| &object.metadata,
            judge,
        );
        self.dirty.extend(changed);
    }

    /// An event of a kind of route, with what was read of it.
    pub(super) fn route(&mut self, (kind, event): shares::Told) {
        let (routes, seen) = match kind {
            RouteKind::Http => (&mut self.http_routes, &mut self.seen.http_routes),
            RouteKind::Grpc => (&mut self.grpc_routes, &mut self.seen.grpc_routes),
        };
        let changed = attach(
            event,
            routes,
            seen,
            |judged| &judged.route.metadata,
            |judged| judged.read.clone(),
        );
        self.dirty.extend(changed);
    }

    /// A service's endpoints are watched from now on.
    pub(super) fn watch_endpoints(&mut self, service: &ServiceName) {
        self.endpoints.entry(service.clone()).or_default();
    }

    /// They are watched no longer: who answers for it is unknown again.
    pub(super) fn forget_endpoints(&mut self, service: &ServiceName) {
        self.endpoints.remove(service);
        self.dirty.insert(service.clone());
    }

    /// Of a service whose endpoints are not watched any more it comes too late.
    pub(super) fn slice(&mut self, service: &ServiceName, event: Event<objects::EndpointSlice>) {
        let Some(Watched { slices, seen }) = self.endpoints.get_mut(service) else {
            return;
        };
        let changed = match event {
            Event::Listing => {
                seen.begin();
                false
            }
            Event::Absent => false,
            Event::Applied(object) => {
                seen.see(object.metadata.name.as_str().into());
                slices.set(&object, &mut self.zones)
            }
            Event::Gone(object) => {
                seen.lose(&*object.metadata.name);
                slices.remove(&object.metadata.name)
            }
            Event::Listed => {
                let first = !seen.is_answered();
                let known: Vec<Box<str>> = slices.names().map(Box::from).collect();
                let gone = seen.end(known.iter());
                // Each is removed, so this must not stop at the first.
                let removed = gone.iter().filter(|name| slices.remove(name)).count();
                first || removed > 0
            }
        };
        if changed && seen.is_answered() {
            self.dirty.insert(service.clone());
        }
    }

    /// Services that a file gives from now on.
    pub(super) fn taken(&mut self, by_file: Arc<BTreeSet<ServiceName>>) {
        let changed = self.taken.symmetric_difference(&by_file).cloned();
        self.dirty.extend(changed);
        // What a file has taken is not this source's to withdraw.
        for service in by_file.difference(&self.taken) {
            self.shown.remove(service);
        }
        self.taken = by_file;
    }

    /// Whether all kinds have been listed, so that a service is not shown without its policy.
    pub(super) fn is_whole(&self) -> bool {
        let SeenKinds {
            services,
            policies,
            http_routes,
            grpc_routes,
        } = &self.seen;
        services.is_answered()
            && policies.is_answered()
            && http_routes.is_answered()
            && grpc_routes.is_answered()
    }

    pub(super) fn has_services(&self) -> bool {
        self.seen.services.is_answered()
    }

    /// The services whose endpoints must be known when those in `used` are: these, the backends of the routes that count
    /// for who uses them, and headless services that a policy or a route is for, since only by their endpoints' addresses
    /// are they seen to be dialled. Headless ones and backends are wanted by the namespace whose policies and routes
    /// these are.
    pub(super) fn wanted(&self, used: Users) -> Users {
        let mut wanted = used;
        let policies = self.policies.namespaces();
        let routes = self.http_routes.namespaces().chain(self.grpc_routes.namespaces());
        for (name, by) in policies.chain(routes) {
            let declared = self.services.get(name);
            if declared.is_some_and(|declared| declared.kind == Kind::Headless) {
                wanted.entry(name.clone()).or_default().insert(by.clone());
            }
        }
        let mut behind: Vec<(ServiceName, Arc<str>)> = Vec::new();
        for (name, users) in &wanted {
            let routes = self.http_routes.of(name).chain(self.grpc_routes.of(name));
            for (_, object) in routes {
                let by = &object.route.namespace;
                // A consumer's route is for callers of its own namespace.
                if *by == name.namespace || users.contains(by) {
                    behind.extend(object.route.backends().map(|to| (to.service.clone(), by.clone())));
                }
            }
        }
        for (name, by) in behind {
            wanted.entry(name).or_default().insert(by);
        }
        wanted.retain(|name, _| {
            let declared = self.services.get(name);
            !self.taken.contains(name)
                && declared.is_some_and(|declared| declared.kind.left_alone().is_none())
        });
        wanted
    }
}

/// Takes an event of a kind that is attached to services; the services for which that changes something.
fn attach<O: serde::Serialize, T: super::attached::Attaches + PartialEq>(
    event: Event<O>,
    attached: &mut Attached<T>,
    seen: &mut Seen<ObjectName>,
    meta: impl Fn(&O) -> &objects::Meta,
    judge: impl Fn(&O) -> Result<Option<T>, Fault>,
) -> BTreeSet<ServiceName> {
    match event {
        Event::Listing => seen.begin(),
        Event::Absent => seen.absent(),
        Event::Applied(object) => {
            seen.see(ObjectName::of(meta(&object)));
            return attached.set(meta(&object), judge(&object), &object);
        }
        Event::Gone(object) => {
            let name = ObjectName::of(meta(&object));
            seen.lose(&name);
            return attached.remove(&name);
        }
        Event::Listed => {
            let known: Vec<ObjectName> = attached.names().cloned().collect();
            let gone = seen.end(known.iter());
            return gone.iter().flat_map(|name| attached.remove(name)).collect();
        }
    }
    BTreeSet::new()
}

#[cfg(test)]
mod tests;
