//! Which pod has which slot.

use std::collections::{BTreeSet, HashMap};

use crate::model::{MAX_SLOTS, PodName, Slot};

#[derive(Debug, Default)]
pub(super) struct Slots {
    taken: HashMap<PodName, Slot>,
    /// Slots given back, the longest unused first would be best; the smallest is simplest and enough, because a
    /// slot is released only after the kernel has forgotten it.
    free: BTreeSet<u16>,
    next: u16,
}

impl Slots {
    /// The pod's slot, a new one when it has none; `None` when the node is full.
    pub(super) fn take(&mut self, pod: &PodName) -> Option<Slot> {
        if let Some(slot) = self.taken.get(pod) {
            return Some(*slot);
        }
        let value = match self.free.pop_first() {
            Some(value) => value,
            None if self.next < MAX_SLOTS => {
                self.next += 1;
                self.next - 1
            }
            None => return None,
        };
        let slot = Slot::new(value)?;
        self.taken.insert(pod.clone(), slot);
        Some(slot)
    }

    pub(super) fn release(&mut self, pod: &PodName) -> Option<Slot> {
        let slot = self.taken.remove(pod)?;
        self.free.insert(slot.get());
        Some(slot)
    }
}
