//! Over real connections on the loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use authn::{AuthenticatorConfig, DevIssuer, PodRef, TokenRequest};
use ca::DevCa;
use hyper_util::rt::TokioIo;
use model::SpiffeId;
use prometheus::Registry;
use proto::core::Node;
use proto::discovery::DeltaDiscoveryResponse;
use proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use snapshot::EncodedResource;
use snapshot::ResourceType::{Address, Cluster};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};

use super::*;
use crate::client::{Client, NodeError};
use crate::connections::SyncState;
use crate::server::{Limits, ServerConfig, ServerError, serve, tls_config};
use crate::session::tests::{envoy, mesh, ztunnel};
use crate::wire::ENCODE_BYTES_MAX;

mod attacks;
mod bounds;
mod callers;
mod ending;
mod secrets;

const HOST: &str = "istiod.istio-system.svc";
const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(20);

struct Reader;

impl NodeReader for Reader {
    fn read(&self, node: &Node) -> Result<Client, NodeError> {
        let parts: Vec<&str> = node.id.split('~').collect();
        let [role, _, pod, _] = parts[..] else {
            return Err(NodeError("not four parts".to_owned()));
        };
        let (name, ns) = pod
            .split_once('.')
            .ok_or_else(|| NodeError("no pod".to_owned()))?;
        match role {
            "ztunnel" => Ok(Client {
                ns: ns.into(),
                ..ztunnel()
            }),
            "waypoint" => Ok(envoy(ns, name)),
            _ => Err(NodeError("unknown role".to_owned())),
        }
    }
}

struct World {
    tls: SocketAddr,
    plaintext: SocketAddr,
    /// The TLS configuration of new connections.
    config: watch::Sender<Arc<rustls::ServerConfig>>,
    ca: DevCa,
    issuer: Arc<DevIssuer>,
    /// How far the clock that tokens are read by is ahead, seconds.
    ahead: Arc<AtomicU64>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    interest: mpsc::Receiver<Report>,
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    server: JoinHandle<Result<(), ServerError>>,
    dir: tempfile::TempDir,
}

async fn world(snapshot: Option<Arc<Snapshot>>) -> World {
    limited(snapshot, Limits::default()).await
}

fn clock(ahead: &Arc<AtomicU64>) -> authn::Clock {
    let ahead = Arc::clone(ahead);
    Arc::new(move || SystemTime::now() + Duration::from_secs(ahead.load(Ordering::Relaxed)))
}

fn authenticator(issuer: &Arc<DevIssuer>, ahead: &Arc<AtomicU64>) -> Arc<Authenticator> {
    let metrics = authn::Metrics::register(&Registry::new()).unwrap();
    let config = AuthenticatorConfig {
        reviewer: Arc::clone(issuer) as _,
        cluster_ids: vec!["Kubernetes".to_owned()],
        remotes: Default::default(),
        audiences: vec!["istio-ca".to_owned()],
        trust_domain: Arc::new(|| "cluster.local".into()),
        clock: clock(ahead),
    };
    Arc::new(Authenticator::new(config, metrics))
}

async fn limited(snapshot: Option<Arc<Snapshot>>, limits: Limits) -> World {
    reviewed(snapshot, limits, None).await
}

async fn reviewed(
    snapshot: Option<Arc<Snapshot>>,
    limits: Limits,
    secrets: Option<Arc<dyn SecretReviewer>>,
) -> World {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let ca = DevCa::load_or_create(dir.path(), "cluster.local", now).unwrap();
    let issued = ca.issue_server(&[HOST], &[], now).unwrap();
    let config = tls_config(ca.authority(), &issued).unwrap();
    let ahead = Arc::default();
    let issuer = DevIssuer::load_or_create(dir.path(), clock(&ahead)).unwrap();
    let issuer = Arc::new(issuer);
    let tls = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plaintext = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (snapshots, receiver) = watch::channel(snapshot);
    let (interest, interest_receiver) = mpsc::channel(16);
    let metrics = Arc::new(Metrics::register(&Registry::new()).unwrap());
    let connections = Arc::new(Connections::default());
    let shutdown = CancellationToken::new();
    let service = AdsService::new(Deps {
        snapshots: receiver,
        node_reader: Arc::new(Reader),
        interest,
        connections: Arc::clone(&connections),
        metrics: Arc::clone(&metrics),
        authenticator: authenticator(&issuer, &ahead),
        identity: IdentityPolicy::default(),
        secrets,
        cache: Arc::default(),
        streams_max: 8,
        streams_per_second: 1000,
        shutdown: shutdown.clone(),
    });
    let (tls_addr, plaintext_addr) = (tls.local_addr().unwrap(), plaintext.local_addr().unwrap());
    let (config_sender, config) = watch::channel(config);
    let config = ServerConfig {
        tls: Some((tls, config, Routes::new(service.clone()))),
        plaintext: Some((plaintext, Routes::new(service))),
        limits,
    };
    World {
        tls: tls_addr,
        plaintext: plaintext_addr,
        server: tokio::spawn(serve(config, Arc::clone(&metrics), shutdown.clone())),
        config: config_sender,
        ca,
        issuer,
        ahead,
        snapshots,
        interest: interest_receiver,
        connections,
        metrics,
        shutdown,
        dir,
    }
}

