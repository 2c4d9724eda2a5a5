//! How many connections and waiting requests there may be. Who counts them is not this room's matter.

use std::{any::Any, fmt};

/// Asked only when no connection is at hand, so an answer may cost an allocation.
pub trait Bounds: fmt::Debug {
    /// The right to have one more connection; `None` when there are as many as allowed.
    fn connection(&self) -> Option<Held>;
    /// The right to have one more request wait for a connection.
    fn pending(&self) -> Option<Held>;
}

/// A right, given back when it is dropped.
pub struct Held(#[expect(dead_code, reason = "held for its drop")] Box<dyn Any>);

impl Held {
    pub fn new(permit: impl Any) -> Self {
        Self(Box::new(permit))
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

/// No bounds.
#[derive(Clone, Copy, Debug)]
pub struct Unbounded;

impl Bounds for Unbounded {
    fn connection(&self) -> Option<Held> {
        Some(Held::new(()))
    }

    fn pending(&self) -> Option<Held> {
        Some(Held::new(()))
    }
}
