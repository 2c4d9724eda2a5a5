//! An endpoint is judged by how its requests end.

use std::rc::Rc;

use http::StatusCode;
use tokio::time::Instant;

use super::{inlet::Inlet, view::Upstream};
use crate::{
    balance::{EndpointLoad, InFlight, Permit, Verdict},
    share,
};

/// What gRPC says where HTTP says 504 and 503.
const DEADLINE_EXCEEDED: u16 = 4;
const UNAVAILABLE: u16 = 14;

/// An endpoint that has a request, and is to be judged by how it ends.
#[derive(Debug)]
pub(super) struct Judged {
    inlet: Rc<Inlet>,
    upstream: Rc<Upstream>,
    in_flight: InFlight,
    /// The place that the request takes up at an endpoint of this node.
    _place: Option<Permit>,
    open: Open,
}

/// Whether the verdict is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Yes,
    No,
}

impl Judged {
    pub(super) fn new(
        inlet: &Rc<Inlet>,
        upstream: &Rc<Upstream>,
        in_flight: InFlight,
        place: Option<Permit>,
    ) -> Self {
        Self {
            inlet: inlet.clone(),
            upstream: upstream.clone(),
            in_flight,
            _place: place,
            open: Open::Yes,
        }
    }

    pub(super) fn endpoint(&self) -> &Rc<EndpointLoad> {
        self.in_flight.endpoint()
    }

    /// The verdict; only the first counts.
    pub(super) fn verdict(&mut self, verdict: Verdict) {
        if std::mem::replace(&mut self.open, Open::No) == Open::No {
            return;
        }
        let mut rng = self.inlet.worker.rng.borrow_mut();
        let guards = self.upstream.guards();
        let now = share::now().into_std();
        if let Some(event) = self.in_flight.record(&guards.outliers, verdict, now, &mut rng) {
            guards.report(self.inlet.line.scope.key(), &event);
        }
    }

    /// A request was not answered in time.
    pub(super) fn late(&mut self) {
        self.endpoint().observe_failure(Instant::now().into_std());
        self.verdict(Verdict::LocalError);
    }

    /// Nobody waits any more for the answer to a request that began at `started`.
    pub(super) fn given_up(&mut self, started: Instant) {
        let now = share::now().into_std();
        let endpoint = self.endpoint();
        let others = self.upstream.latency_beside(endpoint.address());
        if self.open == Open::Yes && endpoint.given_up(started.into_std(), now, others) {
            self.verdict(Verdict::LocalError);
        }
    }

    /// The verdict by the status with which a gRPC call ended.
    pub(super) fn by_status(&mut self, status: u16) {
        let policy = &self.upstream.port.policy;
        let failure = policy
            .outlier_detection
            .as_ref()
            .is_some_and(|outlier| outlier.grpc_status.contains(&status));
        self.verdict(if failure {
            Verdict::Failure5xx {
                gateway: matches!(status, DEADLINE_EXCEEDED | UNAVAILABLE),
            }
        } else {
            Verdict::Success
        });
    }

    pub(super) fn by_http(&mut self, status: StatusCode) {
        self.verdict(if status.is_server_error() {
            Verdict::Failure5xx {
                gateway: matches!(status.as_u16(), 502..=504),
            }
        } else {
            Verdict::Success
        });
    }
}
