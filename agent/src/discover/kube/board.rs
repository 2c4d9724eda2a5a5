//! What an operator wants to know of the conversation with the API server.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::model::ServiceName;

/// A handle to the numbers. Every copy shows the same.
#[derive(Clone, Debug, Default)]
pub struct KubeBoard(Arc<Mutex<Shown>>);

#[derive(Debug, Default)]
struct Shown {
    requests: BTreeMap<(&'static str, &'static str, &'static str), u64>,
    watches: BTreeMap<&'static str, u64>,
    relists: BTreeMap<&'static str, u64>,
    /// When the server last said anything that was no failure.
    contact: Option<Instant>,
    /// Whether the newest thing heard was that, and no failure to reach it.
    up: bool,
    faults: Vec<ObjectFault>,
    left_alone: Vec<(ServiceName, String)>,
}

/// An object whose newest version is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectFault {
    /// Plural name of its kind.
    pub resource: &'static str,
    /// `namespace/name`.
    pub object: String,
    pub message: String,
    pub last_good_in_force: bool,
}

/// Requests of one kind since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestCount {
    /// Plural name, as `services`.
    pub resource: &'static str,
    /// `list`, `watch`, `get`, `patch`, …
    pub verb: &'static str,
    /// `ok`, or the kind of failure.
    pub result: &'static str,
    pub count: u64,
}

impl KubeBoard {
    pub fn requests(&self) -> Vec<RequestCount> {
        let shown = self.lock();
        let counts = shown.requests.iter();
        counts
            .map(|((resource, verb, result), count)| RequestCount {
                resource,
                verb,
                result,
                count: *count,
            })
            .collect()
    }

    /// (resource, watches that are open).
    pub fn watches(&self) -> Vec<(&'static str, u64)> {
        self.lock().watches.iter().map(|(of, n)| (*of, *n)).collect()
    }

    /// (resource, lists that had to be read again because the server no longer knew where the watch stood).
    pub fn relists(&self) -> Vec<(&'static str, u64)> {
        self.lock().relists.iter().map(|(of, n)| (*of, *n)).collect()
    }

    /// How long ago the server last said anything; `None` when it never has.
    pub fn silence(&self, now: Instant) -> Option<Duration> {
        self.lock().contact.map(|at| now.saturating_duration_since(at))
    }

    pub fn is_up(&self) -> bool {
        self.lock().up
    }

    /// Objects that are not in force as they are written.
    pub fn faults(&self) -> Vec<ObjectFault> {
        self.lock().faults.clone()
    }

    /// Services that the mesh does not serve, and why.
    pub fn left_alone(&self) -> Vec<(ServiceName, String)> {
        self.lock().left_alone.clone()
    }

    pub(super) fn show(&self, faults: Vec<ObjectFault>, left_alone: Vec<(ServiceName, String)>) {
        let mut shown = self.lock();
        shown.faults = faults;
        shown.left_alone = left_alone;
    }

    pub(super) fn request(&self, resource: &'static str, verb: &'static str, result: &'static str) {
        let mut shown = self.lock();
        *shown.requests.entry((resource, verb, result)).or_default() += 1;
        match result {
            "unreachable" | "unavailable" => shown.up = false,
            _ => shown.heard(),
        }
    }

    pub(super) fn relisted(&self, resource: &'static str) {
        *self.lock().relists.entry(resource).or_default() += 1;
    }

    pub(super) fn heard(&self) {
        self.lock().heard();
    }

    /// Counts a watch for as long as what is returned lives.
    pub(super) fn watch(&self, resource: &'static str) -> OpenWatch {
        *self.lock().watches.entry(resource).or_default() += 1;
        OpenWatch(self.clone(), resource)
    }

    /// No code that can panic runs under this lock, so that a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    fn heard(&mut self) {
        self.contact = Some(Instant::now());
        self.up = true;
    }
}

#[derive(Debug)]
pub(super) struct OpenWatch(KubeBoard, &'static str);

impl Drop for OpenWatch {
    fn drop(&mut self) {
        if let Some(open) = self.0.lock().watches.get_mut(self.1) {
            *open = open.saturating_sub(1);
        }
    }
}
