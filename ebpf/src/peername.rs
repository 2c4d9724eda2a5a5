//! cgroup getpeername4/6 and getsockname4/6: what the application sees of its connections.

use aya_ebpf::{EbpfContext as _, helpers::bpf_get_netns_cookie, programs::SockAddrContext};
use derny_ebpf_common::{AddressKey, Pod, Remembered};

use crate::{
    connect::{port_be, set_user_ip6, user_ip6},
    maps::{DIALLED, PODS, SHOWN},
};

#[inline(always)]
pub(crate) fn try_getpeername4(ctx: &SockAddrContext) {
    if let Some(peer) = peer(ctx, &user4(ctx)) {
        // SAFETY: the kernel hands a valid context; getpeername4 may write both fields.
        unsafe {
            (*ctx.sock_addr).user_ip4 = peer.ip_be[3];
            (*ctx.sock_addr).user_port = u32::from(peer.port_be);
        }
    }
}

#[inline(always)]
pub(crate) fn try_getpeername6(ctx: &SockAddrContext) {
    if let Some(peer) = peer(ctx, &user6(ctx)) {
        set_user_ip6(ctx, &peer.ip_be);
        // SAFETY: as in `try_getpeername4`.
        unsafe { (*ctx.sock_addr).user_port = u32::from(peer.port_be) };
    }
}

#[inline(always)]
pub(crate) fn try_getsockname4(ctx: &SockAddrContext) {
    if let Some(own) = own(ctx, &user4(ctx)) {
        // SAFETY: as in `try_getpeername4`.
        unsafe { (*ctx.sock_addr).user_ip4 = own[3] };
    }
}

#[inline(always)]
pub(crate) fn try_getsockname6(ctx: &SockAddrContext) {
    if let Some(own) = own(ctx, &user6(ctx)) {
        set_user_ip6(ctx, &own);
    }
}

/// What is shown in place of `peer`: what the socket dialled, if it is connected to where that was redirected, or for whom
/// the agent dialled it.
#[inline(always)]
fn peer(ctx: &SockAddrContext, peer: &AddressKey) -> Option<AddressKey> {
    // SAFETY: the context's socket is valid, and the storage lives as long as the socket.
    let remembered: Option<&Remembered> = unsafe { DIALLED.get_ptr_mut(ctx).as_ref() };
    if let Some(remembered) = remembered {
        return (remembered.redirected == *peer).then_some(remembered.dialled);
    }
    // SAFETY: as above.
    unsafe { SHOWN.get_ptr_mut(ctx).as_ref().copied() }
}

/// The pod's own address, in place of `local` on the loopback, for a socket that was redirected.
#[inline(always)]
fn own(ctx: &SockAddrContext, local: &AddressKey) -> Option<[u32; 4]> {
    if !local.is_loopback() {
        return None;
    }
    // SAFETY: the context's socket is valid, and the storage lives as long as the socket.
    let remembered: &Remembered = unsafe { DIALLED.get_ptr_mut(ctx).as_ref()? };
    if remembered.redirected != connected_to(ctx)? {
        return None;
    }
    // SAFETY: the helper takes the program's context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: the entry is read at once.
    let pod: &Pod = unsafe { PODS.get(&cookie)? };
    if local.is_v4() {
        return (pod.own4_be != 0).then_some(AddressKey::v4(pod.own4_be, 0).ip_be);
    }
    let own = AddressKey::v6(pod.own6_be, 0);
    (!own.is_unspecified()).then_some(own.ip_be)
}

/// The socket's peer. `None` when it has none.
#[inline(always)]
fn connected_to(ctx: &SockAddrContext) -> Option<AddressKey> {
    // SAFETY: the kernel hands a valid context. Word by word, as the verifier wants it.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        if sk.is_null() {
            return None;
        }
        // The field has two bytes and is read as such.
        let port_be = core::ptr::read_volatile(core::ptr::addr_of!((*sk).dst_port).cast::<u16>());
        if port_be == 0 {
            return None;
        }
        let words = core::ptr::addr_of!((*sk).dst_ip6).cast::<u32>();
        if (*sk).family == AF_INET {
            return Some(AddressKey::v4((*sk).dst_ip4, port_be));
        }
        let ip_be = [
            core::ptr::read_volatile(words),
            core::ptr::read_volatile(words.add(1)),
            core::ptr::read_volatile(words.add(2)),
            core::ptr::read_volatile(words.add(3)),
        ];
        Some(AddressKey::v6(ip_be, port_be))
    }
}

const AF_INET: u32 = 2;

#[inline(always)]
fn user4(ctx: &SockAddrContext) -> AddressKey {
    // SAFETY: the kernel hands a valid context.
    unsafe { AddressKey::v4((*ctx.sock_addr).user_ip4, port_be((*ctx.sock_addr).user_port)) }
}

#[inline(always)]
fn user6(ctx: &SockAddrContext) -> AddressKey {
    // SAFETY: as in `user4`.
    AddressKey::v6(user_ip6(ctx), unsafe { port_be((*ctx.sock_addr).user_port) })
}
