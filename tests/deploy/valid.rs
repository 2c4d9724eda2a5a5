use std::{collections::BTreeSet, io::Write as _, process::Stdio};

use derny_tests::{Node, clients, kube::Cluster};
use k8s_openapi::api::{
    apps::v1 as apps, batch::v1 as batch, core::v1 as core, discovery::v1 as discovery, rbac::v1 as rbac,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::rendered::{deploy, files, helm, helm_refuses, kustomize, objects, run};

/// Kinds of monitoring systems, whose definitions come with these. Nothing here checks their fields.
const OTHERS: [&str; 4] = ["PodMonitor", "PodMonitoring", "PrometheusRule", "Rules"];

/// Everything that a user could apply, by where it comes from.
fn all() -> Vec<(String, Vec<Value>)> {
    let mut all: Vec<_> = [
        "kustomize/base",
        "kustomize/overlays/site",
        "kustomize/overlays/gke",
        "kustomize/uninstall",
        "example",
    ]
    .map(|directory| (directory.to_owned(), kustomize(directory)))
    .into();
    let values = [
        json!({}),
        json!({"monitoring": {"kind": "PodMonitor"}, "criticalQuota": true, "workers": 2, "logLevel": "debug",
               "extraArgs": ["--endpoints-wait=2s"], "podAnnotations": {"a": "b"},
               "imagePullSecrets": [{"name": "registry"}], "nodeSelector": {"pool": "x"}}),
        json!({"monitoring": {"kind": "PodMonitoring"}, "priorityClassName": "", "tolerations": []}),
    ];
    all.extend(values.map(|values| (format!("helm with {values}"), helm(&values))));
    let loose = files("yaml")
        .into_iter()
        .filter(|path| path.ends_with("podmonitor.yaml") || path.ends_with("alerts/derny.yaml"));
    for path in loose {
        let text = std::fs::read_to_string(&path).unwrap();
        all.push((path.display().to_string(), objects(&text)));
    }
    all
}

/// Reads the object as `T` and writes it again: what is lost is no field of the kind.
fn complete<T: DeserializeOwned + Serialize>(object: &Value) -> Result<(), String> {
    let typed: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let back = serde_json::to_value(typed).map_err(|error| error.to_string())?;
    lost(object, &back, "")
}

fn lost(written: &Value, read: &Value, at: &str) -> Result<(), String> {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => written.iter().try_for_each(|(key, value)| {
            let at = format!("{at}.{key}");
            let read = read.get(key).ok_or_else(|| format!("{at} is no field"))?;
            lost(value, read, &at)
        }),
        (Value::Array(written), Value::Array(read)) if written.len() == read.len() => {
            let mut pairs = written.iter().zip(read).enumerate();
            pairs.try_for_each(|(n, (written, read))| lost(written, read, &format!("{at}[{n}]")))
        }
        _ if written == read => Ok(()),
        _ => Err(format!("{at}: {written} is read as {read}")),
    }
}

/// `None`: not one of Kubernetes' own kinds.
pub(crate) fn check(object: &Value) -> Option<Result<(), String>> {
    let kind = object["kind"].as_str().unwrap();
    Some(match kind {
        "Namespace" => complete::<core::Namespace>(object),
        "Service" => complete::<core::Service>(object),
        "EndpointSlice" => complete::<discovery::EndpointSlice>(object),
        "ServiceAccount" => complete::<core::ServiceAccount>(object),
        "ResourceQuota" => complete::<core::ResourceQuota>(object),
        "DaemonSet" => complete::<apps::DaemonSet>(object),
        "Deployment" => complete::<apps::Deployment>(object),
        "Job" => complete::<batch::Job>(object),
        "ClusterRole" => complete::<rbac::ClusterRole>(object),
        "ClusterRoleBinding" => complete::<rbac::ClusterRoleBinding>(object),
        "Role" => complete::<rbac::Role>(object),
        "RoleBinding" => complete::<rbac::RoleBinding>(object),
        "CustomResourceDefinition" | "TrafficPolicy" | "HTTPRoute" | "GRPCRoute" => return None,
        _ if OTHERS.contains(&kind) => return None,
        _ => panic!("nothing checks a {kind}: add it here"),
    })
}

#[test]
fn every_object_is_of_the_apis_types() {
    for (from, objects) in all() {
        for object in objects {
            let name = format!("{from}: {} {}", object["kind"], object["metadata"]["name"]);
            if let Some(Err(fault)) = check(&object) {
                panic!("{name}: {fault}");
            }
        }
    }
}

