//! What rules come down to.

use super::*;

#[test]
fn a_plain_rule_is_one_whole_route() {
    let found = World::only(rule("/a/", vec![]));
    let expected = RouteIr {
        name: "app.r.0".into(),
        path: RoutePath::Prefix("/a".into()),
        ignore_case: false,
        headers: Vec::new(),
        query: Vec::new(),
        claims: Vec::new(),
        action: RouteAction::Forward(Box::new(ForwardIr {
            clusters: vec![WeightedCluster::plain(V1.into(), 1)],
            timeout: Duration::ZERO,
            retry: Some(RetryIr::builtin()),
            host_rewrite: None,
            path_rewrite: None,
            mirrors: Vec::new(),
            hash: Vec::new(),
            missing_is_500: true,
        })),
        request: HeaderEdits::default(),
        response: HeaderEdits::default(),
        cors: None,
        fault: None,
        session: None,
        operation: "v1.app.svc.cluster.local:80/*".into(),
        stat_prefix: Str::new(),
        origin: Some(ObjectRef::new(Kind::HttpRoute, ObjectKey::new("app", "r"))),
    };
    assert_eq!(found, expected);
}

#[test]
fn without_routes_all_goes_to_the_service() {
    let found = World::new().routes();
    let expected = RouteIr::everything(
        "default".into(),
        WEB.into(),
        "web.app.svc.cluster.local:80/*".into(),
    );
    assert_eq!(found.routes, [expected]);
    assert_eq!(found.domain, "*");
    assert!(found.outbound.is_empty());
}

#[test]
fn weights_zero_missing_and_foreign_backends() {
    let mut world = World::new();
    world.http(
        "app/r",
        1,
        own(vec![
            HttpRule {
                backends: vec![
                    backend("v1", 3),
                    backend("v2", 0),
                    backend("none", 1),
                    backend("depot/far", 2),
                ],
                ..rule("/long", vec![])
            },
            HttpRule {
                backends: vec![backend("v1", 0)],
                ..rule("/no", vec![])
            },
            HttpRule {
                backends: vec![],
                ..rule("/e", vec![])
            },
        ]),
    );
    let found = world.routes();
    let expected = [(V1, 3), ("UnknownService", 1), (FAR, 2)];
    assert_eq!(sent(&found.routes[0]), expected);
    assert_eq!(found.routes[0].operation, "r:80/*");
    for route in &found.routes[1..] {
        assert_eq!(route.action, RouteAction::Respond(500, bytes::Bytes::new()));
    }
    let far = Outbound {
        service: key_of("depot", "far"),
        port: 80,
        subset: Str::new(),
    };
    assert_eq!(found.outbound, [far].into());
}

#[test]
fn redirects_say_a_port_where_the_scheme_does_not() {
    let redirect = |redirect: HttpRedirect, port: u16| {
        let rule = rule("/a", vec![RouteFilter::Redirect(redirect)]);
        let mut world = World::new();
        world.service("web").ports[0].port = port;
        world.http("app/r", 1, own(vec![rule]));
        let found =
            world.at(|site, tables, reads| for_port(site, tables, reads, port, &WEB.into()));
        assert!(found.outbound.is_empty());
        match &found.routes[0].action {
            RouteAction::Redirect(redirect) => redirect.clone(),
            other => panic!("{other:?}"),
        }
    };
    for (scheme, explicit, listener, expected) in [
        (None, None, 80, None),
        (None, None, 8080, Some(8080)),
        (None, None, 443, Some(443)),
        (None, Some(80), 8080, None),
        (Some("https"), None, 8080, None),
        (Some("http"), None, 8080, None),
        (Some("https"), Some(443), 80, None),
        (Some("https"), Some(80), 80, Some(80)),
        (Some("http"), Some(8443), 80, Some(8443)),
    ] {
        let filter = HttpRedirect {
            scheme: scheme.map(Str::from),
            port: explicit,
            status: 302,
            ..HttpRedirect::default()
        };
        let found = redirect(filter, listener);
        assert_eq!(found.port, expected, "{scheme:?} {explicit:?} {listener}");
    }
    let whole = HttpRedirect {
        scheme: Some("https".into()),
        host: Some("h".into()),
        path: Some(PathModifier::Prefix("/b/".into())),
        port: Some(1),
        status: 308,
    };
    let expected = RedirectIr {
        status: 308,
        scheme: Some("https".into()),
        host: Some("h".into()),
        port: Some(1),
        path: Some(PathRewrite::Prefix("/b".into())),
    };
    assert_eq!(redirect(whole, 80), expected);
}

