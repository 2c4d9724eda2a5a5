use std::{collections::HashMap, fs::File, time::Duration};

use serde_json::{Value, json};

use super::*;
use crate::{
    discover::kube::saved_file,
    model::{NetnsIdentity, OpenNetns},
};

/// Pods of strict namespaces.
mod strict;

/// The join with what runs beside it.
struct Node {
    join: Join,
    sandboxes: HashMap<PodUid, Sandbox>,
    now: Instant,
}

fn pod(name: &str, uid: &str, label: &str) -> objects::Pod {
    with(name, uid, label, json!({}))
}

fn with(name: &str, uid: &str, label: &str, annotations: Value) -> objects::Pod {
    let labels = match label {
        "" => json!({}),
        label => json!({LABEL: label}),
    };
    let metadata =
        json!({"name": name, "namespace": "demo", "uid": uid, "labels": labels, "annotations": annotations});
    serde_json::from_value(json!({"metadata": metadata})).unwrap()
}

fn namespace(name: &str, label: &str) -> objects::Namespace {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {LABEL: label}}})).unwrap()
}

fn strict(name: &str, mesh: &str, strict: &str) -> objects::Namespace {
    let labels = json!({LABEL: mesh, STRICT: strict});
    serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap()
}

impl Node {
    /// Both kinds have been listed, and `demo` is enabled.
    fn new() -> Self {
        let mut node = Self::unlisted();
        node.join.namespace(Event::Listing);
        node.join.namespace(Event::Applied(namespace("demo", "enabled")));
        node.join.namespace(Event::Listed);
        node.join.pod(Event::Listing);
        node.join.pod(Event::Listed);
        node
    }

    fn unlisted() -> Self {
        Self {
            join: Join::default(),
            sandboxes: HashMap::new(),
            now: Instant::now(),
        }
    }

    /// A process runs in the pod's network `ino`, or in the node's.
    fn runs(&mut self, uid: &str, ino: Option<u64>) {
        let open = |ino| {
            Arc::new(OpenNetns {
                file: File::open("/dev/null").unwrap(),
                identity: NetnsIdentity { dev: 4, ino },
                found: "/proc/7/ns/net".into(),
            })
        };
        let since = Some(self.now);
        let network = match ino.map(open) {
            Some(netns) => Network::Own { netns, since },
            None => Network::Node { since },
        };
        self.stands(uid, network);
    }

    /// The pod's control group is there. Its id is the last digit of the UID.
    fn stands(&mut self, uid: &str, network: Network) {
        let group = GroupId(uid[uid.len() - 1..].parse().unwrap());
        let uid = PodUid::new(uid);
        self.sandboxes.insert(uid.clone(), Sandbox { group, network });
        self.join.processes(&uid);
    }

    fn ends(&mut self, uid: &str) {
        let uid = PodUid::new(uid);
        self.sandboxes.remove(&uid);
        self.join.processes(&uid);
    }

    fn apply(&mut self, pod: objects::Pod) {
        self.join.pod(Event::Applied(pod));
    }

    /// `+name@network` and `-name`, a millisecond later.
    fn told(&mut self) -> Vec<String> {
        self.updates().iter().map(word).collect()
    }

    fn updates(&mut self) -> Vec<Update> {
        self.now += Duration::from_millis(1);
        self.join.changes(|uid| self.sandboxes.get(uid), self.now)
    }

    /// `name: reason` of those that are not told.
    fn bystanders(&self) -> Vec<String> {
        let shown = self.join.shown(|uid| self.sandboxes.get(uid));
        let lines = shown.bystanders.iter();
        lines
            .map(|it| format!("{} {:?}: {}", it.name.name, it.standing, it.reason))
            .collect()
    }
}

