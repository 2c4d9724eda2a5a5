//! Which pod an sk_lookup program runs for.
//!
//! A copy of `derny_lookup` knows by its own instructions; see [`derny_ebpf_common::OWN_COOKIE`]. It leaves the answer
//! where `derny_steer` finds it, which runs next on the same CPU: there is one of that for all pods, because the kernel
//! takes its time to verify it.

use core::arch::asm;

use derny_ebpf_common::{OWN_COOKIE, OWN_SLOT};

use crate::maps::OWN;

/// The pod of the network namespace in which the program runs.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Own {
    pub(crate) netns_cookie: u64,
    pub(crate) slot: u64,
}

impl Own {
    /// Of this copy. Assembly, so that the compiler computes nothing with a placeholder.
    #[inline(always)]
    fn of_copy() -> Self {
        let (netns_cookie, slot): (u64, u64);
        // SAFETY: each instruction loads a constant into a register.
        unsafe {
            asm!("{to} = {value} ll", to = out(reg) netns_cookie, value = const OWN_COOKIE);
            asm!("{to} = {value} ll", to = out(reg) slot, value = const OWN_SLOT);
        }
        Self { netns_cookie, slot }
    }

    /// Leaves it for the program that is called next.
    #[inline(always)]
    pub(crate) fn leave() {
        if let Some(own) = OWN.get_ptr_mut(0) {
            // SAFETY: the entry is this CPU's. What interrupts this program and runs the same leaves and reads its own
            // before it returns; TCP looks for a listener where nothing does, and only a query of socket diagnosis
            // (inet_diag) could find another pod's.
            unsafe { own.write(Self::of_copy()) }
        }
    }

    /// What the copy has left.
    #[inline(always)]
    pub(crate) fn load() -> Option<Self> {
        // SAFETY: as in `leave`.
        OWN.get_ptr(0).map(|own| unsafe { own.read() })
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // A slot.
    pub(crate) fn slot(self) -> u32 {
        self.slot as u32
    }
}
