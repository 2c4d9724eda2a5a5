//! The pods of this node: what the API says of them, joined with the processes that run here.
//!
//! ```text
//! API server ── pods of this node, labelled namespaces ──▶ facts ──▶ decide ──┐
//!                                                                             ├─▶ join ──▶ publisher
//! kernel ────── control groups, processes, namespaces ──▶ node::Sandboxes ────┘     └────▶ board, for `derny pods`
//! ```
//! Either may be first. A pod's UID, which is in the name of its control group, is what they have in common.

mod objects;
mod inbound;
mod workload;
mod interceptor;
mod facts;
mod claimants;
mod decide;
mod join;
mod saved;
mod board;
mod source;
mod fuzz;

pub use board::PodBoard;
pub(crate) use fuzz::{inbound as fuzz_inbound, object as fuzz_object};
pub use source::PodSource;
