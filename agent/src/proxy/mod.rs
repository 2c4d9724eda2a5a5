//! The story of a connection and of a request: calls the rooms of the way in order.
//!
//! ```text
//! accept ─▶ connection ─┬─▶ serve_http1 ─┐
//!                       ├─▶ serve_http2 ─┴─▶ exchange ─▶ forward ─▶ (pool) ─▶ endpoint
//!                       └─▶ tunnel ─────────────────────────────────────────▶ endpoint
//! ```

mod worker;
mod context;
mod local_pod;
mod trim;
mod guards;
mod hash_tables;
mod own_addresses;
mod local_ports;
mod view;
mod farewell;
mod inlet;
mod accepting;
mod awaited;
mod connection;
mod answering;
mod serve_http1;
mod serve_http2;
mod exchange;
mod plan;
mod deadline;
mod waiting;
mod attempts;
mod outcome;
mod judged;
mod forward;
mod mirror;
mod pump;
mod response_body;
mod relay;
mod tunnel;
#[cfg(test)]
mod cut_tests;
#[cfg(test)]
mod relay_tests;
#[cfg(test)]
mod simulation;

pub(crate) use deadline::grpc_timeout;
pub use guards::{Guarded, Registry};
pub use hash_tables::HashTables;
pub use local_pod::EnrolledPod;
pub use worker::{Command, Progress, Setup, run};
