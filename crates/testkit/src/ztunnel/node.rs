//! A ztunnel with its pods: outbound and inbound side of each.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use ca::DevCa;
use http::{Request, StatusCode};
use http_body_util::Full;
use model::SpiffeId;

use super::{Route, RouteError, Ztunnel, allows, route};
use crate::app::App;
use crate::hbone::{
    Authorize, HboneClient, HboneError, HboneServer, HboneStream, Identity, L4Connection, Verdict,
};
use crate::http_client::{HttpResponse, send_http1};

/// A pod with a sample workload in it.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Name, as the workload reports it.
    pub name: String,
    /// Version, as the workload reports it.
    pub version: String,
    /// Who it is.
    pub id: SpiffeId,
    /// Its address.
    pub ip: IpAddr,
    /// The port of the workload.
    pub port: u16,
}

/// Which way a connection took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// Through a waypoint of this name.
    Waypoint(String),
    /// Straight to this workload.
    Direct(String),
}

/// Why a request got no HTTP answer.
#[derive(Debug)]
pub enum MeshError {
    /// ztunnel would reset the connection.
    Route(RouteError),
    /// The other side refused by L4 policy or could not serve.
    Refused(StatusCode),
    /// The network or TLS failed.
    Transport(anyhow::Error),
}

impl std::fmt::Display for MeshError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Route(error) => write!(f, "{error}"),
            Self::Refused(status) => write!(f, "CONNECT was answered with {status}"),
            Self::Transport(error) => write!(f, "{error:#}"),
        }
    }
}

impl std::error::Error for MeshError {}

struct Resident {
    pod: Pod,
    outbound: HboneClient,
    _inbound: HboneServer,
    _app: App,
}

/// One ztunnel and the pods of its node. Everything stops when it is dropped.
pub struct NodeProxy {
    ztunnel: Arc<Ztunnel>,
    residents: Vec<Resident>,
}

impl NodeProxy {
    /// A node without pods.
    pub fn new(ztunnel: Ztunnel) -> Self {
        Self {
            ztunnel: Arc::new(ztunnel),
            residents: Vec::new(),
        }
    }

    /// The subscription.
    pub fn ztunnel(&self) -> &Ztunnel {
        &self.ztunnel
    }

    /// The pods.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.residents.iter().map(|r| &r.pod)
    }

    /// Starts a pod: its sample workload, and HBONE on its address under the policies
    /// that the ztunnel holds at the time of each connection.
    pub async fn add(&mut self, ca: &DevCa, pod: Pod) -> anyhow::Result<()> {
        let identity = Identity::issue(ca, &pod.id)?;
        let ztunnel = Arc::clone(&self.ztunnel);
        let authorize: Authorize = Arc::new(move |c| verdict(&ztunnel, c));
        let app = App::start(SocketAddr::new(pod.ip, pod.port), &pod.name, &pod.version).await?;
        let inbound = HboneServer::start(pod.ip, &identity, authorize).await?;
        let outbound = HboneClient::new(Arc::new(identity), Some(pod.ip))?;
        self.residents.push(Resident {
            pod,
            outbound,
            _inbound: inbound,
            _app: app,
        });
        Ok(())
    }

    /// Opens a connection as the pod of this name, routed as its ztunnel would.
    ///
    /// # Errors
    /// [`MeshError`] where the pod would see a reset.
    pub async fn connect(
        &self,
        pod: &str,
        destination: SocketAddr,
    ) -> Result<(HboneStream, Via), MeshError> {
        let resident = self.residents.iter().find(|r| r.pod.name == pod);
        let resident = resident
            .with_context(|| format!("no pod {pod} on this node"))
            .map_err(MeshError::Transport)?;
        let decided = route(
            &self.ztunnel.state(),
            destination,
            self.ztunnel.next_choice(),
        )
        .map_err(MeshError::Route)?;
        let (hop, via) = match decided {
            Route::Waypoint(hop) => {
                let via = Via::Waypoint(hop.name.clone());
                (hop, via)
            }
            Route::Workload(hop) => {
                let via = Via::Direct(hop.name.clone());
                (hop, via)
            }
            Route::Plain(addr) | Route::Passthrough(addr) => {
                let error = anyhow::anyhow!("{addr} is outside of the mesh");
                return Err(MeshError::Transport(error));
            }
        };
        resident
            .outbound
            .connect(hop.server, &hop.authority.to_string(), Some(&hop.expected))
            .await
            .map(|(stream, _)| (stream, via))
            .map_err(|error| match error {
                HboneError::Refused(status) => MeshError::Refused(status),
                other => MeshError::Transport(anyhow::Error::new(other)),
            })
    }

    /// One HTTP request as the pod of this name.
    ///
    /// # Errors
    /// As [`NodeProxy::connect`].
    pub async fn request(
        &self,
        pod: &str,
        destination: SocketAddr,
        request: Request<Full<Bytes>>,
    ) -> Result<(HttpResponse, Via), MeshError> {
        let (stream, via) = self.connect(pod, destination).await?;
        let answer = send_http1(stream, request)
            .await
            .map_err(MeshError::Transport)?;
        Ok((answer, via))
    }
}

fn verdict(ztunnel: &Ztunnel, connection: &L4Connection) -> Verdict {
    let state = ztunnel.state();
    match state.workload_by_ip(connection.destination.ip()) {
        Some(workload) if allows(&state, workload, connection) => Verdict::Allow,
        _ => Verdict::Deny,
    }
}
