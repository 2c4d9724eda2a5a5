//! The tables of a service port: one for the callers of each namespace that has routes of its own, one for all others.

use std::{collections::BTreeMap, sync::Arc};

use super::Table;
use crate::model::{Route, ServicePort};

/// Made when routes change; a connection's table is found when it is accepted, and no request looks here.
#[derive(Debug, Default)]
pub struct Tables {
    /// By the producer's routes.
    for_others: Option<Compiled>,
    by_namespace: BTreeMap<Arc<str>, Compiled>,
}

/// A table, and the very routes that it was made from.
#[derive(Clone, Debug)]
struct Compiled {
    routes: Vec<Arc<Route>>,
    table: Arc<Table>,
}

impl Tables {
    /// Those of `port`; `None` when it has no routes. What has not changed since `before` is taken from there.
    pub fn of(port: &ServicePort, before: Option<&Self>) -> Option<Self> {
        if port.routes.is_empty() {
            return None;
        }
        let producer = &port.name.service.namespace;
        let mut by_namespace: BTreeMap<Arc<str>, Vec<Arc<Route>>> = BTreeMap::new();
        for route in &port.routes {
            let of = by_namespace.entry(route.namespace.clone()).or_default();
            of.push(route.clone());
        }
        let for_others = by_namespace.remove(producer);
        let others_before = before.and_then(|before| before.for_others.as_ref());
        Some(Self {
            for_others: for_others.map(|routes| Compiled::of(routes, others_before)),
            by_namespace: by_namespace
                .into_iter()
                .map(|(namespace, routes)| {
                    let had = before.and_then(|before| before.by_namespace.get(&namespace));
                    let compiled = Compiled::of(routes, had);
                    (namespace, compiled)
                })
                .collect(),
        })
    }

    /// The one for callers of `namespace`; `None`: no routes count for them.
    pub fn for_callers_of(&self, namespace: &str) -> Option<&Arc<Table>> {
        let own = self.by_namespace.get(namespace);
        own.or(self.for_others.as_ref()).map(|compiled| &compiled.table)
    }
}

impl Compiled {
    fn of(routes: Vec<Arc<Route>>, before: Option<&Self>) -> Self {
        if let Some(before) = before.filter(|before| are_same(&before.routes, &routes)) {
            return before.clone();
        }
        Self {
            table: Arc::new(Table::new(&routes)),
            routes,
        }
    }
}

/// Whether these are the very same routes, whose table can go on: endpoints change more often.
pub fn are_same(had: &[Arc<Route>], routes: &[Arc<Route>]) -> bool {
    had.len() == routes.len() && had.iter().zip(routes).all(|(had, route)| Arc::ptr_eq(had, route))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Policy, Protocol, RouteKind, ServiceName, ServicePortName};

    fn route(namespace: &str, name: &str) -> Arc<Route> {
        Arc::new(Route {
            kind: RouteKind::Http,
            namespace: namespace.into(),
            name: name.into(),
            created: 0,
            rules: Vec::new(),
        })
    }

    fn port(routes: &[&Arc<Route>]) -> ServicePort {
        let service = ServiceName {
            namespace: "shop".into(),
            name: "cart".into(),
        };
        ServicePort {
            name: ServicePortName { service, port: 80 },
            protocol: Protocol::Http,
            endpoints: Vec::new().into(),
            policy: Policy::default().into(),
            routes: routes.iter().map(|route| Arc::clone(route)).collect(),
        }
    }

    fn names(port: &ServicePort, namespace: &str) -> String {
        let routes = port.routes_for(namespace);
        let names: Vec<String> = routes
            .iter()
            .map(|r| format!("{}/{}", r.namespace, r.name))
            .collect();
        names.join(" ")
    }

    #[test]
    fn a_consumers_routes_take_the_place_of_the_producers_for_its_callers() {
        let (producer, consumer, more) = (route("shop", "p"), route("web", "c"), route("web", "d"));
        let both = port(&[&consumer, &producer, &more]);
        assert_eq!(names(&both, "web"), "web/c web/d");
        assert_eq!(names(&both, "shop"), "shop/p");
        assert_eq!(names(&both, "other"), "shop/p");
        let tables = Tables::of(&both, None).unwrap();
        let of = |tables: &Tables, namespace: &str| tables.for_callers_of(namespace).cloned();
        let [web, shop, other] = ["web", "shop", "other"].map(|namespace| of(&tables, namespace).unwrap());
        assert!(Arc::ptr_eq(&shop, &other) && !Arc::ptr_eq(&web, &shop));

        // Only a consumer's: others have none.
        let alone = port(&[&consumer]);
        assert_eq!(
            (names(&alone, "web"), names(&alone, "shop")),
            ("web/c".to_owned(), String::new())
        );
        let next = Tables::of(&alone, Some(&tables)).unwrap();
        assert!(of(&next, "shop").is_none() && of(&next, "other").is_none());
        assert!(
            !Arc::ptr_eq(&of(&next, "web").unwrap(), &web),
            "it has one route less"
        );
        assert!(Tables::of(&port(&[]), Some(&next)).is_none());
    }

    #[test]
    fn the_routes_of_one_namespace_do_not_make_anothers_table_anew() {
        let (producer, consumer) = (route("shop", "p"), route("web", "c"));
        let before = Tables::of(&port(&[&producer, &consumer]), None).unwrap();
        let changed = route("web", "c");
        let after = Tables::of(&port(&[&producer, &changed]), Some(&before)).unwrap();
        let same = |namespace: &str| {
            let [had, has] = [&before, &after].map(|tables| tables.for_callers_of(namespace).unwrap());
            Arc::ptr_eq(had, has)
        };
        assert!(same("shop") && !same("web"));
    }
}
