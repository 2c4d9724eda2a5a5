//! Bounds on what is going on at a time, shared by the workers. What is over a bound is refused at once.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
};

use crate::model::{CircuitBreaking, InboundLimits, RetryBudget};

/// The circuit breaker of one (source workload, service port), or of one inbound port.
#[derive(Debug)]
pub struct Breaker {
    requests: Gate,
    pending: Gate,
    connections: Gate,
    retries: Gate,
    /// Percent of the requests that may be retries; the bound of `retries` is then the least.
    budget_percent: AtomicU8,
}

/// One bound.
#[derive(Debug)]
struct Gate {
    now: AtomicU32,
    max: AtomicU32,
    refused: AtomicU64,
}

/// One bound as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    pub now: u32,
    /// `u32::MAX`: no bound.
    pub max: u32,
    /// How often it refused.
    pub refused: u64,
}

impl Level {
    /// Whether the next would be refused.
    pub fn is_open(self) -> bool {
        self.now >= self.max
    }
}

/// All bounds of a [`Breaker`] as they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    pub requests: Level,
    pub pending: Level,
    pub connections: Level,
    pub retries: Level,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Requests,
    Pending,
    Connections,
    Retries,
}

impl Gate {
    fn new(max: u32) -> Self {
        Self {
            now: AtomicU32::new(0),
            max: AtomicU32::new(max),
            refused: AtomicU64::new(0),
        }
    }

    fn bound(&self, max: Option<u32>) {
        self.max.store(max.unwrap_or(u32::MAX), Relaxed);
    }

    fn enter(&self, max: u32) -> bool {
        let entered = (self.now)
            .fetch_update(Relaxed, Relaxed, |n| (n < max).then(|| n + 1))
            .is_ok();
        if !entered {
            self.refused.fetch_add(1, Relaxed);
        }
        entered
    }

    fn level(&self, max: u32) -> Level {
        Level {
            now: self.now.load(Relaxed),
            max,
            refused: self.refused.load(Relaxed),
        }
    }

    fn max(&self) -> u32 {
        self.max.load(Relaxed)
    }
}

impl Breaker {
    pub fn new(settings: &CircuitBreaking, budget: RetryBudget) -> Self {
        let this = Self::unbounded();
        this.follow(settings, budget);
        this
    }

    /// The bounds of a pod's port, whoever calls.
    pub fn inbound(limits: &InboundLimits) -> Self {
        let this = Self::unbounded();
        this.follow_inbound(limits);
        this
    }

    fn unbounded() -> Self {
        Self {
            requests: Gate::new(u32::MAX),
            pending: Gate::new(u32::MAX),
            connections: Gate::new(u32::MAX),
            retries: Gate::new(u32::MAX),
            budget_percent: AtomicU8::new(0),
        }
    }

    /// Takes over other bounds. What is going on goes on, even above a bound that has come down.
    pub fn follow(&self, settings: &CircuitBreaking, budget: RetryBudget) {
        self.requests.bound(settings.max_requests);
        self.pending.bound(settings.max_pending_requests);
        self.connections.bound(settings.max_connections);
        let (retries, percent) = match settings.max_retries {
            Some(max) => (max, 0),
            None => (budget.min, budget.percent),
        };
        self.retries.max.store(retries, Relaxed);
        self.budget_percent.store(percent, Relaxed);
    }

    pub fn follow_inbound(&self, limits: &InboundLimits) {
        self.requests.bound(limits.max_requests);
        self.connections.bound(limits.max_connections);
    }

    /// A request, from its first attempt until its end.
    pub fn request(self: &Arc<Self>) -> Option<Permit> {
        self.enter(Of::Requests, self.requests.max())
    }

    /// A request that waits for a connection.
    pub fn pending(self: &Arc<Self>) -> Option<Permit> {
        self.enter(Of::Pending, self.pending.max())
    }

    /// A connection to an endpoint, from the begin of its making until it is closed.
    pub fn connection(self: &Arc<Self>) -> Option<Permit> {
        self.enter(Of::Connections, self.connections.max())
    }

    /// A retry, from its decision (the back-off counts) until its end.
    pub fn retry(self: &Arc<Self>) -> Option<Permit> {
        self.enter(Of::Retries, self.max_retries())
    }

    pub fn levels(&self) -> Levels {
        Levels {
            requests: self.requests.level(self.requests.max()),
            pending: self.pending.level(self.pending.max()),
            connections: self.connections.level(self.connections.max()),
            retries: self.retries.level(self.max_retries()),
        }
    }

