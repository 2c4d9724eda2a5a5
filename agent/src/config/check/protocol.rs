//! What a port speaks, from what is said about it.

use crate::model::Protocol;

/// All that a port may say about its protocol, the strongest first.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProtocolHints<'a> {
    /// Derny's own word.
    pub declared: Option<Protocol>,
    /// Kubernetes' `appProtocol`.
    pub app_protocol: Option<&'a str>,
    /// `grpc-main`, `http`, …
    pub port_name: Option<&'a str>,
}

/// The first hint that says something decides; without one the first bytes will.
///
/// An `appProtocol` that is not known here is no fault: the field is open to anybody's names.
pub fn protocol(hints: ProtocolHints<'_>) -> Protocol {
    hints
        .declared
        .or_else(|| hints.app_protocol.and_then(app_protocol))
        .or_else(|| hints.port_name.and_then(port_name))
        .unwrap_or_default()
}

/// `kubernetes.io/…` are the standard names of KEP-3726; the rest are IANA's and what meshes have made common.
fn app_protocol(text: &str) -> Option<Protocol> {
    match text.to_ascii_lowercase().as_str() {
        "kubernetes.io/h2c" => Some(Protocol::Http2),
        "kubernetes.io/ws" => Some(Protocol::Http),
        "kubernetes.io/wss" => Some(Protocol::Tls),
        word => word_protocol(word),
    }
}

/// The name up to its first dash, except that `grpc-web` is HTTP: its frames are not gRPC's.
fn port_name(name: &str) -> Option<Protocol> {
    if name == "grpc-web" || name.starts_with("grpc-web-") {
        return Some(Protocol::Http);
    }
    word_protocol(name.split('-').next().unwrap_or(name))
}

fn word_protocol(word: &str) -> Option<Protocol> {
    match word {
        "http" | "grpc-web" => Some(Protocol::Http),
        "http2" | "h2c" => Some(Protocol::Http2),
        "grpc" => Some(Protocol::Grpc),
        "https" | "tls" => Some(Protocol::Tls),
        // The databases' servers speak first, or in a way that must not be taken for HTTP.
        "tcp" | "mysql" | "redis" | "mongo" | "postgres" => Some(Protocol::Tcp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_hint_decides() {
        fn check(declared: &str, app: &str, name: &str, expect: Protocol) {
            let hints = ProtocolHints {
                declared: Protocol::ALL.into_iter().find(|p| p.as_str() == declared),
                app_protocol: (!app.is_empty()).then_some(app),
                port_name: (!name.is_empty()).then_some(name),
            };
            assert_eq!(protocol(hints), expect, "{:?}", (declared, app, name));
        }
        check("", "", "", Protocol::Detect);
        check("tcp", "grpc", "http", Protocol::Tcp);
        check("detect", "grpc", "http", Protocol::Detect);
        check("", "kubernetes.io/h2c", "tcp", Protocol::Http2);
        check("", "kubernetes.io/ws", "", Protocol::Http);
        check("", "kubernetes.io/wss", "", Protocol::Tls);
        check("", "https", "", Protocol::Tls);
        check("", "GRPC", "", Protocol::Grpc);
        check("", "grpc-web", "", Protocol::Http);
        check("", "example.com/own", "grpc-main", Protocol::Grpc);
        check("", "example.com/own", "", Protocol::Detect);
        check("", "", "grpc", Protocol::Grpc);
        check("", "", "grpc-web", Protocol::Http);
        check("", "", "grpc-web-main", Protocol::Http);
        check("", "", "grpc-website", Protocol::Grpc);
        check("", "", "grpcs", Protocol::Detect);
        check("", "", "http2-a-b", Protocol::Http2);
        check("", "", "postgres-0", Protocol::Tcp);
        check("", "", "web-http", Protocol::Detect);
    }
}
