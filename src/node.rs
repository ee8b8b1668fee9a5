//! The port between xDS streams and translation: what a node is, in the terms of streams.

use envoy::node::{NodeInfo, NodeKind, class_from_node};
use model::Str;
use model::labels::LABEL_GATEWAY_NAME;
use xds::{Client, ClientKind, NodeError, NodeReader};

/// Longest text of metadata, bytes: the longest name of a Kubernetes object.
const TEXT_BYTES_MAX: usize = 253;

/// Reads nodes as the `envoy` crate understands them.
#[derive(Clone, Copy, Debug, Default)]
pub struct EnvoyNodes;

impl NodeReader for EnvoyNodes {
    fn read(&self, node: &proto::core::Node) -> Result<Client, NodeError> {
        let info = class_from_node(node).map_err(|error| NodeError(error.to_string()))?;
        check_lengths(&info)?;
        let kind = match info.kind {
            NodeKind::Ztunnel => ClientKind::Ztunnel,
            NodeKind::Waypoint | NodeKind::EastWest => ClientKind::Envoy,
            NodeKind::Router if info.class.is_some() => ClientKind::Envoy,
            NodeKind::Router => {
                return Err(NodeError(format!(
                    "the gateway has no label {LABEL_GATEWAY_NAME}, so nothing is known to serve it"
                )));
            }
            other => {
                return Err(NodeError(format!(
                    "{other:?} proxies are not served by this version"
                )));
            }
        };
        Ok(Client {
            kind,
            ip: info.ip,
            pod: arcstr::format!("{}.{}", info.pod, info.ns),
            ns: info.ns,
            service_account: (!info.service_account.is_empty()).then_some(info.service_account),
            node_name: info.node_name,
            cluster_id: info.cluster_id,
            version: Str::from(version(node)),
            class: info.class,
            identity: None,
        })
    }
}

/// What is kept of a node for as long as its stream lives must be short: a request may be
/// large, and there are many streams.
fn check_lengths(info: &NodeInfo) -> Result<(), NodeError> {
    let (class, empty) = (info.class.as_ref(), Str::new());
    let network = class.map_or(&empty, |class| &class.network);
    let gateway = class.map_or(&empty, |class| &class.gateway.name);
    let texts = [
        ("NAMESPACE", &info.ns),
        ("SERVICE_ACCOUNT", &info.service_account),
        ("NODE_NAME", &info.node_name),
        ("CLUSTER_ID", &info.cluster_id),
        ("NETWORK", network),
        ("LABELS", gateway),
    ];
    match texts.iter().find(|(_, text)| text.len() > TEXT_BYTES_MAX) {
        Some((key, _)) => Err(NodeError(format!(
            "node metadata {key} is longer than {TEXT_BYTES_MAX} bytes"
        ))),
        None => Ok(()),
    }
}

/// `ISTIO_VERSION` of the metadata, else the build version that the client reports.
fn version(node: &proto::core::Node) -> String {
    let stated = node
        .metadata
        .as_ref()
        .and_then(|metadata| metadata.fields.get("ISTIO_VERSION"));
    if let Some(proto::value::Kind::StringValue(text)) =
        stated.and_then(|value| value.kind.as_ref())
    {
        return text.chars().take(64).collect();
    }
    match &node.user_agent_version_type {
        Some(proto::core::node::UserAgentVersionType::UserAgentBuildVersion(build)) => build
            .version
            .as_ref()
            .map(|v| format!("{}.{}.{}", v.major_number, v.minor_number, v.patch))
            .unwrap_or_default(),
        Some(proto::core::node::UserAgentVersionType::UserAgentVersion(text)) => {
            text.chars().take(64).collect()
        }
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proto::{Struct, Value, value::Kind};

    use super::*;

    #[test]
    fn long_metadata_is_refused_by_its_key() {
        let read = |key: &str, bytes: usize| {
            let text = Kind::StringValue("x".repeat(bytes));
            let fields = [(key.to_owned(), Value { kind: Some(text) })];
            let node = proto::core::Node {
                id: "ztunnel~10.0.0.1~z.ns~ns.svc.cluster.local".to_owned(),
                metadata: Some(Struct {
                    fields: fields.into_iter().collect(),
                }),
                ..Default::default()
            };
            EnvoyNodes.read(&node).map_err(|error| error.to_string())
        };
        for key in ["NAMESPACE", "SERVICE_ACCOUNT", "NODE_NAME", "CLUSTER_ID"] {
            assert!(read(key, 253).is_ok(), "{key}");
            let error = read(key, 254).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
    }
}
