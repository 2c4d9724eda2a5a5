//! `rules[].matches`.

use std::sync::Arc;

use http::{HeaderName, Method};

use super::{
    Scope,
    values::{self, Comparison},
};
use crate::{
    config::{
        check::words,
        error::{At, Faults},
        schema::route as schema,
    },
    model::{Match, PathMatch, RouteKind, ValueMatch},
};

pub(super) fn check(
    matches: &[schema::Match],
    scope: Scope<'_>,
    section: At<'_>,
    faults: &mut Faults,
) -> Vec<Match> {
    let matches = matches.iter().enumerate();
    matches
        .map(|(index, wanted)| one(wanted, scope, section.item(index), faults))
        .collect()
}

fn one(wanted: &schema::Match, scope: Scope<'_>, at: At<'_>, faults: &mut Faults) -> Match {
    let path_at = at.field("path");
    let method_at = at.field("method");
    let mut path = None;
    let mut method = None;
    if let Some(wanted) = &wanted.path {
        match scope.kind {
            RouteKind::Http => path = http_path(wanted, path_at, faults),
            RouteKind::Grpc => foreign(
                path_at,
                &wanted.value,
                "match by method.service and method.method",
                faults,
            ),
        }
    }
    match (&wanted.method, scope.kind) {
        (Some(schema::MethodMatch::Http(name)), RouteKind::Http) => {
            method = words::word(name, METHODS, |name| name, method_at, faults)
                .and_then(|name| Method::from_bytes(name.as_bytes()).ok());
        }
        (Some(schema::MethodMatch::Grpc(call)), RouteKind::Grpc) => path = grpc(call, method_at, faults),
        (Some(schema::MethodMatch::Http(name)), RouteKind::Grpc) => {
            faults.add(
                method_at,
                name,
                "is not a gRPC method",
                "write it as {service: a.b.Service, method: Method}",
            );
        }
        (Some(schema::MethodMatch::Grpc(_)), RouteKind::Http) => {
            let remedy = format!("use one of {}, or a GRPCRoute", METHODS.join(", "));
            faults.add(method_at, "{service, method}", "is not an HTTP method", remedy);
        }
        (None, _) => {}
    }
    let query_at = at.field("queryParams");
    if let (RouteKind::Grpc, [first, ..]) = (scope.kind, wanted.query_params.as_slice()) {
        foreign(query_at, &first.name, "match by headers", faults);
    }
    Match {
        path,
        method,
        headers: headers(&wanted.headers, at.field("headers"), faults),
        query: query(&wanted.query_params, query_at, faults),
    }
}

/// A field of an HTTPRoute in a GRPCRoute.
pub(super) fn foreign(at: At<'_>, value: &str, instead: &str, faults: &mut Faults) {
    faults.add(at, value, "has no place in a GRPCRoute", instead);
}

pub(super) const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

#[derive(Clone, Copy)]
enum PathKind {
    Exact,
    Prefix,
    Regex,
}

fn http_path(wanted: &schema::PathMatch, at: At<'_>, faults: &mut Faults) -> Option<PathMatch> {
    let kinds = [PathKind::Exact, PathKind::Prefix, PathKind::Regex];
    let as_str = |kind: &PathKind| match kind {
        PathKind::Exact => "Exact",
        PathKind::Prefix => "PathPrefix",
        PathKind::Regex => "RegularExpression",
    };
    let kind = words::word(&wanted.kind, kinds, as_str, at.field("type"), faults)?;
    let value = at.field("value");
    match kind {
        PathKind::Exact => values::path(&wanted.value, value, faults).map(PathMatch::Exact),
        PathKind::Prefix => values::path(&wanted.value, value, faults)
            .map(|path| PathMatch::Prefix(path.strip_suffix('/').unwrap_or(&path).into())),
        PathKind::Regex => values::pattern(&wanted.value, value, faults).map(PathMatch::Regex),
    }
}

fn grpc(call: &schema::GrpcMethod, at: At<'_>, faults: &mut Faults) -> Option<PathMatch> {
    let kind = words::word(
        &call.kind,
        Comparison::ALL,
        Comparison::as_str,
        at.field("type"),
        faults,
    )?;
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (service, method) = (given(&call.service), given(&call.method));
    if service.is_none() && method.is_none() {
        let remedy = "give service, method or both; leave method out to match every call";
        faults.add(at, "{}", "names neither service nor method", remedy);
        return None;
    }
    let mut name = |text: &Option<String>, dots: bool, at: At<'_>| {
        let text = text.as_deref()?;
        if let Comparison::Regex = kind {
            return kind.with(text, at, faults);
        }
        // `.a.b.C` is how protobuf writes a name from the root; it is not so on the wire.
        let text = if dots {
            text.strip_prefix('.').unwrap_or(text)
        } else {
            text
        };
        let is_name = |part: &str| {
            let inner = part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
            inner && part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        };
        if dots && text.split('.').all(is_name) || is_name(text) {
            return kind.with(text, at, faults);
        }
        let remedy = "use letters, digits and _, for a service also dots, or type RegularExpression";
        faults.add(at, text, "is not a name of gRPC", remedy);
        None
    };
    let good = PathMatch::Grpc {
        service: name(&service, true, at.field("service")),
        method: name(&method, false, at.field("method")),
    };
    Some(good)
}

/// Of several with the same name the first counts, as the Gateway API says.
fn headers(
    wanted: &[schema::ValueMatch],
    section: At<'_>,
    faults: &mut Faults,
) -> Vec<(HeaderName, ValueMatch)> {
    let mut checked: Vec<(HeaderName, ValueMatch)> = Vec::with_capacity(wanted.len());
    for (index, wanted) in wanted.iter().enumerate() {
        let at = section.item(index);
        let name = values::header_name(&wanted.name, at.field("name"), faults);
        let value = value(wanted, at, faults);
        if let (Some(name), Some(value)) = (name, value)
            && !checked.iter().any(|(known, _)| *known == name)
        {
            checked.push((name, value));
        }
    }
    checked
}

/// As [`headers`].
fn query(wanted: &[schema::ValueMatch], section: At<'_>, faults: &mut Faults) -> Vec<(Arc<str>, ValueMatch)> {
    let mut checked: Vec<(Arc<str>, ValueMatch)> = Vec::with_capacity(wanted.len());
    for (index, wanted) in wanted.iter().enumerate() {
        let at = section.item(index);
        if wanted.name.is_empty() {
            faults.add(at.field("name"), "", "is empty", "write the parameter's name");
        }
        if let Some(value) = value(wanted, at, faults)
            && !checked.iter().any(|(known, _)| **known == *wanted.name)
        {
            checked.push((wanted.name.as_str().into(), value));
        }
    }
    checked
}

fn value(wanted: &schema::ValueMatch, at: At<'_>, faults: &mut Faults) -> Option<ValueMatch> {
    let kind = words::word(
        &wanted.kind,
        Comparison::ALL,
        Comparison::as_str,
        at.field("type"),
        faults,
    )?;
    kind.with(&wanted.value, at.field("value"), faults)
}
