#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use proto::core::{BuildVersion, Extension, SemanticVersion};
use serde_json::json;

use model::derived::Locality;

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
    ] {
        let info = class_from_node(&node(id, metadata)).unwrap();
        assert_eq!((info.kind, info.class), (kind, None), "{id}");
    }
}

#[test]
fn a_gateway_between_networks_is_a_waypoint_by_type_and_told_apart_by_its_label() {
    let labels = json!({"LABELS": {
        "gateway.istio.io/managed": "istio.io-eastwest-controller",
        "gateway.networking.k8s.io/gateway-name": "gate",
    }});
    let mut node = node(ID, labels);
    let info = class_from_node(&node).unwrap();
    assert_eq!(info.kind, NodeKind::EastWest);
    let class = info.class.unwrap();
    assert_eq!(class.role, model::ProxyRole::EastWest);
    assert_eq!(class.gateway.name, "gate");
    // One that cannot keep clients apart.
    node.user_agent_version_type = Some(UserAgentVersionType::UserAgentVersion("1.37.2".into()));
    assert_eq!(class_from_node(&node), Err(NodeError::Version));
    node.metadata = None;
    node.id = "waypoint~1.1.1.1~a.b~b.svc".into();
    assert_eq!(class_from_node(&node), Err(NodeError::Gateway));
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

fn class_of(metadata: serde_json::Value) -> ProxyClass {
    let class = class_from_node(&node(ID, metadata)).unwrap().class;
    class.unwrap()
}

fn with(key: &str, value: serde_json::Value) -> serde_json::Value {
    let mut metadata = waypoint_metadata();
    metadata[key] = value;
    metadata
}

#[test]
fn the_place_comes_from_labels_then_from_the_node() {
    let labelled = |labels: serde_json::Value| {
        let mut metadata = waypoint_metadata();
        let all = metadata["LABELS"].as_object_mut().unwrap();
        all.extend(labels.as_object().unwrap().clone());
        let at = proto::core::Locality {
            region: "r9".into(),
            zone: "z9".into(),
            sub_zone: "s9".into(),
        };
        let node = Node {
            locality: Some(at),
            ..node(ID, metadata)
        };
        let Locality {
            region,
            zone,
            subzone,
        } = class_from_node(&node).unwrap().class.unwrap().locality;
        format!("{region}/{zone}/{subzone}")
    };
    let topology = json!({
        "topology.kubernetes.io/region": "r1", "topology.kubernetes.io/zone": "z1",
        "istio-locality": "r2.z2",
    });
    assert_eq!(labelled(topology), "r1/z1/");
    assert_eq!(labelled(json!({"istio-locality": "r2.z2.s2"})), "r2/z2/s2");
    assert_eq!(labelled(json!({"istio-locality": "r.2/z2"})), "r.2/z2/");
    assert_eq!(labelled(json!({})), "r9/z9/s9");
    let long = json!({"topology.kubernetes.io/region": "r".repeat(64)});
    assert_eq!(labelled(long), "//");
}

#[test]
fn the_form_follows_the_extensions_unless_it_is_settled() {
    let extension = |name: &str, type_url: &str| Extension {
        name: name.into(),
        type_urls: vec![type_url.into()],
        ..Default::default()
    };
    let istio = vec![
        extension("istio.stats", ""),
        extension(
            "x",
            "type.googleapis.com/io.istio.http.peer_metadata.Config",
        ),
        extension("envoy.filters.network.metadata_exchange", ""),
    ];
    let form = |extensions: Vec<Extension>, form: &str| {
        let node = Node {
            extensions,
            ..node(ID, with("AMBIENTD_FORM", json!(form)))
        };
        class_from_node(&node).unwrap().class.unwrap().istio
    };
    assert!(form(istio.clone(), ""));
    assert!(!form(istio.clone(), "stock"));
    assert!(!form(istio[..2].to_vec(), ""), "one is missing");
    let mut off = istio.clone();
    off[0].disabled = true;
    assert!(!form(off, ""), "one is off");
    assert!(!form(vec![], ""));
    assert!(form(vec![], "istio"));
    assert_eq!(
        class_from_node(&node(ID, with("AMBIENTD_FORM", json!("other")))),
        Err(NodeError::Value("AMBIENTD_FORM", "other".into()))
    );
}

#[test]
fn families_follow_the_instance_addresses() {
    for (ips, expected) in [
        ("10.0.0.1", IpFamilies::V4),
        ("fd00::1", IpFamilies::V6),
        ("10.0.0.1,fd00::1", IpFamilies::Dual),
        ("fd00::1, 10.0.0.1", IpFamilies::Dual),
        ("::ffff:10.0.0.1", IpFamilies::V4),
    ] {
        let class = class_of(with("INSTANCE_IPS", json!(ips)));
        assert_eq!(class.families, expected, "{ips}");
    }
    let many = vec!["10.0.0.1"; 17].join(",");
    assert!(class_from_node(&node(ID, with("INSTANCE_IPS", json!(many)))).is_err());
}

#[test]
fn a_network_is_no_place_for_long_texts() {
    let node = node(ID, with("NETWORK", json!("n".repeat(254))));
    assert!(matches!(
        class_from_node(&node),
        Err(NodeError::Value("NETWORK", _))
    ));
}

#[test]
fn a_router_of_a_gateway_has_its_class_and_what_stands_before_it() {
    let read = |config: serde_json::Value| {
        let metadata = json!({
            "PROXY_CONFIG": config,
            "LABELS": {"gateway.networking.k8s.io/gateway-name": "door"},
        });
        let id = "router~10.0.0.9~door-abc.app~app.svc.cluster.local";
        class_from_node(&node(id, metadata)).map(|info| info.class.unwrap())
    };
    let gateway = ObjectKey::new("app", "door");
    assert_eq!(read(json!("")), Ok(ProxyClass::ingress(gateway.clone())));
    let metadata = json!({
        "UNPRIVILEGED_POD": "true",
        "LABELS": {"gateway.networking.k8s.io/gateway-name": "door"},
    });
    let id = "router~10.0.0.9~door-abc.app~app.svc.cluster.local";
    let unprivileged = class_from_node(&node(id, metadata)).unwrap().class.unwrap();
    assert!(unprivileged.is_unprivileged);
    let config = json!({"gatewayTopology": {
        "numTrustedProxies": 2,
        "forwardClientCertDetails": "ALWAYS_FORWARD_ONLY",
        "proxyProtocol": {},
    }, "concurrency": 2});
    let expected = ProxyClass {
        topology: Topology {
            trusted_hops: 2,
            proxy_protocol: true,
            forward_client_cert: ForwardClientCert::AlwaysForwardOnly,
        },
        ..ProxyClass::ingress(gateway)
    };
    assert_eq!(read(config.clone()), Ok(expected.clone()));
    assert_eq!(read(json!(config.to_string())), Ok(expected));
    for bad in [
        json!({"gatewayTopology": {"numTrustedProxies": -1}}),
        json!({"gatewayTopology": {"numTrustedProxies": "2"}}),
        json!({"gatewayTopology": {"forwardClientCertDetails": "odd"}}),
        json!("{"),
    ] {
        let wrong = Err(NodeError::Metadata(
            METADATA_PROXY_CONFIG,
            "proxy configuration",
        ));
        assert_eq!(read(bad.clone()), wrong, "{bad}");
    }
}
