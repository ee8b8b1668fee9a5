//! A real Envoy as an ingress gateway before a backend that speaks TLS and wants to know its client:
//! what a BackendTLSPolicy asks for is verified, and nothing is ever sent in plain text.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, ensure};
use common::SOON;
use http::Method;
use rcgen::CertifiedKey;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use tempfile::TempDir;
use testkit::app::App;
use testkit::daemon::Daemon;
use testkit::envoy::{AgentRequest, Envoy};
use testkit::http_client::{self, HttpResponse, send_http1};
use testkit::wait;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

const WORLD: &str = include_str!("e2e_backend_tls/world.yaml");
const GATEWAY: &str = "127.63.0.30";
const BACKEND: &str = "127.63.0.21";
/// First byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;

/// A certificate for one name, its own authority.
struct Certificate {
    pem: String,
    key: String,
    der: CertificateDer<'static>,
    key_der: PrivateKeyDer<'static>,
}

impl Certificate {
    fn of(host: &str) -> Self {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        Self {
            pem: cert.pem(),
            key: signing_key.serialize_pem(),
            der: cert.der().clone(),
            key_der: PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap(),
        }
    }
}

/// What a server saw, and a word to it.
#[derive(Default)]
struct Backend {
    /// Connections that begin with anything but TLS.
    plain: AtomicUsize,
    /// Ends every connection: those that are open are not verified again.
    hang_up: Notify,
}

/// A server that wants one client alone.
async fn backend(
    own: &Certificate,
    client: &Certificate,
    to: SocketAddr,
) -> anyhow::Result<Arc<Backend>> {
    let mut roots = RootCertStore::empty();
    roots.add(client.der.clone())?;
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
    let config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![own.der.clone()], own.key_der.clone_key())?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((BACKEND, 8443)).await?;
    let backend = Arc::new(Backend::default());
    let seen = Arc::clone(&backend);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut first = [0];
                if tcp.peek(&mut first).await? == 1 && first[0] != HANDSHAKE {
                    seen.plain.fetch_add(1, Ordering::Relaxed);
                }
                let mut outer = acceptor.accept(tcp).await?;
                let mut inner = TcpStream::connect(to).await?;
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut outer, &mut inner) => {}
                    () = seen.hang_up.notified() => {}
                }
                std::io::Result::Ok(())
            });
        }
    });
    Ok(backend)
}

async fn get(path: &str) -> anyhow::Result<HttpResponse> {
    let stream = TcpStream::connect((GATEWAY, 80)).await?;
    let request = http_client::request(Method::GET, "safe.example.com", path)?;
    send_http1(stream, request).await
}

async fn answers(path: &str, status: u16) -> anyhow::Result<HttpResponse> {
    let what = format!("{path} answers {status}");
    wait::until(&what, SOON, || async {
        let answer = get(path).await?;
        ensure!(answer.status == status, "{}: {answer:?}", answer.status);
        Ok(answer)
    })
    .await
}

/// Replaces a file at once, as who mounts directories does.
fn write(config: &Path, name: &str, object: &serde_json::Value) -> anyhow::Result<()> {
    let new = config.with_extension("new");
    std::fs::write(&new, object.to_string())?;
    std::fs::rename(&new, config.join(name)).with_context(|| format!("replacing {name}"))
}

fn authority(certificate: &Certificate) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "shop", "name": "ca"},
        "data": {"ca.crt": certificate.pem},
    })
}

fn pair(certificate: &Certificate) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "shop", "name": "own"},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": certificate.pem, "tls.key": certificate.key},
    })
}

fn policy(kind: &str) -> serde_json::Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy",
        "metadata": {"namespace": "shop", "name": "safe"},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "safe"}],
            "validation": {
                "hostname": "safe.example.com",
                "caCertificateRefs": [{"group": "", "kind": kind, "name": "ca"}],
            },
        },
    })
}

struct World {
    _dir: TempDir,
    config: PathBuf,
    daemon: Daemon,
    envoy: Envoy,
    _app: App,
    server: Certificate,
    backend: Arc<Backend>,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("ambientd-backend-tls-")?;
        let config = dir.path().join("config");
        std::fs::create_dir(&config)?;
        let server = Certificate::of("safe.example.com");
        let client = Certificate::of("door.example.com");
        std::fs::write(config.join("world.yaml"), WORLD)?;
        write(&config, "ca.yaml", &authority(&server))?;
        write(&config, "own.yaml", &pair(&client))?;
        write(&config, "policy.yaml", &policy("ConfigMap"))?;
        let daemon = Daemon::start(&config, &dir.path().join("state")).await?;
        let app = App::start("127.0.0.1:0".parse()?, "safe-0", "v1").await?;
        let backend = backend(&server, &client, app.addr()).await?;
        let request = AgentRequest {
            ns: "shop".into(),
            name: "door".into(),
            service_account: "door-istio".into(),
            ip: GATEWAY.into(),
            sotw: false,
            ttl_seconds: 3600,
        };
        let mut envoy = Box::pin(Envoy::start_gateway(&daemon, &request)).await?;
        envoy.wait_ready(SOON).await?;
        Ok(Self {
            _dir: dir,
            config,
            daemon,
            envoy,
            _app: app,
            server,
            backend,
        })
    }

    /// New connections for requests that follow, until one has this status.
    async fn anew(&self, path: &str, status: u16) -> anyhow::Result<()> {
        let what = format!("{path} answers {status} on a new connection");
        wait::until(&what, SOON, || async {
            self.backend.hang_up.notify_waiters();
            let answer = get(path).await?;
            ensure!(answer.status == status, "{}: {answer:?}", answer.status);
            Ok(())
        })
        .await
    }

    async fn verifies_backends(&self) -> anyhow::Result<()> {
        let answer = answers("/cart", 200).await?;
        ensure!(answer.json()?["pod"] == "safe-0", "{answer:?}");
        // The certificate is for another name.
        answers("/other", 503).await?;
        // Others vouch for backends now, then those of before again.
        write(
            &self.config,
            "ca.yaml",
            &authority(&Certificate::of("safe.example.com")),
        )?;
        self.anew("/cart", 503).await?;
        write(&self.config, "ca.yaml", &authority(&self.server))?;
        answers("/cart", 200).await?;
        // What cannot be applied is refused.
        write(&self.config, "policy.yaml", &policy("Secret"))?;
        answers("/cart", 503).await?;
        write(&self.config, "policy.yaml", &policy("ConfigMap"))?;
        answers("/cart", 200).await?;
        // Without the certificate of the Gateway the backend would not know who comes.
        std::fs::remove_file(self.config.join("own.yaml"))?;
        answers("/cart", 503).await?;
        ensure!(
            self.backend.plain.load(Ordering::Relaxed) == 0,
            "plain text was sent"
        );
        Ok(())
    }
}

#[test]
fn backends_are_verified_and_never_spoken_to_in_plain_text() {
    common::runtime().block_on(Box::pin(async {
        let world = Box::pin(World::start()).await.unwrap();
        let outcome = async {
            world.verifies_backends().await?;
            world.envoy.assert_no_nacks().await
        };
        let outcome = Box::pin(outcome).await;
        outcome.unwrap_or_else(|error| {
            let logs = format!("{}\n{}", world.envoy.log_tail(), world.daemon.log_tail());
            panic!("{error:#}\n{logs}");
        });
    }));
}
