//! The kernel programs, by what real sockets in real namespaces see. Each test names the counter of the path that
//! it means to have taken. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

/// A node with the programs loaded, and an engine that says who it is.
mod mesh;
/// Connections that pods open.
mod outbound;
/// Connections that are left alone.
mod passed;
/// Connections that are refused.
mod held;
/// Connections to pods.
mod inbound;
/// Pods come and go.
mod enrolment;
/// Where the agent's listeners stand.
mod ports;
/// Programs of others at the same hooks.
mod order;
