//! Who a node says it is, and the class of configuration that it gets.
//! Source: spec/envoy-config.md §0.3, §1.1, §1.2; spec/control-plane.md §2.2.

use std::net::IpAddr;

use model::labels::{LABEL_GATEWAY_MANAGED, LABEL_GATEWAY_NAME, MANAGED_EAST_WEST};
use model::proxy::{
    ForwardClientCert, IpFamilies, ProxyRole, SecretSource, StringFactory, Topology,
};
use model::{ObjectKey, ProxyClass, Str};
use proto::core::{Node, node::UserAgentVersionType};
use proto::{Struct, Value, value::Kind};

use crate::bootstrap::{METADATA_BIND, METADATA_SECRETS};

mod place;

/// Longest node id, in bytes.
const ID_BYTES_MAX: usize = 1024;
/// Node metadata that settles the form of configuration: `stock` or `istio`. Without it the
/// extensions that the node lists decide.
pub const METADATA_FORM: &str = "AMBIENTD_FORM";
/// Node metadata with the configuration of the proxy.
const METADATA_PROXY_CONFIG: &str = "PROXY_CONFIG";
/// Longest name of a network, in bytes.
const NETWORK_BYTES_MAX: usize = 253;
/// Most instance addresses that are read.
const INSTANCE_IPS_MAX: usize = 16;
/// First Envoy version with `envoy.hashable_string`.
const HASHABLE_SINCE: (u32, u32) = (1, 38);

/// What kind of client a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeKind {
    /// A node proxy.
    Ztunnel,
    /// A waypoint.
    Waypoint,
    /// An east-west gateway.
    EastWest,
    /// A gateway.
    Router,
    /// A sidecar, or a tool that calls itself one.
    Sidecar,
    /// An agentgateway.
    Agentgateway,
}

/// What a node says of itself. Nothing of it is proven: compare it with the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Node id as written.
    pub id: Str,
    /// Kind.
    pub kind: NodeKind,
    /// First address.
    pub ip: IpAddr,
    /// Pod name, without namespace.
    pub pod: Str,
    /// Configuration namespace.
    pub ns: Str,
    /// Service account, empty when not said.
    pub service_account: Str,
    /// Node of the cluster, empty when not said.
    pub node_name: Str,
    /// Cluster id, empty when not said.
    pub cluster_id: Str,
    /// The class, for clients that get Envoy configuration.
    pub class: Option<ProxyClass>,
}

/// Why a node is refused; `InvalidArgument` on the stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// Not four parts, or too long.
    #[error("the node id is not type~ip~pod.namespace~domain")]
    Id,
    /// A type that does not exist.
    #[error("unknown node type {0:?}")]
    Type(String),
    /// An address that is none.
    #[error("{0:?} is not an IP address")]
    Address(String),
    /// No namespace in metadata or domain.
    #[error("the node has no namespace")]
    Namespace,
    /// A waypoint that does not say of which Gateway.
    #[error("the waypoint has no label {LABEL_GATEWAY_NAME}")]
    Gateway,
    /// A gateway between networks whose Envoy would serve one client by the connection of
    /// another. Source: spec/envoy-config.md §2.6.
    #[error("gateways between networks need Envoy 1.38 or newer")]
    Version,
    /// A metadata value of a wrong type.
    #[error("node metadata {0} is not a {1}")]
    Metadata(&'static str, &'static str),
    /// A metadata value that means nothing.
    #[error("node metadata {0} has the unknown value {1:?}")]
    Value(&'static str, String),
}

