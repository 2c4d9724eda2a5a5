//! What the process does about its allocator beside allocating.

// The allocator of the binary; named so that its functions are linked.
use mimalloc as _;

unsafe extern "C" {
    /// Of mimalloc: lets go of what this thread has freed, and gives free memory back to the system.
    fn mi_collect(force: bool);
}

/// Gives memory that this thread does not use back to the system.
pub(super) fn give_back() {
    // SAFETY: it may be called at any time, on any thread.
    unsafe { mi_collect(true) }
}
