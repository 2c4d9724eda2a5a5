//! The pods that run on this machine, as its kernel shows them: control groups and the processes in them. Nothing is
//! asked of a container runtime.

mod layout;
mod procs;
mod tree;
mod sandboxes;

pub(super) use layout::{Directory, PodUid};
pub(super) use sandboxes::{Network, Sandbox, Sandboxes};
