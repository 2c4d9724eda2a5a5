//! The programs, loaded and attached.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, SockMap},
    programs::{Program, ProgramError},
};
use derny_ebpf_common::{
    AddressKey, Beat, Counters, Destination, Pod, PodAddressKey, PodConnectionKey, SLOTS,
};

use super::{
    Callers, Heartbeat, InterceptError, Observer, Origins, ProgramOrder,
    attach::{self, Attached, AttachedOwn},
    cgroup,
    enrol::Enrolment,
    hold::Holding,
    log::KernelLog,
    steer::{self, Steering},
};
use crate::model::Slot;

/// Where and how the programs are attached.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cgroup v2 directory whose processes can be redirected; see [`super::find_pods_cgroup`].
    pub cgroup: PathBuf,
    /// The agent's own cgroup v2 directory. `None`: what `/proc/self/cgroup` says.
    pub own_cgroup: Option<PathBuf>,
    /// How old the last heartbeat may be before connections are left alone.
    pub stale_after: Duration,
    /// Capacity of the table of destinations.
    pub max_destinations: u32,
    /// How many pairs of address and port are steered for one pod.
    pub max_inbound: u32,
    /// What the programs write to the agent's log: 0 nothing, 1 errors … 4 every redirected connection.
    pub log_level: u32,
}

/// The loaded programs and their maps. Dropping it detaches everything.
pub struct Kernel {
    pub(super) programs: Ebpf,
    /// `None` when the pods' control group is not there.
    pub(super) attached: Option<Attached>,
    _own: AttachedOwn,
    pub(super) steering: Steering,
    pub(super) callers: Callers,
    pub(super) tables: Tables,
    pub(super) enrolled: BTreeMap<Slot, Enrolment>,
    /// Of the last enrolment.
    pub(super) generation: u64,
    pub(super) options: Options,
    /// Ends with the kernel's programs.
    _log: Option<KernelLog>,
}

/// The agent's ends of the maps.
pub(super) struct Tables {
    pub(super) pods: HashMap<MapData, u64, Pod>,
    pub(super) destinations: HashMap<MapData, AddressKey, Destination>,
    pub(super) inbound: HashMap<MapData, PodAddressKey, u32>,
    pub(super) node_addresses: HashMap<MapData, AddressKey, u32>,
    pub(super) listeners: SockMap<MapData>,
    pub(super) counters: PerCpuArray<MapData, Counters>,
    pub(super) aside: Array<MapData, u32>,
    pub(super) holding: Holding,
    beat_id: u32,
    tuples_id: u32,
    observed: ObservedIds,
}

/// Kernel ids of the maps that an [`Observer`] reads.
#[derive(Clone, Copy, Default)]
pub(super) struct ObservedIds {
    pub(super) pods: Option<u32>,
    pub(super) destinations: Option<u32>,
    pub(super) counters: Option<u32>,
    pub(super) beat: Option<u32>,
    pub(super) held: Option<u32>,
}

/// Compiled from `ebpf/` by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/derny-ebpf.o"));

impl Kernel {
    /// Loads the programs, and attaches those of the cgroups. Nothing is redirected before a pod is enrolled.
    ///
    /// # Errors
    /// No right to load (`CAP_BPF`, `CAP_NET_ADMIN`), a kernel that is too old, or a cgroup that is not there.
    /// What had been attached is detached again.
    pub fn load(options: &Options) -> Result<Self, InterceptError> {
        let log_level = u8::try_from(options.log_level).unwrap_or(u8::MAX);
        let has_mptcp = u8::from(Path::new("/proc/sys/net/mptcp").exists());
        let mut programs = EbpfLoader::new()
            .override_global(aya_log::LEVEL, &log_level, true)
            .override_global("HAS_MPTCP", &has_mptcp, true)
            .map_max_entries("DERNY_DESTS", options.max_destinations)
            // The share of every slot, so that no pod can take another's.
            .map_max_entries("DERNY_INBOUND", options.max_inbound.saturating_mul(SLOTS.into()))
            .load(OBJECT)
            .map_err(|source| InterceptError::Object { source })?;
        let steering = Steering::prepare(OBJECT, &programs)?;
        let log = (log_level > 0)
            .then(|| KernelLog::start(&mut programs))
            .transpose()?;
        let tables = Tables::take(&mut programs)?;

        let own = cgroup::open(&match &options.own_cgroup {
            Some(path) => path.clone(),
            None => cgroup::find_own()?,
        })?;
        attach::load(&mut programs)?;
        let callers = callers(&programs)?;
        steer::load_steering(&mut programs)?;
        let at_own = attach::attach_own(&mut programs, &own)?;
        let attached = attach::attach(&mut programs, &options.cgroup)?;

        Ok(Self {
            programs,
            attached: Some(attached),
            _own: at_own,
            steering,
            callers,
            tables,
            enrolled: BTreeMap::new(),
            generation: 0,
            options: options.clone(),
            _log: log,
        })
    }

