//! Bad files, bad clients, bad command lines: each is answered with words that say where,
//! and nobody else notices.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "e2e_bad/commands.rs"]
mod commands;
mod common;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::ensure;
use common::{Net, SOON, ambientd, debug_json, raw, series};
use model::SpiffeId;
use proto::core::Node;
use proto::discovery::DeltaDiscoveryRequest;
use proto::type_url::{ADDRESS, AUTHORIZATION};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::ads::{DeltaClient, XdsTarget, node, waypoint_node, ztunnel_node};
use testkit::daemon::{Daemon, SERVER_NAME};
use testkit::hbone::Identity;
use testkit::http_client;
use testkit::wait::{self, free_port};
use testkit::ztunnel::Ztunnel;
use tonic::Code::{self, InvalidArgument, PermissionDenied};
use tonic::Status;

/// A control plane with one good client.
struct World {
    ztunnel: Ztunnel,
    daemon: Daemon,
    dir: TempDir,
}

impl World {
    async fn start(net: u8) -> Self {
        let dir = TempDir::with_prefix("ambientd-e2e-").unwrap();
        let config = dir.path().join("config");
        Net(net).write(&config).unwrap();
        let daemon = Daemon::start(&config, &dir.path().join("state"))
            .await
            .unwrap();
        let target = daemon.xds_as("istio-system", "ztunnel").unwrap();
        let ztunnel = Ztunnel::start(target, ztunnel_node("node-a"));
        ztunnel.wait_synced(1, SOON).await.unwrap();
        Self {
            ztunnel,
            daemon,
            dir,
        }
    }

    fn config(&self) -> std::path::PathBuf {
        self.dir.path().join("config")
    }

    /// Writes a file beside the directory and moves it in.
    fn put(&self, name: &str, bytes: &[u8]) {
        let draft = self.dir.path().join("draft");
        std::fs::write(&draft, bytes).unwrap();
        std::fs::rename(draft, self.config().join(name)).unwrap();
    }

    async fn findings(&self) -> Vec<Value> {
        let page = debug_json(&self.daemon, "/debug/findings").await.unwrap();
        page.as_array().unwrap().clone()
    }

    /// Edits a good file, so that it holds a service of this name, and waits until the good
    /// client has it on its first connection.
    async fn assert_serves(&self, name: &str) {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"clusterIP": "10.98.200.1", "clusterIPs": ["10.98.200.1"],
                     "ports": [{"name": "http", "port": 80}]},
        });
        self.put("edit.yaml", service.to_string().as_bytes());
        let key = format!("shop/{name}.shop.svc.cluster.local");
        let arrived = self
            .ztunnel
            .wait(SOON, |state, _| state.services.contains_key(&key))
            .await;
        arrived.unwrap_or_else(|error| panic!("{name}: {error:#}\n{}", self.daemon.log_tail()));
        assert_eq!(self.ztunnel.connection(), 1, "the good client was cut off");
    }
}

/// What a finding must say; `says` are parts of its message.
struct Expected {
    code: &'static str,
    kind: &'static str,
    name: &'static str,
    field: &'static str,
    says: &'static [&'static str],
}

impl Expected {
    fn is(&self, finding: &Value) -> bool {
        finding["code"] == self.code
            && finding["kind"] == self.kind
            && finding["name"] == self.name
            && finding["field"] == self.field
            && self
                .says
                .iter()
                .all(|part| finding["message"].as_str().unwrap().contains(part))
            && finding["severity"] == "error"
            && !finding["fix"].as_str().unwrap().is_empty()
    }
}

