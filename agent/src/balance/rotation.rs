//! Who gets requests at the moment: by state, by standing, or all of them in panic.

use std::rc::Rc;

use super::{EndpointLoad, Standing};
use crate::model::EndpointState;

/// What follows for all endpoints from the standing of each.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    /// By index: gets requests.
    pub(super) takes: Vec<bool>,
    /// Indices of those that wait for the request that decides about them.
    pub(super) trials: Vec<usize>,
    pub(super) panic: bool,
}

impl Rotation {
    /// An endpoint that is going away counts for nothing, unless all are.
    pub(super) fn new(endpoints: &[Rc<EndpointLoad>], panic_threshold: u8) -> Self {
        let leaving = |e: &EndpointLoad| e.state() == EndpointState::Terminating;
        let usable = |e: &EndpointLoad| e.state() == EndpointState::Ready && e.host().is_in();
        if endpoints.iter().all(|e| leaving(e)) {
            return Self {
                takes: vec![true; endpoints.len()],
                ..Self::default()
            };
        }
        let staying = endpoints.iter().filter(|e| !leaving(e)).count();
        let good = endpoints.iter().filter(|e| usable(e)).count();
        let panic = good * 100 < usize::from(panic_threshold) * staying;
        let trial =
            |e: &EndpointLoad| e.state() == EndpointState::Ready && e.host().standing() == Standing::Trial;
        Self {
            takes: (endpoints.iter())
                .map(|e| if panic { !leaving(e) } else { usable(e) })
                .collect(),
            trials: (0..endpoints.len()).filter(|i| trial(&endpoints[*i])).collect(),
            panic,
        }
    }
}
