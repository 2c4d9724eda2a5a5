//! The addresses of pods that are enrolled, as they come and go.

use std::sync::atomic::Ordering::Relaxed;

use super::{Publisher, Workers};
use crate::model::{Pod, PodName, PodState, Slot};

impl<W: Workers> Publisher<W> {
    /// Lets kernel and workers follow an enrolled pod's addresses. Gives whether they have changed.
    pub(super) fn follow_addresses(&mut self, slot: Slot, pod: &Pod) -> bool {
        let now = match self.kernel.follow_addresses(slot, pod) {
            Ok(Some(now)) => now,
            Ok(None) => return false,
            Err(error) => {
                tracing::error!(pod = %pod.name, %error, "a pod's addresses are not followed");
                return false;
            }
        };
        tracing::info!(pod = %pod.name, %slot, addresses = ?now.own, "a pod's addresses have changed");
        self.count_over_share(&pod.name, now.over_share);
        if let Some(PodState::Enrolled {
            id,
            addresses,
            over_share,
            ..
        }) = self.states.get_mut(&slot)
        {
            self.workers.addresses(*id, &now.own);
            (*addresses, *over_share) = (now.own, now.over_share);
        }
        true
    }

    pub(super) fn count_over_share(&self, pod: &PodName, over_share: usize) {
        if over_share > 0 {
            self.over_share.fetch_add(over_share as u64, Relaxed);
            tracing::warn!(%pod, over_share, "calls to some of a pod's addresses and ports are left alone: it has more than its share");
        }
    }
}
