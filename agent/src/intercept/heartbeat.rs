//! The agent's sign of life in the kernel.

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aya::maps::{Array, MapData};
use derny_ebpf_common::Beat;

use super::InterceptError;

/// Writes the sign of life. Without a beat for [`super::Options::stale_after`], new connections pass the agent
/// by. To be beaten by a thread of its own, and only while the workers make progress.
pub struct Heartbeat {
    map: Mutex<Array<MapData, Beat>>,
    stale_after: Duration,
}

impl Heartbeat {
    pub(super) fn new(map: Array<MapData, Beat>, stale_after: Duration) -> Self {
        Self {
            map: Mutex::new(map),
            stale_after,
        }
    }

    /// # Errors
    /// The map cannot be written, which does not happen to a loaded one.
    pub fn beat(&self) -> Result<(), InterceptError> {
        let beat = Beat {
            at_ns: nanoseconds(monotonic()),
            stale_after_ns: nanoseconds(self.stale_after),
        };
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        map.set(0, beat, 0).map_err(InterceptError::map("DERNY_BEAT"))
    }
}

/// The clock of the kernel helper `bpf_ktime_get_ns`. tokio's clock cannot be compared with it.
pub(super) fn monotonic() -> Duration {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    assert_eq!(
        result,
        0,
        "CLOCK_MONOTONIC is always there: {}",
        io::Error::last_os_error()
    );
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or_default())
}

/// Saturates after 584 years.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
