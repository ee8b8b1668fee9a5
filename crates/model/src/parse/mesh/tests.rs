//! Claims about the settings of mesh config.

#![allow(clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use serde_json::{Value, json};

use super::bare;
use crate::Str;
use crate::derived::{EntryVisibility, Visibility};
use crate::input::{
    Authorizer, CheckedBody, ExtensionProvider, HttpAuthorizer, LabelSelector, LocalityLb,
    MeshConfig, PathNormalization, ProviderKind, Retries, TcpKeepalive,
};
use crate::object::{Labels, Object};

/// The config and `code field` of its notes.
fn read(fields: &Value) -> (MeshConfig, Vec<String>) {
    let Value::Object(map) = fields else { panic!() };
    let Object::MeshConfig(row) = bare(map) else {
        panic!()
    };
    let notes = row.notes.iter().map(|n| format!("{} {}", n.code, n.field));
    let Ok(config) = row.body.clone() else {
        panic!("{row:?}")
    };
    (config, notes.collect())
}

fn selector(labels: &[(&str, &str)], expressions: &[(&str, &str, &[&str])]) -> LabelSelector {
    let text = |text: &str| Str::from(text);
    LabelSelector {
        match_labels: labels
            .iter()
            .map(|(k, v)| (text(k), text(v)))
            .collect::<Labels>(),
        match_expressions: expressions
            .iter()
            .map(|(key, operator, values)| {
                let values = values.iter().map(|value| text(value)).collect();
                (text(key), text(operator), values)
            })
            .collect(),
    }
}

#[test]
fn visibility_and_selectors_are_read_whole() {
    let (config, notes) = read(&json!({
        "discoverySelectors": [
            {"matchLabels": {"mesh": "on"}},
            {"matchExpressions": [{"key": "env", "operator": "NotIn", "values": ["dev"]}]},
        ],
        "serviceEntryVisibility": {
            "defaultVisibility": "NAMESPACE",
            "applyToSidecars": false,
            "policies": [
                {"visibility": "NONE", "matchingRules": [
                    {"namespaceSelector": {"matchLabels": {"a": "b"}}},
                    {"namespaceSelector": {"matchExpressions": [{"key": "c", "operator": "Exists"}]}},
                ]},
                {"visibility": "PUBLIC"},
            ],
        },
    }));
    let expected = MeshConfig {
        discovery_selectors: vec![
            selector(&[("mesh", "on")], &[]),
            selector(&[], &[("env", "NotIn", &["dev"])]),
        ],
        entry_visibility: Some(EntryVisibility {
            default: Visibility::Namespace,
            policies: vec![
                (
                    vec![
                        Some(selector(&[("a", "b")], &[])),
                        Some(selector(&[], &[("c", "Exists", &[])])),
                    ],
                    Visibility::None,
                ),
                (Vec::new(), Visibility::Public),
            ],
        }),
        ..MeshConfig::default()
    };
    assert_eq!((config, notes), (expected, Vec::new()));
}

#[test]
fn what_cannot_be_read_of_visibility_narrows_and_is_noted() {
    let (config, notes) = read(&json!({"serviceEntryVisibility": {
        "defaultVisibility": "PRIVATE",
        "applyToSidecars": true,
        "policies": [{"visibility": "PUBLIC", "matchingRules": [
            {"namespaceSelector": {"matchExpressions": [{"key": "c", "operator": "In"}]}},
            {"podSelector": {}},
        ]}],
    }}));
    let expected = EntryVisibility {
        default: Visibility::Namespace,
        policies: vec![(vec![None, None], Visibility::Public)],
    };
    assert_eq!(config.entry_visibility, Some(expected));
    assert_eq!(
        notes,
        [
            "unknown-field serviceEntryVisibility.policies[0].matchingRules[1].podSelector",
            "field-not-applied serviceEntryVisibility.applyToSidecars",
            "mesh-visibility-unknown serviceEntryVisibility.defaultVisibility",
            "mesh-selector-invalid serviceEntryVisibility.policies[0].matchingRules[0]",
            "mesh-selector-invalid serviceEntryVisibility.policies[0].matchingRules[1]",
        ]
    );
}

