//! The kernel's tables as an operator sees them. Works on the maps of another process, also when it hangs.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    ops::{Index, IndexMut},
    time::Duration,
};

use aya::{
    Pod as Plain,
    maps::{Array, HashMap, Map, MapData, MapInfo, PerCpuArray},
    programs::{ProgramError, ProgramInfo, loaded_programs},
};
use derny_ebpf_common::{AddressKey, Beat, Counters, Destination, Held, NODE_COUNTERS, PATHS, Path, Pod};

use super::{
    InterceptError,
    heartbeat::monotonic,
    load::{ObservedIds, open_again},
    tables::{answered_by, from_key, from_label, is_missing},
};
use crate::model::{AnsweredBy, DestinationId, GroupId, Slot};

/// Reads one agent's maps.
pub struct Observer {
    pods: HashMap<MapData, u64, Pod>,
    destinations: HashMap<MapData, AddressKey, Destination>,
    counters: PerCpuArray<MapData, Counters>,
    beat: Array<MapData, Beat>,
    held: HashMap<MapData, u64, Held>,
}

/// An enrolled pod, as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedPod {
    pub slot: Slot,
    pub netns_cookie: u64,
    /// `namespace/name`, cut to 64 bytes.
    pub label: String,
}

/// A pod whose connections are refused until it is enrolled, as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedHeld {
    pub group: GroupId,
    /// How many connections have been refused since it is held.
    pub hits: u64,
    /// `namespace/name`, cut to 64 bytes.
    pub label: String,
}

/// A redirected address, as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedDestination {
    pub address: SocketAddr,
    pub id: DestinationId,
    /// How many connections have been redirected.
    pub hits: u64,
    pub answered_by: AnsweredBy,
    /// `namespace/service:port`, cut to 64 bytes.
    pub label: String,
}

/// How often what became of the connections of a pod, since it was enrolled; see `docs/kernel.md`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotCounters {
    /// `None`: of no pod.
    pub slot: Option<Slot>,
    by_path: [u64; PATHS],
}

impl SlotCounters {
    /// Of each path how many connections took it.
    pub fn iter(&self) -> impl Iterator<Item = (Path, u64)> + '_ {
        Path::ALL.iter().map(|path| (*path, self[*path]))
    }
}

impl Index<Path> for SlotCounters {
    type Output = u64;

    fn index(&self, path: Path) -> &u64 {
        &self.by_path[path as usize]
    }
}

impl IndexMut<Path> for SlotCounters {
    fn index_mut(&mut self, path: Path) -> &mut u64 {
        &mut self.by_path[path as usize]
    }
}

impl Observer {
    /// One observer for each agent whose programs are loaded on this machine.
    ///
    /// # Errors
    /// No right to list programs and open maps (`CAP_SYS_ADMIN`).
    pub fn find() -> Result<Vec<Self>, InterceptError> {
        let mut found = Vec::new();
        for program in loaded_programs() {
            let ids = match program.and_then(|program| maps_of_ours(&program)) {
                Ok(Some(ids)) => ids,
                Ok(None) => continue,
                // Programs and agents go while they are listed.
                Err(ProgramError::SyscallError(error)) if is_not_found(&error.io_error) => continue,
                Err(source) => return Err(InterceptError::Programs { source }),
            };
            match Self::open(observed_ids(&ids)) {
                Ok(observer) => found.push(observer),
                Err(InterceptError::NoMap { .. }) => {}
                Err(InterceptError::Map { source, .. }) if is_missing(&source) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    pub(super) fn open(ids: ObservedIds) -> Result<Self, InterceptError> {
        let open = |name, id: Option<u32>| open_again(name, id.ok_or(InterceptError::NoMap { name })?);
        let (pods, dests, counters, beat) = ("DERNY_PODS", "DERNY_DESTS", "DERNY_COUNTERS", "DERNY_BEAT");
        let held = "DERNY_HELD";
        Ok(Self {
            pods: Map::HashMap(open(pods, ids.pods)?)
                .try_into()
                .map_err(InterceptError::map(pods))?,
            destinations: Map::HashMap(open(dests, ids.destinations)?)
                .try_into()
                .map_err(InterceptError::map(dests))?,
            counters: Map::PerCpuArray(open(counters, ids.counters)?)
                .try_into()
                .map_err(InterceptError::map(counters))?,
            beat: Map::Array(open(beat, ids.beat)?)
                .try_into()
                .map_err(InterceptError::map(beat))?,
            held: Map::HashMap(open(held, ids.held)?)
                .try_into()
                .map_err(InterceptError::map(held))?,
        })
    }

    /// In ascending order of slot.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn pods(&self) -> Result<Vec<ObservedPod>, InterceptError> {
        let mut pods: Vec<ObservedPod> = entries("DERNY_PODS", &self.pods)?
            .into_iter()
            .filter_map(|(cookie, pod)| {
                let slot = Slot::new(u16::try_from(pod.slot).ok()?)?;
                Some(ObservedPod {
                    slot,
                    netns_cookie: cookie,
                    label: from_label(&pod.label),
                })
            })
            .collect();
        pods.sort_by_key(|pod| pod.slot);
        Ok(pods)
    }

    /// In ascending order of label.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn held(&self) -> Result<Vec<ObservedHeld>, InterceptError> {
        let held: BTreeMap<u64, Held> = entries("DERNY_HELD", &self.held)?.into_iter().collect();
        let mut held: Vec<ObservedHeld> = held
            .into_iter()
            .map(|(group, value)| ObservedHeld {
                group: GroupId(group),
                hits: value.hits,
                label: from_label(&value.label),
            })
            .collect();
        held.sort_by(|a, b| a.label.cmp(&b.label));
        Ok(held)
    }

    /// In ascending order of address.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn destinations(&self) -> Result<Vec<ObservedDestination>, InterceptError> {
        // The kernel starts over when the entry is deleted from which it should go on: each address once.
        let found: BTreeMap<SocketAddr, Destination> = entries("DERNY_DESTS", &self.destinations)?
            .into_iter()
            .map(|(key, value)| (from_key(&key), value))
            .collect();
        Ok(found
            .into_iter()
            .filter_map(|(address, value)| {
                let id = DestinationId::new(value.id)?;
                Some(ObservedDestination {
                    address,
                    id,
                    hits: value.hits,
                    answered_by: answered_by(value.answered_by),
                    label: from_label(&value.label),
                })
            })
            .collect())
    }

