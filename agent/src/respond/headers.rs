//! Headers on their way through.

use std::net::{IpAddr, SocketAddr};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version,
    header::{self, Entry},
    request, response,
    uri::{Authority, Scheme},
};

use super::LocalError;
use crate::model::Protocol;

/// What the next hop speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Http1,
    Http2,
}

impl Via {
    /// How an endpoint whose port speaks `protocol` gets a request that came by `version`.
    pub fn of(protocol: Protocol, version: Version) -> Self {
        match protocol {
            Protocol::Http2 | Protocol::Grpc => Self::Http2,
            _ if version == Version::HTTP_2 => Self::Http2,
            _ => Self::Http1,
        }
    }
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Takes the last hop's headers off a request and makes it fit for the next hop (RFC 9110 section 7.6.1,
/// RFC 9113 section 8.2.2). Adds the caller to `x-forwarded-for`, as
/// `unknown` when its address is not known: the last entry is always this engine's word.
///
/// `proxy-authorization` and `proxy-authenticate` stay: the caller does not know of this proxy, and speaks to another.
pub fn prepare_request(
    head: &mut request::Parts,
    caller: Option<IpAddr>,
    via: Via,
) -> Result<(), LocalError> {
    // The engine says 100 to its caller itself, so that the endpoint is not asked for it (RFC 9110 section 10.1.1).
    if expects_continue(&head.headers) {
        head.headers.remove(header::EXPECT);
    }
    let upgrade = upgrade_of(head);
    let trailers = accepts_trailers(&head.headers);
    remove_hop_by_hop(&mut head.headers);
    if trailers {
        head.headers
            .insert(header::TE, HeaderValue::from_static("trailers"));
    }
    forwarded_for(&mut head.headers, caller);
    match via {
        Via::Http1 => {
            if head.version == Version::HTTP_2 {
                to_http1(head)?;
            }
            head.version = Version::HTTP_11;
            if let Some(protocol) = upgrade {
                head.headers
                    .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                head.headers.insert(header::UPGRADE, protocol);
            }
        }
        Via::Http2 => {
            // Other upgrades are offers that nobody needs to take (RFC 9110 section 7.8).
            let wants_websocket = upgrade.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"websocket"));
            if wants_websocket || head.method == Method::CONNECT {
                return Err(LocalError::BadRequest {
                    reason: "an upgrade cannot be passed on over HTTP/2",
                });
            }
            if head.version != Version::HTTP_2 {
                to_http2(head)?;
            }
            head.version = Version::HTTP_2;
        }
    }
    Ok(())
}

/// Takes the last hop's headers off a response. Those of a `101 Switching Protocols` are the agreement itself
/// and stay.
pub fn prepare_response(head: &mut response::Parts) {
    // The version of a message is its sender's (RFC 9110 section 2.5), and a caller of HTTP/1.0 is answered in its own.
    if head.version < Version::HTTP_11 {
        head.version = Version::HTTP_11;
    }
    if head.status != http::StatusCode::SWITCHING_PROTOCOLS {
        remove_hop_by_hop(&mut head.headers);
    }
}

/// The protocol that an HTTP/1.1 request wants to switch to.
fn upgrade_of(head: &request::Parts) -> Option<HeaderValue> {
    let wanted = head.headers.get(header::UPGRADE)?;
    let named = has_option(&head.headers, "upgrade");
    // h2c by upgrade is left out: RFC 9113 removed it, and the engine could not follow it.
    let h2c = wanted.as_bytes().eq_ignore_ascii_case(b"h2c");
    (named && !h2c && head.version == Version::HTTP_11).then(|| wanted.clone())
}

fn accepts_trailers(headers: &HeaderMap) -> bool {
    listed(headers, &header::TE).any(|coding| coding.eq_ignore_ascii_case("trailers"))
}

/// Whether `connection` has this option (RFC 9110 section 7.6.1): with `close` its sender ends the connection of HTTP/1.1
/// after the message.
pub fn has_option(headers: &HeaderMap, option: &str) -> bool {
    listed(headers, &header::CONNECTION).any(|listed| listed.eq_ignore_ascii_case(option))
}

