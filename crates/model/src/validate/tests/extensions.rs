//! §9.3.

use super::*;

/// Kinds that this version does not apply are taken with a warning that says so.
const NOT_APPLIED: Expect = Warn("kind-not-supported");

#[test]
fn telemetries() {
    let tag = |tag: Value| json!({"tracing": [{"customTags": {"t": tag}}]});
    let tag_override =
        |entry: Value| json!({"metrics": [{"overrides": [{"tagOverrides": {"t": entry}}]}]});
    let at = "spec.metrics[0].overrides[0].tagOverrides.t";
    let rows: Vec<Row> = vec![
        (
            "a provider",
            json!({"metrics": [{"providers": [{"name": "prometheus"}]}]}),
            NOT_APPLIED,
        ),
        (
            "empty provider name",
            json!({"metrics": [{"providers": [{"name": ""}]}]}),
            Reject("spec.metrics[0].providers[0].name"),
        ),
        (
            "UPSERT without value",
            tag_override(json!({"operation": "UPSERT"})),
            Reject("spec.metrics[0].overrides[0].tagOverrides.t.value"),
        ),
        (
            "REMOVE with value",
            tag_override(json!({"operation": "REMOVE", "value": "x"})),
            Reject("spec.metrics[0].overrides[0].tagOverrides.t.value"),
        ),
        ("null entry", tag_override(json!(null)), Reject(at)),
        (
            "empty customMetric",
            json!({"metrics": [{"overrides": [{"match": {"customMetric": ""}}]}]}),
            Reject("spec.metrics[0].overrides[0].match.customMetric"),
        ),
        (
            "sampling above 100",
            json!({"tracing": [{"randomSamplingPercentage": 100.1}]}),
            Reject("spec.tracing[0].randomSamplingPercentage"),
        ),
        (
            "sampling of 100",
            json!({"tracing": [{"randomSamplingPercentage": 100}]}),
            NOT_APPLIED,
        ),
        (
            "null tag",
            tag(json!(null)),
            Reject("spec.tracing[0].customTags.t"),
        ),
        (
            "empty literal",
            tag(json!({"literal": {"value": ""}})),
            Reject("spec.tracing[0].customTags.t.literal.value"),
        ),
        (
            "empty header name",
            tag(json!({"header": {"name": ""}})),
            Reject("spec.tracing[0].customTags.t.header.name"),
        ),
        (
            "empty environment name",
            tag(json!({"environment": {}})),
            Reject("spec.tracing[0].customTags.t.environment.name"),
        ),
        (
            "empty tag name",
            json!({"tracing": [{"customTags": {"": {"literal": {"value": "x"}}}}]}),
            Reject("spec.tracing[0].customTags."),
        ),
        (
            "reportingInterval below 1 ms",
            json!({"metrics": [{"reportingInterval": "100us"}]}),
            Reject("spec.metrics[0].reportingInterval"),
        ),
        (
            "a filter that is no expression",
            json!({"accessLogging": [{"filter": {"expression": "response.code >= (400"}}]}),
            Reject("spec.accessLogging[0].filter.expression"),
        ),
        (
            "a filter",
            json!({"accessLogging": [{"filter": {"expression": "response.code >= 400 && request.headers['x'] == ')'"}}]}),
            NOT_APPLIED,
        ),
        (
            "two tracing entries",
            json!({"tracing": [{}, {}]}),
            Warn("only one entry"),
        ),
        (
            "two tracing providers",
            json!({"tracing": [{"providers": [{"name": "a"}, {"name": "b"}]}]}),
            Warn("only one provider"),
        ),
        (
            "empty tagOverrides name",
            json!({"metrics": [{"overrides": [{"tagOverrides": {"": {"value": "x"}}}]}]}),
            Warn("without a name"),
        ),
        (
            "selector and targetRefs",
            json!({"selector": {"matchLabels": {"a": "b"}}, "targetRefs": [{"kind": "Service", "name": "a"}]}),
            Reject("spec"),
        ),
        (
            "targetRef without name",
            json!({"targetRefs": [{"kind": "Service"}]}),
            Reject("spec.targetRefs[0].name"),
        ),
        (
            "empty selector",
            json!({"selector": {}}),
            Warn("whole namespace"),
        ),
    ];
    check_rows("telemetry.istio.io", "Telemetry", &json!({}), &rows);
}

