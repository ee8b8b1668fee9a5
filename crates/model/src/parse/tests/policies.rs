//! What makes a policy invalid. Source: spec/policy-and-traffic.md §9.1, §9.2.

use serde_json::{Value, json};

use super::{doc, finding, object, policy, s, strs};
use crate::finding::Severity;
use crate::input::Action;
use crate::object::{Invalid, Object};

fn peer(spec: Value) -> Value {
    doc(
        "security.istio.io/v1",
        "PeerAuthentication",
        json!({"spec": spec}),
    )
}

fn rule(rule: Value) -> Value {
    policy(json!({"rules": [rule]}))
}

fn source(source: Value) -> Value {
    rule(json!({"from": [{"source": source}]}))
}

fn operation(operation: Value) -> Value {
    rule(json!({"to": [{"operation": operation}]}))
}

fn when(key: &str, value: &str) -> Value {
    rule(json!({"when": [{"key": key, "values": [value]}]}))
}

fn custom(rule: Value) -> Value {
    policy(json!({"action": "CUSTOM", "provider": {"name": "p"}, "rules": [rule]}))
}

fn annotated(mut value: Value, text: &str) -> Value {
    value["metadata"]["annotations"] = json!({"istio.io/dry-run": text});
    value
}

fn selecting(labels: Value) -> Value {
    policy(json!({"selector": {"matchLabels": labels}}))
}

fn targeting(target: Value) -> Value {
    policy(json!({"targetRefs": [target]}))
}

fn assert_invalid(cases: Vec<(Value, &str)>) {
    for (value, field) in cases {
        let found = object(&value);
        let invalid = found
            .invalid()
            .unwrap_or_else(|| panic!("{value} is valid"));
        assert_eq!(invalid.field, field, "{value}: {}", invalid.reason);
        assert!(!invalid.reason.is_empty(), "{value}");
        // One cause, one finding: the stages tell of policies.
        assert_eq!(found.notes(), [], "{value}");
    }
}

fn assert_valid(values: Vec<Value>) {
    for value in values {
        let found = object(&value);
        assert_eq!(
            (found.invalid(), found.notes()),
            (None, [].as_slice()),
            "{value}"
        );
    }
}

