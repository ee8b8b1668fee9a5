//! security.istio.io RequestAuthentication. What validation would refuse is invalid here, and
//! so is what Envoy would refuse: a rule must never let tokens through that it does not mean.
//!
//! Source: spec/policy-and-traffic.md §2.1, §9.1, §9.2.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::Str;
use crate::finding::Severity;
use crate::input::{JwtRule, RequestAuthentication};
use crate::jwks::FETCH_TIMEOUT_MAX;
use crate::labels::ANNOTATION_DRY_RUN;
use crate::object::{Invalid, Parsed};

use super::duration;
use super::read::{Doc, at_most, invalid, strs};
use super::security::{self, SelectorWire, TargetWire};
use super::words::is_header_name;

// Limits of the API.
const RULES_COUNT_MAX: usize = 4_096;
const CLAIMS_COUNT_MAX: usize = 64;

const FIELDS: &[&str] = &[
    "audiences",
    "claim",
    "forwardOriginalToken",
    "fromCookies",
    "fromHeaders",
    "fromParams",
    "group",
    "header",
    "issuer",
    "jwks",
    "jwksUri",
    "jwtRules",
    "kind",
    "matchLabels",
    "name",
    "outputClaimToHeaders",
    "outputPayloadToHeader",
    "prefix",
    "selector",
    "spaceDelimitedClaims",
    "targetRef",
    "targetRefs",
    "timeout",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecWire {
    selector: Option<SelectorWire>,
    target_ref: Option<TargetWire>,
    target_refs: Option<Vec<TargetWire>>,
    jwt_rules: Option<Vec<RuleWire>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleWire {
    issuer: Option<String>,
    audiences: Option<Vec<String>>,
    #[serde(alias = "jwks_uri")]
    jwks_uri: Option<String>,
    jwks: Option<String>,
    from_headers: Option<Vec<HeaderWire>>,
    from_params: Option<Vec<String>>,
    from_cookies: Option<Vec<String>>,
    forward_original_token: Option<bool>,
    output_payload_to_header: Option<String>,
    output_claim_to_headers: Option<Vec<ClaimWire>>,
    space_delimited_claims: Option<Vec<String>>,
    timeout: Option<String>,
}

#[derive(Deserialize)]
struct HeaderWire {
    name: Option<String>,
    prefix: Option<String>,
}

#[derive(Deserialize)]
struct ClaimWire {
    header: Option<String>,
    claim: Option<String>,
}

pub(super) fn request_authentication(doc: Doc<'_>) -> Arc<Parsed<RequestAuthentication>> {
    doc.row(|doc| {
        let spec: SpecWire = doc.spec(FIELDS, |_| false)?;
        if doc.meta.annotation(ANNOTATION_DRY_RUN).is_some() {
            return Err(invalid(
                security::dry_run_field(),
                "only an AuthorizationPolicy can be tried out",
            ));
        }
        let selector = security::selector(spec.selector)?;
        let targets = security::targets(spec.target_ref, spec.target_refs)?;
        if selector.is_some() && !targets.is_empty() {
            return Err(invalid(
                "spec.selector",
                "there is either a selector or targetRefs",
            ));
        }
        let wires = spec.jwt_rules.unwrap_or_default();
        at_most(&wires, RULES_COUNT_MAX, "spec.jwtRules")?;
        let mut rules = Vec::with_capacity(wires.len());
        for (i, wire) in wires.into_iter().enumerate() {
            rules.push(rule(doc, &format!("spec.jwtRules[{i}]"), wire)?);
        }
        if rules.is_empty() {
            doc.note(
                "ra-no-rules",
                Severity::Warning,
                "spec.jwtRules",
                "There are no rules, so no token is validated and none is required",
                "Add a rule for each issuer, or remove the object",
            );
        }
        security::note_selector(doc, selector.as_ref());
        Ok(RequestAuthentication {
            selector,
            targets,
            rules,
        })
    })
}

fn rule(doc: &mut Doc<'_>, at: &str, wire: RuleWire) -> Result<JwtRule, Invalid> {
    let issuer = wire.issuer.unwrap_or_default();
    let jwks_uri = wire.jwks_uri.unwrap_or_default();
    let jwks = wire.jwks.unwrap_or_default();
    if issuer.is_empty() && jwks_uri.is_empty() {
        return Err(invalid(
            format!("{at}.issuer"),
            "an issuer or a jwksUri is required",
        ));
    }
    if !jwks.is_empty() && !jwks_uri.is_empty() {
        return Err(invalid(
            format!("{at}.jwks"),
            "there is either jwks or jwksUri",
        ));
    }
    if !jwks_uri.is_empty() {
        uri(&jwks_uri).map_err(|reason| invalid(format!("{at}.jwksUri"), reason))?;
    }
    if !jwks.is_empty() {
        key_set(doc, &format!("{at}.jwks"), &jwks)?;
    }
    let claims = wire.space_delimited_claims;
    let timeout = wire.timeout.filter(|text| !text.is_empty());
    let timeout = timeout.map(|text| duration::positive(&text)).transpose();
    let timeout = timeout.map_err(|reason| invalid(format!("{at}.timeout"), reason))?;
    if timeout.is_some_and(|timeout| timeout > FETCH_TIMEOUT_MAX) {
        doc.not_applied(
            format!("{at}.timeout"),
            "keys are waited for no longer than 10 s",
        );
    }
    Ok(JwtRule {
        issuer: Str::from(issuer),
        audiences: texts(at, "audiences", wire.audiences)?,
        jwks_uri: Str::from(jwks_uri),
        jwks: Str::from(jwks),
        from_headers: from_headers(at, wire.from_headers.unwrap_or_default())?,
        from_params: texts(at, "fromParams", wire.from_params)?,
        from_cookies: texts(at, "fromCookies", wire.from_cookies)?,
        forward: wire.forward_original_token.unwrap_or_default(),
        payload_header: payload_header(at, wire.output_payload_to_header.unwrap_or_default())?,
        claim_headers: claim_headers(at, wire.output_claim_to_headers.unwrap_or_default())?,
        space_delimited_claims: {
            let claims = texts(at, "spaceDelimitedClaims", claims)?;
            at_most(
                &claims,
                CLAIMS_COUNT_MAX,
                &format!("{at}.spaceDelimitedClaims"),
            )?;
            claims
        },
        timeout: timeout.map(|timeout| timeout.min(FETCH_TIMEOUT_MAX)),
    })
}

/// Texts that are not empty.
fn texts(at: &str, name: &str, list: Option<Vec<String>>) -> Result<Vec<Str>, Invalid> {
    let list = list.unwrap_or_default();
    if let Some(i) = list.iter().position(String::is_empty) {
        return Err(invalid(format!("{at}.{name}[{i}]"), "an empty value"));
    }
    Ok(strs(list))
}

fn from_headers(at: &str, wires: Vec<HeaderWire>) -> Result<Vec<(Str, Str)>, Invalid> {
    let mut out = Vec::with_capacity(wires.len());
    for (i, wire) in wires.into_iter().enumerate() {
        let at = format!("{at}.fromHeaders[{i}]");
        let name = wire.name.unwrap_or_default();
        let prefix = wire.prefix.unwrap_or_default();
        if !is_header_name(&name) {
            return Err(invalid(format!("{at}.name"), "not the name of a header"));
        }
        if prefix.chars().any(char::is_control) {
            let reason = "a header cannot hold control characters";
            return Err(invalid(format!("{at}.prefix"), reason));
        }
        out.push((Str::from(name), Str::from(prefix)));
    }
    Ok(out)
}

fn payload_header(at: &str, name: String) -> Result<Str, Invalid> {
    if !name.is_empty() && !is_header_name(&name) {
        return Err(invalid(
            format!("{at}.outputPayloadToHeader"),
            "not the name of a header",
        ));
    }
    Ok(Str::from(name))
}

fn claim_headers(at: &str, wires: Vec<ClaimWire>) -> Result<Vec<(Str, Str)>, Invalid> {
    let mut out = Vec::with_capacity(wires.len());
    for (i, wire) in wires.into_iter().enumerate() {
        let at = format!("{at}.outputClaimToHeaders[{i}]");
        let (header, claim) = (
            wire.header.unwrap_or_default(),
            wire.claim.unwrap_or_default(),
        );
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if !is_header_name(&header) || !header.chars().all(plain) {
            return Err(invalid(
                format!("{at}.header"),
                "a header here is named with letters, digits, hyphens and underscores",
            ));
        }
        if claim.is_empty() {
            return Err(invalid(format!("{at}.claim"), "missing or empty"));
        }
        out.push((Str::from(header), Str::from(claim)));
    }
    Ok(out)
}

/// An address over HTTP: with a host, and with a port that is one.
fn uri(text: &str) -> Result<(), &'static str> {
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    let rest = if lower.starts_with("https://") {
        text.get(8..)
    } else if lower.starts_with("http://") {
        text.get(7..)
    } else {
        return Err("not an address that begins with https:// or http://");
    };
    let rest = rest.unwrap_or_default();
    if rest.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err("an address has neither spaces nor control characters");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host_and_port = authority.rsplit('@').next().unwrap_or_default();
    // A literal address of IPv6 has colons of its own.
    let (host, port) = match host_and_port.rsplit_once(']') {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match host_and_port.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (host_and_port, None),
        },
    };
    if host.is_empty() {
        return Err("an address without a host");
    }
    match port.map(str::parse::<u16>) {
        None | Some(Ok(1..)) => Ok(()),
        Some(_) => Err("its port is not one (1 to 65535)"),
    }
}

/// Inline keys. Those that are secret are told of, but never shown.
fn key_set(doc: &mut Doc<'_>, at: &str, text: &str) -> Result<(), Invalid> {
    let parsed = serde_json::from_str::<Value>(text).ok();
    let keys = parsed
        .as_ref()
        .and_then(|set| set.get("keys"))
        .and_then(Value::as_array)
        .ok_or_else(|| invalid(at, "not a JSON object with a list of keys"))?;
    if keys.is_empty() {
        return Err(invalid(at, "it holds no keys"));
    }
    let kind = |key: &Value| key.get("kty").and_then(Value::as_str).map(str::to_owned);
    if let Some(i) = keys.iter().position(|key| kind(key).is_none()) {
        let reason = arcstr::format!("key {i} of it has no kty, so it is none");
        return Err(invalid(at, reason));
    }
    let secret = |key: &Value| key.get("d").is_some() || kind(key).as_deref() == Some("oct");
    if keys.iter().any(secret) {
        doc.note(
            "ra-jwks-secret",
            Severity::Warning,
            at,
            "These keys are private or symmetric: everybody who can read this object or the \
             configuration of a waypoint can make tokens that pass",
            "Give the public keys alone, and replace the ones that were disclosed here",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