fn wasm_rows() -> Vec<(&'static str, Value, Option<&'static str>)> {
    let env = |env: Value| json!({"vmConfig": {"env": env}});
    vec![
        ("an image", json!({}), None),
        ("a file", json!({"url": "file:///a.wasm"}), None),
        ("url empty", json!({"url": ""}), Some("url")),
        ("scheme ftp", json!({"url": "ftp://a"}), Some("url")),
        (
            "sha256 in upper case",
            json!({"sha256": "A".repeat(64)}),
            Some("sha256"),
        ),
        (
            "sha256 too short",
            json!({"sha256": "a".repeat(63)}),
            Some("sha256"),
        ),
        ("a hash", json!({"sha256": "a".repeat(64)}), None),
        (
            "imagePullSecret > 253",
            json!({"imagePullSecret": "a".repeat(254)}),
            Some("imagePullSecret"),
        ),
        (
            "pluginName > 256",
            json!({"pluginName": "a".repeat(257)}),
            Some("pluginName"),
        ),
        (
            "env without name",
            env(json!([{"value": "a"}])),
            Some("vmConfig.env[0].name"),
        ),
        (
            "env twice",
            env(json!([{"name": "a"}, {"name": "a"}])),
            Some("vmConfig.env[1].name"),
        ),
        (
            "env name > 256",
            env(json!([{"name": "a".repeat(257)}])),
            Some("vmConfig.env[0].name"),
        ),
        (
            "value with HOST",
            env(json!([{"name": "a", "valueFrom": "HOST", "value": "b"}])),
            Some("vmConfig.env[0].value"),
        ),
        (
            "value > 2048",
            env(json!([{"name": "a", "value": "b".repeat(2049)}])),
            Some("vmConfig.env[0].value"),
        ),
        (
            "more than 256 env",
            env((0..257).map(|i| json!({"name": format!("a{i}")})).collect()),
            Some("vmConfig.env"),
        ),
    ]
}

#[test]
fn wasm_plugins_and_traffic_extensions() {
    for (claim, edit, refused) in wasm_rows() {
        let expect = |prefix: &str| match refused {
            None => NOT_APPLIED,
            // Tests alone keep such a text for ever.
            Some(field) => Reject(Box::leak(format!("{prefix}.{field}").into_boxed_str())),
        };
        let row = |edit: Value, prefix: &str| vec![(claim, edit, expect(prefix))];
        let good = json!({"url": "oci://a/b:c"});
        check_rows(
            "extensions.istio.io",
            "WasmPlugin",
            &good,
            &row(edit.clone(), "spec"),
        );
        let (good, edit) = (json!({"wasm": good}), json!({"wasm": edit}));
        check_rows(
            "extensions.istio.io",
            "TrafficExtension",
            &good,
            &row(edit, "spec.wasm"),
        );
    }
    let ports = json!({"match": [{"ports": [{"number": 65536}]}]});
    let rows: Vec<Row> = vec![
        ("neither wasm nor lua", json!({"wasm": "-"}), Reject("spec")),
        (
            "wasm and lua",
            json!({"lua": {"inlineCode": "x"}}),
            Reject("spec"),
        ),
        (
            "lua",
            json!({"wasm": "-", "lua": {"inlineCode": "x"}}),
            NOT_APPLIED,
        ),
        (
            "empty lua",
            json!({"wasm": "-", "lua": {"inlineCode": ""}}),
            Reject("spec.lua.inlineCode"),
        ),
        (
            "long lua",
            json!({"wasm": "-", "lua": {"inlineCode": "x".repeat(65_537)}}),
            Reject("spec.lua.inlineCode"),
        ),
        (
            "match port outside 1–65535",
            ports,
            Reject("spec.match[0].ports[0].number"),
        ),
    ];
    check_rows(
        "extensions.istio.io",
        "TrafficExtension",
        &json!({"wasm": {"url": "a"}}),
        &rows,
    );
}

