//! Objects of the API server, and names that kubelets give.

use crate::discover;

pub(super) fn objects(bytes: &[u8]) {
    discover::fuzz::objects(bytes);
}

/// A pod's annotation.
pub(super) fn inbound(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        discover::fuzz::inbound(text);
    }
}

pub(super) fn cgroup_names(bytes: &[u8]) {
    if let Ok(name) = std::str::from_utf8(bytes) {
        discover::fuzz::cgroup_name(name);
    }
}
