//! Stock Envoy beside `ambientd agent`: renewal under load, readiness, drain, and an end
//! that leaves nobody behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use common::{Called, Mesh, SOON, Traffic};
use testkit::daemon::Daemon;
use testkit::envoy::{AgentRequest, Envoy};
use testkit::hbone::HboneClient;
use testkit::http_client;
use testkit::wait;

/// Life of certificates in the test of renewal, seconds.
const TTL_SECONDS: u64 = 4;
/// How many certificates must have been in use.
const CERTIFICATES: usize = 4;

/// The serial numbers of the certificates that Envoy holds now.
async fn serials(envoy: &Envoy) -> anyhow::Result<BTreeSet<String>> {
    let page = envoy.page_json("/certs").await?;
    let certificates = page["certificates"].as_array().context("no certificates")?;
    Ok(certificates
        .iter()
        .filter_map(|entry| entry["cert_chain"].as_array())
        .flatten()
        .filter_map(|cert| cert["serial_number"].as_str().map(str::to_owned))
        .collect())
}

/// One request over a connection of its own: a handshake with the certificate of now.
async fn shake_hands(mesh: &Mesh) -> anyhow::Result<()> {
    let identity = Arc::new(mesh.daemon.identity("shop", "client")?);
    let client = HboneClient::new(identity, Some(mesh.net.pod(1)))?;
    let called = Box::pin(mesh.call(&client, http::Method::GET, "web", "/split")).await?;
    ensure!(matches!(called, Called::Served { .. }), "{called:?}");
    Ok(())
}

#[test]
fn certificates_are_renewed_under_load_and_no_request_fails() {
    common::runtime().block_on(Box::pin(async {
        let mesh = Mesh::start_with_ttl(41, TTL_SECONDS).await.unwrap();
        let traffic = Traffic::start(&mesh.callers, "web", "/split");
        let mut seen = BTreeSet::new();
        let mut handshakes = 0;
        let begun = Instant::now();
        while seen.len() < CERTIFICATES {
            assert!(begun.elapsed() < SOON * 2, "{} certificates", seen.len());
            let shaken = shake_hands(&mesh).await;
            shaken.unwrap_or_else(|error| panic!("{error:#}\n{}", mesh.logs()));
            seen.extend(serials(&mesh.envoy).await.unwrap());
            handshakes += 1;
        }
        let requests = traffic.stop().await.unwrap();
        println!(
            "{requests} requests and {handshakes} handshakes over {} certificates",
            seen.len()
        );
        mesh.envoy.assert_no_nacks().await.unwrap();
        assert_eq!(mesh.envoy.probe().await.unwrap(), Ok(()));
        let metrics = mesh.envoy.metrics().await.unwrap();
        let obtained = common::series(&metrics, "ambientd_agent_certificates_total");
        assert!(obtained[0].1 > 3.5, "{obtained:?}");
        for (name, labels) in [
            (
                "istio_agent_cert_expiry_seconds",
                "{resource_name=\"default\"}",
            ),
            ("envoy_server_live", "{}"),
        ] {
            let found = common::series(&metrics, name);
            assert_eq!(found.len(), 1, "{name}");
            assert_eq!(found[0].0, labels);
        }
        let refused = common::series(&metrics, "ambientd_agent_sds_rejections_total");
        assert!(refused[0].1 < 0.5, "{refused:?}");
    }));
}

/// How many roots Envoy trusts for its peers.
async fn roots(envoy: &Envoy) -> anyhow::Result<usize> {
    let page = envoy.page_json("/certs").await?;
    let certificates = page["certificates"].as_array().context("no certificates")?;
    let counts = certificates
        .iter()
        .filter_map(|entry| Some(entry["ca_cert"].as_array()?.len()));
    counts.max().context("no roots")
}

/// A request that the waypoint itself answers, over a handshake of its own: both sides
/// must take the other's certificate.
async fn be_refused(mesh: &Mesh) -> anyhow::Result<()> {
    let identity = Arc::new(mesh.daemon.identity("shop", "client")?);
    let client = HboneClient::new(identity, Some(mesh.net.pod(1)))?;
    let vip = mesh.net.vip("web").to_string();
    let request = http_client::request(http::Method::POST, "web", "/split")?;
    let waypoint = mesh.net.waypoint();
    let answer = Box::pin(client.request(waypoint, &vip, request)).await?;
    ensure!(answer.status == 403, "{}", answer.status);
    Ok(())
}

