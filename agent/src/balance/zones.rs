//! How much of a caller's traffic stays in its zone.
//!
//! A node does not know how many callers the other zones have. It takes them for equal: each zone that has endpoints
//! brings the same traffic. A zone whose usable endpoints can take its share of the whole keeps all of its own
//! traffic; otherwise what is above its capacity goes to zones that have some to spare, in proportion to that. (Envoy's
//! zone-aware routing, with an even spread for the callers' cluster.)

/// The endpoints of one zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Zone {
    /// The caller's.
    pub(super) own: bool,
    /// Whether it is a zone and not the endpoints without one, which nobody calls from.
    pub(super) named: bool,
    /// Weights of its usable endpoints.
    pub(super) capacity: u64,
}

/// Parts of the traffic by zone, adding up to 1; `None` when zones do not matter: the caller's own has no usable
/// endpoint, or there is only one.
pub(super) fn split(zones: &[Zone]) -> Option<Vec<f64>> {
    let own = zones.iter().find(|z| z.own && z.capacity > 0)?;
    if zones.len() < 2 {
        return None;
    }
    let whole = zones.iter().map(|z| z.capacity).sum::<u64>() as f64;
    let callers = 1.0 / zones.iter().filter(|z| z.named).count() as f64;
    let share = |zone: &Zone| zone.capacity as f64 / whole;
    let kept = (share(own) / callers).min(1.0);
    let spare = |zone: &Zone| match zone {
        Zone { own: true, .. } => 0.0,
        Zone { named: true, .. } => (share(zone) - callers).max(0.0),
        Zone { named: false, .. } => share(zone),
    };
    let spares: f64 = zones.iter().map(spare).sum();
    let part = |zone: &Zone| match zone {
        Zone { own: true, .. } => kept,
        _ if spares > 0.0 => (1.0 - kept) * spare(zone) / spares,
        _ => 0.0,
    };
    Some(zones.iter().map(part).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(own: u64, others: &[u64]) -> Option<Vec<f64>> {
        let mut zones = vec![Zone {
            own: true,
            named: true,
            capacity: own,
        }];
        zones.extend(others.iter().map(|capacity| Zone {
            own: false,
            named: true,
            capacity: *capacity,
        }));
        let parts = split(&zones)?;
        assert!((parts.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{parts:?}");
        Some(parts)
    }

    #[test]
    fn a_zone_that_can_take_its_callers_keeps_them() {
        assert_eq!(parts(2, &[2, 2]), Some(vec![1.0, 0.0, 0.0]));
        assert_eq!(parts(6, &[1, 1]), Some(vec![1.0, 0.0, 0.0]));
    }

    #[test]
    fn what_is_above_its_capacity_goes_where_there_is_some_to_spare() {
        // 1 of 6 is half of a third.
        let parts = parts(1, &[2, 3]).unwrap();
        assert!((parts[0] - 0.5).abs() < 1e-9, "{parts:?}");
        assert!(
            parts[1].abs() < 1e-9,
            "{parts:?}: the second has what its own callers need"
        );
        assert!((parts[2] - 0.5).abs() < 1e-9, "{parts:?}");
    }

    #[test]
    fn every_endpoint_gets_the_same_when_callers_are_even() {
        let capacities = [1u64, 4, 7];
        let mut load = [0.0; 3];
        for own in 0..3 {
            let zones: Vec<Zone> = (capacities.iter().enumerate())
                .map(|(i, capacity)| Zone {
                    own: i == own,
                    named: true,
                    capacity: *capacity,
                })
                .collect();
            for (load, part) in load.iter_mut().zip(split(&zones).unwrap()) {
                *load += part / 3.0;
            }
        }
        for (load, capacity) in load.iter().zip(capacities) {
            assert!(
                (load - capacity as f64 / 12.0).abs() < 1e-9,
                "{load} for {capacity}"
            );
        }
    }

    #[test]
    fn a_zone_without_usable_endpoints_has_no_preference() {
        assert_eq!(parts(0, &[1, 1]), None);
        assert_eq!(parts(3, &[]), None);
    }
}
