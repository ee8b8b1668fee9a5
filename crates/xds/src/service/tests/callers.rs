//! Who a stream is of, and whether it may be.

use super::*;

#[tokio::test]
async fn token_without_a_certificate_is_enough_and_neither_is_nothing() {
    let world = world(Some(mesh("a", ""))).await;
    let channel = world.channel(None).await.unwrap();
    let good = world.token("istio-system/ztunnel", Some("ztunnel-x"), "istio-ca");
    let other_pod = world.token("istio-system/ztunnel", Some("ztunnel-y"), "istio-ca");
    let other_audience = world.token("istio-system/ztunnel", None, "api");
    let app = world.token("app/ztunnel", None, "istio-ca");
    let bearer = |token: &str| format!("Bearer {token}");
    let [good, other_pod, other_audience, app] =
        [good, other_pod, other_audience, app].map(|token| bearer(&token));
    let lower = good.replace("Bearer", "bearer");
    let local = [
        ("authorization", good.as_str()),
        ("clusterid", "Kubernetes"),
    ];
    let foreign = [("authorization", good.as_str()), ("clusterid", "other")];
    let cases: [(&str, Headers<'_>, Result<(), Code>); 10] = [
        ("token", &[("authorization", &good)], Ok(())),
        ("token and cluster", &local, Ok(())),
        ("nothing", &[], Err(Code::Unauthenticated)),
        (
            "lower case",
            &[("authorization", &lower)],
            Err(Code::Unauthenticated),
        ),
        (
            "basic",
            &[("authorization", "Basic eDp5")],
            Err(Code::Unauthenticated),
        ),
        (
            "garbage",
            &[("authorization", "Bearer a.b.c")],
            Err(Code::Unauthenticated),
        ),
        (
            "audience",
            &[("authorization", &other_audience)],
            Err(Code::Unauthenticated),
        ),
        ("unknown cluster", &foreign, Err(Code::Unauthenticated)),
        (
            "other pod",
            &[("authorization", &other_pod)],
            Err(Code::PermissionDenied),
        ),
        (
            "other namespace",
            &[("authorization", &app)],
            Err(Code::PermissionDenied),
        ),
    ];
    for (case, headers, expected) in cases {
        let found = match with_headers(channel.clone(), headers).await {
            // Who is not known learns so before the headers of the response.
            Err(status) => {
                assert_eq!(status.code(), Code::Unauthenticated, "{case}: {status}");
                assert_eq!(status.message(), "authentication failure", "{case}");
                Err(status.code())
            }
            Ok(mut ads) => {
                ads.send(address()).await;
                ads.receive()
                    .await
                    .map(|_| ())
                    .map_err(|status| status.code())
            }
        };
        assert_eq!(found, expected, "{case}");
    }
    let refused = |reason| {
        world
            .metrics
            .identity_refused
            .with_label_values(&[reason])
            .get()
    };
    assert_eq!((refused("pod"), refused("namespace")), (1, 1));
}

#[tokio::test]
async fn claims_that_do_not_match_are_refused() {
    let world = world(Some(mesh("a", ""))).await;
    let node = |id: &str| first(id, Address.type_url());
    let long = format!("ztunnel~{}", "x".repeat(2000));
    let no_node = DeltaDiscoveryRequest {
        node: None,
        ..address()
    };
    let cases = [
        (
            "no node",
            "istio-system/ztunnel",
            no_node,
            Code::InvalidArgument,
        ),
        (
            "no id",
            "istio-system/ztunnel",
            node(""),
            Code::InvalidArgument,
        ),
        (
            "garbage",
            "istio-system/ztunnel",
            node("\u{1}~~~\u{7f}~"),
            Code::InvalidArgument,
        ),
        (
            "long id",
            "istio-system/ztunnel",
            node(&long),
            Code::InvalidArgument,
        ),
        (
            "not ztunnel",
            "istio-system/app",
            address(),
            Code::PermissionDenied,
        ),
        (
            "other namespace",
            "app/ztunnel",
            address(),
            Code::PermissionDenied,
        ),
        (
            "waypoint elsewhere",
            "app/wp",
            node("waypoint~1.1.1.1~wp.b~d"),
            Code::PermissionDenied,
        ),
    ];
    let cases_count = cases.len() as u64;
    for (case, account, request, code) in cases {
        let mut ads = ads(world.channel(Some(account)).await.unwrap())
            .await
            .unwrap();
        ads.send(request).await;
        assert_eq!(ads.receive().await.unwrap_err().code(), code, "{case}");
    }
    assert!(world.connections.is_empty());
    let refused = |code| world.metrics.refused.with_label_values(&[code]).get();
    assert_eq!(
        refused("InvalidArgument") + refused("PermissionDenied"),
        cases_count
    );
    assert!(refused("PermissionDenied") >= 3);
}

#[tokio::test]
async fn plaintext_is_for_the_loopback_only_and_needs_no_certificate() {
    let world = world(Some(mesh("a", ""))).await;
    let mut ads = ads(connect(Connector(world.plaintext, None)).await.unwrap())
        .await
        .unwrap();
    ads.send(address()).await;
    assert_eq!(ads.next().await.0, ["a"]);
    assert_eq!(world.connections.list()[0].peer.identity, None);

    let open = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let (_snapshots, snapshots) = watch::channel(None);
    let service = AdsService::new(Deps {
        snapshots,
        node_reader: Arc::new(Reader),
        interest: mpsc::channel(1).0,
        connections: Arc::default(),
        metrics: Arc::clone(&world.metrics),
        authenticator: authenticator(&world.issuer, &world.ahead),
        identity: IdentityPolicy::default(),
        secrets: None,
        cache: Arc::default(),
        streams_max: 1,
        streams_per_second: 1,
        shutdown: CancellationToken::new(),
    });
    let config = ServerConfig {
        tls: None,
        plaintext: Some((open, Routes::new(service))),
        limits: Limits::default(),
    };
    let result = serve(config, Arc::clone(&world.metrics), CancellationToken::new()).await;
    assert!(
        matches!(result, Err(ServerError::NotLoopback(_))),
        "{result:?}"
    );
}
