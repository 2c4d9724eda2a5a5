//! The command line's socket: who may open it is decided by its file's mode.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{UnixListener, UnixStream};
use tonic::codegen::Service as _;

use super::{Error, View, proto::admin_server::AdminServer, rpc::Rpc, serve::serve};
use crate::drain;

/// How long the owner of a socket file that is there may take to accept.
const PROBE: Duration = Duration::from_secs(1);

/// A bound Unix socket, mode 0600. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct UnixWindow {
    listener: UnixListener,
    file: SocketFile,
}

impl UnixWindow {
    /// Makes the socket, and its directory if needed. A file that is there is replaced only when it is a socket at
    /// which nobody answers.
    pub async fn bind(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Socket {
            path: path.to_owned(),
            source,
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        make_way(path).await?;
        // Bound under another name and renamed, so that there is no moment at which the final name has a mode that
        // lets others in.
        let draft = path.with_extension("new");
        remove(&draft).map_err(failed)?;
        let listener = UnixListener::bind(&draft).map_err(failed)?;
        let made = fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))
            .and_then(|()| fs::metadata(&draft))
            .and_then(|metadata| fs::rename(&draft, path).map(|()| metadata));
        let metadata = match made {
            Ok(metadata) => metadata,
            Err(error) => {
                let _ = fs::remove_file(&draft);
                return Err(failed(error));
            }
        };
        let file = SocketFile {
            path: path.to_owned(),
            id: (metadata.dev(), metadata.ino()),
        };
        Ok(Self { listener, file })
    }

    /// Answers until the drain begins, then removes the file.
    pub async fn serve(self, view: Arc<dyn View>, drain: drain::Watch) {
        let Self {
            listener,
            file: _file,
        } = self;
        let server = AdminServer::new(Rpc::new(view));
        let accept = async || listener.accept().await.map(|(stream, _)| stream);
        let connection = |stream| connection(stream, server.clone());
        serve(accept, connection, "admin socket", drain).await;
    }
}

async fn connection(stream: UnixStream, server: AdminServer<Rpc>) {
    let service = hyper::service::service_fn(move |request| server.clone().call(request));
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "admin connection broke");
    }
}

/// Refuses to replace what is somebody's.
async fn make_way(path: &Path) -> Result<(), Error> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(Error::Socket {
                path: path.to_owned(),
                source,
            });
        }
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::NoSocket {
            path: path.to_owned(),
        });
    }
    match tokio::time::timeout(PROBE, UnixStream::connect(path)).await {
        // Only this says that nobody listens. A full queue, for one, is a sign of life.
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        _ => Err(Error::InUse {
            path: path.to_owned(),
        }),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the file when dropped, unless it has become another agent's.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.id);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the admin socket");
        }
    }
}
