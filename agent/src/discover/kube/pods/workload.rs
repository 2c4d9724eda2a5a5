//! What a pod is a replica of. Pure.

use super::objects::Pod;

/// A Deployment's ReplicaSets are named after it and this label.
pub(super) const TEMPLATE_HASH: &str = "pod-template-hash";
/// A CronJob's Jobs are named after it and the minute, since the epoch, for which they were made.
const MINUTE_DIGITS: std::ops::RangeInclusive<usize> = 8..=10;

/// The name of the pod's controller, or of that one's where its name tells; else the pod's own.
pub(super) fn workload(pod: &Pod) -> &str {
    let meta = &pod.metadata;
    let Some(owner) = meta.owner_references.iter().find(|owner| owner.controller) else {
        return &meta.name;
    };
    let above = match owner.kind.as_str() {
        "ReplicaSet" => meta
            .labels
            .get(TEMPLATE_HASH)
            .and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')),
        "Job" => owner.name.rsplit_once('-').and_then(|(job, minute)| {
            let is_minute =
                MINUTE_DIGITS.contains(&minute.len()) && minute.bytes().all(|b| b.is_ascii_digit());
            is_minute.then_some(job)
        }),
        // A static pod is its node's.
        "Node" => Some(
            meta.name
                .strip_suffix(&format!("-{}", owner.name))
                .unwrap_or(&meta.name),
        ),
        _ => None,
    };
    above.filter(|name| !name.is_empty()).unwrap_or(&owner.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::kube::pods::objects::{Meta, Owner};

    #[test]
    fn a_workload_is_what_an_operator_deployed() {
        let check = |pod: &str, hash: &str, owner: Option<(&str, &str)>, expect: &str| {
            let mut object = Pod {
                metadata: Meta {
                    name: pod.to_owned(),
                    ..Meta::default()
                },
                ..Pod::default()
            };
            if !hash.is_empty() {
                object
                    .metadata
                    .labels
                    .insert(TEMPLATE_HASH.to_owned(), hash.to_owned());
            }
            object.metadata.owner_references = owner
                .into_iter()
                .map(|(kind, name)| Owner {
                    kind: kind.to_owned(),
                    name: name.to_owned(),
                    controller: true,
                })
                .collect();
            assert_eq!(workload(&object), expect, "{pod} {owner:?}");
        };
        check("web-5d4-xyz", "5d4", Some(("ReplicaSet", "web-5d4")), "web");
        check("web-5d4-xyz", "5d4", Some(("ReplicaSet", "own-name")), "own-name");
        check("web-5d4-xyz", "", Some(("ReplicaSet", "web-5d4")), "web-5d4");
        check("x", "5d4", Some(("ReplicaSet", "-5d4")), "-5d4");
        check("db-0", "", Some(("StatefulSet", "db")), "db");
        check("log-x7", "", Some(("DaemonSet", "log")), "log");
        check(
            "settle-28475610-abc",
            "",
            Some(("Job", "settle-28475610")),
            "settle",
        );
        check("migrate-2-abc", "", Some(("Job", "migrate-2")), "migrate-2");
        check("once-abc", "", Some(("Job", "once")), "once");
        check("kube-proxy-node-1", "", Some(("Node", "node-1")), "kube-proxy");
        check("alone", "", None, "alone");
    }

    #[test]
    fn an_owner_that_is_no_controller_is_none() {
        let pod: Pod = serde_json::from_str(
            r#"{"metadata": {"name": "a", "uid": "u", "ownerReferences": [{"kind": "Team", "name": "t"}]}}"#,
        )
        .unwrap();
        assert_eq!(workload(&pod), "a");
    }
}
