//! The other end of the admin socket.

use std::{future::Future, io, path::Path, path::PathBuf, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use super::proto::{
    self, GetStatusRequest, ListEndpointsRequest, ListPodsRequest, ListServicesRequest,
    admin_client::AdminClient,
};

/// How long the agent may take for one answer.
const ANSWER: Duration = Duration::from_secs(1);

/// Why there is no answer; each names what an operator can do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the admin socket {} is not there: is the agent running, with this --admin-socket?", path.display())]
    Missing { path: PathBuf },
    #[error("nobody listens at the admin socket {}: the agent that made it is gone", path.display())]
    Refused { path: PathBuf },
    #[error("the agent at {} does not answer within {}s: it hangs; `derny redirects` works without it",
        path.display(), ANSWER.as_secs())]
    Hung { path: PathBuf },
    #[error("cannot open the admin socket {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("the agent at {} answers with an error: {message}", path.display())]
    Answer { path: PathBuf, message: String },
    /// The agent is well and says what is wrong with the question.
    #[error("{0}")]
    Question(String),
}

/// One connection to the agent of this node.
#[derive(Clone, Debug)]
pub struct Client {
    rpc: AdminClient<Channel>,
    path: PathBuf,
}

impl Client {
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let hung = || ClientError::Hung {
            path: path.to_owned(),
        };
        let connected = timeout(ANSWER, UnixStream::connect(path))
            .await
            .map_err(|_| hung())?;
        let stream = connected.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ClientError::Missing {
                path: path.to_owned(),
            },
            io::ErrorKind::ConnectionRefused => ClientError::Refused {
                path: path.to_owned(),
            },
            // The queue of those who wait to be accepted is full.
            io::ErrorKind::WouldBlock => hung(),
            _ => ClientError::Open {
                path: path.to_owned(),
                source,
            },
        })?;
        // The channel gets this one connection: a command is over before it could need another.
        let mut stream = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_: http::Uri| {
            let stream = stream
                .take()
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
            async move { stream }
        });
        let endpoint = Endpoint::from_static("http://derny.invalid");
        let channel = timeout(ANSWER, endpoint.connect_with_connector(connector))
            .await
            .map_err(|_| hung())?;
        let channel = channel.map_err(|error| ClientError::Answer {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        Ok(Self {
            rpc: AdminClient::new(channel),
            path: path.to_owned(),
        })
    }

    pub async fn status(&mut self) -> Result<proto::Status, ClientError> {
        let answer = self.rpc.get_status(GetStatusRequest {});
        within(&self.path, answer).await
    }

    pub async fn pods(&mut self) -> Result<Vec<proto::Pod>, ClientError> {
        let answer = self.rpc.list_pods(ListPodsRequest {});
        Ok(within(&self.path, answer).await?.pods)
    }

    pub async fn services(&mut self) -> Result<Vec<proto::Service>, ClientError> {
        let answer = self.rpc.list_services(ListServicesRequest {});
        Ok(within(&self.path, answer).await?.services)
    }

    /// `service` is `name`, `namespace/name` or `namespace/name:port`; all services when it is empty.
    pub async fn endpoints(&mut self, service: String) -> Result<Vec<proto::ServiceEndpoint>, ClientError> {
        let answer = self.rpc.list_endpoints(ListEndpointsRequest { service });
        Ok(within(&self.path, answer).await?.endpoints)
    }

    pub async fn explain(
        &mut self,
        request: proto::ExplainRequest,
    ) -> Result<proto::Explanation, ClientError> {
        let answer = self.rpc.explain(request);
        within(&self.path, answer).await
    }
}

async fn within<T>(
    path: &Path,
    answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, ClientError> {
    match timeout(ANSWER, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) if matches!(status.code(), Code::NotFound | Code::InvalidArgument) => {
            Err(ClientError::Question(status.message().to_owned()))
        }
        Ok(Err(status)) => Err(ClientError::Answer {
            path: path.to_owned(),
            message: status.message().to_owned(),
        }),
        Err(_) => Err(ClientError::Hung {
            path: path.to_owned(),
        }),
    }
}
