//! When a caller is told to open another connection, by GOAWAY or `connection: close`.
//!
//! ```text
//! the pod is withdrawn, or the agent ends ────────────────────────┐
//! inbound: the pod is being deleted ──────────────────────────────┼──▶ Inlet::to_leave
//! inbound: its application said so, or takes no connection ───────┘
//! ```

use std::cell::Cell;

use tokio::sync::Notify;

/// Of one connection.
#[derive(Debug, Default)]
pub(super) struct Farewell {
    said: Cell<bool>,
    told: Notify,
}

impl Farewell {
    pub(super) fn say(&self) {
        self.said.set(true);
        self.told.notify_one();
    }

    pub(super) fn is_said(&self) -> bool {
        self.said.get()
    }

    /// Returns when it has been said, at once if it was before. For one task.
    pub(super) async fn said(&self) {
        while !self.said.get() {
            self.told.notified().await;
        }
    }
}