#[test]
fn envoy_filters() {
    let patch = |edit: Value| {
        let mut one = json!({
            "applyTo": "HTTP_FILTER",
            "patch": {"operation": "INSERT_FIRST", "value": {"name": "x", "typed_config": {}}},
        });
        merge(&mut one, &edit);
        json!({"configPatches": [one]})
    };
    let filter =
        |filter: Value| json!({"match": {"listener": {"filterChain": {"filter": filter}}}});
    let manager = "envoy.filters.network.http_connection_manager";
    let at = "spec.configPatches[0]";
    let rows: Vec<Row> = vec![
        ("always", patch(json!({})), Warn("exposes internals")),
        (
            "missing applyTo",
            patch(json!({"applyTo": "-"})),
            Reject("spec.configPatches[0].applyTo"),
        ),
        (
            "missing patch",
            patch(json!({"patch": "-"})),
            Reject("spec.configPatches[0].patch"),
        ),
        (
            "missing operation",
            patch(json!({"patch": {"operation": "-"}})),
            Reject("spec.configPatches[0].patch.operation"),
        ),
        (
            "missing value",
            patch(json!({"patch": {"value": "-"}})),
            Reject("spec.configPatches[0].patch.value"),
        ),
        (
            "REMOVE needs no value",
            patch(json!({"patch": {"operation": "REMOVE", "value": "-"}})),
            Warn("exposes"),
        ),
        (
            "match type that does not fit",
            patch(json!({"match": {"cluster": {"name": "x"}}})),
            Reject("spec.configPatches[0].match.cluster"),
        ),
        (
            "filter match without name",
            patch(filter(json!({"subFilter": {"name": "x"}}))),
            Reject("spec.configPatches[0].match.listener.filterChain.filter.name"),
        ),
        (
            "subFilter without manager",
            patch(filter(json!({"name": "x", "subFilter": {"name": "x"}}))),
            Reject("spec.configPatches[0].match.listener.filterChain.filter.subFilter"),
        ),
        (
            "subFilter without name",
            patch(filter(json!({"name": manager, "subFilter": {}}))),
            Reject("spec.configPatches[0].match.listener.filterChain.filter.subFilter.name"),
        ),
        (
            "subFilter of NETWORK_FILTER",
            patch(
                json!({"applyTo": "NETWORK_FILTER", "match": filter(json!({"name": manager, "subFilter": {"name": "x"}}))["match"]}),
            ),
            Reject("spec.configPatches[0].match.listener.filterChain.filter.subFilter"),
        ),
        (
            "match.waypoint without its context",
            patch(json!({"match": {"waypoint": {}}})),
            Reject("spec.configPatches[0].match.waypoint"),
        ),
        (
            "context WAYPOINT: nothing is checked",
            patch(json!({"applyTo": "-", "match": {"context": "WAYPOINT", "waypoint": {}}})),
            Warn("exposes"),
        ),
        (
            "a filter match on LISTENER",
            patch(json!({"applyTo": "LISTENER", "match": filter(json!({"name": "x"}))["match"]})),
            Warn("no effect on LISTENER"),
        ),
        (
            "a name without typed_config",
            patch(json!({"patch": {"value": {"typed_config": "-"}}})),
            Warn("typed_config"),
        ),
        (
            "a long proxyVersion",
            patch(json!({"match": {"proxy": {"proxyVersion": "x".repeat(1025)}}})),
            Warn("fits no proxy"),
        ),
        (
            "empty selector",
            json!({"workloadSelector": {"labels": {}}}),
            Warn("whole namespace"),
        ),
        (
            "selector and targetRefs",
            json!({"workloadSelector": {"labels": {"a": "b"}}, "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"}]}),
            Reject("spec.workloadSelector"),
        ),
    ];
    assert!(at.starts_with("spec"));
    check_rows("networking.istio.io", "EnvoyFilter", &json!({}), &rows);
    let version = patch(json!({"match": {"proxy": {"proxyVersion": "^1\\.2"}}}));
    let verdict = validate(&object("networking.istio.io", "EnvoyFilter", &version));
    assert_eq!(verdict.expressions[0].message, "^1\\.2");
}

#[test]
fn proxy_configs() {
    let rows: Vec<Row> = vec![
        ("two threads", json!({"concurrency": 2}), NOT_APPLIED),
        (
            "concurrency < 0",
            json!({"concurrency": -1}),
            Reject("spec.concurrency"),
        ),
        (
            "env value > 2048",
            json!({"environmentVariables": {"A": "x".repeat(2049)}}),
            Reject("spec.environmentVariables.A"),
        ),
        (
            "empty selector",
            json!({"selector": {}}),
            Warn("whole namespace"),
        ),
    ];
    check_rows("networking.istio.io", "ProxyConfig", &json!({}), &rows);
}
