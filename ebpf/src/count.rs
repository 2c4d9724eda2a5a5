//! Per-CPU counters by slot.

use core::arch::asm;

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

/// Counts up a hit of a map's entry, which other CPUs may do at the same time.
///
/// The target has atomic addition, but no compare-and-swap, without which core offers no `fetch_add`.
///
/// # Safety
/// `hits` is aligned, and lives while the program runs.
#[inline(always)]
pub(crate) unsafe fn count_hit(hits: *mut u64) {
    // SAFETY: as above.
    unsafe {
        asm!("lock *(u64 *)({hits} + 0) += {one}", hits = in(reg) hits, one = in(reg) 1_u64);
    }
}
