//! What active checks say, beside what discovery says; the worse counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use crate::model::{EndpointState, ServicePort, ServicePortName};

/// The endpoints that fail their checks. Each is one that discovery names, of a port whose policy has a check: with
/// the endpoint or the check its state is forgotten.
#[derive(Debug, Default)]
pub(super) struct Health(BTreeMap<ServicePortName, BTreeSet<SocketAddr>>);

impl Health {
    /// Takes a verdict about an endpoint of `port`, as discovery last described it. True when it is news.
    pub(super) fn set(&mut self, port: &ServicePort, endpoint: SocketAddr, state: EndpointState) -> bool {
        let known = port.endpoints.iter().any(|e| e.address == endpoint);
        if !known || port.policy.health_check.is_none() {
            return false;
        }
        if state != EndpointState::Ready {
            return self.0.entry(port.name.clone()).or_default().insert(endpoint);
        }
        let Some(failing) = self.0.get_mut(&port.name) else {
            return false;
        };
        let was_there = failing.remove(&endpoint);
        if failing.is_empty() {
            self.0.remove(&port.name);
        }
        was_there
    }

    /// Discovery describes `port` anew: what is said of endpoints that it no longer names is forgotten.
    pub(super) fn follow(&mut self, port: &ServicePort) {
        let Some(failing) = self.0.get_mut(&port.name) else {
            return;
        };
        if port.policy.health_check.is_some() {
            failing.retain(|address| port.endpoints.iter().any(|e| e.address == *address));
        } else {
            failing.clear();
        }
        if failing.is_empty() {
            self.0.remove(&port.name);
        }
    }

    pub(super) fn forget(&mut self, port: &ServicePortName) {
        self.0.remove(port);
    }

    /// `port` with what the checks say; the same allocation when they have nothing to add.
    pub(super) fn show(&self, port: &Arc<ServicePort>) -> Arc<ServicePort> {
        let Some(failing) = self.0.get(&port.name) else {
            return port.clone();
        };
        let mut shown = ServicePort::clone(port);
        for endpoint in shown.endpoints.iter_mut() {
            // An endpoint that goes away does so whether it is healthy or not.
            if endpoint.state == EndpointState::Ready && failing.contains(&endpoint.address) {
                endpoint.state = EndpointState::Unhealthy;
            }
        }
        Arc::new(shown)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{
        model::{Endpoint, HealthCheck, Policy, Probe, Protocol, Service, ServiceName, Update},
        snapshot::Reducer,
    };

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn name() -> ServicePortName {
        let service = ServiceName {
            namespace: "default".into(),
            name: "echo".into(),
        };
        ServicePortName { service, port: 80 }
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Checks {
        Off,
        On,
    }

    /// `endpoints` as `1`, or `1t` for one that is terminating.
    fn service(endpoints: &[&str], weight: u32, checks: Checks) -> Update {
        let endpoints = endpoints.iter().map(|text| {
            let number: u8 = text.trim_end_matches('t').parse().unwrap();
            let state = match text.ends_with('t') {
                true => EndpointState::Terminating,
                false => EndpointState::Ready,
            };
            Endpoint {
                weight,
                state,
                ..Endpoint::new(address(number))
            }
        });
        let check = HealthCheck::new(Probe::Tcp);
        let port = ServicePort {
            name: name(),
            protocol: Protocol::Http,
            endpoints: endpoints.collect(),
            policy: Arc::new(Policy {
                health_check: (checks == Checks::On).then_some(check),
                ..Policy::default()
            }),
            routes: vec![],
        };
        Update::Service(Arc::new(Service {
            name: name().service,
            addresses: vec![],
            ports: vec![Arc::new(port)],
        }))
    }

    fn address(number: u8) -> SocketAddr {
        ([10, 0, 0, number], 80).into()
    }

    fn verdict(number: u8, state: EndpointState) -> Update {
        Update::Health {
            port: name(),
            endpoint: address(number),
            state,
        }
    }

    fn fails(number: u8) -> Update {
        verdict(number, EndpointState::Unhealthy)
    }

    fn passes(number: u8) -> Update {
        verdict(number, EndpointState::Ready)
    }

    fn port(reducer: &Reducer) -> Arc<ServicePort> {
        reducer.view().ports.get(&name()).unwrap().clone()
    }

    /// Applies the updates one by one; `expect` is the last view: `1 ready, 2 unhealthy`.
    #[track_caller]
    fn check(updates: Vec<Update>, expect: &str) {
        let mut reducer = Reducer::default();
        for update in updates {
            assert_eq!(reducer.apply(vec![update], now()), []);
        }
        let port = port(&reducer);
        let words = port.endpoints.iter().map(|e| {
            let std::net::IpAddr::V4(ip) = e.address.ip() else {
                panic!("{e:?}")
            };
            format!("{} {}", ip.octets()[3], e.state.as_str())
        });
        assert_eq!(words.collect::<Vec<_>>().join(", "), expect);
    }

    #[test]
    fn the_worse_of_both_counts() {
        use Checks::{Off, On};
        check(
            vec![service(&["1", "2"], 1, On), fails(2)],
            "1 ready, 2 unhealthy",
        );
        check(
            vec![service(&["1", "2"], 1, On), fails(2), passes(2)],
            "1 ready, 2 ready",
        );
        check(vec![service(&["1t"], 1, On), fails(1)], "1 terminating");
        // It survives an update that keeps the endpoint, and a terminating spell.
        check(
            vec![service(&["1", "2"], 1, On), fails(2), service(&["2", "3"], 7, On)],
            "2 unhealthy, 3 ready",
        );
        check(
            vec![
                service(&["1"], 1, On),
                fails(1),
                service(&["1t"], 1, On),
                service(&["1"], 1, On),
            ],
            "1 unhealthy",
        );
        // It goes with the endpoint, with the service and with the check.
        let back = |between: Update| vec![service(&["1"], 1, On), fails(1), between, service(&["1"], 1, On)];
        check(back(service(&["2"], 1, On)), "1 ready");
        check(back(Update::ServiceGone(name().service)), "1 ready");
        check(back(service(&["1"], 1, Off)), "1 ready");
        // Nobody asked.
        check(vec![service(&["1"], 1, Off), fails(1)], "1 ready");
        check(vec![service(&["1"], 1, On), fails(9)], "1 ready");
        check(vec![fails(1), service(&["1"], 1, On)], "1 ready");
    }

    #[test]
    fn what_is_no_news_keeps_the_allocation() {
        let mut reducer = Reducer::default();
        reducer.apply(vec![service(&["1", "2"], 1, Checks::On)], now());
        reducer.apply(vec![fails(2)], now());
        let before = port(&reducer);
        for same in [fails(2), passes(1), fails(9), service(&["1", "2"], 1, Checks::On)] {
            reducer.apply(vec![same.clone()], now());
            assert!(Arc::ptr_eq(&before, &port(&reducer)), "{same:?}");
        }
        reducer.apply(vec![passes(2)], now());
        assert!(!Arc::ptr_eq(&before, &port(&reducer)));
    }
}
