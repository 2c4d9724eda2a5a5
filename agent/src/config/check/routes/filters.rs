//! `filters` of a rule or of a backend.

use http::{HeaderName, HeaderValue, StatusCode};

use super::{Scope, cors, matches::foreign, rules::number, values};
use crate::{
    config::{
        check::words,
        error::{At, Faults},
        schema::route as schema,
    },
    model::{Filter, HeaderChange, PathChange, Redirect, RouteKind, Share},
};

/// What a filter has to know of the rule that it stands in.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// A prefix can be replaced: the rule has one match, and that by prefix.
    one_prefix: bool,
}

impl Place {
    pub(super) fn of(matches: &[schema::Match]) -> Self {
        let is_prefix =
            |wanted: &schema::Match| wanted.path.as_ref().is_none_or(|path| path.kind == "PathPrefix");
        Self {
            one_prefix: match matches {
                [] => true,
                [one] => is_prefix(one),
                _ => false,
            },
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    RequestHeaders,
    ResponseHeaders,
    Rewrite,
    Redirect,
    Mirror,
    Cors,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::RequestHeaders,
        Self::ResponseHeaders,
        Self::Rewrite,
        Self::Redirect,
        Self::Mirror,
        Self::Cors,
    ];

    fn as_str(&self) -> &'static str {
        match self {
            Self::RequestHeaders => "RequestHeaderModifier",
            Self::ResponseHeaders => "ResponseHeaderModifier",
            Self::Rewrite => "URLRewrite",
            Self::Redirect => "RequestRedirect",
            Self::Mirror => "RequestMirror",
            Self::Cors => "CORS",
        }
    }

    fn field(self) -> &'static str {
        match self {
            Self::RequestHeaders => "requestHeaderModifier",
            Self::ResponseHeaders => "responseHeaderModifier",
            Self::Rewrite => "urlRewrite",
            Self::Redirect => "requestRedirect",
            Self::Mirror => "requestMirror",
            Self::Cors => "cors",
        }
    }

    fn is_in(self, filter: &schema::Filter) -> bool {
        match self {
            Self::RequestHeaders => filter.request_header_modifier.is_some(),
            Self::ResponseHeaders => filter.response_header_modifier.is_some(),
            Self::Rewrite => filter.url_rewrite.is_some(),
            Self::Redirect => filter.request_redirect.is_some(),
            Self::Mirror => filter.request_mirror.is_some(),
            Self::Cors => filter.cors.is_some(),
        }
    }
}

pub(super) fn check(
    filters: &[schema::Filter],
    scope: Scope<'_>,
    place: Place,
    section: At<'_>,
    faults: &mut Faults,
) -> Vec<Filter> {
    let mut seen = Vec::new();
    let mut checked = Vec::with_capacity(filters.len());
    for (index, filter) in filters.iter().enumerate() {
        let at = section.item(index);
        let Some(kind) = words::word(&filter.kind, Kind::ALL, Kind::as_str, at.field("type"), faults) else {
            continue;
        };
        if kind != Kind::Mirror && seen.contains(&kind) {
            let remedy = "write what it does in one filter";
            faults.add(at.field("type"), &filter.kind, "is there already", remedy);
        }
        seen.push(kind);
        for other in Kind::ALL {
            if other != kind && other.is_in(filter) {
                let remedy = format!("remove it, or set type: {}", other.as_str());
                let fault = format!("does not belong to type {}", kind.as_str());
                faults.add(at, other.field(), fault, remedy);
            }
        }
        checked.extend(one(kind, filter, scope, place, at, faults));
    }
    if seen.contains(&Kind::Rewrite) && seen.contains(&Kind::Redirect) {
        let remedy = "keep one; a redirect rewrites by its own path and hostname";
        faults.add(section, "URLRewrite", "stands beside RequestRedirect", remedy);
    }
    checked
}

fn one(
    kind: Kind,
    filter: &schema::Filter,
    scope: Scope<'_>,
    place: Place,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<Filter> {
    if scope.kind == RouteKind::Grpc && matches!(kind, Kind::Rewrite | Kind::Redirect | Kind::Cors) {
        foreign(at.field("type"), kind.as_str(), "use an HTTPRoute", faults);
        return None;
    }
    if !kind.is_in(filter) {
        let remedy = format!("add `{}`", kind.field());
        faults.add(at, kind.as_str(), "does not say what to do", remedy);
        return None;
    }
    let inner = at.field(kind.field());
    match kind {
        Kind::RequestHeaders => {
            let change = filter.request_header_modifier.as_ref()?;
            Some(Filter::RequestHeaders(headers(change, inner, faults)))
        }
        Kind::ResponseHeaders => {
            let change = filter.response_header_modifier.as_ref()?;
            Some(Filter::ResponseHeaders(headers(change, inner, faults)))
        }
        Kind::Rewrite => Some(rewrite(filter.url_rewrite.as_ref()?, place, inner, faults)),
        Kind::Redirect => redirect(filter.request_redirect.as_ref()?, place, inner, faults),
        Kind::Cors => {
            let cors = cors::check(filter.cors.as_ref()?, inner, faults);
            Some(Filter::Cors(cors.into()))
        }
        Kind::Mirror => mirror(filter.request_mirror.as_ref()?, scope, inner, faults),
    }
}

fn headers(change: &schema::HeaderModifier, at: At<'_>, faults: &mut Faults) -> HeaderChange {
    let mut pairs = |headers: &[schema::Header], section: At<'_>| -> Vec<(HeaderName, HeaderValue)> {
        let pairs = headers.iter().enumerate().filter_map(|(index, header)| {
            let at = section.item(index);
            let name = values::changeable(&header.name, at.field("name"), faults);
            let value = values::header_value(&header.value, at.field("value"), faults);
            name.zip(value)
        });
        pairs.collect()
    };
    let set = pairs(&change.set, at.field("set"));
    let add = pairs(&change.add, at.field("add"));
    let section = at.field("remove");
    let remove = change.remove.iter().enumerate();
    HeaderChange {
        set,
        add,
        remove: remove
            .filter_map(|(index, name)| values::changeable(name, section.item(index), faults))
            .collect(),
    }
}

