//! `envoy.config.route.v3.Route` → a rule of an HTTPRoute.

use serde_json::{Map, Value, json};

use super::{
    NoteKind,
    fields::put,
    precedence::{Match, read_match},
    reading::Node,
    retry,
    route::{Backend, Mirror, Route, Share},
    share,
};

/// What routes get from their virtual host and from the whole configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct Inherited<'a> {
    headers: Headers,
    retry: Option<Node<'a>>,
    /// `stream_idle_timeout`
    idle: Option<String>,
}

impl<'a> Inherited<'a> {
    pub(super) fn of(idle: Option<Node<'a>>) -> Self {
        Self {
            idle: idle.and_then(|time| time.duration()),
            ..Self::default()
        }
    }

    pub(super) fn with(&self, node: &Node<'a>) -> Self {
        let mut headers = Headers::read(node);
        // The inner ones are applied first.
        headers.request.extend(&self.headers.request);
        headers.response.extend(&self.headers.response);
        Self {
            headers,
            retry: node.get("retry_policy").or_else(|| self.retry.clone()),
            idle: self.idle.clone(),
        }
    }
}

/// `None` for a route whose condition or action has no equivalent, which is noted: it must not take requests that it
/// did not take before.
pub(super) fn read<'a>(route: &Node<'a>, above: &Inherited<'a>) -> Option<Route<'a>> {
    for field in ["name", "metadata", "decorator", "stat_prefix"] {
        route.pass_over(field);
    }
    let Some(matching) = route.get("match").and_then(|matching| read_match(&matching)) else {
        route.note(
            NoteKind::NoEquivalent,
            "its condition cannot be expressed, so the route is left out: its requests go to the routes behind it",
        );
        return None;
    };
    let mut read = Route {
        node: route.clone(),
        matching,
        filters: above.with(route).headers.filters(),
        backends: Vec::new(),
        mirrors: Vec::new(),
        request: None,
        idle: None,
        retry: None,
        hash_on: None,
        share: route
            .at(&["match", "runtime_fraction"])
            .map(|node| fraction_of(&node)),
    };
    if let Some(action) = route.get("route") {
        forward(&action, above, &mut read);
    } else if let Some(redirect) = route.get("redirect") {
        read.filters.push(redirected(&redirect, &read.matching));
    } else {
        // A rule without backends: what it matched must not go to the routes behind it.
        read.filters.clear();
        route.note(
            NoteKind::NoEquivalent,
            "a route forwards or redirects: what this one matches is answered with 500",
        );
    }
    Some(read)
}

/// `RouteAction`
fn forward<'a>(action: &Node<'a>, above: &Inherited<'a>, route: &mut Route<'a>) {
    let text = |name| action.get(name).and_then(|field| field.text());
    if let Some(cluster) = text("cluster") {
        route.backends.push(Backend {
            cluster,
            weight: None,
            filters: Vec::new(),
        });
    }
    if let Some(weighted) = action.get("weighted_clusters") {
        weighted.pass_over("total_weight");
        for cluster in weighted.list("clusters") {
            let Some(name) = cluster.get("name").and_then(|name| name.text()) else {
                continue;
            };
            route.backends.push(Backend {
                cluster: name,
                weight: cluster.get("weight").and_then(|weight| weight.number()),
                filters: Headers::read(&cluster).filters(),
            });
        }
    }
    share::within_bounds(&mut route.backends);
    let mut rewrite = Map::new();
    put(&mut rewrite, "hostname", text("host_rewrite_literal"));
    if let Some(to) = text("prefix_rewrite") {
        rewrite.insert("path".to_owned(), route.matching.path_change(to));
    }
    if !rewrite.is_empty() {
        route
            .filters
            .push(json!({"type": "URLRewrite", "urlRewrite": rewrite}));
    }
    route.request = action.get("timeout").and_then(|time| time.duration());
    let idle = action.get("idle_timeout").and_then(|time| time.duration());
    route.idle = idle.or_else(|| above.idle.clone());
    route.retry = action
        .get("retry_policy")
        .or_else(|| above.retry.clone())
        .map(|policy| retry::read(&policy));
    route.mirrors = action
        .list("request_mirror_policies")
        .iter()
        .filter_map(mirror)
        .collect();
    for policy in action.list("hash_policy") {
        policy.pass_over("terminal");
        match hash_on(&policy) {
            Some(hash_on) if route.hash_on.is_none() => route.hash_on = Some(hash_on),
            Some(_) => policy.note(NoteKind::Differs, "the first of them is hashed"),
            None => policy.no_equivalent(),
        }
    }
}

fn hash_on(policy: &Node<'_>) -> Option<Value> {
    if let Some(name) = policy.at(&["header", "header_name"]).and_then(|name| name.text()) {
        return Some(json!({"header": name}));
    }
    if let Some(cookie) = policy.get("cookie") {
        if let Some(ttl) = cookie.get("ttl") {
            ttl.note(NoteKind::NoEquivalent, "cookies are read and not set");
        }
        return Some(json!({"cookie": cookie.get("name")?.text()?}));
    }
    let source = policy.at(&["connection_properties", "source_ip"])?.truth()?;
    source.then(|| json!({"sourceAddress": true}))
}

