//! Per-CPU counters by slot.

use derny_ebpf_common::{PATHS, Path};

use crate::maps::COUNTERS;

/// A decision, and the slot (or `NODE_COUNTERS`) that it is counted under.
#[derive(Clone, Copy)]
pub(crate) struct Decided {
    pub(crate) slot: u32,
    pub(crate) path: Path,
}

/// Counts a decision up. `None` is traffic that is none of our business.
#[inline(always)]
pub(crate) fn count(decided: Option<Decided>) {
    let Some(Decided { slot, path }) = decided else {
        return;
    };
    let Some(counters) = COUNTERS.get_ptr_mut(slot) else {
        return;
    };
    // SAFETY: the entry belongs to this CPU, and the mask keeps the index inside it.
    unsafe { (*counters).by_path[path as usize & (PATHS - 1)] += 1 }
}
