//! What the workers share about callers and services, as `/metrics` shows it.

use crate::{
    balance::Level,
    proxy::{Guarded, Registry},
    record::{BoundSample, Direction, GuardSample},
};

pub(super) fn samples(registry: &Registry) -> Vec<GuardSample> {
    registry.all().iter().map(sample).collect()
}

fn sample(guarded: &Guarded) -> GuardSample {
    let (guards, levels) = (&guarded.guards, guarded.levels());
    let bound = |bound, level: Level| BoundSample {
        bound,
        open: Some(level.is_open()),
        refused: level.refused,
    };
    let mut bounds = vec![
        bound("connections", levels.connections),
        bound("requests", levels.requests),
    ];
    // An inbound port has no others.
    if guarded.key.direction == Direction::Outbound {
        bounds.extend([
            bound("pendingRequests", levels.pending),
            bound("retries", levels.retries),
            BoundSample {
                bound: "perEndpoint",
                open: None,
                refused: guards.endpoints_full(),
            },
        ]);
    }
    GuardSample {
        key: guarded.key.clone(),
        requests: levels.requests.now.into(),
        pending: levels.pending.now.into(),
        bounds,
        ejections: guards
            .ejections()
            .map(|(reason, n)| (reason.as_str(), n))
            .collect(),
        ejected: guards.outliers.out() as u64,
    }
}