fn mirror<'a>(policy: &Node<'a>) -> Option<Mirror<'a>> {
    let cluster = policy.get("cluster")?.text()?;
    let fraction = policy
        .get("runtime_fraction")
        .map(|fraction| fraction_of(&fraction));
    Some(Mirror {
        node: policy.clone(),
        cluster,
        fraction: fraction.map(|share| (share.numerator, share.denominator)),
    })
}

/// `RuntimeFractionalPercent`
fn fraction_of<'a>(fraction: &Node<'a>) -> Share<'a> {
    if let Some(key) = fraction.get("runtime_key") {
        key.note(
            NoteKind::NoEquivalent,
            "there is no runtime: the default value counts",
        );
    }
    let of = |name| fraction.at(&["default_value", name]);
    let denominator = of("denominator").and_then(|word| word.word());
    Share {
        node: fraction.clone(),
        numerator: of("numerator").and_then(|number| number.number()).unwrap_or(0),
        denominator: match denominator.as_deref() {
            Some("TEN_THOUSAND") => 10_000,
            Some("MILLION") => 1_000_000,
            _ => 100,
        },
    }
}

/// `RedirectAction`
fn redirected(redirect: &Node<'_>, matching: &Match) -> Value {
    let text = |name| redirect.get(name).and_then(|field| field.text());
    let mut to = Map::new();
    put(&mut to, "hostname", text("host_redirect"));
    put(
        &mut to,
        "port",
        redirect.get("port_redirect").and_then(|port| port.number()),
    );
    put(&mut to, "scheme", text("scheme_redirect"));
    if redirect.get("https_redirect").and_then(|https| https.truth()) == Some(true) {
        put(&mut to, "scheme", Some("https"));
    }
    if let Some(path) = text("path_redirect") {
        to.insert(
            "path".to_owned(),
            json!({"type": "ReplaceFullPath", "replaceFullPath": path}),
        );
    } else if let Some(prefix) = text("prefix_rewrite") {
        to.insert("path".to_owned(), matching.path_change(prefix));
    }
    let code = match redirect
        .get("response_code")
        .and_then(|code| code.word())
        .as_deref()
    {
        Some("FOUND") => 302,
        Some("SEE_OTHER") => 303,
        Some("TEMPORARY_REDIRECT") => 307,
        Some("PERMANENT_REDIRECT") => 308,
        _ => 301,
    };
    to.insert("statusCode".to_owned(), json!(code));
    json!({"type": "RequestRedirect", "requestRedirect": to})
}

/// Headers that are added and removed on the way.
#[derive(Clone, Debug, Default)]
struct Headers {
    request: Changes,
    response: Changes,
}

#[derive(Clone, Debug, Default)]
struct Changes {
    set: Vec<Value>,
    add: Vec<Value>,
    remove: Vec<Value>,
}

impl Headers {
    fn read(node: &Node<'_>) -> Self {
        Self {
            request: Changes::read(node, "request_headers_to_add", "request_headers_to_remove"),
            response: Changes::read(node, "response_headers_to_add", "response_headers_to_remove"),
        }
    }

    fn filters(&self) -> Vec<Value> {
        let request = self
            .request
            .filter("RequestHeaderModifier", "requestHeaderModifier");
        let response = self
            .response
            .filter("ResponseHeaderModifier", "responseHeaderModifier");
        request.into_iter().chain(response).collect()
    }
}

impl Changes {
    fn read(node: &Node<'_>, add: &str, remove: &str) -> Self {
        let mut changes = Self::default();
        for entry in node.list(add) {
            let text = |name| entry.at(&["header", name]).and_then(|field| field.text());
            let (Some(name), Some(value)) = (text("key"), text("value")) else {
                continue;
            };
            if value.contains('%') {
                entry.note(NoteKind::NoEquivalent, "a header's value is a constant");
                continue;
            }
            let header = json!({"name": name, "value": value});
            let action = entry.get("append_action");
            let word = action.as_ref().and_then(|action| action.word());
            if let (Some(action), Some("ADD_IF_ABSENT" | "OVERWRITE_IF_EXISTS")) = (&action, word.as_deref())
            {
                action.remark(
                    NoteKind::Differs,
                    "a header is set or added whether it was there or not",
                );
            }
            let replaces = entry.get("append").and_then(|append| append.truth()) == Some(false)
                || matches!(
                    word.as_deref(),
                    Some("OVERWRITE_IF_EXISTS_OR_ADD" | "OVERWRITE_IF_EXISTS")
                );
            if replaces {
                changes.set.push(header);
            } else {
                changes.add.push(header);
            }
        }
        let removed = node.list(remove);
        changes.remove = removed
            .iter()
            .filter_map(|name| Some(json!(name.text()?)))
            .collect();
        changes
    }

    fn extend(&mut self, outer: &Self) {
        self.set.extend_from_slice(&outer.set);
        self.add.extend_from_slice(&outer.add);
        self.remove.extend_from_slice(&outer.remove);
    }

    fn filter(&self, kind: &str, field: &str) -> Option<Value> {
        let mut changes = Map::new();
        for (name, list) in [("set", &self.set), ("add", &self.add), ("remove", &self.remove)] {
            if !list.is_empty() {
                changes.insert(name.to_owned(), Value::Array(list.clone()));
            }
        }
        (!changes.is_empty()).then(|| json!({"type": kind, field: changes}))
    }
}
