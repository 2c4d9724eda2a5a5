//! What `deploy/` gives to a cluster, and the agent with what it is given there. Needs root, and a Kubernetes API
//! server as `harness/kube/server.rs` looks for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

/// The objects of the manifests, rendered as users render them.
mod rendered;
/// Objects against the API's own types, and against an API server.
mod valid;
/// What Envoy's bootstraps become.
mod imported;
/// Kustomize and Helm say the same.
mod same;
/// What the agent asks, and what it may.
mod rights;
/// Dashboards and alerts name metrics that there are.
mod metrics;
/// The agent with a container's namespaces and capabilities.
mod container;
/// The image in a container runtime.
mod image;
