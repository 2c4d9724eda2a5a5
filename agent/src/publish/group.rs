//! The pods' control group, looked after: while it is not there, the agent is not ready.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{
    intercept::{Kernel, PodsGroup},
    ready,
};

/// What is known of it.
#[derive(Debug)]
pub(super) struct Watch {
    ready: ready::Ready,
    /// While nothing is redirected because it is not there.
    lost: Option<ready::Guard>,
    losses: Arc<AtomicU64>,
}

impl Watch {
    pub(super) fn new(ready: ready::Ready) -> Self {
        Self {
            ready,
            lost: None,
            losses: Arc::default(),
        }
    }

    pub(super) fn losses(&self) -> Arc<AtomicU64> {
        self.losses.clone()
    }

    /// Takes a system call while all is well.
    pub(super) fn look(&mut self, kernel: &mut Kernel) {
        match kernel.follow_group() {
            Ok(PodsGroup::Attached) => {}
            Ok(PodsGroup::AttachedAgain) => {
                if self.lost.take().is_none() {
                    self.losses.fetch_add(1, Relaxed);
                }
                tracing::warn!(
                    "the pods' control group has been made anew; connections are redirected again"
                );
            }
            Err(error) if self.lost.is_none() => {
                self.losses.fetch_add(1, Relaxed);
                tracing::error!(%error, "the pods' control group has gone; nothing is redirected until it is back");
                let name = format!("the pods' control group to be there again ({error})");
                self.lost = Some(self.ready.task(name));
            }
            Err(_) => {}
        }
    }
}
