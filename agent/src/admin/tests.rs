//! Real sockets, a view that stands still.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::drain;

#[derive(Default)]
struct Still {
    awaited: Mutex<Vec<String>>,
    stuck: Mutex<Option<String>>,
    rendering: Duration,
    rendered: AtomicU32,
}

impl View for Still {
    fn status(&self) -> proto::Status {
        proto::Status {
            version: "1.2.3".to_owned(),
            pid: 7,
            ..Default::default()
        }
    }

    fn pods(&self) -> Vec<proto::Pod> {
        let waiting = proto::PodState::Waiting.into();
        vec![proto::Pod {
            name: "echo-1".to_owned(),
            state: waiting,
            ..Default::default()
        }]
    }

    fn services(&self) -> Vec<proto::Service> {
        vec![proto::Service {
            name: "echo".to_owned(),
            port: 80,
            ..Default::default()
        }]
    }

    fn endpoints(&self, service: &str) -> Result<Vec<proto::ServiceEndpoint>, Unanswered> {
        if service != "echo" {
            return Err(Unanswered::NotFound(format!("no service {service}")));
        }
        let (state, standing) = (proto::EndpointState::Ready, proto::Standing::Ejected);
        Ok(vec![proto::ServiceEndpoint {
            state: state.into(),
            uses: vec![proto::EndpointUse {
                standing: standing.into(),
                ..Default::default()
            }],
            ..Default::default()
        }])
    }

