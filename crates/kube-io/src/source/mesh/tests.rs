//! Claims about two ConfigMaps that are one mesh config. Source: spec/control-plane.md §5.2.

#![allow(clippy::unwrap_used)]

use super::*;

fn merged(under: &str, over: &str) -> Value {
    merge(document(under).unwrap(), document(over).unwrap())
}

#[test]
fn what_is_shared_is_underneath_field_by_field() {
    let under = "
trust_domain: shared
connectTimeout: 5s
trustDomainAliases: [c, a]
defaultConfig: {drainDuration: 9s, proxyMetadata: {A: '1', B: '1'}}
extensionProviders: [{name: x, envoyExtAuthzGrpc: {port: 1}}, {name: other}]
defaultProviders: {metrics: [x], tracing: [t]}
pathNormalization: {normalization: NONE}
";
    let over = "
trustDomain: own
trustDomainAliases: [b, a]
defaultConfig: {proxyMetadata: {B: '2'}}
extensionProviders: [{name: x, envoyExtAuthzHttp: {port: 2}}]
defaultProviders: {metrics: [z]}
pathNormalization: {}
";
    let wanted = json!({
        "trustDomain": "own",
        "connectTimeout": "5s",
        "trustDomainAliases": ["a", "b", "c"],
        "defaultConfig": {"drainDuration": "9s", "proxyMetadata": {"A": "1", "B": "2"}},
        "extensionProviders": [{"name": "other"}, {"name": "x", "envoyExtAuthzHttp": {"port": 2}}],
        "defaultProviders": {"metrics": ["z"], "tracing": ["t"]},
        "pathNormalization": {},
    });
    assert_eq!(merged(under, over), wanted);
    assert_eq!(merged("", "a: 1"), json!({"a": 1}));
    assert_eq!(merged("a: 1", ""), json!({"a": 1}));
    assert_eq!(merged("[]", "a: 1"), json!({"a": 1}));
}

#[test]
fn networks_are_named_if_there_are_any() {
    assert_eq!(networks(""), "");
    assert_eq!(networks("networks: {}"), "");
    let some = "networks: {n1: {endpoints: []}, n2: {}}";
    assert_eq!(networks(some), "n1, n2");
    assert_eq!(networks("{"), "it cannot be read");
}
