//! A fixed set of endpoints that a request goes to one of: all that get requests, or those of one zone.

use std::{rc::Rc, time::Duration, time::Instant};

use super::{EndpointLoad, contender::Contender, p2c::Draw, round_robin::RoundRobin, weights::Weights};
use crate::model::Algorithm;

/// How one of a group is chosen.
#[derive(Debug)]
enum Way {
    PeakEwma,
    LeastRequest,
    RoundRobin(RoundRobin),
    Random,
}

#[derive(Debug)]
pub(super) struct Group {
    /// Indices into the balancer's endpoints.
    members: Vec<usize>,
    weights: Weights,
    way: Way,
}

/// What a choice depends on, apart from the endpoints.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) slow_start: Duration,
    pub(super) now: Instant,
}

impl Group {
    pub(super) fn new(
        algorithm: &Algorithm,
        endpoints: &[Rc<EndpointLoad>],
        members: Vec<usize>,
        rng: &mut fastrand::Rng,
    ) -> Self {
        let weights = || members.iter().map(|i| endpoints[*i].weight());
        let way = match algorithm {
            Algorithm::PeakEwma => Way::PeakEwma,
            Algorithm::RoundRobin => Way::RoundRobin(RoundRobin::new(weights(), rng)),
            Algorithm::Random => Way::Random,
            // The hashes come here with requests that have no key, which go anywhere.
            Algorithm::LeastRequest | Algorithm::RingHash { .. } | Algorithm::Maglev { .. } => {
                Way::LeastRequest
            }
        };
        Self {
            weights: Weights::new(weights()),
            way,
            members,
        }
    }

    pub(super) fn weight(&self) -> u64 {
        self.weights.total()
    }

    /// The index of the endpoint for a request; `None` when none is usable.
    pub(super) fn choose(
        &mut self,
        endpoints: &[Rc<EndpointLoad>],
        usable: impl Fn(usize) -> bool,
        Moment { slow_start, now }: Moment,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let members = &self.members;
        let load = |position: usize| &endpoints[members[position]];
        let ramp = |position: usize| load(position).ramp(slow_start, now);
        let usable = |position: usize| usable(members[position]);
        let contender = |position: usize| Contender {
            load: load(position),
            relative: self.weights.relative(position),
        };
        let draw = Draw {
            weights: &self.weights,
            usable,
            ramp,
        };
        let position = match &mut self.way {
            Way::PeakEwma => draw.better(|p, q| contender(p).is_quicker(contender(q), now), rng),
            Way::LeastRequest => draw.better(|p, q| contender(p).is_idler(contender(q)), rng),
            Way::RoundRobin(turns) => turns.next(usable, ramp),
            Way::Random => draw.one(rng),
        }?;
        if matches!(self.way, Way::PeakEwma | Way::LeastRequest) {
            contender(position).take_turn(ramp(position));
        }
        members.get(position).copied()
    }
}
