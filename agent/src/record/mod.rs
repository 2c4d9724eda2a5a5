//! What is left of an exchange: counters and one access line. The only room that names metrics.

mod names;
mod cells;
mod labels;
mod outcomes;
mod scope;
mod hub;
mod exchange;
mod json;
mod wall_clock;
mod access_log;
mod log_queue;
mod log_writer;
mod encode;
mod engine;
mod guarded;
mod shares;
mod kernel;
mod kube;

use std::rc::Rc;

use crate::model::PodName;

pub use access_log::{PodLines, Relayed};
pub use encode::{Histogram, NodeSample, Rejected, encode};
pub use engine::OwnLog;
pub use exchange::{Exchange, Line};
pub use guarded::{BoundSample, GuardSample};
pub use hub::{Counters, Hub, PodConnection, PodCounters, SeriesBounds};
pub use kube::KubeSample;
pub use labels::{Direction, Flag, ScopeKey, Source, Spoken, TimeLimit, grpc_status_of};
pub use log_writer::{LogBounds, LogSample, Sink, Writer};
pub use scope::{OpenConnection, Scope};

/// One text as a member of an object of the access log, cut to `most` bytes.
pub(crate) fn json_object(name: &str, text: &[u8], most: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = json::Object::begin(&mut out, most);
    object.text(name, text);
    object.end();
    out
}

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
