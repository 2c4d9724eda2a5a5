//! cgroup connect4/6: a mesh address → the pod's own listener.
//!
//! Runs before the kernel picks a route and a source address, so a rewritten connection is an ordinary one over
//! the pod's loopback.

use core::ptr;

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    helpers::{
        bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_set_retval, bpf_sk_storage_get, bpf_skc_to_mptcp_sock,
    },
    programs::SockAddrContext,
};
use aya_log_ebpf::debug;
use derny_ebpf_common::{
    AddressKey, BY_NOBODY, BY_NODE, MARK, NODE_COUNTERS, Path, Pod, Redirect, Remembered, V6_PORTS,
};

use crate::{
    count::{Decided, count_hit},
    hold,
    maps::{DESTS, DIALLED, PODS, agent_is_alive, stands_aside},
};

/// What `connect` returns where nobody answers, as it does where nothing listens.
const ECONNREFUSED: i32 = 111;
const SOCK_STREAM: u32 = 1;
const IPPROTO_TCP: u32 = 6;

/// IPv6's loopback address.
const LOOPBACK6_BE: [u32; 4] = [0, 0, 0, 1_u32.to_be()];

#[inline(always)]
pub(crate) fn try_connect4(ctx: &SockAddrContext) -> Option<Decided> {
    // SAFETY: the kernel hands a valid context; the verifier has checked the fields' offsets.
    let dialled = unsafe { AddressKey::v4((*ctx.sock_addr).user_ip4, port_be((*ctx.sock_addr).user_port)) };
    Some(match redirect(ctx, &dialled)? {
        Ok(redirected) => {
            // SAFETY: as above; connect4 may write both fields.
            unsafe {
                (*ctx.sock_addr).user_ip4 = redirected.to.ip_be[3];
                (*ctx.sock_addr).user_port = u32::from(redirected.to.port_be);
            }
            redirected.decided
        }
        Err(passed) => passed,
    })
}

#[inline(always)]
pub(crate) fn try_connect6(ctx: &SockAddrContext) -> Option<Decided> {
    // SAFETY: as in `try_connect4`.
    let dialled = unsafe { AddressKey::v6(user_ip6(ctx), port_be((*ctx.sock_addr).user_port)) };
    Some(match redirect(ctx, &dialled)? {
        Ok(redirected) => {
            set_user_ip6(ctx, &redirected.to.ip_be);
            // SAFETY: as above.
            unsafe { (*ctx.sock_addr).user_port = u32::from(redirected.to.port_be) };
            redirected.decided
        }
        Err(passed) => passed,
    })
}

struct Redirected {
    to: AddressKey,
    decided: Decided,
}

/// `None`: not a connection that could concern the mesh. `Err`: left alone or refused, and counted.
#[inline(always)]
fn redirect(ctx: &SockAddrContext, dialled: &AddressKey) -> Option<Result<Redirected, Decided>> {
    // SAFETY: the context and its socket are valid for the run of the program.
    let (kind, protocol, mark, device) = unsafe {
        let sock_addr = ctx.sock_addr;
        let sk = (*sock_addr).__bindgen_anon_1.sk;
        if sk.is_null() {
            return None;
        }
        (
            (*sock_addr).type_,
            (*sock_addr).protocol,
            (*sk).mark,
            (*sk).bound_dev_if,
        )
    };
    if kind != SOCK_STREAM || protocol != IPPROTO_TCP || mark == MARK {
        return None;
    }
    // SAFETY: the helper takes this context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: entries of a map without preallocation are freed after a grace period, not reused.
    let Some(pod) = (unsafe { PODS.get(cookie) }) else {
        let path = match hold::refuses(dialled) {
            true => Path::RefusedStrict,
            false => Path::PassedNotEnrolled,
        };
        return Some(Err(Decided {
            slot: NODE_COUNTERS,
            path,
        }));
    };
    let slot = pod.slot;
    let pass = |path| Some(Err(Decided { slot, path }));
    let Some(destination) = DESTS.get_ptr_mut(dialled) else {
        return pass(Path::PassedUnknown);
    };
    if !agent_is_alive() || stands_aside(slot) {
        return pass(Path::PassedStale);
    }
    if device != 0 {
        return pass(Path::PassedBoundDevice);
    }
    // SAFETY: as above.
    let (id, answered_by) = unsafe { ((*destination).id, (*destination).answered_by) };
    match answered_by {
        BY_NOBODY => {
            // SAFETY: the helper has no precondition; it fails nowhere.
            unsafe { bpf_set_retval(-ECONNREFUSED) };
            return pass(Path::RefusedDead);
        }
        BY_NODE => return pass(Path::PassedLeftToNode),
        _ => {}
    }
    let Some(to) = address_of(pod, id, dialled) else {
        return pass(Path::PassedNoIpv6);
    };
    if !remember(
        ctx,
        Remembered {
            dialled: *dialled,
            redirected: to,
            id,
        },
    ) {
        return pass(Path::PassedNoMemory);
    }
    // SAFETY: the entry lives while the program runs, as above.
    unsafe { count_hit(ptr::addr_of_mut!((*destination).hits)) };
    debug!(ctx, "redirected slot {} destination {}", slot, id);
    Some(Ok(Redirected {
        to,
        decided: Decided {
            slot,
            path: Path::Redirected,
        },
    }))
}

