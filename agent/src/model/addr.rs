//! The numbers by which kernel and engine name pods and destinations.

use std::fmt;

/// How many pods one node can hold: the slot has ten bits in a redirected address.
pub const MAX_SLOTS: u16 = 1024;

/// A pod's place on this node, `0..MAX_SLOTS`. Given out again only after the pod has been withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u16);

impl Slot {
    /// `None` when `value` is not below [`MAX_SLOTS`].
    pub fn new(value: u16) -> Option<Self> {
        (value < MAX_SLOTS).then_some(Self(value))
    }

    pub fn get(self) -> u16 {
        self.0
    }

    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A destination that the mesh serves, `0..2^27`: what a redirected address carries beside the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationId(u32);

impl DestinationId {
    /// One more than the largest id.
    pub const LIMIT: u32 = 1 << 27;

    /// `None` when `value` does not fit 27 bits.
    pub fn new(value: u32) -> Option<Self> {
        (value < Self::LIMIT).then_some(Self(value))
    }

    pub fn get(self) -> u32 {
        self.0
    }
}

/// Who answers connections to a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnsweredBy {
    #[default]
    Agent,
    /// It is known that there is nobody: they are refused.
    Nobody,
    /// Whoever answers without the mesh: they are left alone.
    Node,
}

impl fmt::Display for DestinationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
