//! cgroup connect4/6 of the agent's own control group: no socket of the agent reaches a listener of the agent.
//!
//! An endpoint or an inbound port may be any address that somebody wrote down, and so the address of the agent's own
//! listener in a pod. A connection to it would be one that the agent accepts, dials, accepts, and so on.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_netns_cookie, bpf_set_retval},
    programs::SockAddrContext,
};
use derny_ebpf_common::{AddressKey, MARK, Redirect};

use crate::{
    connect::{port_be, user_ip6},
    maps::PODS,
};

/// As if nobody listened there.
const ECONNREFUSED: i32 = 111;

#[inline(always)]
pub(crate) fn refuses4(ctx: &SockAddrContext) -> bool {
    // SAFETY: the kernel hands a valid context; the verifier has checked the fields' offsets.
    let dialled = unsafe { AddressKey::v4((*ctx.sock_addr).user_ip4, port_be((*ctx.sock_addr).user_port)) };
    refuses(ctx, &dialled)
}

#[inline(always)]
pub(crate) fn refuses6(ctx: &SockAddrContext) -> bool {
    // SAFETY: as above.
    let dialled = unsafe { AddressKey::v6(user_ip6(ctx), port_be((*ctx.sock_addr).user_port)) };
    refuses(ctx, &dialled)
}

#[inline(always)]
fn refuses(ctx: &SockAddrContext, dialled: &AddressKey) -> bool {
    // SAFETY: the context and its socket are valid for the run of the program.
    let mark = unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        if sk.is_null() {
            return false;
        }
        (*sk).mark
    };
    if mark != MARK || !is_a_listeners(ctx, dialled) {
        return false;
    }
    // SAFETY: the helper has no precondition; it fails nowhere.
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    true
}

#[inline(always)]
fn is_a_listeners(ctx: &SockAddrContext, dialled: &AddressKey) -> bool {
    if dialled.is_v4() {
        let redirected = Redirect::decode(u32::from_be(dialled.ip_be[3]), u16::from_be(dialled.port_be));
        if redirected.is_some() {
            return true;
        }
    }
    // Listeners stand on loopback addresses; a socket that dials an unspecified one reaches them too.
    if !dialled.is_loopback() && !dialled.is_unspecified() {
        return false;
    }
    // SAFETY: the helper takes this context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: entries of a map without preallocation are freed after a grace period, not reused.
    let Some(pod) = (unsafe { PODS.get(cookie) }) else {
        return false;
    };
    let port = dialled.port_be;
    let [outbound, inbound, inbound6] = pod.ports_be;
    port == outbound || port == inbound || port == inbound6 || pod.has_v6_port(u16::from_be(port))
}
