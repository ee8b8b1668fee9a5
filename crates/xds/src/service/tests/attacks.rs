//! Who must not get in, and what must not disturb those who are.

use proto::core::Node;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::*;

impl World {
    /// Opens a stream with a certificate; a refused one may only be noticed there.
    async fn ads_with(&self, issued: &ca::Issued) -> Result<Ads, String> {
        let tls = TlsConnector::from(Arc::new(self.tls_config_with(issued)));
        let channel = connect(Connector(self.tls, Some(tls))).await;
        let channel = channel.map_err(|error| error.to_string())?;
        ads(channel).await.map_err(|status| status.to_string())
    }

    /// A certificate of another trust domain over our own root.
    fn issued(&self, trust_domain: &str, account: &str) -> ca::Issued {
        let now = SystemTime::now();
        let ca = DevCa::load_or_create(self.dir.path(), trust_domain, now).unwrap();
        let (ns, sa) = account.split_once('/').unwrap();
        ca.issue_workload(&SpiffeId::new(trust_domain, ns, sa), HOUR, now)
            .unwrap()
    }

    fn closed(&self, reason: &str) -> u64 {
        let closed = &self.metrics.connections_closed;
        closed.with_label_values(&[reason]).get()
    }

    /// A stream that gets what is published, before and after whatever happens between.
    async fn bystander(&self) -> Ads {
        let mut ads = self.ztunnel().await;
        ads.send(address()).await;
        assert_eq!(ads.next().await.0, ["a"]);
        ads
    }

    async fn assert_undisturbed(&self, bystander: &mut Ads) {
        self.snapshots.send_replace(Some(mesh("a b", "")));
        assert_eq!(bystander.next().await.0, ["b"]);
    }
}

#[tokio::test]
async fn handshakes_fail_for_certificates_that_name_no_workload_of_the_mesh() {
    let world = world(Some(mesh("a", ""))).await;
    let mut bystander = world.bystander().await;
    let now = SystemTime::now();
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = DevCa::load_or_create(elsewhere.path(), "cluster.local", now).unwrap();
    let id = SpiffeId::new("cluster.local", "istio-system", "ztunnel");
    let long_ago = now - 2 * HOUR;
    let cases = [
        ("no workload", world.ca.issue_server(&[HOST], &[], now)),
        (
            "another trust domain",
            Ok(world.issued("other", "istio-system/ztunnel")),
        ),
        ("another root", foreign.issue_workload(&id, HOUR, now)),
        ("expired", world.ca.issue_workload(&id, HOUR, long_ago)),
    ];
    for (number, (case, issued)) in cases.into_iter().enumerate() {
        let opened = world.ads_with(&issued.unwrap()).await;
        assert!(opened.is_err(), "{case}");
        assert_eq!(world.closed("handshake"), number as u64 + 1, "{case}");
    }
    assert_eq!(world.connections.len(), 1);
    world.assert_undisturbed(&mut bystander).await;
}

#[tokio::test]
async fn certificates_of_an_alias_are_good_while_it_is_one() {
    let world = world(Some(mesh("a", ""))).await;
    let authority = world.ca.authority();
    let old = world.issued("old.example", "app/web");
    let node = world.issued("old.example", "istio-system/ztunnel");
    let waypoint = || first("waypoint~10.0.0.1~web.app~d", Address.type_url());
    assert!(world.ads_with(&old).await.is_err(), "not yet");
    let aliases = ["old.example".into(), "older.example".into()];
    authority
        .set_trust_domains("cluster.local", &aliases)
        .unwrap();
    let mut ads = world.ads_with(&old).await.unwrap();
    ads.send(waypoint()).await;
    assert_eq!(ads.next().await.0, ["a"]);
    let connection = world.connections.list().remove(0);
    let identity = connection.caller.map(|caller| caller.identity.to_string());
    let expected = "spiffe://old.example/ns/app/sa/web";
    assert_eq!(identity.as_deref(), Some(expected));
    // An alias is another name of the mesh, not of the account; and it may be the name of
    // another mesh besides, whose nodes have no business here.
    for (issued, request) in [(&old, address()), (&node, address())] {
        let mut other = world.ads_with(issued).await.unwrap();
        other.send(request).await;
        assert_eq!(
            other.receive().await.unwrap_err().code(),
            Code::PermissionDenied
        );
    }
    authority.set_trust_domains("cluster.local", &[]).unwrap();
    assert!(world.ads_with(&old).await.is_err(), "no longer");
    world.assert_undisturbed(&mut ads).await;
}

#[tokio::test]
async fn open_streams_outlive_the_serving_certificate_and_new_handshakes_see_the_next() {
    let world = world(Some(mesh("a", ""))).await;
    let mut bystander = world.bystander().await;
    let before = world.served().await;
    let next = world.ca.issue_server(&[HOST], &[], SystemTime::now());
    let next = next.unwrap();
    world
        .config
        .send_replace(tls_config(world.ca.authority(), &next).unwrap());
    assert_ne!(before, *next.leaf_der());
    assert_eq!(world.served().await, *next.leaf_der());
    world.assert_undisturbed(&mut bystander).await;
    assert_eq!(world.connections.len(), 1);
}

