//! A pod becomes redirected, and is left alone again.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::OwnedFd,
    sync::Arc,
};

use aya::{
    maps::{HashMap, MapData, PerCpuValues},
    util::nr_cpus,
};
use derny_ebpf_common::{Counters, Listener, PATHS, Pod as PodEntry, PodAddressKey};

use super::{
    Addresses, Callers, EnrolError, InterceptError, Kernel, Listeners, NamedNetns, Netns,
    addresses::{Watch, steer},
    listen::{self, Opened},
    netns::{Interfaces, identity_of, identity_of_this_thread, interfaces},
    tables::{address_key, to_label},
};
use crate::model::{EnrolmentId, Pod, PodAddresses, PodName, PodNetns, Slot};

/// What workers need of an enrolled pod.
#[derive(Debug)]
pub struct Enrolled {
    pub id: EnrolmentId,
    pub netns: Arc<Netns>,
    pub callers: Callers,
    pub addresses: Addresses,
    /// One per worker.
    pub listeners: Vec<Listeners>,
}

/// What the kernel has been told of a pod, in the order in which it is told; taken back from the end.
pub(super) struct Enrolment {
    name: PodName,
    found: PodNetns,
    slot: Slot,
    /// Of the listeners that [`PodEntry`] has.
    listener_ports: [u16; 3],
    pub(super) netns: Arc<Netns>,
    pub(super) v6_port: Option<u16>,
    listeners: Vec<u32>,
    /// The pod's copy of `derny_lookup`; closed, it is detached.
    link: Option<OwnedFd>,
    /// Ports that are steered on each of the addresses, as far as the pod's share goes.
    pub(super) ports: Vec<u16>,
    /// What is steered.
    pub(super) inbound: BTreeSet<SocketAddr>,
    /// The pod's own, as they were seen last.
    pub(super) addresses: Vec<IpAddr>,
    /// For a pod whose addresses are those of its interfaces.
    pub(super) watch: Option<Watch>,
}

impl Kernel {
    /// Opens `workers` sets of listeners inside the pod, and only then lets the kernel redirect its connections
    /// and steer those to its inbound ports. A failure on the way undoes what had been done.
    ///
    /// # Errors
    /// The pod is left alone then. See [`EnrolError`].
    pub fn enrol(&mut self, slot: Slot, pod: &Pod, workers: usize) -> Result<Enrolled, EnrolError> {
        let name = || pod.name.clone();
        if let Some(taken) = self.enrolled.get(&slot) {
            return Err(EnrolError::SlotTaken {
                pod: name(),
                slot,
                by: taken.name.clone(),
            });
        }
        let path = || pod.netns.path().to_owned();
        let netns_error = |source| EnrolError::Netns {
            pod: name(),
            path: path(),
            source,
        };
        let netns = Netns::of_pod(&pod.netns).map_err(netns_error)?;
        if netns.identity() == identity_of_this_thread().map_err(netns_error)? {
            return Err(EnrolError::HostNetwork {
                pod: name(),
                path: path(),
            });
        }
        if let Some(other) = self
            .enrolled
            .values()
            .find(|it| it.netns.identity() == netns.identity())
        {
            let other = other.name.clone();
            return Err(EnrolError::NetnsTaken {
                pod: name(),
                other,
                path: path(),
            });
        }

        let declared = pod.inbound.iter().map(|inbound| inbound.port).collect();
        let by_interfaces = pod.addresses == PodAddresses::Interfaces;
        let (watch, interfaces, opened) = netns
            .enter(|| {
                let watch = by_interfaces.then(Watch::open);
                (watch, interfaces(), listen::open(workers, &declared))
            })
            .map_err(netns_error)?;
        let Interfaces {
            loopback_is_up,
            addresses: found,
        } = interfaces.map_err(netns_error)?;
        if !loopback_is_up {
            return Err(EnrolError::LoopbackDown { pod: name() });
        }
        let addresses = match &pod.addresses {
            PodAddresses::Given(addresses) => addresses.clone(),
            PodAddresses::Interfaces if found.is_empty() && !pod.inbound.is_empty() => {
                return Err(EnrolError::NoAddress { pod: name() });
            }
            PodAddresses::Interfaces => found,
        };
        let opened = opened.map_err(|source| EnrolError::Listen { pod: name(), source })?;

        let mut enrolment = Enrolment {
            name: name(),
            found: pod.netns.clone(),
            slot,
            listener_ports: opened.ports(),
            netns: Arc::new(netns),
            v6_port: opened.v6_port,
            listeners: Vec::new(),
            link: None,
            ports: pod.inbound.iter().map(|inbound| inbound.port).collect(),
            inbound: BTreeSet::new(),
            addresses,
            watch: watch.transpose().map_err(netns_error)?,
        };
        let over_share = match self.publish(slot, pod, &opened, &mut enrolment) {
            Ok(over_share) => over_share,
            Err(error) => {
                self.retract(enrolment);
                return Err(error);
            }
        };
        let netns = Arc::clone(&enrolment.netns);
        let own = enrolment.addresses.clone();
        self.generation += 1;
        let id = EnrolmentId {
            netns_cookie: netns.cookie(),
            generation: self.generation,
        };
        self.enrolled.insert(slot, enrolment);
        Ok(Enrolled {
            id,
            netns,
            callers: self.callers.clone(),
            addresses: Addresses { own, over_share },
            listeners: opened.workers,
        })
    }

