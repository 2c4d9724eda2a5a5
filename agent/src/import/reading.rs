//! A document that remembers what of it was read.

use std::{cell::RefCell, collections::BTreeSet, time::Duration};

use serde_json::Value;

use super::{Note, NoteKind};
use crate::config::duration;

/// Characters of a value that a note shows.
const SHOWN: usize = 60;

#[derive(Debug, Default)]
pub(super) struct Log {
    read: RefCell<BTreeSet<String>>,
    notes: RefCell<Vec<Note>>,
}

impl Log {
    pub(super) fn root<'a>(&'a self, document: &'a Value) -> Node<'a> {
        Node {
            value: document,
            path: String::new(),
            log: self,
        }
    }

    /// The notes that were made, and one for each place that nobody has read, in the order of the document.
    pub(super) fn into_notes(self, document: &Value) -> Vec<Note> {
        let mut order = Vec::new();
        let mut notes = self.notes.into_inner();
        let read = self.read.into_inner();
        walk(document, String::new(), &mut |path, value| {
            order.push(path.to_owned());
            let known = path.is_empty() || read.contains(path);
            if !known {
                notes.push(Note {
                    path: path.to_owned(),
                    value: shown(value),
                    kind: NoteKind::NoEquivalent,
                    said: hint(path, value).to_owned(),
                });
            }
            known
        });
        notes.sort_by_key(|note| order.iter().position(|path| *path == note.path));
        notes
    }
}

/// Calls `visit` for each place, and goes below it when told so.
fn walk(value: &Value, path: String, visit: &mut impl FnMut(&str, &Value) -> bool) {
    if !visit(&path, value) {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                walk(value, joined(&path, name), visit);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, format!("{path}[{index}]"), visit);
            }
        }
        _ => {}
    }
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() <= SHOWN {
        return text;
    }
    text.chars().take(SHOWN).chain("…".chars()).collect()
}

/// What an operator does about a field without an equivalent, by its last name.
fn hint(path: &str, value: &Value) -> &'static str {
    let name = path.rsplit('.').next().unwrap_or(path);
    let text = value.to_string();
    let says = |word: &str| path.contains(word) || text.contains(word);
    match name.trim_end_matches(|c: char| c == ']' || c.is_ascii_digit() || c == '[') {
        "transport_socket" | "transport_socket_matches" => {
            "TLS is passed through and neither begun nor ended: leave it to the application"
        }
        "access_log" => "the agent writes one access log for the node: derny run --access-log",
        "dynamic_resources" | "rds" | "eds_cluster_config" => {
            "there is no xDS: Kubernetes or the file is the control plane"
        }
        "tracing" => "traceparent is passed on; spans are not reported",
        "http_filters" if says("ext_authz") || says("jwt_authn") || says("rbac") => {
            "requests are not authorised: leave it to the application or a gateway"
        }
        "http_filters" if says("ratelimit") => {
            "there is no rate limit; circuitBreaking bounds what is in flight"
        }
        "http_filters" => "there are no filters in the request's way",
        "direct_response" => "a route answers only by redirecting",
        "lb_subset_config" | "metadata_match" | "metadata" => {
            "there are no subsets: make a service of each, and send the route there"
        }
        "retry_priority" => "there are no priorities",
        "region" | "sub_zone" => "a zone is all that is known of where an endpoint is",
        "load_balancing_weight" => "endpoints have weights, and zones have none",
        "filter_chain_match" => "a service takes all that is dialled at its addresses",
        "listener_filters" => "connections are taken by the kernel, as the application opened them",
        "per_connection_buffer_limit_bytes" => "buffers are bounded by the agent: connectionPool.windowSize",
        "overload_manager" | "layered_runtime" => {
            "the agent bounds itself by its flags, and calls by circuitBreaking"
        }
        "stats_sinks" | "stats_config" => "metrics are fetched from the agent, at /metrics",
        "local_reply_config" => "the agent's own answers have fixed texts",
        "normalize_path" | "merge_slashes" | "path_with_escaped_slashes_action" => {
            "a path is matched and passed on as it came"
        }
        _ => "no field does this",
    }
}

/// A place in the document.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    value: &'a Value,
    path: String,
    log: &'a Log,
}

