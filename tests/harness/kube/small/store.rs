//! Objects by their place, and everything that ever happened to them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Map, Value, json};
use tokio::sync::watch;

/// How long a watch lasts that says nothing about it.
const LASTS: Duration = Duration::from_secs(600);

/// A kind's collection, or one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// `v1`, `discovery.k8s.io/v1`
    api_version: String,
    plural: String,
    namespace: Option<String>,
    pub(super) name: Option<String>,
}

/// What of an object a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    NotFound,
    AlreadyExists,
    Conflict,
}

impl Key {
    /// `/api/v1/…`, `/apis/GROUP/VERSION/…`, with `namespaces/NAME/` before the plural or without.
    pub(super) fn read(path: &str) -> Option<(Self, Part)> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (api_version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ((*version).to_owned(), rest),
            ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() && rest != ["status"] => {
                (Some((*namespace).to_owned()), rest)
            }
            rest => (None, rest),
        };
        let (plural, name, part) = match rest {
            [plural] => (plural, None, Part::Whole),
            [plural, name] => (plural, Some((*name).to_owned()), Part::Whole),
            [plural, name, "status"] => (plural, Some((*name).to_owned()), Part::Status),
            _ => return None,
        };
        let key = Self {
            api_version,
            plural: (*plural).to_owned(),
            namespace,
            name,
        };
        Some((key, part))
    }

    /// Whether an object lies in this collection.
    fn holds(&self, object: &Self) -> bool {
        self.api_version == object.api_version
            && self.plural == object.plural
            && (self.namespace.is_none() || self.namespace == object.namespace)
            && (self.name.is_none() || self.name == object.name)
    }
}

/// What a list or watch asks for.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) watch: bool,
    pub(super) version: u64,
    pub(super) lasts: Duration,
    /// Paths and their values.
    selectors: Vec<(Vec<String>, String)>,
}

impl Query {
    pub(super) fn read(text: &str) -> Self {
        let mut query = Self {
            watch: false,
            version: 0,
            lasts: LASTS,
            selectors: Vec::new(),
        };
        for (name, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
            match name {
                "watch" => query.watch = matches!(&*value, "true" | "1"),
                "resourceVersion" => query.version = value.parse().unwrap_or(0),
                "timeoutSeconds" => query.lasts = value.parse().map_or(LASTS, Duration::from_secs),
                "fieldSelector" => query.select(&value, |path| path.split('.').map(str::to_owned).collect()),
                "labelSelector" => query.select(&value, |label| {
                    ["metadata", "labels", label].map(str::to_owned).to_vec()
                }),
                _ => {}
            }
        }
        query
    }

    fn select(&mut self, text: &str, path: impl Fn(&str) -> Vec<String>) {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        let selectors = pairs.map(|(name, value)| (path(name), value.trim_start_matches('=').to_owned()));
        self.selectors.extend(selectors);
    }

    fn wants(&self, object: &Value) -> bool {
        self.selectors.iter().all(|(path, wanted)| {
            let found = path.iter().try_fold(object, |value, step| value.get(step));
            found.and_then(Value::as_str).unwrap_or_default() == wanted
        })
    }
}

#[derive(Debug, Default)]
struct Inner {
    version: u64,
    objects: BTreeMap<Key, Value>,
    history: Vec<Change>,
}

#[derive(Debug)]
struct Change {
    version: u64,
    key: Key,
    before: Option<Value>,
    after: Option<Value>,
}

#[derive(Debug)]
pub(super) struct Store {
    inner: Mutex<Inner>,
    /// The newest version.
    changed: watch::Sender<u64>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn list(&self, collection: &Key, query: &Query) -> Value {
        let inner = self.lock();
        let held = inner
            .objects
            .iter()
            .filter(|(key, object)| collection.holds(key) && query.wants(object));
        let items: Vec<&Value> = held.map(|(_, object)| object).collect();
        json!({
            "kind": "List", "apiVersion": collection.api_version,
            "metadata": {"resourceVersion": inner.version.to_string()}, "items": items,
        })
    }

