//! The window of a connection to an endpoint: what it may send before the callers have read it. One caller's streams
//! share four streams' worth. While several callers share the connection its window covers all their streams, so that
//! an answer that one of them does not read is never in the way of the others'.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
};

use crate::share::{Holding, Local, Share};

/// A connection's window is at least so many streams' worth.
const LEAST_STREAMS: u32 = 4;
/// Streams of several callers that share a connection, where their windows are not too large.
const SHARED_STREAMS: u32 = 128;
/// What unread answers of a shared connection may hold, in bytes.
pub(super) const SHARED_BYTES: u32 = 32 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Window {
    /// Of one stream.
    stream: u32,
    /// Of the connection while one caller has it.
    base: u32,
    target: Cell<u32>,
    /// What the pod's share pays for it beyond `base`.
    paid: RefCell<Option<Holding>>,
    share: Rc<Local>,
    /// The connection's task.
    driver: RefCell<Option<Waker>>,
}

impl Window {
    pub(super) fn new(stream: u32, base: u32, share: &Rc<Local>) -> Self {
        Self {
            stream,
            base,
            target: Cell::new(base),
            paid: RefCell::default(),
            share: share.clone(),
            driver: RefCell::default(),
        }
    }

    /// Streams that several callers may have at a time.
    pub(super) fn shared_streams(&self) -> usize {
        let fit = SHARED_BYTES / self.stream.max(1);
        fit.clamp(LEAST_STREAMS, SHARED_STREAMS) as usize
    }

    /// So many streams are to share the connection. False when the pod's share does not allow that.
    pub(super) fn cover(&self, streams: usize) -> bool {
        let streams = u32::try_from(streams).unwrap_or(u32::MAX).min(SHARED_STREAMS);
        let wanted = self.stream.saturating_mul(streams);
        let more = u64::from(wanted.saturating_sub(self.target.get()));
        if more == 0 {
            return true;
        }
        let mut paid = self.paid.borrow_mut();
        let grown = match paid.as_mut() {
            Some(paid) => paid.grow(more),
            None => {
                *paid = self.share.take(Share::Memory, more);
                paid.is_some()
            }
        };
        if grown {
            self.target.set(wanted);
            if let Some(driver) = self.driver.borrow().as_ref() {
                driver.wake_by_ref();
            }
        }
        grown
    }

    /// Nobody uses the connection.
    pub(super) fn lower(&self) {
        self.target.set(self.base);
        *self.paid.borrow_mut() = None;
    }

    /// What the window should be. `driver` is woken when that grows.
    pub(super) fn target(&self, driver: &Waker) -> u32 {
        let mut known = self.driver.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(driver)) {
            *known = Some(driver.clone());
        }
        self.target.get()
    }
}

pub(super) fn least(stream: u32) -> u32 {
    stream.saturating_mul(LEAST_STREAMS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::PodName,
        share::{Bound, Ledger, Limits},
    };

    fn pod(limits: Limits) -> Rc<Local> {
        let name = PodName {
            namespace: "demo".into(),
            name: "one".into(),
        };
        Local::new(Ledger::new(limits).open(name))
    }

    #[test]
    fn the_window_covers_all_streams_that_share_a_connection() {
        let check = |stream: u32, shared: usize| {
            let window = Window::new(stream, least(stream), &pod(Limits::none()));
            assert_eq!(window.shared_streams(), shared, "{stream}");
            assert!(window.cover(shared));
            let covered = window.target(Waker::noop()) / stream;
            assert!(covered as usize >= shared, "{stream}: {covered} of {shared}");
            window.lower();
            assert_eq!(window.target(Waker::noop()), 4 * stream);
        };
        check(65_536, 128);
        check(256 * 1024, 128);
        check(1024 * 1024, 32);
        check(16 * 1024 * 1024, 4);
    }

    #[test]
    fn what_a_window_grows_by_is_the_pods_to_pay() {
        const MIB: u64 = 1 << 20;
        let bound = Bound {
            node: 2 * MIB,
            pod: 2 * MIB,
        };
        let pod = pod(Limits {
            memory: bound,
            ..Limits::none()
        });
        let before = pod.account().left(Share::Memory);
        let window = Window::new(256 * 1024, least(256 * 1024), &pod);
        assert!(window.cover(5) && window.cover(3));
        assert!(!window.cover(100), "more than the pod may have");
        assert_eq!(window.target(Waker::noop()), 5 * 256 * 1024);
        window.lower();
        pod.settle();
        assert_eq!(pod.account().left(Share::Memory), before);
    }
}