    /// The writing end of the sign of life.
    ///
    /// # Errors
    /// The map cannot be opened a second time.
    pub fn heartbeat(&self) -> Result<Heartbeat, InterceptError> {
        let map = Map::Array(open_again("DERNY_BEAT", self.tables.beat_id)?);
        let map: Array<MapData, Beat> = map.try_into().map_err(InterceptError::map("DERNY_BEAT"))?;
        Ok(Heartbeat::new(map, self.options.stale_after))
    }

    /// A view of the maps for the windows.
    ///
    /// # Errors
    /// A map cannot be opened a second time.
    pub fn observer(&self) -> Result<Observer, InterceptError> {
        Observer::open(self.tables.observed)
    }

    /// What tells which programs of others stand at the same hooks.
    ///
    /// # Errors
    /// The kernel does not tell the programs' numbers.
    pub fn program_order(&self) -> Result<ProgramOrder, InterceptError> {
        let id = |(name, program): (&str, &Program)| match program.info() {
            Ok(info) => Ok(info.id()),
            Err(source) => Err(InterceptError::Asked {
                name: name.to_owned(),
                source,
            }),
        };
        let ours: BTreeSet<u32> = self.programs.programs().map(id).collect::<Result<_, _>>()?;
        Ok(ProgramOrder::new(self.options.cgroup.clone(), ours))
    }

    /// What tells a worker which destination an accepted connection was for.
    ///
    /// # Errors
    /// The map cannot be opened a second time.
    pub fn origins(&self) -> Result<Origins, InterceptError> {
        let map = Map::LruHashMap(open_again("DERNY_TUPLES", self.tables.tuples_id)?);
        let map: HashMap<MapData, PodConnectionKey, u32> =
            map.try_into().map_err(InterceptError::map("DERNY_TUPLES"))?;
        Ok(Origins::new(map))
    }

    pub(super) fn max_destinations(&self) -> u32 {
        self.options.max_destinations
    }

    pub(super) fn inbound_share(&self) -> u32 {
        self.options.max_inbound
    }
}

impl Tables {
    fn take(programs: &mut Ebpf) -> Result<Self, InterceptError> {
        let beat_id = id(programs, "DERNY_BEAT")?;
        let observed = ObservedIds {
            pods: Some(id(programs, "DERNY_PODS")?),
            destinations: Some(id(programs, "DERNY_DESTS")?),
            counters: Some(id(programs, "DERNY_COUNTERS")?),
            beat: Some(beat_id),
            held: Some(id(programs, "DERNY_HELD")?),
        };
        Ok(Self {
            beat_id,
            tuples_id: id(programs, "DERNY_TUPLES")?,
            observed,
            pods: take(programs, "DERNY_PODS")?,
            destinations: take(programs, "DERNY_DESTS")?,
            inbound: take(programs, "DERNY_INBOUND")?,
            node_addresses: take(programs, "DERNY_NODE_ADDR")?,
            listeners: take(programs, "DERNY_LISTENERS")?,
            counters: take(programs, "DERNY_COUNTERS")?,
            aside: take(programs, "DERNY_ASIDE")?,
            holding: Holding {
                held: take(programs, "DERNY_HELD")?,
                count: take(programs, "DERNY_HELD_N")?,
                number: 0,
            },
        })
    }
}

pub(super) fn take<T: TryFrom<Map, Error = MapError>>(
    programs: &mut Ebpf,
    name: &'static str,
) -> Result<T, InterceptError> {
    let map = programs.take_map(name).ok_or(InterceptError::NoMap { name })?;
    map.try_into().map_err(InterceptError::map(name))
}

/// What tells the kernel for whom a socket dials an application.
fn callers(programs: &Ebpf) -> Result<Callers, InterceptError> {
    let name = "DERNY_SHOWN";
    let Some(Map::SkStorage(map)) = programs.map(name) else {
        return Err(InterceptError::NoMap { name });
    };
    let descriptor = map.fd().as_fd().try_clone_to_owned();
    let descriptor = descriptor.map_err(|source| InterceptError::Read {
        path: name.into(),
        source,
    })?;
    Ok(Callers::new(descriptor))
}

/// The kernel's number of a map.
fn id(programs: &Ebpf, name: &'static str) -> Result<u32, InterceptError> {
    let map = match programs.map(name) {
        Some(Map::Array(map) | Map::HashMap(map) | Map::LruHashMap(map) | Map::PerCpuArray(map)) => map,
        _ => return Err(InterceptError::NoMap { name }),
    };
    Ok(map.info().map_err(InterceptError::map(name))?.id())
}

pub(super) fn open_again(name: &'static str, id: u32) -> Result<MapData, InterceptError> {
    MapData::from_id(id).map_err(InterceptError::map(name))
}

pub(super) fn program<'a, T>(programs: &'a mut Ebpf, name: &'static str) -> Result<&'a mut T, InterceptError>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = programs
        .program_mut(name)
        .ok_or(InterceptError::NoProgram { name })?;
    program.try_into().map_err(InterceptError::program(name))
}
