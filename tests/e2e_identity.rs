//! Who the real binary lets in, and that strangers keep nobody out.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "e2e_identity/attacks.rs"]
mod attacks;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use proto::auth::IstioCertificateRequest;
use proto::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use proto::core::Node;
use proto::discovery::DeltaDiscoveryRequest;
use proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use testkit::daemon::{self, Daemon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

const PATIENCE: Duration = Duration::from_secs(30);
const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
/// Strangers at once; set the variable to measure more.
const STRANGERS: usize = 300;
const STRANGERS_VAR: &str = "AMBIENTD_TEST_STRANGERS";
/// What they may cost, KiB each: a TLS session and an HTTP/2 connection in a debug build.
const KIB_PER_STRANGER: usize = 400;

const MESH: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: app, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Pod
metadata: {name: z1, namespace: istio-system, uid: uid-z1, labels: {app: ztunnel}}
spec: {serviceAccountName: ztunnel, nodeName: n1, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: app, uid: uid-web}
spec: {serviceAccountName: web, nodeName: n1, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: app, uid: uid-db}
spec: {serviceAccountName: db, nodeName: n2, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.0.0.3, podIPs: [{ip: 10.0.0.3}]}
";

struct World {
    daemon: Daemon,
    dir: tempfile::TempDir,
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config");
    std::fs::create_dir(&config).unwrap();
    std::fs::write(config.join("mesh.yaml"), MESH).unwrap();
    let mut daemon = Daemon::start(&config, &dir.path().join("state"))
        .await
        .unwrap();
    daemon.wait_ready().await.unwrap();
    World { daemon, dir }
}

/// A token by the command that users have.
fn token(state_dir: &Path, account: &str, more: &[&str]) -> String {
    let (ns, sa) = account.split_once('/').unwrap();
    let output = Command::new(daemon::binary().unwrap())
        .args(["token", "--namespace", ns, "--service-account", sa])
        .arg("--state-dir")
        .arg(state_dir)
        .args(more)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let token = String::from_utf8(output.stdout).unwrap();
    assert!(!token.contains('\n'));
    token
}

impl World {
    fn token(&self, account: &str, more: &[&str]) -> String {
        token(self.daemon.state_dir(), account, more)
    }

    async fn channel(&self) -> Channel {
        let target = self.daemon.xds_anonymous().unwrap();
        target.channel().await.unwrap()
    }

    fn rss_kib(&self) -> usize {
        let status = format!("/proc/{}/status", self.daemon.id().unwrap());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let mut words = line.unwrap().split_whitespace();
        words.nth(1).unwrap().parse().unwrap()
    }
}

fn with_token<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

/// What a client with this token and this node id gets: the number of resources.
async fn subscribe(channel: Channel, token: Option<&str>, id: &str) -> Result<usize, Status> {
    let node = Node {
        id: id.to_owned(),
        ..Node::default()
    };
    subscribe_as(channel, token, node).await
}

async fn subscribe_as(channel: Channel, token: Option<&str>, node: Node) -> Result<usize, Status> {
    let (requests, receiver) = tokio::sync::mpsc::channel(4);
    let request = DeltaDiscoveryRequest {
        node: Some(node),
        type_url: ADDRESS.to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    requests.send(request).await.unwrap();
    let receiver = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let asked = async {
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let opened = client
            .delta_aggregated_resources(with_token(receiver, token))
            .await?;
        let message = opened.into_inner().message().await?;
        Ok(message.map_or(0, |response| response.resources.len()))
    };
    let found = tokio::time::timeout(PATIENCE, asked).await.expect("a hang");
    drop(requests);
    found
}

fn node(pod: &str) -> String {
    format!("ztunnel~10.0.0.1~{pod}~istio-system.svc.cluster.local")
}

#[tokio::test]
async fn tokens_of_the_command_open_what_their_accounts_may_open() {
    let world = world().await;
    let config = world.dir.path().join("config");
    let config = config.to_str().unwrap();
    let stranger = world.dir.path().join("other");
    let zt = "istio-system/ztunnel";
    let bound = world.token(zt, &["--pod", "z1", "--config-dir", config]);
    let cases = [
        (
            "bound to its pod",
            Some(bound.clone()),
            "z1.istio-system",
            Ok(()),
        ),
        (
            "unbound",
            Some(world.token(zt, &[])),
            "z9.istio-system",
            Ok(()),
        ),
        (
            "nothing",
            None,
            "z1.istio-system",
            Err(Code::Unauthenticated),
        ),
        (
            "key of another cluster",
            Some(token(&stranger, zt, &[])),
            "z1.istio-system",
            Err(Code::Unauthenticated),
        ),
        (
            "audience of another",
            Some(world.token(zt, &["--audience", "api"])),
            "z1.istio-system",
            Err(Code::Unauthenticated),
        ),
        (
            "pod that never was",
            Some(world.token(zt, &["--pod", "z1", "--pod-uid", "old"])),
            "z1.istio-system",
            Err(Code::Unauthenticated),
        ),
        (
            "node of another pod",
            Some(bound.clone()),
            "z2.istio-system",
            Err(Code::PermissionDenied),
        ),
        (
            "workload as ztunnel",
            Some(world.token("app/web", &[])),
            "z1.istio-system",
            Err(Code::PermissionDenied),
        ),
        (
            "workload as ztunnel of its namespace",
            Some(world.token("app/web", &[])),
            "web.app",
            Err(Code::PermissionDenied),
        ),
        (
            "five parts",
            Some(bound.clone()),
            "z1.istio-system~x",
            Err(Code::InvalidArgument),
        ),
    ];
    for (case, token, pod, expected) in cases {
        let id = match pod {
            "web.app" => "ztunnel~10.0.0.2~web.app~app.svc.cluster.local".to_owned(),
            pod => node(pod),
        };
        let found = subscribe(world.channel().await, token.as_deref(), &id).await;
        let code = found.map(|count| assert!(count > 0, "{case}"));
        assert_eq!(code.map_err(|status| status.code()), expected, "{case}");
    }
}

#[tokio::test]
async fn certificates_are_for_oneself_and_for_what_runs_on_ones_node() {
    let world = world().await;
    let config = world.dir.path().join("config");
    let config = config.to_str().unwrap();
    let csr = csr();
    let zt = world.token(
        "istio-system/ztunnel",
        &["--pod", "z1", "--config-dir", config],
    );
    let unbound = world.token("istio-system/ztunnel", &[]);
    let web = world.token("app/web", &["--pod", "web", "--config-dir", config]);
    let id = |account: &str| format!("spiffe://cluster.local/ns/app/sa/{account}");
    let cases = [
        ("its own", Some(&web), None, Ok("app/sa/web")),
        (
            "of a pod of its node",
            Some(&zt),
            Some(id("web")),
            Ok("app/sa/web"),
        ),
        ("of another node", Some(&zt), Some(id("db")), Err(())),
        ("without a pod", Some(&unbound), Some(id("web")), Err(())),
        ("by a workload", Some(&web), Some(id("web")), Err(())),
        ("by nobody", None, None, Err(())),
        (
            "of another trust domain",
            Some(&zt),
            Some("spiffe://other/ns/app/sa/web".to_owned()),
            Err(()),
        ),
    ];
    for (case, token, impersonated, expected) in cases {
        let metadata = impersonated.map(|id| proto::Struct {
            fields: [(
                "ImpersonatedIdentity".to_owned(),
                proto::Value {
                    kind: Some(proto::value::Kind::StringValue(id)),
                },
            )]
            .into(),
        });
        let request = IstioCertificateRequest {
            csr: csr.clone(),
            validity_duration: 3600,
            metadata,
        };
        let mut client = IstioCertificateServiceClient::new(world.channel().await);
        let request = with_token(request, token.map(String::as_str));
        let answer = tokio::time::timeout(PATIENCE, client.create_certificate(request))
            .await
            .expect("a hang");
        let found = match answer {
            Ok(response) => {
                let chain = response.into_inner().cert_chain;
                assert_eq!(chain.len(), 2, "{case}");
                Ok(identity(&chain[0]))
            }
            Err(status) => {
                assert_eq!(status.code(), Code::Unauthenticated, "{case}");
                Err(())
            }
        };
        let expected = expected.map(|path| format!("spiffe://cluster.local/ns/{path}"));
        assert_eq!(found, expected, "{case}");
    }
}

/// A request over a fresh key; what else it says is for nobody to believe.
fn csr() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["admin.example".to_owned()]).unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

fn identity(pem: &str) -> String {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    ca::peer_spiffe_id(&der).unwrap().to_string()
}

/// Begins a handshake and never finishes it, again and again.
async fn lurk(addr: SocketAddr) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(addr).await {
            let _ = stream.write_all(&[0x16, 3, 1, 2, 0, 1]).await;
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn strangers_by_the_hundreds_keep_nobody_out_and_cost_little() {
    let strangers = std::env::var(STRANGERS_VAR).map_or(STRANGERS, |n| n.parse().unwrap());
    let world = world().await;
    let token = world.token("istio-system/ztunnel", &[]);
    let good = subscribe(
        world.channel().await,
        Some(&token),
        &node("z1.istio-system"),
    )
    .await;
    assert!(good.unwrap() > 0);
    let before = world.rss_kib();
    let addr = world.daemon.addrs().xds;
    let mut lurking = tokio::task::JoinSet::new();
    let mut idle = Vec::new();
    for number in 0..strangers {
        // Half never finish a handshake, half finish it and then say nothing.
        if number % 2 == 0 {
            lurking.spawn(lurk(addr));
        } else if let Ok(channel) = world.daemon.xds_anonymous().unwrap().channel().await {
            idle.push(channel);
        }
    }
    let began = std::time::Instant::now();
    let good = subscribe(
        world.channel().await,
        Some(&token),
        &node("z1.istio-system"),
    )
    .await;
    assert!(good.unwrap() > 0);
    // None of them had to go first: who is sent away is back at once.
    let waited = began.elapsed();
    assert_eq!(lurking.len(), strangers.div_ceil(2));
    let grown = world.rss_kib().saturating_sub(before);
    eprintln!("{strangers} strangers: {grown} KiB more, a client waited {waited:?}");
    assert!(grown < strangers * KIB_PER_STRANGER + 20_000, "{grown} KiB");
    let mut world = world;
    world.daemon.alive().unwrap();
}
