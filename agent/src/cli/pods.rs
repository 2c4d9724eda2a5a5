//! `derny pods`

use super::{
    failure::Failure,
    output::{self, Output, age, or_dash},
};
use crate::admin::proto::Pod;

pub(super) fn show(pods: &[Pod], output: Output) -> Result<(), Failure> {
    output::print(output, pods, |pods| table(pods, output::now()))
}

/// `now` in milliseconds since the Unix epoch.
fn table(pods: &[Pod], now: u64) -> String {
    let header = [
        "NAMESPACE",
        "NAME",
        "WORKLOAD",
        "SLOT",
        "ADDRESSES",
        "CONNECTIONS",
        "CPU",
        "MEMORY",
        "STATE",
    ];
    output::table(header, pods.iter().map(|pod| row(pod, now)))
}

fn row(pod: &Pod, now: u64) -> [String; 9] {
    let mut state = pod.state().word().to_owned();
    if let Some(at) = pod.enrolled_at_ms {
        state = format!("{state} for {}", age(now.saturating_sub(at)));
    }
    if pod.held {
        state.push_str(" (strict: what it dials is refused)");
    }
    if pod.aside {
        state.push_str(" (share used up: new connections pass the agent by)");
    }
    for said in [&pod.reason, &pod.note]
        .into_iter()
        .filter(|said| !said.is_empty())
    {
        state = format!("{state}: {said}");
    }
    [
        pod.namespace.clone(),
        pod.name.clone(),
        pod.workload.clone(),
        or_dash(pod.slot.map(|slot| slot.to_string()).unwrap_or_default()),
        or_dash(pod.addresses.join(" ")),
        pod.open_connections.to_string(),
        age(pod.cpu_ms),
        format!("{} KiB", pod.memory_bytes >> 10),
        state,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::proto::PodState;

    #[test]
    fn a_pod_that_is_not_enrolled_says_why() {
        let pod = Pod {
            namespace: "demo".to_owned(),
            name: "echo-1".to_owned(),
            workload: "echo".to_owned(),
            slot: Some(4),
            state: PodState::Waiting.into(),
            reason: "no such file".to_owned(),
            ..Pod::default()
        };
        let enrolled = Pod {
            name: "echo-2".to_owned(),
            slot: Some(5),
            state: PodState::Enrolled.into(),
            reason: String::new(),
            enrolled_at_ms: Some(1_000),
            note: "odd".to_owned(),
            ..pod.clone()
        };
        let alone = Pod {
            name: "echo-3".to_owned(),
            slot: None,
            state: PodState::LeftAlone.into(),
            reason: "it has finished".to_owned(),
            ..pod.clone()
        };
        let held = Pod {
            held: true,
            ..pod.clone()
        };
        let text = table(&[pod, enrolled, alone], 61_000);
        assert_eq!(
            text,
            "NAMESPACE  NAME    WORKLOAD  SLOT  ADDRESSES  CONNECTIONS  CPU  MEMORY  STATE\n\
             demo       echo-1  echo      4     -          0            0s   0 KiB   waiting: no such file\n\
             demo       echo-2  echo      5     -          0            0s   0 KiB   enrolled for 1m: odd\n\
             demo       echo-3  echo      -     -          0            0s   0 KiB   left alone: it has finished"
        );
        let [.., state] = row(&held, 61_000);
        assert_eq!(state, "waiting (strict: what it dials is refused): no such file");
    }
}
