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
fn guide_01_enrolled_callers_use_mtls_and_plain_text_still_gets_in() {
    world("01-enrol-namespace", no_edit, async |_, mesh| {
        let orders = mesh
            .expect_status("shop/web", "GET http://orders.shop/", 200)
            .await?;
        let pod = orders.seen("pod");
        ensure!(pod.starts_with("orders-v"), "answered by {pod}");
        let identity = peer_identity(mesh, &format!("shop/{pod}")).await?;
        ensure!(identity == Some(mesh.identity("shop/web")?), "{identity:?}");

        let plain = mesh
            .expect_status("legacy/old-client", "GET http://orders.shop/", 200)
            .await?;
        let pod = plain.seen("pod");
        ensure!(plain.seen("peer") == "10.244.1.15", "{plain:?}");
        wait::until("the line about plain text", LIMIT, || async {
            let identity = peer_identity(mesh, &format!("shop/{pod}")).await?;
            ensure!(identity.is_none(), "{identity:?}");
            Ok(())
        })
        .await?;
        let catalog = mesh
            .expect_status("shop/web", "GET http://catalog.legacy/", 200)
            .await?;
        ensure!(catalog.seen("pod") == "catalog", "{catalog:?}");

        // Names are answered by ztunnel, whoever is asked.
        let (_, web) = mesh.world.pod("shop/web")?;
        let server = "10.96.0.10".parse()?;
        let found = resolve_by_dns(web, server, "orders.shop.svc.cluster.local")?;
        ensure!(found == ["10.96.4.11".parse::<Ipv4Addr>()?], "{found:?}");
        Ok(())
    });
}

#[test]
fn guide_02_opted_out_pod_is_reached_and_calls_in_plain_text() {
    world("02-pod-opt-out", no_edit, async |_, mesh| {
        let job = mesh
            .expect_status("shop/web", "GET http://raw-job.shop:7000/", 200)
            .await?;
        ensure!(job.seen("pod") == "raw-job", "{job:?}");
        let orders = mesh
            .expect_status("shop/raw-job", "GET http://orders.shop/", 200)
            .await?;
        let identity = peer_identity(mesh, &format!("shop/{}", orders.seen("pod"))).await?;
        ensure!(identity.is_none(), "{identity:?}");
        Ok(())
    });
}

#[test]
fn guide_03_captured_callers_pass_the_waypoint_of_the_namespace() {
    world("03-waypoint-namespace", no_edit, async |_, mesh| {
        let through = peer_is(mesh, "bookinfo/bookinfo-waypoint")?;
        let caller = "bookinfo/productpage";
        let answer = mesh
            .expect(caller, "GET http://reviews:9080/reviews/1", &through)
            .await?;
        ensure!(
            ["reviews-v1", "reviews-v2"].contains(&answer.seen("pod").as_str()),
            "{answer:?}"
        );
        let direct = peer_is(mesh, caller)?;
        mesh.expect(caller, "GET http://10.244.2.12:9080/", &direct)
            .await?;
        let outside = peer_is(mesh, "outside/curl")?;
        mesh.expect(
            "outside/curl",
            "GET http://reviews.bookinfo:9080/",
            &outside,
        )
        .await?;
        Ok(())
    });
}

#[test]
fn guide_04_only_the_bound_service_passes_the_waypoint() {
    world("04-waypoint-service", no_edit, async |_, mesh| {
        let caller = "bookinfo/productpage";
        let through = peer_is(mesh, "bookinfo/reviews-waypoint")?;
        let direct = peer_is(mesh, caller)?;
        mesh.expect(caller, "GET http://reviews:9080/reviews/1", &through)
            .await?;
        mesh.expect(caller, "GET http://ratings:9080/ratings/1", &direct)
            .await?;
        mesh.expect(caller, "GET http://reviews-v1:9080/reviews/1", &direct)
            .await?;
        Ok(())
    });
}

#[test]
fn guide_05_object_addressed_decides_which_waypoint() {
    world("05-waypoint-precedence", no_edit, async |_, mesh| {
        let caller = "bookinfo/client";
        let ratings = mesh.world.pod("bookinfo/ratings")?.0.ip;
        let of_namespace = peer_is(mesh, "bookinfo/bookinfo-waypoint")?;
        let of_pod = peer_is(mesh, "bookinfo/pods-waypoint")?;
        let direct = peer_is(mesh, caller)?;
        mesh.expect(caller, "GET http://ratings:9080/", &of_namespace)
            .await?;
        mesh.expect(caller, &format!("GET http://{ratings}:9080/"), &of_pod)
            .await?;
        mesh.expect(caller, "GET http://details:9080/", &direct)
            .await?;
        Ok(())
    });
}

