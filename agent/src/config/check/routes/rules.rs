//! `rules[]`: what stands between matches and filters.

use std::{collections::BTreeSet, ops::RangeInclusive, time::Duration};

use http::StatusCode;

use super::{
    Scope, filters,
    matches::{self, foreign},
    targets::kind_of,
};
use crate::{
    config::{
        check::words,
        error::{At, Faults},
        schema::route as schema,
    },
    model::{
        Backend, Filter, RouteKind, Rule, RuleFault, RuleRetry, RuleTimeouts, ServiceName, ServicePortName,
    },
};

/// The Gateway API's durations end at five digits of hours.
const TIMEOUT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(99_999 * 3600);
const BACKOFF: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);
const CODES: RangeInclusive<u16> = 400..=599;
const ATTEMPTS: RangeInclusive<u32> = 0..=100;
/// As the Gateway API has it.
const WEIGHT: RangeInclusive<u32> = 0..=1_000_000;

pub(super) fn check(
    rules: &[schema::Rule],
    scope: Scope<'_>,
    section: At<'_>,
    faults: &mut Faults,
) -> Vec<Rule> {
    if rules.is_empty() {
        let remedy = "add a rule, or remove the route";
        faults.add(section, "[]", "has no rule", remedy);
    }
    let mut names = BTreeSet::new();
    let mut checked = Vec::with_capacity(rules.len());
    for (index, rule) in rules.iter().enumerate() {
        let at = section.item(index);
        let begun = faults.count();
        let name = rule.name.as_deref();
        let name = name.and_then(|name| words::label(name, at.field("name"), faults));
        if let Some(name) = &name
            && !names.insert(name.clone())
        {
            let remedy = "give each rule of a route its own name";
            faults.add(at.field("name"), name, "is there already", remedy);
        }
        let place = filters::Place::of(&rule.matches);
        let filters = filters::check(&rule.filters, scope, place, at.field("filters"), faults);
        let backends = backends(rule, &filters, scope, at, faults);
        let before_matches = faults.count();
        let matches = matches::check(&rule.matches, scope, at.field("matches"), faults);
        let has_good_matches = faults.count() == before_matches;
        let rule = Rule {
            name,
            matches,
            filters,
            backends,
            timeouts: timeouts(rule.timeouts.as_ref(), scope.kind, at.field("timeouts"), faults),
            retry: retry(rule.retry.as_ref(), scope.kind, at.field("retry"), faults),
            fault: None,
        };
        let fault = match scope.targets.are_unseen() {
            true => faults.set_aside(index, begun),
            false => None,
        };
        checked.push(match fault {
            None => rule,
            Some(fault) if has_good_matches => refused(rule, RuleFault::Refused(fault.into())),
            Some(_) => refused(rule, RuleFault::Matches),
        });
    }
    checked
}

/// The rule without what its requests would meet.
fn refused(rule: Rule, fault: RuleFault) -> Rule {
    Rule {
        filters: Vec::new(),
        backends: Vec::new(),
        fault: Some(fault),
        ..rule
    }
}

fn backends(
    rule: &schema::Rule,
    filters: &[Filter],
    scope: Scope<'_>,
    at: At<'_>,
    faults: &mut Faults,
) -> Vec<Backend> {
    let place = filters::Place::of(&rule.matches);
    let section = at.field("backendRefs");
    let redirects = filters.iter().any(|filter| matches!(filter, Filter::Redirect(_)));
    if redirects && !rule.backend_refs.is_empty() {
        let remedy = "remove them, or the RequestRedirect filter";
        faults.add(section, rule.backend_refs.len(), "backends get nothing", remedy);
    }
    let rewrites = |filters: &[Filter]| {
        filters
            .iter()
            .any(|filter| matches!(filter, Filter::UrlRewrite { .. }))
    };
    let mut checked = Vec::with_capacity(rule.backend_refs.len());
    for (index, backend) in rule.backend_refs.iter().enumerate() {
        let at = section.item(index);
        let to = schema::Ref {
            group: backend.group.clone(),
            kind: backend.kind.clone(),
            name: backend.name.clone(),
            namespace: backend.namespace.clone(),
            port: backend.port,
            section_name: None,
        };
        let is_foreign = scope.targets.is_foreign(&to, at, faults);
        let target = match is_foreign {
            true => Some(nowhere(&to, scope.namespace)),
            false => scope.targets.backend(&to, scope.namespace, at, faults),
        };
        let weight = number(
            backend.weight,
            WEIGHT,
            "is not a weight",
            at.field("weight"),
            faults,
        );
        let own = filters::check(&backend.filters, scope, place, at.field("filters"), faults);
        if rewrites(filters) && rewrites(&own) {
            let remedy = "keep the URLRewrite of the rule, or those of its backends";
            faults.add(
                at.field("filters"),
                "URLRewrite",
                "rewrites a second time",
                remedy,
            );
        }
        if let (Some(target), Some(weight)) = (target, weight) {
            checked.push(Backend {
                fault: is_foreign
                    .then(|| format!("{} is a {}, and no Service", target.service, kind_of(&to)).into()),
                target,
                weight,
                filters: own,
            });
        }
    }
    checked
}

