//! Which calls of a route may be done twice. The Gateway API has no field for it, and drops those that it does not know,
//! so that an annotation says it.

use serde_json::{Value, json};

/// Says in the rules of `spec`, as a file would, what `annotation` says: `true`, or the names of rules with commas between
/// them.
pub(super) fn say(annotation: &str, spec: &mut Value) {
    let named: Vec<&str> = annotation.split(',').map(str::trim).collect();
    let is_meant = |rule: &Value| {
        let name = rule.get("name").and_then(Value::as_str);
        annotation.trim() == "true" || name.is_some_and(|name| named.contains(&name))
    };
    let rules = spec.get_mut("rules").and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten().filter(|rule| is_meant(rule)) {
        if let Some(rule) = rule.as_object_mut() {
            let retry = rule.entry("retry").or_insert_with(|| json!({}));
            if let Some(retry) = retry.as_object_mut() {
                retry.insert("idempotent".to_owned(), json!(true));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rules_or_those_that_are_named() {
        let check = |annotation: &str, expect: [bool; 3]| {
            let mut spec =
                json!({"rules": [{"name": "read", "retry": {"attempts": 1}}, {"name": "list"}, {}]});
            say(annotation, &mut spec);
            let said = [0, 1, 2].map(|rule| spec["rules"][rule]["retry"]["idempotent"] == true);
            assert_eq!(said, expect, "{annotation}");
            assert_eq!(spec["rules"][0]["retry"]["attempts"], 1);
        };
        check("true", [true; 3]);
        check("read", [true, false, false]);
        check("list, read", [true, true, false]);
        check("false", [false; 3]);
    }
}
