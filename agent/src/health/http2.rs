//! A connection of HTTP/2 for one probe.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use tokio::net::TcpStream;

use super::Failure;

/// How long the end of a connection may take.
const GOODBYE: Duration = Duration::from_millis(100);

/// `question` over `stream`, with the connection driven beside it.
pub(super) async fn ask(
    stream: TcpStream,
    question: impl AsyncFnOnce(h2::client::SendRequest<Bytes>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (sender, connection) = h2::client::handshake(stream).await.map_err(broken)?;
    let mut connection = pin!(connection);
    let mut exchange = pin!(question(sender));
    tokio::select! {
        biased;
        result = &mut exchange => {
            // With its last handle gone the connection says GOAWAY; without it servers log an error.
            let _ = tokio::time::timeout(GOODBYE, connection).await;
            result
        }
        // It ended; what it has brought is still to be read.
        _ = &mut connection => exchange.await,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn broken(error: h2::Error) -> Failure {
    Failure::Protocol(error.to_string())
}