#[test]
fn shapes_that_an_api_server_refuses_make_a_policy_invalid() {
    let service = json!({"kind": "Service", "name": "a"});
    assert_invalid(vec![
        (policy(json!("text")), "spec"),
        (policy(json!({"action": "ALOW"})), "spec.action"),
        (policy(json!({"action": "DENY"})), "spec.rules"),
        (
            policy(json!({"action": "DENY", "rules": null})),
            "spec.rules",
        ),
        (policy(json!({"action": "DENY", "rules": []})), "spec.rules"),
        (
            policy(json!({"action": "CUSTOM", "provider": {"name": "p"}})),
            "spec.rules",
        ),
        (
            policy(json!({"action": "CUSTOM", "rules": [{}]})),
            "spec.provider",
        ),
        (
            policy(json!({"action": "CUSTOM", "provider": {"name": ""}, "rules": [{}]})),
            "spec.provider.name",
        ),
        (policy(json!({"provider": {"name": "p"}})), "spec.provider"),
        (policy(json!({"rules": {}})), "spec.rules"),
        (policy(json!({"rules": [null]})), "spec.rules[0]"),
        (policy(json!({"rules": vec![json!({}); 513]})), "spec.rules"),
        (rule(json!({"from": []})), "spec.rules[0].from"),
        (rule(json!({"to": []})), "spec.rules[0].to"),
        (rule(json!({"from": [{}]})), "spec.rules[0].from[0].source"),
        (rule(json!({"to": [{}]})), "spec.rules[0].to[0].operation"),
        (
            rule(json!({"from": vec![json!({"source": {"namespaces": ["a"]}}); 513]})),
            "spec.rules[0].from",
        ),
        (source(json!({})), "spec.rules[0].from[0].source"),
        (
            source(json!({"principals": []})),
            "spec.rules[0].from[0].source",
        ),
        (operation(json!({})), "spec.rules[0].to[0].operation"),
        (
            policy(json!({"selector": {}, "targetRef": {"kind": "Service", "name": "a"}})),
            "spec.selector",
        ),
        (
            policy(json!({"targetRef": service, "targetRefs": [service]})),
            "spec.targetRef",
        ),
        (
            policy(json!({"targetRefs": vec![service.clone(); 17]})),
            "spec.targetRefs",
        ),
        (
            targeting(json!({"kind": "Service", "name": ""})),
            "spec.targetRefs[0]",
        ),
        (
            targeting(json!({"kind": "Service", "name": "a", "namespace": "b"})),
            "spec.targetRefs[0].namespace",
        ),
        (
            targeting(json!({"kind": "Gateway", "name": "a"})),
            "spec.targetRefs[0].group",
        ),
        (
            targeting(json!({"kind": "Pod", "name": "a"})),
            "spec.targetRefs[0].kind",
        ),
        (
            policy(json!({"targetRef": {"kind": "Pod", "name": "a"}})),
            "spec.targetRef.kind",
        ),
        (
            selecting(json!({"app": "mi*"})),
            "spec.selector.matchLabels.app",
        ),
        (
            selecting(json!({"a*": "b"})),
            "spec.selector.matchLabels.a*",
        ),
        (selecting(json!({"": "a"})), "spec.selector.matchLabels."),
        (
            selecting(json!({"app": "a".repeat(64)})),
            "spec.selector.matchLabels.app",
        ),
        (
            selecting(json!({"app": null})),
            "spec.selector.matchLabels.app",
        ),
        (
            annotated(policy(json!({"action": "AUDIT"})), "true"),
            "metadata.annotations[istio.io/dry-run]",
        ),
    ]);
    let legal = |action: &str| policy(json!({"action": action, "rules": [{}]}));
    let gateway = |kind: &str| {
        targeting(json!({"group": "gateway.networking.k8s.io", "kind": kind, "name": "a"}))
    };
    assert_valid(vec![
        policy(json!({})),
        policy(json!({"rules": []})),
        policy(json!({"action": "AUDIT"})),
        legal("ALLOW"),
        legal("DENY"),
        custom(json!({})),
        policy(json!({"rules": vec![json!({}); 512]})),
        selecting(json!({"app": "a".repeat(63)})),
        targeting(service),
        targeting(json!({"group": "networking.istio.io", "kind": "ServiceEntry", "name": "a"})),
        gateway("Gateway"),
        gateway("GatewayClass"),
        annotated(legal("DENY"), "false"),
    ]);
}

#[test]
fn values_that_an_api_server_refuses_make_a_policy_invalid() {
    let long = format!("a/{}", "b".repeat(319));
    // Field of a source, bad value.
    let sources = [
        ("principals", ""),
        ("notPrincipals", ""),
        ("requestPrincipals", ""),
        ("namespaces", ""),
        ("notNamespaces", ""),
        ("serviceAccounts", ""),
        ("serviceAccounts", "a*"),
        ("serviceAccounts", "a/b/c"),
        ("notServiceAccounts", "/b"),
        ("serviceAccounts", "a/"),
        ("serviceAccounts", long.as_str()),
        ("trustDomains", ""),
        ("trustDomains", "a/b"),
        ("trustDomains", "a*b"),
        ("notTrustDomains", "*a*"),
        ("ipBlocks", "10.0.0.0/33"),
        ("notIpBlocks", "x"),
        ("remoteIpBlocks", "10.0.0.256"),
        ("notRemoteIpBlocks", ""),
    ];
    for (name, value) in sources {
        let field = format!("spec.rules[0].from[0].source.{name}[0]");
        assert_invalid(vec![(source(json!({name: [value]})), field.as_str())]);
    }
    let long = format!("/{{*}}/{}", "a".repeat(254));
    let operations = [
        ("hosts", ""),
        ("notHosts", ""),
        ("methods", ""),
        ("ports", "65536"),
        ("ports", "http"),
        ("notPorts", "+80"),
        ("notPorts", ""),
        ("paths", ""),
        ("paths", "/a{*}"),
        ("paths", "/{a}"),
        ("paths", "/{**}/b"),
        ("notPaths", "/{*}//b"),
        ("paths", "/{*}/b*"),
        ("paths", "a/{*}"),
        ("paths", long.as_str()),
    ];
    for (name, value) in operations {
        let field = format!("spec.rules[0].to[0].operation.{name}[0]");
        assert_invalid(vec![(operation(json!({name: [value]})), field.as_str())]);
    }
    let both = |other: &str| source(json!({"serviceAccounts": ["a"], other: ["b"]}));
    let accounts = "spec.rules[0].from[0].source.serviceAccounts";
    assert_invalid(vec![
        (both("namespaces"), accounts),
        (both("notNamespaces"), accounts),
        (both("principals"), accounts),
        (both("notPrincipals"), accounts),
        (source(json!({"serviceAccounts": vec!["a"; 17]})), accounts),
        (
            source(json!({"namespaces": ["a", ""]})),
            "spec.rules[0].from[0].source.namespaces[1]",
        ),
        (
            source(json!({"principals": [7]})),
            "spec.rules[0].from[0].source.principals[0]",
        ),
    ]);
    assert_valid(vec![
        source(json!({"serviceAccounts": ["a"], "ipBlocks": ["10.0.0.1"]})),
        source(json!({"serviceAccounts": vec!["a/b"; 16]})),
        source(json!({"trustDomains": ["*", "*.a", "a.*", "a"]})),
        source(json!({"ipBlocks": ["10.0.0.1", "10.1.2.3/8", "fd00::/8", "::1"]})),
        operation(json!({"ports": ["0", "65535"]})),
        operation(json!({"paths": ["*", "/a*", "*.js", "/{*}/a/{**}", "/"]})),
        operation(json!({"paths": [&long[..long.len() - 1], "a".repeat(300)]})),
    ]);
}

