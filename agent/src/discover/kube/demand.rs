//! What the workers ask for, until discovery looks.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{
    board::KubeBoard,
    objects::{EndpointSlice, Watched as _},
};
use crate::model::{Demand, ServiceName, ServicePortName};

/// A service, and the namespace of pods that use it.
pub type Use = (ServiceName, Arc<str>);

/// Services, and the namespaces that use each.
pub(super) type Users = BTreeMap<ServiceName, BTreeSet<Arc<str>>>;

/// Given to every worker. The lock is taken when a service is dialled of which nothing is known, and every few
/// seconds; never by a request to a service that is known.
#[derive(Clone, Debug)]
pub struct KubeDemand(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Whether the API server answers.
    board: KubeBoard,
    asked: Mutex<HashSet<Use>>,
    /// Somebody waits.
    wanted: Notify,
}

impl KubeDemand {
    pub fn new(board: KubeBoard) -> Self {
        Self(Arc::new(Inner {
            board,
            asked: Mutex::default(),
            wanted: Notify::new(),
        }))
    }

    fn add(&self, uses: impl Iterator<Item = Use>) {
        let mut asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.extend(uses);
    }

    /// Returns when somebody waits for a service.
    pub(super) async fn somebody_waits(&self) {
        self.0.wanted.notified().await;
    }

    /// What was asked for or used since the last call.
    pub(super) fn take(&self) -> HashSet<Use> {
        let mut asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *asked)
    }
}

impl Demand for KubeDemand {
    fn wanted(&self, by: &Arc<str>, port: &ServicePortName) -> bool {
        self.add(std::iter::once((port.service.clone(), by.clone())));
        self.0.wanted.notify_one();
        self.0.board.may_give(EndpointSlice::OF.plural)
    }

    fn used(&self, ports: Vec<(Arc<str>, ServicePortName)>) {
        if !ports.is_empty() {
            self.add(ports.into_iter().map(|(by, port)| (port.service, by)));
        }
    }
}

/// Which services are in use, by which namespaces, and since when they are not. Pure.
#[derive(Debug, Default)]
pub(super) struct InUse(BTreeMap<Use, Instant>);

impl InUse {
    pub(super) fn touch(&mut self, uses: impl IntoIterator<Item = Use>, now: Instant) {
        self.0.extend(uses.into_iter().map(|of| (of, now)));
    }

    /// Forgets what has not been used for as long as `idle`.
    pub(super) fn expire(&mut self, idle: Duration, now: Instant) {
        self.0
            .retain(|_, used| now.saturating_duration_since(*used) < idle);
    }

    pub(super) fn services(&self) -> Users {
        let mut services = Users::new();
        for (service, by) in self.0.keys() {
            services.entry(service.clone()).or_default().insert(by.clone());
        }
        services
    }
}

/// What may be watched.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Admitted {
    /// With the namespace of which each takes a place.
    pub(super) services: BTreeMap<ServiceName, Arc<str>>,
    /// Services for which no namespace that uses them has a place left, and one of these namespaces.
    pub(super) refused: BTreeMap<ServiceName, Arc<str>>,
}

/// Each namespace may have so many services watched. One that several use takes a place of one of them, and keeps it:
/// `before` is what was admitted last.
pub(super) fn admit(wanted: Users, before: &BTreeMap<ServiceName, Arc<str>>, share: usize) -> Admitted {
    let mut taken: HashMap<Arc<str>, usize> = HashMap::new();
    let mut admitted = Admitted::default();
    let mut new = Vec::new();
    for (service, users) in wanted {
        match before.get(&service).filter(|by| users.contains(*by)) {
            Some(by) => {
                *taken.entry(by.clone()).or_default() += 1;
                admitted.services.insert(service, by.clone());
            }
            None => new.push((service, users)),
        }
    }
    for (service, users) in new {
        let free = users
            .iter()
            .find(|by| taken.get(*by).is_none_or(|taken| *taken < share));
        match (free, users.first()) {
            (Some(by), _) => {
                *taken.entry(by.clone()).or_default() += 1;
                admitted.services.insert(service, by.clone());
            }
            (None, Some(by)) => drop(admitted.refused.insert(service, by.clone())),
            (None, None) => {}
        }
    }
    admitted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str) -> ServicePortName {
        let service = ServiceName {
            namespace: "demo".into(),
            name: name.into(),
        };
        ServicePortName { service, port: 80 }
    }

    #[tokio::test(start_paused = true)]
    async fn services_stay_in_use_while_they_are_touched() {
        let board = KubeBoard::default();
        let demand = KubeDemand::new(board.clone());
        let by = || Arc::from("web");
        assert!(!demand.wanted(&by(), &port("a")), "the server was never heard");
        board.heard();
        assert!(demand.wanted(&by(), &port("a")));
        demand.used(vec![(by(), port("a")), (by(), port("b"))]);
        demand.somebody_waits().await;
        let mut in_use = InUse::default();
        let idle = Duration::from_secs(600);
        in_use.touch(demand.take(), Instant::now());
        assert_eq!(in_use.services().len(), 2);
        assert!(demand.take().is_empty());
        tokio::time::advance(idle / 2).await;
        demand.used(vec![(by(), port("b"))]);
        in_use.touch(demand.take(), Instant::now());
        tokio::time::advance(idle / 2).await;
        in_use.expire(idle, Instant::now());
        let users = BTreeSet::from([by()]);
        assert_eq!(in_use.services(), BTreeMap::from([(port("b").service, users)]));
    }

    #[test]
    fn a_namespace_that_wants_too_much_takes_nothing_from_others() {
        let greedy = (0..1000).map(|n| {
            (
                port(&format!("s{n:03}")).service,
                BTreeSet::from(["greedy".into()]),
            )
        });
        let mut wanted: Users = greedy.collect();
        for (name, by) in [("own", "other"), ("s500", "other"), ("s999", "greedy")] {
            wanted.entry(port(name).service).or_default().insert(by.into());
        }
        let before = BTreeMap::from([(port("s900").service, "greedy".into())]);
        let admitted = admit(wanted.clone(), &before, 10);
        assert_eq!(admitted.services.len(), 10 + 2);
        for name in ["own", "s000", "s008", "s500", "s900"] {
            assert!(admitted.services.contains_key(&port(name).service), "{name}");
        }
        assert_eq!(admitted.refused.len(), 1001 - 12);
        assert!(admitted.refused.values().all(|by| **by == *"greedy"));
        // Nothing is taken from those that are watched.
        let again = admit(wanted, &admitted.services, 10);
        assert!(again == admitted);
    }
}
