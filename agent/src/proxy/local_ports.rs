//! Ports of this node's pods that bound what they take. A pod of the same node that calls one passes the engine once,
//! on its own side: the called pod's bounds are kept there too.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use super::guards::Guards;
use crate::{
    balance::{Breaker, Permit},
    model::{EnrolmentId, InboundLimits, InboundPort, Pod, ServiceName, ServicePortName},
    pool::{Bounds, Held},
    record::{Direction, ScopeKey, Source},
};

/// By address. Empty on most nodes, and then it costs a request one comparison.
#[derive(Debug, Default)]
pub(super) struct LocalPorts(RefCell<HashMap<SocketAddr, Vec<OfPod>>>);

/// In the order in which pods have come to have the address. The first counts: an address is given to a new pod while the
/// old one still ends, and where an address is said by a pod's interfaces, another pod may make it up.
type OfPod = (EnrolmentId, Arc<Guards>);

impl LocalPorts {
    pub(super) fn enrol(
        &self,
        id: EnrolmentId,
        addresses: &[IpAddr],
        guarded: &[(InboundPort, Arc<Guards>)],
    ) {
        let bounded = guarded
            .iter()
            .filter(|(port, _)| port.limits != InboundLimits::default());
        for (port, guards) in bounded {
            let mut ports = self.0.borrow_mut();
            for address in addresses {
                let pods = ports.entry(SocketAddr::new(*address, port.port)).or_default();
                pods.push((id, guards.clone()));
            }
        }
    }

    pub(super) fn withdraw(&self, id: EnrolmentId) {
        self.0.borrow_mut().retain(|_, pods| {
            pods.retain(|(of, _)| *of != id);
            !pods.is_empty()
        });
    }

    /// What bounds calls to `address`; `None` when nothing does.
    pub(super) fn at(&self, address: SocketAddr) -> Option<Bounded> {
        let ports = self.0.borrow();
        if ports.is_empty() {
            return None;
        }
        let (_, guards) = ports.get(&address)?.first()?;
        Some(Bounded(guards.breaker.clone()))
    }
}

/// Calls to one port of a pod, whoever makes them.
#[derive(Clone, Debug)]
pub(super) struct Bounded(Arc<Breaker>);

impl Bounded {
    pub(super) fn request(&self) -> Option<Permit> {
        self.0.request()
    }

    pub(super) fn connection(&self) -> Option<Permit> {
        self.0.connection()
    }

    /// The caller's bounds, and these.
    pub(super) fn and(self, callers: &Rc<dyn Bounds>) -> Rc<dyn Bounds> {
        Rc::new(Both {
            callers: callers.clone(),
            called: self.0,
        })
    }
}

#[derive(Debug)]
struct Both {
    callers: Rc<dyn Bounds>,
    called: Arc<Breaker>,
}

impl Bounds for Both {
    fn connection(&self) -> Option<Held> {
        Some(Held::new((self.callers.connection()?, self.called.connection()?)))
    }

    fn pending(&self) -> Option<Held> {
        self.callers.pending()
    }
}

/// The scope of calls to a port of `pod`, by callers who are not known.
pub(super) fn called(pod: &Pod, port: u16) -> ScopeKey {
    let unknown: Arc<str> = "unknown".into();
    ScopeKey {
        direction: Direction::Inbound,
        source: Source {
            namespace: unknown.clone(),
            workload: unknown,
        },
        destination: ServicePortName {
            service: ServiceName {
                namespace: pod.name.namespace.clone(),
                name: pod.workload.clone(),
            },
            port,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{PodAddresses, PodName, Protocol},
        pool::Unbounded,
        proxy::guards::Registry,
    };

    fn id(generation: u64) -> EnrolmentId {
        EnrolmentId {
            netns_cookie: 7,
            generation,
        }
    }

    fn guarded(registry: &Registry, id: EnrolmentId, pod: &Pod) -> Vec<(InboundPort, Arc<Guards>)> {
        let one = |port: &InboundPort| (*port, registry.inbound(called(pod, port.port), id, &port.limits));
        pod.inbound.iter().map(one).collect()
    }

    fn pod(max_requests: Option<u32>, max_connections: Option<u32>) -> Pod {
        Pod {
            name: PodName {
                namespace: "demo".into(),
                name: "web-1".into(),
            },
            workload: "web".into(),
            netns: "/n".into(),
            addresses: PodAddresses::default(),
            since: None,
            is_ending: false,
            inbound: vec![InboundPort {
                port: 80,
                protocol: Protocol::Http,
                limits: InboundLimits {
                    max_requests,
                    max_connections,
                    ..InboundLimits::default()
                },
            }],
        }
    }

    #[test]
    fn callers_of_the_same_node_share_the_bounds_of_those_from_outside() {
        let (registry, ports) = (Registry::default(), LocalPorts::default());
        let pod = pod(Some(1), Some(1));
        let ip: IpAddr = [10, 0, 0, 1].into();
        let guarded = guarded(&registry, id(1), &pod);
        ports.enrol(id(1), &[ip], &guarded);
        let from_outside = &guarded[0].1;

        let bounded = ports.at(SocketAddr::new(ip, 80)).unwrap();
        let held = from_outside.breaker.request().unwrap();
        assert!(bounded.request().is_none());
        drop(held);
        assert!(bounded.request().is_some());

        let callers: Rc<dyn Bounds> = Rc::new(Unbounded);
        let both = bounded.and(&callers);
        let held = both.connection().unwrap();
        assert!(from_outside.breaker.connection().is_none() && both.connection().is_none());
        drop(held);
        assert!(from_outside.breaker.connection().is_some());

        assert!(ports.at(SocketAddr::new(ip, 81)).is_none());
        ports.enrol(id(2), &[ip], &guarded);
        ports.withdraw(id(1));
        assert!(
            ports.at(SocketAddr::new(ip, 80)).is_some(),
            "of the next enrolment"
        );
        ports.withdraw(id(2));
        assert!(ports.at(SocketAddr::new(ip, 80)).is_none());
    }

    #[test]
    fn an_address_counts_for_the_pod_that_had_it_first() {
        let (registry, ports) = (Registry::default(), LocalPorts::default());
        let (first, second) = (id(1), id(2));
        let ip: IpAddr = [10, 0, 0, 1].into();
        let mut other = pod(Some(0), None);
        other.name.name = "web-2".into();
        ports.enrol(first, &[ip], &guarded(&registry, first, &pod(Some(1), None)));
        ports.enrol(second, &[ip], &guarded(&registry, second, &other));
        let is_free = || ports.at(SocketAddr::new(ip, 80)).unwrap().request().is_some();
        assert!(is_free());
        ports.withdraw(first);
        assert!(!is_free());
    }

    #[test]
    fn a_port_without_bounds_is_not_looked_for() {
        let (registry, ports) = (Registry::default(), LocalPorts::default());
        let guarded = guarded(&registry, id(1), &pod(None, None));
        ports.enrol(id(1), &[[10, 0, 0, 1].into()], &guarded);
        assert!(ports.at(([10, 0, 0, 1], 80).into()).is_none());
    }
}
