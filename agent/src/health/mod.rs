//! Active health checks: one prober for the node, however many pods call an endpoint.
//!
//! ```text
//! snapshot ─▶ Prober ─▶ one task per (service port, endpoint) ─▶ probe ─▶ State::observe
//!                ▲                                                             │ a change
//!                └─────────────────── Update::Health ◀─────────────────────────┘
//! ```
//! A verdict takes the same way as every other change of the world: through the snapshot.

mod state;
mod failure;
mod probe;
mod http2;
mod http;
mod grpc;
mod board;
mod permits;
mod prober;

pub use board::{Board, Numbers, Seen};
pub use failure::{Failure, Kind};
pub use prober::{NodeSockets, Passed, Prober};
pub use state::{Change, Outcome, State, Thresholds, Verdict};