/// Reads a node.
///
/// # Errors
/// See [`NodeError`].
pub fn class_from_node(node: &Node) -> Result<NodeInfo, NodeError> {
    let mut parts = node.id.split('~');
    let (Some(kind), Some(id_ip), Some(pod), Some(domain), None) = (
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    ) else {
        return Err(NodeError::Id);
    };
    if node.id.len() > ID_BYTES_MAX {
        return Err(NodeError::Id);
    }
    let empty = Struct::default();
    let metadata = Metadata(node.metadata.as_ref().unwrap_or(&empty));
    let labels = metadata.texts("LABELS")?;
    let label = |key: &str| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
    let kind = kind_of(kind, label(LABEL_GATEWAY_MANAGED))?;
    let ips = addresses(metadata.text("INSTANCE_IPS")?, id_ip)?;
    let ip = *ips
        .first()
        .ok_or_else(|| NodeError::Address(String::new()))?;
    let ns = match metadata.text("NAMESPACE")? {
        "" => domain.split('.').next().unwrap_or_default(),
        ns => ns,
    };
    if ns.is_empty() {
        return Err(NodeError::Namespace);
    }
    let class = match kind {
        NodeKind::Waypoint => {
            let gateway = label(LABEL_GATEWAY_NAME).filter(|name| !name.is_empty());
            let gateway = ObjectKey::new(ns, gateway.ok_or(NodeError::Gateway)?);
            Some(class(node, &metadata, gateway)?)
        }
        NodeKind::EastWest => {
            let gateway = label(LABEL_GATEWAY_NAME).filter(|name| !name.is_empty());
            let gateway = ObjectKey::new(ns, gateway.ok_or(NodeError::Gateway)?);
            let class = class(node, &metadata, gateway)?;
            if class.strings == StringFactory::EnvoyPlain {
                return Err(NodeError::Version);
            }
            Some(ProxyClass {
                role: ProxyRole::EastWest,
                ..class
            })
        }
        // One of somebody else's making may have no Gateway at all.
        NodeKind::Router => match label(LABEL_GATEWAY_NAME).filter(|name| !name.is_empty()) {
            None => None,
            Some(gateway) => Some(ProxyClass {
                role: ProxyRole::Ingress,
                topology: metadata.topology()?,
                is_unprivileged: metadata.text("UNPRIVILEGED_POD")? == "true",
                ..class(node, &metadata, ObjectKey::new(ns, gateway))?
            }),
        },
        _ => None,
    };
    let class = class.map(|class| ProxyClass {
        locality: place::locality(node, &label),
        families: families(&ips),
        ..class
    });
    let pod = pod
        .strip_suffix(ns)
        .and_then(|rest| rest.strip_suffix('.'))
        .unwrap_or(pod);
    Ok(NodeInfo {
        id: node.id.as_str().into(),
        kind,
        ip,
        pod: pod.into(),
        ns: ns.into(),
        service_account: metadata.text("SERVICE_ACCOUNT")?.into(),
        node_name: metadata.text("NODE_NAME")?.into(),
        cluster_id: metadata.text("CLUSTER_ID")?.into(),
        class,
    })
}

fn kind_of(text: &str, managed: Option<&str>) -> Result<NodeKind, NodeError> {
    match text {
        "ztunnel" => Ok(NodeKind::Ztunnel),
        "waypoint" if managed == Some(MANAGED_EAST_WEST) => Ok(NodeKind::EastWest),
        "waypoint" => Ok(NodeKind::Waypoint),
        "router" => Ok(NodeKind::Router),
        "sidecar" => Ok(NodeKind::Sidecar),
        "agentgateway" => Ok(NodeKind::Agentgateway),
        other => Err(NodeError::Type(other.chars().take(100).collect())),
    }
}

/// The instance addresses, every one of which must be valid; else that of the id.
fn addresses(instance_ips: &str, id_ip: &str) -> Result<Vec<IpAddr>, NodeError> {
    let bad = |text: &str| NodeError::Address(text.chars().take(100).collect());
    let read = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| bad(text));
    if instance_ips.is_empty() {
        return Ok(vec![read(id_ip)?]);
    }
    if instance_ips.split(',').count() > INSTANCE_IPS_MAX {
        return Err(bad(instance_ips));
    }
    instance_ips.split(',').map(read).collect()
}

fn families(ips: &[IpAddr]) -> IpFamilies {
    let v4 = ips.iter().any(|ip| ip.to_canonical().is_ipv4());
    let v6 = ips.iter().any(|ip| ip.to_canonical().is_ipv6());
    match (v4, v6) {
        (true, true) => IpFamilies::Dual,
        (false, true) => IpFamilies::V6,
        _ => IpFamilies::V4,
    }
}