/// Connects with a client certificate, or without one.
#[derive(Clone)]
struct Connector(SocketAddr, Option<TlsConnector>);

type Io = TokioIo<Box<dyn Duplex>>;
trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl Duplex for TcpStream {}
impl Duplex for TlsStream<TcpStream> {}

impl Service<http::Uri> for Connector {
    type Response = Io;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Io>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let Self(addr, tls) = self.clone();
        Box::pin(async move {
            let tcp = TcpStream::connect(addr).await?;
            let io: Box<dyn Duplex> = match tls {
                None => Box::new(tcp),
                Some(tls) => Box::new(
                    tls.connect(ServerName::try_from(HOST).unwrap(), tcp)
                        .await?,
                ),
            };
            Ok(TokioIo::new(io))
        })
    }
}

impl World {
    fn tls_builder(&self) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.ca.root_pem().as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
    }

    fn tls_config(&self, account: Option<&str>) -> ClientConfig {
        let mut config = match account {
            None => self.tls_builder().with_no_client_auth(),
            Some(account) => {
                let (ns, sa) = account.split_once('/').unwrap();
                let id = SpiffeId::new("cluster.local", ns, sa);
                let issued = self.ca.issue_workload(&id, HOUR, SystemTime::now());
                return self.tls_config_with(&issued.unwrap());
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    fn tls_config_with(&self, issued: &ca::Issued) -> ClientConfig {
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
        let mut config = self
            .tls_builder()
            .with_client_auth_cert(issued.tls_chain().to_vec(), key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    async fn channel(&self, account: Option<&str>) -> Result<Channel, tonic::transport::Error> {
        let tls = TlsConnector::from(Arc::new(self.tls_config(account)));
        connect(Connector(self.tls, Some(tls))).await
    }

    async fn ztunnel(&self) -> Ads {
        ads(self.channel(Some("istio-system/ztunnel")).await.unwrap())
            .await
            .unwrap()
    }

    /// Publishes and waits until a condition on the listed connections holds.
    async fn until(&self, condition: impl Fn(&[crate::Connection]) -> bool) {
        let wait = async {
            while !condition(&self.connections.list()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the condition never holds");
    }
}

async fn connect(connector: Connector) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_static("http://istiod")
        .connect_with_connector(connector)
        .await
}

/// A delta stream.
struct Ads {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

async fn ads(channel: Channel) -> Result<Ads, Status> {
    let (requests, receiver) = mpsc::channel(8);
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(ENCODE_BYTES_MAX);
    let opened = client
        .delta_aggregated_resources(ReceiverStream::new(receiver))
        .await?;
    Ok(Ads {
        requests,
        responses: opened.into_inner(),
    })
}

impl Ads {
    async fn send(&self, request: DeltaDiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    async fn receive(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let message = tokio::time::timeout(PATIENCE, self.responses.message()).await;
        Ok(message.expect("no response")?.expect("the stream ended"))
    }

    /// Names of resources and removals of the next response, which is accepted.
    async fn next(&mut self) -> (Vec<String>, Vec<String>) {
        let response = self.receive().await.unwrap();
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..Default::default()
        })
        .await;
        let names = response.resources.into_iter().map(|r| r.name).collect();
        (names, response.removed_resources)
    }
}

fn first(node: &str, type_url: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(Node {
            id: node.to_owned(),
            ..Default::default()
        }),
        type_url: type_url.to_owned(),
        ..Default::default()
    }
}

fn address() -> DeltaDiscoveryRequest {
    first("ztunnel~10.0.0.1~z.istio-system~d", Address.type_url())
}

fn strings(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

type Headers<'a> = &'a [(&'static str, &'a str)];

/// Opens a stream with these headers and without a certificate.
async fn with_headers(channel: Channel, headers: Headers<'_>) -> Result<Ads, Status> {
    let (requests, receiver) = mpsc::channel(8);
    let mut request = tonic::Request::new(ReceiverStream::new(receiver));
    for (name, value) in headers {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let opened = client.delta_aggregated_resources(request).await?;
    Ok(Ads {
        requests,
        responses: opened.into_inner(),
    })
}

impl World {
    fn token(&self, account: &str, pod: Option<&str>, audience: &str) -> String {
        let (ns, sa) = account.split_once('/').unwrap();
        let pod = pod.map(|name| PodRef {
            name: name.into(),
            uid: "u".into(),
        });
        let request = TokenRequest {
            ns,
            sa,
            pod: pod.as_ref(),
            audience,
            ttl: HOUR,
        };
        self.issuer.issue(&request).unwrap().expose().to_owned()
    }
}

#[tokio::test]
async fn ztunnel_with_a_certificate_gets_and_keeps_the_mesh() {
    let world = world(Some(mesh("a b", ""))).await;
    let mut ads = world.ztunnel().await;
    ads.send(address()).await;
    assert_eq!(ads.next().await, (strings("a b"), vec![]));
    world.snapshots.send_replace(Some(mesh("b=2", "")));
    assert_eq!(ads.next().await, (strings("b"), strings("a")));
    world
        .until(|all| {
            all.iter().any(|c| {
                c.types
                    .iter()
                    .any(|t| SyncState::of(t) == SyncState::Synced)
            })
        })
        .await;
    let connection = world.connections.list().remove(0);
    assert_eq!(connection.id, "ztunnel-x.istio-system-1");
    assert_eq!(
        connection.peer.identity,
        Some(SpiffeId::new("cluster.local", "istio-system", "ztunnel"))
    );
    assert_eq!(world.metrics.pushes.with_label_values(&["wds"]).get(), 2);
    assert_eq!(world.metrics.xds.with_label_values(&["unknown"]).get(), 1);
    drop(ads);
    world.until(<[_]>::is_empty).await;
}

#[tokio::test]
async fn garbage_troubles_nobody_else() {
    let world = world(Some(mesh("a", ""))).await;
    let mut good = world.ztunnel().await;
    good.send(address()).await;
    assert_eq!(good.next().await.0, ["a"]);

    for addr in [world.tls, world.plaintext] {
        let mut raw = TcpStream::connect(addr).await.unwrap();
        raw.write_all(&[0xff; 4096]).await.unwrap();
    }
    // HTTP/2 with a certificate, but not gRPC: then a message beyond the limit.
    let tls = TlsConnector::from(Arc::new(world.tls_config(Some("istio-system/ztunnel"))));
    let tcp = TcpStream::connect(world.tls).await.unwrap();
    let mut raw = tls
        .connect(ServerName::try_from(HOST).unwrap(), tcp)
        .await
        .unwrap();
    raw.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut huge = world.ztunnel().await;
    let name = "x".repeat(DECODE_BYTES_MAX);
    huge.send(DeltaDiscoveryRequest {
        resource_names_subscribe: vec![name],
        ..address()
    })
    .await;
    assert_eq!(huge.receive().await.unwrap_err().code(), Code::OutOfRange);

    // A stale nonce and an unknown type on the good stream.
    let stale = DeltaDiscoveryRequest {
        response_nonce: "old".to_owned(),
        ..address()
    };
    good.send(stale).await;
    good.send(first("", "type.googleapis.com/nobody.Knows"))
        .await;
    assert_eq!(good.next().await, (vec![], vec![]));
    assert_eq!(
        world
            .metrics
            .expired_nonce
            .with_label_values(&["wds"])
            .get(),
        1
    );
    world.snapshots.send_replace(Some(mesh("a b", "")));
    assert_eq!(good.next().await.0, ["b"]);
}

#[tokio::test]
async fn class_is_reported_with_its_first_and_last_stream() {
    let mut world = world(Some(mesh("", ""))).await;
    let channel = world.channel(Some("app/wp")).await.unwrap();
    let node = || first("waypoint~10.0.0.2~wp.app~d", Cluster.type_url());
    let mut streams = Vec::new();
    for _ in 0..2 {
        let ads = ads(channel.clone()).await.unwrap();
        ads.send(node()).await;
        streams.push(ads);
    }
    world.until(|all| all.len() == 2).await;
    let class = envoy("app", "wp").class.unwrap();
    assert_eq!(
        world.interest.recv().await,
        Some(Report::Interest(class.clone(), true))
    );
    // The answer comes with the translation, not before.
    world
        .snapshots
        .send_replace(Some(crate::session::tests::proxies(
            &envoy("app", "wp"),
            "c",
            "",
            "",
            "",
        )));
    for ads in &mut streams {
        assert_eq!(ads.next().await.0, ["c"]);
    }
    drop(streams);
    assert_eq!(
        world.interest.recv().await,
        Some(Report::Interest(class, false))
    );
    assert!(world.interest.try_recv().is_err());
}