#[test]
fn conditions_have_keys_and_values_of_the_api() {
    let key = "spec.rules[0].when[0].key";
    let value = "spec.rules[0].when[0].values[0]";
    for bad in [
        "",
        "source.nmespace",
        "destination.namespace",
        "destination.labels[a]",
        "destination.name",
        "destination.user",
        "source.labels[a]",
        "source.ip[a]",
        "request.headers",
        "request.headers[]",
        "request.headers[a",
        "request.headers[a][b]",
        "request.headers[a b]",
        "request.auth.claims",
        "request.auth.claims[a]b",
        "request.auth.claims[a][]",
        "experimental.envoy.filters.[a]",
        "experimental.envoy.filters.a.b",
    ] {
        assert_invalid(vec![(when(bad, "v"), key)]);
    }
    assert_invalid(vec![
        (when("source.ip", "x"), value),
        (when("remote.ip", "10.0.0.0/33"), value),
        (when("destination.ip", ""), value),
        (when("destination.port", "http"), value),
        (when("source.serviceAccount", "a/b/c"), value),
        (when("source.trustDomain", "a/b"), value),
        (when("request.headers[a]", ""), value),
        (
            rule(json!({"when": [{"key": "source.ip", "notValues": ["x"]}]})),
            "spec.rules[0].when[0].notValues[0]",
        ),
        (
            rule(json!({"when": [{"key": "source.ip"}]})),
            "spec.rules[0].when[0]",
        ),
        (
            rule(json!({"when": [{"values": ["x"]}]})),
            "spec.rules[0].when[0]",
        ),
    ]);
    assert_valid(vec![
        when("source.ip", "10.0.0.1"),
        when("remote.ip", "10.0.0.0/8"),
        when("destination.ip", "::1"),
        when("destination.port", "80"),
        when("source.namespace", "a"),
        when("source.principal", "*"),
        when("source.serviceAccount", "a/b"),
        when("source.trustDomain", "*"),
        when("connection.sni", "a"),
        when("request.headers[X-A]", "*"),
        when("request.auth.principal", "a/b"),
        when("request.auth.audiences", "a"),
        when("request.auth.presenter", "a"),
        when("request.auth.claims[a][b]", "c"),
        when(
            "experimental.envoy.filters.network.mysql_proxy[db.table]",
            "[a]",
        ),
    ]);
    let found = object(&when("source.nmespace", "a"));
    let reason = s("there is no such key; did you mean source.namespace?");
    assert_eq!(found.invalid().unwrap().reason, reason);
}