#[test]
fn one_invalid_discovery_selector_voids_them_all() {
    let bad = [
        json!({"matchExpressions": [{"key": "a", "operator": "Near"}]}),
        json!({"matchExpressions": [{"key": "a", "operator": "In", "values": []}]}),
        json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
        json!({"matchExpressions": [{"operator": "Exists"}]}),
    ];
    for bad in bad {
        let good = json!({"matchLabels": {"mesh": "on"}});
        let (config, notes) = read(&json!({"discoverySelectors": [good, bad]}));
        assert_eq!(config.discovery_selectors, [], "{bad}");
        assert_eq!(notes, ["mesh-selector-invalid discoverySelectors[1]"]);
    }
}

// === Traffic ===

fn s(text: &str) -> Str {
    Str::from(text)
}

fn strs(texts: &[&str]) -> Vec<Str> {
    texts.iter().map(|text| s(text)).collect()
}

#[test]
fn traffic_settings_are_read_whole() {
    let (config, notes) = read(&json!({
        "extensionProviders": [
            {"name": "ask", "envoyExtAuthzHttp": {
                "service": "shop/ask.shop.svc.cluster.local",
                "port": 8000,
                "timeout": "0.5s",
                "pathPrefix": "/check",
                "failOpen": true,
                "statusOnError": "503",
                "clearRouteCache": true,
                "includeRequestHeadersInCheck": ["x-a", "x-b*", "*-c"],
                "includeAdditionalHeadersInCheck": {"x-who": "mesh"},
                "includeRequestBodyInCheck":
                    {"maxRequestBytes": 1024, "allowPartialMessage": true, "packAsBytes": true},
                "headersToUpstreamOnAllow": ["x-user"],
                "headersToDownstreamOnDeny": ["www-authenticate"],
                "headersToDownstreamOnAllow": ["set-cookie"],
            }},
            {"name": "grpc", "envoyExtAuthzGrpc": {"service": "ask.example.com", "port": 9000}},
        ],
        "pathNormalization": {"normalization": "DECODE_AND_MERGE_SLASHES"},
        "defaultHttpRetryPolicy": {
            "attempts": 3, "perTryTimeout": "1s", "retryOn": "5xx,503",
            "retryRemoteLocalities": true, "retryIgnorePreviousHosts": false, "backoff": "50ms",
        },
        "connectTimeout": "3s",
        "tcpKeepalive": {"probes": 4, "time": "1h", "interval": "75s"},
        "h2UpgradePolicy": "UPGRADE",
        "localityLbSetting": {"failover": [{"from": "eu", "to": "us"}]},
        "hboneIdleTimeout": "10m",
        "defaultVirtualServiceExportTo": ["."],
        "defaultDestinationRuleExportTo": ["a", "."],
        "default_service_export_to": ["*"],
    }));
    let expected = MeshConfig {
        providers: vec![
            ExtensionProvider {
                name: s("ask"),
                kind: ProviderKind::Authorizer(Box::new(Authorizer {
                    service: s("shop/ask.shop.svc.cluster.local"),
                    port: 8000,
                    timeout: Some(Duration::from_millis(500)),
                    fail_open: true,
                    status_on_error: Some(503),
                    clear_route_cache: true,
                    body: Some(CheckedBody {
                        max_bytes: 1024,
                        allow_partial: true,
                        pack_as_bytes: true,
                    }),
                    http: Some(HttpAuthorizer {
                        path_prefix: s("/check"),
                        request_headers: strs(&["x-a", "x-b*", "*-c"]),
                        additional_headers: vec![(s("x-who"), s("mesh"))],
                        upstream_on_allow: strs(&["x-user"]),
                        downstream_on_deny: strs(&["www-authenticate"]),
                        downstream_on_allow: strs(&["set-cookie"]),
                    }),
                })),
            },
            ExtensionProvider {
                name: s("grpc"),
                kind: ProviderKind::Authorizer(Box::new(Authorizer {
                    service: s("ask.example.com"),
                    port: 9000,
                    ..Authorizer::default()
                })),
            },
        ],
        path_normalization: Some(PathNormalization::DecodeAndMergeSlashes),
        default_retries: Some(Retries {
            attempts: 3,
            per_try_timeout: Some(Duration::from_secs(1)),
            retry_on: strs(&["5xx", "503"]),
            remote_localities: true,
            ignore_previous_hosts: Some(false),
            backoff: Some(Duration::from_millis(50)),
        }),
        connect_timeout: Some(Duration::from_secs(3)),
        tcp_keepalive: Some(TcpKeepalive {
            probes: Some(4),
            time: Some(Duration::from_secs(3600)),
            interval: Some(Duration::from_secs(75)),
        }),
        h2_upgrade: true,
        locality_lb: Some(LocalityLb {
            failover: vec![(s("eu"), s("us"))],
            ..LocalityLb::default()
        }),
        hbone_idle_timeout: Some(Duration::from_secs(600)),
        virtual_service_export_to: strs(&["."]),
        destination_rule_export_to: strs(&["a", "."]),
        service_export_to: strs(&["*"]),
        ..MeshConfig::default()
    };
    assert_eq!((config, notes), (expected, Vec::new()));
}

