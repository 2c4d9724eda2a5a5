//! The agent beside real pods: containerd and runc make their sandboxes, an API server knows them. Needs root, the
//! programs that `cargo xtask setup` installs, and an API server as `harness/kube/server.rs` looks for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

/// A node with an API server, a container runtime and an agent, and all that a cluster does with pods.
mod kubelet;
/// A pod of that node.
mod pod;
/// Calls between pods are balanced, retried and logged.
mod mesh;
/// Pods come, are relabelled, restarted and deleted under traffic.
mod life;
/// A Deployment gets a new version under traffic.
mod rollout;
/// The agent goes away and comes back.
mod restart;
/// A pod is enrolled before its application dials.
mod gap;
