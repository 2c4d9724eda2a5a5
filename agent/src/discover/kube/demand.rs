//! What the workers ask for, until discovery looks.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::board::KubeBoard;
use crate::model::{Demand, ServiceName, ServicePortName};

/// Given to every worker. The lock is taken when a service is dialled of which nothing is known, and every few
/// seconds; never by a request to a service that is known.
#[derive(Clone, Debug)]
pub struct KubeDemand(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Whether the API server answers.
    board: KubeBoard,
    asked: Mutex<HashSet<ServiceName>>,
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

    fn add(&self, services: impl Iterator<Item = ServiceName>) {
        let mut asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.extend(services);
    }

    /// Returns when somebody waits for a service.
    pub(super) async fn somebody_waits(&self) {
        self.0.wanted.notified().await;
    }

    /// What was asked for or used since the last call.
    pub(super) fn take(&self) -> HashSet<ServiceName> {
        let mut asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *asked)
    }
}

impl Demand for KubeDemand {
    fn wanted(&self, port: &ServicePortName) -> bool {
        self.add(std::iter::once(port.service.clone()));
        self.0.wanted.notify_one();
        self.0.board.is_up()
    }

    fn used(&self, ports: Vec<ServicePortName>) {
        if !ports.is_empty() {
            self.add(ports.into_iter().map(|port| port.service));
        }
    }
}

/// Which services are in use, and since when they are not. Pure.
#[derive(Debug, Default)]
pub(super) struct InUse(BTreeMap<ServiceName, Instant>);

impl InUse {
    pub(super) fn touch(&mut self, services: impl IntoIterator<Item = ServiceName>, now: Instant) {
        self.0.extend(services.into_iter().map(|service| (service, now)));
    }

    /// Forgets what has not been used for as long as `idle`.
    pub(super) fn expire(&mut self, idle: Duration, now: Instant) {
        self.0
            .retain(|_, used| now.saturating_duration_since(*used) < idle);
    }

    pub(super) fn services(&self) -> BTreeSet<ServiceName> {
        self.0.keys().cloned().collect()
    }
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
        assert!(!demand.wanted(&port("a")), "the server was never heard");
        board.heard();
        assert!(demand.wanted(&port("a")));
        demand.used(vec![port("a"), port("b")]);
        demand.somebody_waits().await;
        let mut in_use = InUse::default();
        let idle = Duration::from_secs(600);
        in_use.touch(demand.take(), Instant::now());
        assert_eq!(in_use.services().len(), 2);
        assert!(demand.take().is_empty());
        tokio::time::advance(idle / 2).await;
        demand.used(vec![port("b")]);
        in_use.touch(demand.take(), Instant::now());
        tokio::time::advance(idle / 2).await;
        in_use.expire(idle, Instant::now());
        assert_eq!(in_use.services(), BTreeSet::from([port("b").service]));
    }
}
