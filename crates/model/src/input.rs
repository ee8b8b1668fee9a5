//! Bodies of input objects: only what ambientd reads, in its own types.
//!
//! One struct per kind. Text fields keep what the user wrote; values with a
//! closed set of words are enums whose unknown words are parse errors.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::object::Labels;
use crate::{FrozenMap, Str};

mod backend_tls_policy;
mod destination_rule;
mod gateway;
mod listener;
mod provider;
mod request_authentication;
mod route;
mod virtual_service;

pub use backend_tls_policy::*;
pub use destination_rule::*;
pub use gateway::*;
pub use provider::*;
pub use request_authentication::*;
pub use route::*;
pub use virtual_service::*;

/// core/v1 Namespace: everything is in its metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Created by the source because other objects live in it.
    pub implicit: bool,
}

/// core/v1 Node: everything is in its labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {}

/// A webhook configuration of admissionregistration.k8s.io with label `istio.io/rev`: of its
/// metadata only name and the labels `istio.io/rev` and `istio.io/tag` are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookConfiguration {}

/// core/v1 Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// `spec.serviceAccountName`, `default` when unset.
    pub service_account: Str,
    /// `spec.nodeName`, empty when unscheduled.
    pub node: Str,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// `status.phase` is `Failed` or `Succeeded`.
    pub terminal: bool,
    /// `status.phase` is `Failed`.
    pub failed: bool,
    /// Condition `Ready` is `True`.
    pub ready: bool,
    /// `status.podIPs`, else `status.podIP`, in order; `None` when one of them does not parse.
    pub ips: Option<Vec<IpAddr>>,
    /// Named TCP ports of containers, then of init containers with `restartPolicy: Always`; first wins.
    pub tcp_ports: FrozenMap<Str, u16>,
}

/// Transport protocol of a Service port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Target of a Service port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// The name of a container port.
    Named(Str),
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name, empty when unset.
    pub name: Str,
    /// Number.
    pub port: u16,
    /// Target, the port itself when unset.
    pub target: TargetPort,
    /// Transport protocol.
    pub transport: Transport,
    /// `appProtocol`.
    pub app_protocol: Option<Str>,
}

/// core/v1 Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// `spec.type` is `ExternalName`.
    pub external_name: bool,
    /// `clusterIPs`, else `clusterIP`, without empty ones and `None`.
    pub cluster_ips: Vec<IpAddr>,
    /// Selector; empty or absent selects nothing.
    pub selector: Labels,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// `ipFamilies` as written (`IPv4`, `IPv6`).
    pub ip_families: Vec<Str>,
    /// `publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `trafficDistribution`.
    pub traffic_distribution: Option<Str>,
    /// `spec.type` is `LoadBalancer`.
    pub load_balancer: bool,
    /// Where it is reached from outside: addresses and host names of
    /// `status.loadBalancer.ingress`, then `spec.externalIPs`.
    pub external: Vec<Str>,
}

/// An endpoint of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Addresses as written; empty for a pod, whose own count.
    pub addresses: Vec<Str>,
    /// `conditions.ready`; unset counts as true, and for a pod its own counts.
    pub ready: bool,
    /// `targetRef` of kind Pod: namespace, name and uid.
    pub pod: Option<(Str, Str, Str)>,
}

/// A port of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlicePort {
    /// Name; `None` when absent.
    pub name: Option<Str>,
    /// Number; `None` when absent.
    pub port: Option<u16>,
    /// Transport; `None` when absent.
    pub transport: Option<Transport>,
}

/// discovery.k8s.io/v1 EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSlice {
    /// `addressType` is `FQDN`.
    pub fqdn: bool,
    /// Service named by label `kubernetes.io/service-name`.
    pub service: Option<Str>,
    /// Endpoints.
    pub endpoints: Vec<SliceEndpoint>,
    /// Ports.
    pub ports: Vec<SlicePort>,
}

/// Namespaces that a listener admits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedNamespaces {
    /// The Gateway's own.
    #[default]
    Same,
    /// Every one.
    All,
    /// Those with matching labels.
    Selector(LabelSelector),
    /// None at all (a selector that is absent).
    None,
}

/// A Kubernetes label selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// `matchLabels`.
    pub match_labels: Labels,
    /// `matchExpressions`: key, operator (`In`, `NotIn`, `Exists`, `DoesNotExist`), values.
    pub match_expressions: Vec<(Str, Str, Vec<Str>)>,
}

