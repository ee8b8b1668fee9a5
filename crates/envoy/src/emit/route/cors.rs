//! CORS. Source: spec/envoy-config.md §5.4, spec/policy-and-traffic.md §6.2.

use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as cors;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, fractional_percent};
use matcher::string_matcher::MatchPattern;

use super::super::wire::{boolean, fraction, quoted, regex, string};
use crate::ir::{CorsIr, OriginMatch, StrMatch};

/// Everything that is an origin by its syntax.
const ANY_ORIGIN: &str = r"^[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s?#]+$";

/// What the filter does for a route.
pub(super) fn policy(ir: &CorsIr) -> cors::CorsPolicy {
    let all = FractionalPercent {
        numerator: 100,
        denominator: fractional_percent::DenominatorType::Hundred as i32,
    };
    cors::CorsPolicy {
        allow_origin_string_match: ir.origins.iter().map(origin).collect(),
        allow_methods: ir.methods.to_string(),
        allow_headers: ir.headers.to_string(),
        expose_headers: ir.expose.to_string(),
        max_age: ir.max_age_s.map(|age| age.to_string()).unwrap_or_default(),
        allow_credentials: ir.credentials.map(boolean),
        filter_enabled: Some(fraction(all)),
        forward_not_matching_preflights: Some(boolean(ir.forward_unmatched_preflights)),
        ..Default::default()
    }
}

/// Parts with gaps have no typed matcher: the expression is made of the quoted parts.
fn origin(ir: &OriginMatch) -> matcher::StringMatcher {
    let expression = |text: &str| matcher::StringMatcher {
        ignore_case: false,
        match_pattern: Some(MatchPattern::SafeRegex(regex(text))),
    };
    match ir {
        OriginMatch::Any => expression(ANY_ORIGIN),
        OriginMatch::Exact(text) => string(&StrMatch::Exact(text.clone()), false),
        OriginMatch::Prefix(text) => string(&StrMatch::Prefix(text.clone()), false),
        OriginMatch::Pieces(pieces) => {
            let pieces: Vec<String> = pieces.iter().map(|piece| quoted(piece)).collect();
            expression(&format!("^{}$", pieces.join(".*")))
        }
        OriginMatch::Regex(text) => expression(text),
    }
}
