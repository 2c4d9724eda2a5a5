//! A Kubernetes API server as a source.
//!
//! ```text
//!            list, watch         events            updates
//! API server ───────────▶ watch ────────▶ world ────────────▶ publisher
//!                           ▲               │
//!                           └── source ◀────┴── demand ◀── workers
//! ```
//! `pods` does the same for the pods of this node.
//!
//! Services, routes and policies are watched from the start; the endpoints of a service only while a pod of
//! this node uses it. Nothing keeps a whole object: what is read of one is what its type in `objects` names, and that
//! becomes a smaller form at once.

mod twice;
mod objects;
mod refusals;
mod client;
mod board;
mod watch;
mod seen;
mod services;
mod slices;
mod attached;
mod shares;
mod reading;
mod world;
mod demand;
mod saved_file;
mod state;
mod status;
mod lease;
mod leader;
mod notices;
mod clearing;
mod source;
mod pods;
mod rights;
mod fuzz;

pub use board::{InForce, KubeBoard, ObjectFault, RequestCount};
pub use clearing::{NotCleared, clear_statuses};
pub use client::{Cluster, Error};
pub use demand::{KubeDemand, Use};
pub(crate) use fuzz::objects as fuzz_objects;
pub use notices::{About, Notice, tell};
pub(crate) use pods::fuzz_inbound;
pub use pods::{PodBoard, PodSource};
pub use rights::{RIGHTS, Right};
pub use source::{Inputs, KubeSource, Options};
