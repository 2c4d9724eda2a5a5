//! Endpoints that behave as their mood says, and the book of what reached them.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use crate::model::Protocol;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    /// Good, and every connection ends without a word soon after an answer.
    Fickle,
    Fails,
    /// Takes requests and breaks off without an answer.
    Breaks,
    Hangs,
    /// Nobody listens, and what was open is gone.
    Refuses,
}

impl Mood {
    pub(super) const ALL: [Self; 6] = [
        Self::Good,
        Self::Fickle,
        Self::Fails,
        Self::Breaks,
        Self::Hangs,
        Self::Refuses,
    ];
}

/// A request that reached an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) endpoint: SocketAddr,
    pub(super) attempt: u32,
    /// The status of the answer; `None` while there is none, and for good where the endpoint broke off.
    pub(super) answered: Option<u16>,
}

/// All arrivals, by the number of the request.
#[derive(Debug, Default)]
pub(super) struct Book(RefCell<HashMap<u64, Vec<Arrival>>>);

impl Book {
    pub(super) fn of(&self, request: u64) -> Vec<Arrival> {
        self.0.borrow().get(&request).cloned().unwrap_or_default()
    }

    /// The request's number, and the place of this arrival.
    fn enter(&self, headers: &HeaderMap, endpoint: SocketAddr) -> (u64, usize) {
        let number = |name: &str| headers[name].to_str().unwrap().parse::<u64>().unwrap();
        let request = number("x-request-id");
        let mut book = self.0.borrow_mut();
        let arrivals = book.entry(request).or_default();
        arrivals.push(Arrival {
            endpoint,
            attempt: u32::try_from(number("x-derny-attempt")).unwrap(),
            answered: None,
        });
        (request, arrivals.len() - 1)
    }

    fn answered(&self, (request, place): (u64, usize), status: Option<u16>) {
        self.0.borrow_mut().get_mut(&request).unwrap()[place].answered = status;
    }
}

/// One endpoint, with its address for good.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) address: SocketAddr,
    protocol: Protocol,
    mood: Cell<Mood>,
    rng: RefCell<fastrand::Rng>,
    book: Rc<Book>,
    serving: RefCell<Option<JoinHandle<()>>>,
}

impl Site {
    pub(super) async fn new(protocol: Protocol, book: Rc<Book>, seed: u64) -> Rc<Self> {
        // An address of its own, so that nobody is given its port while it does not listen.
        let host = [127, 99, 1, u8::try_from(seed % 200 + 1).unwrap()];
        let listener = TcpListener::bind(SocketAddr::from((host, 0))).await.unwrap();
        let this = Rc::new(Self {
            address: listener.local_addr().unwrap(),
            protocol,
            mood: Cell::new(Mood::Good),
            rng: RefCell::new(fastrand::Rng::with_seed(seed)),
            book,
            serving: RefCell::default(),
        });
        this.serve(listener);
        this
    }

    pub(super) fn mood(&self) -> Mood {
        self.mood.get()
    }

    pub(super) async fn change(self: &Rc<Self>, mood: Mood) {
        let before = self.mood.replace(mood);
        if mood == Mood::Refuses {
            if let Some(serving) = self.serving.take() {
                serving.abort();
            }
        } else if before == Mood::Refuses {
            // The port is free as soon as the listener's task has ended.
            loop {
                match TcpListener::bind(self.address).await {
                    Ok(listener) => return self.serve(listener),
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    fn serve(self: &Rc<Self>, listener: TcpListener) {
        let site = self.clone();
        let serving = tokio::task::spawn_local(async move {
            // Dropped with this task, it ends all connections.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                connections.spawn_local(site.clone().connection(stream));
            }
        });
        *self.serving.borrow_mut() = Some(serving);
    }

    async fn connection(self: Rc<Self>, stream: TcpStream) {
        let closing = Rc::new(Notify::new());
        let serving = async {
            match self.protocol {
                Protocol::Http2 => self.http2(stream, &closing).await,
                _ => self.http1(stream, &closing).await,
            }
        };
        tokio::select! {
            () = serving => {}
            () = closing.notified() => {}
        }
    }

    async fn http1(self: &Rc<Self>, stream: TcpStream, closing: &Rc<Notify>) {
        let service = service_fn(|request: Request<Incoming>| async move {
            match self.answer(request.headers(), closing).await {
                Some(status) => {
                    let body = Full::new(Bytes::from_static(b"an answer"));
                    Ok(Response::builder().status(status).body(body).unwrap())
                }
                None => Err(io::Error::other("broken off")),
            }
        });
        // Callers may go in any way they like.
        let _ = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    async fn http2(self: &Rc<Self>, stream: TcpStream, closing: &Rc<Notify>) {
        let Ok(mut connection) = h2::server::Builder::new()
            .max_concurrent_streams(3)
            .handshake::<_, Bytes>(stream)
            .await
        else {
            return;
        };
        let mut streams = JoinSet::new();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let (site, closing) = (self.clone(), closing.clone());
            streams.spawn_local(async move {
                let answer = site.answer(request.headers(), &closing);
                let answered = tokio::select! {
                    answered = answer => answered,
                    _ = std::future::poll_fn(|cx| respond.poll_reset(cx)) => return Ok::<_, Infallible>(()),
                };
                match answered {
                    Some(status) => {
                        let head = Response::builder().status(status).body(()).unwrap();
                        if let Ok(mut body) = respond.send_response(head, false) {
                            let _ = body.send_data(Bytes::from_static(b"an answer"), true);
                        }
                    }
                    None => respond.send_reset(h2::Reason::INTERNAL_ERROR),
                }
                Ok(())
            });
        }
    }

    /// The status, when it is time for it; `None` to break off.
    async fn answer(&self, headers: &HeaderMap, closing: &Rc<Notify>) -> Option<u16> {
        let mood = self.mood.get();
        let arrival = self.book.enter(headers, self.address);
        let (millis, fate) = {
            let mut rng = self.rng.borrow_mut();
            (rng.u64(0..120), rng.u8(..))
        };
        let wait = match mood {
            Mood::Hangs => 3000,
            Mood::Good | Mood::Fickle => millis,
            Mood::Fails | Mood::Breaks | Mood::Refuses => millis / 10,
        };
        if wait > 0 {
            sleep(Duration::from_millis(wait)).await;
        }
        if mood == Mood::Fickle {
            let (closing, after) = (closing.clone(), u64::from(fate) % 25);
            tokio::task::spawn_local(async move {
                sleep(Duration::from_millis(after)).await;
                closing.notify_one();
            });
        }
        let status = match mood {
            Mood::Breaks => None,
            Mood::Fails => Some(if fate < 128 { 503 } else { 500 }),
            Mood::Good | Mood::Fickle | Mood::Hangs | Mood::Refuses => Some(200),
        };
        self.book.answered(arrival, status);
        status
    }
}
