//! Claims about RequestAuthentications. Source: spec/policy-and-traffic.md §9.1, §9.2.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Str;
use crate::input::{JwtRule, RequestAuthentication, TargetRef};
use crate::object::{Object, Parsed};
use crate::parse::{Recognised, recognise};

fn read(spec: Value) -> Arc<Parsed<RequestAuthentication>> {
    let value = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "jwt", "namespace": "shop"},
        "spec": spec,
    });
    match recognise(&value, "f.yaml") {
        Recognised::Object(Object::RequestAuthentication(row)) => row,
        other => panic!("{other:?}"),
    }
}

fn s(text: &str) -> Str {
    Str::from(text)
}

#[test]
fn rules_are_read_whole() {
    let row = read(json!({
        "targetRefs": [{"kind": "Service", "name": "web"}],
        "jwtRules": [
            {
                "issuer": "https://issuer.example",
                "audiences": ["a", "b"],
                "jwksUri": "https://issuer.example/keys",
                "fromHeaders": [{"name": "x-token", "prefix": "Bearer "}, {"name": "x-other"}],
                "fromParams": ["token"],
                "fromCookies": ["session"],
                "forwardOriginalToken": true,
                "outputPayloadToHeader": "x-payload",
                "outputClaimToHeaders": [{"header": "x-sub", "claim": "sub"}],
                "spaceDelimitedClaims": ["roles"],
                "timeout": "2s",
            },
            {"issuer": "i", "jwks": r#"{"keys": [{"kty": "RSA", "n": "x", "e": "AQAB"}]}"#},
        ],
    }));
    let expected = RequestAuthentication {
        selector: None,
        targets: vec![TargetRef {
            kind: s("Service"),
            name: s("web"),
            ..TargetRef::default()
        }],
        rules: vec![
            JwtRule {
                issuer: s("https://issuer.example"),
                audiences: vec![s("a"), s("b")],
                jwks_uri: s("https://issuer.example/keys"),
                jwks: Str::new(),
                from_headers: vec![(s("x-token"), s("Bearer ")), (s("x-other"), Str::new())],
                from_params: vec![s("token")],
                from_cookies: vec![s("session")],
                forward: true,
                payload_header: s("x-payload"),
                claim_headers: vec![(s("x-sub"), s("sub"))],
                space_delimited_claims: vec![s("roles")],
                timeout: Some(Duration::from_secs(2)),
            },
            JwtRule {
                issuer: s("i"),
                jwks: s(r#"{"keys": [{"kty": "RSA", "n": "x", "e": "AQAB"}]}"#),
                ..JwtRule::default()
            },
        ],
    };
    assert_eq!(row.body, Ok(expected));
    assert_eq!(row.notes, []);
}

#[test]
fn what_validation_or_envoy_refuses_is_invalid_and_keeps_its_targets() {
    let rule = |rule: Value| json!({"jwtRules": [rule]});
    let with = |field: &str, value: Value| {
        let mut rule = json!({"issuer": "i"});
        rule[field] = value;
        json!({"jwtRules": [{"issuer": "first"}, rule]})
    };
    let cases = [
        (rule(json!({})), "jwtRules[0].issuer"),
        (
            rule(json!({"jwks": "{\"keys\": [{\"kty\": \"RSA\"}]}"})),
            "jwtRules[0].issuer",
        ),
        (with("jwksUri", json!("ftp://a/b")), "jwtRules[1].jwksUri"),
        (with("jwksUri", json!("https://")), "jwtRules[1].jwksUri"),
        (
            with("jwksUri", json!("https://a:99999/b")),
            "jwtRules[1].jwksUri",
        ),
        (
            with("jwksUri", json!("https://a:x/b")),
            "jwtRules[1].jwksUri",
        ),
        (
            with("jwksUri", json!("https://[::1]:0/b")),
            "jwtRules[1].jwksUri",
        ),
        (
            with("jwksUri", json!("https://a/b c")),
            "jwtRules[1].jwksUri",
        ),
        (
            rule(json!({"jwksUri": "https://a/", "jwks": "{\"keys\": []}"})),
            "jwtRules[0].jwks",
        ),
        (with("jwks", json!("no json")), "jwtRules[1].jwks"),
        (
            with("jwks", json!("{\"kty\": \"RSA\"}")),
            "jwtRules[1].jwks",
        ),
        (with("jwks", json!("{\"keys\": []}")), "jwtRules[1].jwks"),
        (with("jwks", json!("{\"keys\": [{}]}")), "jwtRules[1].jwks"),
        (
            with("audiences", json!(["a", ""])),
            "jwtRules[1].audiences[1]",
        ),
        (with("fromParams", json!([""])), "jwtRules[1].fromParams[0]"),
        (
            with("fromCookies", json!([""])),
            "jwtRules[1].fromCookies[0]",
        ),
        (
            with("fromHeaders", json!([{}])),
            "jwtRules[1].fromHeaders[0].name",
        ),
        (
            with("fromHeaders", json!([{"name": "a b"}])),
            "jwtRules[1].fromHeaders[0].name",
        ),
        (
            with("fromHeaders", json!([{"name": "a", "prefix": "x\r\n"}])),
            "jwtRules[1].fromHeaders[0].prefix",
        ),
        (
            with("outputPayloadToHeader", json!("a:b")),
            "jwtRules[1].outputPayloadToHeader",
        ),
        (
            with(
                "outputClaimToHeaders",
                json!([{"header": "x.y", "claim": "c"}]),
            ),
            "jwtRules[1].outputClaimToHeaders[0].header",
        ),
        (
            with("outputClaimToHeaders", json!([{"header": "x"}])),
            "jwtRules[1].outputClaimToHeaders[0].claim",
        ),
        (
            with("spaceDelimitedClaims", json!(vec!["x"; 65])),
            "jwtRules[1].spaceDelimitedClaims",
        ),
        (with("timeout", json!("0s")), "jwtRules[1].timeout"),
        (with("timeout", json!("soon")), "jwtRules[1].timeout"),
        (with("issueer", json!("i")), "jwtRules[1].issueer"),
        (json!({"rules": []}), "rules"),
        (json!({"selector": {"matchLabels": {"a": "b"}}}), "selector"),
    ];
    for (mut spec, field) in cases {
        spec["targetRefs"] = json!([{"kind": "Service", "name": "web"}]);
        let row = read(spec.clone());
        let Err(invalid) = &row.body else {
            panic!("{spec} is valid");
        };
        assert_eq!(
            invalid.field,
            format!("spec.{field}"),
            "{spec}: {}",
            invalid.reason
        );
        assert_eq!(invalid.targets.len(), 1, "{spec}");
    }
}

#[test]
fn addresses_of_every_form_are_taken() {
    for uri in [
        "http://a",
        "HTTPS://a.b:8443/keys?x=1#y",
        "http://10.0.0.1:80/",
        "https://[2001:db8::1]/keys",
        "https://[2001:db8::1]:8443/keys",
        "https://user:secret@a:8443/",
    ] {
        let row = read(json!({"jwtRules": [{"jwksUri": uri}]}));
        assert!(row.body.is_ok(), "{uri}: {:?}", row.body);
    }
}

#[test]
fn secret_keys_are_told_of_and_never_shown() {
    for key in [
        r#"{"kty": "oct", "k": "c2VjcmV0"}"#,
        r#"{"kty": "RSA", "n": "x", "d": "c2VjcmV0"}"#,
    ] {
        let jwks = format!("{{\"keys\": [{key}]}}");
        let row = read(json!({"jwtRules": [{"issuer": "i", "jwks": jwks}]}));
        assert!(row.body.is_ok());
        let notes: Vec<_> = row.notes.iter().map(|note| note.code).collect();
        assert_eq!(notes, ["ra-jwks-secret"]);
        assert!(!format!("{:?}", row.notes).contains("c2VjcmV0"));
    }
}

#[test]
fn without_rules_nothing_is_validated_and_that_is_said() {
    let row = read(json!({"targetRefs": [{"kind": "Service", "name": "web"}]}));
    let notes: Vec<_> = row.notes.iter().map(|note| note.code).collect();
    assert_eq!(notes, ["ra-no-rules"]);
}

#[test]
fn keys_are_not_waited_for_without_bound() {
    for (text, seconds, noted) in [("10s", 10, false), ("11s", 10, true), ("2h", 10, true)] {
        let rule = json!({"issuer": "i", "jwksUri": "https://i.example/keys", "timeout": text});
        let row = read(json!({ "jwtRules": [rule] }));
        let timeout = row.ok().unwrap().rules[0].timeout;
        assert_eq!(timeout, Some(Duration::from_secs(seconds)), "{text}");
        let at = |note: &crate::Finding| note.field == "spec.jwtRules[0].timeout";
        assert_eq!(row.notes.iter().any(at), noted, "{text}");
    }
}
