//! What an operator wants to know of the conversation with the API server.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::model::ServiceName;

/// A server that was not heard for so long, and then is, was away.
const AWAY: Duration = Duration::from_secs(5);

/// A handle to the numbers. Every copy shows the same.
#[derive(Clone, Debug, Default)]
pub struct KubeBoard(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    shown: Mutex<Shown>,
    /// Counts up when the server is heard again after a silence.
    returns: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Shown {
    requests: BTreeMap<(&'static str, &'static str, &'static str), u64>,
    watches: BTreeMap<&'static str, u64>,
    relists: BTreeMap<&'static str, u64>,
    /// When the server last said anything that was no failure.
    contact: Option<Instant>,
    /// Whether the newest thing heard was that, and no failure to reach it.
    up: bool,
    /// Whether it could not be reached since it was last heard: more than that one kind fails.
    lost: bool,
    /// Kinds of which the server answered last that it cannot give them.
    unavailable: BTreeSet<&'static str>,
    faults: Vec<ObjectFault>,
    left_alone: Vec<(ServiceName, String)>,
    /// By resource and verb.
    troubles: BTreeMap<(&'static str, &'static str), String>,
}

/// An object whose newest version is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectFault {
    /// Plural name of its kind.
    pub resource: &'static str,
    /// `namespace/name`.
    pub object: String,
    pub message: String,
    pub in_force: InForce,
}

/// What is in force of an object with a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InForce {
    Nothing,
    LastGood,
    /// The newest version without the rules that have faults.
    Part,
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

    /// Whether an answer to a question about this kind is to be hoped for. One kind that the server cannot give says
    /// nothing of the others.
    pub(super) fn may_give(&self, resource: &'static str) -> bool {
        let shown = self.lock();
        shown.contact.is_some() && !shown.lost && !shown.unavailable.contains(resource)
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
            "unreachable" => (shown.up, shown.lost) = (false, true),
            "unavailable" => {
                shown.up = false;
                shown.unavailable.insert(resource);
            }
            _ => {
                shown.unavailable.remove(resource);
                drop(shown);
                self.heard();
            }
        }
    }

    /// What is in the way of one kind of request, or nothing any more.
    pub(super) fn trouble(&self, resource: &'static str, verb: &'static str, trouble: Option<String>) {
        let mut shown = self.lock();
        match trouble {
            Some(message) => drop(shown.troubles.insert((resource, verb), message)),
            None => drop(shown.troubles.remove(&(resource, verb))),
        }
    }

    /// (message, what is not had for it: `list pods`). One message may stand for many.
    pub fn troubles(&self) -> BTreeMap<String, Vec<String>> {
        let mut troubles = BTreeMap::<String, Vec<String>>::new();
        for ((resource, verb), message) in &self.lock().troubles {
            troubles
                .entry(message.clone())
                .or_default()
                .push(format!("{verb} {resource}"));
        }
        troubles
    }

    pub(super) fn relisted(&self, resource: &'static str) {
        *self.lock().relists.entry(resource).or_default() += 1;
    }

    pub(super) fn heard(&self) {
        if self.lock().heard(Instant::now()) {
            self.0.returns.send_modify(|count| *count += 1);
        }
    }

    /// Changes when the server is heard again after a silence: also for who looks only later.
    pub(super) fn returns(&self) -> watch::Receiver<u64> {
        self.0.returns.subscribe()
    }

    /// Counts a watch for as long as what is returned lives.
    pub(super) fn watch(&self, resource: &'static str) -> OpenWatch {
        *self.lock().watches.entry(resource).or_default() += 1;
        OpenWatch(self.clone(), resource)
    }

    /// No code that can panic runs under this lock, so that a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.0.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    /// Whether it was away until now.
    fn heard(&mut self, now: Instant) -> bool {
        let before = self.contact.replace(now);
        self.up = true;
        if before.is_none() {
            tracing::info!("API server up");
        }
        std::mem::take(&mut self.lost) && before.is_none_or(|at| now.saturating_duration_since(at) >= AWAY)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_is_back_after_a_silence_and_not_after_one_failure() {
        let board = KubeBoard::default();
        board.heard();
        let returns = board.returns();
        let cases = [
            ("unreachable", AWAY / 2, false),
            // One kind fails, in a cluster where nothing else happens.
            ("unavailable", AWAY, false),
            ("unreachable", AWAY, true),
        ];
        for (failure, silence, expected) in cases {
            board.request("pods", "watch", failure);
            tokio::time::advance(silence).await;
            assert!(!board.is_up());
            board.request("services", "list", "ok");
            assert_eq!((board.is_up(), returns.has_changed().unwrap()), (true, expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_is_to_be_hoped_for_until_it_fails_or_the_server_is_away() {
        let board = KubeBoard::default();
        let hopes = || ["endpointslices", "httproutes"].map(|kind| board.may_give(kind));
        assert_eq!(hopes(), [false, false], "the server was never heard");
        board.heard();
        assert_eq!(hopes(), [true, true]);
        board.request("httproutes", "list", "unavailable");
        assert_eq!(hopes(), [true, false]);
        board.request("pods", "watch", "unreachable");
        assert_eq!(hopes(), [false, false]);
        board.heard();
        assert_eq!(hopes(), [true, false]);
        board.request("httproutes", "list", "ok");
        assert_eq!(hopes(), [true, true]);
    }
}
