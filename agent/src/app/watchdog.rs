//! A process that hangs ends itself, so that connections that stand break and are made anew past it, and its supervisor
//! starts another one.
//!
//! A timer of the kernel's kills the process unless it is wound up again and again: whatever the process hangs in, also
//! when it is stopped altogether, is no hindrance to that. Whoever winds it up also looks whether a worker hangs.

use std::{fs, io, mem::MaybeUninit, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::Instant;

use crate::proxy::Progress;

/// Kills the process when it runs out. Dropping it stops it.
#[derive(Debug)]
pub(super) struct DeadMansTimer {
    id: libc::timer_t,
    after: Duration,
}

// SAFETY: an id of the process, which any of its threads may use.
unsafe impl Send for DeadMansTimer {}

impl DeadMansTimer {
    /// It does not run until it is wound up.
    pub(super) fn new(after: Duration) -> io::Result<Self> {
        // SAFETY: all zeros are a value of this type.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        // The one signal that also ends a process that is stopped.
        event.sigev_signo = libc::SIGKILL;
        let mut id = MaybeUninit::uninit();
        // SAFETY: both pointers are to values that live until the call has returned.
        let made = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, id.as_mut_ptr()) };
        match made {
            0 => Ok(Self {
                // SAFETY: the kernel has written it.
                id: unsafe { id.assume_init() },
                after,
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(super) fn wind_up(&self) -> io::Result<()> {
        let time = |of: Duration| libc::timespec {
            tv_sec: libc::time_t::try_from(of.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: of.subsec_nanos().into(),
        };
        let once = libc::itimerspec {
            it_interval: time(Duration::ZERO),
            it_value: time(self.after),
        };
        // SAFETY: the timer is this value's own, and the pointer is to a value that lives until the call has returned.
        let set = unsafe { libc::timer_settime(self.id, 0, &raw const once, std::ptr::null_mut()) };
        match set {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for DeadMansTimer {
    fn drop(&mut self) {
        // SAFETY: the timer is this value's own, and nobody uses it after this.
        unsafe { libc::timer_delete(self.id) };
    }
}

/// What a thread has been doing, as `/proc` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Activity {
    /// It wants a processor, or has one.
    is_runnable: bool,
    /// In ticks of a hundredth of a second.
    cpu: u64,
}

const TICK: Duration = Duration::from_millis(10);

impl Activity {
    fn of(task: u32) -> Option<Self> {
        parse(&fs::read_to_string(format!("/proc/self/task/{task}/stat")).ok()?)
    }
}

/// The second field is the thread's name in parentheses, which may contain any character.
fn parse(stat: &str) -> Option<Activity> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    // utime and stime, the 14th and 15th.
    let (user, system) = (fields.nth(10)?, fields.next()?);
    Some(Activity {
        is_runnable: state == "R",
        cpu: user.parse::<u64>().ok()? + system.parse::<u64>().ok()?,
    })
}

/// How long one worker has hung. Time in which it wanted a processor and got none does not count: another process in the
/// place of this one would get none either.
#[derive(Debug, Default)]
pub(super) struct Hang {
    lasted: Duration,
    before: Option<Activity>,
}

impl Hang {
    /// `idle` is the time since the worker made progress, and `passed` that since the last look.
    fn look(&mut self, idle: Duration, passed: Duration, activity: Option<Activity>) -> Duration {
        let before = std::mem::replace(&mut self.before, activity);
        if idle < passed {
            self.lasted = Duration::ZERO;
            return self.lasted;
        }
        self.lasted += match (before, activity) {
            (Some(before), Some(now)) if now.is_runnable => {
                let ticks = u32::try_from(now.cpu.saturating_sub(before.cpu)).unwrap_or(u32::MAX);
                (TICK * ticks).min(passed)
            }
            _ => passed,
        };
        self.lasted
    }
}

/// Winds the timer up, and ends the process when a worker hangs.
#[derive(Debug)]
pub(super) struct Watchdog {
    timer: DeadMansTimer,
    hangs: Vec<Hang>,
    looked: Instant,
}

/// How long the process's last words may take.
const LAST_WORDS: Duration = Duration::from_millis(100);

impl Watchdog {
    pub(super) fn new(after: Duration, workers: usize, now: Instant) -> io::Result<Self> {
        Ok(Self {
            timer: DeadMansTimer::new(after)?,
            hangs: (0..workers).map(|_| Hang::default()).collect(),
            looked: now,
        })
    }

    /// To be called often.
    pub(super) fn look(&mut self, workers: &[Progress], now: Instant) {
        let passed = now.saturating_duration_since(self.looked);
        self.looked = now;
        let longest = self.hangs.iter_mut().zip(workers).map(|(hang, worker)| {
            let activity = worker.task().and_then(Activity::of);
            hang.look(worker.age(now), passed, activity)
        });
        let longest = longest.max().unwrap_or_default();
        if longest >= self.timer.after {
            let seconds = longest.as_secs_f64();
            tracing::error!(
                seconds,
                "a worker hangs: the process ends, so that what stands on it can go on elsewhere"
            );
            crate::telemetry::flush(LAST_WORDS);
            // As the timer would: what redirects goes before what listens, and no destructor waits for the worker.
            let _ = kill(Pid::this(), Signal::SIGKILL);
        }
        if let Err(error) = self.timer.wind_up() {
            tracing::error!(%error, "the watchdog's timer cannot be set");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(200);

    #[test]
    fn a_threads_state_and_time_are_read_whatever_its_name() {
        let rest = "S 1 1 1 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 1 0 4711 1 2";
        for name in ["derny-worker-0", "a b) R 1", "()) ("] {
            let activity = parse(&format!("7 ({name}) {rest}")).unwrap();
            assert_eq!((activity.is_runnable, activity.cpu), (false, 42), "{name}");
        }
        assert_eq!(parse("7 (short) S 1"), None);
        let own = Activity::of(std::process::id());
        assert!(own.is_some(), "the first thread has the process's number");
    }

    #[test]
    fn a_worker_hangs_when_it_sleeps_or_runs_on_and_not_when_it_is_kept_waiting() {
        let after_looks = |is_runnable: bool, ticks_a_look: u64| {
            let mut hang = Hang::default();
            for look in 0..10_u64 {
                let activity = Activity {
                    is_runnable,
                    cpu: look * ticks_a_look,
                };
                hang.look(LOOK * 11, LOOK, Some(activity));
            }
            hang
        };
        assert_eq!(after_looks(false, 0).lasted, LOOK * 10, "blocked");
        // The first look has nothing to compare with.
        assert_eq!(after_looks(true, 20).lasted, LOOK * 10, "runs on and on");
        assert_eq!(after_looks(true, 0).lasted, LOOK, "starved");
        let mut hang = after_looks(false, 0);
        assert_eq!(hang.look(Duration::ZERO, LOOK, None), Duration::ZERO, "goes on");
        assert_eq!(hang.look(LOOK * 2, LOOK, None), LOOK, "where there is no /proc");
    }
}
