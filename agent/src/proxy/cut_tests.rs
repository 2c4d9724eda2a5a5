//! Uploads over a connection that is cut anywhere, read by attempts that begin and are given up anywhere.

use std::{cell::RefCell, convert::Infallible, future::pending};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    sync::oneshot,
};

use crate::{
    respond::Body,
    retry::{AttemptBody, RequestBody},
    share::unbounded,
};

/// A request's bytes, of which the first `head` are no body.
struct Upload {
    bytes: Vec<u8>,
    head: usize,
}

fn chunked(chunks: &[Vec<u8>]) -> Upload {
    let mut bytes = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let head = bytes.len();
    for chunk in chunks {
        bytes.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    Upload { bytes, head }
}

fn of_length(chunks: &[Vec<u8>]) -> Upload {
    let body = chunks.concat();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    Upload {
        bytes: [head.as_bytes(), &body].concat(),
        head: head.len(),
    }
}

/// What follows the bytes that came.
#[derive(Clone, Copy, Debug)]
enum Then {
    Nothing,
    Closed,
    Garbage,
}

/// Whether any attempt read the body to an end. Each of `frames` is how many frames an attempt reads before it is given
/// up; the last attempt reads on to the end or an error.
async fn ends(upload: &Upload, cut: usize, then: Then, frames: &[usize], bound: usize) -> bool {
    let (mut caller, engine) = duplex(1 << 20);
    caller.write_all(&upload.bytes[..cut]).await.unwrap();
    let _open: Option<DuplexStream> = match then {
        Then::Nothing => Some(caller),
        Then::Closed => {
            drop(caller);
            None
        }
        Then::Garbage => {
            caller.write_all(b"zz\r\nzz\r\n").await.unwrap();
            Some(caller)
        }
    };
    let (give, take) = oneshot::channel();
    let give = RefCell::new(Some(give));
    let service = service_fn(|request: Request<Incoming>| {
        if let Some(give) = give.borrow_mut().take() {
            let _ = give.send(request.into_body());
        }
        pending::<Result<Response<Body>, Infallible>>()
    });
    let connection = http1::Builder::new()
        .half_close(false)
        .serve_connection(TokioIo::new(engine), service);
    let serving = async {
        let _ = connection.await;
        pending::<bool>().await
    };
    let reading = async {
        let Ok(incoming) = take.await else { return false };
        let body = RequestBody::new(Body::Http1(incoming), bound, &unbounded());
        let mut ended = false;
        for most in frames.iter().copied().chain([usize::MAX]) {
            let Some(mut attempt) = body.attempt() else { break };
            ended |= read(&mut attempt, most).await;
        }
        assert!(!ended || body.broken_off().is_none(), "it ended and broke off");
        ended
    };
    tokio::select! {
        ended = reading => ended,
        ended = serving => ended,
    }
}

/// Whether the body came to an end within `most` frames.
async fn read(attempt: &mut AttemptBody, most: usize) -> bool {
    for _ in 0..most {
        match attempt.frame().await {
            Some(Ok(_)) => {}
            Some(Err(_)) => return false,
            None => return true,
        }
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_attempt_takes_a_part_for_the_whole(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 1..5),
        is_chunked: bool,
        place in 0.0..1.0_f64,
        garbage: bool,
        frames in prop::collection::vec(0..4_usize, 0..3),
        bound in prop_oneof![Just(0_usize), Just(100), Just(64 * 1024)],
    ) {
        let upload = if is_chunked { chunked(&chunks) } else { of_length(&chunks) };
        let body = upload.bytes.len() - upload.head;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place within a short body")]
        let cut = upload.head + (body as f64 * place) as usize;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        // Within a body of a known length anything is data.
        let then = if garbage && is_chunked && at_a_size(&upload, cut, &chunks) { Then::Garbage } else { Then::Closed };
        prop_assert!(!runtime.block_on(ends(&upload, cut, then, &frames, bound)), "cut at {cut}, {then:?}");
        if bound > 0 && frames.is_empty() {
            let all = upload.bytes.len();
            prop_assert!(runtime.block_on(ends(&upload, all, Then::Nothing, &frames, bound)), "it was whole");
        }
    }
}

/// Whether a chunk's size is expected at `cut`.
fn at_a_size(upload: &Upload, cut: usize, chunks: &[Vec<u8>]) -> bool {
    let mut at = upload.head;
    for chunk in chunks {
        if at == cut {
            return true;
        }
        at += format!("{:x}", chunk.len()).len() + 2 + chunk.len() + 2;
    }
    at == cut
}
