//! Whose task runs next at a worker.
//!
//! Each pod's tasks have a queue of their own, and the pods take turns as the flows of FQ-CoDel do (RFC 8290 section
//! 4.2): a pod may use a quantum of time, then the next has its turn, and a pod that has just become ready goes before
//! those that have been busy. The time that a task took is the pod's, so the clock that decides the turns makes the
//! bill as well.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::{Rc, Weak},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_task::Runnable;
use tokio::time::Instant;

use super::{
    clock,
    flow::{Flow, Listed, Ready},
    local::Local,
    paced::{self, Pace},
    task::Task,
};

/// What a pod may use before the next has its turn, in nanoseconds. About as long as a few requests take.
const QUANTUM: i64 = 25_000;
/// When a worker stops to look at what else there is.
#[derive(Clone, Copy)]
struct Pauses {
    /// After so many nanoseconds the sockets and timers are asked again, whatever is ready.
    slice: u64,
    /// Of one task.
    pace: Pace,
}

const SHARED: Pauses = Pauses {
    slice: 60_000,
    pace: Pace {
        long_enough: Duration::from_micros(25),
        // One write of a bulk transfer takes longer.
        free: 1,
    },
};
/// While one pod alone has had something to run for [`ALONE_AFTER`]: more comes of one look at the sockets.
const ALONE: Pauses = Pauses {
    slice: 500_000,
    pace: Pace {
        long_enough: Duration::from_micros(250),
        free: 4,
    },
};
const ALONE_AFTER: Duration = Duration::from_millis(100);

thread_local!(static HERE: RefCell<Option<Rc<Turns>>> = const { RefCell::new(None) });

/// The queues of one worker.
pub struct Turns {
    /// Pods that have just become ready.
    new: RefCell<VecDeque<Arc<Flow>>>,
    old: RefCell<VecDeque<Arc<Flow>>>,
    /// Of [`Turns::run`].
    waker: RefCell<Option<Waker>>,
    /// `run` waits for something to become ready.
    waits: Cell<bool>,
    elsewhere: Arc<Elsewhere>,
    /// Tasks that have not ended.
    tasks: Cell<usize>,
    ends: Cell<bool>,
    /// Whose task ran last, and since when no other's has. Compared and nothing else: the pod may have gone.
    before: Cell<*const Flow>,
    changed: Cell<Instant>,
    /// Pods with time that has not been billed.
    unbilled: RefCell<Vec<Arc<Flow>>>,
    /// Nanoseconds that the worker used for itself and that have not been billed.
    own: Cell<u64>,
    /// CPU time of the thread up to the last bill.
    billed: Cell<Duration>,
    pods: RefCell<Vec<Weak<Local>>>,
}

/// Tasks that other threads have woken.
#[derive(Default)]
pub(super) struct Elsewhere(Mutex<Woken>);

#[derive(Default)]
struct Woken {
    tasks: Vec<(Arc<Flow>, Runnable)>,
    waker: Option<Waker>,
}

/// Why [`Turns::run`] stops for a moment.
enum Stop {
    /// Sockets and timers are to be asked.
    Slice,
    /// The last task has ended.
    End,
}

impl Elsewhere {
    pub(super) fn woke(&self, flow: Arc<Flow>, task: Runnable) {
        let mut woken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        woken.tasks.push((flow, task));
        let waker = woken.waker.clone();
        drop(woken);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn take(&self) -> Vec<(Arc<Flow>, Runnable)> {
        let mut woken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut woken.tasks)
    }

    fn wake_by(&self, waker: Waker) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).waker = Some(waker);
    }
}

/// `flow` has one task more that is ready. On the flow's own thread.
pub(super) fn ready(flow: &Arc<Flow>, state: &Ready) {
    HERE.with_borrow(|here| {
        let Some(turns) = here else { return };
        if state.listed.get() == Listed::No {
            // What it used beyond its last turn is still to be made up for.
            state.credit.set(state.credit.get().min(0) + QUANTUM);
            state.listed.set(Listed::New);
            turns.new.borrow_mut().push_back(flow.clone());
        }
        if turns.waits.replace(false)
            && let Some(waker) = &*turns.waker.borrow()
        {
            waker.wake_by_ref();
        }
    });
}

