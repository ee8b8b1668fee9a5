//! Requests that ask for more than their senders may have, against the real binary.

use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;

use model::SpiffeId;
use proto::value::Kind;
use testkit::ads::XdsTarget;
use testkit::daemon::SERVER_NAME;
use testkit::hbone::Identity;
use testkit::wait;

use super::*;

const ZT: &str = "istio-system/ztunnel";
const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

async fn ask(channel: Channel, token: Option<&str>, csr: String) -> Result<Vec<String>, Status> {
    let request = IstioCertificateRequest {
        csr,
        validity_duration: 3600,
        metadata: None,
    };
    let mut client = IstioCertificateServiceClient::new(channel);
    let asked = client.create_certificate(with_token(request, token));
    let answer = tokio::time::timeout(PATIENCE, asked).await.expect("a hang");
    answer.map(|response| response.into_inner().cert_chain)
}

/// What openssl says of a certificate, and whether it verifies below the root.
fn openssl(args: &[&str], stdin: &str) -> Option<String> {
    let child = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        assert!(std::env::var_os("CI").is_none(), "no openssl");
        return None;
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn requests_for_more_get_what_their_senders_are_and_bad_ones_nothing() {
    let world = world().await;
    let config = world.dir.path().join("config");
    let web = world.token(
        "app/web",
        &["--pod", "web", "--config-dir", config.to_str().unwrap()],
    );
    let csrs = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/ca/testdata/csr");
    let file = |name: &str| std::fs::read_to_string(csrs.join(name)).unwrap();
    let root = world.dir.path().join("root.pem");
    std::fs::write(&root, world.daemon.ca().unwrap().root_pem()).unwrap();
    let channel = world.channel().await;
    // Another name, CA:TRUE, extensions of its own: a certificate of the sender all the same.
    for name in [
        "p256-other-san.pem",
        "p256-ca.pem",
        "p256-extensions.pem",
        "rsa2048.pem",
    ] {
        let chain = ask(channel.clone(), Some(&web), file(name)).await.unwrap();
        assert_eq!(
            identity(&chain[0]),
            "spiffe://cluster.local/ns/app/sa/web",
            "{name}"
        );
        assert_eq!(chain.last().unwrap(), world.daemon.ca().unwrap().root_pem());
        let roots = root.to_str().unwrap();
        for purpose in ["sslclient", "sslserver"] {
            let verify = [
                "verify",
                "-x509_strict",
                "-purpose",
                purpose,
                "-CAfile",
                roots,
            ];
            openssl(&verify, &chain[0]);
        }
        let text = ["x509", "-noout", "-ext"].to_vec();
        let names = "subjectAltName,basicConstraints,keyUsage,extendedKeyUsage";
        if let Some(text) = openssl(&[text, vec![names]].concat(), &chain[0]) {
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            let expected = [
                "CA:FALSE",
                "Digital Signature, Key Encipherment",
                "TLS Web Server Authentication, TLS Web Client Authentication",
                "URI:spiffe://cluster.local/ns/app/sa/web",
            ];
            for line in expected {
                assert!(lines.contains(&line), "{name}: {text}");
            }
            assert!(
                !text.contains("DNS:") && !text.contains("CA:TRUE"),
                "{name}: {text}"
            );
        }
    }
    let bad = [
        ("empty", String::new()),
        ("garbage", file("garbage.pem")),
        ("not PKCS#10", file("not-pkcs10.pem")),
        ("two blocks", file("two-blocks.pem")),
        ("RSA of 1024 bits", file("rsa1024.pem")),
        ("P-224", file("p224.pem")),
        ("SHA-1", file("p256-sha1.pem")),
        (
            "a certificate",
            world.daemon.ca().unwrap().root_pem().to_owned(),
        ),
    ];
    for (case, csr) in bad {
        let status = ask(channel.clone(), Some(&web), csr).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{case}");
    }
    let before = world.rss_kib();
    for _ in 0..20 {
        let status = ask(channel.clone(), Some(&web), "A".repeat(10 << 20)).await;
        let code = status.unwrap_err().code();
        let is_refused = matches!(code, Code::OutOfRange | Code::ResourceExhausted);
        assert!(is_refused, "10 MiB: {code:?}");
    }
    let grown = world.rss_kib().saturating_sub(before);
    assert!(grown < 20_000, "{grown} KiB more");
    assert!(ask(channel, Some(&web), csr()).await.is_ok());
}

#[tokio::test]
async fn plaintext_has_no_certificates_and_no_secrets() {
    let world = world().await;
    let token = world.token("app/web", &[]);
    let plaintext = world.daemon.xds_plaintext();
    let channel = plaintext.channel().await.unwrap();
    let status = ask(channel.clone(), Some(&token), csr()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let request = DeltaDiscoveryRequest {
        node: Some(Node {
            id: node("z1.istio-system"),
            ..Node::default()
        }),
        type_url: SECRET.to_owned(),
        resource_names_subscribe: vec!["kubernetes://app/cert".to_owned()],
        ..DeltaDiscoveryRequest::default()
    };
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let requests =
        tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
    let opened = client.delta_aggregated_resources(requests).await.unwrap();
    let asked = opened.into_inner().message().await;
    let resources = asked.unwrap().map_or(0, |answer| answer.resources.len());
    assert_eq!(resources, 0);
}

#[tokio::test]
async fn nodes_whose_metadata_has_a_wrong_shape_are_refused() {
    let world = world().await;
    let token = world.token(ZT, &[]);
    let text = |text: &str| Kind::StringValue(text.to_owned());
    let map = |key: &str, kind: Kind| {
        let fields = [(key.to_owned(), proto::Value { kind: Some(kind) })];
        Kind::StructValue(proto::Struct {
            fields: fields.into(),
        })
    };
    let mut deep = text("x");
    for _ in 0..200 {
        deep = map("a", deep);
    }
    let cases = [
        ("namespace", "NAMESPACE", Kind::NumberValue(1.0)),
        ("account", "SERVICE_ACCOUNT", Kind::BoolValue(true)),
        ("node name", "NODE_NAME", map("a", text("b"))),
        ("addresses", "INSTANCE_IPS", Kind::NumberValue(1.0)),
        ("no address", "INSTANCE_IPS", text("10.0.0.1,x")),
        ("labels", "LABELS", text("x")),
        ("a label", "LABELS", map("a", map("b", text("c")))),
        ("depth without end", "LABELS", deep),
    ];
    for (case, key, kind) in cases {
        let metadata = proto::Struct {
            fields: [(key.to_owned(), proto::Value { kind: Some(kind) })].into(),
        };
        let node = Node {
            id: node("z1.istio-system"),
            metadata: Some(metadata),
            ..Node::default()
        };
        let found = subscribe_as(world.channel().await, Some(&token), node).await;
        assert_eq!(
            found.map_err(|status| status.code()),
            Err(Code::InvalidArgument),
            "{case}"
        );
    }
    let good = subscribe(
        world.channel().await,
        Some(&token),
        &node("z1.istio-system"),
    )
    .await;
    assert!(good.unwrap() > 0);
}

#[tokio::test]
async fn what_is_deleted_has_no_tokens_and_is_certified_for_nobody() {
    let world = world().await;
    let config = world.dir.path().join("config");
    let bound = |account: &str, pod: &str| {
        let config = config.to_str().unwrap();
        world.token(account, &["--pod", pod, "--config-dir", config])
    };
    let (zt, web) = (bound(ZT, "z1"), bound("app/web", "web"));
    assert!(ask(world.channel().await, Some(&web), csr()).await.is_ok());
    let without: Vec<&str> = MESH
        .split("---")
        .filter(|object| !object.contains("uid-web"))
        .collect();
    std::fs::write(config.join("mesh.yaml"), without.join("---")).unwrap();
    // A good review is remembered for some seconds, and no longer.
    wait::until("the token of the deleted pod to end", PATIENCE, || async {
        let code = ask(world.channel().await, Some(&web), csr()).await;
        anyhow::ensure!(code.is_err_and(|status| status.code() == Code::Unauthenticated));
        Ok(())
    })
    .await
    .unwrap();
    let request = IstioCertificateRequest {
        csr: csr(),
        validity_duration: 3600,
        metadata: Some(proto::Struct {
            fields: [(
                "ImpersonatedIdentity".to_owned(),
                proto::Value {
                    kind: Some(Kind::StringValue(
                        "spiffe://cluster.local/ns/app/sa/web".to_owned(),
                    )),
                },
            )]
            .into(),
        }),
    };
    let mut client = IstioCertificateServiceClient::new(world.channel().await);
    let status = client
        .create_certificate(with_token(request, Some(&zt)))
        .await;
    assert_eq!(status.unwrap_err().code(), Code::Unauthenticated);
}

/// The node of a waypoint `app/web`.
fn waypoint() -> Node {
    let value = |kind| proto::Value { kind: Some(kind) };
    let name = value(Kind::StringValue("web".to_owned()));
    let labels = proto::Struct {
        fields: [("gateway.networking.k8s.io/gateway-name".to_owned(), name)].into(),
    };
    let metadata = proto::Struct {
        fields: [("LABELS".to_owned(), value(Kind::StructValue(labels)))].into(),
    };
    Node {
        id: "waypoint~10.0.0.9~web-1.app~app.svc.cluster.local".to_owned(),
        metadata: Some(metadata),
        ..Node::default()
    }
}

#[tokio::test]
async fn aliases_of_the_mesh_config_let_in_while_they_are_there_and_are_never_certified() {
    let world = world().await;
    let mesh = world.dir.path().join("config/mesh-config.yaml");
    let now = std::time::SystemTime::now();
    let old = ca::DevCa::load_or_create(world.daemon.state_dir(), "old.example", now).unwrap();
    // Not a ztunnel: who reads the whole mesh must be of its own trust domain.
    let id = SpiffeId::new("old.example", "app", "web");
    let issued = old
        .issue_workload(&id, Duration::from_secs(3600), now)
        .unwrap();
    let identity = Identity::from_pem(&issued.chain_pem, &issued.key_pem, old.root_pem()).unwrap();
    let target = XdsTarget::Tls {
        addr: world.daemon.addrs().xds,
        server_name: SERVER_NAME.to_owned(),
        identity: Arc::new(identity),
    };
    // A refusal may only show at the first request.
    let connect = async || match target.channel().await {
        Ok(channel) => subscribe_as(channel, None, waypoint()).await.is_ok(),
        Err(_) => false,
    };
    assert!(!connect().await);
    let alias = "kind: MeshConfig\ntrustDomainAliases: [old.example]\n";
    std::fs::write(&mesh, alias).unwrap();
    wait::until("the alias to be accepted", PATIENCE, || async {
        anyhow::ensure!(connect().await);
        Ok(())
    })
    .await
    .unwrap();
    let channel = target.channel().await.unwrap();
    let status = ask(channel, None, csr()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    std::fs::remove_file(&mesh).unwrap();
    wait::until("the alias to be refused", PATIENCE, || async {
        anyhow::ensure!(!connect().await);
        Ok(())
    })
    .await
    .unwrap();
    let metrics = world.daemon.debug("/metrics").await.unwrap();
    let left = metrics
        .lines()
        .find_map(|line| line.strip_prefix("citadel_server_root_cert_expiry_seconds "))
        .unwrap();
    assert!(left.parse::<f64>().unwrap() > 3600.0, "{left}");
}