#[test]
fn guide_06_hash_none_opts_out_and_two_labels_name_a_waypoint_elsewhere() {
    world("06-waypoint-label-values", no_edit, async |_, mesh| {
        let direct = peer_is(mesh, "demo/client")?;
        let edge = peer_is(mesh, "infra/edge")?;
        mesh.expect("demo/client", "GET http://hash-none/", &direct)
            .await?;
        mesh.expect("demo/client", "GET http://two-labels/", &edge)
            .await?;
        Ok(())
    });
}

#[test]
fn guide_07_policy_on_a_waypoint_that_nothing_traverses_refuses_nothing() {
    world("07-waypoint-mismatch", no_edit, async |_, mesh| {
        let call = "POST http://reviews:9080/anything";
        mesh.expect_status("bookinfo/productpage", call, 200)
            .await?;
        mesh.edit(|text| {
            text.replace(
                "use-waypoint: review-waypoint",
                "use-waypoint: reviews-waypoint",
            )
        })?;
        mesh.expect_status("bookinfo/productpage", call, 403)
            .await?;
        Ok(())
    });
}

#[test]
fn guide_08_peer_authentication_modes() {
    world("08-peer-authentication", no_edit, async |_, mesh| {
        let (plain, client) = ("plain/old-client", "bookinfo/client");
        mesh.expect_status(client, "GET http://reviews:9080/", 200)
            .await?;
        mesh.expect_reset(plain, "GET http://reviews.bookinfo:9080/")
            .await?;
        mesh.expect_status(plain, "GET http://web.open/", 200)
            .await?;
        mesh.expect_status(plain, "GET http://web.disabled/", 200)
            .await?;
        mesh.expect_status(client, "GET http://web.disabled/", 200)
            .await?;
        wait::until("mTLS to a DISABLE workload", LIMIT, || async {
            let identity = peer_identity(mesh, "disabled/web").await?;
            ensure!(identity == Some(mesh.identity(client)?), "{identity:?}");
            Ok(())
        })
        .await?;
        mesh.expect_reset(plain, "GET http://web.inherit/").await?;
        let ratings = mesh.world.pod("bookinfo/ratings")?.0.ip;
        mesh.expect_reset(plain, &format!("GET http://{ratings}:9080/"))
            .await?;
        mesh.expect_status(plain, &format!("GET http://{ratings}:8081/"), 200)
            .await?;
        mesh.expect_status(client, "GET http://server.plain/", 200)
            .await?;
        Ok(())
    });
}

#[test]
fn guide_09_identities_decide_at_the_node_proxy() {
    world("09-zero-trust-l4", no_edit, async |_, mesh| {
        let orders = "GET http://orders.shop/";
        mesh.expect_status("shop/web", orders, 200).await?;
        mesh.expect_reset("shop/probe", orders).await?;
        mesh.expect_reset("partner/web", orders).await?;
        mesh.expect_reset("shop/web", "GET http://stock.shop/")
            .await?;
        mesh.expect_reset("legacy/old-client", orders).await?;

        let (_, web) = mesh.world.pod("shop/web")?;
        let mut open = web.connect("10.96.4.11:80".parse()?).await?;
        open.write_all(b"GET / HTTP/1.1\r\nhost: orders.shop\r\n\r\n")
            .await?;
        ensure!(
            open.read(&mut [0; 4096]).await? > 0,
            "no answer on the open connection"
        );
        mesh.edit(|text| without_object(text, "AuthorizationPolicy", "orders-allow-web"))?;
        let closed = async { while matches!(open.read(&mut [0; 4096]).await, Ok(1..)) {} };
        tokio::time::timeout(LIMIT, closed)
            .await
            .context("the connection stays open")?;
        mesh.expect_reset("shop/web", orders).await?;
        Ok(())
    });
}

#[test]
fn guide_10_deny_all_meets_a_waypoint() {
    world("10-zero-trust-with-waypoint", no_edit, async |_, mesh| {
        mesh.expect_status("shop/web", "GET http://stock.shop/", 200)
            .await?;
        mesh.expect_status("shop/probe", "GET http://stock.shop/", 403)
            .await?;
        mesh.expect_status("shop/web", "GET http://orders.shop/", 503)
            .await?;
        mesh.expect_reset("shop/web", "GET http://10.244.2.16:8080/")
            .await?;
        Ok(())
    });
}

