use serde_json::{Value, json};

use crate::rendered::{deploy, find, helm, kustomize, objects};

/// The labels say which of the two made it.
fn without_labels(object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"].as_object_mut().unwrap().remove("labels");
    object
}

#[test]
fn the_chart_makes_what_kustomize_makes() {
    let (chart, base) = (helm(&json!({})), kustomize("kustomize/base"));
    let mut compared = 0;
    for object in &base {
        let (kind, name) = (
            object["kind"].as_str().unwrap(),
            object["metadata"]["name"].as_str().unwrap(),
        );
        // `helm install --create-namespace` makes it.
        if kind == "Namespace" {
            continue;
        }
        assert_eq!(
            without_labels(find(&chart, kind, name)),
            without_labels(object),
            "{kind} {name}"
        );
        compared += 1;
    }
    assert_eq!(chart.len(), compared, "the chart has more");
}

#[test]
fn the_chart_makes_what_the_overlay_for_gke_adds() {
    let chart = helm(&json!({"criticalQuota": true, "monitoring": {"kind": "PodMonitoring"}}));
    let overlay = kustomize("kustomize/overlays/gke");
    for (kind, name) in [("ResourceQuota", "derny-critical"), ("PodMonitoring", "derny")] {
        assert_eq!(
            without_labels(find(&chart, kind, name)),
            without_labels(find(&overlay, kind, name)),
            "{kind} {name}"
        );
    }
}

#[test]
fn both_monitoring_systems_have_the_same_alerts() {
    let text = std::fs::read_to_string(deploy().join("alerts/derny.yaml")).unwrap();
    let operator = objects(&text);
    let overlay = kustomize("kustomize/overlays/gke");
    let google = find(&overlay, "Rules", "derny");
    assert_eq!(google["spec"], find(&operator, "PrometheusRule", "derny")["spec"]);
    assert!(google["spec"]["groups"][0]["rules"].as_array().unwrap().len() > 3);
}

#[test]
fn values_reach_the_daemon_set() {
    let values = json!({
        "image": {"repository": "r/derny", "digest": format!("sha256:{}", "0".repeat(64))},
        "accessLog": "off", "workers": 3, "logLevel": "debug", "extraArgs": ["--endpoints-wait=2s"],
        "tolerations": [], "updateStrategy": {"maxUnavailable": "10%"},
    });
    let chart = helm(&values);
    let spec = &find(&chart, "DaemonSet", "derny")["spec"];
    let pod = &spec["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(container["image"], format!("r/derny@sha256:{}", "0".repeat(64)));
    assert_eq!(
        container["args"],
        json!([
            "run",
            "--kubernetes",
            "--state-file=/run/derny/state.json",
            "--access-log=off",
            "--log=debug",
            "--workers=3",
            "--endpoints-wait=2s"
        ])
    );
    assert_eq!(pod["tolerations"], Value::Null);
    assert_eq!(spec["updateStrategy"]["rollingUpdate"]["maxUnavailable"], "10%");
}
