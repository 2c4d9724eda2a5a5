//! Zones.

use super::*;

fn in_zones(zones: &[(&str, usize)], min_endpoints: u32, algorithm: Algorithm) -> Bench {
    let settings = LoadBalancer {
        algorithm,
        zone_aware: ZoneAware::On { min_endpoints },
        ..LoadBalancer::default()
    };
    let names = zones.iter().flat_map(|(zone, n)| std::iter::repeat_n(*zone, *n));
    let endpoint = |(n, zone)| Endpoint {
        zone: Some(Arc::from(zone)),
        ..Endpoint::new(address(n))
    };
    Bench::new(settings, names.enumerate().map(endpoint).collect())
}

#[test]
fn requests_stay_in_the_zone_as_far_as_it_can_take_them() {
    for algorithm in &algorithms()[..4] {
        let even = in_zones(&[("a", 2), ("b", 2), ("c", 2)], 6, algorithm.clone()).spread(6000);
        assert_eq!(even[..2].iter().sum::<f64>(), 6000.0, "{even:?}");
        // a has 1 of 8 and a third of the callers: 3/8 stay, the rest goes where there is room.
        let small = in_zones(&[("a", 1), ("b", 5), ("c", 2)], 6, algorithm.clone()).spread(6000);
        assert_share(small[0], 6000, 0.375, 0.0, "own");
        assert_share(small[1..6].iter().sum(), 6000, 0.625, 0.0, "the large zone");
        let few = in_zones(&[("a", 2), ("b", 2)], 6, algorithm.clone()).spread(6000);
        assert_share(
            few[2..].iter().sum(),
            6000,
            0.5,
            0.0,
            "below the minimum zones do not matter",
        );
        let elsewhere = in_zones(&[("b", 3), ("c", 3)], 6, algorithm.clone()).spread(6000);
        assert_share(
            elsewhere[..3].iter().sum(),
            6000,
            0.5,
            0.0,
            "none in the own zone",
        );
    }
}

#[test]
fn a_zone_spills_over_when_its_endpoints_fail() {
    for algorithm in &algorithms()[..4] {
        let mut bench = in_zones(&[("a", 4), ("b", 4)], 4, algorithm.clone());
        assert_eq!(bench.spread(1000)[4..], [0.0; 4]);
        bench.eject(0);
        bench.eject(1);
        // a has 2 of 6 and half of the callers: two thirds stay.
        let counts = bench.spread(6000);
        assert_share(
            counts[2..4].iter().sum(),
            6000,
            2.0 / 3.0,
            0.0,
            algorithm.as_str(),
        );
        bench.eject(2);
        bench.eject(3);
        assert_eq!(bench.spread(1000)[4..].iter().sum::<f64>(), 1000.0);
        // A retry leaves the zone when there is nobody else in it.
        let mut bench = in_zones(&[("a", 1), ("b", 1)], 1, algorithm.clone());
        assert_eq!(bench.choose(None, &[]), Some(0));
        assert_eq!(bench.choose(None, &[address(0)]), Some(1));
    }
}
