//! Who shares an HTTP/2 connection to an endpoint. An answer that its caller does not read keeps a part of the
//! connection's window, so callers share a connection only while the window covers all that they may keep. A caller with
//! more streams than that has a connection of its own, where it holds up nobody else.

use std::net::IpAddr;

use smallvec::SmallVec;

/// Whose requests share a fate anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Somebody who calls a pod of this node, by its address: with more connections it is still one.
    Host(IpAddr),
    /// One connection of a pod of this node, by its number.
    Connection(u64),
}

/// The callers of one connection, and how many streams each has.
#[derive(Debug, Default)]
pub(super) struct Company {
    active: usize,
    callers: SmallVec<[(Caller, usize); 4]>,
}

impl Company {
    pub(super) fn active(&self) -> usize {
        self.active
    }

    /// Whether `caller` may have one more stream beside those that are there, where `shared` streams of several
    /// callers fit.
    pub(super) fn admits(&self, caller: Caller, shared: usize) -> bool {
        match self.callers.as_slice() {
            [] => true,
            [(only, _)] if *only == caller => true,
            _ => self.active < shared,
        }
    }

    pub(super) fn enter(&mut self, caller: Caller) {
        self.active += 1;
        match self.callers.iter_mut().find(|(who, _)| *who == caller) {
            Some((_, streams)) => *streams += 1,
            None => self.callers.push((caller, 1)),
        }
    }

    pub(super) fn leave(&mut self, caller: Caller) {
        if let Some(at) = self.callers.iter().position(|(who, _)| *who == caller) {
            self.active -= 1;
            self.callers[at].1 -= 1;
            if self.callers[at].1 == 0 {
                self.callers.swap_remove(at);
            }
        }
    }

    /// Streams that would hold parts of the same window and are not of one caller, with one more of `caller`.
    pub(super) fn sharing_with(&self, caller: Caller) -> usize {
        match self.callers.as_slice() {
            [] => 0,
            [(only, _)] if *only == caller => 0,
            _ => self.active + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHARED: usize = 100;

    fn company(streams: &[(u64, usize)]) -> Company {
        let mut company = Company::default();
        for (caller, streams) in streams {
            (0..*streams).for_each(|_| company.enter(Caller::Connection(*caller)));
        }
        company
    }

    #[test]
    fn a_caller_alone_has_the_whole_connection() {
        assert!(company(&[]).admits(Caller::Connection(1), SHARED));
        assert!(company(&[(1, 5000)]).admits(Caller::Connection(1), SHARED));
    }

    #[test]
    fn a_caller_with_many_streams_is_left_alone() {
        assert!(company(&[(1, SHARED - 1)]).admits(Caller::Connection(2), SHARED));
        assert!(!company(&[(1, SHARED)]).admits(Caller::Connection(2), SHARED));
        assert!(!company(&[(1, SHARED - 1), (2, 1)]).admits(Caller::Connection(1), SHARED));
    }

    #[test]
    fn several_callers_have_no_more_streams_than_the_window_covers() {
        let many: Vec<(u64, usize)> = (0..100).map(|caller| (caller, 1)).collect();
        assert!(company(&many[..99]).admits(Caller::Connection(0), SHARED));
        assert!(!company(&many).admits(Caller::Connection(0), SHARED));
        assert!(!company(&many).admits(Caller::Connection(1000), SHARED));
    }

    proptest! {
        /// Whoever comes and goes, those who share a connection have no more streams than its window covers.
        #[test]
        fn shares_are_kept(
            shared in 1usize..8,
            steps in prop::collection::vec((0u64..5, any::<bool>()), 0..400),
        ) {
            let mut company = Company::default();
            let mut open: Vec<u64> = Vec::new();
            for (who, comes) in steps {
                let caller = Caller::Connection(who);
                if comes && company.admits(caller, shared) {
                    company.enter(caller);
                    open.push(who);
                } else if !comes && let Some(at) = open.iter().position(|o| *o == who) {
                    company.leave(caller);
                    open.swap_remove(at);
                }
                prop_assert_eq!(company.active(), open.len());
                if company.callers.len() > 1 {
                    prop_assert!(company.active() <= shared);
                }
            }
        }
    }
}