impl<'a> Node<'a> {
    /// A field, by its protobuf name; `null` is none.
    pub(super) fn get(&self, name: &str) -> Option<Node<'a>> {
        let fields = self.value.as_object()?;
        let (name, value) = match fields.get(name) {
            Some(value) => (name.to_owned(), value),
            None => {
                let camel = camel_case(name);
                let value = fields.get(&camel)?;
                (camel, value)
            }
        };
        let node = Node {
            value,
            path: joined(&self.path, &name),
            log: self.log,
        };
        node.log.read.borrow_mut().insert(node.path.clone());
        (!value.is_null()).then_some(node)
    }

    /// A field of a field.
    pub(super) fn at(&self, names: &[&str]) -> Option<Node<'a>> {
        names.iter().try_fold(self.clone(), |node, name| node.get(name))
    }

    /// The elements of a list. What is no list is its only element, as Envoy reads YAML.
    pub(super) fn items(&self) -> Vec<Node<'a>> {
        let Some(items) = self.value.as_array() else {
            return vec![self.clone()];
        };
        let nodes = items.iter().enumerate().map(|(index, value)| Node {
            value,
            path: format!("{}[{index}]", self.path),
            log: self.log,
        });
        let nodes: Vec<_> = nodes.collect();
        let mut read = self.log.read.borrow_mut();
        read.extend(nodes.iter().map(|node| node.path.clone()));
        nodes
    }

    /// The elements of a list field; none when it is not there.
    pub(super) fn list(&self, name: &str) -> Vec<Node<'a>> {
        self.get(name).map(|list| list.items()).unwrap_or_default()
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// An enum's value in capitals: Envoy reads it in any case.
    pub(super) fn word(&self) -> Option<String> {
        Some(self.text()?.to_ascii_uppercase())
    }

    /// A number; 64-bit ones are strings in protobuf's JSON.
    pub(super) fn number(&self) -> Option<u64> {
        self.value.as_u64().or_else(|| self.text()?.parse().ok())
    }

    pub(super) fn decimal(&self) -> Option<f64> {
        self.value.as_f64().or_else(|| self.text()?.parse().ok())
    }

    pub(super) fn truth(&self) -> Option<bool> {
        self.value.as_bool()
    }

    /// `0.25s`, as protobuf's JSON has it, in our spelling: `250ms`.
    pub(super) fn duration(&self) -> Option<String> {
        let duration = self.length()?;
        Some(duration::Display(duration).to_string())
    }

    pub(super) fn length(&self) -> Option<Duration> {
        if self.value.is_object() {
            let part = |name| self.get(name).and_then(|part| part.number()).unwrap_or(0);
            return Some(Duration::from_secs(part("seconds")) + Duration::from_nanos(part("nanos")));
        }
        duration::parse(self.text()?).ok()
    }

    /// The type of a `typed_config`, without its package.
    pub(super) fn kind(&self) -> Option<&'a str> {
        let url = self.get("@type")?.text()?;
        url.rsplit(['.', '/']).next()
    }

    /// The field means nothing here, and nobody misses it.
    pub(super) fn pass_over(&self, name: &str) {
        if let Some(field) = self.get(name) {
            field.seen();
        }
    }

    /// All of it counts as read.
    pub(super) fn seen(&self) {
        let mut read = self.log.read.borrow_mut();
        walk(self.value, self.path.clone(), &mut |path, _| {
            read.insert(path.to_owned());
            true
        });
    }

    /// A note about this place; nothing below it is reported any more.
    pub(super) fn note(&self, kind: NoteKind, said: impl Into<String>) {
        self.seen();
        self.remark(kind, said);
    }

    /// A note about this place, which goes on being read.
    pub(super) fn remark(&self, kind: NoteKind, said: impl Into<String>) {
        self.log.notes.borrow_mut().push(Note {
            path: self.path.clone(),
            value: shown(self.value),
            kind,
            said: said.into(),
        });
    }

    pub(super) fn no_equivalent(&self) {
        let said = hint(&self.path, self.value);
        self.note(NoteKind::NoEquivalent, said);
    }
}

/// `lb_policy` → `lbPolicy`, as protobuf's JSON mapping does it.
fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |camel, part| {
        let mut letters = part.chars();
        let head = letters.next().map(|c| c.to_ascii_uppercase());
        camel + &head.into_iter().chain(letters).collect::<String>()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nobody_reads_is_reported_once_and_from_above() {
        let document = json!({"a": {"b_c": 1, "d": {"e": 2}}, "list": [{"x": 1}, {"y": 2}]});
        let log = Log::default();
        {
            let root = log.root(&document);
            assert_eq!(root.at(&["a", "b_c"]).unwrap().number(), Some(1));
            root.list("list")[0].get("x");
        }
        let notes = log.into_notes(&document);
        let paths: Vec<&str> = notes.iter().map(|note| &*note.path).collect();
        assert_eq!(paths, ["a.d", "list[1].y"]);
        assert_eq!(notes[0].value, r#"{"e":2}"#);
    }

    #[test]
    fn both_spellings_are_read() {
        let document =
            json!({"connectTimeout": "0.25s", "max_ejection_time": {"seconds": 3, "nanos": 500_000_000}});
        let log = Log::default();
        let root = log.root(&document);
        assert_eq!(root.get("connect_timeout").unwrap().duration().unwrap(), "250ms");
        assert_eq!(
            root.get("max_ejection_time").unwrap().duration().unwrap(),
            "3s500ms"
        );
    }

    #[test]
    fn types_are_known_by_their_last_name() {
        let document = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"});
        let log = Log::default();
        assert_eq!(log.root(&document).kind(), Some("Router"));
    }
}
