//! What an edit costs connections that it does not concern: nothing, on a real Envoy.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::struct_field_names
)]

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use common::{Mesh, SOON};
use testkit::hbone::HboneStream;
use testkit::wait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Envoy closes what it drains after two seconds; how long a drain has time to show.
const DRAINED: Duration = Duration::from_secs(4);

/// A service of opaque bytes, and who may use it.
const LINE: &str = "
apiVersion: v1
kind: Service
metadata: {name: line, namespace: shop, labels: {istio.io/use-waypoint: gate}}
spec:
  clusterIP: VIP.14
  clusterIPs: [VIP.14]
  ipFamilies: [IPv4]
  selector: {app: web}
  ports: [{name: tcp, port: 9000, targetPort: 8080, protocol: TCP}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: line, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: line}]
  action: ALLOW
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]}]
";

/// A policy of another service.
const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: extra, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: extra}]
  action: DENY
  rules: [{to: [{operation: {paths: [/closed]}}]}]
";

fn other(name: &str, host: u8, port: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop, labels: {{istio.io/use-waypoint: gate}}}}
spec:
  clusterIP: VIP.{host}
  clusterIPs: [VIP.{host}]
  ipFamilies: [IPv4]
  selector: {{app: web}}
  ports: [{port}]
"
    )
}

/// A connection that stays open: requests go one after another over one stream.
struct Held {
    name: &'static str,
    stream: HboneStream,
}

impl Held {
    async fn open(mesh: &Mesh, name: &'static str, to: SocketAddr) -> Self {
        let server = mesh.net.waypoint();
        let authority = to.to_string();
        let (stream, _) = mesh.client.connect(server, &authority, None).await.unwrap();
        let mut held = Self { name, stream };
        held.ask().await.unwrap();
        held
    }

    /// One request; the connection must stay.
    async fn ask(&mut self) -> anyhow::Result<()> {
        let request = b"GET /elsewhere HTTP/1.1\r\nhost: web\r\n\r\n";
        self.stream.write_all(request).await?;
        let answer = tokio::time::timeout(SOON, self.answer())
            .await
            .with_context(|| format!("{}: no answer", self.name))??;
        let head = answer.to_ascii_lowercase();
        ensure!(head.starts_with("http/1.1 200"), "{}: {answer}", self.name);
        ensure!(
            !head.contains("connection: close"),
            "{}: {answer}",
            self.name
        );
        Ok(())
    }

    /// Reads one answer whole and returns its head.
    async fn answer(&mut self) -> anyhow::Result<String> {
        let mut read = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    let is_length = name.eq_ignore_ascii_case("content-length");
                    is_length.then(|| value.trim().parse::<usize>().ok())?
                });
                if body.len() >= length.context("no content-length")? {
                    return Ok(head.to_owned());
                }
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer).await? {
                0 => bail!("{}: closed after {text:?}", self.name),
                count => read.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

fn vip(mesh: &Mesh, host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 98, mesh.net.0, host).into(), port)
}

fn fill(mesh: &Mesh, text: &str) -> String {
    text.replace("VIP.", &format!("10.98.{}.", mesh.net.0))
}

async fn wait_chain(mesh: &Mesh, text: &str) {
    wait::until(&format!("Envoy to hold {text}"), SOON, || async {
        let dump = mesh.envoy.config_dump().await?.to_string();
        ensure!(dump.contains(text), "not yet");
        Ok(())
    })
    .await
    .unwrap();
}

/// Adds a file and waits until Envoy holds what it says.
async fn add(mesh: &Mesh, file: &str, text: &str, sign: &str) {
    mesh.replace(file, &fill(mesh, text)).unwrap();
    wait_chain(mesh, sign).await;
}

async fn stat(mesh: &Mesh, name: &str) -> u64 {
    mesh.envoy
        .stat(&format!("listener_manager.{name}"))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_outlive_edits_that_do_not_concern_them() {
    let mesh = Mesh::start(7).await.unwrap();
    let line = "inbound-vip|9000|tcp|line.shop.svc.cluster.local";
    add(&mesh, "60-line.yaml", LINE, line).await;
    let mut held = vec![
        Held::open(&mesh, "http", mesh.net.vip("web")).await,
        Held::open(&mesh, "tcp", vip(&mesh, 14, 9000)).await,
    ];
    let replaced = stat(&mesh, "listener_modified").await;
    let in_place = stat(&mesh, "listener_in_place_updated").await;

    // Policy of another service.
    add(&mesh, "61-policy.yaml", POLICY, "/closed").await;
    // Services on new ports, each of another protocol.
    let tcp = other("db", 15, "{name: tcp, port: 5432, targetPort: 8080}");
    add(&mesh, "62-db.yaml", &tcp, "inbound-vip|5432|tcp|db.").await;
    let http = other("api", 16, "{name: http, port: 8088, targetPort: 8080}");
    add(&mesh, "63-api.yaml", &http, "inbound-vip|8088|http|api.").await;
    let in_place_now = stat(&mesh, "listener_in_place_updated").await;
    assert!(in_place_now > in_place, "{in_place_now} after {in_place}");
    // A service that leaves.
    std::fs::remove_file(mesh.file("62-db.yaml")).unwrap();
    // A route of the service itself.
    mesh.set_split(30, 70).unwrap();
    mesh.wait_weight(70).await.unwrap();
    // Its endpoints: the connection is to a pod that stays or to one that leaves by and by.
    let ready = "- type: Ready\n    status: \"True\"";
    let unready = ready.replace("True", "False");
    mesh.edit("21-pod-v2.yaml", ready, &unready).unwrap();

    tokio::time::sleep(DRAINED).await;
    for one in &mut held {
        one.ask().await.unwrap();
    }
    let unaffected = stat(&mesh, "listener_modified").await - replaced
        == stat(&mesh, "listener_in_place_updated").await - in_place;
    assert!(unaffected, "every update was in place");
    assert_eq!(stat(&mesh, "total_listeners_draining").await, 0);
    mesh.envoy.assert_no_nacks().await.unwrap();
}

/// The other side, so that nobody takes the test above for more than it says: the first service
/// whose port is of no protocol makes Envoy look into connections, and that replaces the
/// listener.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_port_without_protocol_replaces_the_listener() {
    let mesh = Mesh::start(8).await.unwrap();
    let mut held = Held::open(&mesh, "http", mesh.net.vip("web")).await;
    let sniffed = other("mixed", 17, "{name: any, port: 7000, targetPort: 8080}");
    add(
        &mesh,
        "64-mixed.yaml",
        &sniffed,
        "inbound-vip|7000|tcp|mixed.",
    )
    .await;
    tokio::time::sleep(DRAINED).await;
    // Drained: told to close, or closed.
    assert!(held.ask().await.is_err());
    Held::open(&mesh, "http again", mesh.net.vip("web")).await;
    mesh.envoy.assert_no_nacks().await.unwrap();
}