#[test]
fn guide_11_one_allow_closes_a_workload_to_all_others() {
    world("11-authz-l4-principal", no_edit, async |_, mesh| {
        let (page, curl) = ("bookinfo/productpage", "bookinfo/curl");
        mesh.expect_status(page, "GET http://reviews:9080/", 200)
            .await?;
        mesh.expect_reset(curl, "GET http://reviews:9080/").await?;
        mesh.expect_status(curl, "GET http://productpage:9080/", 200)
            .await?;
        mesh.expect_status(page, "GET http://productpage:9080/", 200)
            .await?;
        mesh.expect_reset(page, "GET http://ratings:9080/").await?;
        Ok(())
    });
}

#[test]
fn guide_33_virtual_machines_are_endpoints_and_callers() {
    world("33-vm-workload-entry", no_edit, async |_, mesh| {
        mesh.expect_status("billing/client", "GET http://billing/", 200)
            .await?;
        let mut machine = 0;
        for _ in 0..100 {
            let outcome = mesh
                .world
                .call("billing/client", "GET http://billing/")
                .await?;
            ensure!(outcome.status() == 200, "{outcome:?}");
            machine += u32::from(outcome.seen("pod") == "legacy-billing-vm");
        }
        ensure!(
            (25..=75).contains(&machine),
            "{machine} of 100 by the machine"
        );
        let identity = peer_identity(mesh, "billing/billing-pod").await?;
        ensure!(
            identity == Some(mesh.identity("billing/client")?),
            "{identity:?}"
        );
        for _ in 0..20 {
            let outcome = mesh
                .world
                .call("billing/client", "GET http://billing-named/")
                .await?;
            ensure!(outcome.seen("pod") == "billing-pod", "{outcome:?}");
        }
        let pod = mesh.world.pod("billing/billing-pod")?.0.ip;
        let reports = mesh.daemon.identity("billing", "reports-sa")?;
        let caller = HboneClient::new(Arc::new(reports), None)?;
        let request = http_client::request(http::Method::GET, "billing", "/")?;
        let answer = caller
            .request((pod, 15008).into(), &format!("{pod}:9090"), request)
            .await?;
        ensure!(answer.status == 200, "{answer:?}");
        mesh.expect_reset("billing/nameless-vm", &format!("GET http://{pod}:9090/"))
            .await?;
        Ok(())
    });
}

#[test]
fn guide_38_pods_of_a_stateful_set_have_a_waypoint_of_their_own() {
    world("38-stateful-workload-waypoint", no_edit, async |_, mesh| {
        let caller = "payments/checkout";
        let by_pod = peer_is(mesh, "payments/pods-wp")?;
        let by_service = peer_is(mesh, "payments/waypoint")?;
        let direct = peer_is(mesh, caller)?;
        let score = "http://fraud-score-0.fraud-score:8080/";
        mesh.expect(caller, &format!("GET {score}"), &by_pod)
            .await?;
        mesh.expect_status(caller, &format!("POST {score}"), 403)
            .await?;
        mesh.expect(
            caller,
            "POST http://fraud-audit-0.fraud-audit:8080/",
            &direct,
        )
        .await?;
        mesh.expect(caller, "POST http://fraud-score-vip/", &by_service)
            .await?;
        let (pod, inside) = mesh.world.pod("payments/fraud-score-0")?;
        let name = "fraud-score-0.fraud-score";
        let (server, client) = tls_of(mesh, name)?;
        let at = SocketAddr::new(pod.ip, 8443);
        let listener = inside.run(|| std::net::TcpListener::bind(at))??;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let serve = async {
            let (stream, _) = listener.accept().await?;
            let mut stream = server.accept(stream).await?;
            stream.write_all(b"whole").await?;
            stream.shutdown().await
        };
        let (_, checkout) = mesh.world.pod(caller)?;
        let call = async {
            let stream = checkout.connect(at).await?;
            let mut stream = client.connect(name.try_into()?, stream).await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            anyhow::Ok(text)
        };
        let (served, text) =
            tokio::time::timeout(LIMIT, async { tokio::join!(serve, call) }).await?;
        served?;
        ensure!(
            text? == "whole",
            "the application's own TLS did not get through"
        );
        Ok(())
    });
}