fn class(
    node: &Node,
    metadata: &Metadata<'_>,
    gateway: ObjectKey,
) -> Result<ProxyClass, NodeError> {
    let secrets = match metadata.text(METADATA_SECRETS)? {
        "" | "sds" => SecretSource::SdsGrpc,
        "static" => SecretSource::Bootstrap,
        other => {
            return Err(NodeError::Value(
                METADATA_SECRETS,
                other.chars().take(100).collect(),
            ));
        }
    };
    let bind = match metadata.text(METADATA_BIND)? {
        "" => None,
        text => {
            let bad = || NodeError::Value(METADATA_BIND, text.chars().take(100).collect());
            Some(text.parse().map_err(|_| bad())?)
        }
    };
    let istio = match metadata.text(METADATA_FORM)? {
        "" => is_istio(node),
        "stock" => false,
        "istio" => true,
        other => {
            let other = other.chars().take(100).collect();
            return Err(NodeError::Value(METADATA_FORM, other));
        }
    };
    let network = metadata.text("NETWORK")?;
    if network.len() > NETWORK_BYTES_MAX {
        let start = network.chars().take(100).collect();
        return Err(NodeError::Value("NETWORK", start));
    }
    Ok(ProxyClass {
        network: network.into(),
        strings: strings(node),
        istio,
        secrets,
        bind,
        ..ProxyClass::waypoint(gateway)
    })
}

/// Names and types of the filters that only Istio's proxy has, as far as we emit them: one of
/// each line must be there, for one that is missing would cost the whole listener.
const ISTIO: [&[&str]; 3] = [
    &[
        "istio.stats",
        "envoy.filters.http.istio_stats",
        "stats.PluginConfig",
    ],
    &[
        "istio.peer_metadata",
        "envoy.filters.http.peer_metadata",
        "io.istio.http.peer_metadata.Config",
    ],
    &[
        "istio.metadata_exchange",
        "envoy.filters.network.metadata_exchange",
        "envoy.tcp.metadataexchange.config.MetadataExchange",
    ],
];

/// Whether a node lists the extensions of Istio's own proxy.
fn is_istio(node: &Node) -> bool {
    ISTIO.iter().all(|names| {
        node.extensions.iter().any(|extension| {
            let known = |name: &str| names.contains(&name);
            let typed = |url: &String| known(url.rsplit('/').next().unwrap_or_default());
            !extension.disabled && (known(&extension.name) || extension.type_urls.iter().any(typed))
        })
    })
}

/// The string factory: one that the node lists, else by version. A node that says nothing
/// of itself counts as a current stock Envoy.
fn strings(node: &Node) -> StringFactory {
    let lists = |name: &str| {
        node.extensions
            .iter()
            .any(|extension| extension.name == name && !extension.disabled)
    };
    if lists("envoy.hashable_string") {
        return StringFactory::EnvoyHashable;
    }
    if lists("istio.hashable_string") {
        return StringFactory::IstioHashable;
    }
    let version = match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentBuildVersion(build)) => build
            .version
            .as_ref()
            .map(|v| (v.major_number, v.minor_number)),
        Some(UserAgentVersionType::UserAgentVersion(text)) => read_version(text),
        None => None,
    };
    match version {
        Some(version) if version < HASHABLE_SINCE => StringFactory::EnvoyPlain,
        _ => StringFactory::EnvoyHashable,
    }
}

fn read_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Typed reading of node metadata.
struct Metadata<'n>(&'n Struct);

