//! A request as an endpoint would get it, without sending it.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Version, header, request::Parts};

use crate::{
    admin::proto,
    model::{Filter, PodState, PodStatus, Protocol, is_grpc},
    respond::{Via, prepare_request},
    route,
};

/// What comes of a request on its way through filters.
pub(super) enum Forwarded {
    Request(proto::ForwardedRequest),
    /// A filter answers.
    Answer(proto::Answer),
    /// Refused, for this reason.
    Refused(String),
}

/// A request, and who would send it.
#[derive(Clone, Copy)]
pub(super) struct Sender<'a> {
    pub(super) head: &'a Parts,
    pub(super) pod: &'a PodStatus,
}

impl Sender<'_> {
    /// Through the filters of a rule, and then those of its backend, which speaks `protocol`.
    pub(super) fn through(
        self,
        filters: [&[Filter]; 2],
        matched_prefix: Option<&str>,
        protocol: Protocol,
    ) -> Forwarded {
        let mut head = self.head.clone();
        for filters in filters {
            match route::apply_request(filters, matched_prefix, &mut head) {
                Ok(route::Outcome::Go { .. }) => {}
                Ok(route::Outcome::Answer(response)) => return Forwarded::Answer(answer(&response)),
                Err(error) => return Forwarded::Refused(error.to_string()),
            }
        }
        // The URL does not say by which version the request comes, but gRPC has one only.
        if is_grpc(&head.headers) {
            head.version = Version::HTTP_2;
        }
        let via = Via::of(protocol, head.version);
        if let Err(error) = prepare_request(&mut head, self.address(), via) {
            return Forwarded::Refused(error.to_string());
        }
        // What each attempt gets besides.
        let made = HeaderValue::from_static("a new UUIDv7");
        head.headers.entry("x-request-id").or_insert(made);
        head.headers
            .insert("x-derny-attempt", HeaderValue::from_static("1"));
        Forwarded::Request(compared(self.head, &head))
    }

    /// Where the pod calls from.
    fn address(self) -> Option<IpAddr> {
        match &self.pod.state {
            PodState::Enrolled { addresses, .. } => addresses.first().copied(),
            PodState::Waiting { .. } => None,
        }
    }
}

fn answer(response: &http::Response<()>) -> proto::Answer {
    proto::Answer {
        code: response.status().as_u16().into(),
        location: response
            .headers()
            .get(header::LOCATION)
            .map(text)
            .unwrap_or_default(),
    }
}

fn compared(before: &Parts, after: &Parts) -> proto::ForwardedRequest {
    let authority = |head: &Parts| match head.headers.get(header::HOST) {
        Some(host) => text(host),
        None => head.uri.authority().map(ToString::to_string).unwrap_or_default(),
    };
    let values = |headers: &HeaderMap, name: &header::HeaderName| {
        headers.get_all(name).iter().map(text).collect::<Vec<_>>()
    };
    let names = |headers: &HeaderMap| {
        let mut names: Vec<_> = headers
            .keys()
            .filter(|name| **name != header::HOST)
            .cloned()
            .collect();
        names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        names
    };
    let set = names(&after.headers).into_iter().flat_map(|name| {
        let new = values(&after.headers, &name);
        let new = if new == values(&before.headers, &name) {
            Vec::new()
        } else {
            new
        };
        new.into_iter().map(move |value| proto::Header {
            name: name.to_string(),
            value,
        })
    });
    let removed = names(&before.headers)
        .into_iter()
        .filter(|name| !after.headers.contains_key(name));
    proto::ForwardedRequest {
        method: after.method.to_string(),
        path: after
            .uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned(),
        authority: authority(after),
        set: set.collect(),
        removed: removed.map(|name| name.to_string()).collect(),
    }
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// Who gets a copy by these filters.
pub(super) fn mirrors<'a>(filters: impl Iterator<Item = &'a Filter>) -> Vec<String> {
    let words = filters.filter_map(|filter| match filter {
        Filter::Mirror { target, share } if share.numerator >= share.denominator => Some(target.to_string()),
        Filter::Mirror { target, share } => {
            Some(format!("{target}, {} of {}", share.numerator, share.denominator))
        }
        _ => None,
    });
    words.collect()
}
