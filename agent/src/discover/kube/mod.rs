//! A Kubernetes API server as a source.
//!
//! ```text
//!           list, watch                 compact forms
//! API server ─────────▶ watch (per kind) ─────────▶ … ─▶ Vec<Update>
//! ```
//! Nothing here keeps a whole object: what is read of one is what its type in `objects` names, and that becomes a
//! smaller form at once.

mod board;
mod client;
mod objects;
mod watch;

pub use board::{KubeBoard, RequestCount};
pub use client::{Cluster, Error};
