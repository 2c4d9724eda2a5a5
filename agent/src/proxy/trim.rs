//! When a worker gives memory back to the system: after it has been busy, once it is quiet. The allocator keeps what was
//! freed as long as the thread may want it again, and without work no thread asks it to let go.

use std::time::Duration;

/// A tick in which the thread used more CPU time than this is a busy one.
const BUSY: Duration = Duration::from_millis(20);
/// Quiet ticks after which memory is given back: 3 s.
const QUIET: u32 = 30;
/// How often that is done after a busy time: connections that were idle end one after the other.
const TIMES: u32 = 6;

#[derive(Debug, Default)]
pub(super) struct Trim {
    quiet: u32,
    /// How often memory is still to be given back.
    due: u32,
}

impl Trim {
    /// After a tick in which the thread used `cpu`: whether memory is to be given back now.
    pub(super) fn is_due(&mut self, cpu: Duration) -> bool {
        if cpu > BUSY {
            (self.quiet, self.due) = (0, TIMES);
            return false;
        }
        self.quiet += 1;
        if self.quiet < QUIET || self.due == 0 {
            return false;
        }
        self.quiet = 0;
        self.due -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_a_few_times_after_a_busy_time() {
        let mut trim = Trim::default();
        let mut ticks = |cpu: u64, ticks: u32| {
            let due = |_: &u32| trim.is_due(Duration::from_millis(cpu));
            (0..ticks).filter(due).count()
        };
        assert_eq!(ticks(1, 1000), 0, "it has not been busy");
        assert_eq!(ticks(80, 1000), 0, "it is busy");
        assert_eq!(ticks(1, QUIET - 1), 0);
        assert_eq!(ticks(1, 1), 1);
        assert_eq!(ticks(1, 1000), 5);
    }
}
