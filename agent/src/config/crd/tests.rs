use std::{fs, path::Path};

use serde_json::{Value, json};

use super::*;
use crate::config::{duration, traffic_policy};

/// A policy whose field at `path` is `value`, with what that field needs beside it.
fn with(path: &str, value: &Value) -> Value {
    let mut spec = value.clone();
    for name in path.rsplit('.') {
        spec = json!({ name: spec });
    }
    let beside = [
        (
            "loadBalancer.minRingSize",
            "loadBalancer",
            json!({"algorithm": "ringHash", "hashOn": {"header": "x"}}),
        ),
        (
            "loadBalancer.tableSize",
            "loadBalancer",
            json!({"algorithm": "maglev", "hashOn": {"header": "x"}}),
        ),
        ("retry.backoff.base", "retry", json!({"backoff": {"max": "1h"}})),
        ("retry.backoff.max", "retry", json!({"backoff": {"base": "1ms"}})),
        (
            "outlierDetection.consecutiveLocalErrors",
            "outlierDetection",
            json!({"splitLocalOrigin": true}),
        ),
        (
            "outlierDetection.maxEjectionTime",
            "outlierDetection",
            json!({"baseEjectionTime": "100ms"}),
        ),
    ];
    let section = path.split('.').next().unwrap();
    for (of, at, more) in beside {
        if of == path {
            merge(&mut spec[at], more);
        }
    }
    if section == "healthCheck" && spec[section].get("http").is_none() && spec[section].get("grpc").is_none()
    {
        merge(&mut spec[section], json!({"tcp": {}}));
    }
    spec["targetRefs"] = json!([{"kind": "Service", "name": "echo"}]);
    spec
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (name, value) in more {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into @ Value::Null, more) => *into = more,
        _ => {}
    }
}

#[track_caller]
fn check(path: &str, value: Value, good: bool) {
    let read = traffic_policy("demo", with(path, &value));
    let error = read.as_ref().err().map(|e| e.one_line());
    assert_eq!(error.is_none(), good, "{path}: {value}: {error:?}");
    if let Some(error) = error {
        assert!(error.contains(path), "the fault is this field's: {error}");
    }
}

#[test]
fn the_schema_has_the_ranges_of_the_check() {
    let beyond = |text: &str, by: i64| {
        let nanos = i64::try_from(duration::parse(text).unwrap().as_nanos()).unwrap() + by;
        json!(format!("{nanos}ns"))
    };
    for (path, bounds, _) in FIELDS {
        match bounds {
            Bounds::Any => {}
            Bounds::Number(from, to) => {
                check(path, json!(from), true);
                // The largest prime.
                check(path, json!(to), true);
                check(path, json!(to + 1), false);
                if from > 0 {
                    check(path, json!(from - 1), false);
                }
            }
            Bounds::Each(from, to) => {
                check(path, json!([from, to]), true);
                check(path, json!([from - 1]), false);
                check(path, json!([to + 1]), false);
            }
            Bounds::Time(from, to) | Bounds::TimeOrZero(from, to) => {
                check(path, json!(from), true);
                check(path, json!(to), true);
                check(path, beyond(from, -1), false);
                check(path, beyond(to, 1), false);
                check(path, json!("0s"), matches!(bounds, Bounds::TimeOrZero(..)));
            }
        }
    }
}

#[test]
fn every_field_is_described_and_every_description_has_its_field() {
    let mut spec = spec();
    for (path, ..) in FIELDS {
        assert!(at(&mut spec, path).is_some(), "{path}");
    }
    fn paths(schema: &Value, prefix: &str, all: &mut Vec<String>) {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            return;
        };
        for (name, schema) in properties {
            let path = format!("{prefix}{name}");
            paths(schema, &format!("{path}."), all);
            let inner = schema.get("properties").is_some();
            if schema.get("description").is_none() && !inner {
                all.push(path);
            }
        }
    }
    let mut bare = Vec::new();
    paths(&spec, "", &mut bare);
    assert_eq!(bare, [""; 0]);
}

#[test]
fn the_file_in_deploy_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds/trafficpolicy.yaml");
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == yaml(),
        "{} is old: run `derny crd > deploy/crds/trafficpolicy.yaml`",
        path.display()
    );
}
