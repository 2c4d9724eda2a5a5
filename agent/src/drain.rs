//! Begin to end a task, and know when it has.
//!
//! ```text
//! Trigger::drain ──signal──▶ Watch::signaled (any number)
//!       ▲                          │
//!       └── all guards dropped ◀── Guard (work that should be finished first)
//! ```

use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// The two ends. Clones of the [`Watch`] go to everything that is to end.
pub fn channel() -> (Trigger, Watch) {
    let (signal, signaled) = watch::channel(Phase::Running);
    let (guard, all_dropped) = mpsc::channel(1);
    (
        Trigger { signal, all_dropped },
        Watch {
            signaled,
            guard: Guard(guard),
        },
    )
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Running,
    Draining,
}

/// What came of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// All work was finished.
    Finished,
    /// The deadline came first; what goes on is to be cut off.
    Deadline,
}

/// Held by whoever decides that it is time. Dropping it is the signal too.
#[derive(Debug)]
pub struct Trigger {
    signal: watch::Sender<Phase>,
    all_dropped: mpsc::Receiver<()>,
}

impl Trigger {
    /// Gives the signal.
    pub fn signal(&self) {
        self.signal.send_replace(Phase::Draining);
    }

    /// Gives the signal, then waits until every [`Guard`] and [`Watch`] is gone, at most for `deadline`.
    pub async fn drain(mut self, deadline: Duration) -> Drained {
        self.signal();
        // Nothing is ever sent: `recv` returns when the last sender, which is a guard, is dropped.
        match tokio::time::timeout(deadline, self.all_dropped.recv()).await {
            Ok(_) => Drained::Finished,
            Err(_) => Drained::Deadline,
        }
    }
}

/// Held by whatever is to end. It holds the drain up for as long as it exists, as a [`Guard`] does.
#[derive(Clone, Debug)]
pub struct Watch {
    signaled: watch::Receiver<Phase>,
    guard: Guard,
}

impl Watch {
    /// Returns when the drain has begun; at once if it has already.
    pub async fn signaled(&self) {
        let mut signaled = self.signaled.clone();
        // An error says that the trigger is gone, which is the signal too.
        let _ = signaled.wait_for(|phase| *phase == Phase::Draining).await;
    }

    pub fn is_signaled(&self) -> bool {
        *self.signaled.borrow() == Phase::Draining || self.signaled.has_changed().is_err()
    }

    /// Keeps the drain waiting until it is dropped. For work that does not look at the signal itself.
    pub fn guard(&self) -> Guard {
        self.guard.clone()
    }
}

/// Work that is finished before the process ends.
#[derive(Clone, Debug)]
pub struct Guard(#[expect(dead_code, reason = "held for its drop")] mpsc::Sender<()>);

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn ends_when_the_last_guard_is_dropped() {
        let (trigger, watch) = channel();
        assert!(!watch.is_signaled());
        let guard = watch.guard();
        let task = tokio::spawn(async move {
            watch.signaled().await;
            assert!(watch.is_signaled());
            drop(watch);
            tokio::time::sleep(Duration::from_secs(2)).await;
            drop(guard);
        });
        let start = Instant::now();
        assert_eq!(trigger.drain(DEADLINE).await, Drained::Finished);
        assert_eq!(start.elapsed(), Duration::from_secs(2));
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_at_the_deadline() {
        let (trigger, watch) = channel();
        let start = Instant::now();
        assert_eq!(trigger.drain(DEADLINE).await, Drained::Deadline);
        assert_eq!(start.elapsed(), DEADLINE);
        watch.signaled().await;
    }

    #[tokio::test]
    async fn a_dropped_trigger_is_the_signal() {
        let (trigger, watch) = channel();
        drop(trigger);
        watch.signaled().await;
        assert!(watch.is_signaled());
    }
}
