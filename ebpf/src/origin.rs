//! sock_ops: where connections come from.
//!
//! Both programs act when a socket is about to send its SYN: source address and port are settled, and nobody has
//! seen the connection yet.

use core::ptr;

use aya_ebpf::{
    bindings::{
        BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_TCP_CONNECT_CB,
        bpf_sock,
    },
    btf_maps::SkStorage,
    helpers::{bpf_get_netns_cookie, bpf_ktime_get_ns, bpf_sk_storage_get},
    programs::SockOpsContext,
};
use derny_ebpf_common::{AddressKey, ConnectionKey, MARK, NODE_COUNTERS, Path, PodConnectionKey, Remembered};

use crate::{
    count::Decided,
    maps::{CALLERS, DIALLED, ORIGIN, SHOWN, TUPLES},
};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// The agent's own cgroup: a connection that the agent opens for a pod. The namespace where it arrives must not
/// hand it to the agent a second time. Pods are not asked: any of them may mark its sockets.
#[inline(always)]
pub(crate) fn try_origin(ctx: &SockOpsContext) -> Option<Decided> {
    let sk = connecting(ctx)?;
    // SAFETY: checked for null, and valid for the run of the program.
    if unsafe { (*sk).mark } != MARK {
        return None;
    }
    // SAFETY: the helper has no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    let connection = connection(ctx)?;
    announce(ctx, sk, connection);
    // An LRU map evicts when it is full, and yet it may fail: when no entry can be evicted, or a lock not be had.
    let lost = Decided {
        slot: NODE_COUNTERS,
        path: Path::OriginLost,
    };
    ORIGIN.insert(connection, now, 0).err().map(|_| lost)
}

/// Passes on which caller the socket dials an application for.
#[inline(always)]
fn announce(ctx: &SockOpsContext, sk: *mut bpf_sock, connection: ConnectionKey) {
    // SAFETY: the socket is valid.
    let Some(caller) = (unsafe { stored::<AddressKey>(&SHOWN, sk).as_ref() }) else {
        return;
    };
    let key = PodConnectionKey::new(netns_cookie(ctx), connection);
    let _ = CALLERS.insert(key, *caller, 0);
    // To the agent its peer is the application.
    // SAFETY: the socket is valid.
    let _ = unsafe { SHOWN.delete(sk) };
}

/// The pods' cgroup.
#[inline(always)]
pub(crate) fn try_tuple(ctx: &SockOpsContext) -> Option<()> {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => try_loopback(ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => try_accepted(ctx),
        _ => None,
    }
}

/// A connection that an application is about to accept: where the agent dialled it, it is shown the caller as its peer.
/// The socket is locked until this has run, so that no `accept` is told anything else.
#[inline(always)]
fn try_accepted(ctx: &SockOpsContext) -> Option<()> {
    let key = PodConnectionKey::new(netns_cookie(ctx), connection(ctx)?.reversed());
    // SAFETY: copied at once.
    let mut caller = unsafe { *CALLERS.get(&key)? };
    let _ = CALLERS.remove(&key);
    let sk = socket(ctx)?;
    // SAFETY: the map is a socket storage, the socket and the value are valid.
    unsafe {
        bpf_sk_storage_get(
            ptr::from_ref(&SHOWN).cast_mut().cast(),
            sk.cast(),
            ptr::from_mut(&mut caller).cast(),
            BPF_SK_STORAGE_GET_F_CREATE.into(),
        );
    }
    Some(())
}

/// A connection that was redirected to a pod's listener on `[::1]`, whose address says nothing.
#[inline(always)]
fn try_loopback(ctx: &SockOpsContext) -> Option<()> {
    if ctx.family() != AF_INET6 {
        return None;
    }
    let sk = connecting(ctx)?;
    // SAFETY: the socket is valid.
    let remembered = unsafe { stored::<Remembered>(&DIALLED, sk).as_ref()? };
    let key = connection(ctx)?;
    let to = AddressKey::v6(key.remote_ip_be, key.remote_port_be);
    if to != remembered.redirected || to.is_v4() {
        return None;
    }
    let key = PodConnectionKey::new(netns_cookie(ctx), key);
    TUPLES.insert(key, remembered.id, 0).ok()
}

/// The socket, if it is about to connect.
#[inline(always)]
fn connecting(ctx: &SockOpsContext) -> Option<*mut bpf_sock> {
    if ctx.op() != BPF_SOCK_OPS_TCP_CONNECT_CB {
        return None;
    }
    socket(ctx)
}

#[inline(always)]
fn socket(ctx: &SockOpsContext) -> Option<*mut bpf_sock> {
    // SAFETY: the kernel hands a valid context.
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    (!sk.is_null()).then_some(sk)
}

/// What a socket keeps, or null.
#[inline(always)]
fn stored<T>(map: &SkStorage<T>, sk: *mut bpf_sock) -> *const T {
    // SAFETY: the map is a socket storage, the socket valid, and without the create flag no value is read.
    unsafe {
        bpf_sk_storage_get(
            ptr::from_ref(map).cast_mut().cast(),
            sk.cast(),
            ptr::null_mut(),
            0,
        )
        .cast()
    }
}

#[inline(always)]
fn netns_cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the helper takes the program's context.
    unsafe { bpf_get_netns_cookie(ctx.ops.cast()) }
}

#[inline(always)]
fn connection(ctx: &SockOpsContext) -> Option<ConnectionKey> {
    // The context has the local port in the machine's order, the remote one in the upper half of a word in
    // network order.
    #[allow(clippy::cast_possible_truncation)]
    let (local_port, remote_port) = (ctx.local_port() as u16, u32::from_be(ctx.remote_port()) as u16);
    let (local, remote) = match ctx.family() {
        AF_INET => (
            AddressKey::v4(ctx.local_ip4(), 0).ip_be,
            AddressKey::v4(ctx.remote_ip4(), 0).ip_be,
        ),
        // SAFETY: the context is valid for the run of the program. Word by word, as the verifier wants it.
        AF_INET6 => unsafe {
            let words = |field: *const u32| {
                [
                    ptr::read_volatile(field),
                    ptr::read_volatile(field.add(1)),
                    ptr::read_volatile(field.add(2)),
                    ptr::read_volatile(field.add(3)),
                ]
            };
            (
                words(ptr::addr_of!((*ctx.ops).local_ip6).cast()),
                words(ptr::addr_of!((*ctx.ops).remote_ip6).cast()),
            )
        },
        _ => return None,
    };
    Some(ConnectionKey {
        local_ip_be: local,
        remote_ip_be: remote,
        local_port_be: local_port.to_be(),
        remote_port_be: remote_port.to_be(),
    })
}
