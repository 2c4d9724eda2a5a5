//! Makes the tables of hashing load balancers on a thread of its own, each once for all workers and workloads.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak, mpsc},
    thread,
};

use crate::{
    balance::{HashTable, Made, TableMaker, Wanted},
    model::{Budget, Refusals},
};

/// A handle, that of all workers.
#[derive(Clone, Debug)]
pub struct HashTables(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    /// Bytes that the tables of one namespace may take.
    share: usize,
    refusals: Refusals,
    /// By namespace.
    known: Mutex<HashMap<Arc<str>, Known>>,
    jobs: mpsc::Sender<Job>,
}

type Known = HashMap<Arc<Wanted>, Slot>;
type Slot = Weak<OnceLock<Option<Arc<HashTable>>>>;

/// A table that somebody wanted; nobody does any more when the slot has gone.
struct Job {
    wanted: Arc<Wanted>,
    slot: Slot,
}

impl Default for HashTables {
    /// Makes each table at once, where it is wanted.
    fn default() -> Self {
        Self(None)
    }
}

impl HashTables {
    /// Starts the thread, which ends with the last handle.
    pub fn start(share: usize, refusals: Refusals) -> io::Result<Self> {
        let (jobs, wanted) = mpsc::channel::<Job>();
        let make = move || {
            for job in wanted {
                if let Some(slot) = job.slot.upgrade() {
                    // Nobody else sets it.
                    let _ = slot.set(Some(Arc::new(job.wanted.make())));
                }
            }
        };
        thread::Builder::new()
            .name("derny-tables".to_owned())
            .spawn(make)?;
        Ok(Self(Some(Arc::new(Shared {
            share,
            refusals,
            known: Mutex::default(),
            jobs,
        }))))
    }

    /// For the tables of services of one namespace.
    pub(super) fn of<'h>(&'h self, namespace: &'h Arc<str>) -> OfNamespace<'h> {
        OfNamespace {
            tables: self,
            namespace,
        }
    }
}

pub(super) struct OfNamespace<'h> {
    tables: &'h HashTables,
    namespace: &'h Arc<str>,
}

impl TableMaker for OfNamespace<'_> {
    fn make(&self, wanted: &Arc<Wanted>) -> Made {
        match &self.tables.0 {
            Some(shared) => shared.make(self.namespace, wanted),
            None => ().make(wanted),
        }
    }
}

impl Shared {
    fn make(&self, namespace: &Arc<str>, wanted: &Arc<Wanted>) -> Made {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = known.entry(namespace.clone()).or_default();
        tables.retain(|_, slot| slot.strong_count() > 0);
        if let Some(made) = tables.get(wanted).and_then(Weak::upgrade) {
            return made;
        }
        let taken: usize = tables.keys().map(|wanted| wanted.bytes()).sum();
        if taken + wanted.bytes() > self.share {
            if self.refusals.count(Budget::HashTables, namespace) {
                let share = self.share;
                tracing::warn!(%namespace, share, "hash tables of this namespace take their whole share; keys go without one");
            }
            return Arc::new(OnceLock::from(None));
        }
        let made = Made::default();
        let slot = Arc::downgrade(&made);
        tables.insert(wanted.clone(), slot.clone());
        // The thread goes on for as long as there is somebody to send to it.
        let _ = self.jobs.send(Job {
            wanted: wanted.clone(),
            slot,
        });
        made
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::{
        balance::{Balancer, EndpointLoad, Outliers},
        model::{Algorithm, Endpoint, HashKey, LoadBalancer},
    };

    fn balancer(tables: &dyn TableMaker, octet: u8) -> Balancer {
        let now = tokio::time::Instant::now().into_std();
        let endpoint = Endpoint::new(([10, 0, 0, octet], 80).into());
        let host = Outliers::new(None).host(endpoint.address);
        let settings = LoadBalancer {
            algorithm: Algorithm::Maglev {
                key: HashKey::SourceAddress,
                table_size: 65_537,
            },
            ..LoadBalancer::default()
        };
        let loads = vec![EndpointLoad::new(&endpoint, host, None, now)];
        Balancer::new(&settings, loads, None, tables, &mut fastrand::Rng::with_seed(7))
    }

    fn taken(tables: &HashTables, namespace: &str) -> usize {
        let known = tables.0.as_ref().unwrap().known.lock().unwrap();
        let slots = known[namespace].values();
        slots.filter(|slot| slot.strong_count() > 0).count()
    }

    #[test]
    fn a_table_is_made_once_for_all_and_each_namespace_has_its_share() {
        let refusals = Refusals::default();
        let tables = HashTables::start(300_000, refusals.clone()).unwrap();
        let (own, other): (Arc<str>, Arc<str>) = ("own".into(), "other".into());
        let of = |namespace, octet| balancer(&tables.of(namespace), octet);
        let (_first, _same, second) = (of(&own, 1), of(&own, 1), of(&own, 2));
        assert_eq!((taken(&tables, "own"), refusals.all()), (2, vec![]));
        let _refused = of(&own, 3);
        let _others = of(&other, 3);
        let refused = refusals.all();
        assert_eq!(
            (refused.len(), &*refused[0].namespace, refused[0].times),
            (1, "own", 1)
        );
        drop(second);
        let _now = of(&own, 3);
        assert_eq!((taken(&tables, "own"), refusals.all()), (2, refused));

        let known = tables.0.as_ref().unwrap().clone();
        let deadline = Instant::now() + Duration::from_secs(30);
        let are_made = || {
            let known = known.known.lock().unwrap();
            let mut slots = known.values().flat_map(HashMap::values).filter_map(Weak::upgrade);
            slots.all(|slot| slot.get().is_some())
        };
        while !are_made() {
            assert!(Instant::now() < deadline, "the thread makes them");
            thread::yield_now();
        }
    }
}
