//! Pods that are held: what they dial is refused until they are enrolled.
//!
//! A pod is known here by its control group, which is there before its first process and before its network namespace.

use core::ptr;

use aya_ebpf::helpers::{bpf_get_current_ancestor_cgroup_id, bpf_set_retval};
use derny_ebpf_common::AddressKey;

use crate::{
    count::count_hit,
    maps::{HELD, HELD_COUNT},
};

/// How far below the root of all control groups a pod's is looked for. Kubelets make it the third or fourth level, on a
/// node in a container some levels lower; how many these are cannot be seen from inside that container.
const LEVELS: i32 = 16;

/// What `connect` returns then. Applications take it for a server that is not up yet, and try again; EPERM, which the
/// verdict alone would give, they take for good.
const ECONNREFUSED: i32 = 111;

/// Is the process that dials in a held pod? Its connection is refused then, unless it stays in the pod.
#[inline(always)]
pub(crate) fn refuses(dialled: &AddressKey) -> bool {
    // Nothing more than this where no pod is held.
    if HELD_COUNT.get(0).is_none_or(|count| *count == 0) {
        return false;
    }
    if dialled.is_loopback() || dialled.is_unspecified() {
        return false;
    }
    for level in 1..=LEVELS {
        // SAFETY: the helper has no precondition.
        let group = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if group == 0 {
            // Below the process's own.
            return false;
        }
        if let Some(held) = HELD.get_ptr_mut(group) {
            // SAFETY: entries of a map without preallocation are freed after a grace period, not reused.
            unsafe { count_hit(ptr::addr_of_mut!((*held).hits)) };
            // SAFETY: the helper has no precondition; it fails nowhere.
            unsafe { bpf_set_retval(-ECONNREFUSED) };
            return true;
        }
    }
    false
}
