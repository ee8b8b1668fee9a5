//! A real Envoy as an ingress gateway before a backend that speaks TLS and wants to know its client:
//! what a BackendTLSPolicy asks for is verified, and nothing is ever sent in plain text.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;
#[path = "common/door.rs"]
mod door;

use std::sync::Arc;

use anyhow::ensure;
use common::SOON;
use door::{Certificate, Door, TlsServer};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use serde_json::json;
use testkit::app::App;
use testkit::http_client::HttpResponse;
use testkit::wait;

const WORLD: &str = include_str!("e2e_backend_tls/world.yaml");
const GATEWAY: &str = "127.63.0.30";
const BACKEND: &str = "127.63.0.21";

fn authority(certificate: &Certificate) -> String {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "shop", "name": "ca"},
        "data": {"ca.crt": certificate.pem},
    });
    map.to_string()
}

fn policy(kind: &str) -> String {
    let policy = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy",
        "metadata": {"namespace": "shop", "name": "safe"},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "safe"}],
            "validation": {
                "hostname": "safe.example.com",
                "caCertificateRefs": [{"group": "", "kind": kind, "name": "ca"}],
            },
        },
    });
    policy.to_string()
}

struct World {
    door: Door,
    _app: App,
    server: Certificate,
    /// Wants one client alone.
    backend: Arc<TlsServer>,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let server = Certificate::of("safe.example.com");
        let client = Certificate::of("door.example.com");
        let files = [
            ("world.yaml", WORLD.to_owned()),
            ("ca.yaml", authority(&server)),
            ("own.yaml", client.secret("own").to_string()),
            ("policy.yaml", policy("ConfigMap")),
        ];
        let door = Box::pin(Door::start(GATEWAY, &files)).await?;
        let app = App::start("127.0.0.1:0".parse()?, "safe-0", "v1").await?;
        let (chain, key) = server.chain();
        let config = ServerConfig::builder()
            .with_client_cert_verifier(WebPkiClientVerifier::builder(client.roots()?).build()?)
            .with_single_cert(chain, key)?;
        let backend = TlsServer::start((BACKEND, 8443), config, app.addr()).await?;
        Ok(Self {
            door,
            _app: app,
            server,
            backend,
        })
    }

    async fn get(&self, path: &str, status: u16) -> anyhow::Result<HttpResponse> {
        let answer = self.door.get(80, "safe.example.com", path).await?;
        ensure!(answer.status == status, "{}: {answer:?}", answer.status);
        Ok(answer)
    }

    async fn answers(&self, path: &str, status: u16) -> anyhow::Result<HttpResponse> {
        let what = format!("{path} answers {status}");
        wait::until(&what, SOON, || self.get(path, status)).await
    }

    /// New connections for requests that follow, until one has this status.
    async fn anew(&self, path: &str, status: u16) -> anyhow::Result<HttpResponse> {
        let what = format!("{path} answers {status} on a new connection");
        wait::until(&what, SOON, || {
            self.backend.hang_up();
            self.get(path, status)
        })
        .await
    }

    async fn verifies_backends(&self) -> anyhow::Result<()> {
        let answer = self.answers("/cart", 200).await?;
        ensure!(answer.json()?["pod"] == "safe-0", "{answer:?}");
        // The certificate is for another name.
        self.answers("/other", 503).await?;
        // Others vouch for backends now, then those of before again.
        let other = authority(&Certificate::of("safe.example.com"));
        self.door.write("ca.yaml", &other)?;
        self.anew("/cart", 503).await?;
        self.door.write("ca.yaml", &authority(&self.server))?;
        self.answers("/cart", 200).await?;
        // What cannot be applied is refused.
        self.door.write("policy.yaml", &policy("Secret"))?;
        self.answers("/cart", 503).await?;
        self.door.write("policy.yaml", &policy("ConfigMap"))?;
        self.answers("/cart", 200).await?;
        // Without the certificate of the Gateway the backend would not know who comes.
        self.door.remove("own.yaml")?;
        self.answers("/cart", 503).await?;
        ensure!(self.backend.plain_count() == 0, "plain text was sent");
        Ok(())
    }
}

#[test]
fn backends_are_verified_and_never_spoken_to_in_plain_text() {
    common::runtime().block_on(Box::pin(async {
        let world = Box::pin(World::start()).await.unwrap();
        let outcome = Box::pin(world.verifies_backends()).await;
        world.door.conclude(outcome).await;
    }));
}
