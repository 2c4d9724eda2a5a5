//! What a worker writes down.

use std::rc::Rc;

use super::{
    access_log::{AccessLog, Relayed},
    hub::{Counters, Hub},
    line::Line,
    log_writer::Writer,
    scope::Scope,
};
use crate::model::PodName;

/// A worker's pen: its counters and its part of the access log.
#[derive(Debug)]
pub struct Recorder {
    pub counters: Counters,
    pub(super) log: AccessLog,
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

    /// A line between `caller` and the service of `scope`; what is logged of it counts against the share of `pod`.
    pub fn line(&self, caller: String, scope: Rc<Scope>, pod: &PodName) -> Rc<Line> {
        Rc::new(Line {
            known: self.log.known(&caller, scope.key()),
            lines: self.log.pod(pod),
            caller,
            scope,
        })
    }

    /// Wall time now, in milliseconds since the epoch.
    pub fn unix_millis(&self) -> u64 {
        self.log.unix_millis()
    }

    /// Hands the lines so far to the writer; called at the worker's tick.
    pub fn tick(&self) {
        self.log.hand_on();
        self.counters.publish();
    }
}
