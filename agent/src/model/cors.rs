//! Whose pages may call a service by a browser: the Gateway API's `HTTPCORSFilter`, as checked data.

use std::sync::Arc;

use http::HeaderValue;

#[derive(Clone, Debug, PartialEq)]
pub struct Cors {
    pub origins: CorsOrigins,
    /// Whether requests may have cookies and the like.
    pub credentials: bool,
    pub methods: CorsList,
    pub headers: CorsList,
    /// Headers of responses that a page may see.
    pub expose: CorsList,
    /// How long a browser keeps the answer to a preflight, in seconds.
    pub max_age: HeaderValue,
}

#[derive(Clone, Debug, PartialEq)]
pub enum CorsOrigins {
    Any,
    Listed(Vec<OriginPattern>),
}

/// Origins with this scheme and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern {
    /// `http` or `https`.
    pub scheme: Arc<str>,
    pub host: HostPattern,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    Any,
    Exact(Arc<str>),
    /// Hosts that end so and have something before it: `.example.com`.
    Below(Arc<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsList {
    Nothing,
    Any,
    /// Joined, as a header has them.
    Listed(HeaderValue),
}
