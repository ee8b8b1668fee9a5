//! The helpers themselves against a real Envoy: client → waypoint → server → workload.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "hbone/waypoint.rs"]
mod waypoint;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ca::DevCa;
use http::Method;
use model::SpiffeId;
use testkit::app::App;
use testkit::envoy::{self, Envoy};
use testkit::hbone::{HboneClient, HboneError, HboneServer, Identity, Verdict};
use testkit::http_client::request;
use waypoint::Waypoint;

const DAY: Duration = Duration::from_secs(24 * 3600);

struct World {
    dir: tempfile::TempDir,
    ca: DevCa,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = DevCa::load_or_create(dir.path(), "cluster.local", SystemTime::now()).unwrap();
        Self { dir, ca }
    }

    fn client(&self, sa: &str, source: &str) -> HboneClient {
        let identity = Identity::issue(&self.ca, &id(sa)).unwrap();
        HboneClient::new(Arc::new(identity), Some(source.parse().unwrap())).unwrap()
    }

    async fn server(&self, pod: IpAddr, sa: &str, allowed: &str) -> HboneServer {
        let identity = Identity::issue(&self.ca, &id(sa)).unwrap();
        let allowed = id(allowed);
        HboneServer::start(
            pod,
            &identity,
            Arc::new(move |c| {
                if c.peer == allowed {
                    Verdict::Allow
                } else {
                    Verdict::Deny
                }
            }),
        )
        .await
        .unwrap()
    }
}

fn id(sa: &str) -> SpiffeId {
    SpiffeId::new("cluster.local", "app", sa)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_passes_client_waypoint_server_and_workload() {
    let world = World::new();
    let (pod, vip): (IpAddr, IpAddr) = (
        "127.21.0.20".parse().unwrap(),
        "10.96.0.20".parse().unwrap(),
    );
    let wp: IpAddr = "127.21.0.30".parse().unwrap();
    let app = App::start(SocketAddr::new(pod, 9080), "server", "v1")
        .await
        .unwrap();
    let server = world.server(pod, "server", "waypoint").await;
    let files = world
        .ca
        .write_workload_files(
            &world.dir.path().join("wp"),
            &id("waypoint"),
            DAY,
            SystemTime::now(),
        )
        .unwrap();
    let config = Waypoint {
        ip: wp,
        files: &files,
        vip,
        port: 80,
        endpoint: app.addr().to_string(),
        allowed: id("client").to_string(),
    };
    let bootstrap = world.dir.path().join("envoy.json");
    std::fs::write(&bootstrap, config.bootstrap().to_string()).unwrap();
    envoy::validate(&bootstrap).unwrap();
    let mut envoy = Envoy::start(&bootstrap).await.unwrap();
    envoy.wait_ready(Duration::from_secs(20)).await.unwrap();

    let hop = SocketAddr::new(wp, 15008);
    let client = world.client("client", "127.21.0.10");
    for _ in 0..3 {
        let answer = client
            .request(
                hop,
                "10.96.0.20:80",
                request(Method::GET, "server", "/hello").unwrap(),
            )
            .await
            .unwrap();
        assert_eq!(
            answer.status,
            200,
            "{}\n{}",
            answer.text(),
            envoy.log_tail()
        );
        assert_eq!(answer.headers["x-via-waypoint"], "yes");
        let seen = answer.json().unwrap();
        assert_eq!(
            (&seen["pod"], &seen["path"]),
            (&"server".into(), &"/hello".into())
        );
    }
    assert_eq!(client.tunnel_count().await, 1, "three requests, one tunnel");
    assert!(server.accepted_count() >= 1);

    let stranger = world.client("stranger", "127.21.0.11");
    let answer = stranger
        .request(
            hop,
            "10.96.0.20:80",
            request(Method::GET, "server", "/hello").unwrap(),
        )
        .await
        .unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (403, "RBAC: access denied")
    );

    // The pod itself accepts nobody but the waypoint.
    let refused = client
        .connect(server.addr(), &app.addr().to_string(), None)
        .await;
    assert!(
        matches!(refused, Err(HboneError::Refused(s)) if s == 401),
        "{:?}",
        refused.err()
    );
    assert_eq!(server.denied_count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hbone_checks_both_identities_and_the_destination() {
    let world = World::new();
    let pod: IpAddr = "127.21.1.20".parse().unwrap();
    let app = App::start(SocketAddr::new(pod, 9080), "server", "v1")
        .await
        .unwrap();
    let server = world.server(pod, "server", "client").await;
    let client = world.client("client", "127.21.1.10");
    let here = app.addr().to_string();

    let (_, peer) = client
        .connect(server.addr(), &here, Some(&id("server")))
        .await
        .unwrap();
    assert_eq!(peer, id("server"));
    let wrong = client
        .connect(server.addr(), &here, Some(&id("other")))
        .await;
    assert!(matches!(wrong, Err(HboneError::WrongPeer { got, .. }) if got == id("server")));

    // Not this pod's address; no such port; a name instead of an address.
    for (authority, expected) in [
        ("127.21.1.99:9080", 400),
        ("127.21.1.20:1", 503),
        ("server.app:9080", 400),
    ] {
        let refused = client.connect(server.addr(), authority, None).await;
        assert!(
            matches!(refused, Err(HboneError::Refused(s)) if s == expected),
            "{authority}: {:?}",
            refused.err()
        );
    }

    // A certificate of another root is not a certificate.
    let elsewhere = World::new().client("client", "127.21.1.12");
    let stranger = elsewhere.connect(server.addr(), &here, None).await;
    assert!(
        matches!(stranger, Err(HboneError::Transport(_))),
        "{:?}",
        stranger.err()
    );
}
