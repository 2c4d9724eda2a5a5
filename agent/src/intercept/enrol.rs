//! A pod becomes redirected, and is left alone again.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
};

use aya::{
    maps::{MapError, PerCpuValues},
    programs::{ProgramError, sk_lookup::SkLookupLink},
    util::nr_cpus,
};
use derny_ebpf_common::{AddressKey, Counters, Listener, PATHS, Pod as PodEntry};

use super::{
    EnrolError, InterceptError, Kernel, Listeners, Netns,
    listen::{self, Opened},
    netns::{Interfaces, identity_of, identity_of_this_thread, interfaces},
    tables::{address_key, full_or, to_label},
};
use crate::model::{Pod, PodName, PodNetns, Slot};

/// What workers need of an enrolled pod.
#[derive(Debug)]
pub struct Enrolled {
    pub netns: Arc<Netns>,
    /// The pod's addresses, without the loopback's and link-local ones.
    pub addresses: Vec<IpAddr>,
    /// One per worker.
    pub listeners: Vec<Listeners>,
}

/// What the kernel has been told of a pod, in the order in which it is told; taken back from the end.
pub(super) struct Enrolment {
    name: PodName,
    found: PodNetns,
    netns: Arc<Netns>,
    v6_port: Option<u16>,
    listeners: Vec<u32>,
    link: Option<SkLookupLink>,
    inbound: Vec<AddressKey>,
}

const INBOUND_CAPACITY: u32 = 65_536;
/// `bpf_map_update_elem`: only when the key is new.
const BPF_NOEXIST: u64 = 1;

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

        let v6_ports: BTreeSet<u16> = self.enrolled.values().filter_map(|it| it.v6_port).collect();
        let (interfaces, opened) = netns
            .enter(|| (interfaces(), listen::open(workers, &v6_ports)))
            .map_err(netns_error)?;
        let Interfaces {
            loopback_is_up,
            addresses,
        } = interfaces.map_err(netns_error)?;
        if !loopback_is_up {
            return Err(EnrolError::LoopbackDown { pod: name() });
        }
        if addresses.is_empty() && !pod.inbound.is_empty() {
            return Err(EnrolError::NoAddress { pod: name() });
        }
        let opened = opened.map_err(|source| EnrolError::Listen { pod: name(), source })?;

        let mut enrolment = Enrolment {
            name: name(),
            found: pod.netns.clone(),
            netns: Arc::new(netns),
            v6_port: opened.v6_port,
            listeners: Vec::new(),
            link: None,
            inbound: Vec::new(),
        };
        if let Err(error) = self.publish(slot, pod, &addresses, &opened, &mut enrolment) {
            self.retract(enrolment);
            return Err(error);
        }
        let netns = Arc::clone(&enrolment.netns);
        self.enrolled.insert(slot, enrolment);
        Ok(Enrolled {
            netns,
            addresses,
            listeners: opened.workers,
        })
    }

    /// The pod's new connections go direct, and calls to it arrive unsteered. Connections that the agent has
    /// accepted go on. Withdrawing an empty slot does nothing.
    pub fn withdraw(&mut self, slot: Slot) {
        if let Some(enrolment) = self.enrolled.remove(&slot) {
            self.retract(enrolment);
        }
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

    /// Tells the kernel. `enrolment` records each step as soon as it is done.
    fn publish(
        &mut self,
        slot: Slot,
        pod: &Pod,
        addresses: &[IpAddr],
        opened: &Opened,
        enrolment: &mut Enrolment,
    ) -> Result<(), EnrolError> {
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
            ];
            for (kind, listener) in placed {
                let Some(listener) = listener else { continue };
                self.place(kind.index(slot_number), listener).map_err(kernel)?;
                enrolment.listeners.push(kind.index(slot_number));
            }
        }
        enrolment.link = Some(self.attach_steer(&enrolment.netns).map_err(kernel)?);

        let has_ipv6 = opened.v6_port.is_some();
        for ip in addresses.iter().filter(|ip| ip.is_ipv4() || has_ipv6) {
            for inbound in &pod.inbound {
                let address = SocketAddr::new(*ip, inbound.port);
                let key = address_key(address);
                let inserted = self.tables.inbound.insert(key, slot_number, BPF_NOEXIST);
                inserted.map_err(|source| match source {
                    source if is_taken(&source) => EnrolError::AddressTaken {
                        pod: pod.name.clone(),
                        address,
                    },
                    source => kernel(full_or(
                        source,
                        "DERNY_INBOUND",
                        INBOUND_CAPACITY,
                        address.to_string(),
                    )),
                })?;
                enrolment.inbound.push(key);
            }
        }

        let cookie = enrolment.netns.cookie();
        let entry = PodEntry {
            netns_cookie: cookie,
            slot: slot_number,
            v6_port_be: opened.v6_port.unwrap_or(0).to_be(),
            zero: 0,
            label: to_label(&pod.name.to_string()),
        };
        let inserted = self.tables.pods.insert(cookie, entry, 0);
        inserted
            .map_err(InterceptError::map("DERNY_PODS"))
            .map_err(kernel)
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
        for key in &inbound {
            let _ = self.tables.inbound.remove(key);
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

    fn attach_steer(&mut self, netns: &Netns) -> Result<SkLookupLink, InterceptError> {
        let steer = self.steer()?;
        let attached: Result<SkLookupLink, ProgramError> =
            steer.attach(netns).and_then(|link| steer.take_link(link));
        attached.map_err(InterceptError::program("derny_steer"))
    }
}

fn is_taken(error: &MapError) -> bool {
    matches!(error, MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::EEXIST))
}
