//! Secret discovery for the local Envoy. Source: spec/envoy-config.md §7.2.

mod session;

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use proto::secret::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::AgentError;
use crate::metrics::Metrics;
use crate::state::SecretsRx;
use session::Session;

/// Directory of the socket, in the run directory.
const DIR: &str = "sds";
const SOCKET: &str = "socket";
/// Longest path of a Unix socket on Linux, without its final zero.
const PATH_BYTES_MAX: usize = 107;
/// Responses that wait to be sent on a stream.
const RESPONSES_MAX: usize = 4;
/// Largest request: Envoy's node lists all its extensions.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The socket, in a directory that nobody else may enter.
pub(crate) fn listen(run_dir: &Path) -> Result<(PathBuf, UnixListener), AgentError> {
    let dir = run_dir.join(DIR);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .map_err(AgentError::file(&dir))?;
    // It may have been there, and open to others.
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))
        .map_err(AgentError::file(&dir))?;
    let dir = dir.canonicalize().map_err(AgentError::file(&dir))?;
    let path = dir.join(SOCKET);
    if path.as_os_str().len() > PATH_BYTES_MAX {
        return Err(AgentError::SocketPath {
            path,
            max: PATH_BYTES_MAX,
        });
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(AgentError::file(&path)(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(AgentError::file(&path))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .map_err(AgentError::file(&path))?;
    Ok((path, listener))
}

/// Serves for ever.
pub(crate) async fn serve(
    listener: UnixListener,
    secrets: SecretsRx,
    metrics: Arc<Metrics>,
) -> Result<(), tonic::transport::Error> {
    let service = SecretDiscoveryServiceServer::new(Sds { secrets, metrics })
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
}

struct Sds {
    secrets: SecretsRx,
    metrics: Arc<Metrics>,
}

type Responses<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SecretDiscoveryService for Sds {
    type DeltaSecretsStream = Responses<DeltaDiscoveryResponse>;
    type StreamSecretsStream = Responses<DiscoveryResponse>;

    async fn delta_secrets(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("use StreamSecrets"))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let (responses, outbound) = mpsc::channel(RESPONSES_MAX);
        let (secrets, metrics) = (self.secrets.clone(), Arc::clone(&self.metrics));
        let requests = request.into_inner();
        tokio::spawn(async move {
            if let Err(status) = stream(requests, &responses, secrets, &metrics).await {
                tracing::warn!(code = ?status.code(), message = status.message(), "secret stream ends");
                let _ = responses.send(Err(status)).await;
            }
        });
        let outbound: Self::StreamSecretsStream = Box::pin(ReceiverStream::new(outbound));
        Ok(Response::new(outbound))
    }

    async fn fetch_secrets(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("use StreamSecrets"))
    }
}

/// One stream, until Envoy or the agent ends it.
async fn stream(
    mut requests: Streaming<DiscoveryRequest>,
    responses: &mpsc::Sender<Result<DiscoveryResponse, Status>>,
    mut secrets: SecretsRx,
    metrics: &Metrics,
) -> Result<(), Status> {
    let mut session = Session::default();
    loop {
        tokio::select! {
            request = requests.message() => {
                // A stream that is cut off is how Envoy ends one: nothing to report.
                let Ok(Some(request)) = request else { return Ok(()) };
                if let Some(reason) = session.on_request(&request)? {
                    metrics.rejections.inc();
                    tracing::warn!(resource = session.name(), reason, "Envoy refused a secret");
                }
            }
            changed = secrets.changed() => {
                if changed.is_err() {
                    return Err(Status::unavailable("the agent is ending"));
                }
            }
        }
        let resource = secrets.borrow_and_update().resource(session.name());
        if let Some(response) = session.on_secret(resource) {
            metrics.pushes.inc();
            tracing::debug!(
                resource = session.name(),
                version = response.version_info,
                "secret sent"
            );
            if responses.send(Ok(response)).await.is_err() {
                return Ok(());
            }
        }
    }
}