    pub(super) fn get(&self, key: &Key) -> Result<Value, Refused> {
        self.lock().objects.get(key).cloned().ok_or(Refused::NotFound)
    }

    /// The events after `version` that a watcher sees, and the newest version.
    pub(super) fn since(&self, version: u64, collection: &Key, query: &Query) -> (Vec<Value>, u64) {
        let inner = self.lock();
        let first = inner.history.partition_point(|change| change.version <= version);
        let changes = inner.history[first..]
            .iter()
            .filter(|change| collection.holds(&change.key));
        let events = changes.filter_map(|change| {
            let before = change.before.as_ref().filter(|object| query.wants(object));
            let after = change.after.as_ref().filter(|object| query.wants(object));
            let (kind, mut object) = match (before, after) {
                (None, None) => return None,
                (None, Some(after)) => ("ADDED", after.clone()),
                (Some(_), Some(after)) => ("MODIFIED", after.clone()),
                (Some(before), None) => ("DELETED", before.clone()),
            };
            object["metadata"]["resourceVersion"] = json!(change.version.to_string());
            Some(json!({"type": kind, "object": object}))
        });
        (events.collect(), inner.version)
    }

    pub(super) fn create(&self, collection: &Key, object: Value) -> Result<Value, Refused> {
        let mut key = collection.clone();
        key.name = object["metadata"]["name"].as_str().map(str::to_owned);
        if key.name.is_none() || self.lock().objects.contains_key(&key) {
            return Err(Refused::AlreadyExists);
        }
        Ok(self.put(&key, Some(object)))
    }

    /// An update, which must know the version that it is made from when it names one.
    pub(super) fn replace(&self, key: &Key, part: Part, object: Value) -> Result<Value, Refused> {
        let old = self.get(key)?;
        let named = &object["metadata"]["resourceVersion"];
        if !named.is_null() && *named != old["metadata"]["resourceVersion"] {
            return Err(Refused::Conflict);
        }
        Ok(self.put(key, Some(joined(Some(&old), part, object))))
    }

    /// Server-side apply of a whole object by the one who has it all, and merge patches of its parts.
    pub(super) fn apply(&self, key: &Key, part: Part, object: Value) -> Result<Value, Refused> {
        let old = self.lock().objects.get(key).cloned();
        if part == Part::Status && old.is_none() {
            return Err(Refused::NotFound);
        }
        Ok(self.put(key, Some(joined(old.as_ref(), part, object))))
    }

