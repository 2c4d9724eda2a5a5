//! `derny redirects`: read from the kernel's tables and not from the agent, so that it works while the agent hangs.

use std::time::Duration;

use anyhow::Context as _;
use serde::{Serialize, Serializer};

use super::{
    failure::Failure,
    output::{self, Output, age, or_dash},
};
use crate::intercept::{InterceptError, Observer, Path, SlotCounters};

/// What one agent has put into the kernel. There is more than one only while one agent replaces another.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Agent {
    redirecting: bool,
    /// `None` before the first heartbeat.
    heartbeat_age_ms: Option<u64>,
    /// Older than this, and connections are left alone.
    stale_after_ms: u64,
    /// Enrolled pods; the last entry, without a slot, counts connections of no pod.
    pods: Vec<Pod>,
    /// Pods whose connections are refused until they are enrolled.
    held: Vec<Held>,
    destinations: Vec<Destination>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    slot: Option<u16>,
    netns_cookie: Option<u64>,
    label: String,
    /// Connections since the pod was enrolled; `docs/kernel.md` says when each one counts.
    #[serde(serialize_with = "by_path")]
    counters: SlotCounters,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Held {
    label: String,
    /// Inode number of its directory.
    control_group: u64,
    /// Connections, since it is held.
    refused: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Destination {
    id: u32,
    address: String,
    label: String,
    hits: u64,
}

/// Prints it; a finding when nothing is being redirected.
pub(super) fn run(output: Output) -> Result<(), Failure> {
    let agents = observe().context("cannot read the kernel's tables (this needs root)")?;
    output::print(output, agents.as_slice(), text)?;
    if agents.iter().any(|agent| agent.redirecting) {
        Ok(())
    } else {
        Err(Failure::Finding)
    }
}

fn observe() -> Result<Vec<Agent>, InterceptError> {
    Observer::find()?.iter().map(agent).collect()
}

fn agent(observer: &Observer) -> Result<Agent, InterceptError> {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (heartbeat_age, stale_after) = (observer.heartbeat_age()?, observer.stale_after()?);
    let mut pods: Vec<Pod> = observer
        .pods()?
        .into_iter()
        .map(|pod| Pod {
            slot: Some(pod.slot.get()),
            netns_cookie: Some(pod.netns_cookie),
            label: pod.label,
            counters: SlotCounters::default(),
        })
        .collect();
    for counters in observer.counters()? {
        let slot = counters.slot.map(|slot| slot.get());
        match pods.iter_mut().find(|pod| pod.slot == slot) {
            Some(pod) => pod.counters = counters,
            // Enrolled between the two looks at the tables: there next time.
            None if slot.is_some() => {}
            None => pods.push(Pod {
                counters,
                ..Pod::default()
            }),
        }
    }
    let destinations = observer
        .destinations()?
        .into_iter()
        .map(|destination| Destination {
            id: destination.id.get(),
            address: destination.address.to_string(),
            label: destination.label,
            hits: destination.hits,
        });
    let held = observer.held()?.into_iter().map(|held| Held {
        label: held.label,
        control_group: held.group.0,
        refused: held.hits,
    });
    Ok(Agent {
        redirecting: heartbeat_age.is_some_and(|age| age <= stale_after),
        heartbeat_age_ms: heartbeat_age.map(milliseconds),
        stale_after_ms: milliseconds(stale_after),
        pods,
        held: held.collect(),
        destinations: destinations.collect(),
    })
}

/// By the path's name, as the other fields are written.
fn by_path<S: Serializer>(counters: &SlotCounters, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(
        counters
            .iter()
            .map(|(path, count)| (camel_case(path.as_str()), count)),
    )
}

fn camel_case(snake: &str) -> String {
    let mut words = snake.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |text, word| {
        let (head, tail) = word.split_at(word.len().min(1));
        text + &head.to_ascii_uppercase() + tail
    })
}

fn text(agents: &[Agent]) -> String {
    match agents {
        [] => "no agent: the kernel redirects nothing".to_owned(),
        agents => agents.iter().map(one).collect::<Vec<_>>().join("\n\n"),
    }
}

