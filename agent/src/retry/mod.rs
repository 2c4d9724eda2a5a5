//! What an attempt came to → again, or not. Pure, but for the body that is kept so that it can be sent again.

mod classify;
mod replay_body;

pub use classify::{Failure, may_retry};
pub use replay_body::{AttemptBody, AttemptError, RequestBody};
