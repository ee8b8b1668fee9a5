#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod fake_ca;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use http::Uri;
use hyper_util::rt::TokioIo;
use model::SpiffeId;
use proto::discovery::{DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse};
use proto::secret::secret_discovery_service_client::SecretDiscoveryServiceClient;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

use crate::bundle::Bundle;
use crate::certificate::{CertificateError, Pending};
use crate::metrics::Metrics;
use crate::options::CaOptions;
use crate::state::{Secrets, SecretsRx};
use crate::{renewal, sds};
use fake_ca::{FakeCa, Root};

const LIMIT: Duration = Duration::from_secs(10);

fn id() -> SpiffeId {
    SpiffeId::new("cluster.local", "app", "wp")
}

/// The agent without Envoy: roots, certificates, secret discovery.
struct World {
    ca: FakeCa,
    secrets: SecretsRx,
    metrics: Arc<Metrics>,
    socket: PathBuf,
    dir: TempDir,
    _tasks: JoinSet<()>,
}

impl World {
    async fn start(root: Root, ttl: Duration) -> Self {
        let dir = TempDir::new().unwrap();
        let ca = FakeCa::start(root, ttl).await;
        let options = CaOptions {
            host: ca.addr.ip().to_string(),
            port: ca.addr.port(),
            server_name: "istiod.istio-system.svc".into(),
            cluster_id: "Kubernetes".into(),
            root_file: dir.path().join("root.pem"),
            token_file: dir.path().join("token"),
            ttl,
        };
        let (socket, listener) = sds::listen(dir.path()).unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let (tx, secrets) = watch::channel(Secrets::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(renewal::keep_roots(options.clone(), tx.clone()));
        tasks.spawn(renewal::keep_certificate(
            options,
            id(),
            tx,
            Arc::clone(&metrics),
        ));
        let served = sds::serve(listener, secrets.clone(), Arc::clone(&metrics));
        tasks.spawn(async move { served.await.unwrap() });
        Self {
            ca,
            secrets,
            metrics,
            socket,
            dir,
            _tasks: tasks,
        }
    }

    fn write(&self, name: &str, text: &str) {
        let draft = self.dir.path().join("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, self.dir.path().join(name)).unwrap();
    }

    async fn wait(&self, what: &str, test: impl FnMut(&Secrets) -> bool) -> Secrets {
        let mut secrets = self.secrets.clone();
        let found = tokio::time::timeout(LIMIT, secrets.wait_for(test)).await;
        found
            .unwrap_or_else(|_| panic!("in vain: {what}"))
            .unwrap()
            .clone()
    }
}

/// A stream as Envoy opens it: acknowledges what it takes.
struct Sds {
    name: &'static str,
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl Sds {
    async fn open(world: &World, name: &'static str) -> Self {
        let (requests, outbound) = mpsc::channel(4);
        let mut client = client(world).await;
        let first = Self::request(name, "");
        requests.send(first).await.unwrap();
        let responses = client
            .stream_secrets(ReceiverStream::new(outbound))
            .await
            .unwrap()
            .into_inner();
        Self {
            name,
            requests,
            responses,
        }
    }

    fn request(name: &str, nonce: &str) -> DiscoveryRequest {
        DiscoveryRequest {
            resource_names: vec![name.to_owned()],
            type_url: proto::type_url::SECRET.to_owned(),
            response_nonce: nonce.to_owned(),
            ..Default::default()
        }
    }

    /// The next secret as JSON.
    async fn next(&mut self) -> serde_json::Value {
        let message = tokio::time::timeout(LIMIT, self.responses.message()).await;
        let response = message.expect("a secret in time").unwrap().unwrap();
        assert_eq!(response.resources.len(), 1);
        let ack = Self::request(self.name, &response.nonce);
        self.requests.send(ack).await.unwrap();
        proto::json::to_json(proto::type_url::SECRET, &response.resources[0].value).unwrap()
    }
}

struct Connector(PathBuf);

impl Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { Ok(TokioIo::new(UnixStream::connect(path).await?)) })
    }
}

async fn client(world: &World) -> SecretDiscoveryServiceClient<Channel> {
    let endpoint = Endpoint::from_static("http://sds");
    let connector = Connector(world.socket.clone());
    SecretDiscoveryServiceClient::new(endpoint.connect_with_connector(connector).await.unwrap())
}

