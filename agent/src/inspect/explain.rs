//! What would become of a request: from the kernel's tables to the candidates, without sending it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::request::Parts;

use super::{
    endpoints,
    forwarded::{self, Forwarded, Sender},
    millis::millis,
    policy_words,
};
use crate::{
    admin::{Unanswered, proto},
    config::duration,
    intercept::{ObservedDestination, ObservedHeld, ObservedPod},
    model::{
        AnsweredBy, Filter, GroupId, PodName, PodState, PodStatus, Protocol, Route, ServicePort,
        ServicePortName,
    },
    route,
    snapshot::{Destination, Snapshot, Target},
};

/// What the kernel's tables say at one moment.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    pub(super) pods: Vec<ObservedPod>,
    pub(super) destinations: Vec<ObservedDestination>,
    pub(super) held: Vec<ObservedHeld>,
    pub(super) heartbeat_age: Option<Duration>,
    pub(super) stale_after: Duration,
}

/// `kernel` is an error in words when its tables cannot be read.
pub(super) fn explain(
    snapshot: &Snapshot,
    pods: &[PodStatus],
    kernel: Result<Kernel, String>,
    request: &proto::ExplainRequest,
) -> Result<proto::Explanation, Unanswered> {
    let head = head(request)?;
    let pod = pods
        .iter()
        .find(|p| *p.pod.name.namespace == *request.namespace && *p.pod.name.name == *request.pod)
        .ok_or_else(|| {
            let what = format!(
                "no pod {}/{} on this node: `derny pods` lists them",
                request.namespace, request.pod
            );
            Unanswered::NotFound(what)
        })?;
    let address = dialled(snapshot, &pod.pod.name, &head)?;
    let group = snapshot.strict.get(&pod.pod.name).copied();
    let destination = snapshot.destinations.values().find(|d| d.address == address);
    let (redirected, redirection) = redirection(kernel, pod, group, (address, destination));
    let explanation = proto::Explanation {
        address: address.to_string(),
        redirected,
        redirection,
        ..Default::default()
    };
    let sender = Sender { head: &head, pod };
    Ok(way(snapshot, destination, sender, explanation))
}

fn head(request: &proto::ExplainRequest) -> Result<Parts, Unanswered> {
    let mut builder = http::Request::builder()
        .method(request.method.as_str())
        .uri(request.url.as_str());
    for header in &request.headers {
        builder = builder.header(header.name.as_str(), header.value.as_str());
    }
    let built = builder.body(());
    let (mut head, ()) = built
        .map_err(|error| Unanswered::Invalid(format!("this is no request: {error}")))?
        .into_parts();
    let authority = head
        .uri
        .authority()
        .map(|authority| authority.as_str().to_owned());
    let authority = authority.ok_or_else(|| {
        Unanswered::Invalid(format!("{} names no host: write http://HOST/PATH", request.url))
    })?;
    if !head.headers.contains_key(http::header::HOST)
        && let Ok(host) = authority.parse()
    {
        head.headers.insert(http::header::HOST, host);
    }
    Ok(head)
}

/// The address behind the URL's host. A service's name stands for its virtual address, and for its first endpoint
/// when it has none, as it does in DNS.
fn dialled(snapshot: &Snapshot, from: &PodName, head: &Parts) -> Result<SocketAddr, Unanswered> {
    let host = head.uri.host().unwrap_or_default();
    let default_port = match head.uri.scheme_str() {
        Some("https") => 443,
        _ => 80,
    };
    let port = head.uri.port_u16().unwrap_or(default_port);
    if let Ok(ip) = host.trim_matches(['[', ']']).parse() {
        return Ok(SocketAddr::new(ip, port));
    }
    let mut labels = host.split('.');
    let name = labels.next().unwrap_or_default();
    let namespace = labels.next().unwrap_or(&from.namespace);
    let is_it = |port: &ServicePortName| *port.service.name == *name && *port.service.namespace == *namespace;
    let of = |wanted: fn(&Target) -> Option<&ServicePortName>| {
        let mut addresses: Vec<SocketAddr> = snapshot
            .destinations
            .values()
            .filter(|d| d.targets().filter_map(wanted).any(is_it))
            .map(|d| d.address)
            .collect();
        addresses.sort();
        addresses
    };
    let virtual_addresses = of(|target| match target {
        Target::Service(port) => Some(port),
        _ => None,
    });
    // A name stands for an address and says nothing of the port, so that a port that the service lacks is still
    // an address that the pod can dial.
    if let Some(address) = virtual_addresses.first() {
        return Ok(SocketAddr::new(address.ip(), port));
    }
    let endpoints = of(|target| match target {
        Target::Endpoint(port) => Some(port),
        _ => None,
    });
    match endpoints.first() {
        Some(address) => Ok(SocketAddr::new(address.ip(), port)),
        None => Err(Unanswered::NotFound(format!(
            "no service {namespace}/{name} with an address: `derny services` lists those that there are"
        ))),
    }
}