impl World {
    /// The certificate that a handshake sees now.
    async fn served(&self) -> CertificateDer<'static> {
        let tls = TlsConnector::from(Arc::new(self.tls_config(None)));
        let tcp = TcpStream::connect(self.tls).await.unwrap();
        let name = ServerName::try_from(HOST).unwrap();
        let stream = tls.connect(name, tcp).await.unwrap();
        let (_, session) = stream.get_ref();
        session.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

#[tokio::test]
async fn whoever_fails_again_and_again_to_say_who_it_is_must_go() {
    let world = world(Some(mesh("a", ""))).await;
    let mut bystander = world.bystander().await;
    let channel = world.channel(None).await.unwrap();
    for _ in 0..31 {
        let refused = with_headers(channel.clone(), &[("authorization", "Bearer a.b.c")]).await;
        assert_eq!(refused.err().unwrap().code(), Code::Unauthenticated);
    }
    assert_eq!(world.closed("unauthenticated"), 0);
    let _ = with_headers(channel, &[]).await;
    let wait = async {
        while world.closed("unauthenticated") == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
    // Who is known may fail as often as its requests are wrong.
    let good = world.token("istio-system/ztunnel", None, "istio-ca");
    let good = format!("Bearer {good}");
    let channel = world.channel(None).await.unwrap();
    let mut known = with_headers(channel.clone(), &[("authorization", &good)])
        .await
        .unwrap();
    known.send(address()).await;
    assert_eq!(known.next().await.0, ["a"]);
    for _ in 0..40 {
        assert!(with_headers(channel.clone(), &[]).await.is_err());
    }
    assert_eq!(world.closed("unauthenticated"), 1);
    world.assert_undisturbed(&mut bystander).await;
    assert_eq!(known.next().await.0, ["b"]);
}

#[tokio::test]
async fn token_that_ends_lets_its_stream_be_and_opens_no_other() {
    let world = world(Some(mesh("a", ""))).await;
    let token = world.token("istio-system/ztunnel", None, "istio-ca");
    let headers = format!("Bearer {token}");
    let headers = [("authorization", headers.as_str())];
    let channel = world.channel(None).await.unwrap();
    let mut ads = with_headers(channel.clone(), &headers).await.unwrap();
    ads.send(address()).await;
    assert_eq!(ads.next().await.0, ["a"]);
    world.ahead.store(HOUR.as_secs() + 1, Ordering::Relaxed);
    world.assert_undisturbed(&mut ads).await;
    let refused = with_headers(channel, &headers).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn health_reports_come_before_the_first_request_and_later_nodes_change_nothing() {
    let world = world(Some(mesh("a", ""))).await;
    let mut ads = world.ztunnel().await;
    ads.send(first("", "type.googleapis.com/istio.v1.HealthInformation"))
        .await;
    ads.send(address()).await;
    assert_eq!(ads.next().await.0, ["a"]);
    let id = world.connections.list().remove(0).id;
    // Neither garbage nor another identity: the node of a stream is that of its beginning.
    for node in ["", "a~b", "waypoint~10.0.0.2~wp.app~d"] {
        ads.send(DeltaDiscoveryRequest {
            node: Some(Node {
                id: node.to_owned(),
                ..Node::default()
            }),
            type_url: Address.type_url().to_owned(),
            resource_names_subscribe: vec!["a".to_owned()],
            ..DeltaDiscoveryRequest::default()
        })
        .await;
        assert_eq!(ads.next().await.0, ["a"], "{node}");
    }
    let connection = world.connections.list().remove(0);
    assert_eq!(connection.id, id);
    assert_eq!(connection.client.ns, "istio-system");
}

#[tokio::test]
async fn streams_of_one_node_are_served_and_end_apart() {
    let world = world(Some(mesh("a", ""))).await;
    let mut kept = world.bystander().await;
    let twin = world.bystander().await;
    let ids: Vec<String> = world.connections.list().into_iter().map(|c| c.id).collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
    drop(twin);
    world.until(|all| all.len() == 1).await;
    assert!(ids.contains(&world.connections.list().remove(0).id));
    world.assert_undisturbed(&mut kept).await;
}

#[tokio::test]
async fn stream_that_says_nothing_costs_no_entry_and_disturbs_nobody() {
    let world = world(Some(mesh("a", ""))).await;
    let mut bystander = world.bystander().await;
    let _silent = [world.ztunnel().await, world.ztunnel().await];
    assert_eq!(world.connections.len(), 1);
    world.assert_undisturbed(&mut bystander).await;
}

#[tokio::test]
async fn pings_without_end_are_sent_away() {
    let world = world(Some(mesh("a", ""))).await;
    let mut bystander = world.bystander().await;
    let tls = TlsConnector::from(Arc::new(world.tls_config(Some("app/web"))));
    let tcp = TcpStream::connect(world.tls).await.unwrap();
    let name = ServerName::try_from(HOST).unwrap();
    let mut raw = tls.connect(name, tcp).await.unwrap();
    raw.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    raw.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    raw.write_all(&ping.repeat(200)).await.unwrap();
    let mut answers = Vec::new();
    let read = tokio::time::timeout(PATIENCE, raw.read_to_end(&mut answers)).await;
    read.expect("it stays open").unwrap_or_default();
    // A frame of type GOAWAY is among them.
    let mut rest = answers.as_slice();
    let mut types = Vec::new();
    while let [a, b, c, ty, _, _, _, _, _, after @ ..] = rest {
        types.push(*ty);
        let bytes = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        rest = after.get(bytes..).unwrap_or_default();
    }
    assert!(types.contains(&7), "{types:?}");
    assert_eq!(world.closed("flood"), 1);
    world.assert_undisturbed(&mut bystander).await;
}