#[tokio::test]
async fn envoy_waits_for_the_first_certificate_and_is_sent_every_renewal() {
    let world = World::start(Root::new("old"), Duration::from_secs(2)).await;
    let mut default = Sds::open(&world, "default").await;
    let mut roots = Sds::open(&world, "ROOTCA").await;
    let failed = world.wait("a reason", |s| s.failure.is_some()).await;
    assert!(failed.failure.unwrap().starts_with("no roots in "));

    world.write("root.pem", &world.ca.root().pem);
    let failed = |s: &Secrets| s.failure.as_ref().is_some_and(|f| f.contains("token"));
    world.wait("the token to be missed", failed).await;
    world.write("token", "first\n");
    let mut seen = Vec::new();
    for _ in 0..3 {
        let secret = default.next().await;
        assert_eq!(secret["name"], "default");
        let key = secret["tlsCertificate"]["privateKey"]["inlineString"].to_string();
        assert!(key.contains("PRIVATE KEY") && !seen.contains(&key));
        seen.push(key);
        world.write("token", "second\n");
    }
    let secret = roots.next().await;
    let held = secret["validationContext"]["trustedCa"]["inlineString"]
        .as_str()
        .unwrap();
    assert_eq!(
        Bundle::parse(held.as_bytes()),
        Bundle::parse(world.ca.root().pem.as_bytes())
    );
    assert_eq!(world.ca.tokens()[..2], ["Bearer first", "Bearer second"]);
    assert!(world.metrics.renewals.get() >= 3 && world.metrics.failures.get() >= 2);
    let text = world
        .metrics
        .text(&world.secrets.borrow(), SystemTime::now());
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.contains("istio_agent_cert_expiry_seconds{resource_name=\"default\"} "),
        "{text}"
    );
}

#[tokio::test]
async fn over_a_rotation_of_the_root_both_sides_are_trusted_at_any_time() {
    let (old, new) = (Root::new("old"), Root::new("new"));
    let world = World::start(old.clone(), Duration::from_secs(3600)).await;
    world.write("token", "t");
    world.write("root.pem", &old.pem);
    let first = world
        .wait("a certificate", |s| s.credentials.is_some())
        .await;
    let old_bundle = Bundle::parse(old.pem.as_bytes()).unwrap();
    let both = Bundle::parse(format!("{}{}", new.pem, old.pem).as_bytes()).unwrap();
    let mut roots = Sds::open(&world, "ROOTCA").await;
    assert_eq!(bundle_of(&roots.next().await), old_bundle);

    // Prepared: the file gains a root, the certificate stays.
    world.write("root.pem", &format!("{}{}", old.pem, new.pem));
    assert_eq!(bundle_of(&roots.next().await), both);
    // Switched: the authority signs with the new root.
    world.ca.switch(new.clone(), &old);
    // Finished: the file loses the old one, which vouched for the certificate in use.
    world.write("root.pem", &new.pem);
    let chain = first.credentials.unwrap().chain_pem.clone();
    let renewed = |s: &Secrets| s.credentials.as_ref().is_some_and(|c| c.chain_pem != chain);
    let renewed = world.wait("a renewal at once", renewed).await;
    let new_bundle = Bundle::parse(new.pem.as_bytes()).unwrap();
    assert!(
        renewed
            .credentials
            .unwrap()
            .verify(&new_bundle, SystemTime::now())
            .is_ok()
    );
}

fn bundle_of(secret: &serde_json::Value) -> Bundle {
    let text = &secret["validationContext"]["trustedCa"]["inlineString"];
    Bundle::parse(text.as_str().unwrap().as_bytes()).unwrap()
}

#[tokio::test]
async fn only_state_of_the_world_streams_are_served() {
    let world = World::start(Root::new("old"), Duration::from_secs(60)).await;
    let mut client = client(&world).await;
    let delta = tokio_stream::iter([DeltaDiscoveryRequest::default()]);
    let refused = client.delta_secrets(delta).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unimplemented);
    let refused = client
        .fetch_secrets(DiscoveryRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unimplemented);
}