/// Whether the kernel redirects, and each of its conditions in words.
fn redirection(
    kernel: Result<Kernel, String>,
    pod: &PodStatus,
    group: Option<GroupId>,
    (address, destination): (SocketAddr, Option<&Destination>),
) -> (Option<bool>, Vec<String>) {
    let kernel = match kernel {
        Ok(kernel) => kernel,
        Err(error) => return (None, vec![format!("the kernel's tables cannot be read: {error}")]),
    };
    let name = &pod.pod.name;
    let enrolled = kernel.pods.iter().find(|known| known.slot == pod.slot);
    let pod_line = match (enrolled, &pod.state) {
        (Some(known), _) => format!(
            "the kernel knows {name}: slot {}, netns cookie {}",
            known.slot.get(),
            known.netns_cookie
        ),
        (None, _) if kernel.held.iter().any(|held| Some(held.group) == group) => {
            format!("{name} is not enrolled yet and its namespace is strict: connections are refused")
        }
        (None, PodState::Waiting { reason }) => format!("the kernel does not know {name}: {reason}"),
        (None, PodState::Enrolled { .. }) => format!("the kernel does not know {name}"),
    };
    let known = kernel.destinations.iter().find(|known| known.address == address);
    let address_line = match known {
        Some(known) => format!(
            "{address} is destination {} ({}), redirected {} times{}",
            known.id.get(),
            known.label,
            known.hits,
            match known.answered_by {
                AnsweredBy::Agent => "",
                AnsweredBy::Nobody => "; nobody answers for it now: connections are refused",
                AnsweredBy::Node =>
                    "; no endpoint of it is known that the agent may choose: the connection is left to the node",
            }
        ),
        None => match destination.filter(|destination| destination.target == Target::Contested) {
            Some(destination) => format!(
                "{address} is claimed by {}, of which no namespace has a pod here: the connection is left alone",
                destination.claimed_by()
            ),
            None => format!("{address} is no address of the mesh: the connection is left alone"),
        },
    };
    let stale_after = duration::Display(kernel.stale_after);
    let fresh = kernel.heartbeat_age.is_some_and(|age| age <= kernel.stale_after);
    let heartbeat_line = match kernel.heartbeat_age {
        None => "there was no heartbeat yet: connections are left alone".to_owned(),
        Some(age) => {
            let age = duration::Display(Duration::from_millis(millis(age)));
            let verdict = if fresh { "within" } else { "beyond" };
            format!("the heartbeat is {age} old, {verdict} {stale_after}")
        }
    };
    let to_agent = known.is_some_and(|known| known.answered_by == AnsweredBy::Agent);
    let redirected = enrolled.is_some() && to_agent && fresh;
    (Some(redirected), vec![pod_line, address_line, heartbeat_line])
}

/// From the destination on.
fn way(
    snapshot: &Snapshot,
    destination: Option<&Destination>,
    sender: Sender<'_>,
    mut explanation: proto::Explanation,
) -> proto::Explanation {
    let target = destination.map(|destination| destination.target_of(&sender.pod.pod.name.namespace));
    let Some((target, port)) = target.and_then(|t| Some((t, snapshot.ports.get(t.port()?)?))) else {
        explanation.outcome = match destination.filter(|_| target == Some(&Target::Contested)) {
            Some(destination) => format!(
                "goes to the address unseen: {} claim it, and neither is of the pod's namespace",
                destination.claimed_by()
            ),
            None => "goes to the address unseen: the mesh does not serve it".to_owned(),
        };
        return explanation;
    };
    explanation.port = port.name.to_string();
    explanation.protocol = port.protocol.to_string();
    explanation.policy = policy_words::facts(&port.policy);
    explanation.dialled_endpoint = matches!(target, Target::Endpoint(_));
    let opaque = matches!(port.protocol, Protocol::Tcp | Protocol::Tls);
    let own = |explanation: &mut proto::Explanation| {
        let mut own = backend(snapshot, &port.name, 1);
        if !opaque {
            forward(&mut own, sender.through([&[], &[]], None, port.protocol));
        }
        explanation.backends = vec![own];
    };
    if opaque {
        own(&mut explanation);
        explanation.outcome = "relayed as bytes: routes and what is per request do not apply".to_owned();
    } else if explanation.dialled_endpoint {
        own(&mut explanation);
        let address = explanation.address.clone();
        explanation.backends[0]
            .candidates
            .retain(|endpoint| endpoint.address == address);
        explanation.outcome = format!("goes to {address} itself, which the pod dials: nothing is chosen");
    } else {
        let routes = port.routes_for(&sender.pod.pod.name.namespace);
        if routes.is_empty() {
            own(&mut explanation);
            explanation.outcome = match port.routes.is_empty() {
                true => "goes to the service's own endpoints: it has no routes".to_owned(),
                false => {
                    "goes to the service's own endpoints: its routes are for callers of other namespaces"
                        .to_owned()
                }
            };
        } else {
            routed(snapshot, port, &routes, sender, &mut explanation);
        }
    }
    explanation
}

