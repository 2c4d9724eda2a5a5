//! `envoy.config.route.v3.RouteMatch` → a match of an HTTPRoute, and which of two goes first.
//!
//! In Envoy the first route of the list wins; in the Gateway API the more specific one.

use regex_syntax::escape;
use serde_json::{Map, Value, json};

use super::{NoteKind, reading::Node};

/// A route's condition.
#[derive(Clone, Debug)]
pub(super) struct Match {
    /// As an HTTPRoute has it.
    pub(super) written: Value,
    path: Path,
    method: bool,
    headers: usize,
    queries: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Path {
    Prefix(String),
    Exact(String),
    Regex(String),
}

impl Match {
    /// Whether it holds for every request.
    pub(super) fn is_any(&self) -> bool {
        self.path == Path::Prefix("/".to_owned()) && !self.method && self.headers + self.queries == 0
    }

    /// Envoy's `prefix_rewrite` replaces what matched: all of an exact path.
    pub(super) fn path_change(&self, to: &str) -> Value {
        match self.path {
            Path::Prefix(_) => json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": to}),
            Path::Exact(_) | Path::Regex(_) => json!({"type": "ReplaceFullPath", "replaceFullPath": to}),
        }
    }

    /// Whether `later`, which stands behind this one, would go before it here, for some request that both match.
    pub(super) fn is_overtaken_by(&self, later: &Self) -> bool {
        later.rank() > self.rank() && self.path.may_meet(&later.path)
    }

    /// The Gateway API's precedence, as far as the conditions decide it.
    fn rank(&self) -> (u8, usize, bool, usize, usize) {
        let (kind, length) = match &self.path {
            Path::Exact(path) => (2, path.len()),
            Path::Regex(regex) => (1, regex.len()),
            Path::Prefix(prefix) => (0, prefix.trim_end_matches('/').len()),
        };
        (kind, length, self.method, self.headers, self.queries)
    }
}

impl Path {
    /// Whether a path may match both. Nothing is said for certain of regular expressions.
    fn may_meet(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Regex(_), _) | (_, Self::Regex(_)) => true,
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Exact(path), Self::Prefix(prefix)) | (Self::Prefix(prefix), Self::Exact(path)) => {
                path.starts_with(prefix.as_str())
            }
            (Self::Prefix(a), Self::Prefix(b)) => a.starts_with(b.as_str()) || b.starts_with(a.as_str()),
        }
    }
}

/// `None` when a condition cannot be expressed.
pub(super) fn read_match(node: &Node<'_>) -> Option<Match> {
    for field in [
        "dynamic_metadata",
        "tls_context",
        "filter_state",
        "connect_matcher",
    ] {
        if node.get(field).is_some() {
            return None;
        }
    }
    let path = path(node)?;
    let mut headers = Vec::new();
    let mut method = None;
    for header in node.list("headers") {
        let name = header.get("name")?.text()?;
        let value = value_match(&header)?;
        match (name, value) {
            (":method", (None, value)) => method = Some(value),
            (":authority", value) => headers.push(written("host", value)),
            (name, _) if name.starts_with(':') => return None,
            (name, value) => headers.push(written(name, value)),
        }
    }
    if node.get("grpc").is_some() {
        headers.push(written(
            "content-type",
            (Some("RegularExpression"), r"application/grpc(\+.*)?".to_owned()),
        ));
    }
    let mut queries = Vec::new();
    for query in node.list("query_parameters") {
        queries.push(written(query.get("name")?.text()?, value_match(&query)?));
    }
    let mut out = Map::new();
    out.insert("path".to_owned(), path.written());
    if let Some(method) = &method {
        out.insert("method".to_owned(), json!(method));
    }
    let counts = (headers.len(), queries.len());
    for (name, list) in [("headers", headers), ("queryParams", queries)] {
        if !list.is_empty() {
            out.insert(name.to_owned(), Value::Array(list));
        }
    }
    Some(Match {
        written: Value::Object(out),
        path,
        method: method.is_some(),
        headers: counts.0,
        queries: counts.1,
    })
}

