//! HTTP/1.1: one request at a time per connection.

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{
    client::conn::http1::{self, SendRequest},
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::{
    ConnectError, Open, Opening, Paid, Pool, RequestBody, connect, dead_peer, idle_too_long,
    life::Life,
    watched::{End, Watched},
};
use crate::{
    share::{self, Paced, Part},
    transport::{Peers, Socket},
};

/// What a connection may hold of a response that the caller does not read yet, and of its head. In bytes.
const MAX_BUFFER: u64 = 64 * 1024;
/// hyper takes no less.
const MIN_BUFFER: u64 = 8 * 1024;

/// A connection that waits for its next request.
#[derive(Debug)]
pub(super) struct Idle<B> {
    connection: Http1<B>,
    since: Instant,
}

/// Of the idle connections to one endpoint so many are kept until their idle timeout; more only for [`SURPLUS_AFTER`],
/// since what a burst has opened holds buffers that nobody may need again.
const KEPT: usize = 8;
const SURPLUS_AFTER: Duration = Duration::from_secs(15);

/// Forgets idle connections that have expired or are too many. The last is the one that was used last.
pub(super) fn sweep<B>(idle: &mut Vec<Idle<B>>, now: Instant) {
    idle.drain(..surplus(idle.len(), idle.iter().map(|idle| idle.since), now));
    idle.retain(|idle| !idle.expired(now));
}

/// How many of the first are more than are kept. Those that have been idle for the longest come first.
fn surplus(count: usize, since: impl Iterator<Item = Instant>, now: Instant) -> usize {
    let more = since.take(count.saturating_sub(KEPT));
    more.take_while(|since| idle_too_long(*since, SURPLUS_AFTER, now))
        .count()
}

impl<B> Idle<B> {
    fn expired(&self, now: Instant) -> bool {
        self.connection.sender.is_closed()
            || !self.connection.life.goes_on(now)
            || idle_too_long(self.since, self.connection.idle_timeout, now)
    }
}

/// A connection taken for one request. Dropped, it closes; [`Pool::put_back`] keeps it.
#[derive(Debug)]
pub struct Http1<B> {
    pub sender: SendRequest<B>,
    idle_timeout: Duration,
    life: Life,
    end: Arc<End>,
    /// What had been written on it before this request.
    start: u64,
}

impl<B: RequestBody> Pool<B> {
    /// An idle connection that still looks open. It may be closing at the other end all the same; a request that
    /// could not be written comes back from [`SendRequest::try_send_request`] and goes to the next.
    pub fn idle_http1(&self) -> Option<Http1<B>> {
        let mut idle = self.http1.borrow_mut();
        while let Some(Idle { mut connection, .. }) = idle.pop() {
            if connection.may_serve() {
                connection.life.serve();
                connection.start = connection.end.written();
                return Some(connection);
            }
        }
        None
    }

    /// A connection for one request when none is idle: a new one, or, where no more are allowed, the next that
    /// becomes free.
    pub async fn http1(&self, opening: Opening<'_>) -> Result<Http1<B>, ConnectError> {
        let _pending = opening.bounds.pending().ok_or(ConnectError::TooManyPending)?;
        loop {
            let freed = self.room.freed.notified();
            if let Some(held) = self.admit(&**opening.bounds) {
                let connection = self.open_http1(opening, held).await?;
                connection.life.serve();
                return Ok(connection);
            }
            opening.queued.set(true);
            freed.await;
            if let Some(idle) = self.idle_http1() {
                return Ok(idle);
            }
        }
    }

    async fn open_http1(
        &self,
        opening: Opening<'_>,
        held: Option<super::Held>,
    ) -> Result<Http1<B>, ConnectError> {
        let settings = opening.settings;
        let paid = Paid::new(&self.share, MAX_BUFFER, MIN_BUFFER, Part::OfHttp1)?;
        let buffer = usize::try_from(paid.bytes()).unwrap_or(usize::MAX);
        let open = Open::new(&self.room, opening.scope, held, paid);
        let stream = connect(
            &*self.sockets,
            (self.endpoint, opening.dial_as),
            settings,
            opening.scope,
        )
        .await?;
        let (stream, end) = Watched::new(stream);
        let pulse = stream.pulse().clone();
        let peers = || Peers::new([(pulse.clone(), dead_peer(settings))]);
        let (beside, after) = (peers().beside(), peers());
        let handshake = http1::Builder::new()
            .max_buf_size(buffer)
            // What RFC 9112 lets a proxy mend (sections 5.1 and 5.2), and servers send.
            .allow_spaces_after_header_name_in_responses(true)
            .allow_obsolete_multiline_headers_in_responses(true)
            .handshake(TokioIo::new(Paced(stream)))
            .await;
        let (sender, connection) = handshake.map_err(|e| ConnectError::Handshake(e.to_string()))?;
        let endpoint = self.endpoint;
        self.share.spawn(async move {
            let mut open = open;
            let ended = tokio::select! {
                ended = connection.with_upgrades() => ended,
                () = beside => Ok(()),
            };
            match ended {
                // Where the protocol was switched the connection goes on elsewhere.
                Ok(()) => {
                    open.give_back_buffers();
                    after.watch().await;
                }
                Err(error) => tracing::debug!(%endpoint, %error, "upstream connection ended"),
            }
        });
        let life = Life::new(settings, Instant::now(), fastrand::f64());
        Ok(Http1 {
            sender,
            idle_timeout: settings.idle_timeout,
            life,
            end,
            start: 0,
        })
    }

    /// The response has been read to its end: the connection may serve again.
    pub fn put_back(self: &Rc<Self>, connection: Http1<B>) {
        if connection.may_serve() {
            self.http1.borrow_mut().push(Idle {
                connection,
                since: share::now(),
            });
            self.room.freed.notify_one();
        }
    }
}

/// The connection to an endpoint that has switched protocols, with what has been read of it already.
pub fn upgraded(upgraded: Upgraded) -> Option<(Bytes, Socket)> {
    let parts = upgraded.downcast::<TokioIo<Paced<Watched>>>().ok()?;
    Some((parts.read_buf, parts.io.into_inner().0.into_socket()))
}

impl<B> Http1<B> {
    /// Whether the endpoint had closed the connection before anything of this request reached it, so that the
    /// request may go on another, whatever its method. Known when the request has failed.
    pub fn took_nothing(&self) -> bool {
        self.end.took_nothing_since(self.start)
    }

    fn may_serve(&self) -> bool {
        !self.sender.is_closed() && self.life.goes_on(share::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_burst_has_opened_is_kept_for_a_while() {
        let begun = Instant::now();
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        // Twenty of a burst, below them two that have been idle for longer.
        let since: Vec<Instant> = [0, 5].into_iter().chain([10; 20]).map(at).collect();
        let check = |now: u64, expect: usize| {
            assert_eq!(
                surplus(since.len(), since.iter().copied(), at(now)),
                expect,
                "after {now} s"
            );
        };
        check(14, 0);
        check(15, 1);
        check(24, 2);
        check(25, 14);
        check(9000, 14);
        assert_eq!(surplus(8, [begun; 8].into_iter(), at(9000)), 0);
    }
}
