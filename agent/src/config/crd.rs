//! The CustomResourceDefinition of TrafficPolicy, from the structs that read it.

mod fields;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use self::fields::{Bounds, FIELDS};
use super::traffic_policy::TrafficPolicy;

/// Longest duration that is read. Without a bound the server cannot tell what its rules cost.
const LONGEST_DURATION: u64 = 32;
const MOST_ITEMS: u64 = 64;
const MOST_TARGETS: u64 = 16;
const DURATION: &str = r"^([0-9]+(\.[0-9]+)?(h|m|s|ms|us|ns))+$|^0$";

/// The manifest, as it stands in `deploy/crds/trafficpolicy.yaml`.
pub fn yaml() -> String {
    let text = serde_saphyr::to_string(&manifest()).unwrap_or_default();
    format!("# Written by `derny crd`.\n{text}")
}

/// The same as a value.
pub fn manifest() -> Value {
    let columns = json!([
        {"name": "Targets", "type": "string", "jsonPath": ".spec.targetRefs[*].name"},
        {"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]);
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "trafficpolicies.derny.dev",
            "labels": {"gateway.networking.k8s.io/policy": "Direct"},
        },
        "spec": {
            "group": "derny.dev",
            "names": {
                "kind": "TrafficPolicy", "listKind": "TrafficPolicyList",
                "plural": "trafficpolicies", "singular": "trafficpolicy", "shortNames": ["tp"],
                "categories": ["derny"],
            },
            "scope": "Namespaced",
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": {
                    "description": "How services of its namespace are called.",
                    "type": "object",
                    "required": ["spec"],
                    "properties": {
                        "apiVersion": {"type": "string"},
                        "kind": {"type": "string"},
                        "metadata": {"type": "object"},
                        "spec": spec(),
                        "status": status(),
                    },
                }},
            }],
        },
    })
}

fn spec() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut spec = Value::from(settings.into_generator().into_root_schema_for::<TrafficPolicy>());
    structural(&mut spec);
    for (path, bounds, description) in FIELDS {
        if let Some(field) = at(&mut spec, path) {
            describe(field, bounds, description);
        }
    }
    targets(&mut spec);
    rules(
        &mut spec,
        "",
        &[(
            "!(has(self.circuitBreaking) && has(self.circuitBreaking.maxRetries) && has(self.retry) && \
             has(self.retry.budget))",
            "circuitBreaking.maxRetries and retry.budget both bound retries: keep one of the two",
        )],
    );
    rules(
        &mut spec,
        "loadBalancer",
        &[(
            "has(self.hashOn) == (has(self.algorithm) && self.algorithm in ['ringHash', 'maglev'])",
            "ringHash and maglev need hashOn, and no other algorithm has it",
        )],
    );
    rules(
        &mut spec,
        "loadBalancer.hashOn",
        &[(
            "[has(self.header), has(self.cookie), has(self.sourceAddress)].filter(x, x).size() == 1",
            "name one of header, cookie and sourceAddress",
        )],
    );
    rules(
        &mut spec,
        "healthCheck",
        &[(
            "[has(self.http), has(self.grpc), has(self.tcp)].filter(x, x).size() == 1",
            "name one of http, grpc and tcp",
        )],
    );
    spec
}

/// What a structural schema of the API may not have goes; the types remain.
fn structural(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    for foreign in [
        "$schema",
        "title",
        "default",
        "nullable",
        "additionalProperties",
        "format",
        "minimum",
        "description",
    ] {
        fields.shift_remove(foreign);
    }
    match fields.get("type").and_then(Value::as_str) {
        Some("integer") => drop(fields.insert("format".to_owned(), json!("int64"))),
        Some("array") => drop(fields.insert("maxItems".to_owned(), json!(MOST_ITEMS))),
        _ => {}
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(structural);
    }
    if let Some(items) = fields.get_mut("items") {
        structural(items);
    }
}

