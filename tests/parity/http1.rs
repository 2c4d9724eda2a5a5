//! HTTP/1.1 by hand, for an endpoint that must also misbehave.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use derny_tests::calls::Protocol;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use crate::{
    script::{ProbeFault, Step},
    upstream::{HEALTH_PATH, Site, Verdict},
};

/// A probe that hangs gets its answer after this.
pub(crate) const HANG: Duration = Duration::from_secs(1);

/// Answers requests until the connection ends or a step ends it.
pub(crate) async fn serve(mut stream: TcpStream, site: &Arc<Site>, endpoint: usize) -> Result<()> {
    let mut received = Vec::new();
    while let Some(path) = request(&mut stream, &mut received).await? {
        if path == HEALTH_PATH {
            probe(&mut stream, site.probed(endpoint)).await?;
            continue;
        }
        match site.arrived(endpoint, Protocol::Http1) {
            Step::Status(status, header) => {
                let header = header.map_or(String::new(), |(name, value)| format!("{name}: {value}\r\n"));
                head(&mut stream, status, &format!("{header}content-length: 0\r\n")).await?;
            }
            Step::After(time) => {
                sleep(time).await;
                head(&mut stream, 200, "content-length: 0\r\n").await?;
            }
            Step::Trickle(pieces, every) => {
                head(&mut stream, 200, "transfer-encoding: chunked\r\n").await?;
                for _ in 0..pieces {
                    sleep(every).await;
                    stream.write_all(b"1\r\nx\r\n").await?;
                }
                stream.write_all(b"0\r\n\r\n").await?;
            }
            Step::BreakOff => {
                head(&mut stream, 200, "content-length: 100\r\n").await?;
                stream.write_all(b"part").await?;
                return Ok(());
            }
            Step::Garbage => stream.write_all(b"220 mail.example ESMTP\r\n\r\n").await?,
            Step::Rst => {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                return Ok(());
            }
            Step::Close | Step::Good | Step::Grpc(..) | Step::Reset(_) => return Ok(()),
        }
    }
    Ok(())
}

async fn probe(stream: &mut TcpStream, verdict: Verdict) -> Result<()> {
    let status = match verdict {
        Verdict::Pass => 200,
        Verdict::Fail(probes) => {
            if probes.fault == ProbeFault::Hangs {
                sleep(HANG).await;
            }
            503
        }
    };
    head(stream, status, "content-length: 0\r\n").await
}

async fn head(stream: &mut TcpStream, status: u16, headers: &str) -> Result<()> {
    let text = format!("HTTP/1.1 {status} Scripted\r\n{headers}\r\n");
    stream.write_all(text.as_bytes()).await.context("answering")
}

/// The path of the next request, which has been read whole; `None` at the end.
async fn request(stream: &mut TcpStream, received: &mut Vec<u8>) -> Result<Option<String>> {
    loop {
        if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&received[..end]).into_owned();
            let length = text
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(Ok(0), |(_, value)| value.trim().parse::<usize>())?;
            while received.len() < end + 4 + length {
                ensure!(stream.read_buf(received).await? > 0, "a body broke off");
            }
            received.drain(..end + 4 + length);
            return Ok(text.split(' ').nth(1).map(str::to_owned));
        }
        if stream.read_buf(received).await? == 0 {
            return Ok(None);
        }
    }
}
