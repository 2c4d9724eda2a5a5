//! Requests to the API server, each counted.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use http::Request;
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
    core::{WatchEvent, params::ListParams, params::WatchParams, request::Request as Kube},
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt as _};
use tower::util::AndThenLayer;

use super::{
    KubeBoard,
    objects::Resource,
    refusals::{Patience, refused_is_error},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest silence on a connection. A server sends a bookmark each minute, so that a watch from which nothing comes
/// for so long is on a connection that is dead.
const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// For one list or change, from request to the last byte.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Objects in one page of a list: what is in hand of it is a megabyte or two, however large the cluster.
const PAGE: u32 = 500;
/// Seconds until the server ends a watch, so that its connections move on to servers that were started later.
const WATCH_SECONDS: u32 = 270;

/// The API server cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        path: String,
        source: Box<kube::config::KubeconfigError>,
    },
    #[error("no Kubernetes API server is known (not in a cluster, and no kubeconfig): {0}")]
    NotInCluster(Box<kube::config::InferConfigError>),
    #[error("kubernetes client: {0}")]
    Client(Box<kube::Error>),
    #[error("the control groups of pods, below {path}, cannot be watched: {source}")]
    ControlGroups { path: PathBuf, source: std::io::Error },
}

/// Why a request brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// What was asked for is no longer known: 410.
    #[error("the server no longer knows this version: {0}")]
    Gone(String),
    /// 404: for a list, the kind itself is not there.
    #[error("not found: {0}")]
    NotFound(String),
    /// 401 or 403.
    #[error("not allowed: {0}")]
    Forbidden(String),
    /// 409: somebody else was faster.
    #[error("conflict: {0}")]
    Conflict(String),
    /// 429, or another code with a time that the server asks for.
    #[error("too many requests: {message}")]
    Throttled { message: String, wait: Option<Duration> },
    /// 5xx.
    #[error("the server failed: {0}")]
    Unavailable(String),
    #[error("the server refuses: {0}")]
    Refused(String),
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    #[error("the answer is not understood: {0}")]
    Undecodable(String),
}

impl Failure {
    /// The metric's label.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Gone(_) => "gone",
            Self::NotFound(_) => "not_found",
            Self::Forbidden(_) => "forbidden",
            Self::Conflict(_) => "conflict",
            Self::Throttled { .. } => "throttled",
            Self::Unavailable(_) => "unavailable",
            Self::Refused(_) => "refused",
            Self::Unreachable(_) => "unreachable",
            Self::Undecodable(_) => "undecodable",
        }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let message = match status.message.is_empty() {
                    true => status.reason.clone(),
                    false => status.message.clone(),
                };
                let asked = status
                    .details
                    .as_ref()
                    .map_or(0, |details| details.retry_after_seconds);
                let wait = (asked > 0).then(|| Duration::from_secs(asked.into()));
                match status.code {
                    410 => Self::Gone(message),
                    404 => Self::NotFound(message),
                    401 | 403 => Self::Forbidden(message),
                    409 => Self::Conflict(message),
                    429 => Self::Throttled { message, wait },
                    500.. if wait.is_some() => Self::Throttled { message, wait },
                    500.. => Self::Unavailable(message),
                    _ => Self::Refused(message),
                }
            }
            kube::Error::SerdeError(error) => Self::Undecodable(error.to_string()),
            other => {
                let text = whole(&other);
                // Of rustls, whose errors are a layer below the client's.
                let remedy = match text.contains("certificate") {
                    true => {
                        ": does certificate-authority, of the kubeconfig or the service account, belong to this server?"
                    }
                    false => "",
                };
                Self::Unreachable(format!("{text}{remedy}"))
            }
        }
    }
}

/// An error with its causes: the outermost alone says "client error (Connect)".
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// What of a kind is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// `None`: of all namespaces, or of a kind that has none.
    pub(crate) namespace: Option<String>,
    pub(crate) labels: Option<String>,
    pub(crate) fields: Option<String>,
}

/// One page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Page<T> {
    pub(super) metadata: PageMeta,
    pub(super) items: Vec<T>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PageMeta {
    pub(super) resource_version: String,
    #[serde(rename = "continue")]
    pub(super) next: Option<String>,
}

/// Reads a page, and why objects of it were left out: one that is not understood is no reason to lose the others.
fn page<T: DeserializeOwned>(text: &str) -> Result<(Page<T>, Vec<serde_json::Error>), serde_json::Error> {
    if let Ok(page) = serde_json::from_str(text) {
        return Ok((page, Vec::new()));
    }
    // Rare, so that only now each object is taken apart first.
    let Page { metadata, items } = serde_json::from_str::<Page<serde_json::Value>>(text)?;
    let mut read = Vec::with_capacity(items.len());
    let mut left_out = Vec::new();
    for item in items {
        match serde_json::from_value(item) {
            Ok(item) => read.push(item),
            Err(error) => left_out.push(error),
        }
    }
    Ok((
        Page {
            metadata,
            items: read,
        },
        left_out,
    ))
}

