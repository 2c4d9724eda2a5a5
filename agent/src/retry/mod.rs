//! What an attempt came to → again, or not, and when. Pure, but for the body that is kept so that it can be sent
//! again.

mod classify;
mod backoff;
mod replay_body;

pub use backoff::{Pushback, delay, pushback};
pub use classify::{Failure, Sent, failure_may_be_retried, response_may_be_retried};
pub use replay_body::{AttemptBody, AttemptError, Progress, RequestBody};
