//! What a rule's filters do to a request and its response.

use http::{
    HeaderMap, HeaderValue, Response,
    header::{self, HOST},
    request::Parts,
    uri::{Authority, InvalidUri, InvalidUriParts, PathAndQuery, Uri},
};

use super::{cors, path, redirect};
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
    Go {
        /// Of the page whose browser asks, where a filter has something to say of it in the response.
        origin: Option<Box<HeaderValue>>,
    },
    /// The answer, to a preflight or by a redirect; nothing is sent to a backend.
    Answer(Response<()>),
}

/// Applies `filters` to a request, in their order. `matched_prefix` is [`Chosen`](super::Chosen)'s.
pub fn apply_request(
    filters: &[Filter],
    matched_prefix: Option<&str>,
    head: &mut Parts,
) -> Result<Outcome, Error> {
    let mut origin: Option<Box<HeaderValue>> = None;
    for (position, filter) in filters.iter().enumerate() {
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
                let mut response = redirect::response(to, matched_prefix, head)?;
                if let Some(origin) = &origin {
                    show_to_origin(&filters[..position], origin, response.headers_mut());
                }
                return Ok(Outcome::Answer(response));
            }
            Filter::Cors(cors) => {
                if let Some(response) = cors::preflight(cors, head) {
                    return Ok(Outcome::Answer(response));
                }
                origin = head.headers.get(header::ORIGIN).cloned().map(Box::new);
            }
            Filter::ResponseHeaders(_) | Filter::Mirror { .. } => {}
        }
    }
    Ok(Outcome::Go { origin })
}

/// Applies `filters` to a response's headers, in their order. `origin` is the request's, as [`Outcome::Go`] has it.
pub fn apply_response(filters: &[Filter], origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    for filter in filters {
        match (filter, origin) {
            (Filter::ResponseHeaders(change), _) => {
                // A response with as many headers as fit (32768) goes out without the added ones.
                let _full = change_headers(change, headers);
            }
            (Filter::Cors(cors), Some(origin)) => cors::show(cors, origin, headers),
            _ => {}
        }
    }
}

/// What the page of another origin may see, in an answer that no endpoint gave.
pub fn show_to_origin(filters: &[Filter], origin: &HeaderValue, headers: &mut HeaderMap) {
    for filter in filters {
        if let Filter::Cors(cors) = filter {
            cors::show(cors, origin, headers);
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
