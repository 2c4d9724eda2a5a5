//! A caller's HTTP/2 connection. h2 is used directly: streams are relayed frame by frame with their resets and
//! windows, which a client-and-server API over them would hide.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use tokio::time::{Instant, Sleep, timeout};

use super::{
    exchange::{self, exchange},
    inlet::Inlet,
    local_pod::LINGER,
    pump::Pump,
};
use crate::{
    accept::{Framed, Reading, Replay},
    record::TimeLimit,
    respond::{Body, expects_continue},
    share::{Holding, Local, Part, Share},
    transport::{Doing, Event, Situation, Vigil},
};

/// Streams that one caller's connection may have open.
const MAX_STREAMS: u32 = 1024;
/// Bytes of one stream's response that wait for the caller's window or socket.
const SEND_BUFFER: usize = 32 * 1024;
/// What a stream costs beside its head and its response, in bytes: its task and its exchange.
const STREAM: u64 = 8 * 1024;
/// A connection's window cannot be smaller (RFC 9113 section 6.9.2).
const MIN_WINDOW: u64 = 65_535;
/// Request headers that one stream may bring, in bytes.
const MAX_HEADER_LIST: u32 = 64 * 1024;
/// Reset streams that are remembered, and for how long: frames for them may still be on their way.
const MAX_RESET_STREAMS: usize = 2 * MAX_STREAMS as usize;
const REMEMBERED_FOR: Duration = Duration::from_secs(5);
/// What the overhead of small frames that wait for an endpoint may come to, in bytes.
const SMALL_FRAMES: usize = 4 * 1024 * 1024;

pub(super) async fn serve(inlet: Rc<Inlet>, stream: Replay) {
    let window = inlet
        .upstream()
        .map_or(65_535, |u| u.port.policy.connection_pool.window_size);
    let wanted = u64::from(window) * 4;
    let Some(memory) = inlet.pod.share.take_part(wanted, MIN_WINDOW, Part::OfHttp2) else {
        return;
    };
    // Not more than was wanted, which the policy's bounds keep below 2^31.
    let connection_window = u32::try_from(memory.amount()).unwrap_or(65_535);
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST)
        .initial_window_size(window.min(connection_window))
        .initial_connection_window_size(connection_window)
        .max_send_buffer_size(SEND_BUFFER)
        // A caller may begin and cancel all the calls that it may have at a time in one write.
        .max_pending_accept_reset_streams(MAX_STREAMS as usize)
        .max_concurrent_reset_streams(MAX_RESET_STREAMS)
        .reset_stream_duration(REMEMBERED_FOR)
        .data_frame_budget(SMALL_FRAMES);
    let limits = inlet.worker.limits;
    let stream = Framed::new(stream);
    let reading = stream.reading();
    let pulse = stream.pulse().clone();
    let mut vigil = Vigil::new(pulse.clone(), limits);
    let mut connection = match timeout(limits.head, builder.handshake::<_, Bytes>(stream)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(caller = inlet.line.caller, %error, "http/2 handshake failed");
            return;
        }
        Err(_) => return inlet.line.scope.timed_out(TimeLimit::Head),
    };
    // Borrowed: how many hold the inlet says whether a stream is open.
    let mut leaving = pin!(inlet.to_leave());
    let mut told = false;
    let mut look = pin!(tokio::time::sleep(LINGER));
    loop {
        let step = poll_fn(|cx| match connection.poll_accept(cx) {
            Poll::Ready(accepted) => Poll::Ready(Step::Accepted(accepted)),
            Poll::Pending => vigil.poll(situation(&inlet, &reading), cx).map(Step::Event),
        });
        let step = tokio::select! {
            biased;
            // Finishes what is open and takes nothing new (RFC 9113 section 6.8). Said before a stream is refused for the
            // same reason, so that the caller does not ask for it again here.
            () = &mut leaving, if !told => {
                told = tell(&mut connection, look.as_mut());
                continue;
            }
            // h2 waits for the caller to acknowledge that. One that does not must not hold up the end.
            () = &mut look, if told => {
                if situation(&inlet, &reading).doing == Doing::Idle && !pulse.blocked() {
                    return;
                }
                look.as_mut().reset(Instant::now() + LINGER);
                continue;
            }
            step = step => step,
        };
        let accepted = match step {
            Step::Accepted(accepted) => accepted,
            Step::Event(event) => {
                let limit = match event {
                    Event::HeadTooLong => TimeLimit::Head,
                    Event::IdleTooLong => TimeLimit::Connection,
                    Event::Unread(time) if limits.write.is_some_and(|limit| limit <= time) => {
                        TimeLimit::Write
                    }
                    Event::Unread(_) => continue,
                };
                inlet.line.scope.timed_out(limit);
                if limit != TimeLimit::Connection || told {
                    return;
                }
                // Politely: a call that is just on its way here must not be lost.
                told = tell(&mut connection, look.as_mut());
                continue;
            }
        };
        match accepted {
            Some(Ok((request, respond))) => {
                let share = &inlet.pod.share;
                match StreamPlace::of(share, &request) {
                    Some(place) => share.spawn(stream_of(inlet.clone(), request, respond, place)),
                    None => refuse(respond),
                }
            }
            Some(Err(error)) => {
                tracing::debug!(caller = inlet.line.caller, %error, "http/2 connection ended");
                return;
            }
            None => return,
        }
    }
}

