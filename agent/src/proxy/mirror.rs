//! Copies of requests for routes that mirror. Nobody waits for what comes of them.

use std::{cell::Cell, rc::Rc, time::Duration};

use http::request;
use http_body_util::BodyExt as _;

use super::{forward, inlet::Inlet};
use crate::{
    model::ServicePortName,
    pool::Opening,
    respond::{Body, Via, prepare_request},
    retry::RequestBody,
};

/// A mirrored exchange is given up after this.
const PATIENCE: Duration = Duration::from_secs(15);

/// Sends a copy of what the caller sent, `head` and `body`, to each of `targets`, as that speaks. Only a request whose body has been kept whole can be copied; others are
/// counted as not mirrored.
pub(super) fn send(
    inlet: &Rc<Inlet>,
    targets: &[ServicePortName],
    head: &request::Parts,
    body: &RequestBody,
) {
    let Some(bytes) = body.whole() else {
        inlet.line.scope.not_mirrored();
        return;
    };
    for target in targets {
        let (inlet, target, head, bytes) = (inlet.clone(), target.clone(), head.clone(), bytes.clone());
        let share = inlet.pod.share.clone();
        share.spawn(async move {
            let copied = tokio::time::timeout(PATIENCE, one(&inlet, &target, head, Body::Full(bytes))).await;
            if !matches!(copied, Ok(Some(()))) {
                inlet.line.scope.not_mirrored();
            }
        });
    }
}

async fn one(inlet: &Inlet, target: &ServicePortName, mut head: request::Parts, body: Body) -> Option<()> {
    let upstream = inlet.known(inlet.backend(target)?).await;
    let _permit = upstream.guards().breaker.request()?;
    let endpoint = upstream.choose(None, &[], &mut inlet.worker.rng.borrow_mut())?;
    let _in_flight = endpoint.try_begin()?;
    let pool = inlet.pool(endpoint.address());
    let settings = &upstream.port.policy.connection_pool;
    let opening = Opening {
        settings,
        scope: &inlet.line.scope,
        bounds: upstream.bounds(),
        caller: inlet.sharer,
        dial_as: inlet.dial_as,
        queued: &Cell::new(false),
    };
    let via = Via::of(upstream.port.protocol, head.version);
    prepare_request(&mut head, inlet.caller(), via).ok()?;
    let body = RequestBody::new(body, 0, &inlet.pod.share).attempt()?;
    let (response, lease) = forward::attempt(&pool, opening, via, (&head, body), &inlet.pod.share, |_| None)
        .await
        .ok()?;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame.ok()?;
    }
    lease.give_back();
    Some(())
}