#[test]
fn custom_policies_cannot_use_identities() {
    for name in [
        "namespaces",
        "notNamespaces",
        "serviceAccounts",
        "notServiceAccounts",
        "trustDomains",
        "notTrustDomains",
        "principals",
        "notPrincipals",
        "requestPrincipals",
        "notRequestPrincipals",
    ] {
        let field = format!("spec.rules[0].from[0].source.{name}");
        let value = custom(json!({"from": [{"source": {name: ["a"]}}]}));
        assert_invalid(vec![(value, field.as_str())]);
    }
    let asking = |key: &str| custom(json!({"when": [{"key": key, "values": ["a"]}]}));
    for key in [
        "source.namespace",
        "source.serviceAccount",
        "source.trustDomain",
        "source.principal",
        "request.auth.principal",
        "request.auth.claims[a]",
    ] {
        assert_invalid(vec![(asking(key), "spec.rules[0].when[0].key")]);
    }
    let legal = json!({"from": [{"source": {"ipBlocks": ["10.0.0.1"]}}], "to": [{"operation": {"paths": ["/a"]}}],
        "when": [{"key": "request.headers[a]", "values": ["a"]}]});
    let Object::AuthorizationPolicy(found) = object(&custom(legal)) else {
        panic!()
    };
    let body = found.ok().unwrap();
    assert_eq!(
        (body.action, &body.provider),
        (Action::Custom, &Some(s("p")))
    );
    assert_eq!(body.rules[0].from[0].ip_blocks.values, strs(&["10.0.0.1"]));
}

#[test]
fn peer_authentications_that_an_api_server_refuses_are_invalid() {
    let labels = json!({"matchLabels": {"a": "b"}});
    let ports = |ports: Value| peer(json!({"selector": labels, "portLevelMtls": ports}));
    assert_invalid(vec![
        (peer(json!({"mtls": {"mode": "strict"}})), "spec.mtls.mode"),
        (ports(json!({})), "spec.portLevelMtls"),
        (ports(json!({"http": {}})), "spec.portLevelMtls.http"),
        (ports(json!({"0": {}})), "spec.portLevelMtls.0"),
        (ports(json!({"65536": {}})), "spec.portLevelMtls.65536"),
        (
            ports(json!({"80": {"mode": "ON"}})),
            "spec.portLevelMtls.80.mode",
        ),
        (
            peer(json!({"portLevelMtls": {"80": {}}})),
            "spec.portLevelMtls",
        ),
        (
            peer(json!({"selector": {}, "portLevelMtls": {"80": {}}})),
            "spec.portLevelMtls",
        ),
        (
            peer(json!({"selector": {"matchLabels": {"a": "*"}}})),
            "spec.selector.matchLabels.a",
        ),
        (
            annotated(peer(json!({})), "true"),
            "metadata.annotations[istio.io/dry-run]",
        ),
    ]);
    assert_valid(vec![
        peer(json!({})),
        peer(json!({"mtls": {}})),
        ports(json!({"80": {"mode": "DISABLE"}, "65535": {}})),
    ]);
}

#[test]
fn a_selector_without_labels_is_told() {
    for value in [
        policy(json!({"selector": {}})),
        peer(json!({"selector": {"matchLabels": {}}})),
    ] {
        let found = object(&value);
        let notes: Vec<_> = found
            .notes()
            .iter()
            .map(|note| (note.code, note.severity, note.field.as_str()))
            .collect();
        let told = ("field-not-applied", Severity::Warning, "spec.selector");
        assert_eq!((found.invalid(), notes), (None, vec![told]), "{value}");
    }
}

#[test]
fn a_dry_run_that_is_no_boolean_is_none() {
    let found = object(&annotated(policy(json!({})), "maybe"));
    let Object::AuthorizationPolicy(row) = &found else {
        panic!("{found:?}")
    };
    assert!(!row.ok().unwrap().dry_run);
    assert_eq!(row.notes[0].code, "authz-value-invalid");
}

#[test]
fn targets_of_a_policy_that_cannot_be_read_are_known() {
    let target = json!({"group": "", "kind": "Service", "name": "a"});
    let spec = json!({"targetRefs": [target, {"kind": "Pod", "name": "b"}, 7], "nothing": 1});
    let found = object(&policy(spec));
    let targets = &found.invalid().unwrap().targets;
    let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    assert_eq!(names, ["a"]);
}

#[test]
fn targets_of_an_unreadable_policy_are_kept_however_many_and_in_its_own_namespace() {
    let target = |name: &str, ns: Value| json!({"group": "", "kind": "Service", "name": name, "namespace": ns});
    let names = |spec: Value| -> Vec<String> {
        let found = object(&policy(spec));
        let targets = &found.invalid().unwrap().targets;
        targets
            .iter()
            .map(|target| target.name.to_string())
            .collect()
    };
    let own = policy(json!({}))["metadata"]["namespace"].clone();
    let spec = json!({"targetRefs": [target("own", own.clone()), target("none", json!("")),
        target("null", Value::Null), target("far", json!("elsewhere")), target("odd", json!(7))]});
    assert_eq!(names(spec), ["own", "none", "null", "odd"]);
    assert_eq!(names(json!({"targetRef": target("own", own)})), ["own"]);
    let many: Vec<Value> = (0..40)
        .map(|i| target(&format!("s{i}"), json!("")))
        .collect();
    assert_eq!(names(json!({"targetRefs": many})).len(), 40);
}

