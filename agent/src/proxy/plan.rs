//! What is to be done with a request: the rule that it matches, the backend, and the bounds that apply.

use std::{borrow::Cow, net::IpAddr, rc::Rc};

use http::{HeaderMap, HeaderValue, Response, request};

use super::{
    deadline::{self, Deadlines},
    inlet::Inlet,
    view::Upstream,
};
use crate::{
    balance::hash_key,
    model::{Algorithm, Backend, HashKey, Retry, RetryOn, RuleRetry, RuleTimeouts, ServicePortName},
    record::{Exchange, Spoken},
    respond::LocalError,
    route::{self, Chosen, CompiledRule, Outcome},
    share,
};

pub(super) struct Plan<'a> {
    /// Whose endpoints are asked.
    pub(super) upstream: Rc<Upstream>,
    pub(super) retry: Cow<'a, Retry>,
    pub(super) deadlines: Deadlines,
    /// What decides the endpoint, where the algorithm hashes.
    pub(super) key: Option<u64>,
    /// The rule and its backend, whose filters are for the response too.
    routed: Option<(&'a CompiledRule, &'a Backend)>,
    /// Of the page whose browser asks, where they speak of it.
    origin: Option<Box<HeaderValue>>,
    pub(super) mirrors: Vec<ServicePortName>,
}

/// What a request comes to before any endpoint is asked.
pub(super) enum Planned<'a> {
    Go(Plan<'a>),
    /// The route answers itself.
    Answer(Response<()>),
}

impl Plan<'_> {
    pub(super) fn filter_response(&self, headers: &mut HeaderMap) {
        let Some((rule, backend)) = self.routed else {
            return;
        };
        let origin = self.origin.as_deref();
        // The backend's own come first: they are nearer to it.
        route::apply_response(&backend.filters, origin, headers);
        route::apply_response(&rule.filters, origin, headers);
    }

    /// What is added to an answer of the engine's own, so that a page of another origin may see it.
    pub(super) fn for_origin(&self) -> Option<Box<HeaderMap>> {
        let (rule, backend) = self.routed?;
        let origin = self.origin.as_deref()?;
        let mut headers = Box::default();
        route::show_to_origin(&rule.filters, origin, &mut headers);
        route::show_to_origin(&backend.filters, origin, &mut headers);
        Some(headers)
    }
}

/// Plans a request to `dialled`, and changes its head as the route's filters say.
pub(super) fn plan<'a>(
    inlet: &Inlet,
    dialled: &'a Rc<Upstream>,
    head: &mut request::Parts,
    x: &mut Exchange,
) -> Result<Planned<'a>, LocalError> {
    let policy = &dialled.port.policy;
    let mut rule_timeouts = RuleTimeouts::default();
    let mut retry = Cow::Borrowed(&policy.retry);
    let mut routed = None;
    let mut origin = None;
    let mut mirrors = Vec::new();
    let mut upstream = dialled.clone();
    if let Some(table) = inlet.table(dialled) {
        let no_route = || LocalError::NoRoute {
            service: inlet.service(),
        };
        let Chosen { rule, matched_prefix } = table.choose(head).ok_or_else(no_route)?;
        x.routed(rule.route.clone());
        rule_timeouts = rule.timeouts;
        if let Some(of_rule) = &rule.retry {
            retry = Cow::Owned(merge(&policy.retry, of_rule));
        }
        let no_backend = |reason: String| LocalError::NoBackend {
            service: inlet.service(),
            route: rule.route.to_string(),
            reason,
        };
        match route::apply_request(&rule.filters, matched_prefix, head)
            .map_err(|e| no_backend(e.to_string()))?
        {
            Outcome::Go { origin: of_rule } => origin = of_rule,
            Outcome::Answer(response) => return Ok(Planned::Answer(response)),
        }
        let mut rng = inlet.worker.rng.borrow_mut();
        let backend = rule.backend(&mut rng).ok_or_else(|| {
            let refused = rule.refused.as_deref();
            no_backend(refused.unwrap_or("none has a weight").into())
        })?;
        mirrors.extend(route::mirrors(&rule.filters, &mut rng).cloned());
        mirrors.extend(route::mirrors(&backend.filters, &mut rng).cloned());
        drop(rng);
        match route::apply_request(&backend.filters, matched_prefix, head)
            .map_err(|e| no_backend(e.to_string()))?
        {
            Outcome::Go { origin: of_backend } => origin = origin.or(of_backend),
            Outcome::Answer(response) => return Ok(Planned::Answer(response)),
        }
        routed = Some((rule, backend));
        if backend.target != dialled.port.name {
            let found = inlet.backend(&backend.target);
            upstream = found.ok_or_else(|| {
                let fault = backend.fault.as_deref().map(str::to_owned);
                no_backend(fault.unwrap_or_else(|| format!("{} is not there", backend.target)))
            })?;
        }
    }
    let now = share::now();
    let grpc = if x.spoken() == Spoken::Grpc {
        deadline::grpc_timeout(&head.headers)
    } else {
        None
    };
    let deadlines = Deadlines::new(&policy.timeouts, rule_timeouts, grpc, now);
    if x.spoken() == Spoken::Grpc
        && let Some(whole) = deadlines.whole
        && grpc.is_none_or(|grpc| now + grpc > whole)
    {
        deadline::tell_endpoint(&mut head.headers, whole - now);
    }
    let key = key(&upstream.port.policy.load_balancer.algorithm, head, inlet);
    Ok(Planned::Go(Plan {
        upstream,
        retry,
        deadlines,
        key,
        routed,
        origin,
        mirrors,
    }))
}

/// A rule's own retries instead of the policy's conditions.
fn merge(policy: &Retry, rule: &RuleRetry) -> Retry {
    let on = match rule.idempotent {
        false => RetryOn::of_rule(&rule.codes),
        true => RetryOn::idempotent()
            .and(&policy.on)
            .and(&RetryOn::of_rule(&rule.codes)),
    };
    let mut retry = Retry { on, ..policy.clone() };
    if let Some(attempts) = rule.attempts {
        retry.attempts = attempts;
    }
    retry.backoff.least = rule.backoff.unwrap_or_default();
    retry
}

/// The hash of what the algorithm wants.
fn key(algorithm: &Algorithm, head: &request::Parts, inlet: &Inlet) -> Option<u64> {
    let (Algorithm::RingHash { key, .. } | Algorithm::Maglev { key, .. }) = algorithm else {
        return None;
    };
    match key {
        HashKey::Header(name) => head.headers.get(name).map(|value| hash_key(value.as_bytes())),
        HashKey::Cookie(name) => cookie(&head.headers, name).map(|value| hash_key(value.as_bytes())),
        HashKey::SourceAddress => Some(match inlet.caller()?.to_canonical() {
            IpAddr::V4(ip) => hash_key(&ip.octets()),
            IpAddr::V6(ip) => hash_key(&ip.octets()),
        }),
    }
}

fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let values = headers
        .get_all(http::header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let pairs = values
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .into_iter()
        .find_map(|(key, value)| (key == name).then_some(value))
}
