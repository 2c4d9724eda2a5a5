//! Cross-origin requests of browsers (Fetch, "CORS protocol"), as the Gateway API's `HTTPCORSFilter` has them.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};

use crate::model::{Cors, CorsList, CorsOrigins, HostPattern, OriginPattern};

static ANY: HeaderValue = HeaderValue::from_static("*");

/// The answer to a browser that asks whether it may send a request (a preflight); `None`: `head` is no such question.
/// Who may not is answered without the headers that allow it.
pub(super) fn preflight(cors: &Cors, head: &Parts) -> Option<Response<()>> {
    let origin = head.headers.get(header::ORIGIN)?;
    let method = head.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    if head.method != Method::OPTIONS {
        return None;
    }
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    if allow(cors, origin, headers) {
        let asked = head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        say(
            headers,
            header::ACCESS_CONTROL_ALLOW_METHODS,
            listed(&cors.methods, Some(method), cors),
        );
        say(
            headers,
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            listed(&cors.headers, asked, cors),
        );
        say(headers, header::ACCESS_CONTROL_MAX_AGE, Some(&cors.max_age));
    }
    Some(response)
}

/// Adds to the response to a request of `origin` what lets its page see it. What the endpoint says of it is replaced.
pub(super) fn show(cors: &Cors, origin: &HeaderValue, headers: &mut HeaderMap) {
    if allow(cors, origin, headers) {
        say(
            headers,
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            listed(&cors.expose, None, cors),
        );
    }
}

/// Whether pages of `origin` may; then the response says so.
fn allow(cors: &Cors, origin: &HeaderValue, headers: &mut HeaderMap) -> bool {
    let allowed = match &cors.origins {
        CorsOrigins::Any if !cors.credentials => {
            say(headers, header::ACCESS_CONTROL_ALLOW_ORIGIN, Some(&ANY));
            return true;
        }
        CorsOrigins::Any => true,
        CorsOrigins::Listed(patterns) => is_listed(patterns, origin),
    };
    // The answer is another for another origin, which caches must know.
    // A response with as many headers as fit (32768) goes out without.
    let _full = headers.try_append(header::VARY, HeaderValue::from_name(header::ORIGIN));
    if allowed {
        say(headers, header::ACCESS_CONTROL_ALLOW_ORIGIN, Some(origin));
        if cors.credentials {
            let yes = HeaderValue::from_static("true");
            say(headers, header::ACCESS_CONTROL_ALLOW_CREDENTIALS, Some(&yes));
        }
    }
    allowed
}

/// What a list says to who asked for this. With credentials `*` would mean a name and not all.
fn listed<'v>(list: &'v CorsList, asked: Option<&'v HeaderValue>, cors: &Cors) -> Option<&'v HeaderValue> {
    match list {
        CorsList::Nothing => None,
        CorsList::Listed(value) => Some(value),
        CorsList::Any => asked.or((!cors.credentials).then_some(&ANY)),
    }
}

fn say(headers: &mut HeaderMap, name: HeaderName, value: Option<&HeaderValue>) {
    if let Some(value) = value {
        let _full = headers.try_insert(name, value.clone());
    }
}

fn is_listed(patterns: &[OriginPattern], origin: &HeaderValue) -> bool {
    let parts = || {
        let (scheme, rest) = origin.to_str().ok()?.split_once("://")?;
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None if scheme == "https" => (rest, 443),
            None => (rest, 80),
        };
        Some((scheme, host, port))
    };
    parts().is_some_and(|(scheme, host, port)| {
        let mut patterns = patterns.iter();
        patterns
            .any(|pattern| *pattern.scheme == *scheme && pattern.port == port && is_host(&pattern.host, host))
    })
}