impl LabelSelector {
    /// Whether labels satisfy every requirement; an unknown operator matches nothing.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels
            .iter()
            .all(|(k, v)| labels.get(k) == Some(v))
            && self
                .match_expressions
                .iter()
                .all(|(key, operator, values)| {
                    let value = labels.get(key);
                    match operator.as_str() {
                        "In" => value.is_some_and(|v| values.contains(v)),
                        "NotIn" => value.is_none_or(|v| !values.contains(v)),
                        "Exists" => value.is_some(),
                        "DoesNotExist" => value.is_none(),
                        _ => false,
                    }
                })
    }
}

/// Whether `discoverySelectors` select a namespace with these labels, `None` when it does not
/// exist; without selectors every namespace is selected. The namespace of the control plane is in
/// the mesh whatever they say. Source: spec/control-plane.md §8.6.
pub fn is_selected(selectors: &[LabelSelector], labels: Option<&Labels>) -> bool {
    let matches = |labels| selectors.iter().any(|selector| selector.matches(labels));
    selectors.is_empty() || labels.is_some_and(matches)
}

/// Action of an AuthorizationPolicy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Allow what matches; everything else is refused.
    #[default]
    Allow,
    /// Refuse what matches.
    Deny,
    /// Note what matches.
    Audit,
    /// Ask an external authorizer.
    Custom,
}

/// Target of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetRef {
    /// API group (`""` and `core` are the same and stored as `""`).
    pub group: Str,
    /// Kind.
    pub kind: Str,
    /// Name.
    pub name: Str,
    /// Namespace, if written.
    pub ns: Option<Str>,
}

/// Values and excluded values of one attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// Any of these.
    pub values: Vec<Str>,
    /// None of these.
    pub not_values: Vec<Str>,
}

impl Values {
    /// Neither list has an entry.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.not_values.is_empty()
    }
}

/// `from[].source` of an AuthorizationPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthzSource {
    /// `principals`.
    pub principals: Values,
    /// `requestPrincipals`.
    pub request_principals: Values,
    /// `namespaces`.
    pub namespaces: Values,
    /// `serviceAccounts`.
    pub service_accounts: Values,
    /// `trustDomains`.
    pub trust_domains: Values,
    /// `ipBlocks`.
    pub ip_blocks: Values,
    /// `remoteIpBlocks`.
    pub remote_ip_blocks: Values,
}

/// `to[].operation` of an AuthorizationPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthzOperation {
    /// `hosts`.
    pub hosts: Values,
    /// `ports`.
    pub ports: Values,
    /// `methods`.
    pub methods: Values,
    /// `paths`.
    pub paths: Values,
}

/// A rule of an AuthorizationPolicy: from AND to AND when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthzRule {
    /// Sources, ORed.
    pub from: Vec<AuthzSource>,
    /// Operations, ORed.
    pub to: Vec<AuthzOperation>,
    /// Conditions, ANDed: key and values.
    pub when: Vec<(Str, Values)>,
}

/// security.istio.io AuthorizationPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// `selector.matchLabels`; `None` without selector.
    pub selector: Option<Labels>,
    /// `targetRefs`, else the single `targetRef`.
    pub targets: Vec<TargetRef>,
    /// Action.
    pub action: Action,
    /// `action: CUSTOM`'s provider.
    pub provider: Option<Str>,
    /// Rules, ORed.
    pub rules: Vec<AuthzRule>,
    /// Annotation `istio.io/dry-run` parses as true.
    pub dry_run: bool,
}

/// mTLS mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MtlsMode {
    /// Inherit.
    #[default]
    Unset,
    /// Plaintext accepted; in ambient the same as permissive.
    Disable,
    /// Plaintext and mTLS accepted.
    Permissive,
    /// mTLS required.
    Strict,
}

/// security.istio.io PeerAuthentication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// `selector.matchLabels`; `None` without selector, or with an empty one.
    pub selector: Option<Labels>,
    /// `mtls.mode`.
    pub mode: MtlsMode,
    /// `portLevelMtls`.
    pub ports: BTreeMap<u16, MtlsMode>,
}

/// Resolution of a ServiceEntry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resolution {
    /// No resolution: the original destination.
    #[default]
    None,
    /// Addresses are given.
    Static,
    /// DNS.
    Dns,
    /// DNS, one address.
    DnsRoundRobin,
    /// Wildcard hosts resolved per request.
    DynamicDns,
}

