//! security.istio.io RequestAuthentication. Source: spec/policy-and-traffic.md §2.

use std::time::Duration;

use super::TargetRef;
use crate::Str;
use crate::object::Labels;

/// `jwtRules[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwtRule {
    /// `issuer`; empty = any.
    pub issuer: Str,
    /// `audiences`; empty = any.
    pub audiences: Vec<Str>,
    /// `jwksUri`, empty when unset.
    pub jwks_uri: Str,
    /// `jwks` as written, empty when unset.
    pub jwks: Str,
    /// `fromHeaders`: name and prefix.
    pub from_headers: Vec<(Str, Str)>,
    /// `fromParams`.
    pub from_params: Vec<Str>,
    /// `fromCookies`.
    pub from_cookies: Vec<Str>,
    /// `forwardOriginalToken`.
    pub forward: bool,
    /// `outputPayloadToHeader`, empty when unset.
    pub payload_header: Str,
    /// `outputClaimToHeaders`: header and claim.
    pub claim_headers: Vec<(Str, Str)>,
    /// `spaceDelimitedClaims`.
    pub space_delimited_claims: Vec<Str>,
    /// `timeout` of a fetch.
    pub timeout: Option<Duration>,
}

/// security.istio.io RequestAuthentication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestAuthentication {
    /// `selector.matchLabels`; `None` without selector.
    pub selector: Option<Labels>,
    /// `targetRefs`, else the single `targetRef`.
    pub targets: Vec<TargetRef>,
    /// Rules.
    pub rules: Vec<JwtRule>,
}