    /// Those of the enrolled pods in ascending order of slot, then those of no pod.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn counters(&self) -> Result<Vec<SlotCounters>, InterceptError> {
        let slots = self.pods()?.into_iter().map(|pod| Some(pod.slot));
        slots.chain([None]).map(|slot| self.counters_of(slot)).collect()
    }

    /// Since the last sign of life; `None` before the first.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn heartbeat_age(&self) -> Result<Option<Duration>, InterceptError> {
        let beat = self.beat.get(&0, 0).map_err(InterceptError::map("DERNY_BEAT"))?;
        let age = monotonic().saturating_sub(Duration::from_nanos(beat.at_ns));
        Ok((beat.at_ns != 0).then_some(age))
    }

    /// How old a heartbeat may be before connections are left alone; zero before the first.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn stale_after(&self) -> Result<Duration, InterceptError> {
        let beat = self.beat.get(&0, 0).map_err(InterceptError::map("DERNY_BEAT"))?;
        Ok(Duration::from_nanos(beat.stale_after_ns))
    }

    fn counters_of(&self, slot: Option<Slot>) -> Result<SlotCounters, InterceptError> {
        let index = slot.map_or(NODE_COUNTERS, |slot| u32::from(slot.get()));
        let cpus = self
            .counters
            .get(&index, 0)
            .map_err(InterceptError::map("DERNY_COUNTERS"))?;
        let sum = |path: usize| cpus.iter().map(|cpu| cpu.by_path[path]).sum();
        Ok(SlotCounters {
            slot,
            by_path: std::array::from_fn(sum),
        })
    }
}

/// What is there while others write: an entry that goes between its key and its value is left out.
fn entries<K: Plain, V: Plain>(
    name: &'static str,
    map: &HashMap<MapData, K, V>,
) -> Result<Vec<(K, V)>, InterceptError> {
    let mut found = Vec::new();
    for key in map.keys() {
        let key = key.map_err(InterceptError::map(name))?;
        match map.get(&key, 0) {
            Ok(value) => found.push((key, value)),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(InterceptError::Map { name, source: error }),
        }
    }
    Ok(found)
}

/// The ids of its maps, if it is the program that stands for an agent.
fn maps_of_ours(program: &ProgramInfo) -> Result<Option<Vec<u32>>, ProgramError> {
    if program.name_as_str() == Some("derny_connect4") {
        program.map_ids()
    } else {
        Ok(None)
    }
}

fn is_not_found(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}

fn observed_ids(map_ids: &[u32]) -> ObservedIds {
    let mut ids = ObservedIds::default();
    for id in map_ids {
        // A map that is gone meanwhile is missed by whoever needs it.
        let Ok(info) = MapInfo::from_id(*id) else { continue };
        match info.name_as_str() {
            Some("DERNY_PODS") => ids.pods = Some(*id),
            Some("DERNY_DESTS") => ids.destinations = Some(*id),
            Some("DERNY_COUNTERS") => ids.counters = Some(*id),
            Some("DERNY_BEAT") => ids.beat = Some(*id),
            Some("DERNY_HELD") => ids.held = Some(*id),
            _ => {}
        }
    }
    ids
}