/// A port of a ServiceEntry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryPort {
    /// Name.
    pub name: Str,
    /// Number.
    pub number: u16,
    /// Protocol word as written.
    pub protocol: Str,
    /// `targetPort`.
    pub target: Option<u16>,
}

/// An endpoint: inline in a ServiceEntry, or the body of a WorkloadEntry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadEntry {
    /// `address` as written; may be a host name or empty.
    pub address: Str,
    /// Port number by port name.
    pub ports: BTreeMap<Str, u16>,
    /// `labels` of the spec.
    pub labels: Labels,
    /// `network`, empty when unset.
    pub network: Str,
    /// `locality`.
    pub locality: Str,
    /// `weight`.
    pub weight: u32,
    /// `serviceAccount`.
    pub service_account: Str,
}

/// networking.istio.io ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Hosts.
    pub hosts: Vec<Str>,
    /// Addresses as written: IPs or CIDRs.
    pub addresses: Vec<Str>,
    /// Ports.
    pub ports: Vec<EntryPort>,
    /// `location: MESH_EXTERNAL` (the default).
    pub external: bool,
    /// Resolution.
    pub resolution: Resolution,
    /// Inline endpoints.
    pub endpoints: Vec<WorkloadEntry>,
    /// `workloadSelector.labels`.
    pub selector: Option<Labels>,
    /// `subjectAltNames`.
    pub subject_alt_names: Vec<Str>,
    /// `exportTo` as written; empty = the mesh default.
    pub export_to: Vec<Str>,
    /// `status.addresses`: value and host.
    pub allocated: Vec<(Str, Str)>,
}

/// An entry of `serviceScopeConfigs`: which Services other networks may reach.
/// Source: spec/workload-discovery.md §4.5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceScope {
    /// `namespaceSelector`; `None` for every namespace.
    pub namespaces: Option<LabelSelector>,
    /// `servicesSelector`; `None` for every Service.
    pub services: Option<LabelSelector>,
    /// `scope: GLOBAL`.
    pub is_global: bool,
}

impl ServiceScope {
    /// Whether it makes a Service global, by the labels of its namespace (`None` when that does
    /// not exist) and its own.
    pub fn opens(&self, namespace: Option<&Labels>, service: &Labels) -> bool {
        let selects = |selector: &Option<LabelSelector>, labels: &Labels| {
            selector.as_ref().is_none_or(|one| one.matches(labels))
        };
        self.is_global
            && namespace.is_some_and(|labels| selects(&self.namespaces, labels))
            && selects(&self.services, service)
    }
}

/// What ambientd reads of mesh config (defaults applied by [`crate::MeshRow`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshConfig {
    /// `trustDomain`.
    pub trust_domain: Option<Str>,
    /// `trustDomainAliases`.
    pub trust_domain_aliases: Vec<Str>,
    /// `rootNamespace`.
    pub root_namespace: Option<Str>,
    /// `discoverySelectors`, ORed; empty selects every namespace.
    pub discovery_selectors: Vec<LabelSelector>,
    /// `serviceScopeConfigs`; entries that cannot be read are left out.
    pub service_scopes: Option<Vec<ServiceScope>>,
    /// `serviceEntryVisibility`.
    pub entry_visibility: Option<crate::derived::EntryVisibility>,
    /// `extensionProviders`, names distinct.
    pub providers: Vec<ExtensionProvider>,
    /// `pathNormalization`.
    pub path_normalization: Option<PathNormalization>,
    /// `defaultHttpRetryPolicy`.
    pub default_retries: Option<Retries>,
    /// `connectTimeout`.
    pub connect_timeout: Option<std::time::Duration>,
    /// `tcpKeepalive`.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `h2UpgradePolicy: UPGRADE`.
    pub h2_upgrade: bool,
    /// `localityLbSetting`.
    pub locality_lb: Option<LocalityLb>,
    /// `hboneIdleTimeout`.
    pub hbone_idle_timeout: Option<std::time::Duration>,
    /// `defaultVirtualServiceExportTo`.
    pub virtual_service_export_to: Vec<Str>,
    /// `defaultDestinationRuleExportTo`.
    pub destination_rule_export_to: Vec<Str>,
    /// `defaultServiceExportTo`.
    pub service_export_to: Vec<Str>,
    /// `defaultConfig` as written: proxies that are deployed are given it.
    pub default_config: serde_json::Map<String, serde_json::Value>,
}