fn rewrite(rewrite: &schema::UrlRewrite, place: Place, at: At<'_>, faults: &mut Faults) -> Filter {
    let hostname = rewrite.hostname.as_deref();
    let hostname = hostname.and_then(|text| values::hostname(text, at.field("hostname"), faults));
    let path = rewrite.path.as_ref();
    if hostname.is_none() && rewrite.hostname.is_none() && path.is_none() {
        faults.add(at, "{}", "rewrites nothing", "add hostname or path");
    }
    Filter::UrlRewrite {
        hostname: hostname.and_then(|text| HeaderValue::from_str(&text).ok()),
        path: path.and_then(|change| path_change(change, place, at.field("path"), faults)),
    }
}

fn path_change(
    change: &schema::PathChange,
    place: Place,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<PathChange> {
    const FULL: &str = "ReplaceFullPath";
    const PREFIX: &str = "ReplacePrefixMatch";
    let kind = words::word(
        &change.kind,
        [FULL, PREFIX],
        |word| word,
        at.field("type"),
        faults,
    )?;
    let (field, text, other_field, other) = match kind {
        FULL => (
            "replaceFullPath",
            &change.replace_full_path,
            "replacePrefixMatch",
            &change.replace_prefix_match,
        ),
        _ => (
            "replacePrefixMatch",
            &change.replace_prefix_match,
            "replaceFullPath",
            &change.replace_full_path,
        ),
    };
    if let Some(other) = other {
        let remedy = format!("remove it, or change the type; {kind} has {field}");
        faults.add(at.field(other_field), other, "is not used", remedy);
    }
    let Some(text) = text else {
        faults.add(at, kind, "does not say by what", format!("add `{field}`"));
        return None;
    };
    if kind == PREFIX && !place.one_prefix {
        let remedy = "give the rule exactly one match, with a path of type PathPrefix";
        faults.add(at.field(field), text, "has no single prefix to replace", remedy);
    }
    let text = values::new_path(text, at.field(field), faults)?;
    Some(match kind {
        FULL => PathChange::Full(text),
        _ => PathChange::Prefix(text),
    })
}

const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];

fn redirect(to: &schema::RequestRedirect, place: Place, at: At<'_>, faults: &mut Faults) -> Option<Filter> {
    let scheme = to.scheme.as_deref();
    let scheme =
        scheme.and_then(|text| words::word(text, ["http", "https"], |word| word, at.field("scheme"), faults));
    let hostname = to.hostname.as_deref();
    let hostname = hostname.and_then(|text| values::hostname(text, at.field("hostname"), faults));
    let port = to
        .port
        .and_then(|port| words::port(port, at.field("port"), faults));
    let path = to.path.as_ref();
    let path = path.and_then(|change| path_change(change, place, at.field("path"), faults));
    let status = u16::try_from(to.status_code).ok();
    let status = status.filter(|status| STATUSES.contains(status));
    if status.is_none() {
        let remedy = "use one of 301, 302, 303, 307, 308";
        faults.add(
            at.field("statusCode"),
            to.status_code,
            "is not a redirect",
            remedy,
        );
    }
    Some(Filter::Redirect(Redirect {
        scheme: scheme.map(Into::into),
        hostname,
        port,
        path,
        status: status.and_then(|status| StatusCode::from_u16(status).ok())?,
    }))
}

fn mirror(
    mirror: &schema::RequestMirror,
    scope: Scope<'_>,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<Filter> {
    // Nothing is copied to it (Gateway API, `HTTPRequestMirrorFilter`).
    if (scope.targets).is_foreign(&mirror.backend_ref, at.field("backendRef"), faults) {
        return None;
    }
    let target = scope.targets.backend(
        &mirror.backend_ref,
        scope.namespace,
        at.field("backendRef"),
        faults,
    );
    let share = match (mirror.percent, &mirror.fraction) {
        (None, None) => Some((1, 1)),
        (Some(percent), None) => {
            let percent = number(
                percent,
                0..=100,
                "is not a percentage",
                at.field("percent"),
                faults,
            );
            percent.map(|percent| (percent, 100))
        }
        (None, Some(fraction)) => {
            let at = at.field("fraction");
            let denominator = at.field("denominator");
            let range = 1..=i32::MAX.unsigned_abs();
            let denominator = number(
                fraction.denominator,
                range,
                "is not a denominator",
                denominator,
                faults,
            )?;
            let numerator = at.field("numerator");
            let range = 0..=denominator;
            let numerator = number(
                fraction.numerator,
                range,
                "is more than the whole",
                numerator,
                faults,
            );
            numerator.map(|numerator| (numerator, denominator))
        }
        (Some(percent), Some(_)) => {
            let remedy = "keep percent or fraction";
            faults.add(at.field("percent"), percent, "stands beside a fraction", remedy);
            None
        }
    };
    let (numerator, denominator) = share?;
    Some(Filter::Mirror {
        target: target?,
        share: Share {
            numerator,
            denominator,
        },
    })
}