fn word(update: &Update) -> String {
    match update {
        Update::Pod(pod) => match &pod.netns {
            PodNetns::Open(open) => format!("+{}@{}", pod.name.name, open.identity.ino),
            PodNetns::Path(path) => panic!("{path:?}"),
        },
        Update::PodGone(name) => format!("-{}", name.name),
        Update::Strict(name, Some(group)) => format!("strict {} in {}", name.name, group.0),
        Update::Strict(name, None) => format!("not strict {}", name.name),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_api_may_be_first() {
    let mut node = Node::new();
    node.apply(pod("a", "u1", ""));
    assert!(node.told().is_empty());
    assert_eq!(node.bystanders(), ["a Waiting: no process of it runs yet"]);
    node.runs("u1", None);
    assert!(node.told().is_empty());
    assert_eq!(
        node.bystanders(),
        ["a Waiting: its processes are in the node's network so far"]
    );
    node.runs("u1", Some(5));
    assert_eq!(node.told(), ["+a@5"]);
    assert!(node.bystanders().is_empty());
}

#[test]
fn the_sandbox_may_be_first() {
    let mut node = Node::new();
    let began = node.now;
    node.runs("u1", Some(5));
    assert!(node.told().is_empty());
    node.apply(pod("a", "u1", ""));
    let updates = node.updates();
    let Update::Pod(told) = &updates[0] else {
        panic!("{updates:?}")
    };
    assert_eq!(
        told.since,
        Some(began.into_std()),
        "timed from the sandbox, not from the API's word"
    );
    node.apply(pod("a", "u1", ""));
    assert!(node.told().is_empty(), "nothing new");
}

#[test]
fn a_pod_without_a_label_waits_for_its_namespaces() {
    let mut node = Node::unlisted();
    node.runs("u1", Some(5));
    node.runs("u2", Some(6));
    node.apply(pod("a", "u1", ""));
    node.apply(pod("own", "u2", "enabled"));
    assert_eq!(node.told(), ["+own@6"]);
    assert_eq!(
        node.bystanders(),
        ["a Waiting: the labels of its namespace are not known yet"]
    );
    node.join.namespace(Event::Listing);
    node.join.namespace(Event::Listed);
    assert!(node.told().is_empty());
    assert!(node.bystanders()[0].starts_with("a LeftAlone: no label"));
    node.join.namespace(Event::Applied(namespace("demo", "enabled")));
    assert_eq!(node.told(), ["+a@5"]);
}

#[test]
fn a_pod_that_a_file_gives_is_the_files() {
    let mut node = Node::new();
    node.runs("u1", Some(5));
    node.apply(pod("a", "u1", ""));
    assert_eq!(node.told(), ["+a@5"]);
    let name = node.join.pods.keys().next().unwrap().clone();
    node.join.taken(Arc::new(BTreeSet::from([name.clone()])));
    assert!(node.told().is_empty(), "nor is it withdrawn");
    node.apply(pod("a", "u1", "disabled"));
    node.apply(pod("a", "u1", ""));
    assert!(node.told().is_empty());
    assert_eq!(node.bystanders(), Vec::<String>::new(), "it is shown once");
    let notes = node.join.shown(|uid| node.sandboxes.get(uid)).notes;
    assert_eq!(notes[&name], OF_THE_FILE);
    node.join.taken(Arc::default());
    assert_eq!(node.told(), ["+a@5"]);
    assert!(node.join.shown(|uid| node.sandboxes.get(uid)).notes.is_empty());
}

#[test]
fn labels_count_at_once() {
    let mut node = Node::new();
    node.runs("u1", Some(5));
    node.apply(pod("a", "u1", "disabled"));
    assert!(node.told().is_empty());
    node.apply(pod("a", "u1", ""));
    let updates = node.updates();
    let Update::Pod(told) = &updates[0] else {
        panic!("{updates:?}")
    };
    assert_eq!(told.since, Some(node.now.into_std()), "timed from the change");
    node.join.namespace(Event::Applied(namespace("demo", "disabled")));
    assert_eq!(node.told(), ["-a"]);
    node.join.namespace(Event::Applied(namespace("demo", "enabled")));
    assert_eq!(node.told(), ["+a@5"]);
    // The label is gone, or the namespace.
    node.join.namespace(Event::Gone(namespace("demo", "enabled")));
    assert_eq!(node.told(), ["-a"]);
}

#[test]
fn a_sandbox_that_is_made_anew_is_another_network() {
    let mut node = Node::new();
    node.runs("u1", Some(5));
    node.apply(pod("a", "u1", ""));
    assert_eq!(node.told(), ["+a@5"]);
    node.runs("u1", Some(6));
    assert_eq!(node.told(), ["+a@6"]);
    node.ends("u1");
    assert_eq!(node.told(), ["-a"]);
    node.runs("u1", Some(7));
    assert_eq!(node.told(), ["+a@7"]);
}

#[test]
fn a_name_may_come_back_as_another_pod() {
    let mut node = Node::new();
    node.runs("u1", Some(5));
    node.apply(pod("db-0", "u1", ""));
    assert_eq!(node.told(), ["+db-0@5"]);
    // As a list that was read again tells it: the new one, and nothing of the old.
    node.apply(pod("db-0", "u2", ""));
    assert_eq!(node.told(), ["-db-0"]);
    node.ends("u1");
    node.runs("u2", Some(6));
    assert_eq!(node.told(), ["+db-0@6"]);
    node.join.pod(Event::Gone(pod("db-0", "u2", "")));
    assert_eq!(node.told(), ["-db-0"]);
}

#[test]
fn what_a_list_no_longer_has_goes() {
    let mut node = Node::new();
    for (name, uid) in [("a", "u1"), ("b", "u2")] {
        node.runs(uid, Some(u64::from(uid.as_bytes()[1])));
        node.apply(pod(name, uid, ""));
    }
    assert_eq!(node.told().len(), 2);
    node.join.pod(Event::Listing);
    node.apply(pod("b", "u2", ""));
    assert!(node.told().is_empty());
    node.join.pod(Event::Listed);
    assert_eq!(node.told(), ["-a"]);
}

#[test]
fn annotations_count_at_once_and_their_faults_are_said() {
    let mut node = Node::new();
    node.runs("u1", Some(5));
    node.apply(pod("a", "u1", ""));
    assert_eq!(node.told(), ["+a@5"]);
    let annotations = json!({"derny.dev/inbound": "8080=grpc,x", "derny.dev/services": "db"});
    node.apply(with("a", "u1", "", annotations));
    let updates = node.updates();
    let Update::Pod(told) = &updates[0] else {
        panic!("{updates:?}")
    };
    assert_eq!((told.inbound.len(), told.since), (1, Some(node.now.into_std())));
    assert_eq!(
        node.join
            .declared()
            .into_iter()
            .map(|(service, by)| format!("{service} by {by}"))
            .collect::<Vec<_>>(),
        ["demo/db by demo"]
    );
    let notes = node.join.shown(|uid| node.sandboxes.get(uid)).notes;
    assert!(
        notes
            .values()
            .next()
            .unwrap()
            .contains("`x` is not PORT=PROTOCOL"),
        "{notes:?}"
    );
}

#[test]
fn what_was_saved_is_in_force_until_the_api_says_otherwise() {
    let mut node = Node::new();
    let long =
        json!({"kubectl.kubernetes.io/last-applied-configuration": "{}", "derny.dev/inbound": "8080=grpc"});
    node.apply(with("a", "u1", "", long));
    node.apply(pod("gone", "u2", "enabled"));
    let dir = tempfile::tempdir().unwrap();
    let path = Saved::path(&dir.path().join("state.json"));
    saved_file::write(&path, &node.join.to_save()).unwrap();
    assert!(!std::fs::read_to_string(&path).unwrap().contains("last-applied"));

    let mut next = Node::unlisted();
    next.join.restore(saved_file::read(&path).unwrap().unwrap());
    next.runs("u1", Some(5));
    let updates = next.updates();
    let Update::Pod(told) = &updates[0] else {
        panic!("{updates:?}")
    };
    assert_eq!((updates.len(), told.inbound.len()), (1, 1));
    next.join.pod(Event::Listing);
    next.join.pod(Event::Listed);
    assert_eq!(next.told(), ["-a"]);
    assert!(next.bystanders().is_empty());
}

fn mirror(name: &str, hash: &str) -> objects::Pod {
    let mut pod = with(
        name,
        &format!("of-{name}"),
        "",
        json!({STATIC_UID: hash, MIRROR: hash}),
    );
    pod.metadata.owner_references = serde_json::from_value(json!([
        {"kind": "Node", "name": "n1", "controller": true}
    ]))
    .unwrap();
    pod
}

#[test]
fn a_static_pod_is_found_by_its_mirrors_hash() {
    let mut node = Node::new();
    node.runs("h1", Some(5));
    node.apply(mirror("proxy-n1", "h1"));
    assert_eq!(node.told(), ["+proxy-n1@5"]);
    let saved = node.join.to_save();
    let mut next = Node::unlisted();
    next.join.restore(saved);
    next.runs("h1", Some(5));
    assert_eq!(next.told(), ["+proxy-n1@5"]);
}

#[test]
fn a_pod_does_not_take_the_network_of_another() {
    let mut node = Node::new();
    node.runs("u1", Some(5));
    // The thief is first, by name and in time.
    node.apply(with("a-thief", "u2", "", json!({STATIC_UID: "u1"})));
    node.apply(mirror("b-thief", "u1"));
    node.told();
    node.apply(pod("victim", "u1", ""));
    let told = node.told();
    assert!(told.contains(&"+victim@5".to_owned()), "{told:?}");
    assert_eq!(
        node.bystanders(),
        [
            "a-thief Waiting: no process of it runs yet; kubernetes.io/config.hash: counts on the mirror of a static \
             pod only, and is ignored",
            "b-thief LeftAlone: its kubernetes.io/config.hash is the UID of another pod, demo/victim",
        ]
    );
    node.ends("u1");
    assert_eq!(node.told(), ["-victim"]);
    node.join.pod(Event::Gone(pod("victim", "u1", "")));
    assert!(node.told().is_empty());
}

#[test]
fn of_two_mirrors_of_one_static_pod_neither_is_enrolled() {
    let mut node = Node::new();
    node.runs("h1", Some(5));
    node.apply(mirror("b", "h1"));
    assert_eq!(node.told(), ["+b@5"]);
    node.apply(mirror("a", "h1"));
    assert_eq!(node.told(), ["-b"]);
    assert!(
        node.bystanders()
            .iter()
            .all(|line| line.contains("nothing tells whose it is"))
    );
    node.join.pod(Event::Gone(mirror("a", "h1")));
    assert_eq!(node.told(), ["+b@5"]);
}