/// Where a connection goes instead. A socket that dials IPv4, mapped or not, can reach 127.192.0.0/10, which
/// says everything. One that dials IPv6 may be IPV6_V6ONLY, which cannot be seen from here, so it goes to one of the
/// ports of the pod's listener on `[::1]`, and `DERNY_TUPLES` says the rest.
#[inline(always)]
fn address_of(pod: &Pod, id: u32, dialled: &AddressKey) -> Option<AddressKey> {
    if dialled.is_v4() {
        #[allow(clippy::cast_possible_truncation)] // The agent writes slots below 1024.
        let (ip, port) = Redirect {
            slot: pod.slot as u16,
            id,
        }
        .encode();
        Some(AddressKey::v4(ip.to_be(), port.to_be()))
    } else if pod.v6_port_be != 0 {
        // SAFETY: the helper has no precondition.
        let random = unsafe { bpf_get_prandom_u32() };
        // Not the first, where the listener stands: all are steered, as in IPv4.
        #[allow(clippy::cast_possible_truncation)] // Below the number of ports.
        let port = u16::from_be(pod.v6_port_be) + 1 + (random % u32::from(V6_PORTS - 1)) as u16;
        Some(AddressKey::v6(LOOPBACK6_BE, port.to_be()))
    } else {
        None
    }
}

/// Whether the kernel knows MPTCP. The agent says it; without it the helper below cannot even be loaded.
#[unsafe(no_mangle)]
static HAS_MPTCP: u8 = 0;

/// With the socket, and with the one that the application holds where this is a subflow of it. A socket may be connected
/// more than once, so an entry that exists is overwritten.
#[inline(always)]
fn remember(ctx: &SockAddrContext, mut value: Remembered) -> bool {
    // SAFETY: the context's socket is valid; the storage lives as long as the socket.
    unsafe {
        let kept = DIALLED.get_or_insert_ptr_mut(ctx, Some(&mut value));
        if kept.is_null() {
            return false;
        }
        *kept = value;
    }
    // SAFETY: a global that is written before the program is loaded.
    if unsafe { ptr::read_volatile(&raw const HAS_MPTCP) } == 0 {
        return true;
    }
    // SAFETY: the context's socket is valid; the helper answers null for what is no subflow.
    let whole = unsafe { bpf_skc_to_mptcp_sock((*ctx.sock_addr).__bindgen_anon_1.sk.cast()) };
    if whole.is_null() {
        return true;
    }
    // SAFETY: the map is a socket storage, socket and value are valid, and the storage lives as long as the socket.
    unsafe {
        let kept: *mut Remembered = bpf_sk_storage_get(
            ptr::from_ref(&DIALLED).cast_mut().cast(),
            whole.cast(),
            ptr::from_mut(&mut value).cast(),
            BPF_SK_STORAGE_GET_F_CREATE.into(),
        )
        .cast();
        if kept.is_null() {
            return false;
        }
        *kept = value;
    }
    true
}

/// The context has the port in the low half of a word, in network byte order.
#[inline(always)]
#[allow(clippy::cast_possible_truncation)]
pub(crate) fn port_be(user_port: u32) -> u16 {
    user_port as u16
}

/// Word by word, each a read of its own: the verifier knows the context's fields and no copies of ranges.
#[inline(always)]
pub(crate) fn user_ip6(ctx: &SockAddrContext) -> [u32; 4] {
    // SAFETY: the context is valid for the run of the program.
    unsafe {
        let words = ptr::addr_of!((*ctx.sock_addr).user_ip6).cast::<u32>();
        [
            ptr::read_volatile(words),
            ptr::read_volatile(words.add(1)),
            ptr::read_volatile(words.add(2)),
            ptr::read_volatile(words.add(3)),
        ]
    }
}

#[inline(always)]
pub(crate) fn set_user_ip6(ctx: &SockAddrContext, ip_be: &[u32; 4]) {
    // SAFETY: the context is valid, and connect6 and getpeername6 may write the field.
    unsafe {
        let words = ptr::addr_of_mut!((*ctx.sock_addr).user_ip6).cast::<u32>();
        ptr::write_volatile(words, ip_be[0]);
        ptr::write_volatile(words.add(1), ip_be[1]);
        ptr::write_volatile(words.add(2), ip_be[2]);
        ptr::write_volatile(words.add(3), ip_be[3]);
    }
}