fn is_host(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Any => true,
        HostPattern::Exact(name) => name.eq_ignore_ascii_case(host),
        HostPattern::Below(domain) => host
            .len()
            .checked_sub(domain.len())
            .filter(|label| *label > 0)
            .and_then(|label| host.get(label..))
            .is_some_and(|end| domain.eq_ignore_ascii_case(end)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        model::Filter,
        route::{Outcome, apply_request, apply_response},
    };

    fn listed_value(text: &'static str) -> CorsList {
        CorsList::Listed(HeaderValue::from_static(text))
    }

    fn cors() -> Cors {
        let pattern = |scheme: &str, host, port| OriginPattern {
            scheme: scheme.into(),
            host,
            port,
        };
        Cors {
            origins: CorsOrigins::Listed(vec![
                pattern("https", HostPattern::Exact("shop.example".into()), 443),
                pattern("http", HostPattern::Below(".shop.example".into()), 8080),
            ]),
            credentials: true,
            methods: listed_value("GET, PUT"),
            headers: listed_value("x-a, x-b"),
            expose: listed_value("x-c"),
            max_age: 5.into(),
        }
    }

    fn asked(method: &str, headers: &[(&'static str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// `name: value` of all headers, in alphabetical order.
    fn words(headers: &HeaderMap) -> Vec<String> {
        let mut words: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        words.sort();
        words
    }

    fn answer(cors: Cors, headers: &[(&'static str, &str)]) -> Option<Vec<String>> {
        let mut head = asked("OPTIONS", headers);
        match apply_request(&[Filter::Cors(Arc::new(cors))], None, &mut head).unwrap() {
            Outcome::Answer(response) => {
                assert_eq!(response.status(), StatusCode::NO_CONTENT);
                Some(words(response.headers()))
            }
            Outcome::Go { .. } => None,
        }
    }

    const METHOD: (&str, &str) = ("access-control-request-method", "PUT");

    #[test]
    fn a_preflight_is_answered_with_what_is_allowed() {
        let said = answer(cors(), &[("origin", "https://shop.example"), METHOD]).unwrap();
        assert_eq!(
            said,
            [
                "access-control-allow-credentials: true",
                "access-control-allow-headers: x-a, x-b",
                "access-control-allow-methods: GET, PUT",
                "access-control-allow-origin: https://shop.example",
                "access-control-max-age: 5",
                "vary: origin",
            ]
        );
        let said = answer(cors(), &[("origin", "https://else.example"), METHOD]).unwrap();
        assert_eq!(said, ["vary: origin"]);
        // An OPTIONS of its own right.
        assert_eq!(answer(cors(), &[("origin", "https://shop.example")]), None);
        assert_eq!(answer(cors(), &[METHOD]), None);
    }

    #[test]
    fn a_wildcard_is_never_said_with_credentials() {
        let any = |credentials| Cors {
            origins: CorsOrigins::Any,
            credentials,
            methods: CorsList::Any,
            headers: CorsList::Any,
            expose: CorsList::Any,
            max_age: 5.into(),
        };
        let page = ("origin", "null");
        let said = answer(any(true), &[page, METHOD]).unwrap();
        assert!(said.iter().all(|line| !line.contains('*')), "{said:?}");
        assert!(
            said.contains(&"access-control-allow-methods: PUT".to_owned()),
            "{said:?}"
        );
        assert!(
            said.contains(&"access-control-allow-origin: null".to_owned()),
            "{said:?}"
        );
        assert!(
            !said
                .iter()
                .any(|line| line.starts_with("access-control-allow-headers")),
            "{said:?}"
        );
        let said = answer(any(false), &[page, METHOD]).unwrap();
        assert!(
            said.contains(&"access-control-allow-origin: *".to_owned()),
            "{said:?}"
        );
        assert!(
            said.contains(&"access-control-allow-headers: *".to_owned()),
            "{said:?}"
        );
        let mut headers = HeaderMap::new();
        show(&any(true), &HeaderValue::from_static("null"), &mut headers);
        assert!(words(&headers).iter().all(|line| !line.contains('*')));
    }

    #[test]
    fn a_response_says_to_whom_it_may_be_shown() {
        let filters = [Filter::Cors(Arc::new(cors()))];
        let check = |origin: &str, allowed: bool| {
            let mut head = asked("GET", &[("origin", origin)]);
            let Outcome::Go { origin: kept } = apply_request(&filters, None, &mut head).unwrap() else {
                panic!("{origin}")
            };
            let mut headers = HeaderMap::new();
            headers.insert(
                "access-control-allow-origin",
                HeaderValue::from_static("the endpoint's"),
            );
            apply_response(&filters, kept.as_deref(), &mut headers);
            let said = words(&headers);
            assert_eq!(
                said.contains(&format!("access-control-allow-origin: {origin}")),
                allowed,
                "{said:?}"
            );
            assert_eq!(
                said.contains(&"access-control-expose-headers: x-c".to_owned()),
                allowed,
                "{said:?}"
            );
        };
        check("https://shop.example", true);
        check("https://shop.example:443", true);
        check("https://shop.example:444", false);
        check("http://shop.example", false);
        check("http://a.b.shop.example:8080", true);
        check("http://A.Shop.Example:8080", true);
        check("http://shop.example:8080", false);
        check("http://.shop.example:8080", false);
        check("http://evilshop.example:8080", false);
        check("http://a.shop.example", false);
        check("null", false);
        // Of the same origin: nothing is said.
        let mut head = asked("GET", &[]);
        let Outcome::Go { origin: None } = apply_request(&filters, None, &mut head).unwrap() else {
            panic!("nobody asked")
        };
    }
}
