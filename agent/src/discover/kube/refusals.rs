//! Refusals of the API server, and the time that it asks for with them (`Retry-After`).
//!
//! A refusal is an error of every request alike. The client alone makes it one of lists and changes, but reads it as the
//! first event of a watch, which then has succeeded; and it knows the time only where the body says it, while priority
//! and fairness answer 429 with the header and a line of text.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::BodyExt as _;
use kube::{client::DynBody, core::Status, core::response::StatusDetails};
use tokio::time::Instant;

/// Bytes that are read of a refusal.
const MAX_BODY: usize = 64 * 1024;
/// No longer than this, whatever the server asks for.
const LONGEST: Duration = Duration::from_secs(600);
/// Those who wait for the same time do not all come back at once: up to this part of it later.
const SPREAD: f64 = 0.1;

type Answer = Result<Response<Box<DynBody>>, Box<dyn std::error::Error + Send + Sync>>;

/// An answer of 4xx or 5xx as [`kube::Error::Api`], with the header's time in its details; any other as it is.
pub(super) fn refused_is_error(
    response: Response<Box<DynBody>>,
) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
    Box::pin(async {
        match response.status().is_client_error() || response.status().is_server_error() {
            true => Err(kube::Error::Api(Box::new(refusal(response).await)).into()),
            false => Ok(response),
        }
    })
}

async fn refusal(response: Response<Box<DynBody>>) -> Status {
    let (head, mut body) = response.into_parts();
    let mut text = Vec::new();
    while text.len() < MAX_BODY
        && let Some(Ok(frame)) = body.frame().await
    {
        text.extend_from_slice(frame.data_ref().map_or(&[], Bytes::as_ref));
    }
    let mut status = serde_json::from_slice::<Status>(&text).unwrap_or_else(|_| {
        let said = String::from_utf8_lossy(&text);
        let reason = head.status.canonical_reason().unwrap_or_default();
        Status::failure(said.trim(), reason)
    });
    status.code = head.status.as_u16();
    if let Some(seconds) = asked_for(head.status, &head.headers) {
        let details = status.details.get_or_insert_with(|| StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 0,
        });
        details.retry_after_seconds = details.retry_after_seconds.max(seconds);
    }
    status
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
    use http_body_util::Full;

    use super::*;

    fn answer(status: u16, retry_after: Option<&str>, text: &'static str) -> Response<Box<DynBody>> {
        let mut builder = Response::builder().status(status);
        if let Some(seconds) = retry_after {
            builder = builder.header(RETRY_AFTER, seconds);
        }
        let full = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {});
        let body: Box<DynBody> = Box::new(full);
        builder.body(body).unwrap()
    }

    /// Code, message and time of a refusal.
    async fn refused(status: u16, retry_after: Option<&str>, text: &'static str) -> (u16, String, u32) {
        let error = refused_is_error(answer(status, retry_after, text))
            .await
            .err()
            .unwrap();
        let kube::Error::Api(status) = *error.downcast::<kube::Error>().unwrap() else {
            panic!("not a refusal")
        };
        let time = status.details.map_or(0, |details| details.retry_after_seconds);
        (status.code, status.message, time)
    }

    #[tokio::test]
    async fn a_refusal_is_an_error_with_the_headers_time_and_what_it_said() {
        let plain = "Too many requests, please try again later.\n";
        let said = |code, seconds| (code, plain.trim().to_owned(), seconds);
        for (status, header, seconds) in [
            (429, Some("8"), 8),
            (429, None, 0),
            (429, Some("soon"), 0),
            (503, Some("8"), 8),
            (404, Some("8"), 0),
        ] {
            assert_eq!(
                refused(status, header, plain).await,
                said(status, seconds),
                "{status} {header:?}"
            );
        }
        let status =
            r#"{"kind": "Status", "code": 503, "message": "m", "details": {"retryAfterSeconds": 20}}"#;
        assert_eq!(refused(503, Some("8"), status).await, (503, "m".to_owned(), 20));
    }

    #[tokio::test]
    async fn any_other_answer_passes_as_it_is() {
        let passed = refused_is_error(answer(200, Some("8"), "{}")).await.unwrap();
        assert_eq!(passed.into_body().collect().await.unwrap().to_bytes(), "{}");
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
