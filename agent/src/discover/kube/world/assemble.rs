//! What is known of a service → the service with its endpoints, policies and routes.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use super::World;
use crate::{
    config::RouteObject,
    discover::kube::{
        attached::{Attached, ObjectName},
        services::{Declared, DeclaredPort},
        slices::{Place, Slices},
    },
    model::{Endpoint, Endpoints, Policy, Route, Service, ServiceName, ServicePort, ServicePortName, Update},
};

impl World {
    /// What has changed since the last call.
    pub(in crate::discover::kube) fn changes(&mut self) -> Vec<Update> {
        let mut updates = Vec::new();
        for name in std::mem::take(&mut self.dirty) {
            match self.assemble(&name) {
                Some(service) => {
                    if self.shown.get(&name).is_none_or(|before| **before != service) {
                        let service = Arc::new(service);
                        self.shown.insert(name, service.clone());
                        updates.push(Update::Service(service));
                    }
                }
                None => {
                    if self.shown.remove(&name).is_some() {
                        updates.push(Update::ServiceGone(name));
                    }
                }
            }
        }
        updates
    }

    fn assemble(&self, name: &ServiceName) -> Option<Service> {
        let declared = self.services.get(name).filter(|_| !self.taken.contains(name))?;
        if declared.kind.left_alone().is_some() {
            return None;
        }
        let endpoints = self
            .endpoints
            .get(name)
            .filter(|watched| watched.seen.is_answered());
        let ports = declared.ports.iter().map(|port| {
            let full_name = ServicePortName {
                service: declared.name.clone(),
                port: port.port,
            };
            let endpoints = match endpoints {
                Some(watched) => self.answering(declared, port, &watched.slices),
                None => Endpoints::Unknown {
                    instead: own_address(declared, port),
                },
            };
            Arc::new(ServicePort {
                policy: self
                    .policy_of(declared, port)
                    .unwrap_or_else(|| self.no_policy.clone()),
                routes: if port.is_routed() {
                    self.routes_of(declared, port)
                } else {
                    Vec::new()
                },
                name: full_name,
                protocol: port.protocol,
                endpoints,
            })
        });
        Some(Service {
            name: declared.name.clone(),
            addresses: declared.addresses().to_vec(),
            ports: ports.collect(),
        })
    }

    /// Who answers for a port, as its slices say it.
    fn answering(&self, declared: &Declared, port: &DeclaredPort, slices: &Slices) -> Endpoints {
        let name = port.name.as_deref();
        let Some(instead) = own_address(declared, port) else {
            // Who is dialled by an endpoint's own address has chosen already.
            return Endpoints::Known(slices.endpoints(name, Place::default()));
        };
        if slices.are_foreign() {
            let why = "its EndpointSlices are written by another than the cluster's controllers: the node decides who answers";
            return Endpoints::LeftToNode { instead, why };
        }
        let place = Place {
            zone: self.zone.as_deref(),
            node: self.node.as_deref(),
        };
        match slices.endpoints(name, place) {
            known if known.is_empty() => Endpoints::LeftToNode {
                instead,
                why: "no endpoint is known: the node decides whether somebody answers",
            },
            known => Endpoints::Known(known),
        }
    }

    /// A policy for this port before one for the whole service.
    fn policy_of(&self, service: &Declared, port: &DeclaredPort) -> Option<Arc<Policy>> {
        let of = |own: bool| {
            self.policies.of(&service.name).find_map(|(_, object)| {
                let mut targets = object
                    .targets
                    .iter()
                    .filter(|target| target.service == service.name);
                let is_own = |section: &str| service.port(section) == Some(port);
                let matches = targets.any(|target| match &target.section {
                    Some(section) => own && is_own(section),
                    None => !own,
                });
                matches.then(|| object.policy.clone())
            })
        };
        of(true).or_else(|| of(false))
    }

    /// All routes of a port, those for single namespaces too. Of each namespace's the routes of one kind: where both are
    /// there, GRPCRoutes (GEP-1426, "Route types").
    fn routes_of(&self, service: &Declared, port: &DeclaredPort) -> Vec<Arc<Route>> {
        let mut routes = attached(&self.grpc_routes, service, port);
        let grpc: BTreeSet<Arc<str>> = routes.iter().map(|route| route.namespace.clone()).collect();
        let http = attached(&self.http_routes, service, port).into_iter();
        routes.extend(http.filter(|route| !grpc.contains(&route.namespace)));
        routes
    }

    /// The GRPCRoute because of which HTTPRoutes of the same namespace do not count at a port.
    pub(in crate::discover::kube) fn before_http(
        &self,
        namespace: &str,
        service: &Declared,
        port: &DeclaredPort,
    ) -> Option<&ObjectName> {
        let mut routes = self.grpc_routes.of(&service.name);
        routes
            .find(|(name, object)| *name.namespace == *namespace && is_for(object, service, port))
            .map(|(name, _)| name)
    }
}

fn attached(routes: &Attached<RouteObject>, service: &Declared, port: &DeclaredPort) -> Vec<Arc<Route>> {
    let objects = routes.of(&service.name).map(|(_, object)| object);
    let attached = objects.filter(|object| is_for(object, service, port));
    attached.map(|object| object.route.clone()).collect()
}

/// Its virtual address: where a caller comes to whoever serves the service without the mesh. `None` for a headless one.
fn own_address(service: &Declared, port: &DeclaredPort) -> Option<Endpoint> {
    let mut addresses = service
        .addresses()
        .iter()
        .map(|ip| SocketAddr::new(*ip, port.port));
    Some(Endpoint {
        other: addresses.clone().nth(1),
        ..Endpoint::new(addresses.next()?)
    })
}

fn is_for(object: &RouteObject, service: &Declared, port: &DeclaredPort) -> bool {
    let mut parents = object
        .parents
        .iter()
        .filter(|parent| parent.service == service.name);
    parents.any(|parent| port.is_meant_by(parent))
}
