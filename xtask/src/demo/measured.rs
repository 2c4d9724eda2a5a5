//! What was measured, and what was promised of it.

use std::collections::BTreeMap;

use derny_tests::load::Call;
use serde::Serialize;

/// A round robin's count may be this far from the mean.
const SPREAD: f64 = 0.10;
/// After so many seconds without the agent every new connection succeeds.
const FAIL_OPEN_SECONDS: f64 = 1.5;

#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) without: Spread,
    pub(crate) with: Spread,
    pub(crate) endpoint_kill: Kill,
    pub(crate) agent_kill: Absence,
    pub(crate) agent_hang: Absence,
}

/// Calls by endpoint; one that got none is there with 0.
pub(crate) type Spread = BTreeMap<String, usize>;

#[derive(Debug, Serialize)]
pub(crate) struct Kill {
    pub(crate) calls: usize,
    pub(crate) failed: usize,
}

/// What clients met around an absence of the agent: gRPC calls over a standing channel, and new connections.
#[derive(Debug, Serialize)]
pub(crate) struct Absence {
    pub(crate) calls: usize,
    pub(crate) failed: usize,
    /// Seconds from the agent's end to the moment when the last new connection was given up; 0 when none was.
    pub(crate) last_failed_new_connection_s: f64,
    /// Answered without the engine, after the agent's end.
    pub(crate) served_directly: usize,
    /// Answered through the engine, after its return.
    pub(crate) served_by_derny_again: usize,
}

pub(crate) fn spread(endpoints: impl Iterator<Item = String>, calls: &[Call]) -> Spread {
    let mut spread: Spread = endpoints.map(|name| (name, 0)).collect();
    for call in calls.iter().filter(|call| call.ok) {
        *spread.entry(call.endpoint.clone()).or_default() += 1;
    }
    spread
}

impl Absence {
    /// `gone` and `back` are seconds of the Unix epoch.
    pub(crate) fn new(grpc: &[Call], connections: &[Call], gone: f64, back: f64) -> Self {
        let all = || grpc.iter().chain(connections);
        let failed_connections = connections.iter().filter(|call| !call.ok && call.ended() >= gone);
        Self {
            calls: all().count(),
            failed: all().filter(|call| !call.ok).count(),
            last_failed_new_connection_s: failed_connections
                .map(|call| call.ended() - gone)
                .fold(0.0, f64::max),
            served_directly: all().filter(|call| call.begun >= gone && call.directly()).count(),
            served_by_derny_again: all().filter(|call| call.begun >= back && call.by_derny()).count(),
        }
    }

    fn broken_promises(&self, what: &str, broken: &mut Vec<String>) {
        if self.last_failed_new_connection_s > FAIL_OPEN_SECONDS {
            broken.push(format!(
                "{what}: a new connection failed after {:.2} s, later than {FAIL_OPEN_SECONDS} s",
                self.last_failed_new_connection_s
            ));
        }
        if self.served_directly == 0 {
            broken.push(format!("{what}: nothing was served directly"));
        }
        if self.served_by_derny_again == 0 {
            broken.push(format!("{what}: nothing was served by Derny again"));
        }
    }
}

impl Measured {
    /// A sentence for each promise that was not kept.
    pub(crate) fn broken_promises(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let total: usize = self.with.values().sum();
        for (endpoint, calls) in &self.with {
            // Both far below 2^52, where an f64 is exact.
            let share = (calls * self.with.len()) as f64 / total.max(1) as f64;
            if (share - 1.0).abs() > SPREAD {
                broken.push(format!(
                    "{endpoint} got {calls} of {total} calls, more than 10 % off the mean"
                ));
            }
        }
        if self.endpoint_kill.failed > 0 {
            broken.push(format!(
                "{} calls failed when an endpoint was killed",
                self.endpoint_kill.failed
            ));
        }
        self.agent_kill.broken_promises("agent killed", &mut broken);
        self.agent_hang.broken_promises("agent hung", &mut broken);
        broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absence(last: f64) -> Absence {
        Absence {
            calls: 9,
            failed: 1,
            last_failed_new_connection_s: last,
            served_directly: 5,
            served_by_derny_again: 3,
        }
    }

    fn measured() -> Measured {
        let with = [("a", 100), ("b", 109), ("c", 91)]
            .map(|(name, calls)| (name.to_owned(), calls))
            .into();
        Measured {
            without: Spread::new(),
            with,
            endpoint_kill: Kill { calls: 10, failed: 0 },
            agent_kill: absence(1.4),
            agent_hang: absence(0.0),
        }
    }

    #[test]
    fn each_promise_is_checked() {
        assert_eq!(measured().broken_promises(), [""; 0]);
        let worse: [fn(&mut Measured); 5] = [
            |it| *it.with.entry("a".to_owned()).or_default() += 40,
            |it| it.endpoint_kill.failed = 1,
            |it| it.agent_kill.last_failed_new_connection_s = 1.6,
            |it| it.agent_hang.served_directly = 0,
            |it| it.agent_hang.served_by_derny_again = 0,
        ];
        for worsen in worse {
            let mut measured = measured();
            worsen(&mut measured);
            assert!(!measured.broken_promises().is_empty(), "{measured:?}");
        }
    }

    #[test]
    fn an_absence_is_measured_from_its_moments() {
        let call = |begun: f64, took: f64, ok: bool, id: &str| -> Call {
            let line = serde_json::json!({
                "t": begun, "ms": took, "ok": ok, "endpoint": "e", "request_id": id,
            });
            serde_json::from_value(line).unwrap()
        };
        let connections = [
            call(9.0, 100.0, false, ""),
            call(9.5, 1.0, true, "x"),
            call(10.5, 400.0, false, ""),
            call(11.0, 1.0, true, ""),
            call(13.0, 1.0, true, "y"),
        ];
        let absence = Absence::new(&[], &connections, 10.0, 12.0);
        assert_eq!((absence.calls, absence.failed), (5, 2));
        assert!((absence.last_failed_new_connection_s - 0.9).abs() < 1e-9);
        assert_eq!((absence.served_directly, absence.served_by_derny_again), (1, 1));
    }
}
