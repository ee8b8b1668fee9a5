//! A waypoint with many services, one workload behind them all, and clients.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::app::App;
use testkit::daemon::Daemon;
use testkit::envoy::{AgentRequest, Envoy};
use testkit::hbone::{HBONE_PORT, HboneClient};
use testkit::http_client;
use testkit::wait;

use super::generate::CLIENTS;
use super::policy::{NS, Policy, Request};

pub(crate) const SERVICES_COUNT: usize = 200;
pub(crate) const HTTP_PORT: u16 = 80;
pub(crate) const TCP_PORT: u16 = 9000;
const APP_PORT: u16 = 8080;
const SOON: Duration = Duration::from_secs(30);
const DAY_SECONDS: u64 = 24 * 3600;
const WAYPOINT: Ipv4Addr = Ipv4Addr::new(127, 62, 0, 30);
const WORKLOAD: Ipv4Addr = Ipv4Addr::new(127, 62, 0, 11);
/// Tells when a batch is in force.
const PROBE: Ipv4Addr = Ipv4Addr::new(10, 97, 200, 1);
const DENIED: &str = "RBAC: access denied";

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Allowed,
    Denied,
    Other(String),
}

/// A token and what it says.
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) claims: Value,
}

pub(crate) struct World {
    pub(crate) tokens: Vec<Token>,
    clients: Vec<HboneClient>,
    envoy: Envoy,
    daemon: Daemon,
    config: PathBuf,
    _app: App,
    _dir: TempDir,
}

/// Name of a service.
pub(crate) fn service(index: usize) -> String {
    format!("s{index:03}")
}

/// Its address.
pub(crate) fn vip(index: usize) -> Ipv4Addr {
    let part = |value: usize| u8::try_from(value).unwrap();
    Ipv4Addr::new(10, 97, part(index / 250), part(index % 250 + 1))
}

/// Who a client is.
pub(crate) fn identity(client: usize) -> String {
    let (ns, account, _) = CLIENTS[client];
    format!("cluster.local/ns/{ns}/sa/{account}")
}

/// Where a client connects from.
pub(crate) fn source(client: usize) -> Ipv4Addr {
    let [third, fourth] = CLIENTS[client].2;
    Ipv4Addr::new(127, 62, third, fourth)
}

fn service_manifest(name: &str, vip: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NS, "labels": {"istio.io/use-waypoint": "gate"}},
        "spec": {
            "clusterIP": vip,
            "clusterIPs": [vip],
            "ipFamilies": ["IPv4"],
            "selector": {"app": "echo"},
            "ports": [
                {"name": "http", "port": HTTP_PORT, "targetPort": APP_PORT, "protocol": "TCP"},
                {"name": "tcp", "port": TCP_PORT, "targetPort": APP_PORT, "protocol": "TCP"},
            ],
        },
    })
}

fn mesh_manifests() -> Vec<Value> {
    let mut out = vec![
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": NS, "labels": {"istio.io/dataplane-mode": "ambient"}},
        }),
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "gate", "namespace": NS},
            "spec": {
                "gatewayClassName": "istio-waypoint",
                "listeners": [{"name": "mesh", "port": HBONE_PORT, "protocol": "HBONE"}],
            },
            "status": {"addresses": [{"type": "IPAddress", "value": "10.97.200.30"}]},
        }),
        // Not in the mesh: the waypoint reaches it in plain text.
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "echo-0", "namespace": NS, "labels": {"app": "echo"}},
            "spec": {"serviceAccountName": "echo", "nodeName": "a", "containers": [{"name": "app"}]},
            "status": {
                "phase": "Running", "podIP": WORKLOAD, "podIPs": [{"ip": WORKLOAD}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }),
        service_manifest("probe", PROBE),
    ];
    let services = (0..SERVICES_COUNT).map(|index| service_manifest(&service(index), vip(index)));
    out.extend(services);
    out
}

/// Tokens, and the RequestAuthentication that verifies them for the whole waypoint.
fn tokens() -> anyhow::Result<(Vec<Token>, Value)> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let signing = jsonwebtoken::EncodingKey::from_ec_der(&key.serialize_der());
    let (x, y) = key.public_key_raw()[1..].split_at(32);
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let keys = json!({"keys": [
        {"kty": "EC", "crv": "P-256", "alg": "ES256", "x": encode(x), "y": encode(y)},
    ]});
    let exp = 4_000_000_000_u64;
    let payloads = [
        json!({
            "iss": "https://one.example", "sub": "ann", "exp": exp, "aud": ["web", "api"],
            "azp": "app", "scope": "read write", "realm": {"roles": ["admin", "user"]},
        }),
        json!({
            "iss": "https://one.example", "sub": "bob", "exp": exp, "aud": "web",
            "scope": "read", "realm": {"roles": "api-admin"},
        }),
        json!({"iss": "two", "sub": "bob", "exp": exp, "aud": ["api-2"], "azp": true}),
        json!({"iss": "two", "exp": exp, "realm": {"roles": []}}),
    ];
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    let sign = |claims: Value| {
        let text = jsonwebtoken::encode(&header, &claims, &signing)?;
        anyhow::Ok(Token { text, claims })
    };
    let tokens = payloads.into_iter().map(sign).collect::<Result<_, _>>()?;
    let rule = |issuer: &str| json!({"issuer": issuer, "jwks": keys.to_string()});
    let manifest = json!({
        "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
        "metadata": {"name": "tokens", "namespace": NS},
        "spec": {
            "targetRefs": [
                {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gate"},
            ],
            "jwtRules": [rule("https://one.example"), rule("two")],
        },
    });
    Ok((tokens, manifest))
}