/// The field at `path`; the whole for the empty path.
fn at<'s>(schema: &'s mut Value, path: &str) -> Option<&'s mut Map<String, Value>> {
    let mut names = path.split('.').filter(|name| !name.is_empty());
    let found = names.try_fold(schema, |schema, name| schema.get_mut("properties")?.get_mut(name));
    found?.as_object_mut()
}

fn describe(field: &mut Map<String, Value>, bounds: Bounds, description: &str) {
    let mut say = |name: &str, value: Value| drop(field.insert(name.to_owned(), value));
    say("description", json!(description));
    let or_zero = match bounds {
        Bounds::TimeOrZero(..) => " || duration(self) == duration('0s')",
        _ => "",
    };
    match bounds {
        Bounds::Any => {}
        Bounds::Number(from, to) => {
            say("minimum", json!(from));
            say("maximum", json!(to));
        }
        Bounds::Each(from, to) => {
            say(
                "items",
                json!({"type": "integer", "format": "int64", "minimum": from, "maximum": to}),
            );
        }
        Bounds::Time(from, to) | Bounds::TimeOrZero(from, to) => {
            say("pattern", json!(DURATION));
            say("maxLength", json!(LONGEST_DURATION));
            let zero = if or_zero.is_empty() { "" } else { ", or 0s" };
            say(
                "x-kubernetes-validations",
                json!([{
                    "rule": format!(
                        "(duration(self) >= duration('{from}') && duration(self) <= duration('{to}')){or_zero}"
                    ),
                    "message": format!("use {from} to {to}{zero}"),
                }]),
            );
        }
    }
}

fn targets(spec: &mut Value) {
    let words = [
        "peakEwma",
        "leastRequest",
        "roundRobin",
        "random",
        "ringHash",
        "maglev",
    ];
    if let Some(algorithm) = at(spec, "loadBalancer.algorithm") {
        algorithm.insert("enum".to_owned(), json!(words));
    }
    if let Some(refs) = at(spec, "targetRefs") {
        refs.insert(
            "description".to_owned(),
            json!("The services that the policy is for, or one port of each"),
        );
        refs.insert("minItems".to_owned(), json!(1));
        refs.insert("maxItems".to_owned(), json!(MOST_TARGETS));
        refs.insert(
            "items".to_owned(),
            json!({
                "type": "object",
                "required": ["kind", "name"],
                "properties": {
                    "group": {"type": "string", "enum": [""], "default": "", "description": "Empty: a Service has none"},
                    "kind": {"type": "string", "enum": ["Service"]},
                    "name": {"type": "string", "minLength": 1, "maxLength": 63,
                        "description": "A Service of the policy's namespace"},
                    "sectionName": {"type": "string", "minLength": 1, "maxLength": 63,
                        "description": "One port, by its name or its number. Such a policy replaces the one of the service"},
                },
            }),
        );
    }
}

fn rules(schema: &mut Value, path: &str, rules: &[(&str, &str)]) {
    let written: Vec<Value> = rules
        .iter()
        .map(|(rule, message)| json!({"rule": rule, "message": message}))
        .collect();
    if let Some(field) = at(schema, path) {
        field.insert("x-kubernetes-validations".to_owned(), Value::from(written));
    }
}

fn status() -> Value {
    json!({
        "type": "object",
        "properties": {
            "conditions": {
                "type": "array",
                "maxItems": 8,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {
                    "type": "object",
                    "required": ["type", "status", "lastTransitionTime", "reason", "message"],
                    "properties": {
                        "type": {"type": "string", "maxLength": 316},
                        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                        "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                        "lastTransitionTime": {"type": "string", "format": "date-time"},
                        "reason": {"type": "string", "maxLength": 1024, "minLength": 1},
                        "message": {"type": "string", "maxLength": 32768},
                    },
                },
            },
        },
    })
}

#[cfg(test)]
mod tests;
