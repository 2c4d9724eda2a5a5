//! `loadBalancer`

use std::{ops::RangeInclusive, time::Duration};

use http::HeaderName;

use super::{super::words, HOUR, MS, section::Section};
use crate::{
    config::{
        error::{At, Faults},
        traffic_policy as written,
    },
    model::{Algorithm, HashKey, LoadBalancer, ZoneAware},
};

/// Envoy's bounds.
const RING_SIZE: RangeInclusive<u32> = 1024..=8_388_608;
const DEFAULT_RING_SIZE: u32 = 1024;
/// Above, Envoy's bound; below, so many that a hundred endpoints get fair shares.
const TABLE_SIZE: RangeInclusive<u32> = 1009..=5_000_011;
const DEFAULT_TABLE_SIZE: u32 = 65_537;
const DEFAULT_MIN_ENDPOINTS: u32 = 6;

pub(super) fn check(spec: &written::LoadBalancer, at: At<'_>, faults: &mut Faults) -> LoadBalancer {
    let default = LoadBalancer::default();
    let algorithm = algorithm(spec, at, faults);
    let mut section = Section::new(at, faults);
    LoadBalancer {
        algorithm: algorithm.unwrap_or(default.algorithm),
        slow_start: section
            .optional("slowStart", &spec.slow_start, MS..=HOUR)
            .map_or(default.slow_start, |window| window.unwrap_or(Duration::ZERO)),
        zone_aware: spec.zone_aware.as_ref().map_or(default.zone_aware, |zone_aware| {
            let min = section.inner("zoneAware", |section| {
                section.number("minEndpoints", zone_aware.min_endpoints, 1..=65_536)
            });
            ZoneAware::On {
                min_endpoints: min.unwrap_or(DEFAULT_MIN_ENDPOINTS),
            }
        }),
        panic_threshold: section
            .percent("panicThreshold", spec.panic_threshold, 0..=100)
            .unwrap_or(default.panic_threshold),
    }
}

/// The algorithm with what only some of them take; for the others that is a fault, not silence.
fn algorithm(spec: &written::LoadBalancer, at: At<'_>, faults: &mut Faults) -> Option<Algorithm> {
    // Stands where a key could not be read; the fault keeps it from use.
    let no_key = HashKey::SourceAddress;
    let all = [
        Algorithm::PeakEwma,
        Algorithm::LeastRequest,
        Algorithm::RoundRobin,
        Algorithm::Random,
        Algorithm::RingHash {
            key: no_key.clone(),
            min_ring_size: DEFAULT_RING_SIZE,
        },
        Algorithm::Maglev {
            key: no_key.clone(),
            table_size: DEFAULT_TABLE_SIZE,
        },
    ];
    let named = match spec.algorithm.as_deref() {
        None => Algorithm::default(),
        Some(text) => words::word(text, all, Algorithm::as_str, at.field("algorithm"), faults)?,
    };
    let word = named.as_str();
    let mut section = Section::new(at, faults);
    let ring_size = section.number("minRingSize", spec.min_ring_size, RING_SIZE);
    let table_size = table_size(spec.table_size, &mut section);
    let key = spec
        .hash_on
        .as_ref()
        .and_then(|hash_on| section.inner("hashOn", |section| hash_key(hash_on, section)));
    let (hashes, is_ring, is_maglev) = match named {
        Algorithm::RingHash { .. } => (true, true, false),
        Algorithm::Maglev { .. } => (true, false, true),
        _ => (false, false, false),
    };
    if hashes && spec.hash_on.is_none() {
        section.fault(
            "algorithm",
            word,
            "hashes and has no key",
            "add `hashOn` with a header, a cookie or sourceAddress",
        );
    }
    if !hashes && spec.hash_on.is_some() {
        section.fault(
            "hashOn",
            word,
            "does not hash",
            "use ringHash or maglev, or remove `hashOn`",
        );
    }
    if let (Some(size), false) = (spec.min_ring_size, is_ring) {
        section.fault(
            "minRingSize",
            size,
            "is for ringHash",
            "remove it, or use ringHash",
        );
    }
    if let (Some(size), false) = (spec.table_size, is_maglev) {
        section.fault("tableSize", size, "is for maglev", "remove it, or use maglev");
    }
    let key = key.unwrap_or(no_key);
    Some(match named {
        Algorithm::RingHash { .. } => Algorithm::RingHash {
            key,
            min_ring_size: ring_size.unwrap_or(DEFAULT_RING_SIZE),
        },
        Algorithm::Maglev { .. } => Algorithm::Maglev {
            key,
            table_size: table_size.unwrap_or(DEFAULT_TABLE_SIZE),
        },
        other => other,
    })
}

fn table_size(size: Option<u64>, section: &mut Section<'_, '_>) -> Option<u32> {
    let size = section.number("tableSize", size, TABLE_SIZE)?;
    if !is_prime(size) {
        // The upper bound is a prime itself, so there is one.
        let next = (size..=*TABLE_SIZE.end()).find(|n| is_prime(*n));
        let remedy = format!("use {}, the next one", next.unwrap_or(DEFAULT_TABLE_SIZE));
        section.fault("tableSize", size, "is not a prime", remedy);
        return None;
    }
    Some(size)
}

fn is_prime(n: u32) -> bool {
    let divisors = (2..).take_while(|d| d * d <= n);
    n > 1 && divisors.into_iter().all(|d| !n.is_multiple_of(d))
}

fn hash_key(spec: &written::HashOn, section: &mut Section<'_, '_>) -> Option<HashKey> {
    let written::HashOn {
        header,
        cookie,
        source_address,
    } = spec;
    match (header, cookie, source_address) {
        (Some(name), None, None) => section.header("header", name).map(HashKey::Header),
        (None, Some(name), None) => {
            // A cookie's name is a token (RFC 6265, 4.1.1), like a header's, but its case counts.
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                let remedy = "use letters, digits, - and _, such as session_id";
                section.fault("cookie", name, "is not a cookie's name", remedy);
                return None;
            }
            Some(HashKey::Cookie(name.as_str().into()))
        }
        (None, None, Some(true)) => Some(HashKey::SourceAddress),
        (None, None, Some(false)) => {
            section.fault(
                "sourceAddress",
                false,
                "is no key",
                "use true, a header or a cookie",
            );
            None
        }
        (None, None, None) => {
            section.own_fault("{}", "has no key", "name a header, a cookie or sourceAddress");
            None
        }
        _ => {
            section.own_fault(
                &keys(spec),
                "are several keys",
                "keep one of header, cookie and sourceAddress",
            );
            None
        }
    }
}

fn keys(spec: &written::HashOn) -> String {
    let given = [
        ("header", spec.header.is_some()),
        ("cookie", spec.cookie.is_some()),
        ("sourceAddress", spec.source_address.is_some()),
    ];
    let given = given.iter().filter(|(_, there)| *there).map(|(name, _)| *name);
    given.collect::<Vec<_>>().join(", ")
}
