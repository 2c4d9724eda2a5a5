//! The tasks of a pod, which end together.

use std::{cell::RefCell, mem, rc::Rc};

use super::task::Task;

/// Clones are the same group. What a task holds (sockets, places, counters) goes when it has ended, and by [`Tasks::end`]
/// all of them do.
#[derive(Clone, Debug)]
pub(super) struct Tasks(Rc<RefCell<State>>);

#[derive(Debug)]
enum State {
    /// The tasks by place; `free` are the places of those that are done.
    Open {
        running: Vec<Option<Task>>,
        free: Vec<usize>,
    },
    /// Nothing runs, and nothing begins any more.
    Ended,
}

/// A task's place in its group, to be held by the task.
pub(super) struct Place {
    group: Tasks,
    index: usize,
}

impl Default for Tasks {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(State::Open {
            running: Vec::new(),
            free: Vec::new(),
        })))
    }
}

impl Tasks {
    /// A place for one more task; `None` when the group has ended.
    pub(super) fn place(&self) -> Option<Place> {
        let index = match &mut *self.0.borrow_mut() {
            State::Open { running, free } => free.pop().unwrap_or_else(|| {
                running.push(None);
                running.len() - 1
            }),
            State::Ended => return None,
        };
        Some(Place {
            group: self.clone(),
            index,
        })
    }

    /// `task` holds the place of this `index`, and has not run yet.
    pub(super) fn began(&self, index: usize, task: Task) {
        if let State::Open { running, .. } = &mut *self.0.borrow_mut() {
            running[index] = Some(task);
        }
    }

    /// Every task ends, wherever it waits.
    pub(super) fn end(&self) {
        // Not borrowed while the tasks go.
        let before = mem::replace(&mut *self.0.borrow_mut(), State::Ended);
        if let State::Open { running, .. } = before {
            running.into_iter().flatten().for_each(Task::end);
        }
    }
}

impl Place {
    pub(super) fn index(&self) -> usize {
        self.index
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let done = match &mut *self.group.0.borrow_mut() {
            State::Open { running, free } => {
                free.push(self.index);
                running[self.index].take()
            }
            State::Ended => None,
        };
        done.into_iter().for_each(Task::detach);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::task::{LocalSet, yield_now};

    use super::*;
    use crate::share::unbounded;

    async fn turns() {
        for _ in 0..8 {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn all_end_and_none_begins_after_that() {
        LocalSet::new()
            .run_until(async {
                let (pod, held) = (unbounded(), Rc::new(()));
                for _ in 0..3 {
                    let held = held.clone();
                    pod.spawn(async move {
                        pending::<()>().await;
                        drop(held);
                    });
                }
                turns().await;
                assert_eq!(Rc::strong_count(&held), 4);
                pod.end();
                turns().await;
                assert_eq!(Rc::strong_count(&held), 1, "also of those that wait");
                let late = held.clone();
                pod.spawn(async move { drop(late) });
                assert_eq!(Rc::strong_count(&held), 1);
            })
            .await;
    }

    #[tokio::test]
    async fn places_of_tasks_that_are_done_are_used_again() {
        LocalSet::new()
            .run_until(async {
                let pod = unbounded();
                for _ in 0..100 {
                    pod.spawn(async {});
                    turns().await;
                }
                assert_eq!(pod.tasks().place().unwrap().index(), 0);
            })
            .await;
    }

    #[tokio::test]
    async fn a_task_may_end_its_own_group() {
        LocalSet::new()
            .run_until(async {
                let pod = unbounded();
                let own = pod.clone();
                pod.spawn(async move { own.end() });
                turns().await;
                assert!(pod.tasks().place().is_none());
            })
            .await;
    }
}
