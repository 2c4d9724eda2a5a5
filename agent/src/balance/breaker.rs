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
        self.requests.max.store(settings.max_requests, Relaxed);
        self.pending.max.store(settings.max_pending_requests, Relaxed);
        self.connections.max.store(settings.max_connections, Relaxed);
        let (retries, percent) = match settings.max_retries {
            Some(max) => (max, 0),
            None => (budget.min, budget.percent),
        };
        self.retries.max.store(retries, Relaxed);
        self.budget_percent.store(percent, Relaxed);
    }

    pub fn follow_inbound(&self, limits: &InboundLimits) {
        let max = |bound: Option<u32>| bound.unwrap_or(u32::MAX);
        self.requests.max.store(max(limits.max_requests), Relaxed);
        self.connections.max.store(max(limits.max_connections), Relaxed);
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
