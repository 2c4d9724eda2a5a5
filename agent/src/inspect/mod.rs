//! What the agent shows of itself: statuses, lists, explanations, metrics of the node. It asks the rooms that decide, and
//! decides nothing.

mod millis;
mod displaced;
mod liveness;
mod order;
mod cluster;
mod guarded;
mod pods;
mod shares;
mod endpoints;
mod policy_words;
mod forwarded;
mod explain;
mod windows;

pub use displaced::AllDisplaced;
pub use liveness::standstill;
pub use order::Watcher;
pub use windows::Windows;
