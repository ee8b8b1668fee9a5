//! Names: kinds, object keys, workload uids, hostnames, identities.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::Str;

/// A kind of input object that ambientd reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// core/v1 Namespace.
    Namespace,
    /// core/v1 Node.
    Node,
    /// core/v1 Pod.
    Pod,
    /// core/v1 Service.
    Service,
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice,
    /// gateway.networking.k8s.io Gateway.
    Gateway,
    /// gateway.networking.k8s.io GatewayClass.
    GatewayClass,
    /// gateway.networking.k8s.io ListenerSet.
    ListenerSet,
    /// gateway.networking.k8s.io BackendTLSPolicy.
    BackendTlsPolicy,
    /// gateway.networking.k8s.io HTTPRoute.
    HttpRoute,
    /// gateway.networking.k8s.io GRPCRoute.
    GrpcRoute,
    /// gateway.networking.k8s.io TCPRoute.
    TcpRoute,
    /// gateway.networking.k8s.io TLSRoute.
    TlsRoute,
    /// gateway.networking.k8s.io ReferenceGrant.
    ReferenceGrant,
    /// security.istio.io AuthorizationPolicy.
    AuthorizationPolicy,
    /// security.istio.io PeerAuthentication.
    PeerAuthentication,
    /// security.istio.io RequestAuthentication.
    RequestAuthentication,
    /// networking.istio.io VirtualService.
    VirtualService,
    /// networking.istio.io DestinationRule.
    DestinationRule,
    /// networking.istio.io ServiceEntry.
    ServiceEntry,
    /// networking.istio.io WorkloadEntry.
    WorkloadEntry,
    /// core/v1 Secret: keys and certificates that proxies ask for.
    Secret,
    /// core/v1 ConfigMap: certificates that proxies ask for.
    ConfigMap,
    /// admissionregistration.k8s.io MutatingWebhookConfiguration: revision tags.
    MutatingWebhookConfiguration,
    /// admissionregistration.k8s.io ValidatingWebhookConfiguration: which revision is the default.
    ValidatingWebhookConfiguration,
    /// The mesh configuration: ConfigMap `istio` of the system namespace, or a
    /// bare `MeshConfig` document in file mode.
    MeshConfig,
}

impl Kind {
    /// Every kind, in the order in which a consistent batch is applied.
    pub const ALL: [Self; 26] = [
        Self::MeshConfig,
        Self::Namespace,
        Self::Node,
        Self::MutatingWebhookConfiguration,
        Self::ValidatingWebhookConfiguration,
        Self::GatewayClass,
        Self::Gateway,
        Self::ListenerSet,
        Self::ReferenceGrant,
        Self::Secret,
        Self::ConfigMap,
        Self::Service,
        Self::ServiceEntry,
        Self::Pod,
        Self::WorkloadEntry,
        Self::EndpointSlice,
        Self::AuthorizationPolicy,
        Self::PeerAuthentication,
        Self::HttpRoute,
        Self::RequestAuthentication,
        Self::DestinationRule,
        Self::VirtualService,
        Self::GrpcRoute,
        Self::TcpRoute,
        Self::TlsRoute,
        Self::BackendTlsPolicy,
    ];

    /// The kind as it stands in YAML.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Gateway => "Gateway",
            Self::GatewayClass => "GatewayClass",
            Self::ListenerSet => "ListenerSet",
            Self::BackendTlsPolicy => "BackendTLSPolicy",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TcpRoute => "TCPRoute",
            Self::TlsRoute => "TLSRoute",
            Self::RequestAuthentication => "RequestAuthentication",
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::ServiceEntry => "ServiceEntry",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::MutatingWebhookConfiguration => "MutatingWebhookConfiguration",
            Self::ValidatingWebhookConfiguration => "ValidatingWebhookConfiguration",
            Self::MeshConfig => "MeshConfig",
        }
    }

    /// API group of the kind (`""` for core and for `MeshConfig`).
    pub const fn group(self) -> &'static str {
        match self {
            Self::Namespace
            | Self::Node
            | Self::Pod
            | Self::Service
            | Self::Secret
            | Self::ConfigMap
            | Self::MeshConfig => "",
            Self::EndpointSlice => "discovery.k8s.io",
            Self::MutatingWebhookConfiguration | Self::ValidatingWebhookConfiguration => {
                "admissionregistration.k8s.io"
            }
            Self::Gateway
            | Self::GatewayClass
            | Self::ListenerSet
            | Self::BackendTlsPolicy
            | Self::HttpRoute
            | Self::GrpcRoute
            | Self::TcpRoute
            | Self::TlsRoute
            | Self::ReferenceGrant => "gateway.networking.k8s.io",
            Self::AuthorizationPolicy | Self::PeerAuthentication | Self::RequestAuthentication => {
                "security.istio.io"
            }
            Self::ServiceEntry
            | Self::WorkloadEntry
            | Self::VirtualService
            | Self::DestinationRule => "networking.istio.io",
        }
    }

    /// `apiVersion` of objects of this kind, in the version to write.
    pub fn api_version(self) -> String {
        match self.group() {
            "" => "v1".to_owned(),
            group => format!("{group}/v1"),
        }
    }

    /// Whether objects of this kind live in a namespace.
    pub const fn is_namespaced(self) -> bool {
        !matches!(
            self,
            Self::Namespace
                | Self::Node
                | Self::GatewayClass
                | Self::MutatingWebhookConfiguration
                | Self::ValidatingWebhookConfiguration
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Namespace and name of an object; the namespace is empty for cluster-scoped kinds.
///
/// Displayed as `ns/name`, or `name` without a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace, empty for cluster-scoped objects.
    pub ns: Str,
    /// Name.
    pub name: Str,
}

impl ObjectKey {
    /// A key from its parts.
    pub fn new(ns: impl Into<Str>, name: impl Into<Str>) -> Self {
        Self {
            ns: ns.into(),
            name: name.into(),
        }
    }

    /// A key of a cluster-scoped object.
    pub fn cluster(name: impl Into<Str>) -> Self {
        Self {
            ns: Str::new(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ns.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.ns, self.name)
        }
    }
}

impl FromStr for ObjectKey {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            None if !text.is_empty() => Ok(Self::cluster(text)),
            Some((ns, name)) if !ns.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::new(ns, name))
            }
            _ => Err(NameError::new(text, "namespace/name")),
        }
    }
}