#[test]
fn paths_are_rewritten_by_what_matched_them() {
    let prefix_to = |to: &str| PathModifier::Prefix(to.into());
    let strip = |of: &str| Some(PathRewrite::StripPrefix(of.into()));
    let by = |to: &str| Some(PathRewrite::Prefix(to.into()));
    let full = |to: &str| Some(PathRewrite::Full(to.into()));
    for (m, modifier, expected) in [
        (prefix("/a"), prefix_to("/b"), by("/b")),
        (prefix("/a/"), prefix_to("/b/"), by("/b")),
        (prefix("/a"), prefix_to("/"), strip("/a")),
        (prefix("/a"), prefix_to(""), strip("/a")),
        (prefix("/"), prefix_to("/b"), by("/b/")),
        (prefix("/"), prefix_to("/"), None),
        (
            with_path(PathMatch::Exact("/a".into())),
            prefix_to("/"),
            full("/"),
        ),
        (prefix("/a"), PathModifier::Full("/f".into()), full("/f")),
    ] {
        let filter = RouteFilter::Rewrite(HttpRewrite {
            host: Some("h".into()),
            path: Some(modifier.clone()),
        });
        let found = World::only(HttpRule {
            matches: vec![m],
            ..rule("/", vec![filter])
        });
        assert_eq!(forward(&found).path_rewrite, expected, "{modifier:?}");
        assert_eq!(forward(&found).host_rewrite, Some("h".into()));
    }
}

#[test]
fn headers_change_and_a_host_is_rewritten() {
    let backend_filter = RouteFilter::RequestHeaders(edits(&[("host", "b"), ("x-b", "2")]));
    let with = |filters| HttpRule {
        backends: vec![
            BackendRef {
                filters: vec![backend_filter.clone()],
                ..backend("v1", 1)
            },
            backend("v2", 1),
        ],
        ..rule("/", filters)
    };
    let found = World::only(with(vec![
        RouteFilter::RequestHeaders(HeaderEdits {
            set: vec![("x-a".into(), "1".into()), (":path".into(), "/".into())],
            add: vec![(":authority".into(), "added".into())],
            remove: vec!["x-c".into(), "host".into()],
        }),
        RouteFilter::ResponseHeaders(edits(&[("x-r", "3"), ("host", "no")])),
    ]));
    assert_eq!(
        found.request,
        HeaderEdits {
            remove: vec!["x-c".into()],
            ..edits(&[("x-a", "1")])
        }
    );
    assert_eq!(found.response, edits(&[("x-r", "3")]));
    let to = forward(&found);
    assert_eq!(to.host_rewrite, Some("added".into()));
    assert_eq!(to.clusters[0].request, edits(&[("x-b", "2")]));
    // The rule says a host, so the backend's is not used.
    assert_eq!(to.clusters[0].host_rewrite, None);
    let found = World::only(with(vec![]));
    let to = forward(&found);
    assert_eq!(to.host_rewrite, None);
    assert_eq!(to.clusters[0].host_rewrite, Some("b".into()));
}

#[test]
fn mirrors_that_lead_nowhere_are_left_out_and_void_a_grpc_route() {
    let mirror = |name: &str, per_million| {
        RouteFilter::Mirror(HttpMirror {
            target: backend(name, 1).target,
            per_million,
        })
    };
    let rules = || {
        let filters = vec![
            mirror("v2", 5_000),
            mirror("none", 1),
            mirror("v2", 0),
            mirror("depot/far", 1_000_000),
        ];
        own(vec![rule("/", filters)])
    };
    let mut world = World::new();
    world.http("app/r", 1, rules());
    let found = world.routes();
    let mirrors: Vec<_> = forward(&found.routes[0])
        .mirrors
        .iter()
        .map(|to| (to.cluster.as_str(), to.per_million))
        .collect();
    assert_eq!(mirrors, [(V2, 5_000), (FAR, 1_000_000)]);
    assert_eq!(found.outbound.len(), 1);
    let mut world = World::new();
    world.grpc("app/r", 1, rules());
    assert_eq!(names(&world.routes()), ["default"]);
}

