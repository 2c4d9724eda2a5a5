//! A redirect's answer.

use std::fmt::Write as _;

use http::{HeaderValue, Response, header, request::Parts, uri::Authority};

use super::path;
use crate::model::Redirect;

/// The answer with its `Location`; what the redirect does not say is as in the request.
pub(super) fn response(
    to: &Redirect,
    matched_prefix: Option<&str>,
    head: &Parts,
) -> Result<Response<()>, header::InvalidHeaderValue> {
    let location = HeaderValue::from_maybe_shared(location(to, matched_prefix, head))?;
    let mut response = Response::new(());
    *response.status_mut() = to.status;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

fn location(to: &Redirect, matched_prefix: Option<&str>, head: &Parts) -> String {
    let mut location = String::new();
    let authority = authority(head);
    let host = match &to.hostname {
        Some(hostname) => Some(&**hostname),
        None => authority.as_ref().map(Authority::host),
    };
    // Calls inside the mesh are plain where they can be read.
    let asked = head.uri.scheme_str().unwrap_or("http");
    let scheme = to.scheme.as_deref().unwrap_or(asked);
    if let Some(host) = host {
        location.push_str(scheme);
        location.push_str("://");
        location.push_str(host);
        // With another scheme, that scheme's own port; otherwise the one that was called.
        let port = match (to.port, &to.scheme) {
            (Some(port), _) => Some(port),
            (None, Some(_)) => None,
            (None, None) => authority.as_ref().and_then(Authority::port_u16),
        };
        if let Some(port) = port.filter(|port| well_known(scheme) != Some(*port)) {
            // Writing to a String cannot fail.
            let _ = write!(location, ":{port}");
        }
    }
    let asked = head.uri.path();
    let changed = to
        .path
        .as_ref()
        .and_then(|change| path::changed(asked, change, matched_prefix));
    let path = changed.as_deref().unwrap_or(asked);
    // Without a host, `//other` would name one.
    if host.is_none() && path.starts_with("//") {
        location.push_str("/.");
    }
    location.push_str(if path.is_empty() { "/" } else { path });
    if let Some(query) = head.uri.query() {
        location.push('?');
        location.push_str(query);
    }
    location
}

/// The host that the request is for, with its port; from the target, or from `Host`.
fn authority(head: &Parts) -> Option<Authority> {
    if let Some(authority) = head.uri.authority() {
        return Some(authority.clone());
    }
    Authority::try_from(head.headers.get(header::HOST)?.as_bytes()).ok()
}

fn well_known(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}
