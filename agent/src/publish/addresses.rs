//! What is followed of pods while they are enrolled: their addresses, and that they are being deleted.

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

    /// Once an enrolled pod is being deleted, new callers reach its application itself, which takes them or refuses them, and
    /// those that stand are told to go elsewhere.
    pub(super) fn follow_ending(&mut self, slot: Slot, pod: &Pod) {
        let Some(PodState::Enrolled { id, .. }) = self.states.get(&slot).filter(|_| pod.is_ending) else {
            return;
        };
        if let Err(error) = self.kernel.unsteer(slot) {
            tracing::error!(pod = %pod.name, %error, "new calls to a pod that is being deleted still pass the agent");
        }
        tracing::info!(pod = %pod.name, %slot, "the pod is being deleted: its callers are sent elsewhere");
        self.workers.ending(*id);
    }

    pub(super) fn count_over_share(&self, pod: &PodName, over_share: usize) {
        if over_share > 0 {
            self.over_share.fetch_add(over_share as u64, Relaxed);
            tracing::warn!(%pod, over_share, "calls to some of a pod's addresses and ports are left alone: it has more than its share");
        }
    }
}