    fn explain(&self, request: &proto::ExplainRequest) -> Result<proto::Explanation, Unanswered> {
        if request.url.is_empty() {
            return Err(Unanswered::Invalid("no URL".to_owned()));
        }
        let verdict = proto::MatchVerdict::Outranked.into();
        Ok(proto::Explanation {
            address: request.url.clone(),
            rules: vec![proto::RuleMatch {
                verdict,
                ..Default::default()
            }],
            ..Default::default()
        })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a page that takes its time on its thread"
    )]
    fn metrics(&self) -> String {
        std::thread::sleep(self.rendering);
        self.rendered.fetch_add(1, Relaxed);
        "# EOF\n".to_owned()
    }

    fn not_ready(&self) -> Vec<String> {
        self.awaited.lock().unwrap().clone()
    }

    fn live(&self) -> Result<(), String> {
        self.stuck.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

/// Sends one request; gives status line, headers and body as they come.
async fn http(address: std::net::SocketAddr, request_line: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{request_line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

const BOUNDS: Bounds = Bounds { all: 8, of_peer: 4 };

async fn window(shows: Shows) -> HttpWindow {
    HttpWindow::bind(([127, 0, 0, 1], 0).into(), shows, BOUNDS, Displaced::default())
        .await
        .unwrap()
}

#[tokio::test]
async fn http_shows_metrics_and_probes() {
    let window = window(Shows::Everything).await;
    let address = window.address();
    let view = Arc::new(Still::default());
    let (trigger, watch) = drain::channel();
    let serving = tokio::spawn(window.serve(view.clone(), watch));

    let metrics = http(address, "GET /metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    assert!(metrics.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"));
    assert!(metrics.ends_with("\r\n\r\n# EOF\n"));

    assert!(http(address, "GET /livez").await.starts_with("HTTP/1.1 200"));
    assert!(http(address, "GET /readyz").await.starts_with("HTTP/1.1 200"));
    *view.stuck.lock().unwrap() = Some("worker 1 stands still".to_owned());
    *view.awaited.lock().unwrap() = vec!["configuration".to_owned(), "workers".to_owned()];
    let live = http(address, "GET /livez").await;
    assert!(
        live.starts_with("HTTP/1.1 503") && live.ends_with("worker 1 stands still\n"),
        "{live}"
    );
    let ready = http(address, "GET /readyz").await;
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.ends_with("waiting for configuration, workers\n"),
        "{ready}"
    );

    assert!(http(address, "GET /").await.starts_with("HTTP/1.1 404"));
    assert!(http(address, "POST /metrics").await.starts_with("HTTP/1.1 405"));
    assert!(http(address, "HEAD /metrics").await.ends_with("\r\n\r\n"));

    assert_eq!(
        trigger.drain(Duration::from_secs(5)).await,
        drain::Drained::Finished
    );
    serving.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn probes_have_an_address_without_metrics() {
    let window = window(Shows::Probes).await;
    let address = window.address();
    let (_trigger, watch) = drain::channel();
    tokio::spawn(window.serve(Arc::new(Still::default()), watch));
    assert!(http(address, "GET /livez").await.starts_with("HTTP/1.1 200"));
    assert!(http(address, "GET /readyz").await.starts_with("HTTP/1.1 200"));
    assert!(http(address, "GET /metrics").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn connections_that_say_nothing_make_way() {
    let displaced = Displaced::default();
    let local = ([127, 0, 0, 1], 0).into();
    let window = HttpWindow::bind(local, Shows::Everything, BOUNDS, displaced.clone()).await;
    let window = window.unwrap();
    let address = window.address();
    let (_trigger, watch) = drain::channel();
    tokio::spawn(window.serve(Arc::new(Still::default()), watch));
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    assert!(http(address, "GET /livez").await.starts_with("HTTP/1.1 200"));
    let of_peer = BOUNDS.of_peer as u64;
    assert!(displaced.count() > 20 - of_peer, "{}", displaced.count());
}

#[tokio::test]
async fn readers_share_pages_and_a_page_takes_a_fifth_of_the_time() {
    let window = window(Shows::Everything).await;
    let address = window.address();
    let view = Arc::new(Still {
        rendering: Duration::from_millis(20),
        ..Still::default()
    });
    let (_trigger, watch) = drain::channel();
    tokio::spawn(window.serve(view.clone(), watch));
    let begun = tokio::time::Instant::now();
    for _ in 0..4 {
        let all = [(); 4].map(|()| http(address, "GET /metrics"));
        let [a, b, c, d] = all;
        let answers = tokio::join!(a, b, c, d);
        assert!(answers.0.ends_with("# EOF\n") && answers.3.ends_with("# EOF\n"));
    }
    let rendered = view.rendered.load(Relaxed);
    let most = begun.elapsed().as_millis() / 100 + 1;
    assert!(
        u128::from(rendered) <= most,
        "{rendered} pages in {:?}",
        begun.elapsed()
    );
    assert!(rendered < 16, "{rendered}");
}

#[tokio::test]
async fn the_socket_answers_its_owner_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run").join("admin.sock");
    let window = UnixWindow::bind(&path).await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let (trigger, watch) = drain::channel();
    let still = Arc::new(Still::default());
    let serving = tokio::spawn(window.serve(still, BOUNDS, Displaced::default(), watch));

    let mut client = Client::connect(&path).await.unwrap();
    assert_eq!(client.status().await.unwrap().pid, 7);
    let pods = client.pods().await.unwrap();
    assert_eq!(serde_json::to_value(&pods).unwrap()[0]["state"], "waiting");
    assert_eq!(client.services().await.unwrap()[0].port, 80);
    let endpoints = client.endpoints("echo".to_owned()).await.unwrap();
    let json = serde_json::to_value(&endpoints).unwrap();
    assert_eq!(json[0]["state"], "ready");
    assert_eq!(json[0]["uses"][0]["standing"], "ejected");
    let request = proto::ExplainRequest {
        url: "http://echo".to_owned(),
        ..Default::default()
    };
    let json = serde_json::to_value(client.explain(request).await.unwrap()).unwrap();
    assert_eq!(json["address"], "http://echo");
    assert_eq!(json["rules"][0]["verdict"], "outranked");

    let no_service = client.endpoints("cache".to_owned()).await.unwrap_err();
    assert!(
        matches!(&no_service, ClientError::Question(why) if why == "no service cache"),
        "{no_service}"
    );
    let no_url = client
        .explain(proto::ExplainRequest::default())
        .await
        .unwrap_err();
    assert!(
        matches!(&no_url, ClientError::Question(why) if why == "no URL"),
        "{no_url}"
    );

    assert!(matches!(UnixWindow::bind(&path).await, Err(Error::InUse { .. })));

    trigger.drain(Duration::from_secs(5)).await;
    serving.await.unwrap();
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
}

#[tokio::test]
async fn only_a_dead_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    fs::write(&path, "mine").unwrap();
    assert!(matches!(
        UnixWindow::bind(&path).await,
        Err(Error::NoSocket { .. })
    ));
    fs::remove_file(&path).unwrap();

    // Closed without being removed, as after `kill -9`.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let first = UnixWindow::bind(&path).await.unwrap();

    // Somebody removes our file and another agent makes its own: that one stays when we go.
    fs::remove_file(&path).unwrap();
    let second = UnixWindow::bind(&path).await.unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

#[tokio::test]
async fn the_client_tells_missing_from_refused_from_hung() {
    async fn check(path: &Path, expect: &str) {
        let error = async { Client::connect(path).await?.status().await }
            .await
            .expect_err("no agent");
        assert!(error.to_string().contains(expect), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    check(&path, "is not there").await;

    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    // The kernel accepts for it; nobody ever answers.
    check(&path, "does not answer").await;
    drop(listener);
    check(&path, "nobody listens").await;
}
