//! The rows of spec/policy-and-traffic.md §11 that emission answers for, by their numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use model::Kind;
use model::input::{AbortStatus, OutlierDetection, PathNormalization};

use super::chains::{asked, chain, http, is, provider, rule, wildcard};
use super::clusters::{cluster, tls};
use super::routes::{cookie, forward, origin, plain, to};
use super::*;

fn rbac(ir: RbacIr) -> Value {
    filters(vec![ChainFilter::Rbac(ir)])[0]["typedConfig"].clone()
}

fn filters(list: Vec<ChainFilter>) -> Vec<Value> {
    let chain = chain_json(&chain(
        "c",
        list,
        http(PathNormalization::Base, false, None),
    ));
    manager(&chain)["httpFilters"].as_array().unwrap().clone()
}

fn manager(chain: &Value) -> Value {
    chain["filters"].as_array().unwrap().last().unwrap()["typedConfig"].clone()
}

fn network(list: Vec<ChainFilter>) -> Vec<Value> {
    let ir = ChainIr {
        republish_destination: false,
        ..chain("c", list, ChainBody::Tcp(TcpIr::to(text("c"))))
    };
    chain_json(&ir)["filters"].as_array().unwrap().clone()
}

fn only(action: RbacAction, permissions: Vec<Expr>, principals: Vec<Expr>) -> RbacIr {
    RbacIr {
        action,
        rules: Some(rule(permissions, principals)),
        shadow: None,
    }
}

const KEY: &str = "ns[a]-policy[x]-rule[0]";

/// JSON of one permission, and of one principal.
fn permission(expr: Expr) -> Value {
    let ir = only(RbacAction::Deny, vec![expr], vec![Expr::always()]);
    rbac(ir)["rules"]["policies"][KEY]["permissions"][0].clone()
}

fn principal(expr: Expr) -> Value {
    let ir = only(RbacAction::Deny, vec![Expr::always()], vec![expr]);
    rbac(ir)["rules"]["policies"][KEY]["principals"][0].clone()
}

fn exact(of: &str) -> StrMatch {
    StrMatch::Exact(text(of))
}