/// Shakes hands until what is looked for has come; no handshake may fail meanwhile.
async fn until<T: AsyncFnMut(&Mesh) -> bool>(mesh: &Mesh, what: &str, mut look: T) -> usize {
    let begun = Instant::now();
    let mut count = 0;
    loop {
        let refused = be_refused(mesh).await;
        refused.unwrap_or_else(|error| panic!("{what}: {error:#}\n{}", mesh.logs()));
        count += 1;
        if look(mesh).await {
            return count;
        }
        assert!(
            begun.elapsed() < SOON * 2,
            "in vain: {what}\n{}",
            mesh.logs()
        );
    }
}

#[test]
fn no_handshake_fails_at_any_step_of_a_rotation_of_the_root() {
    common::runtime().block_on(Box::pin(async {
        let mesh = Mesh::start_with_ttl(45, TTL_SECONDS).await.unwrap();
        let rotate = |step: &str| {
            let dir = mesh.daemon.state_dir().display().to_string();
            let output = common::ambientd(&["ca", "rotate", "--state-dir", &dir, "--step", step]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{step}: {said}");
        };
        let mut handshakes = until(&mesh, "one root", async |m| {
            roots(&m.envoy).await.unwrap() == 1
        })
        .await;
        rotate("prepare");
        handshakes += until(&mesh, "two roots", async |m| {
            roots(&m.envoy).await.unwrap() == 2
        })
        .await;
        rotate("switch");
        let mut seen = serials(&mesh.envoy).await.unwrap();
        let enough = seen.len() + 2;
        handshakes += until(&mesh, "certificates of the new root", async |m| {
            seen.extend(serials(&m.envoy).await.unwrap());
            seen.len() >= enough
        })
        .await;
        rotate("finish");
        handshakes += until(&mesh, "one root again", async |m| {
            roots(&m.envoy).await.unwrap() == 1
        })
        .await;
        println!("{handshakes} handshakes over a rotation");
        mesh.envoy.assert_no_nacks().await.unwrap();
        assert_eq!(mesh.envoy.probe().await.unwrap(), Ok(()));
    }));
}

#[test]
fn a_terminated_waypoint_serves_until_its_drain_is_over_and_leaves_nobody_behind() {
    common::runtime().block_on(Box::pin(async {
        let mut mesh = Mesh::start(42).await.unwrap();
        let id = mesh.envoy.envoy_id().unwrap();
        mesh.envoy.terminate().unwrap();
        wait::until("the probe to fail", SOON, || async {
            let probe = mesh.envoy.probe().await?;
            ensure!(
                probe == Err("Envoy is being drained".to_owned()),
                "{probe:?}"
            );
            Ok(())
        })
        .await
        .unwrap();
        for _ in 0..20 {
            shake_hands(&mesh)
                .await
                .unwrap_or_else(|error| panic!("{error:#}\n{}", mesh.logs()));
        }
        let envoy = &mut mesh.envoy;
        let status = wait::until("the agent to end", SOON, || {
            let ended = envoy.ended();
            async move { ended }
        })
        .await
        .unwrap();
        assert_eq!(status.code(), Some(0), "{}", mesh.logs());
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }));
}

#[test]
fn envoy_dies_with_a_killed_agent() {
    common::runtime().block_on(Box::pin(async {
        let mesh = Mesh::start(43).await.unwrap();
        let id = mesh.envoy.envoy_id().unwrap();
        // Dropping kills the agent with a signal that it cannot heed.
        drop(mesh);
        wait::until("Envoy to be gone", SOON, || async {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat"));
            let is_gone = stat.map_or(true, |stat| stat.contains(") Z "));
            ensure!(is_gone, "process {id} is there");
            Ok(())
        })
        .await
        .unwrap();
    }));
}

#[test]
fn readiness_says_what_is_missing_and_waits_for_it() {
    common::runtime().block_on(Box::pin(async {
        let dir = tempfile::tempdir().unwrap();
        let net = common::Net(44);
        let config = dir.path().join("config");
        net.write(&config).unwrap();
        let daemon = Daemon::start(&config, &dir.path().join("state"))
            .await
            .unwrap();
        let request = AgentRequest {
            ns: "shop".to_owned(),
            name: "gate".to_owned(),
            service_account: "gate".to_owned(),
            ip: net.pod(30).to_string(),
            sotw: false,
            ttl_seconds: 3600,
        };
        let envoy = Envoy::start_agent(&daemon, &request).unwrap();
        wait::until(
            "the probe to name the token",
            Duration::from_secs(10),
            || async {
                let probe = envoy.probe().await?.err().unwrap_or_default();
                ensure!(probe.starts_with("no certificate: the token "), "{probe:?}");
                Ok(())
            },
        )
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", envoy.log_tail()));
        assert!(envoy.envoy_id().is_err(), "Envoy waits for the certificate");
        let answer = http_client::get(daemon.addrs().ready, "/ready")
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
    }));
}