#[test]
fn cors_origins_are_typed() {
    let filter = HttpCors {
        origins: ["*", "https://a", "https://*", "https://*.a:*", "*.b"]
            .map(Str::from)
            .into(),
        methods: vec!["GET".into(), "PUT".into()],
        headers: vec!["X-A".into()],
        expose: vec![],
        credentials: true,
        max_age_s: Some(9),
    };
    let found = World::only(rule("/", vec![RouteFilter::Cors(filter)]));
    let pieces =
        |list: &[&str]| OriginMatch::Pieces(list.iter().map(|one| Str::from(*one)).collect());
    let expected = CorsIr {
        origins: vec![
            OriginMatch::Any,
            OriginMatch::Exact("https://a".into()),
            OriginMatch::Prefix("https://".into()),
            pieces(&["https://", ".a:", ""]),
            pieces(&["", ".b"]),
        ],
        methods: "GET,PUT".into(),
        headers: "X-A".into(),
        expose: Str::new(),
        max_age_s: Some(9),
        credentials: Some(true),
        forward_unmatched_preflights: false,
    };
    assert_eq!(found.cors, Some(expected));
}

#[test]
fn timeouts_and_retries_of_a_rule() {
    let s = Duration::from_secs;
    let retry = |attempts: Option<u32>, codes: &[u16]| HttpRetry {
        codes: codes.to_vec(),
        attempts,
        backoff: Some(Duration::from_millis(25)),
    };
    let made = |request, backend_request, retry| {
        let found = World::only(HttpRule {
            timeouts: HttpTimeouts {
                request,
                backend_request,
            },
            retry,
            ..rule("/", vec![])
        });
        let to = forward(&found);
        (to.timeout, to.retry.clone())
    };
    let builtin = || Some(RetryIr::builtin());
    assert_eq!(made(Some(s(9)), None, None), (s(9), builtin()));
    assert_eq!(made(Some(s(0)), Some(s(0)), None), (s(0), builtin()));
    assert_eq!(made(Some(s(9)), Some(s(2)), None), (s(2), builtin()));
    let off = made(Some(s(9)), Some(s(2)), Some(retry(Some(0), &[])));
    assert_eq!(off, (s(2), None));
    let own = made(Some(s(9)), Some(s(2)), Some(retry(None, &[500, 503])));
    let expected = RetryIr {
        statuses: vec![500, 503],
        per_try_timeout: Some(s(2)),
        backoff: Some(Duration::from_millis(25)),
        ..RetryIr::builtin()
    };
    assert_eq!(own, (s(9), Some(expected)));
    let (_, plain) = made(None, None, Some(retry(Some(5), &[])));
    let plain = plain.unwrap();
    let on = [
        "connect-failure",
        "refused-stream",
        "unavailable",
        "cancelled",
    ];
    assert_eq!(plain.on, on.map(Str::from));
    assert_eq!(plain.attempts, 5);
}

#[test]
fn retries_of_the_mesh_are_for_rules_that_say_nothing() {
    let mut mesh = MeshRow::default();
    let retries = |attempts, words: &[&str]| Retries {
        attempts,
        retry_on: words.iter().map(|word| Str::from(*word)).collect(),
        remote_localities: true,
        ..Retries::default()
    };
    assert_eq!(retry_of(&mesh, None, false), Some(RetryIr::builtin()));
    assert!(!retry_of(&mesh, None, true).unwrap().avoid_previous_hosts);
    mesh.traffic.default_retries = Some(retries(0, &[]));
    assert_eq!(retry_of(&mesh, None, false), None);
    let own = retries(4, &["5xx", "503"]);
    let expected = RetryIr {
        on: vec!["5xx".into(), "retriable-status-codes".into()],
        statuses: vec![503],
        attempts: 4,
        avoid_previous_priorities: true,
        ..RetryIr::builtin()
    };
    assert_eq!(retry_of(&mesh, Some(&own), false), Some(expected));
    mesh.traffic.default_retries = Some(retries(1, &["gateway-error"]));
    let mut world = World::new();
    world.mesh = mesh;
    let found = world.routes();
    let to = forward(&found.routes[0]).retry.clone().unwrap();
    assert_eq!((to.on, to.attempts), (vec!["gateway-error".into()], 1));
}