/// `routes` are those that count for the sender.
fn routed(
    snapshot: &Snapshot,
    port: &ServicePort,
    routes: &[Arc<Route>],
    sender: Sender<'_>,
    explanation: &mut proto::Explanation,
) {
    let head = sender.head;
    let (own, producer) = (&sender.pod.pod.name.namespace, &port.name.service.namespace);
    if own != producer && routes.iter().any(|route| route.namespace == *own) {
        explanation
            .policy
            .push(policy_words::consumers_routes(own, producer));
    }
    let table = route::Table::new(routes);
    explanation.rules = route::explain(&table, head).into_iter().map(rule_match).collect();
    let Some(chosen) = table.choose(head) else {
        explanation.outcome = "refused with 404 (gRPC: UNIMPLEMENTED): no rule matches".to_owned();
        return;
    };
    let rule = chosen.rule;
    let place = format!("rule {} of {}", rule.position, rule.route);
    match sender.through([&rule.filters, &[]], chosen.matched_prefix, port.protocol) {
        Forwarded::Answer(answer) => {
            let what = match answer.location.as_str() {
                "" => "to a CORS preflight",
                _ => "a redirect",
            };
            explanation.outcome = format!("{place} answers with {}, {what}", answer.code);
            explanation.answer = Some(answer);
            return;
        }
        Forwarded::Refused(reason) => {
            explanation.outcome = format!("{place} cannot be applied, refused with 500: {reason}");
            return;
        }
        Forwarded::Request(_) => {}
    }
    let backends = rule.backends.iter().map(|of_rule| {
        let mut shown = backend(snapshot, &of_rule.target, of_rule.weight);
        let protocol = snapshot
            .ports
            .get(&of_rule.target)
            .map_or(port.protocol, |port| port.protocol);
        let filters: [&[Filter]; 2] = [&rule.filters, &of_rule.filters];
        match &of_rule.fault {
            Some(fault) => shown.fault = fault.to_string(),
            None => forward(
                &mut shown,
                sender.through(filters, chosen.matched_prefix, protocol),
            ),
        }
        shown.mirrors = forwarded::mirrors(filters.into_iter().flatten());
        shown
    });
    explanation.backends = backends.collect();
    explanation.outcome = if let Some(refused) = &rule.refused {
        format!("{place} has a fault, refused with 500: {refused}")
    } else if rule.backends.iter().any(|b| b.weight > 0) {
        format!("{place} sends it to its backends, by weight")
    } else {
        format!("{place} has no backend with a weight: refused with 500")
    };
    let of_rule = policy_words::rule_facts(rule.timeouts, rule.retry.as_ref());
    explanation.policy.extend(of_rule);
}

/// What a backend gets of the request. One that it cannot get stays without.
fn forward(backend: &mut proto::ExplainedBackend, forwarded: Forwarded) {
    match forwarded {
        Forwarded::Request(request) => backend.request = Some(request),
        Forwarded::Answer(answer) => backend.answer = Some(answer),
        Forwarded::Refused(_) => {}
    }
}

fn rule_match(explained: route::Explained) -> proto::RuleMatch {
    let (verdict, because) = match explained.verdict {
        route::Verdict::Chosen => (proto::MatchVerdict::Chosen, Vec::new()),
        route::Verdict::Outranked => (proto::MatchVerdict::Outranked, Vec::new()),
        route::Verdict::No(because) => (proto::MatchVerdict::No, because),
    };
    proto::RuleMatch {
        route: explained.route.to_string(),
        rule: u32::try_from(explained.rule).unwrap_or(u32::MAX),
        name: explained.rule_name.as_deref().unwrap_or_default().to_owned(),
        wants: explained.wants,
        verdict: verdict.into(),
        because,
    }
}

fn backend(snapshot: &Snapshot, name: &ServicePortName, weight: u32) -> proto::ExplainedBackend {
    let port = snapshot.ports.get(name);
    let algorithm = port.map(|port| port.policy.load_balancer.algorithm.as_str());
    proto::ExplainedBackend {
        port: name.to_string(),
        weight,
        exists: port.is_some(),
        algorithm: algorithm.unwrap_or_default().to_owned(),
        candidates: port.map(|port| endpoints::of(port)).unwrap_or_default(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
