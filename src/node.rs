//! The port between xDS streams and translation: what a node is, in the terms of streams.

use envoy::node::{NodeKind, class_from_node};
use model::Str;
use xds::{Client, ClientKind, NodeError, NodeReader};

/// Reads nodes as the `envoy` crate understands them.
#[derive(Clone, Copy, Debug, Default)]
pub struct EnvoyNodes;

impl NodeReader for EnvoyNodes {
    fn read(&self, node: &proto::core::Node) -> Result<Client, NodeError> {
        let info = class_from_node(node).map_err(|error| NodeError(error.to_string()))?;
        let kind = match info.kind {
            NodeKind::Ztunnel => ClientKind::Ztunnel,
            NodeKind::Waypoint => ClientKind::Envoy,
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
