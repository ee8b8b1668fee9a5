//! A real ztunnel on workload discovery: becomes ready, holds what `render` says, follows
//! edits, and receives nothing again after a restart of the control plane.
//!
//! Runs when `ZTUNNEL_BIN` names a ztunnel binary. It binds ztunnel's fixed ports
//! (15000–15021) on this host. ztunnel presents no client certificate and this version
//! authenticates by nothing else, so a relay ends its TLS before the loopback listener.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use testkit::daemon::Daemon;
use testkit::{http_client, wait};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const LIMIT: Duration = Duration::from_secs(30);
const ADMIN: u16 = 15000;
const READY: u16 = 15021;

const WORLD: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: app, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: app, labels: {app: client}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: client, nodeName: node-a, containers: []}
status: {phase: Running, podIPs: [{ip: 10.77.0.10}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: app, labels: {app: server}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: server, nodeName: node-b, containers: []}
status: {phase: Running, podIPs: [{ip: 10.77.0.20}, {ip: "fd00::20"}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: app}
spec: {clusterIP: 10.96.0.20, clusterIPs: [10.96.0.20], selector: {app: server}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: app}
spec: {mtls: {mode: STRICT}}
"#;

const POLICY: &str = r"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-client, namespace: app}
spec:
  selector: {matchLabels: {app: server}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/app/sa/client], notIpBlocks: [10.9.0.0/16]}}]
    to: [{operation: {ports: ['8080']}}]
";

/// A ztunnel of its own pod, without redirection: all that discovery needs.
struct Ztunnel(Child);

impl Ztunnel {
    fn start(binary: &Path, control_plane: SocketAddr, root: &Path) -> anyhow::Result<Self> {
        let url = format!("https://{control_plane}");
        let child = Command::new(binary)
            .args(["proxy", "ztunnel"])
            .env_clear()
            .env("PROXY_MODE", "dedicated")
            .env("PROXY_WORKLOAD_INFO", "app/client/client")
            .env("XDS_ADDRESS", &url)
            .env("CA_ADDRESS", &url)
            .env("XDS_ROOT_CA", root)
            .env("CA_ROOT_CA", root)
            .env("AUTH_TOKEN", "none")
            .env("NODE_NAME", "node-a")
            .env("INSTANCE_IP", "127.0.0.1")
            .env("POD_NAME", "ztunnel-a")
            .env("POD_NAMESPACE", "istio-system")
            .env("IPV6_ENABLED", "false")
            .env("ENABLE_ORIG_SRC", "false")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("ZTUNNEL_BIN {}", binary.display()))?;
        Ok(Self(child))
    }

    async fn wait_ready(&self) -> anyhow::Result<()> {
        wait::until("ztunnel to be ready", LIMIT, || async {
            let answer = http_client::get(local(READY), "/healthz/ready").await?;
            anyhow::ensure!(answer.status == 200, "{}", answer.text());
            Ok(())
        })
        .await
    }

    /// Resource names of everything it holds, as the control plane names them.
    async fn names() -> anyhow::Result<BTreeSet<String>> {
        let dump = http_client::get(local(ADMIN), "/config_dump")
            .await?
            .json()?;
        let list = |key: &str| dump[key].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let workloads = list("workloads").into_iter().map(|one| text(&one["uid"]));
        let services = list("services")
            .into_iter()
            .map(|one| scoped(&one, "hostname"));
        let policies = list("policies").into_iter().map(|one| scoped(&one, "name"));
        Ok(workloads.chain(services).chain(policies).collect())
    }
}

impl Drop for Ztunnel {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn scoped(value: &Value, name: &str) -> String {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text("namespace"), text(name))
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Ends TLS with a certificate of the development CA and passes the bytes on.
async fn relay(daemon: &Daemon) -> anyhow::Result<SocketAddr> {
    let issued = daemon.ca()?.issue_server(
        &["localhost"],
        &[IpAddr::V4(Ipv4Addr::LOCALHOST)],
        SystemTime::now(),
    )?;
    let chain = CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(local(0)).await?;
    let addr = listener.local_addr()?;
    let target = daemon.addrs().xds_plaintext;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut inner = TcpStream::connect(target).await?;
                let mut outer = acceptor.accept(stream).await?;
                tokio::io::copy_bidirectional(&mut outer, &mut inner).await
            });
        }
    });
    Ok(addr)
}

/// Names that `render` says a ztunnel must hold.
fn rendered(config_dir: &Path) -> anyhow::Result<BTreeSet<String>> {
    let all = common::ambientd_json(&["render", "--for", "ztunnel"], config_dir)?;
    let types = all.as_object().context("render prints an object")?;
    Ok(types
        .values()
        .filter_map(Value::as_object)
        .flat_map(|one| one.keys().cloned())
        .collect())
}

async fn wait_holds(config_dir: &Path) -> anyhow::Result<()> {
    let want = rendered(config_dir)?;
    wait::until(&format!("ztunnel to hold {want:?}"), LIMIT, || async {
        let held = Ztunnel::names().await?;
        anyhow::ensure!(held == want, "it holds {held:?}");
        Ok(())
    })
    .await
}

async fn resources_sent(daemon: &Daemon) -> anyhow::Result<f64> {
    let metrics = daemon.debug("/metrics").await?;
    Ok(common::series(&metrics, "ambientd_xds_resources_sent")
        .iter()
        .map(|(_, n)| n)
        .sum())
}

async fn run(binary: PathBuf) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, state) = (dir.path().join("config"), dir.path().join("state"));
    std::fs::create_dir(&config)?;
    std::fs::write(config.join("world.yaml"), WORLD)?;
    let mut daemon = Daemon::start(&config, &state).await?;
    let root = daemon.ca()?.root_path();
    let ztunnel = Ztunnel::start(&binary, relay(&daemon).await?, &root)?;
    ztunnel.wait_ready().await?;
    wait_holds(&config).await?;

    std::fs::write(config.join("policy.yaml"), POLICY)?;
    wait_holds(&config).await?;
    std::fs::write(
        config.join("world.yaml"),
        WORLD.replace("name: server", "name: other"),
    )?;
    wait_holds(&config).await?;

    daemon.kill()?;
    daemon.restart().await?;
    wait::until("ztunnel to come back", LIMIT, || {
        common::in_sync(&daemon, 1)
    })
    .await?;
    anyhow::ensure!(
        resources_sent(&daemon).await? == 0.0,
        "resources were sent again"
    );
    std::fs::remove_file(config.join("policy.yaml"))?;
    wait_holds(&config).await?;
    let metrics = daemon.debug("/metrics").await?;
    let rejected = common::rejections(&metrics);
    anyhow::ensure!(
        rejected.iter().all(|(_, n)| *n == 0.0),
        "ztunnel rejected {rejected:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_ztunnel_holds_what_render_says() {
    let Some(binary) = std::env::var_os("ZTUNNEL_BIN") else {
        // Not `println!`, which the harness would swallow.
        let line = b"ZTUNNEL_BIN is not set: the suite with a real ztunnel did not run\n";
        std::io::stderr().write_all(line).unwrap();
        return;
    };
    run(binary.into()).await.unwrap();
}
