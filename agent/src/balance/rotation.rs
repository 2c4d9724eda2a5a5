//! Who gets requests at the moment: by state, by standing, or all of them in panic.

use super::Standing;
use crate::model::EndpointState;

/// What follows for all endpoints from the state and the standing of each.
#[derive(Debug, Default)]
pub struct Rotation {
    /// By index: gets requests.
    pub takes: Vec<bool>,
    /// Indices of those that wait for the request that decides about them.
    pub trials: Vec<usize>,
    pub panic: bool,
}

impl Rotation {
    /// An endpoint that is going away counts for nothing, unless all are.
    pub fn new(
        endpoints: impl ExactSizeIterator<Item = (EndpointState, Standing)> + Clone,
        panic_threshold: u8,
    ) -> Self {
        let leaving = |state| state == EndpointState::Terminating;
        let usable = |state, standing| state == EndpointState::Ready && standing == Standing::In;
        if endpoints.clone().all(|(state, _)| leaving(state)) {
            return Self {
                takes: vec![true; endpoints.len()],
                ..Self::default()
            };
        }
        let staying = endpoints.clone().filter(|(state, _)| !leaving(*state)).count();
        let good = endpoints
            .clone()
            .filter(|(state, standing)| usable(*state, *standing))
            .count();
        let panic = good * 100 < usize::from(panic_threshold) * staying;
        let tried = endpoints
            .clone()
            .enumerate()
            .filter(|(_, (state, standing))| *state == EndpointState::Ready && *standing == Standing::Trial);
        Self {
            trials: tried.map(|(i, _)| i).collect(),
            takes: endpoints
                .map(|(state, standing)| {
                    if panic {
                        !leaving(state)
                    } else {
                        usable(state, standing)
                    }
                })
                .collect(),
            panic,
        }
    }
}
