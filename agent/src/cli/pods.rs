//! `derny pods`

use super::{
    Failure,
    output::{self, Output, or_dash},
};
use crate::admin::proto::Pod;

pub(super) fn show(pods: &[Pod], output: Output) -> Result<(), Failure> {
    output::print(output, pods, table)
}

fn table(pods: &[Pod]) -> String {
    let header = [
        "NAMESPACE",
        "NAME",
        "WORKLOAD",
        "SLOT",
        "ADDRESSES",
        "CONNECTIONS",
        "STATE",
    ];
    output::table(header, pods.iter().map(row))
}

fn row(pod: &Pod) -> [String; 7] {
    let state = match pod.reason.as_str() {
        "" => pod.state().word().to_owned(),
        reason => format!("{}: {reason}", pod.state().word()),
    };
    [
        pod.namespace.clone(),
        pod.name.clone(),
        pod.workload.clone(),
        pod.slot.to_string(),
        or_dash(pod.addresses.join(" ")),
        pod.open_connections.to_string(),
        state,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::proto::PodState;

    #[test]
    fn a_waiting_pod_says_why() {
        let pod = Pod {
            namespace: "demo".to_owned(),
            name: "echo-1".to_owned(),
            workload: "echo".to_owned(),
            slot: 4,
            state: PodState::Waiting.into(),
            reason: "no such file".to_owned(),
            ..Pod::default()
        };
        let text = table(&[pod]);
        assert_eq!(
            text,
            "NAMESPACE  NAME    WORKLOAD  SLOT  ADDRESSES  CONNECTIONS  STATE\n\
             demo       echo-1  echo      4     -          0            waiting: no such file"
        );
    }
}
