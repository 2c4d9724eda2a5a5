//! What is left of an exchange: counters and one access line. The only room that names metrics.

mod names;
mod cells;
mod labels;
mod scope;
mod hub;
mod exchange;
mod json;
mod access_log;
mod encode;
mod guarded;
mod shares;
mod kube;

use std::rc::Rc;

pub use access_log::{Relayed, Sink, Writer};
pub use encode::{Histogram, NodeSample, Rejected, encode};
pub use exchange::{Exchange, Line};
pub use guarded::{BoundSample, GuardSample};
pub use hub::{Counters, Hub, PodConnection};
pub use kube::KubeSample;
pub use labels::{Direction, Flag, ScopeKey, Source, Spoken, TimeLimit};
pub use scope::{OpenConnection, Scope};

/// A worker's pen: its counters and its part of the access log.
#[derive(Debug)]
pub struct Recorder {
    pub counters: Counters,
    log: access_log::AccessLog,
}

impl Recorder {
    pub fn new(hub: &Hub, writer: &Writer) -> Rc<Self> {
        let counters = hub.worker();
        let log = writer.worker(counters.shard.clone());
        Rc::new(Self { counters, log })
    }

    /// Writes the line of a relayed connection.
    pub fn relayed(&self, connection: &Relayed<'_>) {
        self.log.connection(connection);
    }

    /// Wall time now, in milliseconds since the epoch.
    pub fn unix_millis(&self) -> u64 {
        self.log.unix_millis()
    }

    /// Hands the lines so far to the writer; called at the worker's tick.
    pub fn tick(&self) {
        self.log.hand_on();
    }
}
