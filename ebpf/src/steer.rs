//! sk_lookup: which listener gets this SYN.
//!
//! Runs in a pod's network namespace for a TCP segment that belongs to no established connection.

use core::ptr;

use aya_ebpf::{bindings::bpf_sk_lookup, helpers::bpf_ktime_get_ns, programs::SkLookupContext};
use aya_log_ebpf::debug;
use derny_ebpf_common::{
    AddressKey, ConnectionKey, Listener, ORIGIN_LIFETIME_NS, Path, PodAddressKey, PodConnectionKey, Redirect,
};

use crate::{
    count::Decided,
    maps::{INBOUND, LISTENERS, NODE_ADDRESSES, ORIGIN, PODS, TUPLES, agent_is_alive, stands_aside},
    own::Own,
};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const IPPROTO_TCP: u32 = 6;
/// The loopback has this index in every network namespace.
const LOOPBACK_IFINDEX: u32 = 1;

/// `None`: none of our business.
#[inline(always)]
pub(crate) fn try_steer(ctx: &SkLookupContext) -> Option<Decided> {
    // SAFETY: the kernel hands a valid context.
    let (family, protocol, ifindex, local_port) = unsafe {
        let lookup = ctx.lookup;
        (
            (*lookup).family,
            (*lookup).protocol,
            (*lookup).ingress_ifindex,
            (*lookup).local_port,
        )
    };
    if protocol != IPPROTO_TCP {
        return None;
    }
    #[allow(clippy::cast_possible_truncation)] // A port.
    let local_port = local_port as u16;
    if family == AF_INET {
        // SAFETY: as above.
        let local_ip_be = unsafe { (*ctx.lookup).local_ip4 };
        if let Some(redirect) = Redirect::decode(u32::from_be(local_ip_be), local_port) {
            return outbound(ctx, redirect);
        }
    } else if family != AF_INET6 {
        return None;
    } else if is_loopback6(ctx.lookup) {
        return outbound6(ctx, local_port);
    }
    inbound(ctx, local_port.to_be(), ifindex)
}

/// A redirected SYN. Nothing is asked any more: it was redirected because the agent was alive, and there is
/// nobody else who could answer it.
///
/// A pod that dials another slot's address by hand gets nowhere: the other pod's listener is not given to it.
#[inline(always)]
fn outbound(ctx: &SkLookupContext, redirect: Redirect) -> Option<Decided> {
    let slot = Own::load()?.slot();
    let listener = Listener::Outbound.index(slot);
    let is_own = u32::from(redirect.slot) == slot;
    let path = match is_own && LISTENERS.redirect_sk_lookup(ctx, listener, 0).is_ok() {
        true => Path::SteeredOutbound,
        false => Path::NoListener,
    };
    Some(Decided { slot, path })
}

/// A SYN to `[::1]`: redirected when its tuple says so. The ports are no others' to listen at, but somebody may.
#[inline(always)]
fn outbound6(ctx: &SkLookupContext, local_port: u16) -> Option<Decided> {
    let own = Own::load()?;
    let (netns_cookie, slot) = (own.netns_cookie, own.slot());
    // SAFETY: entries of a map without preallocation are freed after a grace period, not reused.
    let pod = unsafe { PODS.get(netns_cookie) }?;
    if !pod.has_v6_port(local_port) {
        return None;
    }
    let (local, remote) = addresses(ctx.lookup, local_port.to_be());
    let key = PodConnectionKey::new(netns_cookie, opened(&local, &remote));
    // SAFETY: an evicted entry may be reused while it is read; only that there is one counts.
    unsafe { TUPLES.get(key) }?;
    let listener = Listener::Outbound6.index(slot);
    let path = match LISTENERS.redirect_sk_lookup(ctx, listener, 0).is_ok() {
        true => Path::SteeredOutbound,
        false => Path::NoListener,
    };
    Some(Decided { slot, path })
}

#[inline(always)]
fn is_loopback6(lookup: *mut bpf_sk_lookup) -> bool {
    // SAFETY: the context is valid for the run of the program. Word by word, as the verifier wants it.
    unsafe {
        let words = ptr::addr_of!((*lookup).local_ip6).cast::<u32>();
        ptr::read_volatile(words) == 0
            && ptr::read_volatile(words.add(1)) == 0
            && ptr::read_volatile(words.add(2)) == 0
            && ptr::read_volatile(words.add(3)) == 1_u32.to_be()
    }
}