/// Resource name of a workload: `cluster/group/kind/ns/name[/address]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadUid(pub Str);

impl WorkloadUid {
    /// The uid of a Pod: two slashes, since the core API group is empty.
    pub fn pod(cluster: &str, key: &ObjectKey) -> Self {
        // Derived again, it is the one that tables have as a key.
        let uid = format!("{cluster}//Pod/{}/{}", key.ns, key.name);
        Self(crate::shared::text(&uid))
    }

    /// The uid of a gateway of another network.
    pub fn network_gateway(network: &str, address: &str, hbone_port: u16) -> Self {
        Self(arcstr::format!(
            "NetworkGateway/{network}/{address}/{hbone_port}"
        ))
    }

    /// The uid of an object of an API group, with the endpoint address where there are several.
    pub fn object(cluster: &str, kind: Kind, key: &ObjectKey, address: Option<&str>) -> Self {
        let (group, ns, name) = (kind.group(), &key.ns, &key.name);
        Self(match address {
            None => arcstr::format!("{cluster}/{group}/{kind}/{ns}/{name}"),
            Some(address) => arcstr::format!("{cluster}/{group}/{kind}/{ns}/{name}/{address}"),
        })
    }
}

impl fmt::Display for WorkloadUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Resource name of a service: `ns/hostname`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacedHostname {
    /// Namespace of the object that names the host.
    pub ns: Str,
    /// Fully qualified host, verbatim (wildcards included).
    pub hostname: Str,
}

impl NamespacedHostname {
    /// From its parts.
    pub fn new(ns: impl Into<Str>, hostname: impl Into<Str>) -> Self {
        Self {
            ns: ns.into(),
            hostname: hostname.into(),
        }
    }

    /// The name of a Kubernetes Service.
    pub fn service(key: &ObjectKey, domain: &str) -> Self {
        Self {
            ns: key.ns.clone(),
            hostname: arcstr::format!("{}.{}.svc.{domain}", key.name, key.ns),
        }
    }
}

impl fmt::Display for NamespacedHostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ns, self.hostname)
    }
}

impl FromStr for NamespacedHostname {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((ns, host)) if !ns.is_empty() && !host.is_empty() && !host.contains('/') => {
                Ok(Self::new(ns, host))
            }
            _ => Err(NameError::new(text, "namespace/hostname")),
        }
    }
}

/// A workload identity: `spiffe://<trust domain>/ns/<ns>/sa/<sa>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    /// Trust domain.
    pub trust_domain: Str,
    /// Namespace.
    pub ns: Str,
    /// Service account.
    pub sa: Str,
}

impl SpiffeId {
    /// From its parts.
    pub fn new(trust_domain: impl Into<Str>, ns: impl Into<Str>, sa: impl Into<Str>) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            ns: ns.into(),
            sa: sa.into(),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.ns, self.sa
        )
    }
}

impl FromStr for SpiffeId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = || NameError::new(text, "spiffe://<trust domain>/ns/<namespace>/sa/<account>");
        let rest = text.strip_prefix("spiffe://").ok_or_else(bad)?;
        let mut parts = rest.split('/');
        match (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) {
            (Some(td), Some("ns"), Some(ns), Some("sa"), Some(sa), None)
                if !td.is_empty() && !ns.is_empty() && !sa.is_empty() =>
            {
                Ok(Self::new(td, ns, sa))
            }
            _ => Err(bad()),
        }
    }
}

/// A name that is not of the expected form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not of the form {form}")]
pub struct NameError {
    text: String,
    form: &'static str,
}

impl NameError {
    fn new(text: &str, form: &'static str) -> Self {
        Self {
            text: text.chars().take(200).collect(),
            form,
        }
    }
}
