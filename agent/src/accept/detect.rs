//! What a connection speaks, by its first bytes. Time running out is an answer, not an error.

use std::{mem::MaybeUninit, time::Duration};

use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, Interest},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::client_hello::{NeedMore, server_name};

/// HTTP/2's client connection preface (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// As much as is read to decide. A first line of HTTP or a TLS hello that is longer counts as opaque.
const MAX_FIRST_BYTES: usize = 16 * 1024;

/// What the port lets the engine expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expecting {
    /// The port is declared as HTTP of some version: what is not HTTP/2 is left to the HTTP/1.1 parser, which
    /// refuses it with a reason.
    Http,
    /// The port is declared as TLS: the hello is read for its name.
    Tls,
    /// Nobody said.
    Anything,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detected {
    Http1,
    Http2,
    Tls {
        server_name: Option<String>,
    },
    /// None of these, or too little in the time given.
    Opaque,
    /// The caller ended its side without a word.
    Closed,
    /// The connection broke, whatever had come by then.
    Broken,
}

/// Reads first bytes until they say what they are, at most until `deadline` once the first have come; returns them
/// with the answer. Once the first have come the others may take `rest`.
pub async fn detect<S: AsyncRead + Unpin>(
    stream: &mut S,
    expecting: Expecting,
    mut deadline: Instant,
    rest: Duration,
) -> (Detected, Bytes) {
    let mut first = BytesMut::with_capacity(4096);
    let mut begun = false;
    loop {
        let read = timeout_at(deadline, stream.read_buf(&mut first)).await;
        // Told once: whoever reads on would find an orderly end.
        if let Ok(Err(_)) = read {
            return (Detected::Broken, first.freeze());
        }
        let ended = !matches!(read, Ok(Ok(n)) if n > 0);
        let detected = match decide(&first, expecting) {
            Some(detected) => detected,
            None if ended && first.is_empty() && read.is_ok() => Detected::Closed,
            None if ended || first.len() >= MAX_FIRST_BYTES => Detected::Opaque,
            None => {
                if !std::mem::replace(&mut begun, true) {
                    deadline = deadline.min(Instant::now() + rest);
                }
                continue;
            }
        };
        return (detected, first.freeze());
    }
}

/// Whether a caller stays silent for `grace`: then the server may be the one who speaks first.
pub async fn silent(stream: &TcpStream, grace: Duration) -> bool {
    tokio::time::timeout(grace, spoke(stream)).await.is_err()
}

/// Returns when there is something to read: bytes, the end or an error, which is left for who reads. Looks at the bytes
/// themselves, since a fresh socket may pass for readable.
pub async fn spoke(stream: &TcpStream) {
    loop {
        // An error of the reactor; reading meets it too.
        let Ok(ready) = stream.ready(Interest::READABLE | Interest::ERROR).await else {
            return;
        };
        if ready.is_error()
            || stream
                .try_io(Interest::READABLE, || {
                    SockRef::from(stream).peek(&mut [MaybeUninit::new(0)])
                })
                .is_ok()
        {
            return;
        }
    }
}

/// `None` when more bytes are needed.
fn decide(first: &[u8], expecting: Expecting) -> Option<Detected> {
    if first.is_empty() {
        return None;
    }
    if expecting != Expecting::Tls {
        if first.starts_with(PREFACE) {
            return Some(Detected::Http2);
        }
        if PREFACE.starts_with(first) {
            return None;
        }
        if expecting == Expecting::Http {
            return Some(Detected::Http1);
        }
    }
    // A handshake record of TLS 1.0 or later (RFC 8446 section 5.1).
    if first[0] == 0x16 && first.get(1).is_none_or(|major| *major == 3) {
        return match server_name(first) {
            Ok(name) => Some(Detected::Tls { server_name: name }),
            Err(NeedMore) => None,
        };
    }
    if expecting == Expecting::Tls {
        return Some(Detected::Opaque);
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(first) {
        // The version stands at the end of the first line.
        Ok(_) | Err(httparse::Error::TooManyHeaders) if request.version.is_some() => Some(Detected::Http1),
        Ok(_) => None,
        Err(_) => Some(Detected::Opaque),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(first: &[u8], expecting: Expecting, expect: Option<Detected>) {
        let text = String::from_utf8_lossy(first);
        assert_eq!(decide(first, expecting), expect, "{text:?} {expecting:?}");
    }

    #[test]
    fn first_bytes_say_what_they_are() {
        use Expecting::*;
        check(b"GET / HTTP/1.1\r\n", Anything, Some(Detected::Http1));
        check(b"GET / HT", Anything, None);
        check(PREFACE, Anything, Some(Detected::Http2));
        check(b"PRI * HT", Anything, None);
        check(b"PRI * HT", Http, None);
        check(b"PUT /x", Http, Some(Detected::Http1));
        check(b"SET key value\r\n", Anything, Some(Detected::Opaque));
        check(b"*1\r\n$4\r\nPING\r\n", Anything, Some(Detected::Opaque));
        check(
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
            Anything,
            Some(Detected::Opaque),
        );
        check(b"\x16\x03\x01", Anything, None);
        check(b"\x16\x03\x01", Http, Some(Detected::Http1));
        check(b"garbage", Http, Some(Detected::Http1));
        check(b"GET / HTTP/1.1\r\n", Tls, Some(Detected::Opaque));
    }

    #[tokio::test(start_paused = true)]
    async fn time_running_out_is_an_answer() {
        let (mut near, _far) = tokio::io::duplex(64);
        let deadline = Instant::now() + Duration::from_secs(5);
        let (detected, first) =
            detect(&mut near, Expecting::Anything, deadline, Duration::from_secs(60)).await;
        assert_eq!((detected, first.len()), (Detected::Opaque, 0));
        assert_eq!(Instant::now(), deadline);
    }

    #[tokio::test]
    async fn bytes_that_come_one_by_one_are_all_given_back() {
        let text = b"GET /path HTTP/1.1\r\nhost: a\r\n\r\n";
        let mut slow = tokio_test_reader(text);
        let deadline = Instant::now() + Duration::from_secs(5);
        let (detected, first) =
            detect(&mut slow, Expecting::Anything, deadline, Duration::from_secs(60)).await;
        assert_eq!(detected, Detected::Http1);
        assert!(text.starts_with(&first) && first.len() >= 18, "{first:?}");
    }

    /// A reader that gives one byte at a time.
    fn tokio_test_reader(bytes: &'static [u8]) -> impl AsyncRead + Unpin {
        struct OneByOne(&'static [u8]);
        impl AsyncRead for OneByOne {
            fn poll_read(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                buf: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                if let Some((byte, rest)) = self.0.split_first() {
                    buf.put_slice(&[*byte]);
                    self.0 = rest;
                }
                std::task::Poll::Ready(Ok(()))
            }
        }
        OneByOne(bytes)
    }

    proptest! {
        #[test]
        fn any_bytes_are_decided_without_a_panic(bytes: Vec<u8>, tls: bool) {
            let mut bytes = bytes;
            if tls {
                bytes.splice(0..0, [0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3]);
            }
            for expecting in [Expecting::Http, Expecting::Tls, Expecting::Anything] {
                let _ = decide(&bytes, expecting);
            }
        }
    }
}