/// What a stream takes up of its pod's share.
struct StreamPlace(#[expect(dead_code, reason = "held for its drop")] [Holding; 2]);

impl StreamPlace {
    fn of(share: &Rc<Local>, request: &Request<h2::RecvStream>) -> Option<Self> {
        let head: usize = (request.headers().iter())
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        let bytes = STREAM + SEND_BUFFER as u64 + head as u64;
        Some(Self([
            share.take(Share::Streams, 1)?,
            share.take(Share::Memory, bytes)?,
        ]))
    }
}

/// The caller may try again, nothing has been done (RFC 9113 section 8.7).
fn refuse(mut respond: SendResponse<Bytes>) {
    respond.send_reset(h2::Reason::REFUSED_STREAM);
}

enum Step<T> {
    Accepted(T),
    Event(Event),
}

/// Sends a GOAWAY, and says that it has: the caller has until `look` to finish.
fn tell(connection: &mut Connection<Framed, Bytes>, look: Pin<&mut Sleep>) -> bool {
    connection.graceful_shutdown();
    look.reset(Instant::now() + LINGER);
    true
}

/// Each stream holds the inlet, as the connection itself does.
fn situation(inlet: &Rc<Inlet>, reading: &Reading) -> Situation {
    let doing = if reading.is_midway() {
        Doing::Head
    } else if Rc::strong_count(inlet) > 1 {
        Doing::Serving
    } else {
        Doing::Idle
    };
    Situation {
        doing,
        generation: reading.frames(),
    }
}

async fn stream_of(
    inlet: Rc<Inlet>,
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    _place: StreamPlace,
) {
    let cancelled = poll_fn(|cx| Poll::Ready(respond.poll_reset(cx).is_ready())).await;
    if cancelled {
        return exchange::cancelled(&inlet, request.map(Body::of_stream));
    }
    if expects_continue(request.headers()) {
        // Over HTTP/1.1 hyper does the same. It fails only when the caller has gone, which is heard of below.
        let mut go_on = Response::new(());
        *go_on.status_mut() = StatusCode::CONTINUE;
        let _ = respond.send_informational(go_on);
    }
    let answered = {
        let mut exchange = pin!(exchange(&inlet, request.map(Body::of_stream)));
        poll_fn(|cx| match exchange.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            // A caller that resets the stream wants no answer: the exchange is dropped, and cancelled with it.
            Poll::Pending => respond.poll_reset(cx).map(|_| None),
        })
        .await
    };
    let answered = answered.map(|it| it.or_else(|refused| refused.answer_stream(&inlet)));
    let (head, body) = match answered {
        Some(Ok(response)) => response.into_parts(),
        Some(Err(reason)) => return respond.send_reset(reason),
        None => return,
    };
    let end = body.is_end_stream();
    match respond.send_response(Response::from_parts(head, ()), end) {
        Ok(stream) if !end => {
            // Broken either way says that the caller has gone, which the body's drop records.
            let _ = Pump::new(body, stream).await;
        }
        Ok(_) => {}
        Err(error) => {
            tracing::debug!(caller = inlet.line.caller, %error, "response not sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, D, F: Future>(_: impl Fn(A, B, C, D) -> F) -> u64 {
        size_of::<F>() as u64
    }

    /// It is moved when it begins, and a request's state in every future that hands it on is easily had several times.
    #[test]
    fn a_stream_is_a_small_part_of_what_it_pays_for() {
        assert!(size(stream_of) <= STREAM / 2, "{}", size(stream_of));
    }
}