    /// With a period of grace the object stays, and says that it is leaving, until it is deleted without one.
    pub(super) fn delete(&self, key: &Key, options: &Value) -> Result<Value, Refused> {
        let mut old = self.get(key)?;
        if options["gracePeriodSeconds"]
            .as_u64()
            .is_some_and(|seconds| seconds > 0)
        {
            old["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            return Ok(self.put(key, Some(old)));
        }
        self.put(key, None);
        Ok(old)
    }

    fn put(&self, key: &Key, after: Option<Value>) -> Value {
        let mut inner = self.lock();
        let before = inner.objects.get(key).cloned();
        inner.version += 1;
        let version = inner.version;
        let after = after.map(|object| stamped(key, before.as_ref(), object, version));
        match after.clone() {
            Some(object) => inner.objects.insert(key.clone(), object),
            None => inner.objects.remove(key),
        };
        inner.history.push(Change {
            version,
            key: key.clone(),
            before,
            after: after.clone(),
        });
        drop(inner);
        self.changed.send_replace(version);
        after.unwrap_or_default()
    }
}

/// The new object: a status goes with its own requests, and everything else with the others.
fn joined(old: Option<&Value>, part: Part, new: Value) -> Value {
    match (part, old) {
        (Part::Status, Some(old)) => {
            let mut object = old.clone();
            object["status"] = new["status"].clone();
            object
        }
        (_, Some(old)) if new.get("status").is_none() => {
            let mut object = new;
            if let Some(status) = old.get("status") {
                object["status"] = status.clone();
            }
            object
        }
        _ => new,
    }
}

/// With what the server itself says of an object.
fn stamped(key: &Key, before: Option<&Value>, mut object: Value, version: u64) -> Value {
    let known = |field: &str| before.map(|before| before["metadata"][field].clone());
    let now = format!("{:.0}", k8s_openapi::jiff::Timestamp::now());
    let metadata = object["metadata"]
        .as_object_mut()
        .map(std::mem::take)
        .unwrap_or_default();
    let mut metadata = Map::from_iter(metadata);
    metadata.insert("name".to_owned(), json!(key.name));
    if let Some(namespace) = &key.namespace {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    let uid = known("uid").unwrap_or_else(|| json!(format!("00000000-0000-4000-8000-{version:012}")));
    let uid = metadata
        .get("uid")
        .filter(|uid| !uid.is_null())
        .cloned()
        .unwrap_or(uid);
    metadata.insert("uid".to_owned(), uid);
    let created = known("creationTimestamp").unwrap_or_else(|| json!(now));
    metadata.insert("creationTimestamp".to_owned(), created);
    let changed = before.is_none_or(|before| before.get("spec") != object.get("spec"));
    let generation = known("generation")
        .and_then(|number| number.as_u64())
        .unwrap_or(0);
    metadata.insert("generation".to_owned(), json!(generation + u64::from(changed)));
    metadata.insert("resourceVersion".to_owned(), json!(version.to_string()));
    object["metadata"] = Value::Object(metadata);
    if key.plural == "customresourcedefinitions" {
        object["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> Key {
        Key::read(path).unwrap().0
    }

    #[test]
    fn a_watcher_sees_what_its_selector_sees() {
        let store = Store::default();
        let query = Query::read("labelSelector=app%3Decho&watch=true");
        let pods = key("/api/v1/pods");
        let one = key("/api/v1/namespaces/demo/pods/one");
        let labelled =
            |label: &str| json!({"metadata": {"name": "one", "labels": {"app": label}}, "spec": {}});
        for label in ["other", "echo", "echo", "other"] {
            store.apply(&one, Part::Whole, labelled(label)).unwrap();
        }
        let (events, newest) = store.since(0, &pods, &query);
        let kinds: Vec<&str> = events
            .iter()
            .map(|event| event["type"].as_str().unwrap())
            .collect();
        assert_eq!(
            (kinds.as_slice(), newest),
            (&["ADDED", "MODIFIED", "DELETED"][..], 4)
        );
        assert_eq!(store.list(&pods, &query)["items"], json!([]));
    }

    #[test]
    fn a_status_is_written_by_itself_and_stays() {
        let store = Store::default();
        let one = key("/apis/derny.dev/v1alpha1/namespaces/demo/trafficpolicies/one");
        assert_eq!(store.apply(&one, Part::Status, json!({})), Err(Refused::NotFound));
        store.apply(&one, Part::Whole, json!({"spec": {"a": 1}})).unwrap();
        store
            .apply(
                &one,
                Part::Status,
                json!({"status": {"ok": true}, "spec": {"a": 2}}),
            )
            .unwrap();
        let now = store.apply(&one, Part::Whole, json!({"spec": {"a": 3}})).unwrap();
        assert_eq!(
            (&now["spec"], &now["status"]),
            (&json!({"a": 3}), &json!({"ok": true}))
        );
        assert_eq!(now["metadata"]["generation"], 2);
        let stale = json!({"metadata": {"resourceVersion": "1"}});
        assert_eq!(store.replace(&one, Part::Whole, stale), Err(Refused::Conflict));
    }

    #[test]
    fn paths_name_kinds_and_objects() {
        let namespace = key("/api/v1/namespaces/demo");
        assert_eq!(
            (&*namespace.plural, namespace.name.as_deref()),
            ("namespaces", Some("demo"))
        );
        let slice = key("/apis/discovery.k8s.io/v1/namespaces/demo/endpointslices");
        assert_eq!((slice.namespace.as_deref(), slice.name), (Some("demo"), None));
        assert_eq!(Key::read("/version"), None);
    }
}
