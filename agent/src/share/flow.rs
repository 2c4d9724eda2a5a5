//! The tasks of one pod at one worker that are ready to run, and what they have cost.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    sync::Arc,
};

use async_task::Runnable;

use super::{
    ledger::Account,
    turns::{self, Elsewhere},
};

/// A task's waker holds its flow, and may wake it from any thread. What belongs to the worker's thread is behind
/// [`Home`].
pub(super) struct Flow {
    account: Arc<Account>,
    home: Home<Ready>,
    elsewhere: Arc<Elsewhere>,
}

/// What only the worker's thread touches.
#[derive(Default)]
pub(super) struct Ready {
    queue: RefCell<VecDeque<Runnable>>,
    /// Nanoseconds that the pod may still use in this round; below zero when its last task took longer.
    pub(super) credit: Cell<i64>,
    pub(super) listed: Cell<Listed>,
    /// Nanoseconds that have not been billed yet.
    pub(super) used: Cell<u64>,
}

/// In which of the lists of [`super::Turns`] a flow stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Listed {
    #[default]
    No,
    /// It has just become ready and goes first.
    New,
    Old,
}

impl Flow {
    pub(super) fn new(account: Arc<Account>, elsewhere: Arc<Elsewhere>) -> Arc<Self> {
        Arc::new(Self {
            account,
            home: Home::new(Ready::default()),
            elsewhere,
        })
    }

    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    /// `None` on another thread than the flow's own.
    pub(super) fn here(&self) -> Option<&Ready> {
        self.home.get()
    }

    /// A task of the flow is ready to run.
    pub(super) fn schedule(self: &Arc<Self>, task: Runnable) {
        match self.here() {
            Some(ready) => {
                ready.queue.borrow_mut().push_back(task);
                turns::ready(self, ready);
            }
            None => self.elsewhere.woke(self.clone(), task),
        }
    }
}

impl Ready {
    pub(super) fn next(&self) -> Option<Runnable> {
        self.queue.borrow_mut().pop_front()
    }
}

/// A value that only the thread which made it can reach.
struct Home<T> {
    thread: usize,
    value: T,
}

// SAFETY: `get` gives the value out on one thread alone, whoever else holds a reference. Any thread may drop it, since
// it is `Send`.
unsafe impl<T: Send> Sync for Home<T> {}

impl<T: Send> Home<T> {
    fn new(value: T) -> Self {
        Self {
            thread: this_thread(),
            value,
        }
    }

    fn get(&self) -> Option<&T> {
        (self.thread == this_thread()).then_some(&self.value)
    }
}

/// A number that no other thread has, also none that has ended.
fn this_thread() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    thread_local!(static THIS: Cell<usize> = const { Cell::new(0) });
    THIS.with(|this| {
        if this.get() == 0 {
            this.set(NEXT.fetch_add(1, Relaxed));
        }
        this.get()
    })
}
