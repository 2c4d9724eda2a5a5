//! Real pods: containerd and runc on a node of the tests, told what to do as a kubelet tells them.
//!
//! ```text
//! Runtime ──▶ containerd, in the node's network ──▶ runc ──▶ sandbox: network namespace, pause, control group
//!    │ CRI                    │ CNI: bridge cni0               └──▶ containers in it
//!    └── Sandbox, Container ──┘
//! ```
//! The node owns all of it: its control groups, its network namespace, its directory.

mod containerd;
/// The Container Runtime Interface.
#[cfg(feature = "servers")]
mod cri;
/// Images that are made on the spot.
#[cfg(feature = "servers")]
mod images;
/// The runtime, and sandboxes of pods.
#[cfg(feature = "servers")]
mod sandbox;
/// Containers in sandboxes.
#[cfg(feature = "servers")]
mod container;
/// What of this machine a container sees.
#[cfg(feature = "servers")]
mod programs;
/// A client in a container.
#[cfg(feature = "servers")]
mod load;

pub use containerd::{Containerd, Kind, plugins};
#[cfg(feature = "servers")]
pub use {
    container::{Container, Stream},
    sandbox::{Runtime, Sandbox, SandboxOptions},
};
