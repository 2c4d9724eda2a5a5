//! `dns` of a service port.

use std::{net::IpAddr, ops::RangeInclusive, sync::Arc, time::Duration};

use super::words;
use crate::{
    config::{
        error::{At, Faults},
        schema,
    },
    model::{Dns, DnsMode, TtlBounds},
};

const TTL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(24 * 3600);

pub(super) fn check(dns: &schema::Dns, at: At<'_>, faults: &mut Faults) -> Option<Dns> {
    let name = name(&dns.name, at.field("name"), faults);
    let port = words::port(dns.port, at.field("port"), faults);
    let mode = dns.mode.as_deref();
    let mode =
        mode.and_then(|text| words::word(text, DnsMode::ALL, |mode| mode.as_str(), at.field("mode"), faults));
    let default = TtlBounds::default();
    let min = dns.min_ttl.as_deref();
    let min = min.and_then(|text| words::within(text, TTL, at.field("minTtl"), faults));
    let max = dns.max_ttl.as_deref();
    let max = max.and_then(|text| words::within(text, TTL, at.field("maxTtl"), faults));
    // One that is said moves the default of the other, so that `maxTtl: 500ms` alone is no contradiction.
    let ttl = TtlBounds {
        min: min.unwrap_or_else(|| default.min.min(max.unwrap_or(default.min))),
        max: max.unwrap_or_else(|| default.max.max(min.unwrap_or(default.max))),
    };
    if ttl.min > ttl.max {
        faults.add(
            at.field("minTtl"),
            dns.min_ttl.as_deref().unwrap_or_default(),
            "is above `maxTtl`",
            "make it the smaller one",
        );
    }
    Some(Dns {
        name: name?,
        port: port?,
        mode: mode.unwrap_or_default(),
        ttl,
    })
}

/// A host name (RFC 1123), with underscores, which RFC 2782 and practice have added.
fn name(text: &str, at: At<'_>, faults: &mut Faults) -> Option<Arc<str>> {
    let lower = text.to_ascii_lowercase();
    let absolute = lower.strip_suffix('.').unwrap_or(&lower);
    if absolute.parse::<IpAddr>().is_ok() {
        faults.add(
            at,
            text,
            "is an address",
            "write it under `endpoints`, with its port",
        );
        return None;
    }
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'_';
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let good = absolute.len() <= 253 && absolute.split('.').all(label);
    if !good {
        let remedy = "write a whole name such as db.example.com: no search domain is added to it";
        faults.add(at, text, "is not a host name", remedy);
    }
    good.then(|| absolute.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Checked, from_yaml};

    fn yaml(port: &str) -> String {
        format!("services: [{{name: db, ports: [{{port: 80, {port}}}]}}]")
    }

    fn good(port: &str) -> Checked {
        from_yaml(yaml(port).as_bytes()).unwrap_or_else(|error| panic!("{error}\n{port}"))
    }

    #[track_caller]
    fn check(port: &str, expect: &[&str]) {
        let error = from_yaml(yaml(port).as_bytes()).expect_err(port);
        assert_eq!(error.problems(), expect, "{port}");
    }

    #[test]
    fn says_what_is_to_be_resolved() {
        let checked = good("dns: {name: DB.example.com., port: 5432}");
        let ports: Vec<_> = checked
            .dns
            .iter()
            .map(|(port, dns)| (port.to_string(), dns.clone()))
            .collect();
        let expect = Dns {
            name: "db.example.com".into(),
            port: 5432,
            mode: DnsMode::All,
            ttl: TtlBounds::default(),
        };
        assert_eq!(ports, [("default/db:80".to_owned(), expect)]);
        assert!(checked.services[0].ports[0].endpoints.is_empty());

        let checked = good("dns: {name: db, port: 1, mode: logical, minTtl: 10m}");
        let dns = checked.dns.values().next().unwrap();
        assert_eq!(dns.mode, DnsMode::Logical);
        assert_eq!(
            (dns.ttl.min, dns.ttl.max),
            (Duration::from_secs(600), Duration::from_secs(600))
        );
        let checked = good("dns: {name: _http._tcp.db, port: 1, maxTtl: 500ms}");
        let dns = checked.dns.values().next().unwrap();
        assert_eq!(dns.ttl.min, Duration::from_millis(500));
    }

    #[test]
    fn faults_name_the_field_and_the_remedy() {
        check(
            "dns: {name: 10.0.0.1, port: 80}",
            &[
                "services[0].ports[0].dns.name: `10.0.0.1` is an address: write it under `endpoints`, with its port",
            ],
        );
        for bad in ["a..b", "-a.com", "a b", "", "."] {
            check(
                &format!("dns: {{name: '{bad}', port: 80}}"),
                &[&format!(
                    "services[0].ports[0].dns.name: `{bad}` is not a host name: write a whole name such as \
                     db.example.com: no search domain is added to it"
                )],
            );
        }
        check(
            "dns: {name: a, port: 0, mode: some, minTtl: 1ms}",
            &[
                "services[0].ports[0].dns.port: `0` is not a port: use 1 to 65535",
                "services[0].ports[0].dns.mode: `some` is not known: use one of all, logical",
                "services[0].ports[0].dns.minTtl: `1ms` is out of range: use 100ms to 24h",
            ],
        );
        check(
            "dns: {name: a, port: 1, minTtl: 10s, maxTtl: 5s}",
            &["services[0].ports[0].dns.minTtl: `10s` is above `maxTtl`: make it the smaller one"],
        );
        check(
            "dns: {name: a, port: 1}, endpoints: [{address: '10.0.0.1:80'}]",
            &["services[0].ports[0].dns: `a` stands beside `endpoints`: use one of the two"],
        );
    }
}