fn path(node: &Node<'_>) -> Option<Path> {
    let text = |name| node.get(name).and_then(|field| field.text());
    let any_case = node.get("case_sensitive").and_then(|sensitive| sensitive.truth()) == Some(false);
    if let Some(regex) = node.at(&["safe_regex", "regex"]).and_then(|regex| regex.text()) {
        node.at(&["safe_regex"])?.pass_over("google_re2");
        return Some(Path::Regex(regex.to_owned()));
    }
    if let Some(exact) = text("path") {
        return Some(if any_case {
            Path::Regex(format!("(?i){}", escape(exact)))
        } else {
            Path::Exact(exact.to_owned())
        });
    }
    if let Some(prefix) = text("path_separated_prefix") {
        return Some(Path::Prefix(prefix.to_owned()));
    }
    let prefix = text("prefix").unwrap_or("/");
    if any_case {
        return Some(Path::Regex(format!("(?i){}.*", escape(prefix))));
    }
    if !prefix.ends_with('/')
        && let Some(field) = node.get("prefix")
    {
        let said = format!("a prefix ends with a segment: {prefix}x matches no more, {prefix}/x does");
        field.remark(NoteKind::Differs, said);
    }
    Some(Path::Prefix(prefix.to_owned()))
}

impl Path {
    fn written(&self) -> Value {
        let (kind, value) = match self {
            Self::Prefix(prefix) => ("PathPrefix", prefix),
            Self::Exact(path) => ("Exact", path),
            Self::Regex(regex) => ("RegularExpression", regex),
        };
        json!({"type": kind, "value": value})
    }
}

/// The kind of a match, `None` for exact, and its value.
type ValueMatch = (Option<&'static str>, String);

fn written(name: &str, (kind, value): ValueMatch) -> Value {
    match kind {
        Some(kind) => json!({"type": kind, "name": name, "value": value}),
        None => json!({"name": name, "value": value}),
    }
}

/// `HeaderMatcher` and `QueryParameterMatcher`; the fields before `string_match` are old ones.
fn value_match(node: &Node<'_>) -> Option<ValueMatch> {
    if node.get("invert_match").and_then(|invert| invert.truth()) == Some(true)
        || node.get("range_match").is_some()
        || node.get("treat_missing_header_as_empty").is_some()
    {
        return None;
    }
    let regex = |regex: String| Some((Some("RegularExpression"), regex));
    let (matcher, suffix) = match node.get("string_match") {
        Some(matcher) => (matcher, ""),
        None => (node.clone(), "_match"),
    };
    let text = |name: &str| {
        matcher
            .get(&format!("{name}{suffix}"))
            .and_then(|field| field.text())
    };
    let any_case = matcher.get("ignore_case").and_then(|ignore| ignore.truth()) == Some(true);
    let flags = if any_case { "(?i)" } else { "" };
    if let Some(exact) = text("exact") {
        return if any_case {
            regex(format!("(?i){}", escape(exact)))
        } else {
            Some((None, exact.to_owned()))
        };
    }
    if let Some(prefix) = text("prefix") {
        return regex(format!("{flags}{}.*", escape(prefix)));
    }
    if let Some(suffix) = text("suffix") {
        return regex(format!("{flags}.*{}", escape(suffix)));
    }
    if let Some(part) = text("contains") {
        return regex(format!("{flags}.*{}.*", escape(part)));
    }
    if let Some(pattern) = matcher.get(&format!("safe_regex{suffix}")) {
        pattern.pass_over("google_re2");
        return regex(pattern.get("regex")?.text()?.to_owned());
    }
    match node.get("present_match").map(|present| present.truth()) {
        Some(Some(false)) => None,
        // A matcher that says nothing but the name asks whether it is there.
        _ => regex(".*".to_owned()),
    }
}