#[test]
fn the_socket_is_open_to_nobody_else_even_where_the_directory_was() {
    use std::os::unix::fs::PermissionsExt as _;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _guard = runtime.enter();
    let dir = TempDir::new().unwrap();
    let sub = dir.path().join("sds");
    std::fs::create_dir(&sub).unwrap();
    std::fs::set_permissions(&sub, std::fs::Permissions::from_mode(0o777)).unwrap();
    std::fs::write(sub.join("socket"), "left behind").unwrap();
    let (path, _listener) = sds::listen(dir.path()).unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&sub), mode(&path)), (0o700, 0o600));
    let long = dir.path().join("x".repeat(120));
    assert!(matches!(
        sds::listen(&long),
        Err(crate::AgentError::SocketPath { .. })
    ));
}

#[test]
fn a_certificate_that_is_not_the_one_asked_for_is_refused() {
    type Change = fn(&mut rcgen::CertificateParams);
    let root = Root::new("root");
    let other = Root::new("other");
    let known = Bundle::parse(root.pem.as_bytes()).unwrap();
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let outcome = |signer: &Root, named: &[&str], change: Change| {
        let pending = Pending::new(&id()).unwrap();
        let leaf = signer.sign(&pending.csr_pem, hour, change);
        let answer: Vec<String> = std::iter::once(leaf)
            .chain(named.iter().map(|&pem| pem.to_owned()))
            .collect();
        pending
            .accept(&answer, &id(), &known, now)
            .map(|c| c.roots.len())
    };
    assert_eq!(outcome(&root, &[&root.pem], |_| {}), Ok(1));
    let two = format!("{}{}", root.pem, other.pem);
    assert_eq!(outcome(&root, &[&two], |_| {}), Ok(2));
    assert_eq!(
        outcome(&root, &[], |_| {}),
        Err(CertificateError::Elements(1))
    );
    let identity = Err(CertificateError::Identity(id()));
    let elsewhere: Change = |params| {
        let other = "spiffe://cluster.local/ns/app/sa/other".to_owned();
        params.subject_alt_names = vec![rcgen::SanType::URI(other.try_into().unwrap())];
    };
    assert_eq!(outcome(&root, &[&root.pem], elsewhere), identity);
    let more: Change = |params| {
        let more = rcgen::SanType::DnsName("wp.test".to_owned().try_into().unwrap());
        params.subject_alt_names.push(more);
    };
    assert_eq!(outcome(&root, &[&root.pem], more), identity);
    let server_only: Change = |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    };
    assert_eq!(
        outcome(&root, &[&root.pem], server_only),
        Err(CertificateError::Usage)
    );
    for refused in [
        outcome(&other, &[&root.pem], |_| {}),
        outcome(&root, &[&root.pem], |params| {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }),
    ] {
        assert!(
            matches!(refused, Err(CertificateError::Chain(_))),
            "{refused:?}"
        );
    }
    assert!(matches!(
        outcome(&root, &["no PEM"], |_| {}),
        Err(CertificateError::Roots(_))
    ));
    let pending = Pending::new(&id()).unwrap();
    let foreign = root.sign(&Pending::new(&id()).unwrap().csr_pem, hour, |_| {});
    let refused = pending.accept(&[foreign, root.pem.clone()], &id(), &known, now);
    assert_eq!(refused.err(), Some(CertificateError::Key));
}

#[test]
fn bundles_are_sets_of_certificates_and_nothing_else() {
    let (a, b) = (Root::new("a").pem, Root::new("b").pem);
    let parse = |text: &str| Bundle::parse(text.as_bytes());
    let ab = parse(&format!("{a}{b}")).unwrap();
    assert_eq!(parse(&format!("{b}\n{a}{a}")), Ok(ab.clone()));
    assert_eq!(parse(&a).unwrap().union(&parse(&b).unwrap()), ab);
    assert_eq!(parse(&ab.to_pem()), Ok(ab.clone()));
    assert_eq!((ab.len(), ab.store().len()), (2, 2));
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    for bad in ["", "text", &key, &format!("{a}{key}"), &a[..a.len() / 2]] {
        assert!(parse(bad).is_err(), "{bad}");
    }
    assert!(Bundle::parse(&vec![b'x'; 2 << 20]).is_err());
}
