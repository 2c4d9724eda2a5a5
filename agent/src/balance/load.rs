//! What one worker knows of one endpoint: weight, requests in flight, latency.

use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

/// After this long without a sample, an old latency counts 1/e.
const DECAY: Duration = Duration::from_secs(10);

/// The cost, in seconds, of an endpoint that has a request in flight and has never answered: larger than any
/// sane latency, so that a new endpoint is tried with one request at a time until it answers once.
const UNKNOWN: f64 = 3600.0;

/// Load and latency of an endpoint, as seen by one worker. Survives changes of its service.
#[derive(Debug)]
pub struct EndpointLoad {
    address: SocketAddr,
    weight: Cell<u32>,
    in_flight: Cell<u32>,
    latency: Cell<Latency>,
}

/// A peak-sensitive moving average: it jumps to a worse sample and forgets it exponentially.
/// (Twitter finagle, `PeakEwma`.)
#[derive(Clone, Copy, Debug)]
enum Latency {
    Unknown,
    Known { seconds: f64, at: Instant },
}

impl EndpointLoad {
    pub fn new(address: SocketAddr, weight: u32) -> Rc<Self> {
        Rc::new(Self {
            address,
            weight: Cell::new(weight.max(1)),
            in_flight: Cell::new(0),
            latency: Cell::new(Latency::Unknown),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn weight(&self) -> u32 {
        self.weight.get()
    }

    pub fn set_weight(&self, weight: u32) {
        self.weight.set(weight.max(1));
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// The average now, in seconds; `None` before the first answer.
    pub fn latency(&self, now: Instant) -> Option<f64> {
        match self.latency.get() {
            Latency::Unknown => None,
            Latency::Known { seconds, at } => Some(seconds * kept(now.saturating_duration_since(at))),
        }
    }

    /// Counts a request as in flight until the guard is dropped.
    pub fn begin(self: &Rc<Self>) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        InFlight(self.clone())
    }

    /// An answer took `took`, ending at `now`.
    pub fn observe(&self, took: Duration, now: Instant) {
        let sample = took.as_secs_f64();
        let seconds = match self.latency.get() {
            Latency::Known { seconds, at } if sample < seconds => {
                let kept = kept(now.saturating_duration_since(at));
                seconds * kept + sample * (1.0 - kept)
            }
            _ => sample,
        };
        self.latency.set(Latency::Known { seconds, at: now });
    }

    /// Latency × (requests in flight, this one included) / weight.
    pub(super) fn latency_cost(&self, now: Instant) -> f64 {
        let in_flight = f64::from(self.in_flight.get());
        let latency = match self.latency(now) {
            Some(seconds) => seconds,
            None if self.in_flight.get() == 0 => 0.0,
            None => UNKNOWN,
        };
        latency * (in_flight + 1.0) / f64::from(self.weight.get())
    }

    /// Requests in flight, this one included, / weight.
    pub(super) fn request_cost(&self) -> f64 {
        (f64::from(self.in_flight.get()) + 1.0) / f64::from(self.weight.get())
    }
}

/// How much of an old value is left after `elapsed`, 1 to 0.
fn kept(elapsed: Duration) -> f64 {
    (-elapsed.as_secs_f64() / DECAY.as_secs_f64()).exp()
}

/// One request in flight.
#[derive(Debug)]
pub struct InFlight(Rc<EndpointLoad>);

impl InFlight {
    pub fn endpoint(&self) -> &EndpointLoad {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> (Rc<EndpointLoad>, Instant) {
        (
            EndpointLoad::new(([10, 0, 0, 1], 80).into(), 1),
            tokio::time::Instant::now().into_std(),
        )
    }

    #[test]
    fn a_worse_sample_counts_at_once_and_a_better_one_in_time() {
        let (load, start) = load();
        load.observe(Duration::from_millis(10), start);
        load.observe(Duration::from_millis(100), start);
        assert_eq!(load.latency(start), Some(0.1));
        load.observe(Duration::from_millis(10), start);
        assert_eq!(
            load.latency(start),
            Some(0.1),
            "no time has passed, the peak stands"
        );
        load.observe(Duration::from_millis(10), start + DECAY);
        let after = load.latency(start + DECAY).unwrap();
        assert!(
            (0.04..0.05).contains(&after),
            "one decay later 1/e of the peak is left: {after}"
        );
    }

    #[test]
    fn an_endpoint_that_nobody_asks_is_forgiven() {
        let (load, start) = load();
        load.observe(Duration::from_secs(5), start);
        let later = load.latency_cost(start + Duration::from_secs(60));
        assert!(later < 0.02, "{later}");
    }

    #[test]
    fn a_new_endpoint_is_tried_with_one_request_at_a_time() {
        let (load, start) = load();
        assert_eq!(load.latency_cost(start), 0.0);
        let first = load.begin();
        assert!(load.latency_cost(start) > 1000.0);
        drop(first);
        assert_eq!((load.in_flight(), load.latency_cost(start)), (0, 0.0));
    }
}
