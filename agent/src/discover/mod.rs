//! The world → updates of the model. A source that fails keeps its last good answer.

mod diff;
mod file;

pub use diff::diff;
pub use file::{FileSource, LastError, SourceState};
