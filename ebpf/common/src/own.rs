//! What a copy of `derny_lookup` knows of the pod that it runs for.
//!
//! No helper tells an sk_lookup program in which network namespace it runs. So each pod has a copy of its own, and the
//! agent writes the pod's numbers into the copy's instructions: the program loads these placeholders, each by one
//! instruction, and the agent puts the pod's value in the place of each before it loads the copy.

/// Stands for the cookie of the pod's network namespace.
pub const OWN_COOKIE: u64 = 0x6465_726e_7963_6f6f;
/// Stands for the pod's slot.
pub const OWN_SLOT: u64 = 0x6465_726e_7973_6c6f;
