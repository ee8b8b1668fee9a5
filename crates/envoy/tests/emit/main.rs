//! What the IR becomes: single messages against the tables of the specification, and every
//! variant of the IR in front of a real Envoy.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

mod chains;
mod clusters;
mod routes;
mod tables;

use std::process::Command;

use ambientd_envoy as envoy;
use envoy::emit::{self, Resource};
use envoy::ir::*;
use model::Str;
use serde_json::{Value, json};

/// A text of the IR.
fn text(text: &str) -> Str {
    Str::from(text)
}

/// Texts of the IR.
fn texts(list: &[&str]) -> Vec<Str> {
    list.iter().copied().map(Str::from).collect()
}

fn json_of(resource: &Resource) -> Value {
    proto::json::to_json(resource.type_url, &resource.bytes).unwrap()
}

fn chain_json(chain: &ChainIr) -> Value {
    let url = "type.googleapis.com/envoy.config.listener.v3.FilterChain";
    proto::json::to_json(url, &emit::chain(chain)).unwrap()
}

fn route_json(route: RouteIr) -> Value {
    let routes = RoutesIr {
        name: text("r"),
        port: 80,
        domain: text("*"),
        routes: vec![route],
        outbound: Default::default(),
    };
    json_of(&emit::routes(&routes))["virtualHosts"][0]["routes"][0].clone()
}

/// What is expected is there; other fields may be.
fn has(actual: &Value, expected: &Value) -> bool {
    match (actual, expected) {
        (Value::Object(actual), Value::Object(expected)) => {
            expected
                .iter()
                .all(|(key, want)| match (actual.get(key), want) {
                    (None, Value::Null) => true,
                    (None, _) => false,
                    (Some(value), want) => has(value, want),
                })
        }
        (Value::Array(actual), Value::Array(expected)) => {
            actual.len() == expected.len() && actual.iter().zip(expected).all(|(a, e)| has(a, e))
        }
        (Value::Number(actual), Value::Number(expected)) => actual.as_f64() == expected.as_f64(),
        (actual, expected) => actual == expected,
    }
}

#[track_caller]
fn assert_has(actual: &Value, expected: &Value) {
    assert!(
        has(actual, expected),
        "\n{}\nlacks\n{}",
        serde_json::to_string_pretty(actual).unwrap(),
        serde_json::to_string_pretty(expected).unwrap()
    );
}

/// A file has no stream to discover anything from: endpoints are given, and secrets would come
/// from a file.
fn settled(cluster: &ClusterIr, secrets: &str) -> Value {
    fn from_file(value: &mut Value, secrets: &str) {
        match value {
            Value::Object(map) => {
                if map.remove("ads").is_some() {
                    map.insert("pathConfigSource".into(), json!({"path": secrets}));
                }
                map.values_mut().for_each(|value| from_file(value, secrets));
            }
            Value::Array(list) => list.iter_mut().for_each(|value| from_file(value, secrets)),
            _ => {}
        }
    }
    let mut out = json_of(&emit::cluster(cluster));
    if out["type"] == "EDS" {
        out["type"] = json!("STATIC");
        out.as_object_mut().unwrap().remove("edsClusterConfig");
    }
    from_file(&mut out, secrets);
    out
}

fn bootstrap(listeners: Vec<Value>, clusters: Vec<Value>) -> Value {
    let mut clusters = clusters;
    clusters.push(json!({
        "name": "xds", "type": "STATIC",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        },
    }));
    json!({
        "node": {"id": "n", "cluster": "c"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "layered_runtime": {"layers": [{
            "name": "static", "static_layer": {"re2.max_program_size.error_level": 32768},
        }]},
        "bootstrap_extensions": [{
            "name": "envoy.bootstrap.internal_listener",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
            },
        }],
        "dynamic_resources": {"ads_config": {
            "api_type": "DELTA_GRPC", "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
        }},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    })
}

/// What Envoy says to a configuration; empty when it has nothing against it.
fn verdict(config: &Value) -> String {
    let envoy = std::env::var_os("AMBIENTD_ENVOY")
        .expect("AMBIENTD_ENVOY must name an Envoy binary; `cargo xtask test` provides one");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("envoy.json");
    std::fs::write(&file, serde_json::to_vec_pretty(config).unwrap()).unwrap();
    let output = Command::new(envoy)
        .args(["--mode", "validate", "--log-level", "warning", "-c"])
        .arg(&file)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        String::new()
    } else {
        let lines = stderr.lines().filter(|line| {
            !["backtrace", "Deprecated"]
                .iter()
                .any(|word| line.contains(word))
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Everything at once; only when that is refused, one by one, to name the culprits.
#[test]
fn envoy_accepts_every_variant() {
    let dir = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(vec!["wp.test".to_owned()]).unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(path("chain.pem"), certified.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), certified.signing_key.serialize_pem()).unwrap();
    std::fs::write(path("secrets.json"), r#"{"resources": []}"#).unwrap();
    let clusters: Vec<Value> = clusters::all(&path)
        .iter()
        .map(|cluster| settled(cluster, &path("secrets.json")))
        .collect();
    let listeners: Vec<Value> = chains::all()
        .iter()
        .map(|chain| {
            json!({
                "name": chain.name.to_string(),
                "internal_listener": {},
                "filter_chains": [chain_json(chain)],
            })
        })
        .collect();
    if verdict(&bootstrap(listeners.clone(), clusters.clone())).is_empty() {
        return;
    }
    let mut refused = Vec::new();
    for listener in &listeners {
        let why = verdict(&bootstrap(vec![listener.clone()], vec![]));
        if !why.is_empty() {
            refused.push(format!("{}: {why}", listener["name"]));
        }
    }
    for cluster in &clusters {
        let why = verdict(&bootstrap(vec![], vec![cluster.clone()]));
        if !why.is_empty() {
            refused.push(format!("{}: {why}", cluster["name"]));
        }
    }
    panic!("{}", refused.join("\n"));
}

/// Bindings keep maps in no order; two encodings of one IR are equal all the same.
#[test]
fn equal_ir_gives_equal_bytes() {
    let bytes = || -> Vec<Vec<u8>> {
        let chains = chains::all();
        let clusters = clusters::all(&str::to_owned);
        let chains = chains.iter().map(emit::chain);
        chains
            .chain(clusters.iter().map(|c| emit::cluster(c).bytes))
            .collect()
    };
    let first = bytes();
    for _ in 0..5 {
        assert!(bytes() == first);
    }
}
