//! How many probes are under way: of all services together, and of those of each namespace.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Board;
use crate::model::{Budget, Refusals};

/// A handle.
#[derive(Clone, Debug)]
pub(super) struct Permits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all: Arc<Semaphore>,
    share: usize,
    /// Of namespaces with services that are probed; those whose probes have all ended are forgotten with the next one.
    of_namespaces: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
    refusals: Refusals,
}

/// One probe under way.
#[derive(Debug)]
pub(super) struct Permit {
    _of_namespace: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl Permits {
    pub(super) fn new(max: usize, share: usize, refusals: Refusals) -> Self {
        Self(Arc::new(Inner {
            all: Arc::new(Semaphore::new(max)),
            share: share.min(max),
            of_namespaces: Mutex::default(),
            refusals,
        }))
    }

    /// Waits its turn. Those of one namespace wait among themselves first, so that they never fill the queue of all.
    pub(super) async fn take(&self, namespace: &Arc<str>, board: &Board) -> Permit {
        let own = self.of(namespace);
        let Inner { all, refusals, .. } = &*self.0;
        let of_namespace = match own.clone().try_acquire_owned() {
            Ok(permit) => Ok(permit),
            Err(_) => {
                board.held_back();
                if refusals.count(Budget::Probes, namespace) {
                    tracing::warn!(%namespace, share = self.0.share, "health checks of this namespace wait for each other");
                }
                own.acquire_owned().await
            }
        };
        let of_all = match all.clone().try_acquire_owned() {
            Ok(permit) => Ok(permit),
            Err(_) => {
                board.held_back();
                all.clone().acquire_owned().await
            }
        };
        // Neither is ever closed.
        Permit {
            _of_namespace: of_namespace.ok(),
            _of_all: of_all.ok(),
        }
    }

    fn of(&self, namespace: &Arc<str>) -> Arc<Semaphore> {
        let mut known = self
            .0
            .of_namespaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = known.get(namespace) {
            return own.clone();
        }
        known.retain(|_, own| Arc::strong_count(own) > 1);
        let own = Arc::new(Semaphore::new(self.0.share));
        known.insert(namespace.clone(), own.clone());
        own
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_namespace_that_waits_for_itself_holds_nobody_up() {
        let (refusals, board) = (Refusals::default(), Board::default());
        let permits = Permits::new(4, 2, refusals.clone());
        let (greedy, other): (Arc<str>, Arc<str>) = ("greedy".into(), "other".into());
        let first = permits.take(&greedy, &board).await;
        let _second = permits.take(&greedy, &board).await;
        assert_eq!(board.numbers().held_back, 0);
        let mut waiting: Vec<_> = (0..100)
            .map(|_| Box::pin(permits.take(&greedy, &board)))
            .collect();
        for third in &mut waiting {
            timeout(Duration::from_millis(1), third).await.unwrap_err();
        }
        timeout(Duration::from_millis(1), permits.take(&other, &board))
            .await
            .unwrap();
        let refused = refusals.all();
        assert_eq!(
            (refused.len(), &*refused[0].namespace, refused[0].times),
            (1, "greedy", 100)
        );
        drop(first);
        timeout(Duration::from_millis(1), &mut waiting[0]).await.unwrap();
    }

    #[tokio::test]
    async fn what_a_namespace_has_is_forgotten_with_its_probes() {
        let board = Board::default();
        let permits = Permits::new(4, 2, Refusals::default());
        let held = permits.take(&"held".into(), &board).await;
        drop(permits.take(&"gone".into(), &board).await);
        drop(permits.take(&"new".into(), &board).await);
        let known = permits.0.of_namespaces.lock().unwrap();
        assert!(known.contains_key("held") && !known.contains_key("gone"));
        drop(held);
    }
}
