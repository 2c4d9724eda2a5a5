//! What the windows show of pods: those in the snapshot, and those beside it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    admin::proto,
    discover::kube::PodBoard,
    model::{PodName, PodState, PodStatus, Slot, Standing},
    publish::EnrolmentTimes,
    record::{Histogram, Hub},
};

use super::millis::unix_ms;

/// How many pods are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) enrolled: u64,
    pub(super) waiting: u64,
    pub(super) left_alone: u64,
}

pub(super) fn counts(placed: &[PodStatus], board: Option<&PodBoard>) -> Counts {
    let mut counts = Counts::default();
    for status in placed {
        match status.state {
            PodState::Enrolled { .. } => counts.enrolled += 1,
            PodState::Waiting { .. } => counts.waiting += 1,
        }
    }
    for bystander in board.map(PodBoard::bystanders).unwrap_or_default() {
        match bystander.standing {
            Standing::Waiting => counts.waiting += 1,
            Standing::LeftAlone => counts.left_alone += 1,
        }
    }
    counts
}

/// In ascending order of namespace and name. What pods that are `held` dial is refused.
pub(super) fn list(
    placed: &[PodStatus],
    board: Option<&PodBoard>,
    hub: &Hub,
    held: &BTreeSet<PodName>,
) -> Vec<proto::Pod> {
    let placed = placed.iter().map(|status| {
        let pod = &status.pod;
        let shown = proto::Pod {
            namespace: pod.name.namespace.to_string(),
            name: pod.name.name.to_string(),
            workload: pod.workload.to_string(),
            slot: Some(status.slot.get().into()),
            netns: pod.netns.path().display().to_string(),
            held: held.contains(&pod.name),
            note: board.and_then(|board| board.note(&pod.name)).unwrap_or_default(),
            ..proto::Pod::default()
        };
        match &status.state {
            PodState::Enrolled {
                id,
                addresses,
                over_share,
                at,
            } => proto::Pod {
                note: noted(&shown.note, *over_share),
                netns_cookie: Some(id.netns_cookie),
                open_connections: hub.open_connections(*id),
                addresses: addresses.iter().map(ToString::to_string).collect(),
                state: proto::PodState::Enrolled.into(),
                enrolled_at_ms: Some(unix_ms(*at)),
                ..shown
            },
            PodState::Waiting { reason } => proto::Pod {
                state: proto::PodState::Waiting.into(),
                reason: reason.clone(),
                ..shown
            },
        }
    });
    let beside = board.map(PodBoard::bystanders).unwrap_or_default();
    let beside = beside.into_iter().map(|bystander| proto::Pod {
        namespace: bystander.name.namespace.to_string(),
        name: bystander.name.name.to_string(),
        workload: bystander.workload.to_string(),
        state: match bystander.standing {
            Standing::Waiting => proto::PodState::Waiting,
            Standing::LeftAlone => proto::PodState::LeftAlone,
        }
        .into(),
        held: held.contains(&bystander.name),
        reason: bystander.reason,
        ..proto::Pod::default()
    });
    let mut all: Vec<proto::Pod> = placed.chain(beside).collect();
    all.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    all
}

/// `over_share` is how many pairs of address and port are left alone.
fn noted(note: &str, over_share: usize) -> String {
    let refused = format!(
        "calls to {over_share} of its addresses and ports are left alone: more than its share (--max-inbound)"
    );
    match (note, over_share) {
        (note, 0) => note.to_owned(),
        ("", _) => refused,
        (note, _) => format!("{note}; {refused}"),
    }
}

/// (namespace, name) by slot.
pub(super) fn names(placed: &[PodStatus]) -> BTreeMap<Slot, (String, String)> {
    let names = placed.iter().map(|status| {
        let name = &status.pod.name;
        (status.slot, (name.namespace.to_string(), name.name.to_string()))
    });
    names.collect()
}

pub(super) fn histogram(times: &EnrolmentTimes) -> Histogram {
    let buckets = times.buckets().into_iter();
    Histogram {
        buckets: buckets
            .map(|(bound, n)| (bound.map_or(f64::INFINITY, |bound| bound.as_secs_f64()), n))
            .collect(),
        sum: times.sum().as_secs_f64(),
    }
}
