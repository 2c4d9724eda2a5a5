//! What an operator wants to know of pods beyond the snapshot.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::model::{Bystander, PodName};

/// A handle. Every copy shows the same.
#[derive(Clone, Debug, Default)]
pub struct PodBoard(Arc<Mutex<Shown>>);

#[derive(Debug, Default)]
pub(super) struct Shown {
    /// In ascending order of name.
    pub(super) bystanders: Vec<Bystander>,
    /// Of pods in the snapshot: what is wrong with their labels and annotations.
    pub(super) notes: BTreeMap<PodName, String>,
}

impl PodBoard {
    /// Pods of this node that are not in the snapshot, and why.
    pub fn bystanders(&self) -> Vec<Bystander> {
        self.lock().bystanders.clone()
    }

    /// What is wrong with the labels and annotations of a pod that is in the snapshot.
    pub fn note(&self, pod: &PodName) -> Option<String> {
        self.lock().notes.get(pod).cloned()
    }

    pub(super) fn show(&self, shown: Shown) {
        *self.lock() = shown;
    }

    /// No code that can panic runs under this lock, so that a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
