//! What is written of bytes that others choose: it must read as what it is meant to be.

use crate::{
    model::{ServiceName, ServicePortName},
    record::{self, Direction, Hub, NodeSample, ScopeKey, SeriesBounds, Source},
};

/// A value of the access log, whole and cut: one line of JSON.
pub(super) fn access_line(bytes: &[u8]) {
    let (most, value) = bytes
        .split_first()
        .map_or((0, bytes), |(first, rest)| (usize::from(*first), rest));
    let line = record::json_object("value", value, most);
    assert!(!line.contains(&b'\n'), "one line");
    let object: serde_json::Value = match serde_json::from_slice(&line) {
        Ok(object) => object,
        Err(error) => unreachable!("{error}: {line:?}"),
    };
    let text = object["value"].as_str().map_or(0, str::len);
    // What is no UTF-8 becomes three bytes, and so does the mark.
    assert!(text <= most * 3 + 3, "{text} bytes");
}

/// Names as labels: each line is a comment or a sample.
pub(super) fn metrics_page(bytes: &[u8]) {
    let hub = Hub::new(SeriesBounds::default());
    let counters = hub.worker();
    let name = String::from_utf8_lossy(bytes);
    let key = ScopeKey {
        direction: Direction::Outbound,
        source: Source {
            namespace: (&*name).into(),
            workload: (&*name).into(),
        },
        destination: ServicePortName {
            service: ServiceName {
                namespace: (&*name).into(),
                name: (&*name).into(),
            },
            port: 80,
        },
    };
    counters.scope(key).retried();
    let page = record::encode(&hub, NodeSample::default());
    // Not `str::lines`, which ends a line at a carriage return too.
    for line in page.split('\n').filter(|line| !line.is_empty()) {
        assert!(line.starts_with("derny_") || line.starts_with("# "), "{line:?}");
    }
    assert!(page.ends_with("# EOF\n"));
}
