//! The clock by which tasks are billed, and which they go by. It is read at each boundary between two tasks: the kernel
//! answers `CLOCK_MONOTONIC` without a system call, but in some 25 ns.

use std::{cell::Cell, sync::OnceLock, time::Duration};

use tokio::time::Instant;

thread_local! {
    /// When the task that runs began to.
    static TURN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// What time it is, as of when the task that runs was last taken up: up to some tens of microseconds ago. For whatever
/// happens at each request; what loops until a time has come reads the real clock.
pub fn now() -> Instant {
    TURN.get().unwrap_or_else(Instant::now)
}

/// When the task that runs was taken up; `None` outside of turns.
pub(super) fn turn() -> Option<Instant> {
    TURN.get()
}

/// Milliseconds of a time that all workers have in common and that is never 0.
pub(super) fn millis() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = START.get_or_init(Instant::now).elapsed();
    u64::try_from(since.as_millis())
        .unwrap_or(u64::MAX)
        .saturating_add(1)
}

/// A task is taken up.
pub(super) fn begin(at: Instant) {
    TURN.set(Some(at));
}

/// What runs next is nobody's turn.
pub(super) fn end() {
    TURN.set(None);
}

/// CPU time of this thread. A system call.
pub(super) fn of_thread() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec. The clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())
}
