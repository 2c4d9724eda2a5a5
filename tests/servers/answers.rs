//! Answers that take their time: sums, ticks, bodies that break off.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use http::{Response, header};
use http_body_util::{BodyExt, channel::Channel};
use hyper::body::Incoming;
use sha2::{Digest, Sha256};

use crate::{
    body::{Announced, AnyBody, Error, Pattern, any},
    http::Connection,
};

/// Reads the body to its end, at most at `rate` bytes a second.
pub(crate) async fn sum(mut body: Incoming, rate: Option<u64>) -> Result<serde_json::Value, Error> {
    let (mut hash, mut length) = (Sha256::new(), 0_u64);
    let begun = tokio::time::Instant::now();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            length += data.len() as u64;
            hash.update(&data);
        }
        if let Some(due) = rate.and_then(|rate| (length * 1000).checked_div(rate)) {
            tokio::time::sleep_until(begun + Duration::from_millis(due)).await;
        }
    }
    Ok(serde_json::json!({ "length": length, "sha256": hex(&hash.finalize()) }))
}

/// The headers at once, the sum when the body has come; broken off when the body is.
pub(crate) fn sum_early(connection: Rc<Connection>, body: Incoming) -> Response<AnyBody> {
    let (mut sender, answer) = Channel::<Bytes, Error>::new(1);
    tokio::task::spawn_local(async move {
        match sum(body, None).await {
            Ok(sum) => {
                connection.whole.set(connection.whole.get() + 1);
                let _ = sender.send_data(sum.to_string().into()).await;
            }
            Err(error) => sender.abort(error),
        }
    });
    Response::new(any(answer))
}

/// Sends half of `len` bytes, and breaks off when they are on their way.
pub(crate) fn truncate(len: u64, announced: Announced) -> Result<Response<AnyBody>, Error> {
    let (mut sender, body) = Channel::<Bytes, Error>::new(1);
    tokio::task::spawn_local(async move {
        let mut half = Pattern::new(len / 2, Announced::Nothing);
        while let Some(bytes) = half.next() {
            if sender.send_data(bytes).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        sender.abort("broken off, as asked".into());
    });
    let reply = match announced {
        Announced::Length => Response::builder().header(header::CONTENT_LENGTH, len),
        Announced::Nothing => Response::builder(),
    };
    Ok(reply.body(any(body))?)
}

pub(crate) fn ticks(count: u32, every: Duration) -> Response<AnyBody> {
    let (mut sender, body) = Channel::<Bytes, Error>::new(1);
    tokio::task::spawn_local(async move {
        for tick in 0..count {
            if sender.send_data(format!("{tick}\n").into()).await.is_err() {
                return;
            }
            tokio::time::sleep(every).await;
        }
    });
    Response::new(any(body))
}

/// `250ms` or `2s`.
pub(crate) fn duration(text: &str) -> Result<Duration, Error> {
    match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => Ok(Duration::from_millis(number.parse()?)),
        (None, Some(number)) => Ok(Duration::from_secs(number.parse()?)),
        (None, None) => Err(format!("not a duration: {text}").into()),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