/// Of this thread; another of its own where there are no turns, as in tests of other rooms.
pub(super) fn elsewhere() -> Arc<Elsewhere> {
    HERE.with_borrow(|here| here.as_ref().map(|turns| turns.elsewhere.clone()))
        .unwrap_or_default()
}

pub(super) fn enter(pod: &Rc<Local>) {
    HERE.with_borrow(|here| {
        if let Some(turns) = here {
            turns.pods.borrow_mut().push(Rc::downgrade(pod));
        }
    });
}

/// Counts a task until it has ended, in whichever way.
struct Counted(Rc<Turns>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.tasks.set(self.0.tasks.get() - 1);
    }
}

pub(super) fn spawn(flow: &Arc<Flow>, task: impl Future<Output = ()> + 'static) -> Task {
    let Some(turns) = HERE.with_borrow(Clone::clone) else {
        return Task::apart(tokio::task::spawn_local(task));
    };
    turns.tasks.set(turns.tasks.get() + 1);
    let counted = Counted(turns);
    let task = async move {
        let _counted = counted;
        task.await;
    };
    let flow = flow.clone();
    let (runnable, task) = async_task::spawn_local(task, move |task| flow.schedule(task));
    runnable.schedule();
    Task::in_turn(task)
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").finish_non_exhaustive()
    }
}

impl Turns {
    /// The turns of this thread from now on.
    pub fn begin() -> Rc<Self> {
        let turns = Rc::new(Self {
            new: RefCell::default(),
            old: RefCell::default(),
            waker: RefCell::default(),
            waits: Cell::default(),
            elsewhere: Arc::default(),
            tasks: Cell::default(),
            ends: Cell::default(),
            before: Cell::new(std::ptr::null()),
            changed: Cell::new(Instant::now()),
            unbilled: RefCell::default(),
            own: Cell::default(),
            billed: Cell::new(clock::of_thread()),
            pods: RefCell::default(),
        });
        HERE.set(Some(turns.clone()));
        turns
    }

    /// Runs what is ready, until [`Turns::end`] was called and the last task has ended.
    pub async fn run(self: Rc<Self>) {
        while let Stop::Slice = poll_fn(|cx| self.slice(cx)).await {
            // Comes back when sockets and timers have been asked.
            tokio::task::yield_now().await;
        }
    }

