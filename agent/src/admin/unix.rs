//! The command line's socket: who may open it is decided by its file's mode.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tonic::codegen::Service as _;

use super::{
    Bounds, Displaced, Error, View, places::Peer, proto::admin_server::AdminServer, rpc::Rpc, serve::serve,
};
use crate::drain;

/// How long the owner of a socket file that is there may take to accept.
const PROBE: Duration = Duration::from_secs(1);

/// How long one connection may take. A command asks once, and is answered at once.
const LIFE: Duration = Duration::from_secs(30);
/// Questions that one connection may ask at a time.
const STREAMS: u32 = 4;
/// Of a question.
const MESSAGE_BYTES: usize = 64 * 1024;
const HEAD_BYTES: u32 = 16 * 1024;
/// Of an answer that is not read.
const SEND_BYTES: usize = 256 * 1024;

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
    pub async fn serve(self, view: Arc<dyn View>, bounds: Bounds, displaced: Displaced, drain: drain::Watch) {
        let Self {
            listener,
            file: _file,
        } = self;
        let server = AdminServer::new(Rpc::new(view)).max_decoding_message_size(MESSAGE_BYTES);
        let accept = async || {
            let (stream, _) = listener.accept().await?;
            let process = stream.peer_cred()?.pid().unwrap_or_default();
            Ok((stream, Peer::Process(process)))
        };
        let connection = |stream| connection(stream, server.clone());
        serve(accept, connection, "admin socket", bounds, displaced, drain).await;
    }
}

async fn connection(stream: UnixStream, server: AdminServer<Rpc>) {
    let service = hyper::service::service_fn(move |request| server.clone().call(request));
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES)
        .max_send_buf_size(SEND_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(LIFE, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin connection broke"),
        Err(_) => tracing::debug!("admin connection took too long"),
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
