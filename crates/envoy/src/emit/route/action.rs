//! What routes do. Source: spec/envoy-config.md §5.2, §5.4, §5.5.

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use model::Str;
use model::input::HashKey;

use super::super::wire::{boolean, duration, fraction, per_million, regex, uint32};
use super::headers::Levels;
use super::retry;
use crate::ir::{ForwardIr, MirrorIr, PathRewrite, RedirectIr, WeightedCluster};

/// Repetitions that RE2 takes at once.
const REPEAT_MAX: usize = 1000;

/// Forwarding.
pub(super) fn forward(ir: &ForwardIr, levels: &Levels) -> route::RouteAction {
    use route::route_action::{
        ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier,
    };
    let (specifier, own_host) = match ir.clusters.as_slice() {
        [only] => (
            ClusterSpecifier::Cluster(only.cluster.to_string()),
            only.host_rewrite.as_ref(),
        ),
        several => (
            ClusterSpecifier::WeightedClusters(weighted(several, levels)),
            None,
        ),
    };
    let code = if ir.missing_is_500 {
        ClusterNotFoundResponseCode::InternalServerError
    } else {
        ClusterNotFoundResponseCode::ServiceUnavailable
    };
    let host = own_host.or(ir.host_rewrite.as_ref());
    let mut out = route::RouteAction {
        cluster_not_found_response_code: code as i32,
        timeout: Some(duration(ir.timeout)),
        retry_policy: ir.retry.as_ref().map(retry::policy),
        request_mirror_policies: ir.mirrors.iter().map(mirror).collect(),
        hash_policy: ir.hash.iter().map(hash).collect(),
        cluster_specifier: Some(specifier),
        host_rewrite_specifier: host
            .map(|host| HostRewriteSpecifier::HostRewriteLiteral(host.to_string())),
        ..Default::default()
    };
    grpc_timeout(&mut out, ir);
    match &ir.path_rewrite {
        None => {}
        Some(PathRewrite::Prefix(prefix)) => out.prefix_rewrite = prefix.to_string(),
        Some(PathRewrite::StripPrefix(prefix)) => out.regex_rewrite = Some(strip(prefix)),
        Some(PathRewrite::Full(path)) => {
            out.regex_rewrite = Some(substitute("/.*", literal(path)));
        }
        Some(PathRewrite::Regex(pattern, by)) => {
            out.regex_rewrite = Some(substitute(pattern, by.to_string()));
        }
    }
    out
}

/// Clients of gRPC may ask for any limit where the route sets none. Beside a timeout of the
/// route this field would make Envoy ignore that timeout, and its predecessor is deprecated: the
/// timeout counts alone then.
fn grpc_timeout(out: &mut route::RouteAction, ir: &ForwardIr) {
    if ir.timeout.is_zero() {
        out.max_stream_duration = Some(route::route_action::MaxStreamDuration {
            grpc_timeout_header_max: Some(duration(ir.timeout)),
            ..Default::default()
        });
    }
}

/// Shares. Envoy refuses weights that sum beyond 32 bits.
fn weighted(list: &[WeightedCluster], levels: &Levels) -> route::WeightedCluster {
    use route::weighted_cluster::{ClusterWeight, cluster_weight::HostRewriteSpecifier};
    let sum: u64 = list.iter().map(|to| u64::from(to.weight)).sum();
    let shift = (0..32).find(|shift| sum >> shift <= u64::from(u32::MAX) - list.len() as u64);
    let weight = |to: &WeightedCluster| (to.weight >> shift.unwrap_or(31)).max(1);
    let message = |to: &WeightedCluster| {
        let mut out = ClusterWeight {
            name: to.cluster.to_string(),
            weight: Some(uint32(weight(to))),
            host_rewrite_specifier: to
                .host_rewrite
                .as_ref()
                .map(|host| HostRewriteSpecifier::HostRewriteLiteral(host.to_string())),
            ..Default::default()
        };
        (out.request_headers_to_add, out.request_headers_to_remove) = levels.cluster_request(to);
        (out.response_headers_to_add, out.response_headers_to_remove) = levels.cluster_response(to);
        out
    };
    route::WeightedCluster {
        clusters: list.iter().map(message).collect(),
        ..Default::default()
    }
}