/// The elements of a header that is a list.
fn listed<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> + use<'h> {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // Names listed in Connection are hop-by-hop as well. Most requests have no such header.
    if headers.contains_key(header::CONNECTION) {
        let names: Vec<HeaderName> = listed(headers, &header::CONNECTION)
            .filter_map(|name| name.parse().ok())
            .collect();
        for name in names {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in [
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
        &header::TE,
        &header::TRANSFER_ENCODING,
        &header::UPGRADE,
    ] {
        headers.remove(name);
    }
}

/// Appends the caller unless it stands last already: a request that passes two engines names its caller once.
fn forwarded_for(headers: &mut HeaderMap, caller: Option<IpAddr>) {
    let Some(caller) = caller.map(|caller| caller.to_canonical()) else {
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("unknown"));
        return;
    };
    match headers.entry(X_FORWARDED_FOR) {
        Entry::Vacant(entry) => {
            if let Ok(value) = HeaderValue::try_from(caller.to_string()) {
                entry.insert(value);
            }
        }
        Entry::Occupied(mut entry) => {
            let before: Vec<&str> = entry.iter().filter_map(|v| v.to_str().ok()).collect();
            let before = before.join(", ");
            let last = before
                .rsplit(',')
                .next()
                .and_then(|v| v.trim().parse::<IpAddr>().ok());
            if last.map(|ip| ip.to_canonical()) != Some(caller)
                && let Ok(value) = HeaderValue::try_from(format!("{before}, {caller}"))
            {
                entry.insert(value);
            }
        }
    }
}

/// Whether the caller waits for 100 (Continue) before it sends its body.
pub fn expects_continue(headers: &HeaderMap) -> bool {
    (headers.get(header::EXPECT)).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// HTTP/1.0 needs no `host`, the versions that the next hop speaks do (RFC 9112 section 3.2): there it is what the caller
/// has dialled. A target in absolute form names the host, whatever `host` says (section 3.2.2).
pub fn name_host(head: &mut request::Parts, dialled: SocketAddr) {
    let named = match head.version {
        Version::HTTP_11 if head.method != Method::CONNECT => head.uri.authority(),
        Version::HTTP_10 | Version::HTTP_09 => head.uri.authority(),
        _ => return,
    };
    if named.is_none() && (head.version == Version::HTTP_11 || head.headers.contains_key(header::HOST)) {
        return;
    }
    let host = match named {
        // Without user information.
        Some(authority) => authority
            .as_str()
            .rsplit('@')
            .next()
            .unwrap_or_default()
            .to_owned(),
        None if dialled.port() == 80 => match dialled.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        },
        None => dialled.to_string(),
    };
    if let Ok(host) = HeaderValue::try_from(host) {
        head.headers.insert(header::HOST, host);
    }
}

/// `:authority` becomes `host`, and the target its path.
fn to_http1(head: &mut request::Parts) -> Result<(), LocalError> {
    if head.method == Method::CONNECT {
        return Ok(());
    }
    if let Some(authority) = head.uri.authority()
        && !head.headers.contains_key(header::HOST)
    {
        let host = HeaderValue::from_str(authority.as_str());
        let host = host.map_err(|_| LocalError::BadRequest {
            reason: "its :authority is not a host",
        })?;
        head.headers.insert(header::HOST, host);
    }
    let path = head.uri.path_and_query().cloned();
    head.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    // Cookies that HTTP/2 split into several fields are one field again (RFC 9113 section 8.2.3).
    let cookies: Vec<_> = head
        .headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if cookies.len() > 1
        && let Ok(value) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        head.headers.insert(header::COOKIE, value);
    }
    Ok(())
}

