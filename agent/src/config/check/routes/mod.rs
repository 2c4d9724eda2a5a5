//! The section `routes`: which routes a port has.

mod matches;
mod filters;
mod cors;
mod rules;
mod targets;
mod values;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
};

use self::targets::Targets;
use super::words;
use crate::{
    config::{
        error::{At, Faults},
        schema,
    },
    model::{Route, RouteKind, Service, ServicePortName},
};

/// The routes of each port, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Routes(HashMap<ServicePortName, Vec<Arc<Route>>>);

impl Routes {
    /// Gives each port its routes.
    pub(super) fn attach(mut self, services: &mut [Arc<Service>]) {
        for service in services {
            if !service.ports.iter().any(|port| self.0.contains_key(&port.name)) {
                continue;
            }
            for port in &mut Arc::make_mut(service).ports {
                if let Some(routes) = self.0.remove(&port.name) {
                    Arc::make_mut(port).routes = routes;
                }
            }
        }
    }
}

pub(super) fn check(
    routes: &[schema::route::Route],
    services: &[schema::Service],
    faults: &mut Faults,
) -> Routes {
    let targets = Targets::new(services);
    let section = At::Section("routes");
    let mut attached = Routes::default();
    let mut names = BTreeSet::new();
    for (index, route) in routes.iter().enumerate() {
        let at = section.item(index);
        let kind = words::word(&route.kind, KINDS, kind_word, at.field("kind"), faults);
        // Faults in them are told; they are names all the same.
        words::label(&route.name, at.field("name"), faults);
        words::label(&route.namespace, at.field("namespace"), faults);
        // Without a kind nothing can be said about what its rules may have.
        let Some(kind) = kind else { continue };
        let scope = Scope {
            kind,
            namespace: &route.namespace,
            targets: &targets,
        };
        let checked = one(route, 0, scope, at, faults);
        if !names.insert((checked.kind, checked.namespace.clone(), checked.name.clone())) {
            let value = format!("{}/{}", checked.namespace, checked.name);
            let remedy = "rename or remove one of the two";
            faults.add(at.field("name"), value, "is there already", remedy);
        }
        let parents = at.field("parentRefs");
        attached.add(&checked, &route.parent_refs, scope, parents, faults);
    }
    attached
}

/// A route of an API server by itself. Which services and ports there are is not looked at.
pub(in crate::config) fn alone(
    route: &schema::route::Route,
    kind: RouteKind,
    created: u64,
    at: At<'_>,
    faults: &mut Faults,
) -> Arc<Route> {
    let targets = Targets::unseen();
    let scope = Scope {
        kind,
        namespace: &route.namespace,
        targets: &targets,
    };
    one(route, created, scope, at, faults)
}

/// What does not depend on the route's parents.
fn one(
    route: &schema::route::Route,
    created: u64,
    scope: Scope<'_>,
    at: At<'_>,
    faults: &mut Faults,
) -> Arc<Route> {
    Arc::new(Route {
        kind: scope.kind,
        namespace: route.namespace.as_str().into(),
        name: route.name.as_str().into(),
        created,
        rules: rules::check(&route.rules, scope, at.field("rules"), faults),
    })
}

/// What the parts of a route have to know of it.
#[derive(Clone, Copy)]
struct Scope<'a> {
    kind: RouteKind,
    namespace: &'a str,
    targets: &'a Targets<'a>,
}

impl Routes {
    fn add(
        &mut self,
        route: &Arc<Route>,
        parents: &[schema::route::Ref],
        scope: Scope<'_>,
        section: At<'_>,
        faults: &mut Faults,
    ) {
        if parents.is_empty() {
            let remedy = "name at least one service, or remove the route";
            faults.add(section, "[]", "names no parent", remedy);
        }
        for (index, parent) in parents.iter().enumerate() {
            let at = section.item(index);
            for port in scope.targets.parent(parent, scope.namespace, at, faults) {
                self.add_to_port(port, route, at, faults);
            }
        }
    }

    fn add_to_port(&mut self, port: ServicePortName, route: &Arc<Route>, at: At<'_>, faults: &mut Faults) {
        let routes = match self.0.entry(port) {
            Entry::Vacant(entry) => {
                entry.insert(vec![route.clone()]);
                return;
            }
            Entry::Occupied(entry) => entry,
        };
        // Routes of another namespace are for other callers.
        let other_kind = |had: &&Arc<Route>| had.namespace == route.namespace && had.kind != route.kind;
        if routes.get().iter().any(|had| Arc::ptr_eq(had, route)) {
            let remedy = "name each port once, or the service once without a port";
            faults.add(at, routes.key(), "is a parent already", remedy);
        } else if let Some(had) = routes.get().iter().find(other_kind) {
            let fault = format!(
                "has the {} {}/{} already, and one kind counts alone",
                kind_word(&had.kind),
                had.namespace,
                had.name
            );
            let remedy = "use one kind of route for each port; an HTTPRoute can match gRPC calls by path";
            faults.add(at, routes.key(), fault, remedy);
        } else {
            routes.into_mut().push(route.clone());
        }
    }
}

pub(in crate::config) const KINDS: [RouteKind; 2] = [RouteKind::Http, RouteKind::Grpc];

pub(in crate::config) fn kind_word(kind: &RouteKind) -> &'static str {
    match kind {
        RouteKind::Http => "HTTPRoute",
        RouteKind::Grpc => "GRPCRoute",
    }
}
