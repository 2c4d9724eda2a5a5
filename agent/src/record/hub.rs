//! All workers' shards, and their sum for a scrape.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    cells::Cell,
    labels::ScopeKey,
    scope::{Scope, ScopeShard},
};
use crate::model::{MAX_SLOTS, Slot};

/// How many scopes one worker counts apart; further ones share one scope named `other`.
const MAX_SCOPES: usize = 10_000;

/// Numbers of a worker that belong to no scope.
#[derive(Debug)]
pub(super) struct WorkerShard {
    pub(super) series_overflow: Cell,
    pub(super) access_lines: Cell,
    pub(super) access_dropped: Cell,
    pub(super) accept_errors: Cell,
    pub(super) accept_limit: Cell,
    open_by_slot: Box<[Cell]>,
    scopes: Mutex<Vec<Arc<ScopeShard>>>,
}

impl WorkerShard {
    fn new() -> Self {
        Self {
            series_overflow: Cell::default(),
            access_lines: Cell::default(),
            access_dropped: Cell::default(),
            accept_errors: Cell::default(),
            accept_limit: Cell::default(),
            open_by_slot: (0..MAX_SLOTS).map(|_| Cell::default()).collect(),
            scopes: Mutex::default(),
        }
    }

    pub(super) fn scopes(&self) -> MutexGuard<'_, Vec<Arc<ScopeShard>>> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Owned by the process: what all workers counted.
#[derive(Clone, Debug, Default)]
pub struct Hub {
    workers: Arc<Mutex<Vec<Arc<WorkerShard>>>>,
}

impl Hub {
    /// The counters of one more worker.
    pub fn worker(&self) -> Counters {
        let shard = Arc::new(WorkerShard::new());
        self.workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(shard.clone());
        Counters {
            shard,
            scopes: RefCell::default(),
        }
    }

    pub(super) fn workers(&self) -> Vec<Arc<WorkerShard>> {
        self.workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Connections from and to the pod in `slot` that are open now.
    pub fn open_connections(&self, slot: Slot) -> u64 {
        self.workers()
            .iter()
            .map(|worker| worker.open_by_slot[slot.index()].get())
            .sum()
    }
}

/// One worker's counters.
#[derive(Debug)]
pub struct Counters {
    pub(super) shard: Arc<WorkerShard>,
    scopes: RefCell<HashMap<ScopeKey, Rc<Scope>>>,
}

impl Counters {
    /// The scope of `key`, made when it is new.
    pub fn scope(&self, key: ScopeKey) -> Rc<Scope> {
        let mut scopes = self.scopes.borrow_mut();
        if let Some(scope) = scopes.get(&key) {
            return scope.clone();
        }
        let key = if scopes.len() < MAX_SCOPES {
            key
        } else {
            self.shard.series_overflow.add(1);
            ScopeKey::other(key.direction)
        };
        let scope = scopes.entry(key).or_insert_with_key(|key| {
            let shard = Arc::new(ScopeShard::new(key.clone()));
            self.shard.scopes().push(shard.clone());
            Scope::new(shard)
        });
        scope.clone()
    }

    /// Forgets the scopes that `keep` does not want: those of pods and services that have gone. A scope in use
    /// goes on counting, and is not seen again.
    pub fn retain(&self, keep: impl Fn(&ScopeKey) -> bool) {
        self.scopes.borrow_mut().retain(|key, _| keep(key));
        self.shard.scopes().retain(|scope| keep(&scope.key));
    }

    /// A connection of the pod in `slot` is open until the guard is dropped.
    pub fn connection_of(&self, slot: Slot) -> PodConnection {
        self.shard.open_by_slot[slot.index()].add(1);
        PodConnection {
            shard: self.shard.clone(),
            slot,
        }
    }

    pub fn accept_error(&self) {
        self.shard.accept_errors.add(1);
    }

    pub fn accept_limited(&self) {
        self.shard.accept_limit.add(1);
    }
}

/// Counts one connection as a pod's.
#[derive(Debug)]
pub struct PodConnection {
    shard: Arc<WorkerShard>,
    slot: Slot,
}

impl Drop for PodConnection {
    fn drop(&mut self) {
        self.shard.open_by_slot[self.slot.index()].sub(1);
    }
}
