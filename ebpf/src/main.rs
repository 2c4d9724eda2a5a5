//! The kernel programs. Here are the hooks only: each asks its room what to do, counts it, and gives the verdict.
//!
//! The verdict is to go on, with or without a changed address, but for two cases: a pod of a strict namespace that is not
//! enrolled yet is refused what it dials, and every pod a destination that nobody answers for.
#![no_std]
#![no_main]
// Inline assembly for BPF, for one atomic addition.
#![feature(asm_experimental_arch)]

/// Every map: name, key, value, capacity, who writes it.
mod maps;
/// Per-CPU counters by slot.
mod count;
/// cgroup connect4/6: a mesh address → the pod's own listener.
mod connect;
/// cgroup connect4/6 of the agent: not to itself.
mod dial;
/// Pods whose connections are refused until they are enrolled.
mod hold;
/// cgroup getpeername4/6 and getsockname4/6: what the application sees of its connections.
mod peername;
/// Which pod an sk_lookup program runs for.
mod own;
/// sk_lookup: which listener gets this SYN.
mod steer;
/// sock_ops: where connections come from.
mod origin;

use aya_ebpf::{
    macros::{cgroup_sock_addr, sk_lookup, sock_ops},
    programs::{SkLookupContext, SockAddrContext, SockOpsContext},
};
use count::Decided;
use derny_ebpf_common::Path;
use maps::STEERING;

/// Verdict of the cgroup hooks: let the system call go on.
const PROCEED: i32 = 1;
/// Verdict of the cgroup hooks: let it fail, with the error that was set.
const REFUSE: i32 = 0;
/// Verdict of sk_lookup: go on, with the assigned socket if there is one.
const SK_PASS: u32 = 1;
/// sock_ops programs have nothing to answer.
const NO_REPLY: u32 = 0;

#[cgroup_sock_addr(connect4)]
fn derny_connect4(ctx: SockAddrContext) -> i32 {
    verdict(connect::try_connect4(&ctx))
}

#[cgroup_sock_addr(connect6)]
fn derny_connect6(ctx: SockAddrContext) -> i32 {
    verdict(connect::try_connect6(&ctx))
}

#[inline(always)]
fn verdict(decided: Option<Decided>) -> i32 {
    count::count(decided);
    match decided {
        Some(Decided {
            path: Path::RefusedStrict | Path::RefusedDead,
            ..
        }) => REFUSE,
        _ => PROCEED,
    }
}

/// For the agent's own cgroup.
#[cgroup_sock_addr(connect4)]
fn derny_dial4(ctx: SockAddrContext) -> i32 {
    if dial::refuses4(&ctx) { REFUSE } else { PROCEED }
}

/// For the agent's own cgroup.
#[cgroup_sock_addr(connect6)]
fn derny_dial6(ctx: SockAddrContext) -> i32 {
    if dial::refuses6(&ctx) { REFUSE } else { PROCEED }
}

#[cgroup_sock_addr(getpeername4)]
fn derny_peername4(ctx: SockAddrContext) -> i32 {
    peername::try_getpeername4(&ctx);
    PROCEED
}

#[cgroup_sock_addr(getpeername6)]
fn derny_peername6(ctx: SockAddrContext) -> i32 {
    peername::try_getpeername6(&ctx);
    PROCEED
}

#[cgroup_sock_addr(getsockname4)]
fn derny_sockname4(ctx: SockAddrContext) -> i32 {
    peername::try_getsockname4(&ctx);
    PROCEED
}

#[cgroup_sock_addr(getsockname6)]
fn derny_sockname6(ctx: SockAddrContext) -> i32 {
    peername::try_getsockname6(&ctx);
    PROCEED
}

/// A copy for each pod.
#[sk_lookup]
fn derny_lookup(ctx: SkLookupContext) -> u32 {
    own::Own::leave();
    // SAFETY: nothing here is to be dropped.
    unsafe { STEERING.tail_call(&ctx, 0) };
    SK_PASS
}

/// Called by the copies.
#[sk_lookup]
fn derny_steer(ctx: SkLookupContext) -> u32 {
    count::count(steer::try_steer(&ctx));
    SK_PASS
}

/// For the agent's own cgroup.
#[sock_ops]
fn derny_origin(ctx: SockOpsContext) -> u32 {
    count::count(origin::try_origin(&ctx));
    NO_REPLY
}

/// For the pods' cgroup.
#[sock_ops]
fn derny_tuple(ctx: SockOpsContext) -> u32 {
    origin::try_tuple(&ctx);
    NO_REPLY
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// What the kernel is told. No helper is called that it keeps for programs under the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
