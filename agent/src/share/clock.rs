//! The clock by which tasks are billed. Read at each boundary between two tasks, so it must cost little: the kernel
//! answers `CLOCK_MONOTONIC` without a system call.

use libc::clockid_t;

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(super) fn now() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// CPU time of this thread in nanoseconds. A system call.
pub(super) fn of_thread() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn read(clock: clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec. Both clocks are always there.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default()
}