#[test]
fn sessions_are_kept_in_cookies_or_headers() {
    let session = |session: SessionPersistence, m: HttpMatch| {
        World::only(HttpRule {
            matches: vec![m],
            session: Some(session),
            ..rule("/", vec![])
        })
        .session
        .unwrap()
    };
    let cookie = |name: &str, path: &str, ttl_s| SessionIr::Cookie {
        name: name.into(),
        path: path.into(),
        ttl: Duration::from_secs(ttl_s),
    };
    let lasting = |permanent| SessionPersistence {
        name: "who".into(),
        absolute_timeout: Some(Duration::from_secs(60)),
        permanent,
        ..SessionPersistence::default()
    };
    assert_eq!(
        session(lasting(true), prefix("/a")),
        cookie("who", "/a", 60)
    );
    assert_eq!(session(lasting(false), prefix("/")), cookie("who", "/", 0));
    let regex = with_path(PathMatch::Regex("/x.*".into()));
    let unnamed = SessionPersistence::default();
    assert_eq!(session(unnamed, regex), cookie("session-app.r.0", "/", 0));
    let header = SessionPersistence {
        name: "X-Who".into(),
        header: true,
        ..SessionPersistence::default()
    };
    assert_eq!(
        session(header, prefix("/")),
        SessionIr::Header("x-who".into())
    );
}

#[test]
fn grpc_methods_are_paths() {
    let mut world = World::new();
    let matches = vec![
        with_path(PathMatch::AnyServiceMethod("Get".into())),
        prefix("/p.S"),
        with_path(PathMatch::Exact("/p.S/Get".into())),
        HttpMatch::default(),
    ];
    world.grpc(
        "app/r",
        1,
        own(vec![HttpRule {
            matches,
            ..rule("/", vec![])
        }]),
    );
    let found = world.routes();
    let paths: Vec<_> = found
        .routes
        .iter()
        .map(|route| route.path.clone())
        .collect();
    assert_eq!(
        paths,
        [
            RoutePath::Exact("/p.S/Get".into()),
            RoutePath::Prefix("/p.S".into()),
            RoutePath::Template("/*/Get".into()),
            RoutePath::Any,
        ]
    );
    let origin = ObjectRef::new(Kind::GrpcRoute, ObjectKey::new("app", "r"));
    assert_eq!(found.routes[0].origin, Some(origin));
}

#[test]
fn hard_errors_leave_nothing_of_a_route() {
    let good = || rule("/a", vec![]);
    let broken = |edit: fn(&mut HttpRule)| {
        let mut rule = good();
        edit(&mut rule);
        rule
    };
    let rewrite = RouteFilter::Rewrite(HttpRewrite {
        host: None,
        path: Some(PathModifier::Prefix("/b".into())),
    });
    let regex = || with_path(PathMatch::Regex("/a.*".into()));
    let cases = [
        (
            broken(|rule| rule.filters = vec![RouteFilter::Unsupported("ExtensionRef".into())]),
            ("filters[0]", "route-filter-not-supported"),
        ),
        (
            broken(|rule| rule.filters = vec![RouteFilter::Invalid("T".into(), "why".into())]),
            ("filters[0]", "route-filter-invalid"),
        ),
        (
            broken(|rule| rule.backends[0].filters = vec![RouteFilter::Unsupported("CORS".into())]),
            ("backendRefs[0].filters[0]", "route-filter-not-supported"),
        ),
        (
            broken(|rule| rule.unsupported = vec!["matches[0].method".into()]),
            ("matches[0].method", "route-match-not-supported"),
        ),
        (
            broken(|rule| rule.backends[0].target.port = None),
            ("backendRefs[0]", "route-backend-invalid"),
        ),
        (
            broken(|rule| rule.backends[0].target.name = "a.b".into()),
            ("backendRefs[0]", "route-backend-invalid"),
        ),
        (
            broken(|rule| rule.backends[0].target = reference("Hostname", "x", "a.b", Some(1))),
            ("backendRefs[0]", "route-backend-invalid"),
        ),
        (
            HttpRule {
                matches: vec![regex()],
                filters: vec![rewrite],
                ..good()
            },
            ("filters[0]", "route-filter-invalid"),
        ),
    ];
    for (bad, (field, code)) in cases {
        let route = own(vec![good(), bad]);
        let found = defect(&"app".into(), &route).unwrap_or_else(|| panic!("{field} {code}"));
        let at = format!("spec.rules[1].{field}");
        assert_eq!((found.field, found.code), (at, code), "{}", found.reason);
        let mut world = World::new();
        world.http("app/r", 1, route);
        assert_eq!(names(&world.routes()), ["default"], "{code}");
    }
    assert_eq!(defect(&"app".into(), &own(vec![good()])), None);
}

