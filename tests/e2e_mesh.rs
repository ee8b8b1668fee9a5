//! The guides' worlds on a real data plane: real ztunnels that capture the network namespaces of
//! pods, real Envoys as waypoints, and requests between pods. Each test covers the request claims
//! of one world.
//!
//! Runs when `ZTUNNEL_BIN` names a ztunnel binary and network namespaces can be made; says so in
//! one line when it does not.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;
#[path = "e2e_mesh/guides.rs"]
mod guides;
#[path = "e2e_mesh/on_demand.rs"]
mod on_demand;
#[path = "e2e_mesh/rotation.rs"]
mod rotation;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use model::SpiffeId;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use testkit::ads::XdsTarget;
use testkit::app::App;
use testkit::daemon::Daemon;
use testkit::hbone::{CertificateRequest, HboneClient, Identity};
use testkit::http_client;
use testkit::lab::{
    CONTROL_PLANE_IP, Lab, LabMesh, LabWaypoint, LabZtunnel, MeshOptions, Outcome, Stranger, dump,
    resolve_by_dns, unavailable,
};
use testkit::wait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const LIMIT: Duration = Duration::from_secs(30);
/// One lab at a time: all of them use the same addresses and few cores.
static TURN: Mutex<()> = Mutex::new(());
static SAID: Once = Once::new();

fn say_once(line: &str) {
    // Not `println!`, which the harness would swallow.
    SAID.call_once(|| std::io::stderr().write_all(line.as_bytes()).unwrap());
}

fn guides() -> Option<PathBuf> {
    let named = std::env::var_os("AMBIENTD_GUIDES").map(PathBuf::from);
    named.or_else(|| {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/testing/guides");
        beside.is_dir().then_some(beside)
    })
}

fn no_edit(text: String) -> String {
    text
}

/// Runs a world and what is claimed of it.
fn world(
    name: &str,
    edit: impl FnOnce(String) -> String + Send,
    claims: impl AsyncFnOnce(&Lab, &mut LabMesh) -> anyhow::Result<()> + Send,
) {
    world_with(name, MeshOptions::default(), edit, claims);
}

/// The same, with ztunnels and waypoints told more. Those that ask on demand hold less than
/// all that is rendered.
fn world_with(
    name: &str,
    options: MeshOptions,
    edit: impl FnOnce(String) -> String + Send,
    claims: impl AsyncFnOnce(&Lab, &mut LabMesh) -> anyhow::Result<()> + Send,
) {
    let Some(binary) = LabZtunnel::binary() else {
        say_once("ZTUNNEL_BIN is not set: the worlds with a real ztunnel did not run\n");
        return;
    };
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reason) = unavailable() {
        assert!(std::env::var_os("CI").is_none(), "{reason}");
        say_once(&format!(
            "{reason}: the worlds with a real ztunnel did not run\n"
        ));
        return;
    }
    let Some(guides) = guides() else {
        say_once("no guides beside this checkout: the worlds with a real ztunnel did not run\n");
        return;
    };
    let file = guides.join(name).join("input.yaml");
    let lab = Lab::new().unwrap();
    let outcome = lab.block_on(async || {
        let on_demand = options.on_demand;
        let mut mesh = LabMesh::start(&lab, &binary, &file, options, edit).await?;
        if on_demand {
            return claims(&lab, &mut mesh).await;
        }
        mesh.wait_holds_what_is_rendered().await?;
        claims(&lab, &mut mesh).await?;
        mesh.wait_holds_what_is_rendered().await
    });
    outcome.unwrap();
}

/// The caller's identity in the last line about an inbound connection of a pod; `None` for plain text.
async fn peer_identity(mesh: &LabMesh, pod: &str) -> anyhow::Result<Option<String>> {
    let (pod, _) = mesh.world.pod(pod)?;
    let ztunnel = mesh.ztunnels.get(&pod.node).context("no such node")?;
    let to = format!("dst.addr={}:", pod.ip);
    wait::until(&format!("a line about {}", pod.name), LIMIT, || async {
        let log = ztunnel.log();
        let mut lines = log.lines().rev();
        let last = lines.find(|line| line.contains("inbound") && line.contains(&to));
        let last = last.with_context(|| ztunnel.log_tail())?;
        let identity = last.split_once("src.identity=\"").map(|(_, rest)| rest);
        Ok(identity.and_then(|rest| Some(rest.split_once('"')?.0.to_owned())))
    })
    .await
}

fn peer_is(mesh: &LabMesh, pod: &str) -> anyhow::Result<impl Fn(&Outcome) -> anyhow::Result<()>> {
    let ip = mesh.world.pod(pod)?.0.ip.to_string();
    Ok(move |outcome: &Outcome| {
        ensure!(outcome.status() == 200, "expected 200");
        ensure!(outcome.seen("peer") == ip, "the peer is not {ip}");
        Ok(())
    })
}

