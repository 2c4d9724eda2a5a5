//! HTTP/2 and gRPC by h2, stream by stream.

use std::{rc::Rc, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use derny_tests::calls::Protocol;
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, response};
use socket2::SockRef;
use tokio::{net::TcpStream, sync::Notify, time::sleep};

use crate::{
    http1::HANG,
    script::{At, ProbeFault, Step},
    upstream::{GRPC_HEALTH_PATH, HEALTH_PATH, Site, Verdict},
};

/// An empty gRPC message.
const EMPTY: Bytes = Bytes::from_static(&[0; 5]);
/// `HealthCheckResponse { status }`, without its last byte.
const HEALTH: [u8; 6] = [0, 0, 0, 0, 2, 8];
const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;

/// Answers requests until the connection ends or a step ends it.
pub(crate) async fn serve(stream: TcpStream, site: &Arc<Site>, endpoint: usize) -> Result<()> {
    // A second handle to the socket, which a step may want to end with a reset.
    let stream = stream.into_std()?;
    let socket = Rc::new(stream.try_clone()?);
    let mut connection = h2::server::handshake(TcpStream::from_std(stream)?).await?;
    let end = Rc::new(Notify::new());
    let ended = Rc::clone(&end);
    let accepting = async {
        while let Some(Ok((request, respond))) = connection.accept().await {
            let stream = Stream {
                respond,
                end: Rc::clone(&end),
                socket: Rc::clone(&socket),
            };
            let site = Arc::clone(site);
            tokio::task::spawn_local(async move {
                // A stream that the caller resets is no fault of the endpoint's.
                let _ = stream.serve(request, &site, endpoint).await;
            });
        }
    };
    tokio::select! {
        biased;
        () = ended.notified() => {}
        () = accepting => {}
    }
    Ok(())
}

struct Stream {
    respond: SendResponse<Bytes>,
    /// Told when the connection is to end.
    end: Rc<Notify>,
    socket: Rc<std::net::TcpStream>,
}

impl Stream {
    async fn serve(mut self, request: Request<RecvStream>, site: &Site, endpoint: usize) -> Result<()> {
        let (head, mut body) = request.into_parts();
        while let Some(data) = body.data().await {
            body.flow_control().release_capacity(data?.len())?;
        }
        if [HEALTH_PATH, GRPC_HEALTH_PATH].contains(&head.uri.path()) {
            return self.probe(site.probed(endpoint)).await;
        }
        let grpc = head
            .headers
            .get("content-type")
            .is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"));
        let protocol = if grpc { Protocol::Grpc } else { Protocol::Http2 };
        match site.arrived(endpoint, protocol) {
            Step::Status(status, header) => {
                let mut response = Response::builder().status(status);
                if let Some((name, value)) = header {
                    response = response.header(name, value);
                }
                self.head(response, End::Yes)?;
            }
            Step::Grpc(status, at, header) => self.grpc(status, at, header).await?,
            Step::After(time) if grpc => {
                sleep(time).await;
                self.grpc(0, At::Message, None).await?;
            }
            Step::After(time) => {
                sleep(time).await;
                self.head(Response::builder(), End::Yes)?;
            }
            Step::Trickle(pieces, every) => {
                let mut stream = self.head(Response::builder(), End::No)?;
                for _ in 0..pieces {
                    sleep(every).await;
                    stream.send_data(Bytes::from_static(b"x"), false)?;
                }
                stream.send_data(Bytes::new(), true)?;
            }
            Step::Reset(reason) => self.respond.send_reset(reason),
            Step::BreakOff => {
                let mut stream = self.head(Response::builder(), End::No)?;
                stream.send_data(Bytes::from_static(b"part"), false)?;
                // What was sent goes out before the reset.
                sleep(Duration::from_millis(20)).await;
                stream.send_reset(h2::Reason::INTERNAL_ERROR);
            }
            Step::Rst => {
                SockRef::from(&*self.socket).set_linger(Some(Duration::ZERO))?;
                self.end_connection().await;
            }
            Step::Close | Step::Garbage | Step::Good => self.end_connection().await,
        }
        Ok(())
    }

    /// Without a last word: were the stream dropped first, its reset would go out.
    async fn end_connection(self) {
        let Self { respond, end, socket } = self;
        drop(socket);
        end.notify_one();
        std::future::pending::<()>().await;
        drop(respond);
    }

    async fn grpc(
        &mut self,
        status: u16,
        at: At,
        header: Option<(&'static str, &'static str)>,
    ) -> Result<()> {
        let mut last = HeaderMap::new();
        last.insert("grpc-status", HeaderValue::from(status));
        if let Some((name, value)) = header {
            last.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let response = Response::builder().header("content-type", "application/grpc");
        match at {
            At::Headers => {
                let headers = last.iter();
                let response = headers.fold(response, |response, (name, value)| response.header(name, value));
                self.head(response, End::Yes)?;
            }
            At::Trailers(behind) => {
                let mut stream = self.head(response, End::No)?;
                if !behind.is_zero() {
                    sleep(behind).await;
                }
                stream.send_trailers(last)?;
            }
            At::Message => {
                let mut stream = self.head(response, End::No)?;
                stream.send_data(EMPTY, false)?;
                stream.send_trailers(last)?;
            }
        }
        Ok(())
    }

    async fn probe(mut self, verdict: Verdict) -> Result<()> {
        let mut serving = SERVING;
        if let Verdict::Fail(probes) = verdict {
            if probes.fault == ProbeFault::Hangs {
                sleep(HANG).await;
            }
            serving = NOT_SERVING;
        }
        let response = Response::builder().header("content-type", "application/grpc");
        let mut stream = self.head(response, End::No)?;
        stream.send_data([&HEALTH[..], &[serving]].concat().into(), false)?;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Ok(stream.send_trailers(trailers)?)
    }

    fn head(&mut self, response: response::Builder, end: End) -> Result<SendStream<Bytes>> {
        let response = response.body(()).context("building the answer")?;
        Ok(self.respond.send_response(response, end == End::Yes)?)
    }
}

/// Whether a stream ends with its headers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Yes,
    No,
}