/// An API server. Every copy shares its connections and its board.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    board: KubeBoard,
    patience: Patience,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    /// The server that `kubeconfig` names, else that of the pod's own service account, else that of `KUBECONFIG`.
    /// Sends nothing: a server that is away is no error here.
    pub async fn connect(kubeconfig: Option<&Path>) -> Result<Self, Error> {
        let mut config = match kubeconfig {
            Some(path) => {
                let at = |source| Error::Kubeconfig {
                    path: path.display().to_string(),
                    source: Box::new(source),
                };
                let read = Kubeconfig::read_from(path).map_err(at)?;
                let options = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(read, &options).await.map_err(at)?
            }
            None => Config::infer()
                .await
                .map_err(|e| Error::NotInCluster(Box::new(e)))?,
        };
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        config.write_timeout = Some(CONNECT_TIMEOUT);
        // Who asks decides when to ask again, and each try is counted.
        config.default_retry = false;
        let client = ClientBuilder::try_from(config).map_err(|e| Error::Client(Box::new(e)))?;
        Ok(Self {
            client: client.with_layer(&AndThenLayer::new(refused_is_error)).build(),
            board: KubeBoard::default(),
            patience: Patience::default(),
        })
    }

    /// The namespace of the service account or of the kubeconfig's context.
    pub(super) fn namespace(&self) -> &str {
        self.client.default_namespace()
    }

    pub fn board(&self) -> KubeBoard {
        self.board.clone()
    }

    /// The page that `next` names, else the first.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        of: &Resource,
        what: &Selection,
        next: Option<String>,
    ) -> Result<Page<T>, Failure> {
        let params = ListParams {
            label_selector: what.labels.clone(),
            field_selector: what.fields.clone(),
            limit: Some(PAGE),
            continue_token: next,
            ..ListParams::default()
        };
        let request = Kube::new(of.path(what.namespace.as_deref())).list(&params);
        let text = self.text(of, "list", request).await?;
        let undecodable = || self.board.request(of.plural, "list", "undecodable");
        let (page, left_out) = page(&text).map_err(|error| {
            undecodable();
            Failure::Undecodable(error.to_string())
        })?;
        for error in left_out {
            undecodable();
            tracing::error!(resource = of.plural, %error, "an object was not understood and is left out");
        }
        Ok(page)
    }

    /// Changes after `version`.
    pub(super) async fn watch<T: DeserializeOwned + Clone>(
        &self,
        of: &Resource,
        what: &Selection,
        version: &str,
    ) -> Result<impl Stream<Item = Result<WatchEvent<T>, Failure>> + use<T>, Failure> {
        let params = WatchParams {
            label_selector: what.labels.clone(),
            field_selector: what.fields.clone(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = Kube::new(of.path(what.namespace.as_deref())).watch(&params, version);
        self.patience.wait(of.plural).await;
        let sent = async {
            let request = request.map_err(|e| Failure::Undecodable(e.to_string()))?;
            Ok(self.client.request_events::<T>(request).await?)
        };
        let sent = sent.await;
        self.note(of, "watch", sent.as_ref().err());
        Ok(sent?.map(|event| event.map_err(Failure::from)))
    }

    /// The body of the answer to `request`.
    pub(super) async fn text(
        &self,
        of: &Resource,
        verb: &'static str,
        request: Result<Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<String, Failure> {
        let answer = async {
            let request = request.map_err(|e| Failure::Undecodable(e.to_string()))?;
            match tokio::time::timeout(REQUEST_TIMEOUT, self.client.request_text(request)).await {
                Ok(answer) => Ok(answer?),
                Err(_) => Err(Failure::Unreachable("no answer in time".to_owned())),
            }
        };
        self.patience.wait(of.plural).await;
        let answer = answer.await;
        self.note(of, verb, answer.as_ref().err());
        answer
    }

    /// What came of a request.
    fn note(&self, of: &Resource, verb: &'static str, failure: Option<&Failure>) {
        self.board
            .request(of.plural, verb, failure.map_or("ok", Failure::as_str));
        if let Some(Failure::Throttled { wait: Some(wait), .. }) = failure {
            self.patience
                .asked(of.plural, *wait, Instant::now(), &mut fastrand::Rng::new());
        }
        let is_trouble = |failure: &&Failure| {
            // These say how things stand, and not that something is in the way.
            !matches!(
                failure,
                Failure::Gone(_) | Failure::NotFound(_) | Failure::Conflict(_)
            )
        };
        let trouble = failure.filter(is_trouble).map(ToString::to_string);
        self.board.trouble(of.plural, verb, trouble);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_is_not_understood_is_left_out_of_its_page_alone() {
        let read = page::<u8>(r#"{"metadata": {"resourceVersion": "7"}, "items": [1, 2]}"#).unwrap();
        assert_eq!((read.0.items, read.1.len()), (vec![1, 2], 0));
        let (page_of, left_out) =
            page::<u8>(r#"{"metadata": {"resourceVersion": "7", "continue": "c"}, "items": [1, "x", 3]}"#)
                .unwrap();
        assert_eq!((page_of.items, left_out.len()), (vec![1, 3], 1));
        assert_eq!(page_of.metadata.next.as_deref(), Some("c"));
        assert!(page::<u8>("{}").is_err(), "no list at all");
    }
}
