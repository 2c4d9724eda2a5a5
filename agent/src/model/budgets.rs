//! What the objects of one namespace may take of a thing that all share, and how often they wanted more.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Namespaces that are told apart; those beyond are counted together.
const MAX_NAMESPACES: usize = 256;
const OTHERS: &str = "other";

/// A thing of which each namespace has a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Budget {
    /// Regular expressions of routes: how many, and their bytes.
    RoutePatterns,
    /// Entries of the tables of hashing load balancers.
    HashTables,
    /// Health checks that are under way.
    Probes,
    /// Services whose endpoints are watched.
    WatchedServices,
}

impl Budget {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoutePatterns => "route_patterns",
            Self::HashTables => "hash_tables",
            Self::Probes => "probes",
            Self::WatchedServices => "watched_services",
        }
    }
}

/// A count of what was refused. Every copy shows the same; nothing on the way of a request counts here.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<Counts>>);

type Counts = BTreeMap<(Budget, Arc<str>), u64>;

/// What was refused to a namespace since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub budget: Budget,
    pub namespace: Arc<str>,
    pub times: u64,
}

impl Refusals {
    /// Something was refused to a namespace. True for the first time, which is worth a line in the log.
    pub fn count(&self, budget: Budget, namespace: &Arc<str>) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = counts.len() >= MAX_NAMESPACES;
        let mut key = (budget, namespace.clone());
        if is_full && !counts.contains_key(&key) {
            key.1 = OTHERS.into();
        }
        let times = counts.entry(key).or_default();
        *times += 1;
        *times == 1
    }

    /// In order of budget and namespace.
    pub fn all(&self) -> Vec<Refused> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = counts.iter().map(|((budget, namespace), times)| Refused {
            budget: *budget,
            namespace: namespace.clone(),
            times: *times,
        });
        all.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_namespace_and_namespaces_are_bounded() {
        let refusals = Refusals::default();
        assert!(refusals.count(Budget::Probes, &"a".into()));
        assert!(!refusals.count(Budget::Probes, &"a".into()));
        for n in 0..2 * MAX_NAMESPACES {
            refusals.count(Budget::HashTables, &n.to_string().into());
        }
        let all = refusals.all();
        assert_eq!(all.len(), MAX_NAMESPACES + 1);
        assert_eq!(
            all.iter().map(|of| of.times).sum::<u64>(),
            2 + 2 * MAX_NAMESPACES as u64
        );
        let others = all.iter().find(|of| *of.namespace == *OTHERS).unwrap();
        assert!(others.times > MAX_NAMESPACES as u64);
        let a = all.iter().find(|of| *of.namespace == *"a").unwrap();
        assert_eq!((a.budget, a.times), (Budget::Probes, 2));
    }
}