    /// The bound, or as many as the budget gives with the requests there are.
    fn max_retries(&self) -> u32 {
        let percent = u64::from(self.budget_percent.load(Relaxed));
        let active = u64::from(self.requests.now.load(Relaxed)) + u64::from(self.pending.now.load(Relaxed));
        let share = u32::try_from(active * percent / 100).unwrap_or(u32::MAX);
        self.retries.max().max(share)
    }

    fn enter(self: &Arc<Self>, of: Of, max: u32) -> Option<Permit> {
        self.gate(of).enter(max).then(|| Permit {
            breaker: self.clone(),
            of,
        })
    }

    fn gate(&self, of: Of) -> &Gate {
        match of {
            Of::Requests => &self.requests,
            Of::Pending => &self.pending,
            Of::Connections => &self.connections,
            Of::Retries => &self.retries,
        }
    }
}

/// One of the things that a [`Breaker`] counts. It is over when this is dropped.
#[derive(Debug)]
#[must_use = "what is counted is over when the permit is dropped"]
pub struct Permit {
    breaker: Arc<Breaker>,
    of: Of,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.breaker.gate(self.of).now.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker(settings: CircuitBreaking) -> Arc<Breaker> {
        Arc::new(Breaker::new(&settings, RetryBudget { percent: 20, min: 3 }))
    }

    #[test]
    fn each_bound_refuses_what_is_above_it_and_counts_it() {
        let breaker = breaker(CircuitBreaking {
            max_requests: Some(2),
            max_pending_requests: Some(1),
            max_connections: Some(0),
            ..CircuitBreaking::default()
        });
        let held = [breaker.request(), breaker.request()];
        assert!(held.iter().all(Option::is_some) && breaker.request().is_none());
        let waiting = breaker.pending();
        assert!(waiting.is_some() && breaker.pending().is_none());
        assert!(breaker.connection().is_none(), "zero lets nothing through");
        let levels = breaker.levels();
        let level = |now, max, refused| Level { now, max, refused };
        assert_eq!(
            (levels.requests, levels.pending, levels.connections),
            (level(2, 2, 1), level(1, 1, 1), level(0, 0, 1))
        );
        assert!(levels.requests.is_open());
        drop(held);
        assert_eq!(breaker.levels().requests, level(0, 2, 1));
        assert!(breaker.request().is_some());
    }

    #[test]
    fn the_retry_budget_is_a_share_of_the_requests_but_not_less_than_its_minimum() {
        let breaker = breaker(CircuitBreaking::default());
        let retries = |n: usize| (0..n).map_while(|_| breaker.retry()).collect::<Vec<_>>();
        assert_eq!(retries(100).len(), 3);
        let _requests: Vec<_> = (0..50).map(|_| breaker.request().unwrap()).collect();
        assert_eq!(retries(100).len(), 10);
        assert_eq!(
            breaker.levels().retries,
            Level {
                now: 0,
                max: 10,
                refused: 2
            }
        );
    }

    #[test]
    fn max_retries_replaces_the_budget() {
        let breaker = breaker(CircuitBreaking {
            max_retries: Some(1),
            ..CircuitBreaking::default()
        });
        let _requests: Vec<_> = (0..50).map(|_| breaker.request().unwrap()).collect();
        let _one = breaker.retry().unwrap();
        assert!(breaker.retry().is_none());
    }

    #[test]
    fn a_bound_that_comes_down_ends_nothing_and_lets_nothing_more_in() {
        let breaker = breaker(CircuitBreaking::default());
        let mut held: Vec<_> = (0..5).map(|_| breaker.request().unwrap()).collect();
        let lower = CircuitBreaking {
            max_requests: Some(3),
            ..CircuitBreaking::default()
        };
        breaker.follow(&lower, RetryBudget::default());
        assert!(breaker.request().is_none());
        held.truncate(2);
        held.push(breaker.request().unwrap());
        assert!(breaker.request().is_none());
    }

    #[test]
    fn an_inbound_port_has_only_the_bounds_it_was_given() {
        let breaker = Arc::new(Breaker::inbound(&InboundLimits {
            max_requests: Some(1),
            max_connections: None,
            ..InboundLimits::default()
        }));
        let _one = breaker.request().unwrap();
        assert!(breaker.request().is_none());
        let connections: Vec<_> = (0..10_000).map_while(|_| breaker.connection()).collect();
        assert_eq!(connections.len(), 10_000);
    }
}