#[test]
fn unknown_fields_make_a_policy_invalid() {
    let named = |field: &str, reason: &str| Invalid {
        field: s(field),
        reason: s(reason),
        targets: Vec::new(),
    };
    let meant = |field: &str, word: &str| {
        named(
            field,
            &format!("there is no such field; did you mean {word}?"),
        )
    };
    let mut outside = peer(json!({"mtls": {"mode": "STRICT"}}));
    outside["portLevelMtls"] = json!({});
    let cases = [
        (
            rule(json!({"form": []})),
            meant("spec.rules[0].form", "from"),
        ),
        (rule(json!({"too": []})), meant("spec.rules[0].too", "to")),
        (
            source(json!({"principal": ["a"], "namespaces": ["a"]})),
            meant("spec.rules[0].from[0].source.principal", "principals"),
        ),
        (
            policy(json!({"selector": {"matchLabel": {"a": "b"}}})),
            meant("spec.selector.matchLabel", "matchLabels"),
        ),
        (
            policy(json!({"zzzzzzzzzzz": 1})),
            named(
                "spec.zzzzzzzzzzz",
                "there is no such field, at least not here",
            ),
        ),
        // Told before what is missing or of the wrong type because of it.
        (
            targeting(json!({"knid": "Service", "name": "a"})),
            meant("spec.targetRefs[0].knid", "kind"),
        ),
        (
            peer(json!({"mtls": {"mod": "STRICT"}})),
            meant("spec.mtls.mod", "mode"),
        ),
        (
            peer(json!({"portLevelMTLS": {}})),
            meant("spec.portLevelMTLS", "portLevelMtls"),
        ),
        (
            outside,
            named("portLevelMtls", "there is no such field, at least not here"),
        ),
    ];
    for (value, expected) in cases {
        let found = object(&value);
        assert_eq!(
            (found.invalid(), found.notes()),
            (Some(&expected), [].as_slice()),
            "{value}"
        );
    }
}

#[test]
fn a_policy_of_an_unknown_version_stays_and_is_invalid() {
    for (kind, version) in [
        ("AuthorizationPolicy", "v9"),
        ("PeerAuthentication", "v1alpha1"),
    ] {
        let value = doc(
            &format!("security.istio.io/{version}"),
            kind,
            json!({"spec": {}}),
        );
        let found = object(&value);
        let expected = Invalid {
            field: s("apiVersion"),
            reason: s(&format!(
                "there is no version {version}; write security.istio.io/v1"
            )),
            targets: Vec::new(),
        };
        assert_eq!(
            (found.kind().as_str(), found.meta().key.to_string()),
            (kind, "ns/x".to_owned())
        );
        assert_eq!(
            (found.invalid(), found.notes()),
            (Some(&expected), [].as_slice())
        );
    }
}

#[test]
fn a_policy_that_cannot_be_kept_is_told_not_to_be_enforced() {
    let named = |kind: &str, metadata: Value| {
        let mut value = doc("security.istio.io/v1", kind, json!({}));
        value["metadata"] = metadata;
        value
    };
    let mut versionless = policy(json!({}));
    versionless.as_object_mut().unwrap().remove("apiVersion");
    for (value, code) in [
        (
            named("AuthorizationPolicy", json!({"name": "A_b"})),
            "invalid-name",
        ),
        (
            named("PeerAuthentication", json!({"name": true})),
            "invalid-name",
        ),
        (
            named(
                "PeerAuthentication",
                json!({"name": "a", "namespace": "b.c"}),
            ),
            "invalid-name",
        ),
        (named("AuthorizationPolicy", json!({})), "not-an-object"),
        (versionless, "not-an-object"),
    ] {
        let found = finding(&value);
        assert_eq!((found.code, found.severity), (code, Severity::Error));
        assert!(
            found.message.ends_with("is NOT enforced"),
            "{}",
            found.message
        );
    }
}
