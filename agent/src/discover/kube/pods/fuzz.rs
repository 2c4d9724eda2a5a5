//! This room's parsers for `crate::fuzz`.

use super::{facts::Facts, inbound, objects};

/// A pod as the API server sends it.
pub(crate) fn object(bytes: &[u8]) {
    if let Ok(pod) = serde_json::from_slice::<objects::Pod>(bytes) {
        Facts::of(&pod);
    }
}

/// A pod's annotation: ports in ascending order, each once, none 0.
pub(crate) fn inbound(text: &str) {
    let mut pod = objects::Pod::default();
    let annotation = (inbound::ANNOTATION.to_owned(), text.to_owned());
    pod.metadata.annotations.extend([annotation]);
    let (ports, _) = inbound::inbound(&pod);
    assert!(ports.is_sorted_by(|a, b| a.port < b.port), "{ports:?}");
    assert!(ports.first().is_none_or(|port| port.port > 0), "{ports:?}");
}
