//! The counters of one worker for one (caller, service port). Handles are found once per connection; a request
//! only adds to numbers that no other thread writes.

use std::{cell, rc::Rc, sync::Arc, time::Duration};

use super::{
    cells::{Cell, Durations},
    labels::{Outcome, ScopeKey, Spoken, TimeLimit},
    outcomes::{Counted, Outcomes},
};

/// What the scrape reads.
#[derive(Debug)]
pub(super) struct ScopeShard {
    pub(super) key: ScopeKey,
    pub(super) spoken: [SpokenShard; 3],
    pub(super) retries: Cell,
    pub(super) connections: Cell,
    pub(super) connections_active: Cell,
    pub(super) upstream_connections: Cell,
    pub(super) upstream_active: Cell,
    pub(super) upstream_failures: Cell,
    pub(super) tcp_received: Cell,
    pub(super) tcp_sent: Cell,
    pub(super) detect_timeouts: Cell,
    pub(super) not_mirrored: Cell,
    /// In the order of [`TimeLimit::ALL`].
    pub(super) timeouts: [Cell; TimeLimit::ALL.len()],
}

#[derive(Debug, Default)]
pub(super) struct SpokenShard {
    pub(super) outcomes: Outcomes,
    pub(super) duration: Durations,
    pub(super) received: Cell,
    pub(super) sent: Cell,
}

impl ScopeShard {
    pub(super) fn new(key: ScopeKey) -> Self {
        Self {
            key,
            spoken: Default::default(),
            retries: Cell::default(),
            connections: Cell::default(),
            connections_active: Cell::default(),
            upstream_connections: Cell::default(),
            upstream_active: Cell::default(),
            upstream_failures: Cell::default(),
            tcp_received: Cell::default(),
            tcp_sent: Cell::default(),
            detect_timeouts: Cell::default(),
            not_mirrored: Cell::default(),
            timeouts: Default::default(),
        }
    }
}

/// A worker's handle on its shard.
#[derive(Debug)]
pub struct Scope {
    shard: Arc<ScopeShard>,
    /// Outcomes that are told apart, for each thing that is spoken.
    most_outcomes: usize,
    /// How many more outcomes may be told apart in all scopes of the workload.
    room: Rc<cell::Cell<usize>>,
}

impl Scope {
    pub(super) fn new(shard: Arc<ScopeShard>, most_outcomes: usize, room: Rc<cell::Cell<usize>>) -> Rc<Self> {
        Rc::new(Self {
            shard,
            most_outcomes,
            room,
        })
    }

    /// Outcomes that are told apart.
    pub(super) fn outcomes(&self) -> usize {
        self.shard
            .spoken
            .iter()
            .map(|spoken| spoken.outcomes.iter().count())
            .sum()
    }

    /// What a scrape reads of it.
    pub(super) fn shard(&self) -> &Arc<ScopeShard> {
        &self.shard
    }

    pub fn key(&self) -> &ScopeKey {
        &self.shard.key
    }

    /// One request ended.
    pub(super) fn request(
        &self,
        spoken: Spoken,
        outcome: Outcome,
        took: Duration,
        received: u64,
        sent: u64,
    ) -> Counted {
        let shard = &self.shard.spoken[spoken.index()];
        shard.duration.observe(took);
        shard.received.add(received);
        shard.sent.add(sent);
        shard
            .outcomes
            .count(outcome.counted(), self.most_outcomes, &self.room)
    }

    pub fn retried(&self) {
        self.shard.retries.add(1);
    }

    /// A connection was accepted; it is open until the guard is dropped.
    pub fn connection(self: &Rc<Self>) -> OpenConnection {
        self.shard.connections.add(1);
        self.shard.connections_active.add(1);
        OpenConnection {
            scope: self.clone(),
            side: Side::Accepted,
        }
    }

    /// A connection to an endpoint was opened; it is open until the guard is dropped.
    pub fn upstream_connection(self: &Rc<Self>) -> OpenConnection {
        self.shard.upstream_connections.add(1);
        self.shard.upstream_active.add(1);
        OpenConnection {
            scope: self.clone(),
            side: Side::Upstream,
        }
    }

    pub fn upstream_failed(&self) {
        self.shard.upstream_failures.add(1);
    }

    pub fn detect_timed_out(&self) {
        self.shard.detect_timeouts.add(1);
    }

    /// A time limit of the policy has passed.
    pub fn timed_out(&self, limit: TimeLimit) {
        self.shard.timeouts[limit as usize].add(1);
    }

    /// A request should have been mirrored and was not.
    pub fn not_mirrored(&self) {
        self.shard.not_mirrored.add(1);
    }

    /// Bytes relayed since the last call: from the caller, to the caller.
    pub fn relayed(&self, received: u64, sent: u64) {
        self.shard.tcp_received.add(received);
        self.shard.tcp_sent.add(sent);
    }
}

/// Counts one connection as open.
#[derive(Debug)]
pub struct OpenConnection {
    scope: Rc<Scope>,
    side: Side,
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Accepted,
    Upstream,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        match self.side {
            Side::Accepted => self.scope.shard.connections_active.sub(1),
            Side::Upstream => self.scope.shard.upstream_active.sub(1),
        }
    }
}
