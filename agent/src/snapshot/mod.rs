//! Updates → the next immutable view. A pure reducer: nothing here waits, and `now` is an argument.
//!
//! The parts of a view are persistent maps: the next view shares with the last whatever did not change, and the
//! difference of two views costs what the difference is large.

mod destination;
mod claims;
mod health;
mod slots;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Instant};

use claims::Claims;
pub use destination::{Destination, Target};
use health::Health;
use imbl::OrdMap;
use slots::Slots;

use crate::{
    model::{
        AnsweredBy, DestinationId, Endpoint, EndpointState, Endpoints, GroupId, Pod, PodName, Protocol,
        Service, ServiceName, ServicePort, ServicePortName, Slot, Update,
    },
    route::{self, Table, Tables},
};

/// Everything that a worker needs to know of the world, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts up with every change.
    pub version: u64,
    /// The zone of this node; `None` when nobody said.
    pub zone: Option<Arc<str>>,
    pub pods: OrdMap<Slot, Arc<Pod>>,
    /// Pods of strict namespaces that are to be enrolled, whether their network is known yet or not, and their control
    /// groups.
    pub strict: OrdMap<PodName, GroupId>,
    pub ports: OrdMap<ServicePortName, Arc<ServicePort>>,
    /// The compiled routes of those ports that have any.
    pub tables: OrdMap<ServicePortName, Arc<Tables>>,
    /// What a redirected address stands for.
    pub destinations: OrdMap<DestinationId, Destination>,
}

impl Snapshot {
    /// The routes of a port that count for callers of `namespace`.
    pub fn table(&self, port: &ServicePortName, namespace: &str) -> Option<Arc<Table>> {
        self.tables.get(port)?.for_callers_of(namespace).cloned()
    }
}

/// Why an update was not taken. The rest of its batch is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("pod {0}: this node already has as many pods as there are slots ({max})", max = crate::model::MAX_SLOTS)]
    NoSlot(PodName),
    #[error("{0}: no destination id is free")]
    NoDestination(SocketAddr),
}

/// Takes updates and keeps what the next view is made from.
#[derive(Debug, Default)]
pub struct Reducer {
    view: Snapshot,
    services: BTreeMap<ServiceName, Arc<Service>>,
    health: Health,
    slots: Slots,
    claims: Claims,
}

impl Reducer {
    /// The view as it stands.
    pub fn view(&self) -> Arc<Snapshot> {
        Arc::new(self.view.clone())
    }

    /// Takes one batch; the view changes once, by all of it. Work is in proportion to the batch.
    pub fn apply(&mut self, updates: Vec<Update>, now: Instant) -> Vec<Refused> {
        let mut refused = Vec::new();
        for update in updates {
            match update {
                Update::Pod(pod) => match self.slots.take(&pod.name) {
                    Some(slot) => {
                        let namespace = pod.name.namespace.clone();
                        if self.view.pods.insert(slot, pod).is_none() {
                            let changed = self.claims.pod_comes(&namespace);
                            self.show_destinations(changed);
                        }
                    }
                    None => refused.push(Refused::NoSlot(pod.name.clone())),
                },
                Update::PodGone(name) => {
                    if let Some(slot) = self.slots.release(&name) {
                        self.view.pods.remove(&slot);
                        let changed = self.claims.pod_goes(&name.namespace);
                        self.show_destinations(changed);
                    }
                }
                Update::Strict(name, group) => match group {
                    Some(group) => drop(self.view.strict.insert(name, group)),
                    None => drop(self.view.strict.remove(&name)),
                },
                Update::Zone(zone) => self.view.zone = zone,
                Update::Service(service) => self.set_service(&service, now, &mut refused),
                Update::Health {
                    port,
                    endpoint,
                    state,
                } => self.set_health(&port, endpoint, state),
                Update::ServiceGone(name) => {
                    if let Some(old) = self.services.remove(&name) {
                        self.remove_ports(&old, |_| false);
                        self.replace_claims(&old, None, now, &mut refused);
                    }
                }
            }
        }
        self.view.version += 1;
        refused
    }

    /// Forgets destinations that have been gone for long. True when the view changed.
    pub fn expire(&mut self, now: Instant) -> bool {
        let expired = self.claims.expire(now);
        for id in &expired {
            self.view.destinations.remove(id);
        }
        if !expired.is_empty() {
            self.view.version += 1;
        }
        !expired.is_empty()
    }