#[test]
fn rbac_rows_1_to_25() {
    let never = only(RbacAction::Allow, vec![Expr::never()], vec![Expr::never()]);
    let policy = json!({"permissions": [{"notRule": {"any": true}}],
                        "principals": [{"notId": {"any": true}}]});
    // Rows 1 and 2.
    assert_has(&rbac(never.clone())["rules"]["policies"][KEY], &policy);
    let tcp = &network(vec![ChainFilter::Rbac(never)])[0];
    let expected = json!({"name": "envoy.filters.network.rbac", "typedConfig": {
        "statPrefix": "tcp.", "rules": {"policies": {KEY: policy}}}});
    assert_has(tcp, &expected);
    assert_eq!(
        permission(Expr::always()),
        json!({"andRules": {"rules": [{"any": true}]}})
    );
    assert_eq!(
        principal(Expr::always()),
        json!({"andIds": {"ids": [{"any": true}]}})
    );
    // Rows 5 to 9.
    let get = Expr::AnyOf(vec![is(Fact::Header(text(":method"), exact("GET"), false))]);
    let under = |prefix| is(Fact::Path(StrMatch::Prefix(text(prefix))));
    let expected = json!({"andRules": {"rules": [
        {"orRules": {"rules": [{"header": {"name": ":method", "stringMatch": {"exact": "GET"}}}]}},
        {"orRules": {"rules": [{"urlPath": {"path": {"prefix": "/a"}}}]}},
    ]}});
    assert_eq!(
        permission(Expr::AllOf(vec![get, Expr::AnyOf(vec![under("/a")])])),
        expected
    );
    assert_eq!(
        permission(Expr::AnyOf(vec![under("/admin")]).negated()),
        json!({"notRule": {"orRules": {"rules": [{"urlPath": {"path": {"prefix": "/admin"}}}]}}})
    );
    let host = Fact::Header(
        text(":authority"),
        StrMatch::Suffix(text(".Example.com")),
        true,
    );
    assert_eq!(
        permission(is(host)),
        json!({"header": {"name": ":authority",
               "stringMatch": {"suffix": ".Example.com", "ignoreCase": true}}})
    );
    assert_has(
        &permission(is(Fact::PathTemplate(text("/v1/*/items/**")))),
        &json!({"uriTemplate": {"name": "uri-template",
                "typedConfig": {"pathTemplate": "/v1/*/items/**"}}}),
    );
    assert_eq!(
        permission(is(Fact::Path(StrMatch::Present))),
        json!({"urlPath": {"path": {"safeRegex": {"regex": ".+"}}}})
    );
    assert_eq!(
        permission(is(Fact::Header(text(":method"), StrMatch::Present, false))),
        json!({"header": {"name": ":method", "presentMatch": true}})
    );
    // Row 10: the carrier of identities.
    assert_eq!(
        principal(is(Fact::Identity(exact("spiffe://old/ns/b/sa/x")))),
        json!({"filterState": {"key": "io.istio.peer_principal",
               "stringMatch": {"exact": "spiffe://old/ns/b/sa/x"}}})
    );
    // Row 17: the address that HBONE carried.
    let ip = "10.0.0.0/8".parse().unwrap();
    assert_eq!(
        principal(is(Fact::SourceIp(ip))),
        json!({"sourceIp": {"addressPrefix": "10.0.0.0", "prefixLen": 8}})
    );
    // Row 21.
    let team = Fact::Header(text("X-Team"), StrMatch::Present, false);
    assert_eq!(
        principal(Expr::AnyOf(vec![is(team)]).negated()),
        json!({"notId": {"orIds": {"ids": [{"header": {"name": "X-Team", "presentMatch": true}}]}}})
    );
    // Row 22: an ALLOW filter without policies refuses everything.
    let empty = RbacIr {
        action: RbacAction::Allow,
        rules: Some(BTreeMap::new()),
        shadow: None,
    };
    assert_eq!(
        network(vec![ChainFilter::Rbac(empty)])[0]["typedConfig"]["rules"],
        json!({})
    );
    // Rows 24 and 25.
    let mut dry = only(RbacAction::Deny, vec![Expr::always()], vec![Expr::always()]);
    std::mem::swap(&mut dry.rules, &mut dry.shadow);
    let expected = json!({"shadowRulesStatPrefix": "istio_dry_run_deny_", "rules": null});
    assert_has(&rbac(dry), &expected);
}

#[test]
fn token_rows_19_and_20() {
    let iss = is(Fact::Claim(texts(&["iss"]), vec![exact("https://iss")]));
    let sub = is(Fact::Claim(texts(&["sub"]), vec![StrMatch::Present]));
    let claim = |name: &str, value: Value| {
        json!({"metadata": {"filter": "envoy.filters.http.jwt_authn",
               "path": [{"key": "payload"}, {"key": name}], "value": {"stringMatch": value}}})
    };
    assert_eq!(
        principal(Expr::AllOf(vec![iss, sub])),
        json!({"andIds": {"ids": [
            claim("iss", json!({"exact": "https://iss"})),
            claim("sub", json!({"safeRegex": {"regex": ".+"}})),
        ]}})
    );
    let roles = Fact::ClaimOrItem(texts(&["realm", "roles"]), vec![exact("a"), exact("b")]);
    let either = json!({"orMatch": {"valueMatchers": [
        {"stringMatch": {"exact": "a"}}, {"stringMatch": {"exact": "b"}}]}});
    let expected = json!({"metadata": {
        "filter": "envoy.filters.http.jwt_authn",
        "path": [{"key": "payload"}, {"key": "realm"}, {"key": "roles"}],
        "value": {"orMatch": {"valueMatchers": [{"listMatch": {"oneOf": either}}, either]}},
    }});
    assert_eq!(principal(is(roles.clone())), expected);
    assert_eq!(permission(is(roles)), expected);
    // Nothing is one of no texts.
    let none = Fact::Claim(texts(&["iss"]), vec![]);
    assert_eq!(principal(is(none)), json!({"notId": {"any": true}}));
}

