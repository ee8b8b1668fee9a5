//! §9.1, §9.2.

use super::*;

#[test]
fn authorization_policies() {
    let rule = |rule: Value| json!({"rules": [rule]});
    let from = |source: Value| json!({"rules": [{"from": [{"source": source}]}]});
    let to = |operation: Value| json!({"rules": [{"to": [{"operation": operation}]}]});
    let when =
        |key: &str, values: Value| json!({"rules": [{"when": [{"key": key, "values": values}]}]});
    let custom =
        |rules: Value| json!({"action": "CUSTOM", "provider": {"name": "x"}, "rules": rules});
    let source = "spec.rules[0].from[0].source";
    let rows: Vec<Row> = vec![
        ("nothing allowed", json!({}), Fine),
        (
            "CUSTOM with nil rules",
            json!({"action": "CUSTOM", "provider": {"name": "x"}}),
            Reject("spec.rules"),
        ),
        (
            "CUSTOM without provider",
            json!({"action": "CUSTOM", "rules": [{}]}),
            Reject("spec.provider"),
        ),
        (
            "CUSTOM without a name of the provider",
            json!({"action": "CUSTOM", "provider": {}, "rules": [{}]}),
            Reject("spec.provider.name"),
        ),
        (
            "provider with another action",
            json!({"provider": {"name": "x"}, "rules": [{}]}),
            Reject("spec.provider"),
        ),
        (
            "DENY with nil rules",
            json!({"action": "DENY"}),
            Reject("spec.rules"),
        ),
        (
            "CUSTOM with principals",
            custom(json!([{"from": [{"source": {"principals": ["a"]}}]}])),
            Reject("spec.rules[0].from[0].source.principals"),
        ),
        (
            "CUSTOM with notNamespaces",
            custom(json!([{"from": [{"source": {"notNamespaces": ["a"]}}]}])),
            Reject("spec.rules[0].from[0].source.notNamespaces"),
        ),
        (
            "CUSTOM with request.auth",
            custom(json!([{"when": [{"key": "request.auth.principal", "values": ["a"]}]}])),
            Reject("spec.rules[0].when[0].key"),
        ),
        (
            "from: []",
            rule(json!({"from": []})),
            Reject("spec.rules[0].from"),
        ),
        (
            "to: []",
            rule(json!({"to": []})),
            Reject("spec.rules[0].to"),
        ),
        ("nil source", rule(json!({"from": [{}]})), Reject(source)),
        ("empty source", from(json!({})), Reject(source)),
        (
            "empty operation",
            to(json!({})),
            Reject("spec.rules[0].to[0].operation"),
        ),
        (
            "serviceAccounts with namespaces",
            from(json!({"serviceAccounts": ["a"], "namespaces": ["b"]})),
            Reject("spec.rules[0].from[0].source.serviceAccounts"),
        ),
        (
            "more than 16 serviceAccounts",
            from(json!({"serviceAccounts": vec!["a"; 17]})),
            Reject("spec.rules[0].from[0].source.serviceAccounts"),
        ),
        (
            "a serviceAccount with *",
            from(json!({"serviceAccounts": ["a*"]})),
            Reject("spec.rules[0].from[0].source.serviceAccounts[0]"),
        ),
        (
            "a serviceAccount of three parts",
            from(json!({"serviceAccounts": ["a/b/c"]})),
            Reject("spec.rules[0].from[0].source.serviceAccounts[0]"),
        ),
        (
            "a trustDomain with /",
            from(json!({"trustDomains": ["a/b"]})),
            Reject("spec.rules[0].from[0].source.trustDomains[0]"),
        ),
        (
            "a bad IP",
            from(json!({"ipBlocks": ["10.0.0.300"]})),
            Reject("spec.rules[0].from[0].source.ipBlocks[0]"),
        ),
        (
            "a port above 65535",
            to(json!({"ports": ["65536"]})),
            Reject("spec.rules[0].to[0].operation.ports[0]"),
        ),
        (
            "an empty string in a list",
            to(json!({"methods": [""]})),
            Reject("spec.rules[0].to[0].operation.methods[0]"),
        ),
        (
            "a template within a segment",
            to(json!({"paths": ["/a{*}"]})),
            Reject("spec.rules[0].to[0].operation.paths[0]"),
        ),
        (
            "{**} that is not last",
            to(json!({"paths": ["/{**}/a"]})),
            Reject("spec.rules[0].to[0].operation.paths[0]"),
        ),
        (
            "* beside a template",
            to(json!({"paths": ["/{*}/a*"]})),
            Reject("spec.rules[0].to[0].operation.paths[0]"),
        ),
        (
            "a good template",
            to(json!({"paths": ["/a/{*}/b/{**}"]})),
            Fine,
        ),
        (
            "an unknown key",
            when("source.nme", json!(["a"])),
            Reject("spec.rules[0].when[0].key"),
        ),
        (
            "a removed key",
            when("destination.labels[a]", json!(["a"])),
            Reject("spec.rules[0].when[0].key"),
        ),
        (
            "a key without values",
            rule(json!({"when": [{"key": "source.ip"}]})),
            Reject("spec.rules[0].when[0]"),
        ),
        (
            "a malformed header key",
            when("request.headers", json!(["a"])),
            Reject("spec.rules[0].when[0].key"),
        ),
        (
            "more than 512 rules",
            json!({"rules": vec![json!({}); 513]}),
            Reject("spec.rules"),
        ),
        (
            "selector and targetRefs",
            json!({"selector": {"matchLabels": {"a": "b"}}, "targetRefs": [{"kind": "Service", "name": "a"}]}),
            Reject("spec.selector"),
        ),
        (
            "selector with *",
            json!({"selector": {"matchLabels": {"a": "b*"}}}),
            Reject("spec.selector.matchLabels.a"),
        ),
        (
            "selector with a long value",
            json!({"selector": {"matchLabels": {"a": "b".repeat(64)}}}),
            Reject("spec.selector.matchLabels.a"),
        ),
        (
            "empty selector",
            json!({"selector": {}}),
            Warn("every workload"),
        ),
        (
            "targetRef without name",
            json!({"targetRef": {"kind": "Service", "name": ""}}),
            Reject("spec.targetRef"),
        ),
        (
            "targetRef of another namespace",
            json!({"targetRef": {"kind": "Service", "name": "a", "namespace": "b"}}),
            Reject("spec.targetRef.namespace"),
        ),
        (
            "targetRef of another kind",
            json!({"targetRef": {"kind": "Pod", "name": "a"}}),
            Reject("spec.targetRef.kind"),
        ),
        (
            "more than 16 targetRefs",
            json!({"targetRefs": vec![json!({"kind": "Service", "name": "a"}); 17]}),
            Reject("spec.targetRefs"),
        ),
        (
            "a DENY rule of HTTP alone",
            json!({"action": "DENY", "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]}),
            Warn("refuses all traffic"),
        ),
        (
            "a DENY rule with a port",
            json!({"action": "DENY", "rules": [{"to": [{"operation": {"methods": ["GET"], "ports": ["80"]}}]}]}),
            Fine,
        ),
        (
            "an ALLOW rule of HTTP alone",
            to(json!({"methods": ["GET"]})),
            Fine,
        ),
    ];
    check_rows(
        "security.istio.io",
        "AuthorizationPolicy",
        &json!({}),
        &rows,
    );
}

#[test]
fn request_authentications() {
    let rule = |rule: Value| json!({"jwtRules": [rule]});
    let of = |field: &str, value: Value| json!({"jwtRules": [{"issuer": "i", field: value}]});
    let rows: Vec<Row> = vec![
        ("an issuer", json!({}), Fine),
        (
            "neither issuer nor jwksUri",
            rule(json!({"audiences": ["a"]})),
            Reject("spec.jwtRules[0].issuer"),
        ),
        (
            "jwksUri that is not http",
            of("jwksUri", json!("ftp://a")),
            Reject("spec.jwtRules[0].jwksUri"),
        ),
        (
            "jwksUri with a bad port",
            of("jwksUri", json!("https://a:b/")),
            Reject("spec.jwtRules[0].jwksUri"),
        ),
        (
            "jwks and jwksUri",
            rule(json!({"issuer": "i", "jwks": "{}", "jwksUri": "https://a"})),
            Reject("spec.jwtRules[0].jwks"),
        ),
        (
            "unparsable jwks",
            of("jwks", json!("{")),
            Reject("spec.jwtRules[0].jwks"),
        ),
        (
            "empty audience",
            of("audiences", json!([""])),
            Reject("spec.jwtRules[0].audiences[0]"),
        ),
        (
            "empty fromParams",
            of("fromParams", json!([""])),
            Reject("spec.jwtRules[0].fromParams[0]"),
        ),
        (
            "empty fromCookies",
            of("fromCookies", json!([""])),
            Reject("spec.jwtRules[0].fromCookies[0]"),
        ),
        (
            "fromHeaders without name",
            of("fromHeaders", json!([{"name": ""}])),
            Reject("spec.jwtRules[0].fromHeaders[0].name"),
        ),
        (
            "claim header without claim",
            of("outputClaimToHeaders", json!([{"header": "a"}])),
            Reject("spec.jwtRules[0].outputClaimToHeaders[0].claim"),
        ),
        (
            "claim header of other letters",
            of(
                "outputClaimToHeaders",
                json!([{"header": "a.b", "claim": "c"}]),
            ),
            Reject("spec.jwtRules[0].outputClaimToHeaders[0].header"),
        ),
        (
            "bad timeout",
            of("timeout", json!("0s")),
            Reject("spec.jwtRules[0].timeout"),
        ),
        (
            "more than 64 spaceDelimitedClaims",
            of("spaceDelimitedClaims", json!(vec!["a"; 65])),
            Reject("spec.jwtRules[0].spaceDelimitedClaims"),
        ),
        (
            "private keys",
            of("jwks", json!(r#"{"keys":[{"kty":"RSA","d":"x"}]}"#)),
            Warn("ra-jwks-secret"),
        ),
    ];
    let good = json!({"jwtRules": [{"issuer": "i"}]});
    check_rows("security.istio.io", "RequestAuthentication", &good, &rows);
}

#[test]
fn peer_authentications() {
    let rows: Vec<Row> = vec![
        ("STRICT", json!({"mtls": {"mode": "STRICT"}}), Fine),
        (
            "portLevelMtls without selector",
            json!({"portLevelMtls": {"80": {"mode": "STRICT"}}}),
            Reject("spec.portLevelMtls"),
        ),
        (
            "empty portLevelMtls",
            json!({"selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {}}),
            Reject("spec.portLevelMtls"),
        ),
        (
            "port 0",
            json!({"selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {"0": {"mode": "STRICT"}}}),
            Reject("spec.portLevelMtls.0"),
        ),
        (
            "empty selector",
            json!({"selector": {"matchLabels": {}}}),
            Warn("every workload"),
        ),
        (
            "a misspelt field",
            json!({"mtsl": {"mode": "STRICT"}}),
            Reject("spec.mtsl"),
        ),
    ];
    check_rows("security.istio.io", "PeerAuthentication", &json!({}), &rows);
}
