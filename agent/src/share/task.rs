//! One task of a pod, as those know it who may end it.

use std::fmt;

/// A task that ends when this is dropped.
pub struct Task(Running);

enum Running {
    InTurn {
        _task: async_task::Task<()>,
    },
    /// Of a thread without turns.
    Apart(tokio::task::JoinHandle<()>),
}

impl Task {
    pub(super) fn in_turn(task: async_task::Task<()>) -> Self {
        Self(Running::InTurn { _task: task })
    }

    pub(super) fn apart(task: tokio::task::JoinHandle<()>) -> Self {
        Self(Running::Apart(task))
    }

    /// Lets it run to its own end.
    pub fn detach(self) {
        match self.0 {
            Running::InTurn { _task } => _task.detach(),
            Running::Apart(task) => drop(task),
        }
    }

    /// Ends it.
    pub fn end(self) {
        match self.0 {
            Running::InTurn { _task } => drop(_task),
            Running::Apart(task) => task.abort(),
        }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Task")
    }
}
