//! cgroup getpeername4/6: the address that the application dialled.

use aya_ebpf::programs::SockAddrContext;
use derny_ebpf_common::{AddressKey, Remembered};

use crate::{
    connect::{port_be, set_user_ip6, user_ip6},
    maps::DIALLED,
};

#[inline(always)]
pub(crate) fn try_getpeername4(ctx: &SockAddrContext) {
    // SAFETY: the kernel hands a valid context.
    let peer = unsafe { AddressKey::v4((*ctx.sock_addr).user_ip4, port_be((*ctx.sock_addr).user_port)) };
    if let Some(dialled) = dialled(ctx, &peer) {
        // SAFETY: as above; getpeername4 may write both fields.
        unsafe {
            (*ctx.sock_addr).user_ip4 = dialled.ip_be[3];
            (*ctx.sock_addr).user_port = u32::from(dialled.port_be);
        }
    }
}

#[inline(always)]
pub(crate) fn try_getpeername6(ctx: &SockAddrContext) {
    // SAFETY: as in `try_getpeername4`.
    let peer = unsafe { AddressKey::v6(user_ip6(ctx), port_be((*ctx.sock_addr).user_port)) };
    if let Some(dialled) = dialled(ctx, &peer) {
        set_user_ip6(ctx, &dialled.ip_be);
        // SAFETY: as above.
        unsafe { (*ctx.sock_addr).user_port = u32::from(dialled.port_be) };
    }
}

/// What the socket dialled, if it is connected to where that was redirected.
#[inline(always)]
fn dialled(ctx: &SockAddrContext, peer: &AddressKey) -> Option<AddressKey> {
    // SAFETY: the context's socket is valid, and the storage lives as long as the socket.
    let remembered: &Remembered = unsafe { DIALLED.get_ptr_mut(ctx).as_ref()? };
    (remembered.redirected == *peer).then_some(remembered.dialled)
}
