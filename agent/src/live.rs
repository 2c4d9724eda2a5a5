//! Alive while everything runs that must.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

/// What must run, and what must not last.
#[derive(Clone, Debug)]
pub struct Live {
    since: Instant,
    watched: Arc<Mutex<Watched>>,
}

#[derive(Debug, Default)]
struct Watched {
    parts: Vec<Arc<Part>>,
    troubles: Vec<Arc<Ongoing>>,
}

#[derive(Debug)]
struct Part {
    name: String,
    /// How long it may show nothing; `None` for what waits for others as long as it takes.
    within: Option<Duration>,
    since: Instant,
    /// Milliseconds after `since`.
    beat: AtomicU64,
    ended: AtomicBool,
}

#[derive(Debug)]
struct Ongoing {
    name: String,
    within: Duration,
    since: Instant,
    /// Milliseconds after `since`, plus 1; 0 while there is no trouble.
    begun: AtomicU64,
}

impl Live {
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            watched: Arc::default(),
        }
    }

    /// Something that must run, and show progress `within` so long, until the process ends.
    pub fn part(&self, name: impl Into<String>, within: Option<Duration>) -> Pulse {
        let part = Arc::new(Part {
            name: name.into(),
            within,
            since: self.since,
            beat: AtomicU64::new(millis(self.since.elapsed())),
            ended: AtomicBool::new(false),
        });
        self.lock().parts.push(part.clone());
        Pulse(part)
    }

    /// Something that may happen and must not last longer than `within`. `name` says it: `worker 0 cannot accept`.
    pub fn trouble(&self, name: impl Into<String>, within: Duration) -> Trouble {
        let ongoing = Arc::new(Ongoing {
            name: name.into(),
            within,
            since: self.since,
            begun: AtomicU64::new(0),
        });
        self.lock().troubles.push(ongoing.clone());
        Trouble(ongoing)
    }

    /// A sentence for each thing that is not as it must be.
    pub fn faults(&self, now: Instant) -> Vec<String> {
        let now = millis(now.saturating_duration_since(self.since));
        let watched = self.lock();
        let parts = watched.parts.iter().filter_map(|part| part.fault(now));
        let troubles = watched.troubles.iter().filter_map(|trouble| trouble.fault(now));
        parts.chain(troubles).collect()
    }

    /// No code that can panic runs under this lock, so that a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    fn fault(&self, now: u64) -> Option<String> {
        let name = &self.name;
        if self.ended.load(Relaxed) {
            return Some(format!("{name} has ended"));
        }
        let still = now.saturating_sub(self.beat.load(Relaxed));
        let too_long = self.within.is_some_and(|within| still > millis(within));
        too_long.then(|| format!("{name} has made no progress for {} s", still / 1000))
    }
}

impl Ongoing {
    fn fault(&self, now: u64) -> Option<String> {
        let begun = self.begun.load(Relaxed).checked_sub(1)?;
        let lasted = now.saturating_sub(begun);
        (lasted > millis(self.within)).then(|| format!("{} for {} s", self.name, lasted / 1000))
    }
}

/// Held by what must run. Dropping it, as a panic does, says that it has ended.
#[derive(Debug)]
#[must_use = "dropping it at once says that the part has ended"]
pub struct Pulse(Arc<Part>);

impl Pulse {
    pub fn beat(&self) {
        self.0.beat.store(millis(self.0.since.elapsed()), Relaxed);
    }

    /// Runs a task that must not end.
    pub async fn of(self, task: impl Future<Output = ()>) {
        task.await;
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.0.ended.store(true, Relaxed);
    }
}

/// Held by what may get into trouble, and get out of it again.
#[derive(Clone, Debug)]
pub struct Trouble(Arc<Ongoing>);

impl Trouble {
    /// Nothing when it has begun already.
    pub fn begins(&self) {
        let now = millis(self.0.since.elapsed()) + 1;
        let _ = self.0.begun.compare_exchange(0, now, Relaxed, Relaxed);
    }

    pub fn ends(&self) {
        self.0.begun.store(0, Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: [&str; 0] = [];

    #[test]
    fn what_stands_still_or_has_ended_is_named() {
        let begun = Instant::now();
        let live = Live::new(begun);
        let publisher = live.part("the publisher", Some(Duration::from_secs(5)));
        let log = live.part("the log", None);
        assert_eq!(live.faults(begun + Duration::from_secs(4)), NOTHING);
        publisher.beat();
        let stuck = live.faults(begun + Duration::from_secs(600));
        assert_eq!(stuck, ["the publisher has made no progress for 600 s"]);
        drop(log);
        assert_eq!(live.faults(begun), ["the log has ended"]);
    }

    #[tokio::test]
    async fn a_task_that_panics_has_ended() {
        let live = Live::new(Instant::now());
        let task = live
            .part("the prober", None)
            .of(async { unreachable!("on purpose") });
        tokio::spawn(task).await.unwrap_err();
        assert_eq!(live.faults(Instant::now()), ["the prober has ended"]);
    }

    #[test]
    fn trouble_may_come_and_go_but_not_last() {
        let begun = Instant::now();
        let live = Live::new(begun);
        let trouble = live.trouble("worker 0 cannot accept", Duration::from_secs(10));
        let later = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(live.faults(later(60)), NOTHING);
        trouble.begins();
        trouble.begins();
        assert_eq!(live.faults(later(9)), NOTHING);
        assert_eq!(live.faults(later(60)), ["worker 0 cannot accept for 60 s"]);
        trouble.ends();
        assert_eq!(live.faults(later(60)), NOTHING);
    }
}