    /// No task will be spawned by anybody but tasks.
    pub fn end(&self) {
        self.ends.set(true);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    fn slice(&self, cx: &mut Context<'_>) -> Poll<Stop> {
        let stopped = self.run_ready(cx);
        clock::end();
        stopped
    }

    fn run_ready(&self, cx: &mut Context<'_>) -> Poll<Stop> {
        self.waits.set(false);
        let known = (self.waker.borrow().as_ref()).is_some_and(|waker| waker.will_wake(cx.waker()));
        if !known {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            self.elsewhere.wake_by(cx.waker().clone());
        }
        for (flow, task) in self.elsewhere.take() {
            flow.schedule(task);
        }
        let (mut last, mut spent) = (Instant::now(), 0);
        let alone = last - self.changed.get() >= ALONE_AFTER;
        let Pauses { slice, pace } = if alone { ALONE } else { SHARED };
        while let Some((flow, task)) = self.next() {
            self.is_next(&flow, last);
            clock::begin(last);
            paced::begin(pace);
            // A panic is the task's own; async-task drops its future.
            if catch_unwind(AssertUnwindSafe(|| task.run())).is_err() {
                tracing::error!(pod = %flow.account().pod(), "a task of the pod panicked");
            }
            let now = Instant::now();
            let took = nanos(now - last);
            self.charge(&flow, took);
            last = now;
            spent += took;
            if spent >= slice || !tokio::task::coop::has_budget_remaining() {
                return Poll::Ready(Stop::Slice);
            }
        }
        if self.ends.get() && self.tasks.get() == 0 {
            return Poll::Ready(Stop::End);
        }
        self.waits.set(true);
        Poll::Pending
    }

    /// Notes when the turn goes from one pod to another.
    fn is_next(&self, flow: &Arc<Flow>, now: Instant) {
        let flow = Arc::as_ptr(flow);
        if self.before.replace(flow) != flow {
            self.changed.set(now);
        }
    }

    /// The next task, of the pod whose turn it is.
    fn next(&self) -> Option<(Arc<Flow>, Runnable)> {
        loop {
            let (list, listed) = match self.new.borrow().is_empty() {
                false => (&self.new, Listed::New),
                true => (&self.old, Listed::Old),
            };
            let flow = list.borrow().front().cloned()?;
            let ready = flow.here()?;
            if ready.credit.get() <= 0 {
                if self.is_alone() {
                    // Nobody waits for what it used too much.
                    ready.credit.set(QUANTUM);
                } else {
                    ready.credit.set(ready.credit.get() + QUANTUM);
                    self.shift(list, Listed::Old);
                    continue;
                }
            }
            if let Some(task) = ready.next() {
                return Some((flow, task));
            }
            // One that becomes ready again and again goes behind those that wait already.
            let waits = listed == Listed::New && !self.old.borrow().is_empty();
            self.shift(list, if waits { Listed::Old } else { Listed::No });
        }
    }

    /// Whether one pod alone has something to run.
    fn is_alone(&self) -> bool {
        self.new.borrow().len() + self.old.borrow().len() == 1
    }

    /// Takes the first flow of `list` off it and puts it at the end of another.
    fn shift(&self, list: &RefCell<VecDeque<Arc<Flow>>>, to: Listed) {
        let Some(flow) = list.borrow_mut().pop_front() else {
            return;
        };
        if let Some(ready) = flow.here() {
            ready.listed.set(to);
        }
        if to == Listed::Old {
            self.old.borrow_mut().push_back(flow);
        }
    }

    fn charge(&self, flow: &Arc<Flow>, nanos: u64) {
        let Some(ready) = flow.here() else { return };
        if ready.used.get() == 0 {
            self.unbilled.borrow_mut().push(flow.clone());
        }
        ready.used.set(ready.used.get() + nanos);
        let charged = i64::try_from(nanos).unwrap_or(i64::MAX);
        ready.credit.set(ready.credit.get().saturating_sub(charged));
    }

    /// Runs what the worker does for itself, for which no pod pays.
    pub fn for_itself<T>(&self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = work();
        self.own.set(self.own.get() + nanos(begun.elapsed()));
        result
    }

    /// Bills the thread's CPU time since the last bill to the pods, in proportion to the time of their tasks: what the
    /// worker spends between two tasks is spent on their account.
    ///
    /// Returns that time.
    pub fn bill(&self) -> Duration {
        let now = clock::of_thread();
        let spent = now.saturating_sub(self.billed.replace(now));
        let unbilled = self.unbilled.take();
        let used = |flow: &Arc<Flow>| flow.here().map_or(0, |ready| ready.used.take());
        let used: Vec<(Arc<Flow>, u64)> = unbilled
            .into_iter()
            .map(|flow| (flow.clone(), used(&flow)))
            .collect();
        let all = used.iter().map(|(_, nanos)| nanos).sum::<u64>() + self.own.take();
        for (flow, nanos) in used {
            flow.account()
                .billed(in_proportion(self::nanos(spent), nanos, all));
        }
        spent
    }

    /// Gives back what pods have been given and do not hold.
    pub fn settle(&self) {
        self.pods.borrow_mut().retain(|pod| match pod.upgrade() {
            Some(pod) => {
                pod.settle();
                true
            }
            None => false,
        });
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn in_proportion(spent: u64, part: u64, all: u64) -> u64 {
    let share = u128::from(spent) * u128::from(part) / u128::from(all.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
