//! The world → updates of the model. A source that fails keeps its last good answer.

mod diff;
mod lookup;
mod dns;
mod merge;
mod file;
mod node;
pub mod kube;
pub(crate) mod fuzz;

pub use diff::diff;
pub use dns::{DnsBoard, NameState, Names};
pub use file::{FileSource, LastError, SourceState};
pub use lookup::{DnsFailure, Servers};
