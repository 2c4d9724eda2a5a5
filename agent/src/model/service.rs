//! A name that pods call, its addresses, and who answers.

use std::{net::IpAddr, sync::Arc};

use super::{Endpoints, Policy, Protocol, Route, ServiceName, ServicePortName};

/// A service with all its ports.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub name: ServiceName,
    /// Virtual addresses (ClusterIPs); empty for a headless service.
    pub addresses: Vec<IpAddr>,
    /// In ascending order of port, each port once.
    pub ports: Vec<Arc<ServicePort>>,
}

/// One port of a service: the unit that is balanced, pooled and measured.
#[derive(Clone, Debug, PartialEq)]
pub struct ServicePort {
    pub name: ServicePortName,
    pub protocol: Protocol,
    pub endpoints: Endpoints,
    /// Ports of which nobody says anything share one.
    pub policy: Arc<Policy>,
    /// Those of the service's own namespace, and those of callers' namespaces for themselves: see [`Self::routes_for`].
    pub routes: Vec<Arc<Route>>,
}

impl ServicePort {
    /// The routes that count for callers of `namespace`. Those of that namespace itself (consumer routes) take the place
    /// of those of the service's namespace (producer routes), which are for everybody else (GEP-1294). None: requests go
    /// to the endpoints. Otherwise where they say, and nowhere when none matches.
    pub fn routes_for(&self, namespace: &str) -> Vec<Arc<Route>> {
        let of = |wanted: &str| -> Vec<Arc<Route>> {
            let routes = self.routes.iter().filter(|route| *route.namespace == *wanted);
            routes.cloned().collect()
        };
        let own = of(namespace);
        if own.is_empty() {
            of(&self.name.service.namespace)
        } else {
            own
        }
    }
}
