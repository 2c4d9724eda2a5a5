//! The filter `CORS`.

use http::HeaderValue;

use super::{matches::METHODS, rules::number, values};
use crate::{
    config::{
        check::words,
        error::{At, Faults},
        schema::route as schema,
    },
    model::{Cors, CorsList, CorsOrigins, HostPattern, OriginPattern},
};

/// As many as the Gateway API has.
const ORIGINS: usize = 64;
const ANY: &str = "*";

pub(super) fn check(cors: &schema::Cors, at: At<'_>, faults: &mut Faults) -> Cors {
    let header = |text: &str, at: At<'_>, faults: &mut Faults| {
        values::header_name(text, at, faults);
    };
    let method = |text: &str, at: At<'_>, faults: &mut Faults| {
        words::word(text, METHODS, |name| name, at, faults);
    };
    let max_age = number(
        cors.max_age,
        1..=i32::MAX.unsigned_abs(),
        "is out of range",
        at.field("maxAge"),
        faults,
    );
    Cors {
        origins: origins(&cors.allow_origins, at.field("allowOrigins"), faults),
        credentials: cors.allow_credentials,
        methods: list(&cors.allow_methods, method, at.field("allowMethods"), faults),
        headers: list(&cors.allow_headers, header, at.field("allowHeaders"), faults),
        expose: list(&cors.expose_headers, header, at.field("exposeHeaders"), faults),
        max_age: max_age.unwrap_or(5).into(),
    }
}

fn origins(texts: &[String], section: At<'_>, faults: &mut Faults) -> CorsOrigins {
    if texts.len() > ORIGINS {
        let fault = format!("origins are more than {ORIGINS}");
        faults.add(section, texts.len(), fault, "use `*` within hosts");
    }
    if any(texts, section, faults) {
        return CorsOrigins::Any;
    }
    let texts = texts.iter().enumerate();
    let patterns = texts.filter_map(|(index, text)| {
        let pattern = origin(text);
        if pattern.is_none() {
            let remedy = "write http or https, ://, a host or *.domain, and the port where it is not the scheme's own; \
                          or * alone";
            faults.add(section.item(index), text, "is not an origin", remedy);
        }
        pattern
    });
    CorsOrigins::Listed(patterns.collect())
}

/// `http://example.com`, `https://*.example.com:8443`, `https://*`.
fn origin(text: &str) -> Option<OriginPattern> {
    let (scheme, rest) = text.split_once("://")?;
    let own_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0)?),
        None => (rest, own_port),
    };
    let is_name = |name: &str| {
        let inner = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        name.split('.')
            .all(|label| !label.is_empty() && label.bytes().all(inner))
    };
    let host = match host.strip_prefix(ANY) {
        Some("") => HostPattern::Any,
        Some(below) if is_name(below.strip_prefix('.')?) => {
            HostPattern::Below(below.to_ascii_lowercase().into())
        }
        None if is_name(host) => HostPattern::Exact(host.to_ascii_lowercase().into()),
        _ => return None,
    };
    Some(OriginPattern {
        scheme: scheme.into(),
        host,
        port,
    })
}

fn list(
    texts: &[String],
    check: impl Fn(&str, At<'_>, &mut Faults),
    section: At<'_>,
    faults: &mut Faults,
) -> CorsList {
    if any(texts, section, faults) {
        return CorsList::Any;
    }
    for (index, text) in texts.iter().enumerate() {
        check(text, section.item(index), faults);
    }
    match texts {
        [] => CorsList::Nothing,
        // What is no header's value has been found to be no name.
        texts => HeaderValue::try_from(texts.join(", ")).map_or(CorsList::Nothing, CorsList::Listed),
    }
}

/// Whether `*` is among them, which is then to be alone.
fn any(texts: &[String], section: At<'_>, faults: &mut Faults) -> bool {
    let Some(index) = texts.iter().position(|text| text == ANY) else {
        return false;
    };
    if texts.len() > 1 {
        let remedy = "keep it alone, or remove it";
        faults.add(section.item(index), ANY, "stands beside others", remedy);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_a_host_and_a_port() {
        let check = |text: &str, expect: Option<(&str, HostPattern, u16)>| {
            let expect = expect.map(|(scheme, host, port)| OriginPattern {
                scheme: scheme.into(),
                host,
                port,
            });
            assert_eq!(origin(text), expect, "{text}");
        };
        let exact = |host: &str| HostPattern::Exact(host.into());
        check("http://a.example", Some(("http", exact("a.example"), 80)));
        check(
            "https://A.example:8443",
            Some(("https", exact("a.example"), 8443)),
        );
        check("https://*", Some(("https", HostPattern::Any, 443)));
        check("http://*:81", Some(("http", HostPattern::Any, 81)));
        check(
            "http://*.a.b",
            Some(("http", HostPattern::Below(".a.b".into()), 80)),
        );
        for bad in [
            "a.example",
            "ftp://a",
            "http://",
            "http://a/",
            "http://a:0",
            "http://a:70000",
            "http://*a",
            "http://a..b",
            "http://a.*",
            "null",
        ] {
            check(bad, None);
        }
    }
}
