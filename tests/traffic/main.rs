//! What passes through the engine, by real clients and servers in namespaces of their own, with the real programs in
//! the kernel. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

/// HTTP/1.1: connections, framing, headers, upgrades.
mod http1;
/// HTTP/2 with prior knowledge: streams, their limits, and connections that end.
mod http2;
/// gRPC: real clients of three languages, statuses, errors of the engine's own, cancellation.
mod grpc;
/// Large bodies, and readers that do not keep up.
mod bodies;
/// Bodies that break off: nobody takes a part for the whole.
mod broken_off;
/// Bytes that are not HTTP.
mod opaque;
/// Who is at the other end, as applications see it.
mod seen;
/// Who gets the next request, and what becomes of requests when an endpoint goes.
mod balancing;
/// Relayed connections of every kind, for tests of them.
mod relayed;
/// How relayed connections end.
mod endings;
