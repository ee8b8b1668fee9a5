//! HTTP towards the endpoints of a cluster. Source: spec/envoy-config.md §3.3, §3.7,
//! spec/policy-and-traffic.md §7.3, §7.5.

use std::time::Duration;

use envoy_types::pb::envoy::config::common::matcher::v3 as matcher;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as http;
use http::http_protocol_options::{
    ExplicitHttpConfig, OutlierDetection, UpstreamProtocolOptions, UseDownstreamHttpConfig,
    explicit_http_config::ProtocolConfig,
};

use super::super::wire::{duration, string, uint32};
use super::tls;
use crate::ir::{ClusterIr, ClusterPolicy, Direction, Discovery, StrMatch, Upstream};

/// Streams of a connection that Envoy takes.
const STREAMS_MAX: u32 = 2_147_483_647;
/// How long an answer to a ping may take when nothing is said.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The options of a service cluster; `None` when they are those of Envoy: HTTP/1.1.
pub(super) fn service(ir: &ClusterIr) -> Option<http::HttpProtocolOptions> {
    let mut out = http::HttpProtocolOptions {
        common_http_protocol_options: common(&ir.policy),
        upstream_http_protocol_options: names(ir),
        outlier_detection: failures(ir),
        ..Default::default()
    };
    if ir.upstream == Upstream::Http1 && out == http::HttpProtocolOptions::default() {
        return None;
    }
    out.upstream_protocol_options = Some(match ir.upstream {
        Upstream::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(Default::default())),
        Upstream::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2(&ir.policy))),
        Upstream::Downstream => use_downstream(),
    });
    Some(out)
}

/// HTTP/2 for CONNECT.
pub(super) fn connect() -> UpstreamProtocolOptions {
    explicit(ProtocolConfig::Http2ProtocolOptions(
        core::Http2ProtocolOptions {
            allow_connect: true,
            ..Default::default()
        },
    ))
}

/// The version that the client speaks.
pub(super) fn use_downstream() -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
        http_protocol_options: Some(Default::default()),
        http2_protocol_options: Some(Default::default()),
        ..Default::default()
    })
}

fn explicit(config: ProtocolConfig) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
        protocol_config: Some(config),
    })
}

fn http2(policy: &ClusterPolicy) -> core::Http2ProtocolOptions {
    let keepalive = policy.h2_keepalive.map(|ping| core::KeepaliveSettings {
        interval: ping.interval.filter(|i| !i.is_zero()).map(duration),
        timeout: Some(duration(
            ping.timeout
                .filter(|t| !t.is_zero())
                .unwrap_or(PING_TIMEOUT),
        )),
        ..Default::default()
    });
    let streams = policy.max_concurrent_streams;
    core::Http2ProtocolOptions {
        max_concurrent_streams: streams.map(|max| uint32(max.clamp(1, STREAMS_MAX))),
        connection_keepalive: keepalive,
        ..Default::default()
    }
}

fn common(policy: &ClusterPolicy) -> Option<core::HttpProtocolOptions> {
    let options = core::HttpProtocolOptions {
        idle_timeout: policy.idle_timeout.map(duration),
        max_connection_duration: policy.max_connection_duration.map(duration),
        max_requests_per_connection: policy.max_requests_per_connection.map(uint32),
        ..Default::default()
    };
    (options != core::HttpProtocolOptions::default()).then_some(options)
}

/// Whether SNI and the names that a certificate must have come from the request.
fn names(ir: &ClusterIr) -> Option<core::UpstreamHttpProtocolOptions> {
    let from_request = match (&ir.policy.tls, &ir.discovery) {
        (Some(tls), _) => (
            tls::sni_comes_from_request(tls),
            tls::names_come_from_request(tls),
        ),
        // Envoy insists on it where hosts are resolved per request.
        (None, Discovery::Dynamic(_)) => (true, true),
        (None, _) => (false, false),
    };
    let (auto_sni, auto_san_validation) = from_request;
    auto_sni.then(|| core::UpstreamHttpProtocolOptions {
        auto_sni,
        auto_san_validation,
        ..Default::default()
    })
}

/// Which answers count as failures of an endpoint, where a policy says so.
fn failures(ir: &ClusterIr) -> Option<OutlierDetection> {
    use matcher::match_predicate::{MatchSet, Rule};
    let codes = &ir.policy.outlier.as_ref()?.error_codes;
    if ir.direction != Direction::Outbound {
        return None;
    }
    let one = |code: &u16| {
        let text = string(&StrMatch::Exact(arcstr::format!("{code}")), false);
        let header = route::HeaderMatcher {
            name: ":status".into(),
            header_match_specifier: Some(route::header_matcher::HeaderMatchSpecifier::StringMatch(
                text,
            )),
            ..Default::default()
        };
        matcher::MatchPredicate {
            rule: Some(Rule::HttpResponseHeadersMatch(matcher::HttpHeadersMatch {
                headers: vec![header],
            })),
        }
    };
    // A set of alternatives needs two members.
    let mut rules: Vec<_> = codes.iter().map(one).collect();
    let error_matcher = match rules.len() {
        0 | 1 => rules.pop()?,
        _ => matcher::MatchPredicate {
            rule: Some(Rule::OrMatch(MatchSet { rules })),
        },
    };
    Some(OutlierDetection {
        error_matcher: Some(error_matcher),
    })
}
