//! A real Envoy as a gateway between networks: clients of another network send a tunnel inside a
//! tunnel, which goes on to a pod or, where the service has one, to a real Envoy as its waypoint.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::ensure;
use common::SOON;
use http::Method;
use tempfile::TempDir;
use testkit::app::App;
use testkit::daemon::Daemon;
use testkit::envoy::{AgentRequest, Envoy};
use testkit::hbone::{HboneClient, HboneError, HboneServer, Verdict};
use testkit::http_client::{self, HttpResponse};
use testkit::wait;

const WORLD: &str = include_str!("e2e_east_west/world.yaml");
const GATEWAY: &str = "127.62.0.30:15008";
const WEB: &str = "web.shop.svc.cluster.local:80";
const TEA: &str = "tea.shop.svc.cluster.local:80";

struct Network {
    _dir: TempDir,
    daemon: Daemon,
    gate: Envoy,
    waypoint: Envoy,
    _apps: Vec<App>,
    _servers: Vec<HboneServer>,
}

/// An answer, and the identity at which the inner tunnel ended.
type Answer = Result<(HttpResponse, String), HboneError>;

fn request(ns: &str, name: &str, account: &str, ip: &str) -> AgentRequest {
    AgentRequest {
        ns: ns.into(),
        name: name.into(),
        service_account: account.into(),
        ip: ip.into(),
        sotw: false,
        ttl_seconds: 3600,
    }
}

impl Network {
    async fn start() -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("ambientd-east-west-")?;
        let config = dir.path().join("config");
        std::fs::create_dir(&config)?;
        std::fs::write(config.join("world.yaml"), WORLD)?;
        let flags = ["--multi-network", "true"].map(str::to_owned).to_vec();
        let daemon = Daemon::start_with(&config, &dir.path().join("state"), flags).await?;
        let (mut apps, mut servers) = (Vec::new(), Vec::new());
        for (name, ip, service) in [("web", "127.62.0.21", WEB), ("tea", "127.62.0.22", TEA)] {
            let pod = ip.parse()?;
            let identity = daemon.identity("shop", name)?;
            let server =
                HboneServer::start(pod, &identity, Arc::new(|_: &_| Verdict::Allow)).await?;
            server.serve(service, 8000);
            servers.push(server);
            let app = SocketAddr::new(pod, 8000);
            apps.push(App::start(app, &format!("{name}-0"), "v1").await?);
        }
        let gate = request("net", "gate", "gate", "127.62.0.30");
        let mut gate = Box::pin(Envoy::start_east_west(&daemon, &gate)).await?;
        gate.wait_ready(SOON).await?;
        let waypoint = request("shop", "tea-wp", "tea-wp", "127.62.0.40");
        let mut waypoint = Box::pin(Envoy::start_with_agent(&daemon, &waypoint)).await?;
        waypoint.wait_ready(SOON).await?;
        Ok(Self {
            _dir: dir,
            daemon,
            gate,
            waypoint,
            _apps: apps,
            _servers: servers,
        })
    }

    /// A request of a workload of another network, in tunnels of its own.
    async fn ask(&self, from: &str, service: &str, source: Option<&str>, path: &str) -> Answer {
        let transport = HboneError::Transport;
        let identity = self.daemon.identity(from, "client").map_err(transport)?;
        let client = HboneClient::new(Arc::new(identity), None).map_err(transport)?;
        let host = service.split(':').next().unwrap_or_default();
        let request = http_client::request(Method::GET, host, path).map_err(transport)?;
        let gateway = GATEWAY.parse().unwrap();
        let answer = client
            .request_across(gateway, service, source, request)
            .await?;
        Ok((answer.0, answer.1.to_string()))
    }

    async fn leads_to_pods(&self) -> anyhow::Result<()> {
        let (answer, peer) = wait::until("the gateway", SOON, || async {
            Ok(self.ask("away", WEB, None, "/cart").await?)
        })
        .await?;
        // No policy of the service is applied on the way.
        ensure!(answer.status == 200, "{answer:?}");
        ensure!(answer.json()?["pod"] == "web-0", "{answer:?}");
        ensure!(peer == "spiffe://cluster.local/ns/shop/sa/web", "{peer}");
        // Never to who is not captured.
        for _ in 0..8 {
            let (answer, _) = self.ask("away", WEB, None, "/").await?;
            ensure!(answer.json()?["pod"] == "web-0", "{answer:?}");
        }
        Ok(())
    }

    async fn leads_through_waypoints(&self) -> anyhow::Result<()> {
        let (answer, peer) = wait::until("the waypoint", SOON, || async {
            let (answer, peer) = self.ask("away", TEA, None, "/menu").await?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok((answer, peer))
        })
        .await?;
        ensure!(answer.json()?["pod"] == "tea-0", "{answer:?}");
        ensure!(peer == "spiffe://cluster.local/ns/shop/sa/tea-wp", "{peer}");
        let (answer, _) = self.ask("away", TEA, None, "/admin").await?;
        ensure!(answer.status == 403, "{answer:?}");
        // Whoever says that a waypoint was passed goes to the pod.
        let (answer, peer) = self.ask("away", TEA, Some("waypoint"), "/admin").await?;
        ensure!(answer.status == 200, "{answer:?}");
        ensure!(peer == "spiffe://cluster.local/ns/shop/sa/tea", "{peer}");
        // Ingress gateways do, as the service does not ask for it; others do not.
        let (_, peer) = self.ask("away", TEA, Some("gateway"), "/menu").await?;
        ensure!(peer.ends_with("/sa/tea"), "{peer}");
        let (_, peer) = self.ask("away", TEA, Some("sidecar"), "/menu").await?;
        ensure!(peer.ends_with("/sa/tea-wp"), "{peer}");
        Ok(())
    }

    fn logs(&self) -> String {
        let (gate, waypoint) = (self.gate.log_tail(), self.waypoint.log_tail());
        format!("{gate}\n{waypoint}\n{}", self.daemon.log_tail())
    }

    async fn refuses(&self) -> anyhow::Result<()> {
        let refused = self.ask("bad", WEB, None, "/").await;
        ensure!(refused.is_err(), "the policy of the Gateway: {refused:?}");
        for unknown in [
            "lost.shop.svc.cluster.local:80",
            "web.shop.svc.cluster.local:81",
        ] {
            let refused = self.ask("away", unknown, None, "/").await;
            ensure!(refused.is_err(), "{unknown}: {refused:?}");
        }
        Ok(())
    }
}

#[test]
fn a_tunnel_inside_a_tunnel_reaches_the_service_that_it_names() {
    common::runtime().block_on(Box::pin(async {
        let network = Box::pin(Network::start()).await.unwrap();
        let outcome = async {
            network.leads_to_pods().await?;
            Box::pin(network.leads_through_waypoints()).await?;
            network.refuses().await?;
            network.gate.assert_no_nacks().await?;
            network.waypoint.assert_no_nacks().await
        };
        let outcome: anyhow::Result<()> = Box::pin(outcome).await;
        outcome.unwrap_or_else(|error| panic!("{error:#}\n{}", network.logs()));
    }));
}
