//! Events for whom they concern, where there is no object with conditions: what Derny leaves alone because of what
//! objects of several namespaces say, and what was refused to a namespace.

use std::{collections::HashMap, sync::Arc, time::Duration};

use kube::{api::PostParams, core::request::Request};
use serde_json::{Value, json};
use tokio::time::Instant;
use twox_hash::XxHash3_64;

use super::{
    client::{Cluster, Failure},
    objects::Resource,
};
use crate::{drain, model::ServiceName};

const EVENTS: Resource = Resource {
    group: "events.k8s.io",
    version: "v1",
    plural: "events",
};
/// How often it is looked whether there is something to say.
const EVERY: Duration = Duration::from_secs(5);
/// The API server forgets an Event after an hour; what is still so is said anew.
const AGAIN: Duration = Duration::from_secs(50 * 60);
/// So many are said, and remembered, at a time.
const AT_MOST: usize = 256;
/// Bytes of a note (`events.k8s.io/v1`: less than 1 kB).
const NOTE: usize = 1000;

/// One thing to say, to whoever looks at an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Notice {
    pub about: About,
    /// In CamelCase.
    pub reason: &'static str,
    /// A sentence. The same on every node, so that the cluster has one Event of it.
    pub note: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum About {
    Service(ServiceName),
    Namespace(Arc<str>),
}

/// Says what `standing` gives, each of it once and then as long as it stands, until the drain begins.
pub async fn tell(
    cluster: Cluster,
    node: String,
    mut standing: impl FnMut() -> Vec<Notice> + Send,
    drain: drain::Watch,
) {
    let mut said: HashMap<Notice, Instant> = HashMap::new();
    let mut every = tokio::time::interval(EVERY);
    let mut drained = std::pin::pin!(drain.signaled());
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = &mut drained => return,
        }
        for notice in due(&mut said, standing(), Instant::now()) {
            match say(&cluster, &node, &notice).await {
                // Another node's agent has said it, or the server or the namespace takes no Events.
                Ok(()) | Err(Failure::Conflict(_) | Failure::NotFound(_)) => {
                    said.insert(notice, Instant::now());
                }
                Err(failure) => {
                    tracing::debug!(error = %failure, note = notice.note, "event not written");
                    break;
                }
            }
        }
    }
}

/// What is to be said now. What stands no more is forgotten.
fn due(said: &mut HashMap<Notice, Instant>, mut standing: Vec<Notice>, now: Instant) -> Vec<Notice> {
    standing.truncate(AT_MOST);
    said.retain(|notice, _| standing.contains(notice));
    standing.retain(|notice| {
        said.get(notice)
            .is_none_or(|at| now.saturating_duration_since(*at) >= AGAIN)
    });
    standing
}

async fn say(cluster: &Cluster, node: &str, notice: &Notice) -> Result<(), Failure> {
    let event = event(node, notice, &k8s_openapi::jiff::Timestamp::now().to_string());
    let namespace = event["metadata"]["namespace"].as_str().unwrap_or_default();
    let create = Request::new(EVENTS.path(Some(namespace)));
    let create = create.create(&PostParams::default(), event.to_string().into_bytes());
    cluster.text(&EVENTS, "create", create).await?;
    Ok(())
}

/// `now` as RFC 3339. All agents give the same name to the same notice within an hour.
fn event(node: &str, notice: &Notice, now: &str) -> Value {
    let (namespace, regarding) = match &notice.about {
        About::Service(ServiceName { namespace, name }) => (
            &**namespace,
            json!({"apiVersion": "v1", "kind": "Service", "namespace": **namespace, "name": **name}),
        ),
        // What is in no namespace has its Events in this one.
        About::Namespace(name) => (
            "default",
            json!({"apiVersion": "v1", "kind": "Namespace", "name": **name}),
        ),
    };
    let hour = now.get(..13).unwrap_or(now);
    let text = format!("{regarding} {} {} {hour}", notice.reason, notice.note);
    let note = notice.note.floor_char_boundary(NOTE);
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "namespace": namespace,
            "name": format!("derny-{:016x}", XxHash3_64::oneshot(text.as_bytes())),
        },
        "eventTime": micro_time(now),
        "type": "Warning",
        "reason": notice.reason,
        "action": "LeaveAlone",
        "note": &notice.note[..note],
        "regarding": regarding,
        "reportingController": super::status::CONTROLLER,
        "reportingInstance": node.get(..128).unwrap_or(node),
    })
}

/// RFC 3339 with exactly six decimals, as MicroTime is written.
fn micro_time(now: &str) -> String {
    let (whole, rest) = now.split_once('.').unwrap_or((now.trim_end_matches('Z'), ""));
    format!("{whole}.{:0<6.6}Z", rest.trim_end_matches('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contested(note: &str) -> Notice {
        Notice {
            about: About::Service(ServiceName {
                namespace: "demo".into(),
                name: "echo".into(),
            }),
            reason: "AddressContested",
            note: note.to_owned(),
        }
    }

    #[test]
    fn what_stands_is_said_once_and_again_before_it_is_forgotten() {
        let (mut said, now) = (HashMap::new(), Instant::now());
        let both = || vec![contested("a"), contested("b")];
        assert_eq!(due(&mut said, both(), now), both());
        said.insert(contested("a"), now);
        assert_eq!(due(&mut said, both(), now), [contested("b")]);
        assert_eq!(due(&mut said, both(), now + AGAIN), both());
        assert_eq!(due(&mut said, Vec::new(), now), []);
        assert!(said.is_empty(), "it has to be said when it is so again");
        let many = (0..2 * AT_MOST).map(|n| contested(&n.to_string())).collect();
        assert_eq!(due(&mut said, many, now).len(), AT_MOST);
    }

    #[test]
    fn the_same_notice_of_several_nodes_is_one_event_an_hour() {
        let name = |node, notice: &Notice, now| event(node, notice, now)["metadata"]["name"].clone();
        let one = name("n1", &contested("a"), "2026-11-27T01:02:03.4Z");
        assert_eq!(one, name("n2", &contested("a"), "2026-11-27T01:59:59Z"));
        assert_ne!(one, name("n1", &contested("a"), "2026-11-27T02:02:03Z"));
        assert_ne!(one, name("n1", &contested("b"), "2026-11-27T01:02:03Z"));
        let long = event("n1", &contested(&"é".repeat(2000)), "2026-11-27T01:02:03Z");
        assert_eq!(long["note"].as_str().unwrap().len(), NOTE);
    }

    #[test]
    fn times_have_six_decimals() {
        assert_eq!(micro_time("2026-11-27T01:02:03Z"), "2026-11-27T01:02:03.000000Z");
        assert_eq!(
            micro_time("2026-11-27T01:02:03.4Z"),
            "2026-11-27T01:02:03.400000Z"
        );
        assert_eq!(
            micro_time("2026-11-27T01:02:03.123456789Z"),
            "2026-11-27T01:02:03.123456Z"
        );
    }
}
