//! Taking connections off a listener: a permit first, then accept, and a pause after an error of the system.

use std::{io, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::record::Recorder;

/// Pauses after errors such as EMFILE: the backlog keeps the callers meanwhile.
const PAUSE: Duration = Duration::from_millis(20);

/// One worker's right to accept: so many connections at a time.
#[derive(Debug)]
pub struct Acceptor {
    permits: Arc<Semaphore>,
    recorder: Rc<Recorder>,
}

/// Held for as long as a connection is open.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "dropped, it gives the place back")] OwnedSemaphorePermit);

impl Acceptor {
    pub fn new(max_connections: usize, recorder: Rc<Recorder>) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max_connections)),
            recorder,
        }
    }

    /// The next connection. Pauses, and counts it, while as many as allowed are open or accept(2) fails.
    pub async fn accept(&self, listener: &TcpListener) -> (TcpStream, Permit) {
        let permit = self.permit().await;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Small messages go out at once; a caller that has gone already shows at the first read.
                    let _ = stream.set_nodelay(true);
                    return (stream, permit);
                }
                Err(error) => {
                    self.recorder.counters.accept_error();
                    if !of_one_connection(&error) {
                        tracing::warn!(%error, "accept failed");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    async fn permit(&self) -> Permit {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Permit(permit);
        }
        self.recorder.counters.accept_limited();
        match self.permits.clone().acquire_owned().await {
            Ok(permit) => Permit(permit),
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Errors that say something of the connection that was about to be accepted (accept(2), "Error handling"), so
/// that the next can be taken at once.
fn of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
