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
use tonic::Code;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};

use super::*;
use crate::client::{Client, NodeError};
use crate::connections::SyncState;
use crate::server::{Limits, ServerConfig, ServerError, serve, tls_config};
use crate::session::tests::{envoy, mesh, ztunnel};

mod attacks;

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
async fn token_without_a_certificate_is_enough_and_neither_is_nothing() {
    let world = world(Some(mesh("a", ""))).await;
    let channel = world.channel(None).await.unwrap();
    let good = world.token("istio-system/ztunnel", Some("ztunnel-x"), "istio-ca");
    let other_pod = world.token("istio-system/ztunnel", Some("ztunnel-y"), "istio-ca");
    let other_audience = world.token("istio-system/ztunnel", None, "api");
    let app = world.token("app/ztunnel", None, "istio-ca");
    let bearer = |token: &str| format!("Bearer {token}");
    let [good, other_pod, other_audience, app] =
        [good, other_pod, other_audience, app].map(|token| bearer(&token));
    let lower = good.replace("Bearer", "bearer");
    let local = [
        ("authorization", good.as_str()),
        ("clusterid", "Kubernetes"),
    ];
    let foreign = [("authorization", good.as_str()), ("clusterid", "other")];
    let cases: [(&str, Headers<'_>, Result<(), Code>); 10] = [
        ("token", &[("authorization", &good)], Ok(())),
        ("token and cluster", &local, Ok(())),
        ("nothing", &[], Err(Code::Unauthenticated)),
        (
            "lower case",
            &[("authorization", &lower)],
            Err(Code::Unauthenticated),
        ),
        (
            "basic",
            &[("authorization", "Basic eDp5")],
            Err(Code::Unauthenticated),
        ),
        (
            "garbage",
            &[("authorization", "Bearer a.b.c")],
            Err(Code::Unauthenticated),
        ),
        (
            "audience",
            &[("authorization", &other_audience)],
            Err(Code::Unauthenticated),
        ),
        ("unknown cluster", &foreign, Err(Code::Unauthenticated)),
        (
            "other pod",
            &[("authorization", &other_pod)],
            Err(Code::PermissionDenied),
        ),
        (
            "other namespace",
            &[("authorization", &app)],
            Err(Code::PermissionDenied),
        ),
    ];
    for (case, headers, expected) in cases {
        let found = match with_headers(channel.clone(), headers).await {
            // Who is not known learns so before the headers of the response.
            Err(status) => {
                assert_eq!(status.code(), Code::Unauthenticated, "{case}: {status}");
                assert_eq!(status.message(), "authentication failure", "{case}");
                Err(status.code())
            }
            Ok(mut ads) => {
                ads.send(address()).await;
                ads.receive()
                    .await
                    .map(|_| ())
                    .map_err(|status| status.code())
            }
        };
        assert_eq!(found, expected, "{case}");
    }
    let refused = |reason| {
        world
            .metrics
            .identity_refused
            .with_label_values(&[reason])
            .get()
    };
    assert_eq!((refused("pod"), refused("namespace")), (1, 1));
}

/// Sends bytes of a handshake that never goes on.
async fn dawdle(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
    stream
}

#[tokio::test]
async fn half_open_handshakes_keep_nobody_out_and_are_bounded() {
    let limits = Limits {
        guests_max: 8,
        ..Limits::default()
    };
    let world = limited(Some(mesh("a", "")), limits).await;
    let mut known = world.ztunnel().await;
    known.send(address()).await;
    assert_eq!(known.next().await.0, ["a"]);
    let mut slow = Vec::new();
    for _ in 0..100 {
        slow.push(dawdle(world.tls).await);
    }
    let mut late = world.ztunnel().await;
    late.send(address()).await;
    assert_eq!(late.next().await.0, ["a"]);
    // Those who came first were sent away, and those who had proven themselves were not.
    let closed = tokio::time::timeout(PATIENCE, slow[0].read(&mut [0; 64])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    world.snapshots.send_replace(Some(mesh("a b", "")));
    assert_eq!(known.next().await.0, ["b"]);
    let evicted = world
        .metrics
        .connections_closed
        .with_label_values(&["evicted"]);
    assert!(evicted.get() >= 90, "{}", evicted.get());
}

#[tokio::test]
async fn handshake_and_idle_time_are_bounded() {
    let limits = Limits {
        handshake: Duration::from_secs(3),
        idle: Duration::from_secs(1),
        ..Limits::default()
    };
    let world = limited(Some(mesh("a", "")), limits).await;
    let mut slow = dawdle(world.tls).await;
    let closed = tokio::time::timeout(PATIENCE, slow.read(&mut [0; 64])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    // One with a stream stays; one without is asked to go.
    let mut busy = world.ztunnel().await;
    busy.send(address()).await;
    assert_eq!(busy.next().await.0, ["a"]);
    let _idle = world.channel(None).await.unwrap();
    let closed = |reason| {
        world
            .metrics
            .connections_closed
            .with_label_values(&[reason])
            .get()
    };
    let wait = async {
        while closed("idle") == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("nobody is asked to go");
    world.snapshots.send_replace(Some(mesh("a b", "")));
    assert_eq!(busy.next().await.0, ["b"]);
    assert_eq!((closed("handshake_timeout"), closed("idle")), (1, 1));
    assert_eq!(world.connections.len(), 1);
}

#[tokio::test]
async fn old_connection_is_asked_to_go_and_its_streams_live_for_the_grace_only() {
    let limits = Limits {
        age_max: Duration::from_secs(2),
        grace: Duration::from_millis(500),
        ..Limits::default()
    };
    let world = limited(Some(mesh("a", "")), limits).await;
    let mut ads = world.ztunnel().await;
    ads.send(address()).await;
    assert_eq!(ads.next().await.0, ["a"]);
    assert!(ads.receive().await.is_err());
    world.until(<[_]>::is_empty).await;
    let closed = world.metrics.connections_closed.with_label_values(&["age"]);
    assert_eq!(closed.get(), 1);
    let mut again = world.ztunnel().await;
    again.send(address()).await;
    assert_eq!(again.next().await.0, ["a"]);
}

#[tokio::test]
async fn claims_that_do_not_match_are_refused() {
    let world = world(Some(mesh("a", ""))).await;
    let node = |id: &str| first(id, Address.type_url());
    let long = format!("ztunnel~{}", "x".repeat(2000));
    let no_node = DeltaDiscoveryRequest {
        node: None,
        ..address()
    };
    let cases = [
        (
            "no node",
            "istio-system/ztunnel",
            no_node,
            Code::InvalidArgument,
        ),
        (
            "no id",
            "istio-system/ztunnel",
            node(""),
            Code::InvalidArgument,
        ),
        (
            "garbage",
            "istio-system/ztunnel",
            node("\u{1}~~~\u{7f}~"),
            Code::InvalidArgument,
        ),
        (
            "long id",
            "istio-system/ztunnel",
            node(&long),
            Code::InvalidArgument,
        ),
        (
            "not ztunnel",
            "istio-system/app",
            address(),
            Code::PermissionDenied,
        ),
        (
            "other namespace",
            "app/ztunnel",
            address(),
            Code::PermissionDenied,
        ),
        (
            "waypoint elsewhere",
            "app/wp",
            node("waypoint~1.1.1.1~wp.b~d"),
            Code::PermissionDenied,
        ),
    ];
    let cases_count = cases.len() as u64;
    for (case, account, request, code) in cases {
        let mut ads = ads(world.channel(Some(account)).await.unwrap())
            .await
            .unwrap();
        ads.send(request).await;
        assert_eq!(ads.receive().await.unwrap_err().code(), code, "{case}");
    }
    assert!(world.connections.is_empty());
    let refused = |code| world.metrics.refused.with_label_values(&[code]).get();
    assert_eq!(
        refused("InvalidArgument") + refused("PermissionDenied"),
        cases_count
    );
    assert!(refused("PermissionDenied") >= 3);
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
async fn streams_are_refused_before_the_first_snapshot_and_beyond_the_limit() {
    let world = world(None).await;
    let channel = world.channel(Some("istio-system/ztunnel")).await.unwrap();
    assert_eq!(
        ads(channel.clone()).await.err().unwrap().code(),
        Code::Unavailable
    );
    world.snapshots.send_replace(Some(mesh("", "")));
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(ads(channel.clone()).await.unwrap());
    }
    assert_eq!(
        ads(channel.clone()).await.err().unwrap().code(),
        Code::ResourceExhausted
    );
    open[0].send(address()).await;
    assert_eq!(open[0].next().await, (vec![], vec![]));
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

#[tokio::test]
async fn plaintext_is_for_the_loopback_only_and_needs_no_certificate() {
    let world = world(Some(mesh("a", ""))).await;
    let mut ads = ads(connect(Connector(world.plaintext, None)).await.unwrap())
        .await
        .unwrap();
    ads.send(address()).await;
    assert_eq!(ads.next().await.0, ["a"]);
    assert_eq!(world.connections.list()[0].peer.identity, None);

    let open = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let (_snapshots, snapshots) = watch::channel(None);
    let service = AdsService::new(Deps {
        snapshots,
        node_reader: Arc::new(Reader),
        interest: mpsc::channel(1).0,
        connections: Arc::default(),
        metrics: Arc::clone(&world.metrics),
        authenticator: authenticator(&world.issuer, &world.ahead),
        identity: IdentityPolicy::default(),
        cache: Arc::default(),
        streams_max: 1,
        streams_per_second: 1,
        shutdown: CancellationToken::new(),
    });
    let config = ServerConfig {
        tls: None,
        plaintext: Some((open, Routes::new(service))),
        limits: Limits::default(),
    };
    let result = serve(config, Arc::clone(&world.metrics), CancellationToken::new()).await;
    assert!(
        matches!(result, Err(ServerError::NotLoopback(_))),
        "{result:?}"
    );
}

#[tokio::test]
async fn shutdown_ends_streams_with_unavailable_and_then_the_server() {
    let world = world(Some(mesh("a", ""))).await;
    let mut ads = world.ztunnel().await;
    ads.send(address()).await;
    assert_eq!(ads.next().await.0, ["a"]);
    world.shutdown.cancel();
    assert_eq!(ads.receive().await.unwrap_err().code(), Code::Unavailable);
    drop(ads);
    let ended = tokio::time::timeout(PATIENCE, world.server).await;
    ended.expect("the server does not end").unwrap().unwrap();
}

/// A mesh of one resource of this many bytes.
fn heavy(bytes: usize) -> Arc<Snapshot> {
    let payload = vec![7; bytes];
    let resource = EncodedResource::new("heavy".into(), Address.type_url(), &payload, vec![]);
    Arc::new(Snapshot {
        addresses: [resource].into_iter().collect(),
        ..Snapshot::default()
    })
}

#[tokio::test]
async fn responses_go_out_up_to_the_limit_and_beyond_it_the_stream_says_so() {
    const ENVELOPE_BYTES: usize = 1024;
    let world = world(Some(heavy(ENCODE_BYTES_MAX - ENVELOPE_BYTES))).await;
    let mut ads = world.ztunnel().await;
    ads.send(address()).await;
    assert_eq!(ads.next().await.0, ["heavy"]);
    world
        .snapshots
        .send_replace(Some(heavy(ENCODE_BYTES_MAX + 1)));
    assert_eq!(
        ads.receive().await.unwrap_err().code(),
        Code::ResourceExhausted
    );
    let failed = world.metrics.pushes.with_label_values(&["wds_senderr"]);
    assert_eq!(failed.get(), 1);
    // Nobody else pays for it.
    world.snapshots.send_replace(Some(mesh("a", "")));
    let mut other = world.ztunnel().await;
    other.send(address()).await;
    assert_eq!(other.next().await.0, ["a"]);
}

/// A service that answers when it is let.
#[derive(Clone, Default)]
struct Slow {
    asked: Arc<tokio::sync::Notify>,
    let_go: Arc<tokio::sync::Notify>,
}

impl NamedService for Slow {
    const NAME: &'static str = "test.Slow";
}

impl Service<http::Request<Body>> for Slow {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let slow = self.clone();
        Box::pin(async move {
            slow.asked.notify_one();
            slow.let_go.notified().await;
            Ok(Status::already_exists("answered").into_http())
        })
    }
}

#[tokio::test]
async fn a_request_that_is_being_answered_at_the_end_gets_its_answer() {
    let world = world(Some(mesh("a", ""))).await;
    let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = open.local_addr().unwrap();
    let slow = Slow::default();
    let config = ServerConfig {
        tls: None,
        plaintext: Some((open, Routes::new(slow.clone()))),
        limits: Limits::default(),
    };
    let shutdown = CancellationToken::new();
    let server = serve(config, Arc::clone(&world.metrics), shutdown.clone());
    let server = tokio::spawn(server);
    let mut channel = connect(Connector(addr, None)).await.unwrap();
    let asking = tokio::spawn(async move {
        std::future::poll_fn(|cx| channel.poll_ready(cx))
            .await
            .unwrap();
        let request = http::Request::post("http://istiod/test.Slow/Ask");
        let answer = channel.call(request.body(Body::empty()).unwrap()).await;
        answer.unwrap().headers()["grpc-status"].clone()
    });
    let asked = tokio::time::timeout(PATIENCE, slow.asked.notified()).await;
    asked.expect("nobody asks");
    shutdown.cancel();
    // Longer than streams have that are told to end.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(TcpStream::connect(addr).await.is_err());
    assert!(!server.is_finished());
    slow.let_go.notify_one();
    let code = tokio::time::timeout(PATIENCE, asking).await.unwrap();
    assert_eq!(code.unwrap(), "6");
    let ended = tokio::time::timeout(PATIENCE, server).await;
    ended.expect("the server does not end").unwrap().unwrap();
}
