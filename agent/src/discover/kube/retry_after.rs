//! `Retry-After` of the API server: what it asks for with an answer is kept for every request of the kind.
//!
//! Priority and fairness answer 429 with the header and a line of text. The client knows only what the body says, so the
//! header is written into one that it understands.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt as _, Full};
use kube::{client::DynBody, core::Status, core::response::StatusDetails};
use tokio::time::Instant;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes that are read of an answer that asks for time.
const MAX_BODY: usize = 64 * 1024;
/// No longer than this, whatever the server asks for.
const LONGEST: Duration = Duration::from_secs(600);
/// Those who wait for the same time do not all come back at once: up to this part of it later.
const SPREAD: f64 = 0.1;

type Rewritten = Pin<Box<dyn Future<Output = Result<Response<Box<DynBody>>, BoxError>> + Send>>;

/// Puts the header's time into the body, where there is one.
pub(super) fn in_body(response: Response<Box<DynBody>>) -> Rewritten {
    Box::pin(rewrite(response))
}

async fn rewrite(response: Response<Box<DynBody>>) -> Result<Response<Box<DynBody>>, BoxError> {
    let Some(seconds) = asked_for(response.status(), response.headers()) else {
        return Ok(response);
    };
    let (mut head, mut body) = response.into_parts();
    let mut text = Vec::new();
    while text.len() < MAX_BODY
        && let Some(Ok(frame)) = body.frame().await
    {
        text.extend_from_slice(frame.data_ref().map_or(&[], Bytes::as_ref));
    }
    let mut status = serde_json::from_slice::<Status>(&text).unwrap_or_else(|_| {
        let said = String::from_utf8_lossy(&text);
        Status::failure(said.trim(), "TooManyRequests")
    });
    status.code = head.status.as_u16();
    let mut details = status.details.take().unwrap_or_else(|| StatusDetails {
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    });
    details.retry_after_seconds = details.retry_after_seconds.max(seconds);
    status.details = Some(details);
    head.headers.remove(http::header::CONTENT_LENGTH);
    let body = Full::new(Bytes::from(serde_json::to_vec(&status)?)).map_err(|never| match never {});
    Ok(Response::from_parts(head, Box::new(body)))
}

/// A date is not understood: no API server writes one.
fn asked_for(status: StatusCode, headers: &HeaderMap) -> Option<u32> {
    let asks = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
    let seconds = headers.get(RETRY_AFTER).filter(|_| asks)?;
    seconds.to_str().ok()?.trim().parse().ok()
}

/// Until when nothing is asked of a kind. Every copy is the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience(Arc<Mutex<HashMap<&'static str, Instant>>>);

impl Patience {
    /// The server wants to be left alone with `resource` for so long.
    pub(super) fn asked(
        &self,
        resource: &'static str,
        time: Duration,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) {
        let time = time.min(LONGEST).mul_f64(1.0 + SPREAD * rng.f64());
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_kind = until.entry(resource).or_insert(now);
        *of_kind = (*of_kind).max(now + time);
    }

    /// Returns when `resource` may be asked for again.
    pub(super) async fn wait(&self, resource: &'static str) {
        loop {
            let until = self
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(resource)
                .copied();
            match until.filter(|until| Instant::now() < *until) {
                Some(until) => tokio::time::sleep_until(until).await,
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(status: u16, retry_after: Option<&str>, text: &'static str) -> String {
        let mut builder = Response::builder().status(status);
        if let Some(seconds) = retry_after {
            builder = builder.header(RETRY_AFTER, seconds);
        }
        let full = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {});
        let body: Box<DynBody> = Box::new(full);
        let read = in_body(builder.body(body).unwrap())
            .await
            .unwrap()
            .into_body()
            .collect()
            .await;
        String::from_utf8(read.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn the_headers_time_is_in_the_body_and_what_it_said_stays() {
        let read = |text: String| {
            let status: Status = serde_json::from_str(&text).unwrap();
            (
                status.code,
                status.message,
                status.details.unwrap().retry_after_seconds,
            )
        };
        let plain = "Too many requests, please try again later.\n";
        let said = (429, plain.trim().to_owned(), 8);
        assert_eq!(read(body(429, Some("8"), plain).await), said);
        let status =
            r#"{"kind": "Status", "code": 503, "message": "m", "details": {"retryAfterSeconds": 20}}"#;
        assert_eq!(
            read(body(503, Some("8"), status).await),
            (503, "m".to_owned(), 20)
        );
        for (status, header) in [
            (429, None),
            (429, Some("soon")),
            (200, Some("8")),
            (404, Some("8")),
        ] {
            assert_eq!(body(status, header, plain).await, plain, "{status} {header:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_is_left_alone_for_the_time_and_no_other() {
        let patience = Patience::default();
        let mut rng = fastrand::Rng::with_seed(1);
        let begun = Instant::now();
        patience.asked("pods", Duration::from_secs(8), begun, &mut rng);
        patience.asked("pods", Duration::from_secs(1), begun, &mut rng);
        patience.wait("leases").await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        patience.wait("pods").await;
        assert!(
            (8.0..8.9).contains(&begun.elapsed().as_secs_f64()),
            "{:?}",
            begun.elapsed()
        );
        patience.asked("pods", Duration::from_secs(1_000_000), begun, &mut rng);
        patience.wait("pods").await;
        assert!(begun.elapsed() < LONGEST * 2);
    }
}
