//! What a rule's filters do to a request and its response.

use http::{
    HeaderMap, HeaderValue, Response,
    header::{self, HOST},
    request::Parts,
    uri::{Authority, InvalidUri, InvalidUriParts, PathAndQuery, Uri},
};

use super::{path, redirect};
use crate::model::{Filter, HeaderChange, PathChange, ServicePortName};

/// Why a filter could not be applied. The request is the reason, or its sum with what the filter adds.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("rewritten path is not a path: {0}")]
    Path(InvalidUri),
    #[error("rewritten host name is not an authority: {0}")]
    Host(InvalidUri),
    #[error("rewritten target is not a URI: {0}")]
    Uri(#[from] InvalidUriParts),
    #[error("redirect has no valid location: {0}")]
    Location(#[from] header::InvalidHeaderValue),
    #[error("request has too many headers for another")]
    Headers,
}

#[derive(Debug)]
pub enum Outcome {
    /// On to the backend.
    Go,
    /// The answer; nothing is sent to a backend.
    Redirect(Response<()>),
}

/// Applies `filters` to a request, in their order. `matched_prefix` is [`Chosen`](super::Chosen)'s.
pub fn apply_request(
    filters: &[Filter],
    matched_prefix: Option<&str>,
    head: &mut Parts,
) -> Result<Outcome, Error> {
    for filter in filters {
        match filter {
            Filter::RequestHeaders(change) => {
                change_headers(change, &mut head.headers)
                    .map_err(|_: header::MaxSizeReached| Error::Headers)?;
            }
            Filter::UrlRewrite { hostname, path } => {
                if let Some(path) = path {
                    rewrite_path(path, matched_prefix, head)?;
                }
                if let Some(hostname) = hostname {
                    rewrite_host(hostname, head)?;
                }
            }
            Filter::Redirect(to) => {
                return Ok(Outcome::Redirect(redirect::response(to, matched_prefix, head)?));
            }
            Filter::ResponseHeaders(_) | Filter::Mirror { .. } => {}
        }
    }
    Ok(Outcome::Go)
}

/// Applies `filters` to a response's headers, in their order.
pub fn apply_response(filters: &[Filter], headers: &mut HeaderMap) {
    for filter in filters {
        if let Filter::ResponseHeaders(change) = filter {
            // A response with as many headers as fit (32768) goes out without the added ones.
            let _full = change_headers(change, headers);
        }
    }
}

/// The services that get a copy of this request.
pub fn mirrors<'a>(
    filters: &'a [Filter],
    rng: &mut fastrand::Rng,
) -> impl Iterator<Item = &'a ServicePortName> {
    filters.iter().filter_map(move |filter| match filter {
        Filter::Mirror { target, share } => {
            let drawn = rng.u32(0..share.denominator.max(1));
            (drawn < share.numerator).then_some(target)
        }
        _ => None,
    })
}

fn change_headers(change: &HeaderChange, headers: &mut HeaderMap) -> Result<(), header::MaxSizeReached> {
    for (name, value) in &change.set {
        headers.try_insert(name, value.clone())?;
    }
    for (name, value) in &change.add {
        headers.try_append(name, value.clone())?;
    }
    for name in &change.remove {
        headers.remove(name);
    }
    Ok(())
}

/// Keeps the query.
fn rewrite_path(change: &PathChange, matched_prefix: Option<&str>, head: &mut Parts) -> Result<(), Error> {
    let Some(mut target) = path::changed(head.uri.path(), change, matched_prefix) else {
        return Ok(());
    };
    if let Some(query) = head.uri.query() {
        target.push('?');
        target.push_str(query);
    }
    let mut parts = head.uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_maybe_shared(target).map_err(Error::Path)?);
    head.uri = Uri::from_parts(parts)?;
    Ok(())
}

/// The `Host` header, and the `:authority` where the request has its host in the target.
fn rewrite_host(hostname: &HeaderValue, head: &mut Parts) -> Result<(), Error> {
    let mut parts = head.uri.clone().into_parts();
    let in_target = parts.scheme.is_some() && parts.authority.is_some();
    if in_target {
        parts.authority = Some(Authority::try_from(hostname.as_bytes()).map_err(Error::Host)?);
        head.uri = Uri::from_parts(parts)?;
    }
    if !in_target || head.headers.contains_key(HOST) {
        head.headers
            .try_insert(HOST, hostname.clone())
            .map_err(|_: header::MaxSizeReached| Error::Headers)?;
    }
    Ok(())
}
