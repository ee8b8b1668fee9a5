#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use proto::core::{BuildVersion, Extension, SemanticVersion};
use serde_json::json;

use super::*;

/// A node with metadata given as JSON.
pub(crate) fn node(id: &str, metadata: serde_json::Value) -> Node {
    Node {
        id: id.into(),
        metadata: Some(fields(metadata)),
        ..Default::default()
    }
}

fn fields(json: serde_json::Value) -> Struct {
    let serde_json::Value::Object(map) = json else {
        panic!("metadata is an object")
    };
    Struct {
        fields: map.into_iter().map(|(key, v)| (key, value(v))).collect(),
    }
}

fn value(json: serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::String(text) => Kind::StringValue(text),
        serde_json::Value::Bool(flag) => Kind::BoolValue(flag),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
        object => Kind::StructValue(fields(object)),
    };
    Value { kind: Some(kind) }
}

const ID: &str = "waypoint~10.0.0.9~wp-abc.app~app.svc.cluster.local";

fn waypoint_metadata() -> serde_json::Value {
    json!({
        "NAMESPACE": "app", "SERVICE_ACCOUNT": "wp", "CLUSTER_ID": "c1", "NETWORK": "n1",
        "LABELS": {"gateway.networking.k8s.io/gateway-name": "wp"},
    })
}

#[test]
fn a_waypoint_node_gives_its_class() {
    let info = class_from_node(&node(ID, waypoint_metadata())).unwrap();
    let expected = NodeInfo {
        id: ID.into(),
        kind: NodeKind::Waypoint,
        ip: "10.0.0.9".parse().unwrap(),
        pod: "wp-abc".into(),
        ns: "app".into(),
        service_account: "wp".into(),
        node_name: Str::new(),
        cluster_id: "c1".into(),
        class: Some(ProxyClass {
            network: "n1".into(),
            ..ProxyClass::waypoint(ObjectKey::new("app", "wp"))
        }),
    };
    assert_eq!(info, expected);
}

#[test]
fn other_kinds_have_no_class() {
    let east_west = json!({"LABELS": {"gateway.istio.io/managed": "istio.io-eastwest-controller"}});
    for (id, metadata, kind) in [
        (
            "ztunnel~1.1.1.1~zt.istio-system~istio-system.svc.cluster.local",
            json!({}),
            NodeKind::Ztunnel,
        ),
        (
            "router~1.1.1.1~gw.app~app.svc.cluster.local",
            json!({}),
            NodeKind::Router,
        ),
        (
            "sidecar~1.1.1.1~a.app~app.svc.cluster.local",
            json!({}),
            NodeKind::Sidecar,
        ),
        (ID, east_west, NodeKind::EastWest),
    ] {
        let info = class_from_node(&node(id, metadata)).unwrap();
        assert_eq!((info.kind, info.class), (kind, None), "{id}");
    }
}

#[test]
fn a_node_that_cannot_be_right_is_refused() {
    let two_ips = json!({"INSTANCE_IPS": "10.0.0.1,x"});
    for (id, metadata, error) in [
        ("waypoint~1.1.1.1~a.b", json!({}), NodeError::Id),
        ("waypoint~1.1.1.1~a.b~b.svc~x", json!({}), NodeError::Id),
        (
            "proxy~1.1.1.1~a.b~b.svc",
            json!({}),
            NodeError::Type("proxy".into()),
        ),
        (
            "waypoint~host~a.b~b.svc",
            json!({}),
            NodeError::Address("host".into()),
        ),
        (ID, two_ips, NodeError::Address("x".into())),
        ("ztunnel~1.1.1.1~a~", json!({}), NodeError::Namespace),
        (ID, json!({}), NodeError::Gateway),
        (
            ID,
            json!({"NAMESPACE": 3}),
            NodeError::Metadata("NAMESPACE", "string"),
        ),
        (
            ID,
            json!({"LABELS": "x"}),
            NodeError::Metadata("LABELS", "map of strings"),
        ),
    ] {
        assert_eq!(class_from_node(&node(id, metadata)), Err(error), "{id}");
    }
}

#[test]
fn the_string_factory_follows_extensions_then_version() {
    let listed = |name: &str| {
        vec![Extension {
            name: name.into(),
            ..Default::default()
        }]
    };
    let version = |minor_number| {
        Some(UserAgentVersionType::UserAgentBuildVersion(BuildVersion {
            version: Some(SemanticVersion {
                major_number: 1,
                minor_number,
                patch: 0,
            }),
            metadata: None,
        }))
    };
    for (extensions, version, expected) in [
        (
            listed("istio.hashable_string"),
            version(37),
            StringFactory::IstioHashable,
        ),
        (
            listed("envoy.hashable_string"),
            version(37),
            StringFactory::EnvoyHashable,
        ),
        (
            listed("envoy.filters.http.router"),
            version(40),
            StringFactory::EnvoyHashable,
        ),
        (
            listed("envoy.filters.http.router"),
            version(37),
            StringFactory::EnvoyPlain,
        ),
        (vec![], None, StringFactory::EnvoyHashable),
    ] {
        let node = Node {
            extensions,
            user_agent_version_type: version,
            ..node(ID, waypoint_metadata())
        };
        let class = class_from_node(&node).unwrap().class.unwrap();
        assert_eq!(class.strings, expected);
    }
}
