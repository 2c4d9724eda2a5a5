//! Single values: text or number → what it means, or a fault.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use crate::{
    config::{
        duration,
        error::{At, Faults},
    },
    model::Protocol,
};

/// A DNS label (RFC 1123): what Kubernetes allows as the name of a service or namespace.
pub(super) fn label(text: &str, at: At<'_>, faults: &mut Faults) -> Option<Arc<str>> {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let good = (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if !good {
        faults.add(
            at,
            text,
            "is not a DNS label",
            "use 1 to 63 of a-z, 0-9 and -, with no - at either end",
        );
    }
    good.then(|| text.into())
}

/// A port's name: a label of at most 15 characters with a letter in it (RFC 6335), so that no name can be taken
/// for a number.
pub(super) fn port_name<'a>(text: &'a str, at: At<'_>, faults: &mut Faults) -> Option<&'a str> {
    label(text, at, faults)?;
    let good = text.len() <= 15 && text.bytes().any(|c| c.is_ascii_lowercase());
    if !good {
        faults.add(
            at,
            text,
            "is not a port name",
            "use at most 15 characters, at least one of them a letter",
        );
    }
    good.then_some(text)
}

pub(super) fn port(number: u64, at: At<'_>, faults: &mut Faults) -> Option<u16> {
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    if port.is_none() {
        faults.add(at, number, "is not a port", "use 1 to 65535");
    }
    port
}

/// Endpoint weights stop where the Gateway API's do.
pub(super) fn weight(number: u64, at: At<'_>, faults: &mut Faults) -> Option<u32> {
    const RANGE: RangeInclusive<u32> = 1..=1_000_000;
    let weight = u32::try_from(number).ok().filter(|weight| RANGE.contains(weight));
    if weight.is_none() {
        faults.add(
            at,
            number,
            "is not a weight",
            "use 1 to 1000000, or remove the endpoint that shall get no request",
        );
    }
    weight
}

/// A zone's name: a label value of Kubernetes, since `topology.kubernetes.io/zone` is one.
pub(super) fn zone(text: &str, at: At<'_>, faults: &mut Faults) -> Option<Arc<str>> {
    let good = is_zone(text);
    if !good {
        faults.add(at, text, "is not a zone", ZONE);
    }
    good.then(|| text.into())
}

/// What a zone's name may be.
pub(super) const ZONE: &str = "use 1 to 63 letters, digits, -, _ and ., with a letter or digit at both ends";

pub(super) fn is_zone(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    let ends = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63 && bytes.iter().copied().all(inner) && ends(bytes.first()) && ends(bytes.last())
}

/// A number within `range`; its bounds are named in the remedy.
pub(super) fn number(
    number: u64,
    range: RangeInclusive<u32>,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<u32> {
    let good = u32::try_from(number).ok().filter(|number| range.contains(number));
    if good.is_none() {
        let remedy = format!("use {} to {}", range.start(), range.end());
        faults.add(at, number, "is out of range", remedy);
    }
    good
}

/// One of a closed set of words.
pub(super) fn word<T: Clone, const N: usize>(
    text: &str,
    all: [T; N],
    as_str: impl Fn(&T) -> &'static str,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<T> {
    let known = all.iter().find(|value| as_str(value) == text).cloned();
    if known.is_none() {
        faults.add(
            at,
            text,
            "is not known",
            format!(
                "use one of {}",
                all.iter().map(as_str).collect::<Vec<_>>().join(", ")
            ),
        );
    }
    known
}

pub(super) fn declared_protocol(text: Option<&str>, at: At<'_>, faults: &mut Faults) -> Option<Protocol> {
    word(text?, Protocol::ALL, |p| p.as_str(), at, faults)
}

pub(super) fn ip(text: &str, at: At<'_>, faults: &mut Faults) -> Option<IpAddr> {
    let Ok(ip) = text.parse::<IpAddr>() else {
        faults.add(
            at,
            text,
            "is not an address",
            "write it as 10.96.0.10 or fd00::10, without a port",
        );
        return None;
    };
    reachable(ip, text, at, faults).then_some(ip)
}

/// Addresses of one thing, each once.
pub(super) fn ips(texts: &[String], section: At<'_>, faults: &mut Faults) -> Vec<IpAddr> {
    let mut checked = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let at = section.item(index);
        let Some(ip) = ip(text, at, faults) else {
            continue;
        };
        if checked.contains(&ip) {
            faults.add(at, ip, "is there already", "name each address once");
        }
        checked.push(ip);
    }
    checked
}

pub(super) fn socket_address(text: &str, at: At<'_>, faults: &mut Faults) -> Option<SocketAddr> {
    let Ok(address) = text.parse::<SocketAddr>() else {
        faults.add(
            at,
            text,
            "is not an address and port",
            "write it as 10.0.0.3:80 or [fd00::3]:80",
        );
        return None;
    };
    if address.port() == 0 {
        faults.add(
            at,
            text,
            "has no port",
            "write the port that the pod listens on, 1 to 65535",
        );
        return None;
    }
    reachable(address.ip(), text, at, faults).then_some(address)
}

/// Whether a pod can dial `ip` and mean one host by it.
fn reachable(ip: IpAddr, text: &str, at: At<'_>, faults: &mut Faults) -> bool {
    if ip != ip.to_canonical() {
        let remedy = format!("write the IPv4 address {}", ip.to_canonical());
        faults.add(at, text, "is an IPv4 address in IPv6's clothes", remedy);
        return false;
    }
    if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        faults.add(
            at,
            text,
            "is no single host's address",
            "write the address that the pods dial",
        );
        return false;
    }
    if matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 127 && v4.octets()[1] >= 192) {
        faults.add(
            at,
            text,
            "is in 127.192.0.0/10",
            "use another; redirected connections live in this one",
        );
        return false;
    }
    true
}

/// A duration within `range`; its bounds are named in the remedy.
pub(super) fn within(
    text: &str,
    range: RangeInclusive<Duration>,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<Duration> {
    let between = format!(
        "{} to {}",
        duration::Display(*range.start()),
        duration::Display(*range.end())
    );
    bounded(text, range, &between, at, faults)
}

/// As [`within`], and zero for none.
pub(super) fn within_or_none(
    text: &str,
    range: RangeInclusive<Duration>,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<Option<Duration>> {
    if duration::parse(text) == Ok(Duration::ZERO) {
        return Some(None);
    }
    let between = format!(
        "{} to {}, or 0s for none",
        duration::Display(*range.start()),
        duration::Display(*range.end())
    );
    bounded(text, range, &between, at, faults).map(Some)
}

fn bounded(
    text: &str,
    range: RangeInclusive<Duration>,
    between: &str,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<Duration> {
    match duration::parse(text) {
        Err(duration::InvalidDuration) => {
            let remedy = format!("write it like 250ms, 15s or 1m30s, from {between}");
            faults.add(at, text, "is not a duration", remedy);
            None
        }
        Ok(value) if range.contains(&value) => Some(value),
        Ok(_) => {
            faults.add(at, text, "is out of range", format!("use {between}"));
            None
        }
    }
}
