//! Texts that only routes have: paths, patterns, header names, host names.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::{
    config::error::{At, Faults},
    model::{Pattern, PatternError, ValueMatch},
};

/// How a text is compared; the word of every `type` that has two.
#[derive(Clone, Copy)]
pub(super) enum Comparison {
    Exact,
    Regex,
}

impl Comparison {
    pub(super) const ALL: [Self; 2] = [Self::Exact, Self::Regex];

    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Exact => "Exact",
            Self::Regex => "RegularExpression",
        }
    }

    /// The condition that a value is so.
    pub(super) fn with(self, text: &str, at: At<'_>, faults: &mut Faults) -> Option<ValueMatch> {
        match self {
            Self::Exact => Some(ValueMatch::Exact(text.into())),
            Self::Regex => pattern(text, at, faults).map(ValueMatch::Regex),
        }
    }
}

pub(super) fn pattern(text: &str, at: At<'_>, faults: &mut Faults) -> Option<Pattern> {
    match faults.pattern(text) {
        Ok(pattern) => pattern,
        Err(error @ PatternError::TooBig(_)) => {
            let remedy = "write a simpler expression, or several matches";
            faults.add(at, text, error.to_string(), remedy);
            None
        }
        Err(PatternError::Syntax(message)) => {
            // The message draws the place over several lines; the last says what is wrong.
            let reason = message.lines().last().unwrap_or_default();
            let reason = reason.trim_start_matches("error: ");
            let fault = format!("is not a regular expression ({reason})");
            faults.add(
                at,
                text,
                fault,
                "use RE2 syntax, without look-around and back-references",
            );
            None
        }
    }
}

/// A path as a rule may have it, which is also one that no server normalises to another.
pub(super) fn path(text: &str, at: At<'_>, faults: &mut Faults) -> Option<Arc<str>> {
    let mut remedy = |fault: &str, remedy: &str| faults.add(at, text, fault, remedy);
    let bad = ["//", "/./", "/../", "%2f", "%2F"];
    if !text.starts_with('/') {
        remedy("is not an absolute path", "begin it with /");
    } else if let Some(bad) = bad.into_iter().find(|bad| text.contains(bad)) {
        remedy(&format!("has `{bad}` in it"), "write the path without it");
    } else if text.ends_with("/.") || text.ends_with("/..") {
        remedy("ends in a relative element", "write the path that is meant");
    } else if !is_path(text) {
        remedy(
            "has characters that a path cannot have",
            "encode them as %XX; a query is matched by queryParams",
        );
    } else {
        return Some(text.into());
    }
    None
}

/// RFC 3986's `pchar` and `/`.
fn is_path(text: &str) -> bool {
    let mut rest = text.bytes();
    while let Some(c) = rest.next() {
        let good = match c {
            b'%' => [rest.next(), rest.next()]
                .iter()
                .all(|c| c.is_some_and(|c| c.is_ascii_hexdigit())),
            _ => c.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(&c),
        };
        if !good {
            return false;
        }
    }
    true
}

/// The path that takes a prefix's or a whole path's place; may be empty.
pub(super) fn new_path(text: &str, at: At<'_>, faults: &mut Faults) -> Option<Arc<str>> {
    let good = (text.is_empty() || text.starts_with('/')) && is_path(text);
    if !good {
        let remedy = "begin it with /, encode other characters as %XX, and leave the query out";
        faults.add(at, text, "is not a path", remedy);
    }
    good.then(|| text.into())
}

pub(super) fn header_name(text: &str, at: At<'_>, faults: &mut Faults) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    if name.is_none() {
        let remedy = "use letters, digits and -; the path and the method have fields of their own";
        faults.add(at, text, "is not a header name", remedy);
    }
    name
}

/// Headers that say how a message is framed or whom a connection is with; changed, they would lie.
const NOT_CHANGEABLE: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A header that a filter may change.
pub(super) fn changeable(text: &str, at: At<'_>, faults: &mut Faults) -> Option<HeaderName> {
    let name = header_name(text, at, faults)?;
    if !NOT_CHANGEABLE.contains(&name.as_str()) {
        return Some(name);
    }
    let remedy = match name.as_str() {
        "host" => "use a URLRewrite filter with a hostname",
        _ => "remove it",
    };
    faults.add(
        at,
        text,
        "belongs to the connection and cannot be changed",
        remedy,
    );
    None
}

pub(super) fn header_value(text: &str, at: At<'_>, faults: &mut Faults) -> Option<HeaderValue> {
    let value = HeaderValue::from_str(text).ok();
    if value.is_none() {
        faults.add(
            at,
            text.escape_debug(),
            "is not a header value",
            "use visible ASCII characters and spaces",
        );
    }
    value
}

/// RFC 1123, without a port.
pub(super) fn hostname(text: &str, at: At<'_>, faults: &mut Faults) -> Option<Arc<str>> {
    let label = |label: &str| {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let good = text.len() <= 253 && text.split('.').all(label);
    if !good {
        let remedy = "use dot-separated labels of a-z, 0-9 and -, without a port";
        faults.add(at, text, "is not a host name", remedy);
    }
    good.then(|| text.into())
}
