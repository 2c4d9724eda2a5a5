//! What a match asks of a request.

use std::borrow::Cow;

use http::{
    HeaderName,
    header::{COOKIE, HOST},
    request::Parts,
};

use crate::model::{Match, PathMatch, ValueMatch, is_grpc};

/// A request head as matches see it.
pub(super) struct Request<'r> {
    pub(super) head: &'r Parts,
    /// Without the query, not decoded.
    pub(super) path: &'r str,
    /// Service and method, when this is a gRPC call.
    pub(super) call: Option<(&'r str, &'r str)>,
}

impl<'r> Request<'r> {
    pub(super) fn new(head: &'r Parts) -> Self {
        let path = head.uri.path();
        // A service's name may have slashes in it, a method's may not.
        let call = is_grpc(&head.headers)
            .then(|| path.strip_prefix('/')?.rsplit_once('/'))
            .flatten();
        Self { head, path, call }
    }

    pub(super) fn path_is(&self, wanted: &PathMatch) -> bool {
        match wanted {
            PathMatch::Exact(path) => self.path == &**path,
            PathMatch::Prefix(prefix) => under(self.path, prefix).is_some(),
            PathMatch::Regex(pattern) => pattern.matches(self.path),
            PathMatch::Grpc { service, method } => self.call.is_some_and(|(of, name)| {
                let good = |wanted: &Option<ValueMatch>, value: &str| {
                    wanted
                        .as_ref()
                        .is_none_or(|wanted| value_is(value.as_bytes(), wanted))
                };
                good(service, of) && good(method, name)
            }),
        }
    }

    /// All conditions but the path's.
    pub(super) fn rest_is(&self, wanted: &Match) -> bool {
        wanted
            .method
            .as_ref()
            .is_none_or(|method| self.head.method == *method)
            && wanted
                .headers
                .iter()
                .all(|(name, value)| self.header_is(name, value))
            && wanted
                .query
                .iter()
                .all(|(name, value)| self.query_is(name, value))
    }

    pub(super) fn header_is(&self, name: &HeaderName, wanted: &ValueMatch) -> bool {
        self.header(name).is_some_and(|value| value_is(&value, wanted))
    }

    pub(super) fn query_is(&self, name: &str, wanted: &ValueMatch) -> bool {
        self.query(name)
            .is_some_and(|value| value_is(value.as_bytes(), wanted))
    }

    /// A header's value; several lines of one name are one list (RFC 9110, 5.3), and HTTP/2's split cookies one
    /// cookie (RFC 9113, 8.2.3). HTTP/2's `:authority` is the `host`.
    pub(super) fn header(&self, name: &HeaderName) -> Option<Cow<'r, [u8]>> {
        let mut values = self.head.headers.get_all(name).iter();
        let Some(first) = values.next() else {
            let authority = self.head.uri.authority().filter(|_| *name == HOST)?;
            return Some(Cow::Borrowed(authority.as_str().as_bytes()));
        };
        let mut all = Cow::Borrowed(first.as_bytes());
        let between: &[u8] = if *name == COOKIE { b"; " } else { b"," };
        for value in values {
            all.to_mut().extend_from_slice(between);
            all.to_mut().extend_from_slice(value.as_bytes());
        }
        Some(all)
    }

    /// The first value of a query parameter, decoded (`%20`, `+`).
    pub(super) fn query(&self, name: &str) -> Option<Cow<'r, str>> {
        let query = self.head.uri.query()?;
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key) == name).then(|| decoded(value))
        })
    }
}

/// What is behind `prefix`, by whole path elements: empty, or with its `/`.
pub(super) fn under<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    if prefix.is_empty() {
        return Some(path);
    }
    path.strip_prefix(prefix)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn value_is(value: &[u8], wanted: &ValueMatch) -> bool {
    match wanted {
        ValueMatch::Exact(text) => value == text.as_bytes(),
        // A value that is no text is matched by no pattern.
        ValueMatch::Regex(pattern) => std::str::from_utf8(value).is_ok_and(|text| pattern.matches(text)),
    }
}

/// What does not decode to text is left as it is.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    match percent_encoding::percent_decode_str(&spaced).decode_utf8() {
        Ok(text) => Cow::Owned(text.into_owned()),
        Err(_) => Cow::Borrowed(text),
    }
}
