//! Every map. The names are at most 15 characters, the kernel's limit, and `DERNY_` is what the command line
//! looks for when it reads the maps of an agent that does not answer.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, SkStorage, SockMap},
    helpers::bpf_ktime_get_ns,
    macros::btf_map,
};
use derny_ebpf_common::{
    AddressKey, Beat, ConnectionKey, Counters, Destination, Held, NODE_COUNTERS, Pod, PodAddressKey,
    PodConnectionKey, Remembered, SLOTS,
};

use crate::own::Own;

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;
const PODS_CAPACITY: usize = SLOTS as usize;

/// Cookie of a network namespace → the pod. Written by the agent.
#[btf_map(name = "DERNY_PODS")]
pub(crate) static PODS: HashMap<u64, Pod, PODS_CAPACITY, NO_PREALLOC> = HashMap::new();

/// Address that pods dial → destination. Written by the agent, hits by connect. The capacity is set at load.
#[btf_map(name = "DERNY_DESTS")]
pub(crate) static DESTS: HashMap<AddressKey, Destination, 131_072, NO_PREALLOC> = HashMap::new();

/// Id of a pod's control group → the pod, whose connections are refused until it is enrolled. Written by the agent, hits
/// by connect.
#[btf_map(name = "DERNY_HELD")]
pub(crate) static HELD: HashMap<u64, Held, PODS_CAPACITY, NO_PREALLOC> = HashMap::new();

/// The one entry is how many pods are held, so that connect need not look for them while there are none. Written by the
/// agent.
#[btf_map(name = "DERNY_HELD_N")]
pub(crate) static HELD_COUNT: Array<u32, 1> = Array::new();

/// A pod's address and port that are steered to the agent → 1. Written by the agent. The capacity is set at load: the
/// share of a pod, for every slot.
#[btf_map(name = "DERNY_INBOUND")]
pub(crate) static INBOUND: HashMap<PodAddressKey, u32, 131_072, NO_PREALLOC> = HashMap::new();

/// Addresses of the node itself (port 0) → 1. Written by the agent.
#[btf_map(name = "DERNY_NODE_ADDR")]
pub(crate) static NODE_ADDRESSES: HashMap<AddressKey, u32, 4096, NO_PREALLOC> = HashMap::new();

/// `Listener::index` → listening socket. Written by the agent.
#[btf_map(name = "DERNY_LISTENERS")]
pub(crate) static LISTENERS: SockMap<4096> = SockMap::new();

/// The one entry is the agent's sign of life. Written by the agent.
#[btf_map(name = "DERNY_BEAT")]
pub(crate) static BEAT: Array<Beat, 1> = Array::new();

/// Slot → 1 while the agent cannot take the pod's connections, so that they are left alone. Written by the agent.
#[btf_map(name = "DERNY_ASIDE")]
pub(crate) static ASIDE: Array<u32, PODS_CAPACITY> = Array::new();

/// Socket → what it dialled. Written by connect; gone with the socket.
#[btf_map(name = "DERNY_DIALLED")]
pub(crate) static DIALLED: SkStorage<Remembered> = SkStorage::new();

/// Socket → the caller that is shown as its peer. Written by the agent for one that is to dial an application; origin takes
/// it off, and tuple gives it to the socket that the application accepts. Gone with the socket.
#[btf_map(name = "DERNY_SHOWN")]
pub(crate) static SHOWN: SkStorage<AddressKey> = SkStorage::new();

/// Connection of the agent to an application, as the agent sees it → the caller. Written by origin, removed by tuple.
#[btf_map(name = "DERNY_CALLERS")]
pub(crate) static CALLERS: LruHashMap<PodConnectionKey, AddressKey, 16_384> = LruHashMap::new();

/// Connection to a pod's `[::1]` listener, as the client sees it → destination id. Written by sock_ops.
#[btf_map(name = "DERNY_TUPLES")]
pub(crate) static TUPLES: LruHashMap<PodConnectionKey, u32, 65_536> = LruHashMap::new();

/// Connection opened by the agent, as the agent sees it → ktime in nanoseconds. Written by sock_ops.
#[btf_map(name = "DERNY_ORIGIN")]
pub(crate) static ORIGIN: LruHashMap<ConnectionKey, u64, 65_536> = LruHashMap::new();

/// Slot, or `NODE_COUNTERS` → counters. Counted up by connect and lookup, set to zero by the agent at enrolment.
#[btf_map(name = "DERNY_COUNTERS")]
pub(crate) static COUNTERS: PerCpuArray<Counters, { NODE_COUNTERS as usize + 1 }> = PerCpuArray::new();

/// The one entry is the pod that the lookup on this CPU is for. Written by a copy of lookup, read by steer.
#[btf_map(name = "DERNY_OWN")]
pub(crate) static OWN: PerCpuArray<Own, 1> = PerCpuArray::new();

/// The one entry is steer. Written by the agent.
#[btf_map(name = "DERNY_STEERING")]
pub(crate) static STEERING: ProgramArray<1> = ProgramArray::new();

/// Are the connections of the pod in `slot` to be left alone, as if the agent hung?
#[inline(always)]
pub(crate) fn stands_aside(slot: u32) -> bool {
    ASIDE.get(slot).is_some_and(|aside| *aside != 0)
}

/// Has the agent shown a sign of life lately?
#[inline(always)]
pub(crate) fn agent_is_alive() -> bool {
    let Some(beat) = BEAT.get(0) else { return false };
    // SAFETY: the helper has no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    now.saturating_sub(beat.at_ns) <= beat.stale_after_ns
}