/// JSON documents as one YAML file.
fn documents<'a>(all: impl IntoIterator<Item = &'a Value>) -> String {
    let mut out = String::new();
    for document in all {
        let _ = write!(out, "---\n{document}\n");
    }
    out
}

impl World {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        testkit::envoy::binary()?;
        let dir = TempDir::with_prefix("ambientd-authz-")?;
        let config = dir.path().join("config");
        std::fs::create_dir_all(&config)?;
        let (tokens, authentication) = tokens()?;
        let manifests = documents(mesh_manifests().iter().chain([&authentication]));
        std::fs::write(config.join("00-mesh.yaml"), manifests)?;
        let daemon = Daemon::start(&config, &dir.path().join("state")).await?;
        let app = App::start((WORKLOAD, APP_PORT).into(), "echo-0", "v1").await?;
        let request = AgentRequest {
            ns: NS.to_owned(),
            name: "gate".to_owned(),
            service_account: "gate".to_owned(),
            ip: WAYPOINT.to_string(),
            sotw: false,
            ttl_seconds: DAY_SECONDS,
        };
        let mut envoy = Envoy::start_with_agent(&daemon, &request)
            .await
            .with_context(|| daemon.log_tail())?;
        envoy
            .wait_ready(SOON)
            .await
            .with_context(|| daemon.log_tail())?;
        let client = |(index, (ns, account, _)): (usize, &(&str, &str, _))| {
            let identity = daemon.identity(ns, account)?;
            HboneClient::new(identity.into(), Some(IpAddr::V4(source(index))))
        };
        let clients = CLIENTS.iter().enumerate().map(client);
        Ok(Self {
            tokens,
            clients: clients.collect::<anyhow::Result<_>>()?,
            envoy,
            daemon,
            config,
            _app: app,
            _dir: dir,
        })
    }

    /// Replaces all policies, and waits until they are in force.
    pub(crate) async fn apply(&self, batch: usize, policies: &[Policy]) -> anyhow::Result<()> {
        let path = format!("/batch-{batch}");
        let probe = json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "probe", "namespace": NS},
            "spec": {
                "targetRefs": [{"group": "", "kind": "Service", "name": "probe"}],
                "rules": [{"to": [{"operation": {"paths": [path]}}]}],
            },
        });
        let manifests: Vec<Value> = policies.iter().map(Policy::manifest).collect();
        // Written elsewhere and renamed, so that nobody reads half of it.
        let draft = self.config.with_file_name("draft");
        std::fs::write(&draft, documents(manifests.iter().chain([&probe])))?;
        std::fs::rename(&draft, self.config.join("50-policies.yaml"))?;
        wait::until("the policies to be in force", SOON, || async {
            // Before the first batch nothing is refused.
            ensure!(self.probe("/").await? == 403, "nothing is refused");
            let status = self.probe(&path).await?;
            ensure!(status == 200, "{path} is answered with {status}");
            Ok(())
        })
        .await
        .with_context(|| format!("{}\n{}", self.envoy.log_tail(), self.daemon.log_tail()))
    }

    async fn probe(&self, path: &str) -> anyhow::Result<u16> {
        let request = http_client::request(http::Method::GET, "probe", path)?;
        let authority = format!("{PROBE}:{HTTP_PORT}");
        let answer = self.clients[0].request(waypoint(), &authority, request);
        Ok(Box::pin(answer).await?.status.as_u16())
    }

    /// Sends a request, or opens a connection and tries whether anything comes through.
    pub(crate) async fn send(&self, service: usize, request: &Request) -> Answer {
        let connection = request.port == TCP_PORT;
        let authority = format!("{}:{}", vip(service), request.port);
        let client = &self.clients[request.client];
        let sent = client.request(waypoint(), &authority, self.http(request));
        match Box::pin(sent).await {
            Ok(answer) if answer.status == 200 => Answer::Allowed,
            Ok(answer) if answer.status == 403 && answer.text() == DENIED => Answer::Denied,
            Ok(answer) => Answer::Other(format!("{}: {}", answer.status, answer.text())),
            // What is refused at its first byte is closed without an answer.
            Err(_) if connection => Answer::Denied,
            Err(error) => Answer::Other(error.to_string()),
        }
    }

    fn http(&self, request: &Request) -> http::Request<Full<Bytes>> {
        let mut builder = http::Request::builder()
            .method(request.method.as_str())
            .uri(&request.target)
            .header(http::header::HOST, &request.host);
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        if let Some(token) = request.token {
            let bearer = format!("Bearer {}", self.tokens[token].text);
            builder = builder.header(http::header::AUTHORIZATION, bearer);
        }
        builder.body(Full::default()).unwrap()
    }
}

fn waypoint() -> SocketAddr {
    SocketAddr::new(WAYPOINT.into(), HBONE_PORT)
}