/// What stands for a backend that can be none: no service has port 0.
fn nowhere(to: &schema::Ref, namespace: &str) -> ServicePortName {
    ServicePortName {
        service: ServiceName {
            namespace: to.namespace.as_deref().unwrap_or(namespace).into(),
            name: to.name.as_str().into(),
        },
        port: 0,
    }
}

fn timeouts(
    timeouts: Option<&schema::Timeouts>,
    kind: RouteKind,
    at: At<'_>,
    faults: &mut Faults,
) -> RuleTimeouts {
    let Some(timeouts) = timeouts else {
        return RuleTimeouts::default();
    };
    if kind == RouteKind::Grpc {
        foreign(at, "timeouts", "use timeouts of the service's policy", faults);
        return RuleTimeouts::default();
    }
    let mut one = |text: &Option<String>, at: At<'_>| words::within(text.as_deref()?, TIMEOUT, at, faults);
    let request = one(&timeouts.request, at.field("request"));
    let backend_request = one(&timeouts.backend_request, at.field("backendRequest"));
    if let (Some(request), Some(backend), Some(text)) = (request, backend_request, &timeouts.backend_request)
        && !request.is_zero()
        && backend > request
    {
        let remedy = "make it at most timeouts.request";
        faults.add(
            at.field("backendRequest"),
            text,
            "is longer than the request's",
            remedy,
        );
    }
    RuleTimeouts {
        request,
        backend_request,
    }
}

fn retry(
    retry: Option<&schema::Retry>,
    kind: RouteKind,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<RuleRetry> {
    let retry = retry?;
    let says_more = !retry.codes.is_empty() || retry.attempts.is_some() || retry.backoff.is_some();
    if kind == RouteKind::Grpc && (says_more || retry.idempotent.is_none()) {
        let remedy = "use retry of the service's policy, and here `idempotent` alone";
        foreign(at, "retry", remedy, faults);
        return None;
    }
    let codes_at = at.field("codes");
    let mut codes = Vec::with_capacity(retry.codes.len());
    for (index, code) in retry.codes.iter().enumerate() {
        let at = codes_at.item(index);
        let code = number(*code, CODES, "is not the status of an error", at, faults);
        codes.extend(code.and_then(|code| StatusCode::from_u16(code).ok()));
    }
    let attempts = retry.attempts.and_then(|attempts| {
        number(
            attempts,
            ATTEMPTS,
            "is out of range",
            at.field("attempts"),
            faults,
        )
    });
    let backoff = retry.backoff.as_deref();
    Some(RuleRetry {
        idempotent: retry.idempotent.unwrap_or_default(),
        codes,
        attempts,
        backoff: backoff.and_then(|text| words::within(text, BACKOFF, at.field("backoff"), faults)),
    })
}

/// A number within `range`, or `fault`.
pub(super) fn number<T>(
    number: u64,
    range: RangeInclusive<T>,
    fault: &str,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<T>
where
    T: TryFrom<u64> + PartialOrd + std::fmt::Display,
{
    let good = T::try_from(number).ok().filter(|number| range.contains(number));
    if good.is_none() {
        faults.add(
            at,
            number,
            fault,
            format!("use {} to {}", range.start(), range.end()),
        );
    }
    good
}
