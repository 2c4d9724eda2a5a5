//! One GET, with nothing but a socket.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{node::Host, observe::now};

/// A GET from the node's network namespace, without a client library: the agent's own endpoints only.
pub(crate) fn http_get(host: &Host, address: SocketAddr, path: &str) -> Result<(u16, String)> {
    const DEADLINE: Duration = Duration::from_secs(2);
    let begun = now();
    let answer = host.netns().run(|| -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(
            format!("GET {path} HTTP/1.0\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes(),
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })?;
    let answer = answer.with_context(|| format!("GET {path} after {:?}", begun.elapsed()))?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer without a head")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .context("no status")?;
    Ok((status, body.to_owned()))
}