/// `host` becomes `:authority`.
fn to_http2(head: &mut request::Parts) -> Result<(), LocalError> {
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    if let Some(host) = head.headers.remove(header::HOST) {
        let authority = Authority::try_from(host.as_bytes());
        let bad = LocalError::BadRequest {
            reason: "its host header is not a host",
        };
        parts.authority = Some(authority.map_err(|_| bad)?);
    }
    parts.scheme.get_or_insert(Scheme::HTTP);
    parts
        .path_and_query
        .get_or_insert_with(|| http::uri::PathAndQuery::from_static("/"));
    let bad = LocalError::BadRequest {
        reason: "it names no host",
    };
    head.uri = Uri::from_parts(parts).map_err(|_| bad)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const CALLER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));

    fn dialled() -> SocketAddr {
        ([10, 96, 0, 10], 8080).into()
    }

    fn head(version: Version, uri: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().version(version).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// `name: value` of each header, sorted.
    fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut all: Vec<_> = headers
            .iter()
            .map(|(n, v)| format!("{n}: {}", v.to_str().unwrap()))
            .collect();
        all.sort();
        all
    }

    fn check(via: Via, version: Version, uri: &str, headers: &[(&str, &str)], expect: &[&str]) {
        let mut head = head(version, uri, headers);
        prepare_request(&mut head, Some(CALLER), via).unwrap();
        assert_eq!(lines(&head.headers), expect, "{uri} {headers:?}");
    }

    #[test]
    fn the_last_hops_headers_are_taken_off() {
        let sent = [
            ("connection", "keep-alive, x-secret"),
            ("keep-alive", "timeout=5"),
            ("x-secret", "1"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip, trailers"),
            ("accept", "*/*"),
        ];
        let expect = ["accept: */*", "te: trailers", "x-forwarded-for: 10.0.0.7"];
        check(Via::Http1, Version::HTTP_11, "/", &sent, &expect);
    }

    #[test]
    fn an_upgrade_is_passed_on_over_http1_and_refused_over_http2() {
        let sent = [("connection", "Upgrade"), ("upgrade", "websocket"), ("host", "a")];
        let expect = [
            "connection: upgrade",
            "host: a",
            "upgrade: websocket",
            "x-forwarded-for: 10.0.0.7",
        ];
        check(Via::Http1, Version::HTTP_11, "/ws", &sent, &expect);
        let mut head = head(Version::HTTP_11, "/ws", &sent);
        assert!(prepare_request(&mut head, Some(CALLER), Via::Http2).is_err());
    }

    #[test]
    fn an_upgrade_that_cannot_be_followed_is_not_offered() {
        let sent = [("connection", "Upgrade"), ("upgrade", "TLS/1.2"), ("host", "a")];
        let expect = ["x-forwarded-for: 10.0.0.7"];
        check(Via::Http2, Version::HTTP_11, "/", &sent, &expect);
    }

    #[test]
    fn a_request_without_a_host_names_what_was_dialled() {
        let check = |uri: &str, dialled: SocketAddr, via, expect: &str| {
            let mut head = head(Version::HTTP_10, uri, &[]);
            name_host(&mut head, dialled);
            prepare_request(&mut head, Some(CALLER), via).unwrap();
            let host = head.headers.get(header::HOST).map(|host| host.to_str().unwrap());
            let authority = head.uri.authority().map(Authority::as_str);
            assert_eq!(host.or(authority), Some(expect), "{uri}");
        };
        for via in [Via::Http1, Via::Http2] {
            check("/a", dialled(), via, "10.96.0.10:8080");
            check("/a", ([10, 96, 0, 10], 80).into(), via, "10.96.0.10");
            check("/a", "[fd00::1]:80".parse().unwrap(), via, "[fd00::1]");
            check("http://web/a", dialled(), via, "web");
        }
        let mut absolute = head(Version::HTTP_11, "http://user@real:81/a", &[("host", "other")]);
        name_host(&mut absolute, dialled());
        assert_eq!(absolute.headers[header::HOST], "real:81");
        assert_eq!(
            absolute.uri, "http://user@real:81/a",
            "a forward proxy needs all of it"
        );
        let mut named = head(Version::HTTP_10, "/", &[("host", "b")]);
        name_host(&mut named, dialled());
        assert_eq!(named.headers[header::HOST], "b");
    }

    #[test]
    fn credentials_for_a_proxy_behind_this_one_pass() {
        let sent = [("proxy-authorization", "Basic eDp5"), ("host", "a")];
        let expect = [
            "host: a",
            "proxy-authorization: Basic eDp5",
            "x-forwarded-for: 10.0.0.7",
        ];
        check(Via::Http1, Version::HTTP_11, "/", &sent, &expect);
        let response = http::Response::builder().header("proxy-authenticate", "Basic");
        let (mut head, ()) = response.body(()).unwrap().into_parts();
        prepare_response(&mut head);
        assert_eq!(lines(&head.headers), ["proxy-authenticate: Basic"]);
    }

    #[test]
    fn the_caller_is_named_once() {
        let named = ["x-forwarded-for: 10.0.0.7"];
        check(
            Via::Http1,
            Version::HTTP_11,
            "/",
            &[("x-forwarded-for", "10.0.0.7")],
            &named,
        );
        let added = ["x-forwarded-for: 1.2.3.4, 10.0.0.7"];
        check(
            Via::Http1,
            Version::HTTP_11,
            "/",
            &[("x-forwarded-for", "1.2.3.4")],
            &added,
        );
    }

    #[test]
    fn a_caller_without_an_address_cannot_pass_for_another() {
        let mut forged = head(Version::HTTP_11, "/", &[("x-forwarded-for", "10.0.0.9")]);
        prepare_request(&mut forged, None, Via::Http1).unwrap();
        let all = ["x-forwarded-for: 10.0.0.9", "x-forwarded-for: unknown"];
        assert_eq!(lines(&forged.headers), all);
    }

    #[test]
    fn host_and_authority_become_each_other() {
        let mut up = head(Version::HTTP_11, "/a?b", &[("host", "echo.demo:80")]);
        prepare_request(&mut up, Some(CALLER), Via::Http2).unwrap();
        assert_eq!(up.uri, "http://echo.demo:80/a?b");
        assert!(!up.headers.contains_key(header::HOST));
        let mut down = head(
            Version::HTTP_2,
            "http://echo.demo/a?b",
            &[("cookie", "a=1"), ("cookie", "b=2")],
        );
        prepare_request(&mut down, Some(CALLER), Via::Http1).unwrap();
        assert_eq!(down.uri, "/a?b");
        assert_eq!(
            lines(&down.headers),
            ["cookie: a=1; b=2", "host: echo.demo", "x-forwarded-for: 10.0.0.7"]
        );
    }
}
