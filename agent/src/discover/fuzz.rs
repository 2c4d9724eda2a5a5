//! This room's parsers for `crate::fuzz`.

use super::node::Directory;

pub(crate) use super::kube::{fuzz_inbound as inbound, fuzz_objects as objects};

pub(crate) fn cgroup_name(name: &str) {
    if let Directory::Pod(uid) = Directory::of(name) {
        let uid = uid.to_string();
        assert!(uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'), "{uid}");
    }
}
