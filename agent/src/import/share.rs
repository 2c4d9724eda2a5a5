//! Routes that are for a part of the requests → the weights of one rule.
//!
//! Envoy asks routes in turn, and one with a `runtime_fraction` passes the others on. A rule has no part of the
//! requests that match it: its backends have.

use super::{
    NoteKind,
    route::{Backend, Route},
};

/// The largest weight of a backend (Gateway API, `HTTPBackendRef`).
const MOST: u64 = 1_000_000;

/// Joins each route of a part of the requests with the next one, which gets the rest. One that cannot be joined is left
/// out, and noted.
pub(super) fn fold(routes: Vec<Route<'_>>) -> Vec<Route<'_>> {
    let mut folded = Vec::<Route<'_>>::with_capacity(routes.len());
    // From the last, so that what comes after a route is whole.
    for mut route in routes.into_iter().rev() {
        let Some(share) = route.share.take() else {
            folded.push(route);
            continue;
        };
        let part = share.numerator.min(share.denominator);
        match folded.last_mut().filter(|next| differ_in_clusters_alone(&route, next)) {
            Some(next) => {
                share.node.remark(
                    NoteKind::Differs,
                    "shares are weights of one rule's backends, and are changed there",
                );
                let rest = std::mem::take(&mut next.backends);
                next.backends = join((route.backends, part), (rest, share.denominator - part));
            }
            None => route.node.note(
                NoteKind::NoEquivalent,
                "it is for a part of the requests, and the next route is not for the same ones in the same way: it is \
                 left out",
            ),
        }
    }
    folded.reverse();
    folded
}

fn differ_in_clusters_alone(a: &Route<'_>, b: &Route<'_>) -> bool {
    let retries = |route: &Route<'_>| {
        let retry = route.retry.as_ref();
        retry.map(|retry| (retry.policy.clone(), retry.per_try.clone()))
    };
    a.matching.written == b.matching.written
        && a.filters == b.filters
        && a.mirrors.is_empty()
        && b.mirrors.is_empty()
        && !a.backends.is_empty()
        && !b.backends.is_empty()
        && (&a.request, &a.idle, &a.hash_on) == (&b.request, &b.idle, &b.hash_on)
        && retries(a) == retries(b)
}

/// The backends of both with weights in proportion to the two parts.
fn join<'a>((a, of_a): (Vec<Backend<'a>>, u64), (b, of_b): (Vec<Backend<'a>>, u64)) -> Vec<Backend<'a>> {
    let weight = |backend: &Backend<'_>| backend.weight.unwrap_or(1);
    let total = |backends: &[Backend<'_>]| backends.iter().map(weight).sum::<u64>().max(1);
    let (factor_a, factor_b) = (of_a.saturating_mul(total(&b)), of_b.saturating_mul(total(&a)));
    let scaled = |backends: Vec<Backend<'a>>, factor: u64| {
        backends.into_iter().map(move |backend| Backend {
            weight: Some(weight(&backend).saturating_mul(factor)),
            ..backend
        })
    };
    let mut joined: Vec<Backend<'a>> = scaled(a, factor_a).chain(scaled(b, factor_b)).collect();
    reduce(&mut joined);
    joined
}

/// Makes weights smaller in proportion where one is too large.
pub(super) fn within_bounds(backends: &mut [Backend<'_>]) {
    if backends.iter().any(|backend| backend.weight > Some(MOST)) {
        reduce(backends);
    }
}

fn reduce(backends: &mut [Backend<'_>]) {
    let weights = || backends.iter().filter_map(|backend| backend.weight);
    let largest = weights().max().unwrap_or(0);
    let common = weights().fold(0, gcd).max(1);
    let divisor = common.saturating_mul((largest / common).div_ceil(MOST).max(1));
    for weight in backends.iter_mut().filter_map(|backend| backend.weight.as_mut()) {
        // Whoever had a share keeps one.
        *weight = weight.div_ceil(divisor);
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
