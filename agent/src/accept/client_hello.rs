//! The server name in a TLS client hello (RFC 8446 section 4.1.2; RFC 6066 section 3). Nothing is verified: the
//! bytes go on to the server as they are, and only the name is wanted, for the access log.

const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// The bytes so far are the start of something whose end is needed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NeedMore;

/// The name asked for; `Ok(None)` when there is none or the bytes are no client hello.
pub(super) fn server_name(bytes: &[u8]) -> Result<Option<String>, NeedMore> {
    // Record: type, version, length. A hello spread over several records is not followed.
    let mut record = Reader(bytes);
    record.skip(3);
    let Some(length) = record.u16() else {
        return Err(NeedMore);
    };
    if record.0.len() < usize::from(length) {
        return Err(NeedMore);
    }
    Ok(
        hello(Reader(&record.0[..usize::from(length)]))
            .and_then(|name| String::from_utf8(name.to_vec()).ok()),
    )
}

fn hello(mut message: Reader<'_>) -> Option<&[u8]> {
    if message.u8()? != CLIENT_HELLO {
        return None;
    }
    // Length of the message, version, random.
    message.take(3 + 2 + 32)?;
    let session = message.u8()?;
    message.take(session.into())?;
    let ciphers = message.u16()?;
    message.take(ciphers.into())?;
    let compressions = message.u8()?;
    message.take(compressions.into())?;
    let length = message.u16()?;
    let mut extensions = Reader(message.take(length.into())?);
    loop {
        let (kind, length) = (extensions.u16()?, extensions.u16()?);
        let mut extension = Reader(extensions.take(length.into())?);
        if kind == SERVER_NAME {
            // A list; its first entry.
            extension.u16()?;
            let (kind, length) = (extension.u8()?, extension.u16()?);
            return (kind == HOST_NAME)
                .then(|| extension.take(length.into()))
                .flatten();
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, n: usize) {
        self.0 = self.0.get(n..).unwrap_or_default();
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client hello with one extension before the server name.
    fn hello_for(name: &str) -> Vec<u8> {
        let be = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
        let mut sni = vec![0];
        sni.extend(be(name.len()));
        sni.extend(name.as_bytes());
        let mut extensions = vec![0, 23, 0, 0, 0, 0];
        extensions.extend(be(sni.len() + 2));
        extensions.extend(be(sni.len()));
        extensions.extend(&sni);
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend(be(extensions.len()));
        body.extend(&extensions);
        let mut message = vec![1, 0];
        message.extend(be(body.len()));
        message.extend(&body);
        let mut record = vec![0x16, 3, 1];
        record.extend(be(message.len()));
        record.extend(&message);
        record
    }

    #[test]
    fn the_name_is_found_and_every_shorter_prefix_asks_for_more() {
        let hello = hello_for("echo.demo");
        assert_eq!(server_name(&hello), Ok(Some("echo.demo".into())));
        for n in 0..hello.len() {
            assert_eq!(server_name(&hello[..n]), Err(NeedMore), "{n} bytes");
        }
    }

    #[test]
    fn lengths_that_lie_yield_no_name() {
        let hello = hello_for("echo.demo");
        for i in 5..hello.len() {
            let mut broken = hello.clone();
            broken[i] = 0xff;
            let _ = server_name(&broken);
        }
        assert_eq!(server_name(&[0x16, 3, 1, 0, 1, 2]), Ok(None));
    }
}
