//! Is this pod to be enrolled? Pure.

use super::facts::{Facts, LABEL, Mesh};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Enrol,
    /// The reason is a sentence for an operator.
    LeaveAlone(String),
}

/// `namespace` is the namespace's own word; the pod's wins.
pub(super) fn decide(namespace: Option<Mesh>, pod: &Facts) -> Decision {
    let because = |reason: &str| Decision::LeaveAlone(reason.to_owned());
    match pod.mesh.or(namespace) {
        None => {
            return Decision::LeaveAlone(format!("no label {LABEL}: enabled on the pod or its namespace"));
        }
        Some(Mesh::Disabled) if pod.mesh.is_some() => {
            return Decision::LeaveAlone(format!("label {LABEL}: disabled"));
        }
        Some(Mesh::Disabled) => {
            return Decision::LeaveAlone(format!("label {LABEL}: disabled on its namespace"));
        }
        Some(Mesh::Enabled) => {}
    }
    if pod.finished {
        return because("it has finished");
    }
    if pod.host_network {
        return because("hostNetwork: it uses the node's network");
    }
    if let Some(class) = &pod.sandboxed {
        return Decision::LeaveAlone(format!(
            "runtimeClassName {class}: its sockets are not the node's kernel's"
        ));
    }
    if let Some(other) = &pod.interceptor {
        return Decision::LeaveAlone(format!(
            "{other} redirects its connections: without that it is taken into the mesh when it is made anew"
        ));
    }
    Decision::Enrol
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_enrolled_when_it_asks_for_it_and_can_be() {
        let check =
            |namespace: Option<Mesh>, label: &str, spec: serde_json::Value, phase: &str, expect: &str| {
                let mut metadata = json!({"name": "a", "namespace": "demo", "uid": "u"});
                if !label.is_empty() {
                    metadata["labels"] = json!({LABEL: label});
                }
                let pod = serde_json::from_value(
                    json!({"metadata": metadata, "spec": spec, "status": {"phase": phase}}),
                );
                let said = match decide(namespace, &Facts::of(&pod.unwrap())) {
                    Decision::Enrol => "enrol".to_owned(),
                    Decision::LeaveAlone(reason) => reason,
                };
                assert_eq!(said, expect, "{namespace:?} {label} {phase}");
            };
        let plain = || json!({"containers": []});
        let (on, off) = (Some(Mesh::Enabled), Some(Mesh::Disabled));
        let unlabelled = "no label derny.dev/mesh: enabled on the pod or its namespace";
        check(None, "", plain(), "Running", unlabelled);
        check(on, "", plain(), "Running", "enrol");
        check(on, "", plain(), "Pending", "enrol");
        check(None, "enabled", plain(), "Running", "enrol");
        check(off, "enabled", plain(), "Running", "enrol");
        check(
            on,
            "disabled",
            plain(),
            "Running",
            "label derny.dev/mesh: disabled",
        );
        check(
            off,
            "",
            plain(),
            "Running",
            "label derny.dev/mesh: disabled on its namespace",
        );
        // A word that is none counts as no label.
        check(on, "yes", plain(), "Running", "enrol");
        check(None, "yes", plain(), "Running", unlabelled);
        check(on, "", plain(), "Succeeded", "it has finished");
        check(on, "", plain(), "Failed", "it has finished");
        let host = || json!({"hostNetwork": true});
        check(
            on,
            "",
            host(),
            "Running",
            "hostNetwork: it uses the node's network",
        );
        check(None, "", host(), "Running", unlabelled);
        for class in ["gvisor", "runsc", "kata-qemu"] {
            let reason = format!("runtimeClassName {class}: its sockets are not the node's kernel's");
            check(on, "", json!({"runtimeClassName": class}), "Running", &reason);
        }
        check(on, "", json!({"runtimeClassName": "nvidia"}), "Running", "enrol");
        check(
            on,
            "",
            json!({"containers": [{"name": "istio-proxy"}]}),
            "Running",
            "Istio (container istio-proxy) redirects its connections: without that it is taken into the mesh when it is made anew",
        );
    }

    #[test]
    fn what_is_wrong_with_labels_and_annotations_is_said() {
        let pod = json!({
            "metadata": {
                "name": "a", "namespace": "demo", "uid": "u",
                "labels": {LABEL: "on"},
                "annotations": {
                    "derny.dev/services": "db, other/db ,Bad!",
                    "derny.dev/inbound": "x",
                    "kubernetes.io/config.hash": "0123456789abcdef",
                },
            },
        });
        let facts = Facts::of(&serde_json::from_value(pod).unwrap());
        let services: Vec<String> = facts.services.iter().map(ToString::to_string).collect();
        assert_eq!(services, ["demo/db", "other/db"]);
        assert_eq!(facts.uid.to_string(), "u");
        assert_eq!(
            facts.faults,
            [
                "derny.dev/inbound: `x` is not PORT=PROTOCOL, such as 8080=grpc or 9090=off",
                "label derny.dev/mesh: `on` is neither enabled nor disabled",
                "derny.dev/services: `Bad!` is not NAME or NAMESPACE/NAME",
                "kubernetes.io/config.hash: counts on the mirror of a static pod only, and is ignored",
            ]
        );
    }

    #[test]
    fn only_the_mirror_of_a_static_pod_has_another_uid_than_its_own() {
        let hash = "0123456789abcdef0123456789abcdef";
        let uid = "8f3c1f0a-5d2e-4b6f-9c0d-1a2b3c4d5e6f";
        let check = |(of, mirror): (&str, &str), owner: &str, expect: (&str, usize)| {
            let annotations = json!({"kubernetes.io/config.hash": of, "kubernetes.io/config.mirror": mirror});
            let owners = json!([{"kind": owner, "name": "n1", "controller": true}]);
            let metadata = json!({"name": "a", "namespace": "demo", "uid": "u", "annotations": annotations,
                "ownerReferences": owners});
            let facts = Facts::of(&serde_json::from_value(json!({"metadata": metadata})).unwrap());
            assert_eq!(
                (&*facts.uid.to_string(), facts.faults.len()),
                expect,
                "{of} {mirror} {owner}"
            );
        };
        check((hash, hash), "Node", (hash, 0));
        check((hash, hash), "ReplicaSet", ("u", 1));
        check((hash, ""), "Node", ("u", 1));
        check((hash, "other"), "Node", ("u", 1));
        // A victim's.
        check((uid, uid), "Node", ("u", 1));
    }
}