/// Bad files with what must be said of them, and nothing else.
fn bad_files() -> Vec<(&'static str, Vec<u8>, Expected)> {
    let file = |name, code, says| Expected {
        code,
        kind: "File",
        name,
        field: "",
        says,
    };
    let object = |code, kind, name, field, says| Expected {
        code,
        kind,
        name,
        field,
        says,
    };
    let text = |text: &str| text.as_bytes().to_vec();
    let bomb = {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let list = vec![format!("*a{}", i - 1); 10].join(", ");
            writeln!(bomb, "a{i}: &a{i} [{list}]").unwrap();
        }
        bomb.into_bytes()
    };
    vec![
        (
            "bad-syntax.yaml",
            text("kind: Service\nmetadata: [name: x\n"),
            file("bad-syntax.yaml", "file-unreadable", &["line "]),
        ),
        (
            "bad-bytes.yaml",
            b"kind: Service # \xff\xfe\n".to_vec(),
            file(
                "bad-bytes.yaml",
                "file-unreadable",
                &["not UTF-8 at byte 16"],
            ),
        ),
        (
            "bad-bomb.yaml",
            bomb,
            file("bad-bomb.yaml", "file-unreadable", &[]),
        ),
        (
            "bad-deep.json",
            "[".repeat(100_000).into_bytes(),
            file("bad-deep.json", "file-unreadable", &[]),
        ),
        (
            "bad-size.yaml",
            [b"# ".as_slice(), &vec![b'x'; 20 * 1024 * 1024]].concat(),
            file("bad-size.yaml", "file-too-large", &["16"]),
        ),
        (
            "bad-kind.yaml",
            text(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolcy\n\
                 metadata: {name: lock, namespace: shop}\nspec: {}\n",
            ),
            object(
                "unknown-kind",
                "AuthorizationPolcy",
                "lock",
                "kind",
                &["AuthorizationPolcy"],
            ),
        ),
        (
            "bad-type.yaml",
            text(
                "apiVersion: v1\nkind: Service\nmetadata: {name: typed, namespace: shop}\n\
                 spec: {clusterIPs: [10.98.201.1], ports: [{name: http, port: eighty}]}\n",
            ),
            object(
                "invalid-object",
                "Service",
                "typed",
                "spec.ports[0].port",
                &["eighty"],
            ),
        ),
        (
            "zz-duplicate.yaml",
            text(
                "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
                 spec: {clusterIPs: [10.98.202.1], ports: [{name: http, port: 80}]}\n",
            ),
            object(
                "duplicate-object",
                "Service",
                "web",
                "",
                &["10-services.yaml", "zz-duplicate.yaml", "first counts"],
            ),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_files_are_reported_and_the_rest_is_served() {
    let mut world = World::start(30).await;
    assert_eq!(
        world.findings().await,
        Vec::<Value>::new(),
        "the world itself is good"
    );
    let good = world.ztunnel.state();

    let files = bad_files();
    for (name, bytes, expected) in &files {
        world.put(name, bytes);
        wait::until(&format!("the finding about {name}"), SOON, || async {
            let findings = world.findings().await;
            ensure!(findings.iter().any(|f| expected.is(f)), "{findings:#?}");
            Ok(())
        })
        .await
        .unwrap();
        world
            .assert_serves(&format!("after-{}", name.replace('.', "-")))
            .await;
    }
    // Each gave exactly one.
    let findings = world.findings().await;
    assert_eq!(findings.len(), files.len(), "{findings:#?}");

    // A good file that becomes bad keeps its last good objects.
    world.put("21-pod-v2.yaml", b"kind: [Pod\n");
    wait::until("the finding about the pod", SOON, || async {
        let findings = world.findings().await;
        let of_it = findings.iter().find(|f| f["name"] == "21-pod-v2.yaml");
        ensure!(
            of_it.is_some_and(|f| f["code"] == "file-unreadable"),
            "{findings:#?}"
        );
        Ok(())
    })
    .await
    .unwrap();
    world.assert_serves("after-the-pod-broke").await;
    let now = world.ztunnel.state();
    assert_eq!(now.workloads, good.workloads);
    assert_eq!(now.policies, good.policies);
    let kept = good
        .services
        .iter()
        .all(|(name, service)| now.services.get(name) == Some(service));
    assert!(kept, "a service has changed");

    let log = world.daemon.log_tail();
    assert!(
        !log.contains('\x1b'),
        "colours in a log that is no terminal: {log:?}"
    );

    // All of that at start: ready all the same, and the good ones are served.
    world.daemon.restart().await.unwrap();
    world.ztunnel.wait_synced(2, SOON).await.unwrap();
    let findings = world.findings().await;
    assert_eq!(findings.len(), files.len() + 1, "{findings:#?}");
    let now = world.ztunnel.state();
    let gone: Vec<_> = good
        .workloads
        .keys()
        .filter(|uid| !now.workloads.contains_key(*uid))
        .collect();
    assert_eq!(
        gone,
        ["Kubernetes//Pod/shop/web-v2-0"],
        "it was never read by this process"
    );

    // Repaired and removed: nothing is left of it.
    for (name, ..) in &files {
        std::fs::remove_file(world.config().join(name)).unwrap();
    }
    Net(30).write(&world.config()).unwrap();
    wait::until("all findings to go", SOON, || async {
        let findings = world.findings().await;
        ensure!(findings.is_empty(), "{findings:#?}");
        Ok(())
    })
    .await
    .unwrap();
    let back = |state: &testkit::ztunnel::MeshState| state.workloads == good.workloads;
    world
        .ztunnel
        .wait(SOON, |state, _| back(state))
        .await
        .unwrap();
}

/// The status that ends a stream which starts with this request.
async fn refusal(target: &XdsTarget, node: Node) -> anyhow::Result<Code> {
    let outcome = async {
        let mut stream = DeltaClient::connect(target, node).await?;
        stream.subscribe(ADDRESS, &[]).await?;
        stream.next_response(Duration::from_secs(5)).await
    };
    match outcome.await {
        Ok(response) => anyhow::bail!("answered with {response:?}"),
        Err(error) => match error.chain().find_map(|e| e.downcast_ref::<Status>()) {
            Some(status) => Ok(status.code()),
            None => Err(error),
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn false_claims_end_the_stream_with_a_status_and_trouble_nobody_else() {
    let world = World::start(31).await;
    let daemon = &world.daemon;
    let as_ztunnel = daemon.xds_as("istio-system", "ztunnel").unwrap();
    let of = |ns, sa| daemon.xds_as(ns, sa).unwrap();
    let bare = |id: &str| node(id, &[]);
    let mut odd_labels = waypoint_node("shop", "gate", "127.60.31.30");
    let text = proto::Value {
        kind: Some(proto::value::Kind::StringValue("x".to_owned())),
    };
    odd_labels
        .metadata
        .as_mut()
        .unwrap()
        .fields
        .insert("LABELS".to_owned(), text);
    let stranger = bare("waypoint~127.60.31.30~gate-0.shop~shop.svc.cluster.local");
    let long = format!("ztunnel~127.0.0.1~{}~x", "x".repeat(5000));

    let gate = || waypoint_node("shop", "gate", "127.60.31.30");
    let cases = [
        ("no node id", &as_ztunnel, Node::default(), InvalidArgument),
        (
            "garbage id",
            &as_ztunnel,
            bare("\u{1}~~\u{7f}"),
            InvalidArgument,
        ),
        (
            "four parts of garbage",
            &as_ztunnel,
            bare("a~b~c~d"),
            InvalidArgument,
        ),
        (
            "no address",
            &as_ztunnel,
            bare("ztunnel~x~z.istio-system~d"),
            InvalidArgument,
        ),
        ("long id", &as_ztunnel, bare(&long), InvalidArgument),
        (
            "a kind that is not served",
            &as_ztunnel,
            bare("sidecar~1.1.1.1~a.b~b.svc"),
            InvalidArgument,
        ),
        (
            "waypoint of no gateway",
            &of("shop", "gate"),
            stranger,
            InvalidArgument,
        ),
        (
            "labels of a wrong type",
            &of("shop", "gate"),
            odd_labels,
            InvalidArgument,
        ),
        (
            "another namespace",
            &of("other", "gate"),
            gate(),
            PermissionDenied,
        ),
        (
            "another account",
            &of("shop", "web"),
            gate(),
            PermissionDenied,
        ),
        (
            "a workload as ztunnel",
            &of("shop", "ztunnel"),
            ztunnel_node("node-a"),
            PermissionDenied,
        ),
        (
            "an account of the system as ztunnel",
            &of("istio-system", "x"),
            bare("ztunnel~127.0.0.1~z.istio-system~istio-system.svc"),
            PermissionDenied,
        ),
    ];
    for (case, target, node, code) in cases {
        let got = refusal(target, node)
            .await
            .unwrap_or_else(|error| panic!("{case}: {error:#}"));
        assert_eq!(got, code, "{case}");
        // Plain text authenticates nobody, but what is malformed is refused there too.
        if code == InvalidArgument && case == "garbage id" {
            let got = refusal(&daemon.xds_plaintext(), bare("\u{1}~~\u{7f}"))
                .await
                .unwrap();
            assert_eq!(got, code, "{case}, in plain text");
        }
    }
    world.assert_serves("after-false-claims").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_bytes_are_answered_and_trouble_nobody_else() {
    let world = World::start(32).await;
    let daemon = &world.daemon;
    let target = daemon.xds_as("istio-system", "ztunnel").unwrap();
    // No node at all; no protobuf; a node whose length is a lie.
    let messages: [&[u8]; 4] = [
        &[],
        &[0xff; 64],
        &[0x0a, 0xff, 0xff, 0xff, 0x7f],
        b"GET / HTTP/1.1",
    ];
    for message in messages {
        for target in [&target, &daemon.xds_plaintext()] {
            let code = raw::send(target, message).await.unwrap();
            assert_eq!(code, Code::InvalidArgument, "{message:x?}");
        }
    }
    // TLS, but nobody: the handshake is for everyone, streams are for those who say who they are.
    let nobody = daemon.xds_anonymous().unwrap();
    for message in messages {
        let code = raw::send(&nobody, message).await.unwrap();
        assert_eq!(code, Code::Unauthenticated, "{message:x?}");
    }
    let addr = daemon.addrs().xds;
    let on_tls = tokio::task::spawn_blocking(move || {
        // Not TLS: closed, with at most an alert (type 21) in answer.
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            &[0; 512],
        ] {
            match raw::converse(addr, bytes) {
                Ok(answer) => assert!(matches!(answer.first(), None | Some(21)), "{answer:x?}"),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
            }
        }
    });
    on_tls.await.unwrap();

    // The right name, issued by somebody else.
    let elsewhere = TempDir::with_prefix("ambientd-stranger-").unwrap();
    let now = std::time::SystemTime::now();
    let ca = ca::DevCa::load_or_create(elsewhere.path(), "cluster.local", now).unwrap();
    let id = SpiffeId::new("cluster.local", "istio-system", "ztunnel");
    let issued = ca
        .issue_workload(&id, Duration::from_secs(3600), now)
        .unwrap();
    let mesh_root = daemon.ca().unwrap().root_pem().to_owned();
    let identity = Identity::from_pem(&issued.chain_pem, &issued.key_pem, &mesh_root).unwrap();
    let forged = XdsTarget::Tls {
        addr: daemon.addrs().xds,
        server_name: SERVER_NAME.to_owned(),
        identity: Arc::new(identity),
    };
    let mut outcome = DeltaClient::connect(&forged, ztunnel_node("node-a"))
        .await
        .map(drop);
    if outcome.is_ok() {
        outcome = Err(anyhow::anyhow!("a forged certificate was accepted"));
    } else {
        outcome = Ok(());
    }
    outcome.unwrap();
    common::in_sync(daemon, 1).await.unwrap();
    world.assert_serves("after-broken-bytes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_but_well_formed_requests_leave_the_stream_alive() {
    const UNKNOWN: &str = "type.googleapis.com/envoy.config.nonsense.v3.Nonsense";
    let world = World::start(33).await;
    let target = world.daemon.xds_as("istio-system", "ztunnel").unwrap();
    let mut stream = DeltaClient::connect(&target, ztunnel_node("node-b"))
        .await
        .unwrap();

    // A type that nobody serves: an empty answer, since a client may wait for one.
    stream.subscribe(UNKNOWN, &["x"]).await.unwrap();
    let empty = stream.next_response(SOON).await.unwrap();
    assert_eq!(
        (
            empty.type_url.as_str(),
            empty.resources.len(),
            empty.removed_resources.len()
        ),
        (UNKNOWN, 0, 0)
    );
    assert!(!empty.nonce.is_empty());
    stream.ack(&empty).await.unwrap();

    // A refusal of what was never asked for, then a nonce that was never given.
    let refused = |type_url: &str, nonce: &str| DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        response_nonce: nonce.to_owned(),
        error_detail: Some(proto::discovery::Status {
            message: "no".to_owned(),
            ..Default::default()
        }),
        ..DeltaDiscoveryRequest::default()
    };
    stream.send(refused(AUTHORIZATION, "x")).await.unwrap();
    stream.subscribe(ADDRESS, &[]).await.unwrap();
    let all = stream.next_response(SOON).await.unwrap();
    assert_eq!(all.type_url, ADDRESS);
    let received = world.ztunnel.received();
    let first = received.iter().find(|one| one.type_url == ADDRESS);
    assert_eq!(all.resources.len(), first.unwrap().names.len());
    let stale = DeltaDiscoveryRequest {
        type_url: ADDRESS.to_owned(),
        response_nonce: "never-given".to_owned(),
        resource_names_unsubscribe: vec!["*".to_owned()],
        ..DeltaDiscoveryRequest::default()
    };
    stream.send(stale).await.unwrap();
    stream.ack(&all).await.unwrap();
    // What the stale request said is void: the edit arrives.
    world.assert_serves("after-odd-requests").await;
    let edit = stream.next_response(SOON).await.unwrap();
    let names: Vec<&str> = edit.resources.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["shop/after-odd-requests.shop.svc.cluster.local"]);
    // A refusal is counted, shown, and not answered with the same again.
    stream.nack(&edit, "I cannot read this").await.unwrap();
    wait::until("the refusal to be shown", SOON, || async {
        let metrics = world.daemon.debug("/metrics").await?;
        let count = |name: &str| series(&metrics, name).iter().map(|(_, n)| n).sum::<f64>();
        let counts = (
            count("pilot_total_xds_rejects"),
            count("pilot_xds_expired_nonce"),
        );
        ensure!(counts == (1.0, 1.0), "rejects and stale nonces: {counts:?}");
        let page = world.daemon.debug("/debug/syncz").await?;
        ensure!(
            page.contains("I cannot read this") && page.contains("NACK"),
            "{page}"
        );
        Ok(())
    })
    .await
    .unwrap();
    world.assert_serves("after-a-refusal").await;
    let next = stream.next_response(SOON).await.unwrap();
    let names: Vec<&str> = next.resources.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["shop/after-a-refusal.shop.svc.cluster.local"]);
}
