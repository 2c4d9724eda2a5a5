//! One pod can never hurt, see, bill or be another: each attack of `docs/threat-model.md`, tried on a real node.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

/// A node on which pods are started as a kubelet and a runtime do.
#[path = "../kube/kubelet.rs"]
#[allow(dead_code, reason = "the target kube uses all of it")]
mod kubelet;

/// What a pod or an object says of itself does not make it another.
mod claims;
/// Objects of a tenant that cost more than its share.
mod budgets;
