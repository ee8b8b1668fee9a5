//! Conditions of routes. Source: spec/envoy-config.md §5.3.

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use model::Str;

use super::super::metadata;
use super::super::wire::{boolean, extension, regex, string};
use crate::ir::{ClaimCondition, HeaderCondition, RouteIr, RoutePath, RouteValue, StrMatch};

/// The condition of a route.
pub(super) fn message(ir: &RouteIr) -> route::RouteMatch {
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
        case_sensitive: Some(boolean(!ir.ignore_case)),
        headers: ir.headers.iter().map(header).collect(),
        query_parameters: ir.query.iter().map(query).collect(),
        dynamic_metadata: ir.claims.iter().map(claim).collect(),
        path_specifier: Some(path),
        ..Default::default()
    }
}

/// Of an inverted condition a missing header is an empty one, or the route would not match
/// for want of the header. Mere presence needs no such help.
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

fn claim(ir: &ClaimCondition) -> matcher::MetadataMatcher {
    let value = match text(&ir.value) {
        Some(text) => metadata::itself_or_item(metadata::text_value(text)),
        None => metadata::present(),
    };
    matcher::MetadataMatcher {
        invert: ir.invert,
        ..metadata::claim(&ir.path, value)
    }
}

/// A string matcher, or `None` for mere presence.
fn text(value: &RouteValue) -> Option<matcher::StringMatcher> {
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
