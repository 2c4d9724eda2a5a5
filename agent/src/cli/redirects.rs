//! `derny redirects`: read from the kernel's tables and not from the agent, so that it works while the agent hangs.

use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::{
    Failure,
    output::{self, Output, age, or_dash},
};
use crate::intercept::{InterceptError, Observer, SlotCounters};

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
    counters: Counters,
}

/// Connections since the pod was enrolled; `docs/kernel.md` says when each one counts.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counters {
    redirected: u64,
    passed_unknown: u64,
    passed_not_enrolled: u64,
    passed_stale: u64,
    passed_no_ipv6: u64,
    passed_bound_device: u64,
    passed_no_memory: u64,
    steered_outbound: u64,
    steered_inbound: u64,
    skipped_same_node: u64,
    skipped_node_address: u64,
    skipped_loopback: u64,
    skipped_stale: u64,
    no_listener: u64,
    origin_lost: u64,
    refused_strict: u64,
    refused_dead: u64,
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
            counters: Counters::default(),
        })
        .collect();
    for counters in observer.counters()? {
        let slot = counters.slot.map(|slot| slot.get());
        match pods.iter_mut().find(|pod| pod.slot == slot) {
            Some(pod) => pod.counters = counters.into(),
            // Enrolled between the two looks at the tables: there next time.
            None if slot.is_some() => {}
            None => pods.push(Pod {
                counters: counters.into(),
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

impl From<SlotCounters> for Counters {
    fn from(from: SlotCounters) -> Self {
        Self {
            redirected: from.redirected,
            passed_unknown: from.passed_unknown,
            passed_not_enrolled: from.passed_not_enrolled,
            passed_stale: from.passed_stale,
            passed_no_ipv6: from.passed_no_ipv6,
            passed_bound_device: from.passed_bound_device,
            passed_no_memory: from.passed_no_memory,
            steered_outbound: from.steered_outbound,
            steered_inbound: from.steered_inbound,
            skipped_same_node: from.skipped_same_node,
            skipped_node_address: from.skipped_node_address,
            skipped_loopback: from.skipped_loopback,
            skipped_stale: from.skipped_stale,
            no_listener: from.no_listener,
            origin_lost: from.origin_lost,
            refused_strict: from.refused_strict,
            refused_dead: from.refused_dead,
        }
    }
}

impl Counters {
    /// What a pod's row has no column for.
    fn others(&self) -> u64 {
        self.passed_not_enrolled
            + self.passed_no_ipv6
            + self.passed_bound_device
            + self.passed_no_memory
            + self.skipped_node_address
            + self.skipped_loopback
            + self.no_listener
            + self.origin_lost
            + self.refused_strict
            + self.refused_dead
    }
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
    let stale = counters.passed_stale + counters.skipped_stale;
    [
        or_dash(pod.slot.map(|slot| slot.to_string()).unwrap_or_default()),
        or_dash(pod.label.clone()),
        counters.redirected.to_string(),
        counters.steered_inbound.to_string(),
        counters.skipped_same_node.to_string(),
        counters.passed_unknown.to_string(),
        stale.to_string(),
        counters.others().to_string(),
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
        let counters = Counters {
            redirected: 12,
            passed_stale: 1,
            skipped_stale: 2,
            no_listener: 5,
            ..Default::default()
        };
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
