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
use common::{Called, Callers, Mesh, SOON, Traffic, Workload};
use testkit::ads::XdsTarget;
use testkit::daemon::Daemon;
use testkit::envoy::{AgentRequest, Envoy};
use testkit::hbone::{CertificateRequest, HboneClient, Identity};
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

/// Clients and workloads that obtain a new certificate each time, as real ones do when half of
/// the life of theirs is over.
struct Renewing {
    callers: Arc<Callers>,
    control_plane: XdsTarget,
    client: CertificateRequest,
    workload: CertificateRequest,
}

impl Renewing {
    fn of(mesh: &Mesh) -> anyhow::Result<Self> {
        let request = |account| {
            anyhow::Ok(CertificateRequest {
                token: mesh.daemon.token("shop", account, None)?,
                on_behalf_of: None,
                ttl_seconds: LIFE_SECONDS,
            })
        };
        Ok(Self {
            callers: Arc::clone(&mesh.callers),
            control_plane: mesh.daemon.xds_anonymous()?,
            client: request("client")?,
            workload: request("web")?,
        })
    }

    /// New certificates for all: whoever trusts the roots of now gets them, over new
    /// connections to the control plane.
    async fn renew(&self, workloads: &[Workload]) -> anyhow::Result<HboneClient> {
        let identity = Identity::fetch(&self.control_plane, &self.workload).await?;
        for workload in workloads {
            workload.server.renew(&identity)?;
        }
        let identity = Identity::fetch(&self.control_plane, &self.client).await?;
        HboneClient::new(Arc::new(identity), Some(self.callers.net.pod(1)))
    }
}

/// A mesh in which certificates are renewed and requests flow all the time.
struct Rotating {
    mesh: Mesh,
    renewing: Renewing,
    requests_count: usize,
    renewals_count: usize,
}

/// Longest life of a certificate of clients and workloads, seconds.
const LIFE_SECONDS: u32 = 6;
/// Requests with one certificate of the client.
const REQUESTS_PER_CERTIFICATE: usize = 5;

impl Rotating {
    /// Renews and calls until what is looked for has come; no handshake may fail meanwhile.
    /// Every request has a tunnel of its own, every renewal ends the tunnels of the waypoint to
    /// the workloads.
    async fn until<T: AsyncFnMut(&Mesh) -> bool>(&mut self, what: &str, mut look: T) {
        let begun = Instant::now();
        loop {
            let outcome = self.once().await;
            outcome.unwrap_or_else(|error| panic!("{what}: {error:#}\n{}", self.mesh.logs()));
            if look(&self.mesh).await {
                return;
            }
            let logs = || self.mesh.logs();
            assert!(begun.elapsed() < SOON * 2, "in vain: {what}\n{}", logs());
        }
    }

    async fn once(&mut self) -> anyhow::Result<()> {
        let client = Box::pin(self.renewing.renew(&self.mesh.workloads)).await?;
        self.renewals_count += 1;
        for _ in 0..REQUESTS_PER_CERTIFICATE {
            let called = self.mesh.call(&client, http::Method::GET, "web", "/split");
            let called = Box::pin(called).await?;
            ensure!(matches!(called, Called::Served { .. }), "{called:?}");
            client.forget_tunnels().await;
            self.requests_count += 1;
        }
        Ok(())
    }

    fn handshakes_with_workloads(&self) -> usize {
        let workloads = self.mesh.workloads.iter();
        workloads.map(|one| one.server.handshakes_count()).sum()
    }

    /// Makes the step; then the control plane begins anew, so that Envoy and the ztunnel must
    /// connect to it with what they trust.
    async fn step(&mut self, step: &str) {
        let dir = self.mesh.daemon.state_dir().display().to_string();
        let output = common::ambientd(&["ca", "rotate", "--state-dir", &dir, "--step", step]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{step}: {said}");
        self.mesh.daemon.restart().await.unwrap();
        wait::until("everybody to be back", SOON, || async {
            common::in_sync(&self.mesh.daemon, 2).await
        })
        .await
        .unwrap_or_else(|error| panic!("{step}: {error:#}\n{}", self.mesh.logs()));
        // As the file that proxies mount says now.
        self.renewing.control_plane = self.mesh.daemon.xds_anonymous().unwrap();
    }
}

#[test]
fn no_handshake_fails_at_any_step_of_a_rotation_of_the_root() {
    common::runtime().block_on(Box::pin(async {
        let mesh = Mesh::start_with_ttl(45, TTL_SECONDS).await.unwrap();
        let renewing = Renewing::of(&mesh).unwrap();
        // Else the waypoint's connections to them would outlive all certificates.
        for workload in &mesh.workloads {
            workload.app.close_after_answers();
        }
        let mut run = Rotating {
            mesh,
            renewing,
            requests_count: 0,
            renewals_count: 0,
        };
        run.until("one root", async |m| roots(&m.envoy).await.unwrap() == 1)
            .await;
        for (step, roots_count) in [("prepare", 2), ("switch", 2), ("finish", 1)] {
            let handshakes = run.handshakes_with_workloads();
            run.step(step).await;
            run.until(&format!("{step}: {roots_count} roots"), async |m| {
                roots(&m.envoy).await.unwrap() == roots_count
            })
            .await;
            // Two certificates after the step: the second one was asked for after it.
            let mut seen = serials(&run.mesh.envoy).await.unwrap();
            let enough = seen.len() + 2;
            run.until(&format!("{step}: certificates"), async |m| {
                seen.extend(serials(&m.envoy).await.unwrap());
                seen.len() >= enough
            })
            .await;
            assert!(run.handshakes_with_workloads() > handshakes, "{step}");
        }
        println!(
            "{} requests, each over a tunnel of its own, {} handshakes with workloads and {} \
             renewals over a rotation",
            run.requests_count,
            run.handshakes_with_workloads(),
            run.renewals_count
        );
        run.mesh.envoy.assert_no_nacks().await.unwrap();
        assert_eq!(run.mesh.envoy.probe().await.unwrap(), Ok(()));
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
