//! Ports below HTTP.

use std::rc::Rc;

use tokio::{io::AsyncWriteExt, net::TcpStream};

/// Bytes of a greeting, header included.
const GREETING_LEN: usize = 78;

/// Sends back what it gets; ends its side when the peer has ended his.
pub(crate) async fn echo(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    // A peer that resets is the peer's business.
    if tokio::io::copy(&mut read, &mut write).await.is_ok() {
        let _ = write.shutdown().await;
    }
}

/// Speaks first, in the form of a MySQL handshake packet that carries the server's name, then echoes.
pub(crate) async fn greet(mut stream: TcpStream, name: Rc<str>) {
    if stream.write_all(&greeting(&name)).await.is_ok() {
        echo(stream).await;
    }
}

/// Three bytes of length (little-endian), sequence number 0, protocol 10, a version ended by zero, filling.
fn greeting(name: &str) -> [u8; GREETING_LEN] {
    let mut packet = [0; GREETING_LEN];
    packet[..5].copy_from_slice(&[74, 0, 0, 0, 10]);
    let version = format!("8.0-{name}");
    let room = &mut packet[5..GREETING_LEN - 1];
    let len = version.len().min(room.len());
    room[..len].copy_from_slice(&version.as_bytes()[..len]);
    packet
}
