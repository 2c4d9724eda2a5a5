//! The kernel's side door: eBPF programs, their maps, and network namespaces. The only room that knows aya and
//! setns. `docs/kernel.md` describes the programs.
//!
//! Everything that is loaded or attached belongs to the [`Kernel`] value and to the process: nothing is pinned,
//! so an agent that dies leaves the pods as they would be without it.

mod cgroup;
mod load;
mod attach;
mod rival;
mod tables;
mod ports;
mod netns;
mod listen;
mod syscalls;
mod steer;
mod addresses;
mod enrol;
mod hold;
mod heartbeat;
mod origins;
mod callers;
mod observe;
mod order;
mod log;
mod error;

pub use addresses::Addresses;
pub use attach::PodsGroup;
pub use callers::Callers;
pub use cgroup::find_pods_cgroup;
pub use derny_ebpf_common::{MARK, Path};
pub use enrol::Enrolled;
pub use error::{EnrolError, InterceptError};
pub use heartbeat::Heartbeat;
pub use listen::Listeners;
pub use load::{Kernel, Options};
pub use netns::{NamedNetns, Netns, bind_address};
pub use observe::{ObservedDestination, ObservedHeld, ObservedPod, Observer, SlotCounters};
pub use order::{Hook, Order, OtherProgram, ProgramOrder};
pub use origins::Origins;
pub use rival::{Rival, find_rival};

/// The addresses of this thread's network namespace, which is the node's: connections from them are not steered,
/// so that a kubelet's probes reach a pod whatever state the agent is in.
///
/// # Errors
/// The kernel does not tell.
pub fn node_addresses() -> std::io::Result<Vec<std::net::IpAddr>> {
    Ok(netns::interfaces()?.addresses)
}
