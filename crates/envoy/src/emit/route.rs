//! Route configurations. Source: spec/envoy-config.md §5.1–§5.3.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::google::protobuf::BoolValue;
use model::{ObjectRef, Str};

use super::cluster::text_struct;
use super::wire::{any, extension, regex, seconds, string, uint32};
use crate::ir::{
    ForwardIr, HeaderCondition, RouteAction, RouteIr, RoutePath, RouteValue, RoutesIr, StrMatch,
    WeightedCluster,
};

/// Largest body of a direct response.
const DIRECT_RESPONSE_BYTES_MAX: u32 = 1_048_576;
/// Retries when a rule says nothing.
const RETRY_ON: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

/// The configuration of one chain.
pub(super) fn configuration(ir: &RoutesIr) -> route::RouteConfiguration {
    let host = route::VirtualHost {
        name: format!("inbound|http|{}", ir.port),
        domains: vec![ir.domain.to_string()],
        routes: ir.routes.iter().map(message).collect(),
        ..Default::default()
    };
    route::RouteConfiguration {
        name: ir.name.to_string(),
        virtual_hosts: vec![host],
        validate_clusters: Some(BoolValue { value: false }),
        max_direct_response_body_size_bytes: Some(uint32(DIRECT_RESPONSE_BYTES_MAX)),
        ..Default::default()
    }
}

fn message(ir: &RouteIr) -> route::Route {
    use route::route::Action;
    let action = match &ir.action {
        RouteAction::Forward(to) => Action::Route(forward(to)),
        RouteAction::Redirect(_) => Action::DirectResponse(route::DirectResponseAction {
            status: 500,
            ..Default::default()
        }),
        RouteAction::Respond(status, _) => Action::DirectResponse(route::DirectResponseAction {
            status: u32::from(*status),
            ..Default::default()
        }),
    };
    route::Route {
        name: ir.name.to_string(),
        r#match: Some(condition(ir)),
        decorator: Some(route::Decorator {
            operation: ir.operation.to_string(),
            ..Default::default()
        }),
        action: Some(action),
        metadata: ir.origin.as_ref().map(origin),
        ..Default::default()
    }
}

/// Which object a route comes from.
fn origin(object: &ObjectRef) -> core::Metadata {
    let path = format!(
        "/apis/gateway.networking.k8s.io/v1/namespaces/{}/http-route/{}",
        object.key.ns, object.key.name
    );
    core::Metadata {
        filter_metadata: [("istio".to_owned(), text_struct(&[("config", &path)]))].into(),
        ..Default::default()
    }
}

fn condition(ir: &RouteIr) -> route::RouteMatch {
    use route::route_match::PathSpecifier;
    let path = match &ir.path {
        RoutePath::Any => PathSpecifier::Prefix("/".into()),
        RoutePath::Exact(path) => PathSpecifier::Path(path.to_string()),
        RoutePath::Prefix(path) => PathSpecifier::PathSeparatedPrefix(path.to_string()),
        RoutePath::TextPrefix(path) => PathSpecifier::Prefix(path.to_string()),
        RoutePath::Regex(text) => PathSpecifier::SafeRegex(regex(text)),
        RoutePath::Template(template) => {
            let config = UriTemplateMatchConfig {
                path_template: template.to_string(),
            };
            PathSpecifier::PathMatchPolicy(extension("uri-template", &config))
        }
    };
    route::RouteMatch {
        case_sensitive: Some(BoolValue {
            value: !ir.ignore_case,
        }),
        headers: ir.headers.iter().map(header).collect(),
        query_parameters: ir.query.iter().map(query).collect(),
        path_specifier: Some(path),
        ..Default::default()
    }
}

fn header(ir: &HeaderCondition) -> route::HeaderMatcher {
    use route::header_matcher::HeaderMatchSpecifier;
    let specifier = match text(&ir.value) {
        Some(matcher) => HeaderMatchSpecifier::StringMatch(matcher),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    route::HeaderMatcher {
        name: ir.name.to_string(),
        header_match_specifier: Some(specifier),
        invert_match: ir.invert,
        treat_missing_header_as_empty: ir.invert && ir.value != RouteValue::Present,
        ..Default::default()
    }
}

fn query((name, value): &(Str, RouteValue)) -> route::QueryParameterMatcher {
    use route::query_parameter_matcher::QueryParameterMatchSpecifier;
    let specifier = match text(value) {
        Some(matcher) => QueryParameterMatchSpecifier::StringMatch(matcher),
        None => QueryParameterMatchSpecifier::PresentMatch(true),
    };
    route::QueryParameterMatcher {
        name: name.to_string(),
        query_parameter_match_specifier: Some(specifier),
    }
}

/// A string matcher, or `None` for mere presence.
fn text(value: &RouteValue) -> Option<envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher> {
    use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
    match value {
        RouteValue::Exact(text) => Some(string(&StrMatch::Exact(text.clone()), false)),
        RouteValue::Prefix(text) => Some(string(&StrMatch::Prefix(text.clone()), false)),
        RouteValue::Regex(text) => Some(matcher::StringMatcher {
            ignore_case: false,
            match_pattern: Some(matcher::string_matcher::MatchPattern::SafeRegex(regex(
                text,
            ))),
        }),
        RouteValue::Present => None,
    }
}

fn forward(ir: &ForwardIr) -> route::RouteAction {
    use route::route_action::{ClusterNotFoundResponseCode, ClusterSpecifier};
    let weight = |to: &WeightedCluster| route::weighted_cluster::ClusterWeight {
        name: to.cluster.to_string(),
        weight: Some(uint32(to.weight)),
        ..Default::default()
    };
    let specifier = match ir.clusters.as_slice() {
        [only] => ClusterSpecifier::Cluster(only.cluster.to_string()),
        several => ClusterSpecifier::WeightedClusters(route::WeightedCluster {
            clusters: several.iter().map(weight).collect(),
            ..Default::default()
        }),
    };
    let code = if ir.missing_is_500 {
        ClusterNotFoundResponseCode::InternalServerError
    } else {
        ClusterNotFoundResponseCode::ServiceUnavailable
    };
    route::RouteAction {
        cluster_not_found_response_code: code as i32,
        timeout: Some(seconds(0)),
        max_stream_duration: Some(route::route_action::MaxStreamDuration {
            grpc_timeout_header_max: Some(seconds(0)),
            ..Default::default()
        }),
        retry_policy: Some(retry()),
        cluster_specifier: Some(specifier),
        ..Default::default()
    }
}

fn retry() -> route::RetryPolicy {
    use route::retry_policy::{RetryHostPredicate, retry_host_predicate::ConfigType};
    route::RetryPolicy {
        retry_on: RETRY_ON.into(),
        num_retries: Some(uint32(2)),
        retry_host_predicate: vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".into(),
            config_type: Some(ConfigType::TypedConfig(any(&PreviousHostsPredicate {}))),
        }],
        host_selection_retry_max_attempts: 5,
        ..Default::default()
    }
}
