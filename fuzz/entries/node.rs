//! Any node is refused or read whole; and whatever it says, it is at most what its caller is.
//!
//! The bytes are first a message. Then their first line is the node id and the rest its
//! metadata as JSON.

use ambientd::node::EnvoyNodes;
use authn::{Caller, Proof};
use model::SpiffeId;
use prost::Message as _;
use proto::core::Node;
use proto::value::Kind;
use proto::{Struct, Value};
use xds::{ClientKind, IdentityPolicy, NodeReader as _};

pub fn run(bytes: &[u8]) {
    if let Ok(node) = Node::decode(bytes) {
        read(&node);
    }
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let id = String::from_utf8_lossy(parts.next().unwrap_or(b"")).into_owned();
    let metadata = serde_json::from_slice(parts.next().unwrap_or(b"")).unwrap_or_default();
    read(&Node {
        id,
        metadata: Some(fields(metadata)),
        ..Node::default()
    });
}

fn read(node: &Node) {
    let Ok(client) = EnvoyNodes.read(node) else {
        return;
    };
    assert!(!client.ns.is_empty() && client.identity.is_none());
    assert!(client.version.chars().count() <= 64 && client.pod.len() <= 2 * node.id.len() + 1024);
    assert_eq!(client.kind == ClientKind::Envoy, client.class.is_some());
    for (ns, sa) in [("app", "wp"), ("istio-system", "ztunnel")] {
        let caller = Caller {
            identity: SpiffeId::new("cluster.local", ns, sa),
            proof: Proof::Token { pod: None },
        };
        if IdentityPolicy::default()
            .check(&caller, &client, None, None)
            .is_ok()
        {
            assert_eq!(client.ns, ns);
            assert!(client.kind == ClientKind::Envoy || sa == "ztunnel");
            assert!(client.class.iter().all(|class| class.gateway.ns == ns));
        }
    }
}

fn fields(json: serde_json::Value) -> Struct {
    let serde_json::Value::Object(map) = json else {
        return Struct::default();
    };
    Struct {
        fields: map.into_iter().map(|(key, v)| (key, value(v))).collect(),
    }
}

fn value(json: serde_json::Value) -> Value {
    let mut items = Vec::new();
    let mut kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::String(text) => Kind::StringValue(text),
        serde_json::Value::Bool(flag) => Kind::BoolValue(flag),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(0.0)),
        serde_json::Value::Array(values) => {
            items = values;
            Kind::ListValue(Default::default())
        }
        object @ serde_json::Value::Object(_) => Kind::StructValue(fields(object)),
    };
    if let Kind::ListValue(list) = &mut kind {
        list.values = items.into_iter().map(value).collect();
    }
    Value { kind: Some(kind) }
}
