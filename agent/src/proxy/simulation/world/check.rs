//! What must hold: of each request that has ended, after each step, and at the end.

use std::{collections::HashSet, rc::Rc};

use http::{Method, StatusCode};
use tokio::time::advance;

use super::{Call, Outcome, World};
use crate::{
    balance::Level,
    proxy::{
        Guarded,
        simulation::{
            endpoint::{Mood, Site},
            seen::Seen,
            setting::{MAX_EJECTED_PERCENT, RETRIES},
        },
    },
    record::{NodeSample, encode},
};

/// Levels of a breaker after the step before, and endpoints out.
#[derive(Clone, Copy)]
pub(super) struct Before {
    pub(super) levels: [Level; 4],
    pub(super) out: usize,
}

impl World {
    /// Takes the calls that have ended, and looks at what became of each.
    pub(super) async fn reap(&mut self) {
        let (ended, running): (Vec<Call>, Vec<Call>) = std::mem::take(&mut self.calls)
            .into_iter()
            .partition(|call| call.task.is_finished());
        self.calls = running;
        for call in ended {
            let arrivals = self.book.of(call.number);
            let outcome = match call.task.await {
                Ok(outcome) => Some(outcome),
                Err(error) if error.is_cancelled() => None,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            let told = format!(
                "request {}, {}: {outcome:?} after {arrivals:?}",
                call.number, call.method
            );
            for arrival in &arrivals {
                assert!(
                    call.allowed.contains(&arrival.endpoint),
                    "sent where it may not go: {told}"
                );
            }
            let attempts: HashSet<u32> = arrivals.iter().map(|arrival| arrival.attempt).collect();
            assert_eq!(attempts.len(), arrivals.len(), "an attempt arrived twice: {told}");
            assert!(
                attempts.len() <= 1 + RETRIES as usize,
                "too many attempts: {told}"
            );
            if let Some((_, earlier)) = arrivals.split_last()
                && call.method == Method::POST
            {
                let refused = earlier.iter().all(|arrival| arrival.answered == Some(503));
                assert!(
                    refused,
                    "not idempotent, and sent again though it may have been done: {told}"
                );
            }
            self.seen.retries += arrivals.len().saturating_sub(1) as u64;
            match outcome {
                Some(Outcome::Answered(StatusCode::OK)) => {
                    // The last that was asked answered; another's answer may have been lost with its connection.
                    assert_eq!(
                        arrivals.last().and_then(|arrival| arrival.answered),
                        Some(200),
                        "{told}"
                    );
                    self.seen.answered += 1;
                }
                Some(Outcome::Answered(_)) if arrivals.is_empty() => self.seen.refused += 1,
                Some(_) => self.seen.failed += 1,
                None => self.seen.cancelled += 1,
            }
        }
    }

    /// What must hold at all times. `changed`: the configuration did, since the last time.
    pub(super) fn check(&mut self, changed: bool) {
        let guards = self.registry.all();
        let mut all_requests = 0;
        for (place, guarded) in guards.iter().enumerate() {
            let levels = guarded.levels();
            let levels = [
                levels.requests,
                levels.connections,
                levels.pending,
                levels.retries,
            ];
            let host = |site: &Rc<Site>| guarded.guards.outliers.host(site.address);
            let out = self.listed().filter(|site| !host(site).is_in()).count();
            if let Some(before) = self.before.get(place) {
                // A bound that has come down ends nothing. That of the retries moves with the requests.
                for (level, before) in levels.iter().zip(&before.levels).take(3) {
                    let most = level.max.max(before.max).max(before.now);
                    assert!(level.now <= most, "{levels:?} of {:?}", guarded.key);
                }
                let of = self.listed.iter().flatten().count();
                if out > before.out && !changed {
                    let share = usize::from(MAX_EJECTED_PERCENT) * of / 100;
                    assert!(out <= share.max(1), "{out} of {of} are out");
                    self.seen.ejections += (out - before.out) as u64;
                }
            }
            let (requests, pending, retries) = (levels[0].now, levels[2].now, levels[3].now);
            assert!(pending <= requests && retries <= requests, "{levels:?}");
            let mut in_flight = 0;
            for site in self.listed() {
                let at_one = host(site).in_flight();
                let most = self.policy.circuit_breaking.max_requests_per_endpoint.unwrap();
                assert!(at_one <= most, "{at_one} at {}", site.address);
                in_flight += at_one;
            }
            assert!(
                in_flight <= requests,
                "{in_flight} attempts of {requests} requests"
            );
            all_requests += requests as usize;
            self.seen.pending += u64::from(pending > 0);
            let before = Before { levels, out };
            match self.before.get_mut(place) {
                Some(known) => *known = before,
                None => self.before.push(before),
            }
        }
        assert!(
            all_requests <= self.calls.len(),
            "{all_requests} of {} calls",
            self.calls.len()
        );
    }

    /// All is well again: everything in hand ends, and nothing is left of it.
    pub(in crate::proxy::simulation) async fn end(mut self) -> Seen {
        for site in &self.sites {
            if site.mood() != Mood::Good {
                site.change(Mood::Good).await;
            }
        }
        // Longer than any timeout of the policy, with its retries.
        for _ in 0..1000 {
            if self.calls.is_empty() {
                break;
            }
            self.go_on().await;
            self.check(false);
        }
        if let Some(call) = self.calls.first() {
            let levels: Vec<_> = self.registry.all().iter().map(Guarded::levels).collect();
            let arrivals = self.book.of(call.number);
            panic!(
                "request {} never ends, after {arrivals:?}: {levels:?}",
                call.number
            );
        }
        // And longer than a connection may be idle.
        advance(self.policy.connection_pool.idle_timeout * 2).await;
        for _ in 0..20 {
            self.go_on().await;
            if self.open_connections() == 0.0 {
                break;
            }
        }
        self.check(false);
        for guarded in self.registry.all() {
            let levels = guarded.levels();
            let now = [
                levels.requests.now,
                levels.pending.now,
                levels.connections.now,
                levels.retries.now,
            ];
            assert_eq!(now, [0; 4], "{:?}", guarded.key);
            for site in self.listed() {
                assert_eq!(guarded.guards.outliers.host(site.address).in_flight(), 0);
            }
        }
        assert_eq!(self.open_connections(), 0.0, "connections to endpoints leaked");
        assert_eq!(
            self.metric("derny_requests_total"),
            self.begun.get() as f64,
            "each is recorded, and once"
        );
        self.seen
    }

    /// The sites that the configuration has. To ask for another's standing would make it known again.
    fn listed(&self) -> impl Iterator<Item = &Rc<Site>> {
        let listed = self.sites.iter().zip(&self.listed);
        listed.filter(|(_, state)| state.is_some()).map(|(site, _)| site)
    }

    fn open_connections(&self) -> f64 {
        self.metric("derny_upstream_connections_active")
    }

    /// The sum of all series of that name.
    fn metric(&self, name: &str) -> f64 {
        let page = encode(&self.hub, NodeSample::default());
        let of_name = page.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        of_name
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }
}