    fn set_service(&mut self, service: &Arc<Service>, now: Instant, refused: &mut Vec<Refused>) {
        let old = self.services.insert(service.name.clone(), service.clone());
        if let Some(old) = &old {
            self.remove_ports(old, |name| service.ports.iter().any(|p| p.name == *name));
        }
        for port in &service.ports {
            self.health.follow(port);
            let shown = self.health.show(port);
            // An unchanged port keeps its allocation, by which workers know that it is unchanged.
            if self.view.ports.get(&port.name).is_none_or(|had| **had != *shown) {
                let had = self.view.ports.get(&port.name);
                if had.is_none_or(|had| !route::are_same(&had.routes, &shown.routes)) {
                    let before = self.view.tables.get(&port.name).map(|tables| &**tables);
                    match Tables::of(&shown, before) {
                        None => drop(self.view.tables.remove(&port.name)),
                        Some(tables) => drop(self.view.tables.insert(port.name.clone(), Arc::new(tables))),
                    }
                }
                self.view.ports.insert(port.name.clone(), shown);
            }
        }
        match old {
            Some(old) => self.replace_claims(&old, Some(service), now, refused),
            None => self.replace_claims(service, Some(service), now, refused),
        }
    }

    /// A verdict about an endpoint that is not there, or that nobody wants checked, comes too late.
    fn set_health(&mut self, name: &ServicePortName, endpoint: SocketAddr, state: EndpointState) {
        let service = self.services.get(&name.service);
        let Some(port) = service.and_then(|s| s.ports.iter().find(|p| p.name == *name)) else {
            return;
        };
        if self.health.set(port, endpoint, state) {
            self.view.ports.insert(name.clone(), self.health.show(port));
        }
    }

    /// Destinations as they are now, after the ports that claim them.
    fn show_destinations(&mut self, changed: impl IntoIterator<Item = (DestinationId, Destination)>) {
        for (id, mut destination) in changed {
            let mut all = destination.claimants().map(|name| {
                let port = self.view.ports.get(name);
                port.map_or(AnsweredBy::Agent, |port| answered_by(port))
            });
            let first = all.next().unwrap_or_default();
            let agreed = all.all(|other| other == first).then_some(first);
            drop(all);
            destination.answered_by = agreed.unwrap_or_default();
            if self.view.destinations.get(&id) != Some(&destination) {
                self.view.destinations.insert(id, destination);
            }
        }
    }

    fn remove_ports(&mut self, service: &Service, keep: impl Fn(&ServicePortName) -> bool) {
        for port in service.ports.iter().filter(|p| !keep(&p.name)) {
            self.view.ports.remove(&port.name);
            self.view.tables.remove(&port.name);
            self.health.forget(&port.name);
        }
    }

    /// `old`'s claims that `new` does not repeat end; `new`'s begin; the view follows.
    fn replace_claims(
        &mut self,
        old: &Service,
        new: Option<&Service>,
        now: Instant,
        refused: &mut Vec<Refused>,
    ) {
        let wanted: BTreeMap<_, _> = new.map(addresses).unwrap_or_default();
        for address in addresses(old).into_keys().filter(|a| !wanted.contains_key(a)) {
            let changed = self.claims.withdraw(address, &old.name, now);
            self.show_destinations(changed);
        }
        for (address, target) in wanted {
            match self.claims.claim(address, target) {
                Some(changed) => self.show_destinations([changed]),
                None => refused.push(Refused::NoDestination(address)),
            }
        }
    }
}

/// Of bytes in both directions nothing can be said when there is nobody to send them to, so that the kernel decides.
fn answered_by(port: &ServicePort) -> AnsweredBy {
    match (port.protocol, &port.endpoints) {
        (Protocol::Tcp, Endpoints::Known(known)) if known.is_empty() => AnsweredBy::Nobody,
        (Protocol::Tcp, Endpoints::LeftToNode { .. }) => AnsweredBy::Node,
        _ => AnsweredBy::Agent,
    }
}

/// The addresses that a service answers on, and as what. A virtual address wins over an endpoint's.
fn addresses(service: &Service) -> BTreeMap<SocketAddr, Target> {
    let mut all = BTreeMap::new();
    for port in &service.ports {
        for address in port.endpoints.iter().flat_map(Endpoint::addresses) {
            all.entry(address)
                .or_insert_with(|| Target::Endpoint(port.name.clone()));
        }
    }
    for port in &service.ports {
        for address in &service.addresses {
            all.insert(
                SocketAddr::new(*address, port.name.port),
                Target::Service(port.name.clone()),
            );
        }
    }
    all
}

#[cfg(test)]
mod tests;
