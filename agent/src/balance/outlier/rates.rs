//! The detectors that compare endpoints with each other once per interval.

use std::{net::SocketAddr, sync::Arc};

use super::{EjectReason, host::Bucket, host::Host};
use crate::model::{FailurePercentage, OutlierDetection, SuccessRate};

/// Percent of good answers of an endpoint that had enough of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    pub(super) address: SocketAddr,
    pub(super) total: u32,
    pub(super) percent: f64,
}

/// Endpoints that an interval detector finds wanting, and begins the next interval.
pub(super) fn outliers<'h>(
    settings: &OutlierDetection,
    hosts: impl Iterator<Item = &'h Arc<Host>> + Clone,
) -> Vec<(SocketAddr, EjectReason)> {
    let mut found = Vec::new();
    let buckets: [fn(&Host) -> &Bucket; 2] = [|h| &h.answers, |h| &h.reached];
    for bucket in buckets {
        let mut rates: Vec<Rate> = (hosts.clone())
            .filter_map(|host| {
                let counted = bucket(host).take();
                rate(host.address(), counted).filter(|_| host.is_in())
            })
            .collect();
        // Worst first: when not all may be ejected, those are.
        rates.sort_by(|a, b| a.percent.total_cmp(&b.percent).then(a.address.cmp(&b.address)));
        if let Some(settings) = &settings.success_rate {
            found.extend(below_mean(settings, &rates).map(|a| (a, EjectReason::SuccessRate)));
        }
        if let Some(settings) = &settings.failure_percentage {
            found.extend(above_threshold(settings, &rates).map(|a| (a, EjectReason::FailurePercentage)));
        }
    }
    found
}

fn rate(address: SocketAddr, (good, bad): (u32, u32)) -> Option<Rate> {
    let total = good.checked_add(bad).filter(|total| *total > 0)?;
    Some(Rate {
        address,
        total,
        percent: 100.0 * f64::from(good) / f64::from(total),
    })
}

/// Those with enough requests, if there are enough of them to compare.
fn comparable(rates: &[Rate], minimum_hosts: u32, request_volume: u32) -> Vec<Rate> {
    let enough: Vec<Rate> = (rates.iter().copied())
        .filter(|r| r.total >= request_volume)
        .collect();
    if u32::try_from(enough.len()).is_ok_and(|n| n < minimum_hosts) {
        return Vec::new();
    }
    enough
}

/// Success rates under mean − factor × standard deviation (of the population, as in Envoy).
pub(super) fn below_mean(settings: &SuccessRate, rates: &[Rate]) -> impl Iterator<Item = SocketAddr> + use<> {
    let rates = comparable(rates, settings.minimum_hosts, settings.request_volume);
    let n = rates.len() as f64;
    let mean = rates.iter().map(|r| r.percent).sum::<f64>() / n;
    let variance = rates.iter().map(|r| (r.percent - mean).powi(2)).sum::<f64>() / n;
    let threshold = mean - settings.stdev_factor * variance.sqrt();
    rates
        .into_iter()
        .filter(move |r| r.percent < threshold)
        .map(|r| r.address)
}

pub(super) fn above_threshold(
    settings: &FailurePercentage,
    rates: &[Rate],
) -> impl Iterator<Item = SocketAddr> + use<> {
    let threshold = f64::from(settings.threshold);
    comparable(rates, settings.minimum_hosts, settings.request_volume)
        .into_iter()
        .filter(move |r| 100.0 - r.percent >= threshold)
        .map(|r| r.address)
}
