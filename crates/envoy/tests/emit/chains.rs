//! Chains of every kind.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::input::{CheckedBody, PathNormalization, TunnelSettings};

use super::*;

pub(crate) fn is(fact: Fact) -> Expr {
    Expr::Is(fact)
}

/// Facts; the filter of connections refuses those about requests.
fn facts(http: bool) -> Vec<Fact> {
    let strings = [
        StrMatch::Exact(text("a")),
        StrMatch::Prefix(text("a")),
        StrMatch::Suffix(text("a")),
        StrMatch::Contains(text("a")),
        StrMatch::Present,
    ];
    let mut out = vec![
        Fact::PathTemplate(text("/a/*/**")),
        Fact::Port(80),
        Fact::DestinationIp("10.0.0.0/8".parse().unwrap()),
        Fact::SourceIp("fd00::/64".parse().unwrap()),
        Fact::Claim(texts(&["iss"]), strings.to_vec()),
        Fact::ClaimOrItem(texts(&["realm", "roles"]), strings.to_vec()),
        Fact::Metadata(text("envoy.filters.a"), text("k"), strings.to_vec(), true),
        Fact::Claim(texts(&["iss"]), vec![]),
    ];
    for one in strings {
        out.extend([
            Fact::Path(one.clone()),
            Fact::Header(text(":authority"), one.clone(), true),
            Fact::Header(text("x-a"), one.clone(), false),
            Fact::Sni(one.clone()),
            Fact::Identity(one.clone()),
            Fact::Claim(texts(&["sub"]), vec![one.clone()]),
            Fact::ClaimOrItem(texts(&["aud"]), vec![one.clone()]),
            Fact::Metadata(text("envoy.filters.a"), text("k"), vec![one], false),
        ]);
    }
    let about_requests = |fact: &Fact| {
        matches!(
            fact,
            Fact::Path(_) | Fact::PathTemplate(_) | Fact::Header(..)
        )
    };
    out.retain(|fact| http || !about_requests(fact));
    out
}

pub(crate) fn rule(permissions: Vec<Expr>, principals: Vec<Expr>) -> BTreeMap<Str, RbacRuleIr> {
    let rule = RbacRuleIr {
        permissions,
        principals,
    };
    [(text("ns[a]-policy[x]-rule[0]"), rule)].into()
}

fn rbac(action: RbacAction, http: bool) -> RbacIr {
    let list: Vec<Expr> = facts(http)
        .into_iter()
        .flat_map(|fact| [is(fact.clone()), is(fact).negated()])
        .chain([Expr::always(), Expr::never()])
        .collect();
    let all = vec![Expr::AllOf(list.clone()), Expr::AnyOf(list)];
    let rules = Some(rule(all.clone(), all));
    RbacIr {
        action,
        rules: (action != RbacAction::Ask).then(|| rules.clone()).flatten(),
        shadow: rules,
    }
}

pub(crate) fn asked(http: bool) -> ExtAuthzIr {
    let own = HttpAuthorizerIr {
        uri: text("http://ext.a.svc.cluster.local"),
        path_prefix: text("/check"),
        request_headers: vec![
            StrMatch::Prefix(text("x-")),
            StrMatch::Exact(text("Cookie")),
        ],
        additional_headers: vec![(text("x-k"), text("v"))],
        upstream_on_allow: vec![StrMatch::Suffix(text("-a"))],
        downstream_on_deny: vec![StrMatch::Exact(text("x-b"))],
        downstream_on_allow: vec![StrMatch::Exact(text("x-c"))],
    };
    ExtAuthzIr {
        provider: text("ext"),
        cluster: text("outbound|9000||ext.a.svc.cluster.local"),
        host: text("ext.a.svc.cluster.local"),
        timeout: Duration::from_secs(600),
        fail_open: true,
        status_on_error: Some(503),
        clear_route_cache: true,
        body: Some(CheckedBody {
            max_bytes: 4096,
            allow_partial: true,
            pack_as_bytes: true,
        }),
        http: http.then_some(own),
    }
}

pub(crate) fn provider(issuer: &str) -> JwtProviderIr {
    JwtProviderIr {
        issuer: text(issuer),
        audiences: texts(&["a", "b"]),
        jwks: text(r#"{"keys":[{"kty":"oct","alg":"HS256","k":"c2VjcmV0","kid":"1"}]}"#),
        from_headers: vec![(text("x-token"), text("Token "))],
        from_params: texts(&["token"]),
        from_cookies: texts(&["token"]),
        forward: true,
        payload_header: text("x-payload"),
        claim_headers: vec![(text("x-sub"), text("sub"))],
        space_delimited: [text("groups")].into(),
    }
}

fn filters(http: bool) -> Vec<ChainFilter> {
    let mut out = vec![
        ChainFilter::Rbac(rbac(RbacAction::Ask, http)),
        ChainFilter::ExtAuthz(Box::new(asked(false))),
        ChainFilter::ExtAuthz(Box::new(asked(true))),
    ];
    if http {
        for providers in [vec![provider("a")], vec![provider("a"), provider("")]] {
            out.push(ChainFilter::Jwt(JwtIr { providers }));
        }
    }
    for action in [RbacAction::Log, RbacAction::Deny, RbacAction::Allow] {
        out.push(ChainFilter::Rbac(rbac(action, http)));
    }
    out
}

pub(crate) fn chain(name: &str, filters: Vec<ChainFilter>, body: ChainBody) -> ChainIr {
    ChainIr {
        name: text(name),
        port: 80,
        filters,
        body,
        republish_destination: true,
        outbound: BTreeSet::new(),
    }
}

pub(crate) fn http(
    normalization: PathNormalization,
    forwards_identity: bool,
    dynamic_host: Option<DynamicHost>,
) -> ChainBody {
    let routes = RoutesIr {
        name: text("r"),
        port: 80,
        domain: text("*"),
        routes: routes::all(),
        outbound: BTreeSet::new(),
    };
    ChainBody::Http {
        http2: true,
        grpc_web: true,
        normalization,
        forwards_identity,
        dynamic_host,
        routes: RouteSource::Inline(Box::new(routes)),
    }
}

pub(crate) fn wildcard() -> DynamicHost {
    DynamicHost {
        host: text("*.ex.com"),
        port: 80,
    }
}

/// One of everything.
pub(crate) fn all() -> Vec<ChainIr> {
    let full = TcpIr {
        clusters: vec![(text("a"), 80), (text("b"), 20)],
        idle_timeout: Some(Duration::from_secs(5)),
        max_duration: Some(Duration::from_secs(60)),
        hash_source_ip: true,
        tunnel: Some(TunnelSettings {
            post: true,
            host: text("t.test"),
            port: 443,
        }),
    };
    vec![
        chain(
            "full-http",
            filters(true),
            http(
                PathNormalization::DecodeAndMergeSlashes,
                true,
                Some(wildcard()),
            ),
        ),
        chain(
            "merging-http",
            vec![],
            http(PathNormalization::MergeSlashes, false, None),
        ),
        chain(
            "untouched-http",
            vec![],
            http(PathNormalization::None, false, None),
        ),
        chain(
            "plain-http",
            vec![],
            http(PathNormalization::Base, false, None),
        ),
        chain("full-tcp", filters(false), ChainBody::Tcp(full)),
        chain("plain-tcp", vec![], ChainBody::Tcp(TcpIr::to(text("a")))),
    ]
}
