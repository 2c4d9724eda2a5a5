//! Which addresses are a pod's, and which of its ports on them are steered to the agent.
//!
//! What counts is what the pod's source says ([`PodAddresses`]). Where that leaves it to the pod's interfaces, the kernel
//! tells by netlink when one of them has changed, so that looking after a pod costs one system call.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd as _,
};

use aya::maps::{HashMap, MapData};
use derny_ebpf_common::PodAddressKey;
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    EnrolError, InterceptError, Kernel,
    enrol::{Enrolment, enter},
    netns::interfaces,
    tables::{address_key, full_or, is_missing},
};
use crate::model::{Pod, PodAddresses, Slot};

const INBOUND: &str = "DERNY_INBOUND";

/// Of an enrolled pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The pod's own, each once.
    pub own: Vec<IpAddr>,
    /// How many of its addresses and ports are not steered, because they are over the pod's share of the table.
    pub over_share: usize,
}

impl Kernel {
    /// Lets the kernel's table follow the pod's addresses: those that `pod` says, or those of its interfaces. `None` when
    /// they are what they were, and for an empty slot.
    ///
    /// # Errors
    /// The pod's interfaces cannot be read, or the table not be written. The pod stays enrolled; what was steered to it
    /// may be so no more.
    pub fn follow_addresses(&mut self, slot: Slot, pod: &Pod) -> Result<Option<Addresses>, EnrolError> {
        let share = self.inbound_share();
        let Some(enrolment) = self.enrolled.get_mut(&slot) else {
            return Ok(None);
        };
        let netns_error = |source| EnrolError::Netns {
            pod: pod.name.clone(),
            path: pod.netns.path().to_owned(),
            source,
        };
        let kernel_error = |source| EnrolError::Kernel {
            pod: pod.name.clone(),
            source: Box::new(source),
        };
        let own = match (&pod.addresses, &enrolment.watch) {
            (PodAddresses::Given(addresses), _) => {
                enrolment.watch = None;
                addresses.clone()
            }
            (PodAddresses::Interfaces, Some(watch)) if !watch.has_changed() => return Ok(None),
            (PodAddresses::Interfaces, watch) => {
                let is_watched = watch.is_some();
                let (opened, found) = enrolment
                    .netns
                    .enter(|| ((!is_watched).then(Watch::open), interfaces()))
                    .map_err(netns_error)?;
                if let Some(opened) = opened {
                    enrolment.watch = Some(opened.map_err(netns_error)?);
                }
                found.map_err(netns_error)?.addresses
            }
        };
        if own == enrolment.addresses {
            return Ok(None);
        }
        let over_share = steer(&mut self.tables.inbound, enrolment, &own, share).map_err(kernel_error)?;
        enter(&mut self.tables.pods, enrolment, &own).map_err(kernel_error)?;
        enrolment.addresses.clone_from(&own);
        Ok(Some(Addresses { own, over_share }))
    }

    /// Calls to the pod arrive unsteered from now on, until it is enrolled anew.
    ///
    /// # Errors
    /// The table cannot be written, which does not happen to a loaded one.
    pub fn unsteer(&mut self, slot: Slot) -> Result<(), InterceptError> {
        let share = self.inbound_share();
        let Some(enrolment) = self.enrolled.get_mut(&slot) else {
            return Ok(());
        };
        enrolment.ports.clear();
        steer(&mut self.tables.inbound, enrolment, &[], share).map(drop)
    }
}

/// Makes the table's entries of a pod those of `addresses`, and gives how many were left out because they are over its
/// `share`. What stays is not touched, so that no connection goes astray.
pub(super) fn steer(
    table: &mut HashMap<MapData, PodAddressKey, u32>,
    enrolment: &mut Enrolment,
    addresses: &[IpAddr],
    share: u32,
) -> Result<usize, InterceptError> {
    let cookie = enrolment.netns.cookie();
    // A pod without `::1` has no listener for IPv6.
    let has_ipv6 = enrolment.v6_port.is_some();
    let wanted: Vec<SocketAddr> = addresses
        .iter()
        .filter(|ip| ip.is_ipv4() || has_ipv6)
        .flat_map(|ip| enrolment.ports.iter().map(|port| SocketAddr::new(*ip, *port)))
        .collect();
    let share = usize::try_from(share).unwrap_or(usize::MAX);
    let kept: BTreeSet<SocketAddr> = wanted.iter().take(share).copied().collect();
    let key = |address: &SocketAddr| PodAddressKey::new(cookie, address_key(*address));
    let gone: Vec<SocketAddr> = enrolment.inbound.difference(&kept).copied().collect();
    for address in gone {
        match table.remove(&key(&address)) {
            Err(source) if !is_missing(&source) => return Err(InterceptError::map(INBOUND)(source)),
            _ => drop(enrolment.inbound.remove(&address)),
        }
    }
    for address in &kept {
        if enrolment.inbound.contains(address) {
            continue;
        }
        table.insert(key(address), 1, 0).map_err(|source| {
            // Never: the table has the share of every slot.
            full_or(source, INBOUND, u32::MAX, address.to_string())
        })?;
        enrolment.inbound.insert(*address);
    }
    Ok(wanted.len() - kept.len())
}

/// Hears of changes to the addresses of the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Watch(Socket);

/// Messages that are read at a time; a pod may make any number of them.
const AT_ONCE: usize = 64;

impl Watch {
    /// To be opened before the addresses are read, so that no change is missed.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "a small constant, and the size of a small struct"
    )]
    pub(super) fn open() -> io::Result<Self> {
        let kind = Type::RAW.nonblocking().cloexec();
        let socket = Socket::new(
            Domain::from(libc::AF_NETLINK),
            kind,
            Some(Protocol::from(libc::NETLINK_ROUTE)),
        )?;
        // What does not fit is lost, and that is a change too.
        socket.set_recv_buffer_size(0)?;
        // SAFETY: all zeros are a value of this type.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = (libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR).cast_unsigned();
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the descriptor is open, and the address lives until the call has returned.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        match bound {
            0 => Ok(Self(socket)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Since the last call.
    pub(super) fn has_changed(&self) -> bool {
        let mut changed = false;
        for _ in 0..AT_ONCE {
            let mut byte = [std::mem::MaybeUninit::uninit()];
            match self.0.recv(&mut byte) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // A message, or word that some were lost.
                _ => changed = true,
            }
        }
        changed
    }
}