#[test]
fn bad_matches_cost_themselves_alone() {
    let header = |name: &str, value| HttpMatch {
        headers: vec![(name.into(), value)],
        ..HttpMatch::default()
    };
    let method = |method: &str| HttpMatch {
        method: Some(method.into()),
        ..HttpMatch::default()
    };
    let exact = || ValueMatch::Exact("c".into());
    let cases = [
        (with_path(PathMatch::Regex("(".into())), "path"),
        (with_path(PathMatch::Regex("(?=a)".into())), "path"),
        (with_path(PathMatch::Exact("a".into())), "path"),
        (with_path(PathMatch::Prefix("/a?b".into())), "path"),
        (with_path(PathMatch::AnyServiceMethod("a-b".into())), "path"),
        (
            with_path(PathMatch::AnyServiceMethod("a".repeat(254).into())),
            "path",
        ),
        (method("get"), "method"),
        (header("a b", exact()), "headers[0].name"),
        (header("", exact()), "headers[0].name"),
        (
            header("a", ValueMatch::Regex("[".into())),
            "headers[0].value",
        ),
        (
            header("a", ValueMatch::Exact("b\nc".into())),
            "headers[0].value",
        ),
        (
            HttpMatch {
                query: vec![("a".into(), exact()), ("b\0".into(), exact())],
                ..HttpMatch::default()
            },
            "queryParams[1].name",
        ),
    ];
    for (bad, field) in cases {
        let both = HttpRule {
            matches: vec![bad.clone(), with_path(PathMatch::Exact("/both".into()))],
            ..rule("/b", vec![])
        };
        let alone = HttpRule {
            matches: vec![bad],
            ..rule("/c", vec![])
        };
        let route = own(vec![both, alone.clone()]);
        assert_eq!(defect(&"app".into(), &route), None, "{field}");
        let found = bad_matches(&route);
        let fields: Vec<&str> = found.iter().map(|one| one.field.as_str()).collect();
        let at = |i: usize| format!("spec.rules[{i}].matches[0].{field}");
        assert_eq!(fields, [at(0), at(1)]);
        let mut world = World::new();
        world.http("app/r", 1, route);
        assert_eq!(names(&world.routes()), ["app.r.0"], "{field}");
        // A rule without any good match is no rule without match.
        let mut world = World::new();
        world.http("app/r", 1, own(vec![alone]));
        assert_eq!(names(&world.routes()), ["default"], "{field}");
    }
}

#[test]
fn hash_keys_of_destinations_are_carried_and_retries_stay() {
    let mut world = World::new();
    let key: ObjectKey = "app/d".parse().unwrap();
    let hashed = DestinationRule {
        host: "v1".into(),
        policy: Some(TrafficPolicy {
            base: PortPolicy {
                balancer: Some(LoadBalancer {
                    balancer: Balancer::Hash(ConsistentHash {
                        key: Some(HashKey::SourceIp),
                        maglev: None,
                        ring_size: None,
                    }),
                    ..LoadBalancer::default()
                }),
                ..PortPolicy::default()
            },
            ..TrafficPolicy::default()
        }),
        ..DestinationRule::default()
    };
    world.rules.insert(key.clone(), parsed(&key, 1, hashed));
    world.http("app/r", 1, own(vec![rule("/", vec![])]));
    let found = world.routes();
    let to = forward(&found.routes[0]);
    assert_eq!(to.hash, [HashKey::SourceIp]);
    assert!(!to.retry.clone().unwrap().avoid_previous_hosts);
}
