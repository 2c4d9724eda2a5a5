//! On which ports calls to a pod pass the engine. Pure.

use std::collections::BTreeMap;

use super::objects::{Container, Pod};
use crate::{
    config::{self, ProtocolHints},
    model::{InboundLimits, InboundPort, Protocol},
};

/// `PORT=PROTOCOL`, by commas: corrects and adds to what the containers declare.
pub(super) const ANNOTATION: &str = "derny.dev/inbound";
/// In the place of a protocol: calls to this port are left alone.
const OFF: &str = "off";

/// The ports, in ascending order, and what is wrong with the annotation.
pub(super) fn inbound(pod: &Pod) -> (Vec<InboundPort>, Vec<String>) {
    let sidecars = pod
        .spec
        .init_containers
        .iter()
        .filter(|container| is_sidecar(container));
    let declared = pod.spec.containers.iter().chain(sidecars);
    let ports = declared.flat_map(|container| &container.ports);
    let is_tcp = |protocol: &Option<String>| protocol.as_deref().is_none_or(|p| p == "TCP");
    let mut protocols: BTreeMap<u16, Protocol> = ports
        .filter(|port| is_tcp(&port.protocol))
        .filter_map(|port| {
            let hints = ProtocolHints {
                port_name: port.name.as_deref(),
                ..ProtocolHints::default()
            };
            let number = u16::try_from(port.container_port)
                .ok()
                .filter(|number| *number != 0)?;
            Some((number, config::protocol(hints)))
        })
        .collect();
    let mut faults = Vec::new();
    if let Some(text) = pod.metadata.annotations.get(ANNOTATION) {
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match correction(word) {
                Ok((port, Some(protocol))) => drop(protocols.insert(port, protocol)),
                Ok((port, None)) => drop(protocols.remove(&port)),
                Err(fault) => faults.push(format!("{ANNOTATION}: {fault}")),
            }
        }
    }
    let ports = protocols.into_iter().map(|(port, protocol)| InboundPort {
        port,
        protocol,
        limits: InboundLimits::default(),
    });
    (ports.collect(), faults)
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// `None` for a port that is to be left alone.
fn correction(word: &str) -> Result<(u16, Option<Protocol>), String> {
    let shape = || format!("`{word}` is not PORT=PROTOCOL, such as 8080=grpc or 9090=off");
    let (port, protocol) = word.split_once('=').ok_or_else(shape)?;
    let port = port
        .trim()
        .parse::<u16>()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(shape)?;
    let protocol = protocol.trim();
    if protocol == OFF {
        return Ok((port, None));
    }
    let known = Protocol::ALL.into_iter().find(|known| known.as_str() == protocol);
    match known {
        Some(known) => Ok((port, Some(known))),
        None => {
            let words: Vec<&str> = Protocol::ALL.iter().map(|known| known.as_str()).collect();
            Err(format!(
                "`{protocol}` is no protocol: write {} or {OFF}",
                words.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pod(annotation: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "uid": "u", "annotations": {ANNOTATION: annotation}},
            "spec": {
                "containers": [
                    {"ports": [{"name": "grpc-main", "containerPort": 8080}, {"containerPort": 9090, "protocol": "TCP"}]},
                    {"ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}, {"containerPort": 70000}]},
                ],
                "initContainers": [
                    {"ports": [{"name": "http-sidecar", "containerPort": 7000}], "restartPolicy": "Always"},
                    {"ports": [{"name": "http", "containerPort": 7001}]},
                ],
            },
        }))
        .unwrap()
    }

    fn words(annotation: &str) -> (String, Vec<String>) {
        let (ports, faults) = inbound(&pod(annotation));
        let words: Vec<String> = ports
            .iter()
            .map(|port| format!("{}={}", port.port, port.protocol))
            .collect();
        (words.join(" "), faults)
    }

    #[test]
    fn ports_come_from_the_containers_and_the_annotation_corrects_them() {
        let check = |annotation: &str, ports: &str, faults: &[&str]| {
            let faults: Vec<String> = faults
                .iter()
                .map(|fault| format!("{ANNOTATION}: {fault}"))
                .collect();
            assert_eq!(words(annotation), (ports.to_owned(), faults), "{annotation}");
        };
        check("", "7000=http 8080=grpc 9090=detect", &[]);
        check("9090=off", "7000=http 8080=grpc", &[]);
        check(
            " 9090=http2, 8080=tcp ,7070=tls,",
            "7000=http 7070=tls 8080=tcp 9090=http2",
            &[],
        );
        check("1234=off", "7000=http 8080=grpc 9090=detect", &[]);
        let shape = "is not PORT=PROTOCOL, such as 8080=grpc or 9090=off";
        check(
            "9090,0=grpc,x=grpc,8080=http",
            "7000=http 8080=http 9090=detect",
            &[
                &format!("`9090` {shape}"),
                &format!("`0=grpc` {shape}"),
                &format!("`x=grpc` {shape}"),
            ],
        );
        check(
            "9090=h3",
            "7000=http 8080=grpc 9090=detect",
            &["`h3` is no protocol: write detect, http, http2, grpc, tcp, tls or off"],
        );
    }

    proptest! {
        #[test]
        fn any_annotation_leaves_ascending_ports(annotation in "[0-9=,a-z é]{0,60}") {
            let (ports, _) = inbound(&pod(&annotation));
            prop_assert!(ports.is_sorted_by(|a, b| a.port < b.port));
        }
    }
}
