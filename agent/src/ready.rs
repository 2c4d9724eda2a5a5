//! Ready when nothing is left to wait for.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A latch: the process is ready once every named task has dropped its [`Guard`].
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<Mutex<Pending>>);

#[derive(Debug, Default)]
struct Pending {
    next: u64,
    tasks: BTreeMap<u64, String>,
}

impl Ready {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds something to wait for. `name` is shown to whoever asks why the agent is not ready.
    pub fn task(&self, name: impl Into<String>) -> Guard {
        let mut pending = self.lock();
        let id = pending.next;
        pending.next += 1;
        pending.tasks.insert(id, name.into());
        Guard {
            ready: self.clone(),
            id,
        }
    }

    /// What is awaited, in the order in which it was added; empty when ready.
    pub fn pending(&self) -> Vec<String> {
        self.lock().tasks.values().cloned().collect()
    }

    /// No code that can panic runs under this lock, so that a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One task that is not done yet. Dropping it says that it is.
#[derive(Debug)]
#[must_use = "dropping it at once says that the task is done"]
pub struct Guard {
    ready: Ready,
    id: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.ready.lock().tasks.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_when_all_guards_are_gone() {
        let ready = Ready::new();
        let kernel = ready.task("kernel programs");
        let first = ready.task("workers");
        let second = ready.task("workers");
        assert_eq!(ready.pending(), ["kernel programs", "workers", "workers"]);
        drop(first);
        drop(kernel);
        assert_eq!(ready.pending(), ["workers"]);
        drop(second);
        assert!(ready.pending().is_empty());
    }
}