#[test]
fn filters_stand_in_the_order_of_row_4() {
    let deny = only(RbacAction::Deny, vec![Expr::always()], vec![Expr::always()]);
    let ask = RbacIr {
        action: RbacAction::Ask,
        rules: None,
        shadow: deny.rules.clone(),
    };
    let jwt = JwtIr {
        providers: vec![provider("a")],
    };
    let list = vec![
        ChainFilter::Rbac(ask),
        ChainFilter::ExtAuthz(Box::new(asked(false))),
        ChainFilter::Jwt(jwt),
        ChainFilter::Rbac(deny),
    ];
    let ir = chain(
        "c",
        list,
        http(PathNormalization::Base, true, Some(wildcard())),
    );
    let manager = manager(&chain_json(&ir));
    let names: Vec<&str> = manager["httpFilters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|filter| filter["name"].as_str().unwrap())
        .collect();
    let expected = [
        "istio.waypoint.xfcc_client_identity",
        "envoy.filters.http.rbac",
        "envoy.filters.http.ext_authz",
        "envoy.filters.http.jwt_authn",
        "envoy.filters.http.rbac",
        "envoy.filters.http.grpc_web",
        "envoy.filters.http.grpc_stats",
        "envoy.filters.http.fault",
        "envoy.filters.http.cors",
        "dynamic_port",
        "envoy.filters.http.dynamic_forward_proxy",
        "envoy.filters.http.stateful_session",
        "envoy.filters.http.router",
    ];
    assert_eq!(names, expected);
    assert_eq!(manager["forwardClientCertDetails"], "ALWAYS_FORWARD_ONLY");
    assert_eq!(manager["useRemoteAddress"], false);
    assert_has(
        &manager["httpFilters"][1]["typedConfig"],
        &json!({"shadowRulesStatPrefix": "istio_ext_authz_", "rules": null}),
    );
}

#[test]
fn authorizer_row_29() {
    let marked = |rbac: &str| {
        json!({"filter": rbac, "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
               "value": {"stringMatch": {"prefix": "istio-ext-authz-ext-ns["}}})
    };
    let http = &filters(vec![ChainFilter::ExtAuthz(Box::new(asked(true)))])[0]["typedConfig"];
    let expected = json!({
        "transportApiVersion": "V3",
        "failureModeAllow": true,
        "clearRouteCache": true,
        "statusOnError": {"code": "ServiceUnavailable"},
        "withRequestBody": {"maxRequestBytes": 4096, "allowPartialMessage": true, "packAsBytes": true},
        "filterEnabledMetadata": marked("envoy.filters.http.rbac"),
        "allowedHeaders": {"patterns": [{"prefix": "x-", "ignoreCase": true},
                                        {"exact": "Cookie", "ignoreCase": true}]},
        "httpService": {"pathPrefix": "/check", "serverUri": {
            "uri": "http://ext.a.svc.cluster.local", "timeout": "600s",
            "cluster": "outbound|9000||ext.a.svc.cluster.local"}},
    });
    assert_has(http, &expected);
    let grpc = &network(vec![ChainFilter::ExtAuthz(Box::new(asked(false)))])[0];
    let expected = json!({"name": "envoy.filters.network.ext_authz", "typedConfig": {
        "statPrefix": "tcp.",
        "filterEnabledMetadata": marked("envoy.filters.network.rbac"),
        "grpcService": {"timeout": "600s", "envoyGrpc": {"authority": "ext.a.svc.cluster.local"}},
    }});
    assert_has(grpc, &expected);
    // An authorizer that only knows requests cannot be asked about connections: those that
    // should be asked about are refused.
    let refusing = &network(vec![ChainFilter::ExtAuthz(Box::new(asked(true)))])[0];
    let policy = json!({"permissions": [{"metadata": marked("envoy.filters.network.rbac")}]});
    let expected = json!({"name": "envoy.filters.network.rbac", "typedConfig": {
        "rules": {"action": "DENY", "policies": {"istio-ext-authz-http-provider": policy}}}});
    assert_has(refusing, &expected);
}

#[test]
fn token_providers_rows_32_to_35() {
    let jwt = |providers: Vec<JwtProviderIr>| {
        filters(vec![ChainFilter::Jwt(JwtIr { providers })])[0]["typedConfig"].clone()
    };
    let by = |n: u8| json!({"providerName": format!("origins-{n}")});
    let or_missing = |n| json!({"requiresAny": {"requirements": [by(n), {"allowMissing": {}}]}});
    let one = jwt(vec![provider("a")]);
    let rules = json!([{"match": {"prefix": "/"}, "requires": or_missing(0)}]);
    assert_eq!(one["rules"], rules);
    assert_eq!(one["bypassCorsPreflight"], true);
    let cookies = JwtProviderIr {
        from_headers: vec![],
        from_params: vec![],
        ..provider("b")
    };
    let two = jwt(vec![provider("a"), cookies]);
    let all = json!({"requiresAll": {"requirements": [or_missing(0), or_missing(1)]}});
    let any = json!({"requiresAny": {"requirements": [by(0), by(1), all]}});
    assert_eq!(two["rules"][0]["requires"], any);
    let expected = json!({"origins-1": {
        "issuer": "b", "fromHeaders": null, "fromParams": null, "fromCookies": ["token"],
        "localJwks": {"inlineString": provider("b").jwks.to_string()},
        "payloadInMetadata": "payload", "clearRouteCache": true,
        "normalizePayloadInMetadata": {"spaceDelimitedClaims": ["groups", "permission", "scope"]},
    }});
    assert_has(&two["providers"], &expected);
}

#[test]
fn route_rows_45_to_57() {
    let everything = || forward("r", RoutePath::Any, to("c"));
    let split = ForwardIr {
        clusters: vec![
            WeightedCluster::plain(text("a"), 80),
            WeightedCluster::plain(text("b"), 20),
        ],
        ..to("")
    };
    let timed = ForwardIr {
        timeout: Duration::from_secs(3),
        ..to("c")
    };
    let hashed = ForwardIr {
        retry: Some(RetryIr {
            avoid_previous_hosts: false,
            ..RetryIr::builtin()
        }),
        hash: vec![cookie(None)],
        ..to("c")
    };
    let retried = ForwardIr {
        retry: Some(RetryIr {
            on: texts(&["reset", "retriable-status-codes"]),
            statuses: vec![503],
            attempts: 3,
            ..RetryIr::builtin()
        }),
        ..to("c")
    };
    let abort = FaultIr {
        delay: None,
        abort: Some((AbortStatus::Http(500), 125_000)),
    };
    let redirect = RedirectIr {
        status: 301,
        port: Some(8443),
        path: Some(PathRewrite::Full(text("/x"))),
        ..Default::default()
    };
    let unknown = ForwardIr {
        missing_is_500: true,
        ..to("UnknownService")
    };
    let cases = [
        (
            47,
            forward("r", RoutePath::Any, split),
            json!({"route": {"weightedClusters": {"clusters": [
            {"name": "a", "weight": 80}, {"name": "b", "weight": 20}]}}}),
        ),
        (
            48,
            forward("r", RoutePath::TextPrefix(text("/foo")), to("c")),
            json!({"match": {"prefix": "/foo", "caseSensitive": true}}),
        ),
        (
            48,
            forward("r", RoutePath::Prefix(text("/foo")), to("c")),
            json!({"match": {"pathSeparatedPrefix": "/foo"}}),
        ),
        (
            49,
            everything(),
            json!({"route": {"timeout": "0s",
            "maxStreamDuration": {"grpcTimeoutHeaderMax": "0s"}, "retryPolicy": {
                "retryOn": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
                "numRetries": 2, "hostSelectionRetryMaxAttempts": "5",
                "retryHostPredicate": [{"name": "envoy.retry_host_predicates.previous_hosts"}]}}}),
        ),
        (
            49,
            forward("r", RoutePath::Any, timed),
            json!({"route": {"timeout": "3s"}}),
        ),
        (
            50,
            forward("r", RoutePath::Any, hashed),
            json!({"route": {
            "retryPolicy": {"retryHostPredicate": null},
            "hashPolicy": [{"cookie": {"name": "user", "path": "/", "ttl": null}}]}}),
        ),
        (
            51,
            forward("r", RoutePath::Any, retried),
            json!({"route": {"retryPolicy": {"numRetries": 3,
            "retryOn": "reset,retriable-status-codes", "retriableStatusCodes": [503]}}}),
        ),
        (
            52,
            RouteIr {
                fault: Some(abort),
                ..everything()
            },
            json!({"typedPerFilterConfig": {
            "envoy.filters.http.fault": {"abort": {"httpStatus": 500,
                "percentage": {"numerator": 125_000, "denominator": "MILLION"}}}}}),
        ),
        (
            53,
            everything(),
            json!({"route": {"requestMirrorPolicies": null}}),
        ),
        (
            54,
            plain("r", RoutePath::Any, RouteAction::Redirect(redirect)),
            json!({"redirect": {"pathRedirect": "/x", "portRedirect": 8443}}),
        ),
        (
            57,
            forward("r", RoutePath::Any, unknown),
            json!({"route": {"cluster": "UnknownService",
            "clusterNotFoundResponseCode": "INTERNAL_SERVER_ERROR"}}),
        ),
    ];
    for (row, ir, expected) in cases {
        let actual = route_json(ir);
        assert!(has(&actual, &expected), "row {row}: {actual:#}");
    }
    let routes = RoutesIr {
        name: text("inbound-vip|9080|http|reviews.a.svc.cluster.local"),
        port: 9080,
        domain: text("*"),
        routes: vec![everything()],
        outbound: Default::default(),
    };
    let expected = json!({"name": "inbound-vip|9080|http|reviews.a.svc.cluster.local",
        "virtualHosts": [{"name": "inbound|http|9080", "domains": ["*"]}]});
    assert_has(&json_of(&emit::routes(&routes)), &expected);
}

#[test]
fn a_wildcard_host_is_served_with_the_port_that_clients_name() {
    let domains = |domain: &str, port| {
        let routes = RoutesIr {
            name: text("r"),
            port,
            domain: text(domain),
            routes: vec![forward("r", RoutePath::Any, to("c"))],
            outbound: Default::default(),
        };
        json_of(&emit::routes(&routes))["virtualHosts"][0]["domains"].clone()
    };
    assert_eq!(domains("*", 8080), json!(["*"]));
    assert_eq!(domains("*.ex.com", 80), json!(["*.ex.com"]));
    assert_eq!(
        domains("*.ex.com", 8080),
        json!(["*.ex.com", "*.ex.com:8080"])
    );
}

/// Of weighted destinations Envoy applies the edits before those of the route (tried), so both
/// stand at the destinations; and what Gateway API says is never an operator.
#[test]
fn edits_of_destinations_follow_those_of_the_route() {
    let set = |key: &str, value: &str| json!({"header": {"key": key, "value": value}, "appendAction": "OVERWRITE_IF_EXISTS_OR_ADD"});
    let add = |key: &str, value: &str| json!({"header": {"key": key, "value": value}, "appendAction": null});
    let route = route_json(routes::several());
    let first = json!({"requestHeadersToAdd": null, "responseHeadersToAdd": null,
                       "metadata": {"filterMetadata": {"istio": {"config":
                           "/apis/gateway.networking.k8s.io/v1/namespaces/a/http-route/x"}}}});
    assert_has(&route, &first);
    let a = &route["route"]["weightedClusters"]["clusters"][0];
    let expected = json!({
        "requestHeadersToAdd": [set("x-z", "50%%"), add("x-y", "1"), set("x-b", "2"), add("x-c", "3")],
        "requestHeadersToRemove": ["x-gone", "x-a"],
        "responseHeadersToAdd": [set("x-r", "1"), add("x-d", "4")],
        "hostRewriteLiteral": "a.test",
    });
    assert_has(a, &expected);
    let c = &route["route"]["weightedClusters"]["clusters"][2];
    let expected = json!({
        "requestHeadersToAdd": [set("x-a", "1"), set("x-z", "50%%"), add("x-y", "1")],
        "requestHeadersToRemove": ["x-gone"],
    });
    assert_has(c, &expected);
    let operator = |kind| {
        let mut ir = RouteIr {
            origin: Some(origin(kind)),
            ..forward("r", RoutePath::Any, to("c"))
        };
        ir.request.set = vec![
            (text("x-a"), text("%REQ(x-b)% 5%")),
            (text("Host"), text("no")),
        ];
        route_json(ir)["requestHeadersToAdd"].clone()
    };
    assert_has(
        &operator(Kind::VirtualService),
        &json!([set("x-a", "%REQ(x-b)% 5%%")]),
    );
    assert_has(
        &operator(Kind::GrpcRoute),
        &json!([set("x-a", "%%REQ(x-b)%% 5%%")]),
    );
}

#[test]
fn paths_are_rewritten_without_text_in_expressions() {
    let rewritten = |rewrite| {
        let ir = ForwardIr {
            path_rewrite: Some(rewrite),
            ..to("c")
        };
        let route = route_json(forward("r", RoutePath::Prefix(text("/a.b")), ir));
        route["route"]["regexRewrite"].clone()
    };
    assert_eq!(
        rewritten(PathRewrite::StripPrefix(text("/a.b"))),
        json!({"pattern": {"regex": r"^\C{4}/?"}, "substitution": "/"})
    );
    assert_eq!(
        rewritten(PathRewrite::Full(text(r"/x\1"))),
        json!({"pattern": {"regex": "/.*"}, "substitution": r"/x\\1"})
    );
}

#[test]
fn origins_with_gaps_are_quoted() {
    let cors = CorsIr {
        origins: vec![OriginMatch::Pieces(texts(&["https://", ".a.test"]))],
        methods: Str::new(),
        headers: Str::new(),
        expose: Str::new(),
        max_age_s: None,
        credentials: None,
        forward_unmatched_preflights: false,
    };
    let fault = FaultIr {
        delay: Some((Duration::from_secs(1), 1)),
        abort: None,
    };
    let ir = RouteIr {
        cors: Some(cors),
        fault: Some(fault),
        ..forward("r", RoutePath::Any, to("c"))
    };
    let expected = json!({"typedPerFilterConfig": {
        "envoy.filters.http.cors": {
            "allowOriginStringMatch": [{"safeRegex": {"regex": r"^https\:\/\/.*\.a\.test$"}}],
            "filterEnabled": {"defaultValue": {"numerator": 100}},
            "forwardNotMatchingPreflights": false,
            "allowCredentials": null,
        },
        "envoy.filters.http.fault": {"delay": {"fixedDelay": "1s"}},
    }});
    assert_has(&route_json(ir), &expected);
}

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

#[test]
fn cluster_rows_59_to_63() {
    let max = u32::MAX;
    let of = |policy| json_of(&emit::cluster(&cluster("c", policy)));
    let limited = of(ClusterPolicy {
        max_pending_requests: Some(1),
        ..Default::default()
    });
    let expected = json!({"circuitBreakers": {"thresholds": [{
        "maxPendingRequests": 1, "maxRequests": max, "maxConnections": max, "maxRetries": max,
        "trackRemaining": true}]}});
    assert_has(&limited, &expected);
    let ejecting = of(ClusterPolicy {
        outlier: Some(OutlierDetection {
            consecutive_5xx: Some(7),
            ..Default::default()
        }),
        ..Default::default()
    });
    let expected = json!({
        "outlierDetection": {"consecutive5xx": 7, "enforcingConsecutive5xx": 100,
            "enforcingSuccessRate": 0, "consecutiveGatewayFailure": null,
            "enforcingLocalOriginSuccessRate": null},
        "commonLbConfig": {"healthyPanicThreshold": {}},
    });
    assert_has(&ejecting, &expected);
    assert_has(
        &of(ClusterPolicy::default()),
        &json!({"lbPolicy": "LEAST_REQUEST",
        "typedExtensionProtocolOptions": null}),
    );
    let secured = |tls| {
        of(ClusterPolicy {
            tls: Some(tls),
            ..Default::default()
        })
    };
    let socket = |cluster: &Value| {
        let outer = &cluster["transportSocket"];
        assert_eq!(outer["name"], "internal_upstream");
        outer["typedConfig"]["transportSocket"]["typedConfig"].clone()
    };
    let simple = secured(tls());
    let expected =
        json!({"upstreamHttpProtocolOptions": {"autoSni": true, "autoSanValidation": true}});
    assert_has(
        &simple["typedExtensionProtocolOptions"][HTTP_OPTIONS],
        &expected,
    );
    let expected = json!({"sni": null, "autoSniSanValidation": null, "commonTlsContext": {
        "tlsParams": {"tlsMinimumProtocolVersion": "TLSv1_2", "tlsMaximumProtocolVersion": "TLSv1_3"},
        "alpnProtocols": null,
        "validationContext": {"trustedCa": {"filename": "/etc/ssl/certs/ca-certificates.crt"}}}});
    assert_has(&socket(&simple), &expected);
    let named = secured(UpstreamTlsIr {
        sni: text("b.test"),
        ..tls()
    });
    assert_has(
        &socket(&named),
        &json!({"sni": "b.test", "autoSniSanValidation": true}),
    );
    let options = &named["typedExtensionProtocolOptions"];
    assert!(options.is_null(), "{options}");
    // Row 63: without TLS of its own the tunnel carries plain bytes.
    let plain = socket(&of(ClusterPolicy::default()));
    assert_eq!(
        plain["@type"],
        "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
    );
}

#[test]
fn wildcard_hosts_row_65_share_one_cache() {
    let ir = ClusterIr {
        discovery: Discovery::Dynamic(wildcard()),
        ..cluster("c", ClusterPolicy::default())
    };
    let cluster = json_of(&emit::cluster(&ir));
    assert_eq!(cluster["lbPolicy"], "CLUSTER_PROVIDED");
    let chain = chain(
        "c",
        vec![],
        http(PathNormalization::Base, false, Some(wildcard())),
    );
    let filters = manager(&chain_json(&chain));
    let filter = filters["httpFilters"]
        .as_array()
        .unwrap()
        .iter()
        .find(|filter| filter["name"] == "envoy.filters.http.dynamic_forward_proxy")
        .unwrap();
    let port = filters["httpFilters"]
        .as_array()
        .unwrap()
        .iter()
        .find(|filter| filter["name"] == "dynamic_port")
        .unwrap();
    let expected = json!({"onRequestHeaders": [{"objectKey": "envoy.upstream.dynamic_port",
        "formatString": {"textFormatSource": {"inlineString": "80"}}}]});
    assert_has(&port["typedConfig"], &expected);
    let cache = &filter["typedConfig"]["dnsCacheConfig"];
    assert_eq!(cache["name"], "*.ex.com");
    assert_eq!(
        &cluster["clusterType"]["typedConfig"]["dnsCacheConfig"],
        cache
    );
}