#[test]
fn a_setting_that_cannot_be_read_costs_itself_alone() {
    for (field, bad, at) in [
        ("extensionProviders", json!({}), "extensionProviders"),
        (
            "pathNormalization",
            json!({"normalization": "SOME"}),
            "pathNormalization.normalization",
        ),
        (
            "defaultHttpRetryPolicy",
            json!({"attempts": -1}),
            "defaultHttpRetryPolicy.attempts",
        ),
        (
            "defaultHttpRetryPolicy",
            json!({"attempts": 0, "retryOn": "5xx"}),
            "defaultHttpRetryPolicy.retryOn",
        ),
        (
            "defaultHttpRetryPolicy",
            json!({"attempts": 1, "retryOn": "5xx, reset"}),
            "defaultHttpRetryPolicy.retryOn",
        ),
        ("connectTimeout", json!("0s"), "connectTimeout"),
        ("connectTimeout", json!(10), "connectTimeout"),
        ("tcpKeepalive", json!({"time": "x"}), "tcpKeepalive.time"),
        ("h2UpgradePolicy", json!("MAYBE"), "h2UpgradePolicy"),
        (
            "localityLbSetting",
            json!({"failover": [{"from": "a", "to": "a"}]}),
            "localityLbSetting.failover[0]",
        ),
        ("hboneIdleTimeout", json!("-1s"), "hboneIdleTimeout"),
        (
            "defaultVirtualServiceExportTo",
            json!(["*", "a"]),
            "defaultVirtualServiceExportTo[0]",
        ),
        (
            "defaultServiceExportTo",
            json!(["a", "a"]),
            "defaultServiceExportTo[1]",
        ),
        (
            "defaultDestinationRuleExportTo",
            json!(["A"]),
            "defaultDestinationRuleExportTo[0]",
        ),
    ] {
        let mut fields = json!({"trustDomain": "td"});
        fields[field] = bad.clone();
        let (config, notes) = read(&fields);
        let expected = MeshConfig {
            trust_domain: Some(s("td")),
            ..MeshConfig::default()
        };
        assert_eq!(config, expected, "{bad}");
        assert_eq!(notes, [format!("mesh-setting-invalid {at}")], "{bad}");
    }
}

