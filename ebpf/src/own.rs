//! Which pod this copy of the program runs for; see [`derny_ebpf_common::OWN_COOKIE`].

use core::arch::asm;

use derny_ebpf_common::{OWN_COOKIE, OWN_SLOT};

/// The pod of the network namespace that the program is attached to.
#[derive(Clone, Copy)]
pub(crate) struct Own {
    pub(crate) netns_cookie: u64,
    pub(crate) slot: u32,
}

impl Own {
    /// Assembly, so that the compiler computes nothing with a placeholder.
    #[inline(always)]
    pub(crate) fn load() -> Self {
        let (netns_cookie, slot): (u64, u64);
        // SAFETY: each instruction loads a constant into a register.
        unsafe {
            asm!("{to} = {value} ll", to = out(reg) netns_cookie, value = const OWN_COOKIE);
            asm!("{to} = {value} ll", to = out(reg) slot, value = const OWN_SLOT);
        }
        #[allow(clippy::cast_possible_truncation)] // A slot.
        let slot = slot as u32;
        Self { netns_cookie, slot }
    }
}