    /// The pod's new connections go direct, and calls to it arrive unsteered. Connections that the agent has
    /// accepted are not the kernel's matter. Withdrawing an empty slot does nothing; else the network namespace is
    /// returned by name.
    pub fn withdraw(&mut self, slot: Slot) -> Option<NamedNetns> {
        let enrolment = self.enrolled.remove(&slot)?;
        let named = NamedNetns {
            path: enrolment.found.path().to_owned(),
            identity: enrolment.netns.identity(),
        };
        self.retract(enrolment);
        Some(named)
    }

    /// Does the pod's path name nothing, or another namespace than the one that was enrolled? `false` for an
    /// empty slot, and for a namespace that was found open: who found it says when it has gone.
    pub fn netns_gone(&self, slot: Slot) -> bool {
        self.enrolled
            .get(&slot)
            .is_some_and(|enrolment| match &enrolment.found {
                PodNetns::Path(path) => identity_of(path).ok() != Some(enrolment.netns.identity()),
                PodNetns::Open(_) => false,
            })
    }

    /// Tells the kernel. `enrolment` records each step as soon as it is done. Gives how many of its addresses and ports
    /// are over the pod's share.
    fn publish(
        &mut self,
        slot: Slot,
        pod: &Pod,
        opened: &Opened,
        enrolment: &mut Enrolment,
    ) -> Result<usize, EnrolError> {
        let kernel = |source| EnrolError::Kernel {
            pod: pod.name.clone(),
            source: Box::new(source),
        };
        let slot_number = u32::from(slot.get());
        self.zero_counters(slot_number).map_err(kernel)?;
        self.set_aside(slot, false).map_err(kernel)?;
        if let Some(first) = opened.workers.first() {
            // One of a group stands for all of it.
            let placed = [
                (Listener::Outbound, first.outbound.first()),
                (Listener::Inbound4, first.inbound.first()),
                (Listener::Inbound6, first.inbound.get(1)),
                (Listener::Outbound6, first.outbound.get(1)),
            ];
            for (kind, listener) in placed {
                let Some(listener) = listener else { continue };
                self.place(kind.index(slot_number), listener).map_err(kernel)?;
                enrolment.listeners.push(kind.index(slot_number));
            }
        }
        let link = self.steering.attach(&enrolment.netns, slot_number);
        enrolment.link = Some(link.map_err(kernel)?);
        let (share, addresses) = (self.inbound_share(), enrolment.addresses.clone());
        let over_share = steer(&mut self.tables.inbound, enrolment, &addresses, share).map_err(kernel)?;

        enter(&mut self.tables.pods, enrolment, &addresses).map_err(kernel)?;
        Ok(over_share)
    }

    /// Takes back what [`Self::publish`] did, first that which makes new connections come. A step that fails has
    /// nothing left to take back.
    fn retract(&mut self, enrolment: Enrolment) {
        let Enrolment {
            netns,
            inbound,
            link,
            listeners,
            ..
        } = enrolment;
        let _ = self.tables.pods.remove(&netns.cookie());
        for address in inbound {
            let key = PodAddressKey::new(netns.cookie(), address_key(address));
            let _ = self.tables.inbound.remove(&key);
        }
        drop(link);
        for index in &listeners {
            let _ = self.tables.listeners.clear_index(index);
        }
    }

    /// Whether new connections from and to the pod in `slot` are left alone, as if the agent hung.
    ///
    /// # Errors
    /// The map cannot be written, which does not happen to a loaded one.
    pub fn set_aside(&mut self, slot: Slot, aside: bool) -> Result<(), InterceptError> {
        let entry = u32::from(slot.get());
        (self.tables.aside)
            .set(entry, u32::from(aside), 0)
            .map_err(InterceptError::map("DERNY_ASIDE"))
    }

    fn zero_counters(&mut self, slot: u32) -> Result<(), InterceptError> {
        let name = "DERNY_COUNTERS";
        let cpus = nr_cpus().map_err(|(path, source)| InterceptError::Read {
            path: path.into(),
            source,
        })?;
        let values =
            PerCpuValues::try_from(vec![Counters { by_path: [0; PATHS] }; cpus]).map_err(|source| {
                InterceptError::Read {
                    path: "/sys/devices/system/cpu".into(),
                    source,
                }
            })?;
        self.tables
            .counters
            .set(slot, values, 0)
            .map_err(InterceptError::map(name))
    }

    fn place(&mut self, index: u32, listener: &TcpListener) -> Result<(), InterceptError> {
        self.tables
            .listeners
            .set(index, listener, 0)
            .map_err(InterceptError::map("DERNY_LISTENERS"))
    }
}

/// Writes the pod's entry: from now on its connections are redirected.
pub(super) fn enter(
    table: &mut HashMap<MapData, u64, PodEntry>,
    enrolment: &Enrolment,
    addresses: &[IpAddr],
) -> Result<(), InterceptError> {
    let cookie = enrolment.netns.cookie();
    let first = |is_of: fn(&IpAddr) -> bool| {
        let own = addresses.iter().copied().find(is_of);
        own.map(|own| address_key(SocketAddr::new(own, 0)).ip_be)
    };
    let entry = PodEntry {
        netns_cookie: cookie,
        slot: u32::from(enrolment.slot.get()),
        v6_port_be: enrolment.v6_port.unwrap_or(0).to_be(),
        ports_be: enrolment.listener_ports.map(u16::to_be),
        zero: 0,
        own4_be: first(IpAddr::is_ipv4).map_or(0, |ip_be| ip_be[3]),
        own6_be: first(IpAddr::is_ipv6).unwrap_or_default(),
        zeros: 0,
        label: to_label(&enrolment.name.to_string()),
    };
    table
        .insert(cookie, entry, 0)
        .map_err(InterceptError::map("DERNY_PODS"))
}