/// The world's text without one object.
fn without_object(text: &str, kind: &str, name: &str) -> String {
    let is_it = |document: &&str| {
        document.contains(&format!("kind: {kind}\n"))
            && document.contains(&format!("  name: {name}\n"))
    };
    let kept: Vec<&str> = text
        .split("---\n")
        .filter(|document| !is_it(document))
        .collect();
    kept.join("---\n")
}

#[test]
fn moved_pods_changed_policies_and_a_dead_control_plane_cost_no_connection() {
    world("09-zero-trust-l4", no_edit, async |lab, mesh| {
        let orders = "GET http://orders.shop/";
        mesh.expect_status("shop/web", orders, 200).await?;
        mesh.expect_reset("shop/web", "GET http://stock.shop/")
            .await?;

        // A policy appears, and a pod moves to another node and address, without any restart.
        mesh.edit(|text| {
            let policy = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                metadata:\n  name: stock-allow-web\n  namespace: shop\nspec:\n  selector:\n    matchLabels:\n      app: stock\n  \
                rules:\n  - from:\n    - source:\n        principals: [cluster.local/ns/shop/sa/web]\n";
            format!("{text}{policy}")
        })?;
        let before = mesh
            .expect_status("shop/web", "GET http://stock.shop/", 200)
            .await?;
        ensure!(before.seen("pod") == "stock", "{before:?}");
        mesh.move_pod(lab, "shop/stock", "10.244.2.99".parse()?, "node-b")?;
        mesh.wait_holds_what_is_rendered().await?;
        mesh.expect_status("shop/web", "GET http://stock.shop/", 200)
            .await?;

        // The control plane dies with a connection open: neither it nor new ones notice.
        let (_, web) = mesh.world.pod("shop/web")?;
        let mut open = web.connect("10.96.4.11:80".parse()?).await?;
        ask(&mut open).await?;
        mesh.daemon.kill()?;
        ask(&mut open).await?;
        mesh.expect_status("shop/web", orders, 200).await?;
        mesh.expect_reset("shop/probe", orders).await?;
        mesh.daemon.restart().await?;
        mesh.wait_in_sync().await?;
        let metrics = mesh.daemon.debug("/metrics").await?;
        let sent: f64 = metrics
            .lines()
            .filter(|line| line.starts_with("ambientd_xds_resources_sent{"))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum();
        ensure!(sent == 0.0, "{sent} resources were sent again");
        ask(&mut open).await?;
        mesh.expect_status("shop/web", orders, 200).await?;
        Ok(())
    });
}

/// One request and its answer on an open connection.
async fn ask(open: &mut tokio::net::TcpStream) -> anyhow::Result<()> {
    open.write_all(b"GET / HTTP/1.1\r\nhost: orders.shop\r\n\r\n")
        .await?;
    let mut answer = [0; 4096];
    let length = tokio::time::timeout(LIMIT, open.read(&mut answer)).await??;
    ensure!(
        answer[..length].starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer[..length])
    );
    Ok(())
}

const CANARY: &str = "reviews-canary";

/// A second waypoint like the first one, and Service `reviews` that gives it a share.
fn with_canary(text: &str, weight: u32) -> String {
    let is_of_waypoint = |document: &&str| {
        document.contains("reviews-waypoint") && !document.contains("use-waypoint: ")
    };
    let copies = text.split("---\n").filter(is_of_waypoint).map(|document| {
        document
            .replace("reviews-waypoint", CANARY)
            .replace("10.96.8.16", "10.96.8.26")
            .replace("10.244.1.15", "10.244.1.25")
    });
    let copies: Vec<String> = copies.collect();
    let shared = text.replace(
        "  labels:\n    istio.io/use-waypoint: reviews-waypoint\n",
        &format!(
            "  annotations:\n    istio.io/use-waypoint-canary-weight: \"{weight}\"\n  labels:\n    \
             istio.io/use-waypoint: reviews-waypoint\n    istio.io/use-waypoint-canary: {CANARY}\n"
        ),
    );
    format!("{shared}\n---\n{}", copies.join("\n---\n"))
}

