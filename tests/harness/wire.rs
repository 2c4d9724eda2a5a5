//! Callers that do what no client would: bytes of the test's own choice, from inside a pod.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{Pod, observe::now};

const CONNECT: Duration = Duration::from_secs(5);

/// A TCP connection of a pod, held by the test.
#[derive(Debug)]
pub struct Wire(TcpStream);

impl Wire {
    pub fn connect(pod: &Pod, to: SocketAddr) -> Result<Self> {
        let stream = pod.inside(|| TcpStream::connect_timeout(&to, CONNECT))?;
        Ok(Self(stream.with_context(|| format!("connecting to {to}"))?))
    }

    /// Connects and says this.
    pub fn say(pod: &Pod, to: SocketAddr, bytes: impl AsRef<[u8]>) -> Result<Self> {
        let mut wire = Self::connect(pod, to)?;
        wire.send(bytes)?;
        Ok(wire)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.0.set_write_timeout(Some(CONNECT))?;
        self.0.write_all(bytes.as_ref()).context("sending")
    }

    /// What comes until `text` has been received.
    pub fn expect(&mut self, text: impl AsRef<[u8]>, within: Duration) -> Result<Vec<u8>> {
        let (text, end) = (text.as_ref(), now() + within);
        let mut received = Vec::new();
        while !received.windows(text.len()).any(|window| window == text) {
            let left = end.saturating_duration_since(now());
            match self.read(left)? {
                Some(bytes) => received.extend_from_slice(&bytes),
                None => bail!(
                    "not received: {text:?}; but {:?}",
                    String::from_utf8_lossy(&received)
                ),
            }
        }
        Ok(received)
    }

    /// How long it takes until the other end closes the connection, in whatever way.
    pub fn ended(&mut self, within: Duration) -> Result<Duration> {
        let start = now();
        loop {
            let left = within.saturating_sub(start.elapsed());
            ensure!(!left.is_zero(), "not closed within {within:?}");
            match self.read(left) {
                Ok(Some(_)) => {}
                Ok(None) if start.elapsed() >= within => {}
                Ok(None) | Err(_) => return Ok(start.elapsed()),
            }
        }
    }

    /// How many bytes come until the connection has ended in an orderly way.
    pub fn rest(&mut self, within: Duration) -> Result<usize> {
        let end = now() + within;
        let mut count = 0;
        loop {
            let left = end.saturating_duration_since(now());
            match self.read(left)? {
                Some(bytes) => count += bytes.len(),
                None => {
                    ensure!(now() < end, "no end after {count} bytes");
                    return Ok(count);
                }
            }
        }
    }

    /// Whether nothing ends the connection for so long.
    pub fn lives(&mut self, time: Duration) -> bool {
        self.ended(time).is_err()
    }

    /// `None` at its end, or when nothing came in time.
    fn read(&mut self, within: Duration) -> Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; 64 * 1024];
        self.0
            .set_read_timeout(Some(within.max(Duration::from_millis(1))))?;
        match self.0.read(&mut bytes) {
            Ok(0) => Ok(None),
            Ok(count) => {
                bytes.truncate(count);
                Ok(Some(bytes))
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Frames of HTTP/2, put together by hand (RFC 9113 section 4.1).
pub mod http2 {
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;

    pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags];
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    /// The preface, and streams' windows of so many bytes.
    pub fn preface(window: u32) -> Vec<u8> {
        let mut setting = vec![0, 4];
        setting.extend_from_slice(&window.to_be_bytes());
        [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            &frame(SETTINGS, 0, 0, &setting),
        ]
        .concat()
    }

    /// The header block of a GET (RFC 7541).
    fn block(path: &str) -> Vec<u8> {
        let length = u8::try_from(path.len()).unwrap_or(u8::MAX).min(126);
        [
            &[0x82, 0x86, 0x04, length][..],
            path.as_bytes(),
            &[0x01, 4],
            b"test",
        ]
        .concat()
    }

    pub fn get(stream: u32, path: &str) -> Vec<u8> {
        frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(path))
    }

    /// A head that goes on.
    pub fn unfinished(stream: u32) -> Vec<u8> {
        frame(HEADERS, END_STREAM, stream, &block("/x"))
    }

    /// Cancels a stream.
    pub fn reset(stream: u32) -> Vec<u8> {
        frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
    }

    /// The numbers of a client's first streams.
    pub fn streams(count: u32) -> impl Iterator<Item = u32> {
        (0..count).map(|number| 2 * number + 1)
    }
}
