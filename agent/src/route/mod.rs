//! A request and a service's routes → the rule, its backend, and what is changed on the way.
//!
//! ```text
//! routes ─▶ Table (once)       request ─▶ choose ─▶ CompiledRule ─▶ backend (by weight)
//!                                                        └▶ filters: request, mirrors, response
//! ```
//! The semantics are those of the Gateway API's HTTPRoute and GRPCRoute on a Service. Pure: no IO, no clock, and the
//! random numbers are the caller's.

mod request;
mod precedence;
mod index;
mod table;
mod tables;
mod path;
mod filter;
mod cors;
mod redirect;
mod explain;
#[cfg(test)]
mod tests;

pub use explain::{Explained, Verdict, explain};
pub use filter::{Error, Outcome, apply_request, apply_response, mirrors, show_to_origin};
pub use table::{Chosen, CompiledRule, Table};
pub use tables::{Tables, are_same};