/// Both ends of TLS with a certificate for one name.
fn tls_of(mesh: &LabMesh, name: &str) -> anyhow::Result<(TlsAcceptor, TlsConnector)> {
    let ca = mesh.daemon.ca()?;
    let issued = ca.issue_server(&[name], &[], SystemTime::now())?;
    let chain =
        CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes()).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.root_pem().as_bytes())?)?;
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((
        TlsAcceptor::from(Arc::new(server)),
        TlsConnector::from(Arc::new(client)),
    ))
}

#[test]
fn guide_40_waypoint_works_only_once_its_callers_are_captured() {
    world("40-waypoint-without-enrolment", no_edit, async |_, mesh| {
        let (caller, call) = ("bookinfo/productpage", "POST http://reviews:9080/anything");
        let direct = peer_is(mesh, caller)?;
        mesh.expect(caller, call, &direct).await?;
        mesh.edit(|text| {
            text.replace(
                "    kubernetes.io/metadata.name: bookinfo\n",
                "    kubernetes.io/metadata.name: bookinfo\n    istio.io/dataplane-mode: ambient\n",
            )
            .replace(
                "  namespace: bookinfo\n  labels:\n    app: ",
                "  namespace: bookinfo\n  annotations: {ambient.istio.io/redirection: enabled}\n  labels:\n    app: ",
            )
        })?;
        for pod in ["productpage", "reviews-v1", "reviews-v2", "ratings"] {
            mesh.capture(&format!("bookinfo/{pod}"))?;
        }
        mesh.expect_status(caller, call, 403).await?;
        let through = peer_is(mesh, "bookinfo/reviews-waypoint")?;
        mesh.expect(caller, "GET http://reviews:9080/reviews/1", &through)
            .await?;
        Ok(())
    });
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

#[test]
fn guide_07_fail_closed_namespace_resets_until_the_label_names_a_waypoint() {
    let fail_closed = |text: String| {
        text.replace(
            "    kubernetes.io/metadata.name: bookinfo\n",
            "    kubernetes.io/metadata.name: bookinfo\n    ambientd.io/waypoint-missing: fail-closed\n",
        )
    };
    world("07-waypoint-mismatch", fail_closed, async |_, mesh| {
        let caller = "bookinfo/productpage";
        mesh.expect_reset(caller, "GET http://reviews:9080/reviews/1")
            .await?;
        mesh.expect_reset(caller, "POST http://reviews:9080/anything")
            .await?;
        mesh.edit(|text| {
            text.replace(
                "use-waypoint: review-waypoint",
                "use-waypoint: reviews-waypoint",
            )
        })?;
        let through = peer_is(mesh, "bookinfo/reviews-waypoint")?;
        mesh.expect(caller, "GET http://reviews:9080/reviews/1", &through)
            .await?;
        mesh.expect_status(caller, "POST http://reviews:9080/anything", 403)
            .await?;
        Ok(())
    });
}

/// The IPv4 addresses of a service's resource as `render` shows them.
fn rendered_addresses(mesh: &LabMesh, service: &str) -> anyhow::Result<Vec<Ipv4Addr>> {
    let rendered = mesh.daemon.render("ztunnel")?;
    let types = rendered.as_object().context("types")?;
    let found = types
        .values()
        .find_map(|resources| resources.get(service))
        .with_context(|| format!("{service} is not rendered"))?;
    let addresses = found["service"]["addresses"].as_array();
    let decode = |address: &serde_json::Value| {
        let text = address["address"].as_str()?;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text)
            .ok()?;
        Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
    };
    Ok(addresses.into_iter().flatten().filter_map(decode).collect())
}

