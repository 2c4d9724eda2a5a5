//! What is known of every endpoint that is probed, for whoever wants to look.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use super::{Change, Failure, Kind, Outcome, State, Thresholds};
use crate::model::ServicePortName;

/// Shared between the prober, which writes, and the windows, which read.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    seen: Mutex<BTreeMap<Key, Seen>>,
    /// In the order of [`Kind::ALL`].
    results: [AtomicU64; Kind::ALL.len()],
    held_back: AtomicU64,
}

type Key = (ServicePortName, SocketAddr);

/// One endpoint of one service port, as its probes show it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub port: ServicePortName,
    pub endpoint: SocketAddr,
    pub state: State,
    /// Why the last probe failed; `None` when it passed, or none has ended.
    pub failure: Option<Failure>,
    /// When the last probe ended.
    pub probed_at: Option<Instant>,
}

/// Counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Probes that ended, by what they came to; every kind is there.
    pub results: Vec<(&'static str, u64)>,
    /// Probes that waited because as many as allowed were under way.
    pub held_back: u64,
}

impl Board {
    /// Every endpoint that is probed, in order of name and address.
    pub fn all(&self) -> Vec<Seen> {
        self.lock().values().cloned().collect()
    }

    /// `None` when it is not probed.
    pub fn of(&self, port: &ServicePortName, endpoint: SocketAddr) -> Option<Seen> {
        self.lock().get(&(port.clone(), endpoint)).cloned()
    }

    pub fn numbers(&self) -> Numbers {
        let counts = Kind::ALL.iter().zip(&self.0.results);
        Numbers {
            results: counts
                .map(|(kind, count)| (kind.as_str(), count.load(Ordering::Relaxed)))
                .collect(),
            held_back: self.0.held_back.load(Ordering::Relaxed),
        }
    }

    /// From now on this endpoint is probed. What is known of it already stays.
    pub(super) fn begin(&self, port: &ServicePortName, endpoint: SocketAddr, now: Instant) {
        let mut seen = self.lock();
        seen.entry((port.clone(), endpoint)).or_insert_with(|| Seen {
            port: port.clone(),
            endpoint,
            state: State::new(now),
            failure: None,
            probed_at: None,
        });
    }

    pub(super) fn forget(&self, port: &ServicePortName, endpoint: SocketAddr) {
        self.lock().remove(&(port.clone(), endpoint));
    }

    /// Takes the result of a probe. What is known afterwards, and the change; `None` when the endpoint has been
    /// forgotten meanwhile.
    pub(super) fn observe(
        &self,
        port: &ServicePortName,
        endpoint: SocketAddr,
        result: Result<(), Failure>,
        thresholds: Thresholds,
        now: Instant,
    ) -> Option<Observed> {
        let kind = result.as_ref().map_or_else(Failure::kind, |()| Kind::Passed);
        for (of, count) in Kind::ALL.iter().zip(&self.0.results) {
            if *of == kind {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        let mut all = self.lock();
        let seen = all.get_mut(&(port.clone(), endpoint))?;
        let outcome = match result {
            Ok(()) => Outcome::Passed,
            Err(_) => Outcome::Failed,
        };
        let change = seen.state.observe(outcome, thresholds, now);
        let before = std::mem::replace(&mut seen.failure, result.err());
        seen.probed_at = Some(now);
        Some(Observed {
            change,
            newly_misconfigured: seen.failure == Some(Failure::Unimplemented) && before != seen.failure,
        })
    }

    pub(super) fn held_back(&self) {
        self.0.held_back.fetch_add(1, Ordering::Relaxed);
    }

    /// No code that can panic runs under this lock, so that a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Seen>> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a result has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Observed {
    pub(super) change: Option<Change>,
    /// The last probe found that the check itself is wrong, and the one before had not.
    pub(super) newly_misconfigured: bool,
}
