//! Relays between sockets of this test, with memory for what is in hand and without.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::relay::{End, Ended, Side, relay};
use crate::{
    model::PodName,
    share::{Bound, Ledger, Limits, Local},
    transport::Socket,
};

/// More than all the buffers on the way.
const LONG: usize = 32 << 20;
const SOON: Duration = Duration::from_secs(20);

fn pod(memory: u64) -> Rc<Local> {
    let limits = Limits {
        memory: Bound {
            node: memory,
            pod: memory,
        },
        ..Limits::none()
    };
    Local::new(Ledger::new(limits).open(PodName {
        namespace: "demo".into(),
        name: "a".into(),
    }))
}

/// The ends of a connection.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// What a caller and an endpoint do with a relay between them, for pods with memory and without, and how the relay ended.
async fn each<C: Future<Output = ()>, E: Future<Output = ()>>(
    expect: Ended,
    caller: impl Fn(TcpStream) -> C,
    endpoint: impl Fn(TcpStream) -> E,
) {
    for memory in [1 << 20, 0] {
        let share = pod(memory);
        let ((of_caller, near), (far, of_endpoint)) = (connection().await, connection().await);
        let end = |stream, first: &'static [u8]| End {
            first: Bytes::from_static(first),
            socket: Socket::new(stream),
        };
        let relay = relay(end(near, b""), end(far, b""), &share, |_, _| {});
        let all = async { tokio::join!(relay, caller(of_caller), endpoint(of_endpoint)).0 };
        assert_eq!(timeout(SOON, all).await.unwrap(), expect, "{memory} bytes");
    }
}

fn text(length: usize) -> Vec<u8> {
    (0..length / 8).flat_map(|place| place.to_be_bytes()).collect()
}

async fn read_slowly(stream: &mut TcpStream) -> Vec<u8> {
    let (mut heard, mut piece) = (Vec::new(), vec![0; 10_000]);
    while let count @ 1.. = stream.read(&mut piece).await.unwrap() {
        heard.extend_from_slice(&piece[..count]);
        tokio::task::yield_now().await;
    }
    heard
}

#[tokio::test]
async fn all_bytes_pass_in_order_and_each_direction_ends_by_itself() {
    let caller = |mut stream: TcpStream| async move {
        stream.write_all(&text(LONG)).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(read_slowly(&mut stream).await == text(LONG));
    };
    let endpoint = |mut stream: TcpStream| async move {
        assert!(read_slowly(&mut stream).await == text(LONG));
        stream.write_all(&text(LONG)).await.unwrap();
        stream.shutdown().await.unwrap();
    };
    each(Ended::Orderly, caller, endpoint).await;
}

#[tokio::test]
async fn a_reset_is_passed_on_after_what_came_before_it() {
    let caller = |mut stream: TcpStream| async move {
        stream.write_all(&text(64)).await.unwrap();
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await.unwrap();
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    };
    let endpoint = |mut stream: TcpStream| async move {
        let mut heard = [0; 64];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard[..], text(64));
        stream.write_all(b"heard").await.unwrap();
        let error = stream.read(&mut heard).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    };
    each(Ended::By(Side::Caller), caller, endpoint).await;
}

#[tokio::test]
async fn a_reset_is_seen_while_the_other_side_has_no_room() {
    let caller = |stream: TcpStream| async move {
        // Fills every buffer on the way, and then some.
        let full = async {
            loop {
                stream.writable().await.unwrap();
                let _ = stream.try_write(&[7; 65_536]);
            }
        };
        let _ = timeout(Duration::from_millis(300), full).await;
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    };
    let endpoint = |stream: TcpStream| async move {
        stream.ready(tokio::io::Interest::ERROR).await.unwrap();
        assert!(SockRef::from(&stream).take_error().unwrap().is_some());
    };
    each(Ended::By(Side::Caller), caller, endpoint).await;
}
