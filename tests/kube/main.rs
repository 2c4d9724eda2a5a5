//! The agent beside a real Kubernetes API server. Needs root, and one of the servers that `harness/kube/server.rs`
//! looks for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

/// A node, an API server, a client, servers and an agent.
mod world;
/// Services, endpoints, routes and policies from the API.
mod discovery;
/// Routes: whose callers they count for, and which of their parts.
mod routes;
/// The API server answers badly, or not at all.
mod faults;
/// The API server is away for a minute while pods come and go.
mod outage;
/// All pods of a service are replaced.
mod rolling;
/// Pods and endpoints leave under standing connections.
mod leaving;
/// Services and pods that somebody else serves, and addresses of two families.
mod other_dataplanes;
/// What the leader writes into objects.
mod status;
/// A node on which pods are started as a kubelet and a runtime do.
mod kubelet;
/// This node's pods, from the API and the kernel.
mod pods;
/// Pods of strict namespaces.
mod strict;
/// How much a large cluster costs, and how fast a change is seen.
mod scale;
