//! Pods whose connections are refused until they are enrolled.

use aya::maps::{Array, HashMap, MapData};
use derny_ebpf_common::Held;

use super::{
    InterceptError, Kernel,
    tables::{full_or, is_missing, to_label},
};
use crate::model::{GroupId, PodName};

const HELD: &str = "DERNY_HELD";
const COUNT: &str = "DERNY_HELD_N";
/// As many as there are slots.
const CAPACITY: u32 = 1024;

/// The agent's ends of the maps.
pub(super) struct Holding {
    pub(super) held: HashMap<MapData, u64, Held>,
    pub(super) count: Array<MapData, u32>,
    /// As the kernel has been told; it has no number of its own.
    pub(super) number: u32,
}

impl Kernel {
    /// From now on TCP connections are refused (`ECONNREFUSED`) that a process in this control group, or in one below,
    /// opens in a network namespace that is not enrolled. Those to a loopback address are not, nor are the agent's own.
    /// Connections that exist go on. The agent's sign of life is not asked for: a held pod stays so until it is released,
    /// or the programs are gone.
    ///
    /// # Errors
    /// [`InterceptError::Full`] when 1024 groups are held; what this one dials goes direct.
    pub fn hold(&mut self, group: GroupId, pod: &PodName) -> Result<(), InterceptError> {
        let holding = &mut self.tables.holding;
        let known = holding.known(group)?;
        let value = Held {
            hits: known.map_or(0, |known| known.hits),
            label: to_label(&pod.to_string()),
        };
        let inserted = holding.held.insert(group.0, value, 0);
        inserted.map_err(|source| full_or(source, HELD, CAPACITY, pod.to_string()))?;
        match known {
            Some(_) => Ok(()),
            None => holding.set_number(holding.number + 1),
        }
    }

    /// Connections of this control group are nobody's business again.
    ///
    /// # Errors
    /// None for a group that is not held.
    pub fn release(&mut self, group: GroupId) -> Result<(), InterceptError> {
        let holding = &mut self.tables.holding;
        match holding.held.remove(&group.0) {
            Ok(()) => holding.set_number(holding.number.saturating_sub(1)),
            Err(source) if is_missing(&source) => Ok(()),
            Err(source) => Err(InterceptError::Map { name: HELD, source }),
        }
    }
}

impl Holding {
    fn known(&self, group: GroupId) -> Result<Option<Held>, InterceptError> {
        match self.held.get(&group.0, 0) {
            Ok(known) => Ok(Some(known)),
            Err(source) if is_missing(&source) => Ok(None),
            Err(source) => Err(InterceptError::Map { name: HELD, source }),
        }
    }

    fn set_number(&mut self, number: u32) -> Result<(), InterceptError> {
        self.number = number;
        self.count.set(0, number, 0).map_err(InterceptError::map(COUNT))
    }
}