#[test]
fn the_canary_waypoint_takes_the_share_that_its_weight_says() {
    const CALLS: u32 = 60;
    let all = |text: String| with_canary(&text, 100);
    world("04-waypoint-service", all, async |_, mesh| {
        let (caller, call) = ("bookinfo/productpage", "GET http://reviews:9080/reviews/1");
        let primary = mesh
            .world
            .pod("bookinfo/reviews-waypoint")?
            .0
            .ip
            .to_string();
        let canary = mesh
            .world
            .pod(&format!("bookinfo/{CANARY}"))?
            .0
            .ip
            .to_string();
        let share = async |mesh: &LabMesh| {
            let mut by_canary = 0;
            for _ in 0..CALLS {
                let outcome = mesh.world.call(caller, call).await?;
                let peer = outcome.seen("peer");
                ensure!(
                    outcome.status() == 200 && (peer == primary || peer == canary),
                    "{outcome:?}"
                );
                by_canary += u32::from(peer == canary);
            }
            anyhow::Ok(by_canary)
        };
        mesh.expect_status(caller, call, 200).await?;
        for (old, weight, expected) in [
            (100, 100, CALLS..=CALLS),
            (100, 0, 0..=0),
            (0, 50, CALLS / 5..=CALLS * 4 / 5),
        ] {
            if old != weight {
                let line = |weight: u32| format!("canary-weight: \"{weight}\"");
                mesh.edit(|text| text.replace(&line(old), &line(weight)))?;
                mesh.wait_holds_what_is_rendered().await?;
            }
            let by_canary = share(mesh).await?;
            ensure!(
                expected.contains(&by_canary),
                "weight {weight}: {by_canary} of {CALLS} by the canary"
            );
        }
        Ok(())
    });
}

/// What a metric of the control plane counts under a label, 0 without such a series.
async fn counted(mesh: &LabMesh, series: &str) -> anyhow::Result<f64> {
    let metrics = mesh.daemon.debug("/metrics").await?;
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    Ok(value.unwrap_or_default())
}

#[test]
fn a_node_gets_no_certificates_for_the_pods_of_another() {
    world("03-waypoint-namespace", no_edit, async |lab, mesh| {
        let account = ("istio-system", "ztunnel");
        let token = |pod| mesh.daemon.token(account.0, account.1, pod);
        let cases = [
            // The pod of the token is on node-a, whatever the ztunnel says.
            ("not_on_node", token(Some("ztunnel-node-a"))?),
            ("no_pod", token(None)?),
        ];
        for (number, (reason, token)) in (90..).zip(cases) {
            let series = format!("ambientd_ca_requests_refused{{reason=\"{reason}\"}}");
            ensure!(counted(mesh, &series).await? == 0.0, "{reason} before");
            let stranger = Stranger {
                ip: [10, 254, 0, number].into(),
                pod_of: "node-a".to_owned(),
                node: "node-b".to_owned(),
                token,
            };
            let (ztunnel, _agent) = mesh.start_stranger(lab, &stranger)?;
            let refused = wait::until(reason, LIMIT, || async {
                let count = counted(mesh, &series).await?;
                ensure!(count > 0.0, "nothing is refused");
                let log = ztunnel.log();
                ensure!(
                    log.contains("request impersonation authentication failure"),
                    "ztunnel does not say so"
                );
                let held = ztunnel.certificates().await?;
                ensure!(!held.is_empty(), "it asked for none");
                let available = held.iter().filter(|one| !one.serials.is_empty());
                ensure!(available.count() == 0, "it has got {held:?}");
                Ok(())
            });
            refused.await.with_context(|| ztunnel.log_tail())?;
            let log = ztunnel.log();
            ensure!(!log.contains(reason), "the client is told why:\n{log}");
        }
        // Those of its own node a ztunnel has, and its pods are served.
        let held = mesh.ztunnels["node-b"].certificates().await?;
        let without = held.iter().find(|one| one.serials.is_empty());
        ensure!(!held.is_empty() && without.is_none(), "{held:?}");
        mesh.expect_status("bookinfo/productpage", "GET http://10.244.2.12:9080/", 200)
            .await?;

        // A pod that is gone: its ztunnel's token says nothing any more.
        let xds = mesh.daemon.xds_anonymous()?;
        let reviews = SpiffeId::new("cluster.local", "bookinfo", "bookinfo-reviews");
        let request = CertificateRequest {
            token: token(Some("ztunnel-node-b"))?,
            on_behalf_of: Some(reviews),
            ttl_seconds: 3600,
        };
        Identity::fetch(&xds, &request).await?;
        mesh.edit(|text| {
            let one = without_object(text, "Pod", "reviews-v1");
            without_object(&one, "Pod", "reviews-v2")
        })?;
        refused_at_last(
            &xds,
            &request,
            "request impersonation authentication failure",
        )
        .await?;
        std::fs::remove_file(mesh.config_dir().join("ztunnel.yaml"))?;
        refused_at_last(&xds, &request, "request authenticate failure").await?;
        Ok(())
    });
}

/// Waits until a request for a certificate is refused in these words.
async fn refused_at_last(
    target: &XdsTarget,
    request: &CertificateRequest,
    words: &str,
) -> anyhow::Result<()> {
    wait::until(words, LIMIT, || async {
        let Err(error) = Identity::fetch(target, request).await else {
            anyhow::bail!("a certificate was issued");
        };
        let status = error.downcast_ref::<tonic::Status>();
        let status = status.with_context(|| format!("{error:#}"))?;
        ensure!(
            status.code() == tonic::Code::Unauthenticated && status.message() == words,
            "{status:?}"
        );
        Ok(())
    })
    .await
}
