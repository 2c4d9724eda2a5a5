//! What is left of an exchange: counters and one access line. The only room that names metrics.

mod names;
mod cells;
mod labels;
mod outcomes;
mod scope;
mod hub;
mod line;
mod recorder;
mod exchange;
mod json;
mod wall_clock;
mod access_log;
mod log_queue;
mod log_writer;
mod series;
mod sample;
mod encode;
mod engine;
mod guarded;
mod shares;
mod kernel;
mod kube;

pub use access_log::Relayed;
pub use encode::encode;
pub use exchange::Exchange;
pub use guarded::{BoundSample, GuardSample};
pub use hub::{Counters, Hub, PodConnection, PodCounters, SeriesBounds};
pub use kube::KubeSample;
pub use labels::{Direction, Flag, ScopeKey, Source, Spoken, TimeLimit, grpc_status_of};
pub use line::{Line, PodLines};
pub use log_writer::{LogBounds, LogSample, Sink, Writer};
pub use recorder::Recorder;
pub use sample::{Histogram, NodeSample, OwnLog, Rejected};
pub use scope::{OpenConnection, Scope};

/// One text as a member of an object of the access log, cut to `most` bytes.
pub(crate) fn json_object(name: &str, text: &[u8], most: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = json::Object::begin(&mut out, most);
    object.text(name, text);
    object.end();
    out
}