#[inline(always)]
fn inbound(ctx: &SkLookupContext, local_port_be: u16, ifindex: u32) -> Option<Decided> {
    let (local, remote) = addresses(ctx.lookup, local_port_be);
    let own = Own::load()?;
    let (netns_cookie, slot) = (own.netns_cookie, own.slot());
    // SAFETY: entries of a map without preallocation are freed after a grace period, not reused.
    unsafe { INBOUND.get(PodAddressKey::new(netns_cookie, local)) }?;
    let decided = |path| Some(Decided { slot, path });
    if ifindex == LOOPBACK_IFINDEX || is_the_pod_itself(&local, &remote, netns_cookie) {
        return decided(Path::SkippedLoopback);
    }
    // SAFETY: as above.
    if unsafe { NODE_ADDRESSES.get(AddressKey { port_be: 0, ..remote }) }.is_some() {
        return decided(Path::SkippedNodeAddress);
    }
    if comes_from_this_agent(&local, &remote) {
        return decided(Path::SkippedSameNode);
    }
    if !agent_is_alive() || stands_aside(slot) {
        return decided(Path::SkippedStale);
    }
    let listener = if local.is_v4() {
        Listener::Inbound4
    } else {
        Listener::Inbound6
    };
    // Without the no-reuseport flag the kernel goes on to pick one of the listener's group: one per worker.
    if LISTENERS
        .redirect_sk_lookup(ctx, listener.index(slot), 0)
        .is_err()
    {
        return decided(Path::NoListener);
    }
    debug!(ctx, "steered slot {} port {}", slot, u16::from_be(local_port_be));
    decided(Path::SteeredInbound)
}

/// Does the pod call itself? Such a SYN comes over the loopback, but when it is addressed to another device's
/// address, the kernel names that device as the ingress. The kernel drops packets from outside that carry an
/// address of the pod or the loopback's as their source, so the source tells.
#[inline(always)]
fn is_the_pod_itself(local: &AddressKey, remote: &AddressKey, netns_cookie: u64) -> bool {
    if remote.ip_be == local.ip_be || remote.is_loopback() {
        return true;
    }
    // Each address of the pod is there with each of its ports.
    let own = AddressKey {
        port_be: local.port_be,
        ..*remote
    };
    // SAFETY: as in `inbound`.
    unsafe { INBOUND.get(PodAddressKey::new(netns_cookie, own)) }.is_some()
}

/// Has this connection passed the agent on its client side?
#[inline(always)]
fn comes_from_this_agent(local: &AddressKey, remote: &AddressKey) -> bool {
    let key = opened(local, remote);
    // SAFETY: an evicted entry may be reused while it is read, and then holds another connection's time: with
    // 65,536 entries newer than this one's SYN.
    let Some(opened_ns) = (unsafe { ORIGIN.get(key) }) else {
        return false;
    };
    // SAFETY: the helper has no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    now.saturating_sub(*opened_ns) <= ORIGIN_LIFETIME_NS
}

/// A connection as the side that opened it sees it.
#[inline(always)]
fn opened(local: &AddressKey, remote: &AddressKey) -> ConnectionKey {
    ConnectionKey {
        local_ip_be: remote.ip_be,
        remote_ip_be: local.ip_be,
        local_port_be: remote.port_be,
        remote_port_be: local.port_be,
    }
}

#[inline(always)]
fn addresses(lookup: *mut bpf_sk_lookup, local_port_be: u16) -> (AddressKey, AddressKey) {
    // SAFETY: the context is valid for the run of the program. Word by word, as the verifier wants it.
    unsafe {
        let remote_port_be = (*lookup).remote_port;
        if (*lookup).family == AF_INET {
            return (
                AddressKey::v4((*lookup).local_ip4, local_port_be),
                AddressKey::v4((*lookup).remote_ip4, remote_port_be),
            );
        }
        let words = |field: *const u32| {
            [
                ptr::read_volatile(field),
                ptr::read_volatile(field.add(1)),
                ptr::read_volatile(field.add(2)),
                ptr::read_volatile(field.add(3)),
            ]
        };
        (
            AddressKey::v6(words(ptr::addr_of!((*lookup).local_ip6).cast()), local_port_be),
            AddressKey::v6(words(ptr::addr_of!((*lookup).remote_ip6).cast()), remote_port_be),
        )
    }
}
