//! What a port speaks, as far as anybody said.

use std::fmt;

/// The protocol of a service port or of a pod's inbound port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// Nobody said: the first bytes decide.
    #[default]
    Detect,
    /// HTTP/1.1 or HTTP/2, as the caller speaks; the version is kept upstream.
    Http,
    /// HTTP/2 upstream whatever the caller speaks.
    Http2,
    /// gRPC: HTTP/2 upstream, and local errors in gRPC's form.
    Grpc,
    /// Opaque bytes. Never sniffed, so that server-first protocols work.
    Tcp,
    /// TLS, passed through. The client hello is read for its server name.
    Tls,
}

impl Protocol {
    pub const ALL: [Protocol; 6] = [
        Self::Detect,
        Self::Http,
        Self::Http2,
        Self::Grpc,
        Self::Tcp,
        Self::Tls,
    ];

    /// The word in configuration, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
