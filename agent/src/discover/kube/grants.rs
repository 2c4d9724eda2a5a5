//! Who may refer to services of another namespace.

use std::{collections::BTreeMap, sync::Arc};

use super::{attached::ObjectName, objects::ReferenceGrant};
use crate::model::{Backend, Filter, Route, RouteKind, ServiceName, ServicePortName};

const GATEWAY: &str = "gateway.networking.k8s.io";

#[derive(Debug, Default)]
pub(super) struct Grants(BTreeMap<ObjectName, ReferenceGrant>);

impl Grants {
    /// True when that changes anything.
    pub(super) fn set(&mut self, grant: ReferenceGrant) -> bool {
        let name = ObjectName::of(&grant.metadata);
        let spec = grant.spec.clone();
        self.0
            .insert(name, grant)
            .is_none_or(|before| before.spec != spec)
    }

    pub(super) fn remove(&mut self, name: &ObjectName) -> bool {
        self.0.remove(name).is_some()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &ObjectName> {
        self.0.keys()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &ReferenceGrant> {
        self.0.values()
    }

    /// Whether a route of `kind` in `from` may send requests to `to`.
    pub(super) fn allow(&self, kind: RouteKind, from: &str, to: &ServiceName) -> bool {
        let kind = match kind {
            RouteKind::Http => "HTTPRoute",
            RouteKind::Grpc => "GRPCRoute",
        };
        let mut there = (self.0.iter()).filter(|(name, _)| name.namespace == to.namespace);
        *from == *to.namespace
            || there.any(|(_, grant)| {
                let spec = &grant.spec;
                let mut froms = spec.from.iter();
                froms.any(|f| f.group == GATEWAY && f.kind == kind && f.namespace == *from)
                    && spec.to.iter().any(|t| {
                        matches!(&*t.group, "" | "core")
                            && t.kind == "Service"
                            && t.name.as_deref().is_none_or(|name| name == &*to.name)
                    })
            })
    }

    /// The route with the references that nobody allows pointing nowhere: requests that are for them are refused, and
    /// no others (Gateway API, `HTTPBackendRef`). The same allocation where all are allowed.
    pub(super) fn apply(&self, route: &Arc<Route>) -> Arc<Route> {
        let refused = |to: &ServicePortName| !self.allow(route.kind, &route.namespace, &to.service);
        let refers = |filters: &[Filter]| {
            let mut mirrors = filters.iter().filter_map(mirror);
            mirrors.any(refused)
        };
        let refers = route.rules.iter().any(|rule| {
            let backend = |backend: &Backend| refused(&backend.target) || refers(&backend.filters);
            refers(&rule.filters) || rule.backends.iter().any(backend)
        });
        if !refers {
            return route.clone();
        }
        let close = |to: &mut ServicePortName| {
            if refused(to) {
                to.port = NOWHERE;
            }
        };
        let close_filters = |filters: &mut [Filter]| {
            for filter in filters {
                if let Filter::Mirror { target, .. } = filter {
                    close(target);
                }
            }
        };
        let mut closed = Route::clone(route);
        for rule in &mut closed.rules {
            close_filters(&mut rule.filters);
            for backend in &mut rule.backends {
                close(&mut backend.target);
                close_filters(&mut backend.filters);
            }
        }
        Arc::new(closed)
    }
}

/// No service has this port, so that nothing is found there.
const NOWHERE: u16 = 0;

fn mirror(filter: &Filter) -> Option<&ServicePortName> {
    match filter {
        Filter::Mirror { target, .. } => Some(target),
        _ => None,
    }
}

/// All ports to which a route sends requests.
pub(super) fn backends(route: &Route) -> impl Iterator<Item = &ServicePortName> {
    route.rules.iter().flat_map(|rule| {
        let own = rule.backends.iter().flat_map(|backend| &backend.filters);
        let mirrors = rule.filters.iter().chain(own).filter_map(mirror);
        let backends = rule.backends.iter().map(|backend| &backend.target);
        backends.chain(mirrors)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{config, model::PatternShare};

    fn grant(name: &str, from: (&str, &str), to: Option<&str>) -> ReferenceGrant {
        serde_json::from_value(json!({
            "metadata": {"namespace": "far", "name": name},
            "spec": {
                "from": [{"group": GATEWAY, "kind": from.0, "namespace": from.1}],
                "to": [{"group": "", "kind": "Service", "name": to}],
            },
        }))
        .unwrap()
    }

    fn service(namespace: &str, name: &str) -> ServiceName {
        ServiceName {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    #[test]
    fn a_grant_is_for_its_kind_namespace_and_name() {
        let mut grants = Grants::default();
        assert!(grants.set(grant("a", ("HTTPRoute", "demo"), Some("one"))));
        assert!(!grants.set(grant("a", ("HTTPRoute", "demo"), Some("one"))));
        grants.set(grant("b", ("GRPCRoute", "demo"), None));
        let check = |kind, from, to: (&str, &str), expect| {
            assert_eq!(
                grants.allow(kind, from, &service(to.0, to.1)),
                expect,
                "{kind:?} {from} {to:?}"
            );
        };
        use RouteKind::{Grpc, Http};
        check(Http, "demo", ("demo", "x"), true);
        check(Http, "demo", ("far", "one"), true);
        check(Http, "demo", ("far", "two"), false);
        check(Http, "other", ("far", "one"), false);
        check(Grpc, "demo", ("far", "two"), true);
        check(Grpc, "demo", ("further", "two"), false);
    }

    #[test]
    fn a_reference_without_a_grant_leads_nowhere() {
        let spec = json!({
            "parentRefs": [{"group": "", "kind": "Service", "name": "echo"}],
            "rules": [{"backendRefs": [
                {"name": "near", "port": 1}, {"name": "one", "namespace": "far", "port": 2},
            ]}],
        });
        let route = config::route(RouteKind::Http, ("demo", "r"), 0, spec, PatternShare::UNLIMITED)
            .unwrap()
            .unwrap()
            .route;
        let targets = |route: &Route| {
            let backends = route.rules[0].backends.iter();
            backends
                .map(|backend| backend.target.to_string())
                .collect::<Vec<_>>()
        };
        let mut grants = Grants::default();
        assert_eq!(targets(&grants.apply(&route)), ["demo/near:1", "far/one:0"]);
        grants.set(grant("a", ("HTTPRoute", "demo"), None));
        assert!(Arc::ptr_eq(&grants.apply(&route), &route));
        let named: Vec<_> = backends(&route).map(ServicePortName::to_string).collect();
        assert_eq!(named, ["demo/near:1", "far/one:2"]);
    }
}