#[test]
fn guide_27_ztunnel_answers_for_external_names_with_the_allocated_address() {
    // Without anybody to ask for external names Envoy would wait: there is none in the pod.
    let no_envoy = |text: String| without_object(&text, "Pod", "egress-waypoint");
    world("27-egress-tls-origination", no_envoy, async |_, mesh| {
        let server = "10.96.0.10".parse()?;
        for (caller, service, host) in [
            (
                "bookinfo/productpage",
                "bookinfo/api.external.example.com",
                "api.external.example.com",
            ),
            (
                "unbound/client",
                "unbound/loose.external.example.com",
                "loose.external.example.com",
            ),
        ] {
            let expected = rendered_addresses(mesh, service)?;
            ensure!(
                matches!(expected[..], [ip] if ip.octets()[..2] == [240, 240]),
                "{service}: {expected:?}"
            );
            let (_, pod) = mesh.world.pod(caller)?;
            let found = resolve_by_dns(pod, server, host)?;
            ensure!(found == expected, "{host}: {found:?}, not {expected:?}");
        }
        Ok(())
    });
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

fn on_demand() -> MeshOptions {
    MeshOptions {
        on_demand: true,
        ..MeshOptions::default()
    }
}

#[test]
fn ztunnels_that_ask_on_demand_serve_requests_by_service_and_by_address() {
    world_with(
        "01-enrol-namespace",
        on_demand(),
        no_edit,
        async |_, mesh| {
            let orders = mesh
                .expect_status("shop/web", "GET http://orders.shop/", 200)
                .await?;
            let name = format!("shop/{}", orders.seen("pod"));
            let identity = peer_identity(mesh, &name).await?;
            ensure!(identity == Some(mesh.identity("shop/web")?), "{identity:?}");
            let pod = &mesh.world.pod(&name)?.0;
            let at = format!("GET http://{}:{}/", pod.ip, pod.ports[0].1);
            mesh.expect_status("shop/web", &at, 200).await?;

            // The first connection to an address is held until ztunnel knows of it, and no longer.
            let catalog = mesh
                .world
                .call("shop/web", "GET http://catalog.legacy/")
                .await?;
            ensure!(catalog.seen("pod") == "catalog", "{catalog:?}");

            // From outside, and to somebody of whom there is nothing to be told.
            mesh.expect_status("legacy/old-client", "GET http://orders.shop/", 200)
                .await?;
            let elsewhere = SocketAddr::from((CONTROL_PLANE_IP, 9099));
            let _app = App::start(elsewhere, "elsewhere", "v1").await?;
            let call = format!("GET http://{elsewhere}/");
            let answer = mesh.expect_status("shop/web", &call, 200).await?;
            ensure!(answer.seen("pod") == "elsewhere", "{answer:?}");

            // They hold less than there is.
            let all = dump::expected(&mesh.daemon.render("ztunnel")?)?.len();
            for (node, ztunnel) in &mesh.ztunnels {
                let held = ztunnel.config_dump().await?;
                let lists = ["workloads", "services", "policies"].map(|key| held[key].as_array());
                let count: usize = lists.into_iter().flatten().map(Vec::len).sum();
                ensure!(count > 0 && count < all, "{node} holds {count} of {all}");
            }
            Ok(())
        },
    );
}

/// ztunnel asks for the destinations of connections, but never for the waypoint that one of them
/// names: it refuses the connection, until somebody has called the waypoint itself.
#[test]
fn ztunnels_that_ask_on_demand_go_round_no_waypoint_that_they_do_not_know() {
    let (world, options) = ("03-waypoint-namespace", on_demand());
    world_with(world, options, no_edit, async |_, mesh| {
        let (caller, call) = ("bookinfo/productpage", "GET http://reviews:9080/reviews/1");
        let direct = peer_is(mesh, caller)?;
        mesh.expect(caller, "GET http://10.244.2.12:9080/", &direct)
            .await?;
        mesh.expect_reset(caller, call).await?;
        mesh.expect_status(
            caller,
            "GET http://bookinfo-waypoint:15021/healthz/ready",
            200,
        )
        .await?;
        let through = peer_is(mesh, "bookinfo/bookinfo-waypoint")?;
        mesh.expect(caller, call, &through).await?;
        Ok(())
    });
}

#[test]
fn ztunnels_that_ask_on_demand_enforce_policies() {
    world_with("09-zero-trust-l4", on_demand(), no_edit, async |_, mesh| {
        let orders = "GET http://orders.shop/";
        mesh.expect_status("shop/web", orders, 200).await?;
        mesh.expect_reset("shop/probe", orders).await?;
        mesh.expect_reset("partner/web", orders).await?;
        mesh.expect_reset("legacy/old-client", orders).await?;
        mesh.edit(|text| without_object(text, "AuthorizationPolicy", "orders-allow-web"))?;
        mesh.expect_reset("shop/web", orders).await?;
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

/// ztunnel renews when half of the time since the certificate's beginning is over, and that
/// lies two minutes before its issue: these are renewed after three seconds.
const SECRET_TTL: &str = "126s";
const WAYPOINT_TTL_SECONDS: u64 = 6;

/// What proxies hold: certificates obtained by waypoints, and serial numbers by ztunnel and
/// identity with the number of roots.
async fn serials_held(
    ztunnels: &BTreeMap<String, LabZtunnel>,
) -> anyhow::Result<BTreeMap<String, (Vec<String>, usize)>> {
    let mut all = BTreeMap::new();
    for (node, ztunnel) in ztunnels {
        for one in ztunnel.certificates().await? {
            let name = format!("{node} {}", one.identity);
            all.insert(name, (one.serials, one.roots_count));
        }
    }
    Ok(all)
}

/// Waits until every certificate of every proxy was renewed twice (the second one was asked for
/// after the wait began) and every ztunnel trusts so many roots.
async fn renewed_twice(mesh: &Rotated<'_>, roots_count: usize) -> anyhow::Result<()> {
    for _ in 0..2 {
        let before = serials_held(mesh.ztunnels).await?;
        let mut waypoints = Vec::new();
        for waypoint in mesh.waypoints.values() {
            waypoints.push(waypoint.certificates_count().await?);
        }
        wait::until("new certificates everywhere", LIMIT, || async {
            for (waypoint, count) in mesh.waypoints.values().zip(&waypoints) {
                ensure!(
                    waypoint.certificates_count().await? > *count,
                    "a waypoint has its old one"
                );
            }
            for (name, (serials, _)) in serials_held(mesh.ztunnels).await? {
                let old = before.get(&name).map(|(serials, _)| serials);
                ensure!(
                    !serials.is_empty() && old != Some(&serials),
                    "{name} has its old one"
                );
            }
            Ok(())
        })
        .await?;
    }
    for (name, (_, count)) in serials_held(mesh.ztunnels).await? {
        ensure!(count == roots_count, "{name} has {count} roots");
    }
    Ok(())
}

/// The parts of a mesh that a rotation needs while requests flow through the others.
struct Rotated<'a> {
    daemon: &'a mut Daemon,
    ztunnels: &'a BTreeMap<String, LabZtunnel>,
    waypoints: &'a BTreeMap<String, LabWaypoint>,
}

impl Rotated<'_> {
    /// Makes the step; then the control plane begins anew, so that all connect to it with what
    /// they trust. Returns when they are back and have new certificates.
    async fn step(&mut self, step: &str, roots_count: usize) -> anyhow::Result<()> {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_ambientd"))
            .args(["ca", "rotate", "--step", step, "--state-dir"])
            .arg(self.daemon.state_dir())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{said}");
        self.daemon.restart().await?;
        let proxies = self.ztunnels.len() + self.waypoints.len();
        wait::until("everybody to be back", LIMIT, || async {
            common::in_sync(self.daemon, proxies).await
        })
        .await?;
        renewed_twice(self, roots_count).await
    }
}

#[test]
fn no_request_fails_at_any_step_of_a_rotation_of_the_root() {
    let env = [
        ("SECRET_TTL", SECRET_TTL),
        // A tunnel, and so a handshake, for every request.
        ("POOL_MAX_STREAMS_PER_CONNECTION", "1"),
        ("POOL_UNUSED_RELEASE_TIMEOUT", "1ms"),
    ];
    let options = MeshOptions {
        ztunnel_env: env.map(|(name, value)| (name.into(), value.into())).into(),
        waypoint_ttl_seconds: WAYPOINT_TTL_SECONDS,
        on_demand: false,
    };
    world_with(
        "03-waypoint-namespace",
        options,
        no_edit,
        async |_, mesh| {
            let caller = "bookinfo/productpage";
            let calls = [
                "GET http://reviews:9080/reviews/1",
                "GET http://10.244.2.12:9080/",
            ];
            for call in calls {
                mesh.expect_status(caller, call, 200).await?;
            }
            let world = &mesh.world;
            let mut rotated = Rotated {
                daemon: &mut mesh.daemon,
                ztunnels: &mesh.ztunnels,
                waypoints: &mesh.waypoints,
            };
            let is_over = AtomicBool::new(false);
            let traffic = async {
                let mut count = 0;
                while !is_over.load(Ordering::Relaxed) {
                    for call in calls {
                        let outcome = world.call(caller, call).await?;
                        ensure!(outcome.status() == 200, "{call}: {outcome:?}");
                        count += 1;
                    }
                }
                Ok(count)
            };
            let rotation = async {
                for (step, roots_count) in [("prepare", 2), ("switch", 2), ("finish", 1)] {
                    let done = rotated.step(step, roots_count).await;
                    done.with_context(|| format!("step {step}"))?;
                }
                is_over.store(true, Ordering::Relaxed);
                anyhow::Ok(())
            };
            let outcome = tokio::try_join!(traffic, rotation);
            let (count, ()) = outcome.with_context(|| mesh.logs())?;
            println!("{count} requests over a rotation");
            Ok(())
        },
    );
}
