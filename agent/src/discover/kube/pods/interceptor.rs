//! Whether another mesh redirects a pod's connections. Pure.
//!
//! Rules in the pod's own network namespace send what its programs dial to that mesh's proxy. The agent's sockets are made
//! in the same namespace, so that what it dials would come back to it, or go to the wrong port.

use super::objects::Pod;

/// By what pods are known that a mesh's injector has changed.
struct Mesh {
    name: &'static str,
    /// Put on the pod by the injector, and not by whoever asks for it or against it. With a value, that value.
    annotations: &'static [(&'static str, Option<&'static str>)],
    /// The proxy, whether it is a container beside the others or a sidecar among the init containers, and what makes the
    /// rules.
    containers: &'static [&'static str],
}

const MESHES: [Mesh; 4] = [
    Mesh {
        name: "Istio",
        annotations: &[
            ("sidecar.istio.io/status", None),
            ("ambient.istio.io/redirection", Some("enabled")),
        ],
        containers: &["istio-proxy", "istio-init", "istio-validation"],
    },
    Mesh {
        name: "Linkerd",
        annotations: &[("linkerd.io/proxy-version", None)],
        containers: &["linkerd-proxy", "linkerd-init", "linkerd-network-validator"],
    },
    Mesh {
        name: "Kuma",
        annotations: &[("kuma.io/sidecar-injected", Some("true"))],
        containers: &["kuma-sidecar", "kuma-init", "kuma-validation"],
    },
    Mesh {
        name: "Consul",
        annotations: &[("consul.hashicorp.com/connect-inject-status", Some("injected"))],
        containers: &["consul-dataplane", "consul-connect-inject-init"],
    },
];

/// Whether an annotation is read here.
pub(super) fn is_read(annotation: &str) -> bool {
    let mut all = MESHES.iter().flat_map(|mesh| mesh.annotations);
    all.any(|(name, _)| *name == annotation)
}

/// What says so, in words.
pub(super) fn interceptor(pod: &Pod) -> Option<String> {
    let annotations = &pod.metadata.annotations;
    let containers = || pod.spec.containers.iter().chain(&pod.spec.init_containers);
    MESHES.iter().find_map(|mesh| {
        let annotated = mesh.annotations.iter().find(|(name, value)| {
            let found = annotations.get(*name);
            found.is_some_and(|found| value.is_none_or(|value| value == found))
        });
        let contained = || containers().find(|container| mesh.containers.contains(&container.name.as_str()));
        let by = match annotated {
            Some((name, _)) => format!("annotation {name}"),
            None => format!("container {}", contained()?.name),
        };
        Some(format!("{} ({by})", mesh.name))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_of_other_meshes_are_known_by_what_their_injectors_leave() {
        let check = |annotations: serde_json::Value, containers: &[&str], init: &[&str], expect: &str| {
            let named =
                |names: &[&str]| -> Vec<_> { names.iter().map(|name| json!({"name": name})).collect() };
            let pod = serde_json::from_value(json!({
                "metadata": {"name": "a", "uid": "u", "annotations": annotations},
                "spec": {"containers": named(containers), "initContainers": named(init)},
            }));
            assert_eq!(interceptor(&pod.unwrap()).unwrap_or_default(), expect);
        };
        let none = || json!({});
        check(none(), &["main"], &["migrate"], "");
        check(json!({"sidecar.istio.io/inject": "true"}), &["main"], &[], "");
        check(
            json!({"sidecar.istio.io/status": "{}"}),
            &["main"],
            &[],
            "Istio (annotation sidecar.istio.io/status)",
        );
        check(
            none(),
            &["main", "istio-proxy"],
            &[],
            "Istio (container istio-proxy)",
        );
        // A native sidecar.
        check(
            none(),
            &["main"],
            &["istio-proxy"],
            "Istio (container istio-proxy)",
        );
        check(none(), &["main"], &["istio-init"], "Istio (container istio-init)");
        let redirected = "Istio (annotation ambient.istio.io/redirection)";
        check(
            json!({"ambient.istio.io/redirection": "enabled"}),
            &["main"],
            &[],
            redirected,
        );
        check(
            json!({"ambient.istio.io/redirection": "disabled"}),
            &["main"],
            &[],
            "",
        );
        check(
            none(),
            &["linkerd-proxy", "main"],
            &[],
            "Linkerd (container linkerd-proxy)",
        );
        check(
            none(),
            &["main"],
            &["linkerd-init"],
            "Linkerd (container linkerd-init)",
        );
        check(json!({"linkerd.io/inject": "enabled"}), &["main"], &[], "");
    }
}
