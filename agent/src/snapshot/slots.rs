//! Which pod has which slot.

use std::collections::{HashMap, VecDeque};

use crate::model::{MAX_SLOTS, PodName, Slot};

#[derive(Debug, Default)]
pub(super) struct Slots {
    taken: HashMap<PodName, Slot>,
    /// Slots given back, the longest unused first: so late a segment as to meet the next pod of its slot is not likely,
    /// though nothing depends on it.
    free: VecDeque<u16>,
    next: u16,
}

impl Slots {
    /// The pod's slot, a new one when it has none; `None` when the node is full.
    pub(super) fn take(&mut self, pod: &PodName) -> Option<Slot> {
        if let Some(slot) = self.taken.get(pod) {
            return Some(*slot);
        }
        let value = match self.next {
            next if next < MAX_SLOTS => {
                self.next += 1;
                next
            }
            _ => self.free.pop_front()?,
        };
        let slot = Slot::new(value)?;
        self.taken.insert(pod.clone(), slot);
        Some(slot)
    }

    pub(super) fn release(&mut self, pod: &PodName) -> Option<Slot> {
        let slot = self.taken.remove(pod)?;
        self.free.push_back(slot.get());
        Some(slot)
    }
}