/// Copies keep the host as it is.
fn mirror(ir: &MirrorIr) -> route::route_action::RequestMirrorPolicy {
    route::route_action::RequestMirrorPolicy {
        cluster: ir.cluster.to_string(),
        runtime_fraction: Some(fraction(per_million(ir.per_million))),
        trace_sampled: Some(boolean(false)),
        disable_shadow_host_suffix_append: true,
        ..Default::default()
    }
}

fn hash(key: &HashKey) -> route::route_action::HashPolicy {
    use route::route_action::hash_policy::{
        ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter,
    };
    let specifier = match key {
        HashKey::Header(name) => PolicySpecifier::Header(Header {
            header_name: name.to_string(),
            ..Default::default()
        }),
        HashKey::Cookie {
            name,
            ttl,
            path,
            attributes,
        } => {
            let attribute = |(name, value): &(Str, Str)| CookieAttribute {
                name: name.to_string(),
                value: value.to_string(),
            };
            PolicySpecifier::Cookie(Cookie {
                name: name.to_string(),
                ttl: ttl.map(duration),
                path: path.to_string(),
                attributes: attributes.iter().map(attribute).collect(),
            })
        }
        HashKey::SourceIp => {
            PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })
        }
        HashKey::QueryParameter(name) => PolicySpecifier::QueryParameter(QueryParameter {
            name: name.to_string(),
        }),
    };
    route::route_action::HashPolicy {
        policy_specifier: Some(specifier),
        ..Default::default()
    }
}

/// A redirect.
pub(super) fn redirect(ir: &RedirectIr) -> route::RedirectAction {
    use route::redirect_action::{
        PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
    };
    let code = match ir.status {
        301 => RedirectResponseCode::MovedPermanently,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::Found,
    };
    let path = ir.path.as_ref().map(|path| match path {
        PathRewrite::Prefix(prefix) => PathRewriteSpecifier::PrefixRewrite(prefix.to_string()),
        PathRewrite::StripPrefix(prefix) => PathRewriteSpecifier::RegexRewrite(strip(prefix)),
        PathRewrite::Full(path) => PathRewriteSpecifier::PathRedirect(path.to_string()),
        PathRewrite::Regex(pattern, by) => {
            PathRewriteSpecifier::RegexRewrite(substitute(pattern, by.to_string()))
        }
    });
    let scheme = ir.scheme.as_ref();
    route::RedirectAction {
        host_redirect: ir.host.as_ref().map(Str::to_string).unwrap_or_default(),
        port_redirect: ir.port.map_or(0, u32::from),
        response_code: code as i32,
        scheme_rewrite_specifier: scheme
            .map(|scheme| SchemeRewriteSpecifier::SchemeRedirect(scheme.to_string())),
        path_rewrite_specifier: path,
        ..Default::default()
    }
}

/// The matched prefix and one slash behind it become one slash. Only the length of the prefix
/// goes into the expression (`\C` is any byte): the condition has already compared the text,
/// perhaps without regard to case, and no text needs quoting.
fn strip(prefix: &str) -> RegexMatchAndSubstitute {
    let whole = format!("\\C{{{REPEAT_MAX}}}").repeat(prefix.len() / REPEAT_MAX);
    let rest = prefix.len() % REPEAT_MAX;
    substitute(&format!("^{whole}\\C{{{rest}}}/?"), "/".into())
}

fn substitute(pattern: &str, by: String) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute {
        pattern: Some(regex(pattern)),
        substitution: by,
    }
}

/// A text as a substitution that stands for itself.
fn literal(text: &str) -> String {
    text.replace('\\', "\\\\")
}