#[test]
fn providers_that_cannot_be_read_stay_and_say_why() {
    let http = |field: &str, value: Value| {
        let mut body = json!({"service": "a.b", "port": 80});
        body[field] = value;
        json!({"name": "p", "envoyExtAuthzHttp": body})
    };
    for (provider, field) in [
        (json!({"name": "p"}), ""),
        (json!({"name": "p", "zipkin": {}, "sds": {}}), ""),
        (json!({"name": "p", "oracle": {}}), "oracle"),
        (
            json!({"name": "No.Label", "envoyExtAuthzGrpc": {"service": "a", "port": 1}}),
            "name",
        ),
        (http("service", json!("a/b/c")), "envoyExtAuthzHttp.service"),
        (http("service", json!("a b")), "envoyExtAuthzHttp.service"),
        (http("service", json!("a|b")), "envoyExtAuthzHttp.service"),
        (http("port", json!(0)), "envoyExtAuthzHttp.port"),
        (http("port", json!(null)), "envoyExtAuthzHttp.port"),
        (http("port", json!("x")), "envoyExtAuthzHttp.port"),
        (http("timeout", json!("x")), "envoyExtAuthzHttp.timeout"),
        (
            http("pathPrefix", json!("x")),
            "envoyExtAuthzHttp.pathPrefix",
        ),
        (
            http("statusOnError", json!("418")),
            "envoyExtAuthzHttp.statusOnError",
        ),
        (
            http("statusOnError", json!("x")),
            "envoyExtAuthzHttp.statusOnError",
        ),
        (
            http("includeRequestHeadersInCheck", json!(["*"])),
            "envoyExtAuthzHttp.includeRequestHeadersInCheck[0]",
        ),
        (
            http("headersToUpstreamOnAllow", json!(["x", "*x*"])),
            "envoyExtAuthzHttp.headersToUpstreamOnAllow[1]",
        ),
        (
            http("includeAdditionalHeadersInCheck", json!({":path": "/"})),
            "envoyExtAuthzHttp.includeAdditionalHeadersInCheck.:path",
        ),
        (
            http("includeRequestBodyInCheck", json!({})),
            "envoyExtAuthzHttp.includeRequestBodyInCheck.maxRequestBytes",
        ),
    ] {
        let (config, notes) = read(&json!({"extensionProviders": [provider]}));
        let [ExtensionProvider { kind, .. }] = config.providers.as_slice() else {
            panic!("{provider}")
        };
        let ProviderKind::Invalid(found, reason) = kind else {
            panic!("{provider} is valid")
        };
        assert_eq!(found, field, "{provider}: {reason}");
        let dot = if field.is_empty() { "" } else { "." };
        let at = format!("mesh-provider-invalid extensionProviders[0]{dot}{field}");
        assert_eq!(notes, [at], "{provider}");
    }
}

#[test]
fn providers_are_told_apart_by_name_and_others_are_kept_by_kind() {
    let grpc = |port: u16| json!({"service": "a", "port": port, "pathPrefix": "/x"});
    let (config, notes) = read(&json!({"extensionProviders": [
        {"name": "p", "envoyExtAuthzGrpc": grpc(1)},
        {"name": "p", "envoyExtAuthzGrpc": grpc(2)},
        {"zipkin": {"service": "z"}},
        {"name": "Traces", "opentelemetry": {"service": "o", "port": 4317}},
    ]}));
    let authorizer = Authorizer {
        service: s("a"),
        port: 1,
        ..Authorizer::default()
    };
    let expected = [
        ExtensionProvider {
            name: s("p"),
            kind: ProviderKind::Authorizer(Box::new(authorizer)),
        },
        ExtensionProvider {
            name: s("Traces"),
            kind: ProviderKind::Other(s("opentelemetry")),
        },
    ];
    assert_eq!(config.providers, expected);
    assert_eq!(
        notes,
        [
            "unknown-field extensionProviders[0].envoyExtAuthzGrpc.pathPrefix",
            "mesh-provider-duplicate extensionProviders[1].name",
            "mesh-provider-invalid extensionProviders[2].name",
            "field-not-applied extensionProviders[3].opentelemetry",
        ]
    );
}

#[test]
fn roots_of_mesh_config_are_not_passed_over_in_silence() {
    let (_, notes) = read(&json!({"caCertificates": [{"pem": "x"}], "certificates": []}));
    assert_eq!(notes, ["field-not-applied caCertificates"]);
}
