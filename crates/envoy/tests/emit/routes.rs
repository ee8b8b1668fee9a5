//! Routes of every kind.

use std::time::Duration;

use model::input::{AbortStatus, HashKey, HeaderEdits};
use model::{Kind, ObjectKey, ObjectRef};

use super::*;

fn edits(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderEdits {
    let pairs = |list: &[(&str, &str)]| list.iter().map(|(k, v)| (text(k), text(v))).collect();
    HeaderEdits {
        set: pairs(set),
        add: pairs(add),
        remove: texts(remove),
    }
}

pub(crate) fn origin(kind: Kind) -> ObjectRef {
    ObjectRef::new(kind, ObjectKey::new("a", "x"))
}

pub(crate) fn plain(name: &str, path: RoutePath, action: RouteAction) -> RouteIr {
    RouteIr::new(text(name), path, action, text("op"))
}

pub(crate) fn to(cluster: &str) -> ForwardIr {
    ForwardIr::to(text(cluster))
}

pub(crate) fn forward(name: &str, path: RoutePath, ir: ForwardIr) -> RouteIr {
    plain(name, path, RouteAction::Forward(Box::new(ir)))
}

/// Operators that values may hold.
pub(crate) const OPERATORS: &str = "%REQ(x-a)% %REQ(:path?x-b):10% %RESP(x-c)% %BYTES_RECEIVED% \
    %CONNECTION_ID% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS% \
    %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_ADDRESS% \
    %DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT% %DOWNSTREAM_LOCAL_URI_SAN% \
    %DOWNSTREAM_PEER_ISSUER% %DOWNSTREAM_PEER_SUBJECT% %DOWNSTREAM_PEER_URI_SAN% \
    %DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% \
    %DOWNSTREAM_REMOTE_PORT% %DURATION% %HOSTNAME% %PROTOCOL% %REQUESTED_SERVER_NAME% \
    %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS% %ROUTE_NAME% %START_TIME% \
    %UPSTREAM_CLUSTER% %UPSTREAM_HOST% %UPSTREAM_REMOTE_ADDRESS% %VIRTUAL_CLUSTER_NAME% \
    %DYNAMIC_METADATA(a.b:c)% %FILTER_STATE(a.b:PLAIN)% %NOT_ONE% 100% %REQ(% %";

fn paths() -> Vec<RouteIr> {
    [
        RoutePath::Any,
        RoutePath::Exact(text("/a")),
        RoutePath::Prefix(text("/a")),
        RoutePath::TextPrefix(text("/a")),
        RoutePath::Regex(text("/v[0-9]+/.*")),
        RoutePath::Template(text("/*/method")),
    ]
    .into_iter()
    .flat_map(|path| {
        let ir = forward("path", path, to("c"));
        let folded = RouteIr {
            ignore_case: true,
            ..ir.clone()
        };
        [ir, folded]
    })
    .collect()
}

fn values() -> [RouteValue; 4] {
    [
        RouteValue::Exact(text("b")),
        RouteValue::Prefix(text("b")),
        RouteValue::Regex(text("b+")),
        RouteValue::Present,
    ]
}

fn conditions() -> RouteIr {
    let both = |value: RouteValue| {
        [false, true].map(|invert| HeaderCondition {
            name: text("x-a"),
            value: value.clone(),
            invert,
        })
    };
    let claim = |value: RouteValue| ClaimCondition {
        path: texts(&["realm", "roles"]),
        invert: value == RouteValue::Present,
        value,
    };
    RouteIr {
        headers: values().into_iter().flat_map(both).collect(),
        query: values().map(|value| (text("q"), value)).into(),
        claims: values().map(claim).into(),
        ..forward("conditions", RoutePath::Any, to("c"))
    }
}

pub(crate) fn several() -> RouteIr {
    let share = |name: &str, weight, host: Option<&str>| WeightedCluster {
        host_rewrite: host.map(text),
        request: edits(&[("x-b", "2")], &[("x-c", "3")], &["x-a"]),
        response: edits(&[], &[("x-d", "4")], &[]),
        ..WeightedCluster::plain(text(name), weight)
    };
    RouteIr {
        request: edits(
            // What Envoy would refuse the whole for stays out.
            &[("x-z", "50%"), ("x-a", "1"), ("x-l", &"%".repeat(8_193))],
            &[("x-y", "1")],
            &["x-gone"],
        ),
        response: edits(&[("x-r", "1")], &[], &[]),
        origin: Some(origin(Kind::HttpRoute)),
        ..forward(
            "several",
            RoutePath::Any,
            ForwardIr {
                clusters: vec![
                    share("a", 80, Some("a.test")),
                    share("b", 20, None),
                    WeightedCluster::plain(text("c"), u32::MAX),
                ],
                missing_is_500: true,
                ..to("c")
            },
        )
    }
}

fn rewrites() -> Vec<RouteIr> {
    let long = format!("/{}", "x".repeat(2500));
    [
        PathRewrite::Prefix(text("/new")),
        PathRewrite::StripPrefix(text("/old")),
        PathRewrite::StripPrefix(text(&long)),
        PathRewrite::StripPrefix(text(&long[..1000])),
        PathRewrite::Full(text(r"/a\1%b")),
        PathRewrite::Regex(text("^/v([0-9])/"), text(r"/\1-")),
    ]
    .into_iter()
    .flat_map(|rewrite| {
        let redirect = RedirectIr {
            status: 307,
            scheme: Some(text("https")),
            host: Some(text("b.test")),
            port: Some(8443),
            path: Some(rewrite.clone()),
        };
        let ir = ForwardIr {
            host_rewrite: Some(text("b.test")),
            path_rewrite: Some(rewrite),
            ..to("c")
        };
        let prefix = RoutePath::Prefix(text("/old"));
        [
            forward("rewrite", prefix.clone(), ir),
            plain("redirect", prefix, RouteAction::Redirect(redirect)),
        ]
    })
    .collect()
}

fn full_forward() -> RouteIr {
    let ir = ForwardIr {
        timeout: Duration::from_millis(2500),
        retry: Some(RetryIr {
            on: texts(&["reset", "retriable-status-codes"]),
            statuses: vec![503],
            attempts: 3,
            per_try_timeout: Some(Duration::from_millis(500)),
            backoff: Some(Duration::from_millis(10)),
            avoid_previous_hosts: true,
            avoid_previous_priorities: true,
        }),
        mirrors: vec![
            MirrorIr {
                cluster: text("m"),
                per_million: 125_000,
            },
            MirrorIr {
                cluster: text("n"),
                per_million: 1_000_000,
            },
        ],
        hash: vec![
            HashKey::Header(text("x-a")),
            cookie(None),
            cookie(Some(Duration::ZERO)),
            HashKey::SourceIp,
            HashKey::QueryParameter(text("q")),
        ],
        ..to("c")
    };
    RouteIr {
        request: edits(&[("x-v", OPERATORS)], &[], &[]),
        stat_prefix: text("stat"),
        origin: Some(origin(Kind::VirtualService)),
        ..forward("full", RoutePath::Any, ir)
    }
}

pub(crate) fn cookie(ttl: Option<Duration>) -> HashKey {
    HashKey::Cookie {
        name: text("user"),
        ttl,
        path: text("/"),
        attributes: vec![(text("SameSite"), text("Strict"))],
    }
}

fn filters() -> Vec<RouteIr> {
    let cors = CorsIr {
        origins: vec![
            OriginMatch::Any,
            OriginMatch::Exact(text("https://a.test")),
            OriginMatch::Prefix(text("https://a.")),
            OriginMatch::Pieces(texts(&["https://", ".a+b.test:", ""])),
            OriginMatch::Regex(text("https://.*")),
        ],
        methods: text("GET,POST"),
        headers: text("x-a"),
        expose: text("x-b"),
        max_age_s: Some(60),
        credentials: Some(true),
        forward_unmatched_preflights: true,
    };
    let fault = |status| FaultIr {
        delay: Some((Duration::from_secs(1), 10_000)),
        abort: Some((status, 125_000)),
    };
    let session = [
        SessionIr::Header(text("x-session")),
        SessionIr::Cookie {
            name: text("session"),
            path: text("/a"),
            ttl: Duration::ZERO,
        },
        SessionIr::Cookie {
            name: text("session"),
            path: text("/"),
            ttl: Duration::from_secs(3600),
        },
    ];
    let statuses = [AbortStatus::Http(500), AbortStatus::Grpc(14)];
    session
        .into_iter()
        .zip(statuses.into_iter().cycle())
        .map(|(session, status)| RouteIr {
            cors: Some(cors.clone()),
            fault: Some(fault(status)),
            session: Some(session),
            ..forward("filters", RoutePath::Any, to("c"))
        })
        .collect()
}

fn answers() -> Vec<RouteIr> {
    let status = |status| {
        let ir = RedirectIr {
            status,
            ..Default::default()
        };
        plain("bare", RoutePath::Any, RouteAction::Redirect(ir))
    };
    let respond = |status, body: &'static [u8]| {
        plain(
            "respond",
            RoutePath::Any,
            RouteAction::Respond(status, body.into()),
        )
    };
    let mut out: Vec<RouteIr> = [301, 302, 303, 307, 308].map(status).into();
    out.extend([
        respond(500, b""),
        respond(200, b"hello"),
        respond(503, b"\xff\xfe"),
    ]);
    out
}

/// One of everything.
pub(crate) fn all() -> Vec<RouteIr> {
    let mut out = vec![conditions(), several(), full_forward()];
    out.extend(paths());
    out.extend(rewrites());
    out.extend(filters());
    out.extend(answers());
    out
}
