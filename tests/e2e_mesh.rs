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

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use testkit::hbone::HboneClient;
use testkit::http_client;
use testkit::lab::{Lab, LabMesh, LabZtunnel, Outcome, resolve_by_dns, unavailable};
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
        let mut mesh = LabMesh::start(&lab, &binary, &file, edit).await?;
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
fn without(text: &str, kind: &str, name: &str) -> String {
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
        ensure!(
            found == ["10.96.4.11".parse::<std::net::Ipv4Addr>()?],
            "{found:?}"
        );
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
        mesh.edit(|text| without(text, "AuthorizationPolicy", "orders-allow-web"))?;
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