#[test]
fn a_field_that_is_none_is_seen() {
    let base = kustomize("kustomize/base");
    let mut daemon_set = crate::rendered::find(&base, "DaemonSet", "derny").clone();
    daemon_set["spec"]["template"]["spec"]["hostPid"] = json!(true);
    let fault = check(&daemon_set).unwrap().unwrap_err();
    assert_eq!(fault, ".spec.template.spec.hostPid is no field");
}

/// A server that holds objects to their schemas and says what it serves; `None` where there is only the small one.
pub(crate) fn real_server(node: &Node) -> Option<Cluster> {
    let cluster = Cluster::start(node).unwrap();
    if !cluster.validates() {
        println!("not run: there is no API server but the small one in this process");
        return None;
    }
    Some(cluster)
}

/// Kinds that the server does not serve are named in the output; a full kube-apiserver serves all but the monitors'.
#[test]
fn an_api_server_takes_every_object() {
    let node = Node::new().unwrap();
    let Some(cluster) = real_server(&node) else { return };
    let kubectl = |arguments: &[&str]| {
        let kubeconfig = cluster.kubeconfig().as_os_str();
        let arguments = ["--kubeconfig".as_ref(), kubeconfig]
            .into_iter()
            .chain(arguments.iter().map(AsRef::as_ref));
        clients::kubectl(arguments).unwrap()
    };
    let served = run(kubectl(&["api-resources", "--no-headers"]))
        .success()
        .unwrap();
    let served: BTreeSet<&str> = served
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    assert!(
        served.contains("TrafficPolicy") && served.contains("GRPCRoute"),
        "{served:?}"
    );

    let mut left = BTreeSet::new();
    for (from, objects) in all() {
        // A namespace first, as kustomize and Helm have it.
        let (applied, others): (Vec<&Value>, Vec<&Value>) = objects
            .iter()
            .partition(|object| served.contains(object["kind"].as_str().unwrap()));
        left.extend(
            others
                .iter()
                .map(|object| object["kind"].as_str().unwrap().to_owned()),
        );
        if applied.is_empty() {
            continue;
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": applied});
        let mut command = kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(list.to_string().as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{from}: {said}");
        let lines = String::from_utf8_lossy(&output.stdout).lines().count();
        assert_eq!(
            lines,
            applied.len(),
            "{from}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    println!("kinds that this API server does not serve, and that were not applied: {left:?}");
}

/// kubectl reads YAML 1.1, in which a bare `on` is a boolean, where Kustomize and the agent read 1.2.
#[test]
fn kubectl_reads_the_examples_own_files() {
    let node = Node::new().unwrap();
    let Some(cluster) = real_server(&node) else { return };
    for file in ["namespace.yaml", "policies.yaml", "routes.yaml"] {
        let path = deploy().join("example").join(file);
        let kubeconfig = cluster.kubeconfig().as_os_str();
        let arguments = ["apply", "--server-side", "-f"].map(AsRef::<std::ffi::OsStr>::as_ref);
        let before = ["--kubeconfig".as_ref(), kubeconfig];
        let command =
            clients::kubectl(before.into_iter().chain(arguments).chain([path.as_os_str()])).unwrap();
        run(command).success().unwrap();
    }
}

/// The server's own judgement of a policy, so that the test above could fail.
#[test]
fn an_api_server_refuses_a_policy_with_a_fault() {
    let node = Node::new().unwrap();
    let Some(cluster) = real_server(&node) else { return };
    let example = kustomize("example");
    let mut policy = crate::rendered::find(&example, "TrafficPolicy", "broker").clone();
    policy["spec"]["retry"]["attempts"] = json!(1000);
    let refusal = cluster.refusal(&policy).unwrap();
    assert!(refusal.contains("attempts"), "{refusal}");
}

#[test]
fn values_that_the_chart_does_not_know_are_refused() {
    for (values, word) in [
        (json!({"monitoring": {"kind": "Prometheus"}}), "monitoring"),
        (
            json!({"image": {"repository": "r", "digest": "latest"}}),
            "digest",
        ),
        (json!({"tolerationz": []}), "tolerationz"),
    ] {
        let refusal = helm_refuses(&values);
        assert!(refusal.contains(word), "{refusal}");
    }
}

#[test]
fn the_chart_has_the_definition_that_the_rest_has() {
    let one = std::fs::read(deploy().join("crds/trafficpolicy.yaml")).unwrap();
    assert_eq!(
        one,
        std::fs::read(deploy().join("helm/derny/crds/trafficpolicy.yaml")).unwrap()
    );
}