fn one(agent: &Agent) -> String {
    let state = match (agent.redirecting, agent.heartbeat_age_ms) {
        (true, _) => "redirecting".to_owned(),
        (false, None) => "standing aside: the agent has not begun yet".to_owned(),
        (false, Some(ms)) => {
            let (old, limit) = (age(ms), age(agent.stale_after_ms));
            format!("standing aside: the heartbeat is {old} old, more than {limit}")
        }
    };
    let header = [
        "SLOT",
        "POD",
        "REDIRECTED",
        "INBOUND",
        "SAME-NODE",
        "UNKNOWN",
        "STALE",
        "OTHER",
    ];
    let pods = output::table(header, agent.pods.iter().map(pod_row));
    let destinations = output::table(
        ["ID", "ADDRESS", "DESTINATION", "HITS"],
        agent.destinations.iter().map(destination_row),
    );
    // Most nodes never have one.
    let held = match agent.held.as_slice() {
        [] => String::new(),
        held => {
            let rows = held
                .iter()
                .map(|held| [held.label.clone(), held.refused.to_string()]);
            format!("\n\n{}", output::table(["HELD UNTIL ENROLLED", "REFUSED"], rows))
        }
    };
    format!("{state}\n\n{pods}{held}\n\n{destinations}")
}

fn pod_row(pod: &Pod) -> [String; 8] {
    let counters = &pod.counters;
    let sum = |paths: &[Path]| paths.iter().map(|path| counters[*path]).sum::<u64>();
    let stale = sum(&[Path::PassedStale, Path::SkippedStale]);
    let shown = [
        Path::Redirected,
        Path::SteeredInbound,
        Path::SkippedSameNode,
        Path::PassedUnknown,
    ];
    // What has no column, and is not a second sight of what has one.
    let others = sum(Path::ALL) - sum(&shown) - stale - sum(&[Path::SteeredOutbound]);
    let [redirected, inbound, same_node, unknown] = shown.map(|path| counters[path].to_string());
    [
        or_dash(pod.slot.map(|slot| slot.to_string()).unwrap_or_default()),
        or_dash(pod.label.clone()),
        redirected,
        inbound,
        same_node,
        unknown,
        stale.to_string(),
        others.to_string(),
    ]
}

fn destination_row(destination: &Destination) -> [String; 4] {
    [
        destination.id.to_string(),
        destination.address.clone(),
        destination.label.clone(),
        destination.hits.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(redirecting: bool, heartbeat_age_ms: Option<u64>) -> String {
        shown_with(redirecting, heartbeat_age_ms, vec![])
    }

    fn shown_with(redirecting: bool, heartbeat_age_ms: Option<u64>, held: Vec<Held>) -> String {
        let mut counters = SlotCounters::default();
        for (path, count) in [
            (Path::Redirected, 12),
            (Path::SteeredOutbound, 11),
            (Path::PassedStale, 1),
            (Path::SkippedStale, 2),
            (Path::NoListener, 5),
        ] {
            counters[path] = count;
        }
        let label = "demo/client-1".to_owned();
        let pod = Pod {
            slot: Some(3),
            netns_cookie: Some(4097),
            label,
            counters,
        };
        let (address, label) = ("10.96.0.10:80".to_owned(), "demo/echo:80".to_owned());
        let destinations = vec![Destination {
            id: 1,
            address,
            label,
            hits: 12,
        }];
        let pods = vec![pod, Pod::default()];
        text(&[Agent {
            redirecting,
            heartbeat_age_ms,
            stale_after_ms: 1000,
            pods,
            held,
            destinations,
        }])
    }

    #[test]
    fn counters_are_written_by_their_names() {
        let pod = serde_json::to_value(Pod::default()).unwrap();
        let counters = pod["counters"].as_object().unwrap();
        assert_eq!(counters.len(), Path::ALL.len());
        assert!(counters.contains_key("passedNoIpv6"), "{pod}");
    }

    #[test]
    fn shows_state_pods_and_destinations() {
        assert_eq!(
            shown(true, Some(20)),
            "redirecting\n\n\
             SLOT  POD            REDIRECTED  INBOUND  SAME-NODE  UNKNOWN  STALE  OTHER\n\
             3     demo/client-1  12          0        0          0        3      5\n\
             -     -              0           0        0          0        0      0\n\n\
             ID  ADDRESS        DESTINATION   HITS\n\
             1   10.96.0.10:80  demo/echo:80  12"
        );
        assert!(
            shown(false, Some(7300)).starts_with("standing aside: the heartbeat is 7s old, more than 1s\n")
        );
        assert!(shown(false, None).starts_with("standing aside: the agent has not begun yet\n"));
        let held = Held {
            label: "demo/late".to_owned(),
            control_group: 42,
            refused: 3,
        };
        let shown = shown_with(true, Some(20), vec![held]);
        assert!(
            shown.contains("\n\nHELD UNTIL ENROLLED  REFUSED\ndemo/late            3\n\nID "),
            "{shown}"
        );
        assert_eq!(text(&[]), "no agent: the kernel redirects nothing");
    }
}