impl<'n> Metadata<'n> {
    /// A text, empty when absent or null.
    fn text(&self, key: &'static str) -> Result<&'n str, NodeError> {
        match self.0.fields.get(key) {
            None => Ok(""),
            Some(value) => text_of(value).ok_or(NodeError::Metadata(key, "string")),
        }
    }

    /// `gatewayTopology` of the proxy configuration. It stands there as a message or, where
    /// metadata are texts, as JSON.
    fn topology(&self) -> Result<Topology, NodeError> {
        let wrong = || NodeError::Metadata(METADATA_PROXY_CONFIG, "proxy configuration");
        let config = match self.0.fields.get(METADATA_PROXY_CONFIG) {
            None => return Ok(Topology::default()),
            Some(value) => json_of(value, 0).ok_or_else(wrong)?,
        };
        let config = match config.as_str() {
            None => config,
            Some("") => return Ok(Topology::default()),
            Some(text) => serde_json::from_str(text).map_err(|_| wrong())?,
        };
        topology(&config).ok_or_else(wrong)
    }

    /// A map of texts, empty when absent or null.
    fn texts(&self, key: &'static str) -> Result<Vec<(&'n str, &'n str)>, NodeError> {
        let wrong = || NodeError::Metadata(key, "map of strings");
        match self.0.fields.get(key).and_then(|value| value.kind.as_ref()) {
            None | Some(Kind::NullValue(_)) => Ok(Vec::new()),
            Some(Kind::StructValue(map)) => {
                let pair = |(k, v): (&'n String, &'n Value)| Some((k.as_str(), text_of(v)?));
                map.fields
                    .iter()
                    .map(pair)
                    .collect::<Option<_>>()
                    .ok_or_else(wrong)
            }
            Some(_) => Err(wrong()),
        }
    }
}

/// A value as JSON; `None` when it is nested deeper than anything that is read.
fn json_of(value: &Value, depth: u8) -> Option<serde_json::Value> {
    const DEPTH_MAX: u8 = 16;
    if depth > DEPTH_MAX {
        return None;
    }
    Some(match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => (*value).into(),
        Some(Kind::NumberValue(value)) => (*value).into(),
        Some(Kind::StringValue(text)) => text.as_str().into(),
        Some(Kind::ListValue(list)) => {
            let values = list.values.iter().map(|one| json_of(one, depth + 1));
            values.collect::<Option<Vec<_>>>()?.into()
        }
        Some(Kind::StructValue(map)) => {
            let fields = map.fields.iter();
            let fields = fields.map(|(key, one)| Some((key.clone(), json_of(one, depth + 1)?)));
            serde_json::Value::Object(fields.collect::<Option<_>>()?)
        }
    })
}

/// `gatewayTopology`; `None` when it cannot be read.
fn topology(config: &serde_json::Value) -> Option<Topology> {
    const HOPS_MAX: f64 = 1000.0;
    let Some(found) = config
        .get("gatewayTopology")
        .filter(|found| !found.is_null())
    else {
        return Some(Topology::default());
    };
    let trusted_hops = match found.get("numTrustedProxies") {
        None => 0,
        Some(hops) => {
            let hops = hops
                .as_f64()
                .filter(|hops| (0.0..=HOPS_MAX).contains(hops))?;
            let text = format!("{hops:.0}");
            text.parse().ok()?
        }
    };
    let forward_client_cert = match found.get("forwardClientCertDetails") {
        None => ForwardClientCert::default(),
        Some(word) => match word.as_str()? {
            "UNDEFINED" => ForwardClientCert::default(),
            "SANITIZE" => ForwardClientCert::Sanitize,
            "FORWARD_ONLY" => ForwardClientCert::ForwardOnly,
            "APPEND_FORWARD" => ForwardClientCert::AppendForward,
            "SANITIZE_SET" => ForwardClientCert::SanitizeSet,
            "ALWAYS_FORWARD_ONLY" => ForwardClientCert::AlwaysForwardOnly,
            _ => return None,
        },
    };
    Some(Topology {
        trusted_hops,
        proxy_protocol: found.get("proxyProtocol").is_some_and(|one| !one.is_null()),
        forward_client_cert,
    })
}

fn text_of(value: &Value) -> Option<&str> {
    match &value.kind {
        Some(Kind::StringValue(text)) => Some(text),
        None | Some(Kind::NullValue(_)) => Some(""),
        Some(_) => None,
    }
}

#[cfg(test)]
pub(crate) mod tests;
