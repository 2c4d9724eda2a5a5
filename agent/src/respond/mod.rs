//! What the caller gets: a relayed answer with the hop's own headers taken off, or a local error that says why.

mod broken_off;
mod body;
mod http2_body;
mod headers;
mod local;

pub use body::Body;
pub use broken_off::{BodyError, BrokenOff, Cause};
pub use headers::{Via, expects_continue, has_option, name_host, prepare_request, prepare_response};
pub use local::LocalError;
