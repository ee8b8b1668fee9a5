//! Tokens. Source: spec/policy-and-traffic.md §2.1.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3 as jwt;
use envoy_types::pb::google::protobuf::Empty;
use jwt::jwt_requirement::RequiresType;
use model::Str;

use super::super::metadata::PAYLOAD;
use super::super::wire::data;
use crate::ir::{JwtIr, JwtProviderIr};

/// Name of the filter.
pub(in super::super) const NAME: &str = "envoy.filters.http.jwt_authn";
/// Claims that are lists in one text by definition.
const SPACE_DELIMITED: [&str; 2] = ["permission", "scope"];

/// The filter of requests.
pub(in super::super) fn http(ir: &JwtIr) -> jwt::JwtAuthentication {
    let names: Vec<String> = (0..ir.providers.len())
        .map(|i| format!("origins-{i}"))
        .collect();
    let prefix = route::route_match::PathSpecifier::Prefix("/".into());
    let rule = jwt::RequirementRule {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(prefix),
            ..Default::default()
        }),
        requirement_type: Some(jwt::requirement_rule::RequirementType::Requires(
            requirement(&names),
        )),
    };
    jwt::JwtAuthentication {
        providers: names
            .iter()
            .cloned()
            .zip(ir.providers.iter().map(provider))
            .collect(),
        rules: vec![rule],
        bypass_cors_preflight: true,
        ..Default::default()
    }
}

/// A token must satisfy some provider; a request without one passes. With several, "missing"
/// must hold for each on its own, or a bad token of one would count as missing for another.
fn requirement(names: &[String]) -> jwt::JwtRequirement {
    let or_missing = |name: &String| any_of(vec![by(name), missing()]);
    if let [only] = names {
        return or_missing(only);
    }
    let mut list: Vec<jwt::JwtRequirement> = names.iter().map(|name| by(name)).collect();
    let all = jwt::JwtRequirementAndList {
        requirements: names.iter().map(or_missing).collect(),
    };
    list.push(wrap(RequiresType::RequiresAll(all)));
    any_of(list)
}

fn wrap(kind: RequiresType) -> jwt::JwtRequirement {
    jwt::JwtRequirement {
        requires_type: Some(kind),
    }
}

fn by(name: &str) -> jwt::JwtRequirement {
    wrap(RequiresType::ProviderName(name.to_owned()))
}

fn missing() -> jwt::JwtRequirement {
    wrap(RequiresType::AllowMissing(Empty::default()))
}

fn any_of(requirements: Vec<jwt::JwtRequirement>) -> jwt::JwtRequirement {
    wrap(RequiresType::RequiresAny(jwt::JwtRequirementOrList {
        requirements,
    }))
}

fn provider(ir: &JwtProviderIr) -> jwt::JwtProvider {
    use jwt::jwt_provider::{JwksSourceSpecifier, NormalizePayload};
    let texts = |list: &[Str]| list.iter().map(Str::to_string).collect();
    let header = |(name, prefix): &(Str, Str)| jwt::JwtHeader {
        name: name.to_string(),
        value_prefix: prefix.to_string(),
    };
    let claim = |(header, claim): &(Str, Str)| jwt::JwtClaimToHeader {
        header_name: header.to_string(),
        claim_name: claim.to_string(),
        ..Default::default()
    };
    let own = ir.space_delimited.iter().map(|claim| &**claim);
    let delimited: BTreeSet<&str> = own.chain(SPACE_DELIMITED).collect();
    let keys = data(Specifier::InlineString(ir.jwks.to_string()));
    jwt::JwtProvider {
        issuer: ir.issuer.to_string(),
        audiences: texts(&ir.audiences),
        forward: ir.forward,
        from_headers: ir.from_headers.iter().map(header).collect(),
        from_params: texts(&ir.from_params),
        from_cookies: texts(&ir.from_cookies),
        forward_payload_header: ir.payload_header.to_string(),
        payload_in_metadata: PAYLOAD.into(),
        normalize_payload_in_metadata: Some(NormalizePayload {
            space_delimited_claims: delimited.into_iter().map(str::to_owned).collect(),
        }),
        claim_to_headers: ir.claim_headers.iter().map(claim).collect(),
        clear_route_cache: true,
        jwks_source_specifier: Some(JwksSourceSpecifier::LocalJwks(keys)),
        ..Default::default()
    }
}
