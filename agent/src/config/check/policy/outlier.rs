//! `outlierDetection`

use std::{ops::RangeInclusive, time::Duration};

use super::{COUNT, DAY, HOUR, MS, grpc_status, section::Section};
use crate::{
    config::{
        error::{At, Faults},
        traffic_policy as written,
    },
    model::{FailurePercentage, OutlierDetection, SuccessRate},
};

/// Zero turns a detector off.
const IN_A_ROW: RangeInclusive<u32> = 0..=1_000_000;
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=HOUR;
const EJECTION: RangeInclusive<Duration> = Duration::from_millis(100)..=DAY;

/// `None` when it is off; its fields are looked at all the same.
pub(super) fn check(
    spec: &written::OutlierDetection,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<OutlierDetection> {
    let default = OutlierDetection::default();
    let mut section = Section::new(at, faults);
    let split_local_origin = spec.split_local_origin.unwrap_or(default.split_local_origin);
    let local_errors = section.number("consecutiveLocalErrors", spec.consecutive_local_errors, IN_A_ROW);
    if let (Some(n), false) = (local_errors, split_local_origin)
        && n > 0
    {
        section.fault(
            "consecutiveLocalErrors",
            n,
            "counts nothing while local errors count as 5xx",
            "add `splitLocalOrigin: true`, or remove it",
        );
    }
    let grpc = spec
        .grpc_status
        .as_ref()
        .map(|words| section.items("grpcStatus", words, |word| grpc_status::parse(&word.0)));
    let (base_ejection_time, max_ejection_time) = ejection_times(spec, &default, &mut section);
    let checked = OutlierDetection {
        consecutive_5xx: section
            .number("consecutive5xx", spec.consecutive_5xx, IN_A_ROW)
            .unwrap_or(default.consecutive_5xx),
        consecutive_gateway_errors: section
            .number(
                "consecutiveGatewayErrors",
                spec.consecutive_gateway_errors,
                IN_A_ROW,
            )
            .unwrap_or(default.consecutive_gateway_errors),
        consecutive_local_errors: local_errors.unwrap_or(default.consecutive_local_errors),
        split_local_origin,
        grpc_status: grpc.unwrap_or(default.grpc_status),
        interval: section
            .duration("interval", &spec.interval, INTERVAL)
            .unwrap_or(default.interval),
        base_ejection_time,
        max_ejection_time,
        ejection_jitter: section
            .optional("ejectionJitter", &spec.ejection_jitter, MS..=HOUR)
            .map_or(default.ejection_jitter, |time| time.unwrap_or(Duration::ZERO)),
        max_ejection_percent: section
            .percent("maxEjectionPercent", spec.max_ejection_percent, 0..=100)
            .unwrap_or(default.max_ejection_percent),
        health_check_unejects: spec
            .health_check_unejects
            .unwrap_or(default.health_check_unejects),
        success_rate: spec
            .success_rate
            .as_ref()
            .map(|spec| section.inner("successRate", |section| success_rate(spec, section))),
        failure_percentage: spec
            .failure_percentage
            .as_ref()
            .map(|spec| section.inner("failurePercentage", |section| failure_percentage(spec, section))),
    };
    spec.enabled.unwrap_or(true).then_some(checked)
}

/// Base and maximum. Without a maximum, the default or the base, whichever is longer, as in Envoy.
fn ejection_times(
    spec: &written::OutlierDetection,
    default: &OutlierDetection,
    section: &mut Section<'_, '_>,
) -> (Duration, Duration) {
    let base = section
        .duration("baseEjectionTime", &spec.base_ejection_time, EJECTION)
        .unwrap_or(default.base_ejection_time);
    let Some(max) = section.duration("maxEjectionTime", &spec.max_ejection_time, EJECTION) else {
        return (base, default.max_ejection_time.max(base));
    };
    if max < base {
        let text = spec.max_ejection_time.as_deref().unwrap_or_default();
        section.fault(
            "maxEjectionTime",
            text,
            "is shorter than `baseEjectionTime`",
            "use at least as long a time",
        );
    }
    (base, max)
}

fn success_rate(spec: &written::SuccessRate, section: &mut Section<'_, '_>) -> SuccessRate {
    let default = SuccessRate::default();
    let factor = spec.stdev_factor.unwrap_or(default.stdev_factor);
    if !(0.1..=10.0).contains(&factor) {
        section.fault("stdevFactor", factor, "is out of range", "use 0.1 to 10");
    }
    SuccessRate {
        minimum_hosts: section
            .number("minimumHosts", spec.minimum_hosts, COUNT)
            .unwrap_or(default.minimum_hosts),
        request_volume: section
            .number("requestVolume", spec.request_volume, COUNT)
            .unwrap_or(default.request_volume),
        stdev_factor: factor,
    }
}

fn failure_percentage(spec: &written::FailurePercentage, section: &mut Section<'_, '_>) -> FailurePercentage {
    let default = FailurePercentage::default();
    FailurePercentage {
        threshold: section
            .percent("threshold", spec.threshold, 1..=100)
            .unwrap_or(default.threshold),
        minimum_hosts: section
            .number("minimumHosts", spec.minimum_hosts, COUNT)
            .unwrap_or(default.minimum_hosts),
        request_volume: section
            .number("requestVolume", spec.request_volume, COUNT)
            .unwrap_or(default.request_volume),
    }
}
