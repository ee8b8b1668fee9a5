//! Rows that one stage derives and several later ones read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use crate::finding::ObjectRef;
use crate::gateway::GatewayController;
use crate::input::{
    AllowedNamespaces, ExtensionProvider, LabelSelector, LocalityLb, PathNormalization, Resolution,
    Retries, ServiceScope, TargetPort, TcpKeepalive, Transport,
};
use crate::names::{Kind, NamespacedHostname, ObjectKey, WorkloadUid};
use crate::object::Labels;
use crate::{FrozenMap, Str, defaults};

/// Mesh-wide settings: defaults, mesh config and the network of the system namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshRow {
    /// Trust domain.
    pub trust_domain: Str,
    /// Further trust domains that count as ours.
    pub trust_domain_aliases: Vec<Str>,
    /// Root namespace.
    pub root_namespace: Str,
    /// DNS suffix of the cluster.
    pub domain: Str,
    /// Cluster id.
    pub cluster_id: Str,
    /// Network of this cluster, empty for the default one.
    pub network: Str,
    /// `serviceEntryVisibility`; `None` when it is not configured.
    pub entry_visibility: Option<EntryVisibility>,
    /// `discoverySelectors`; see [`crate::input::is_selected`].
    pub discovery_selectors: Vec<LabelSelector>,
    /// `serviceScopeConfigs`; `None` when it is not configured, and every Service may then be
    /// reached from other networks.
    pub service_scopes: Option<Vec<ServiceScope>>,
    /// Defaults of traffic at waypoints and gateways.
    pub traffic: MeshTraffic,
    /// Switches of the installation.
    pub features: Features,
    /// Host of `defaultConfig.discoveryAddress`, by which proxies call the control plane; empty
    /// when it is not configured.
    pub discovery_host: Str,
    /// See [`crate::jwks::Jwks::nobody`]: stands in while a source has no row at all. Empty when
    /// the installation has none; then what needs it refuses everything.
    pub nobody_jwks: Str,
}

/// What mesh config says of traffic at waypoints and gateways, defaults applied.
/// Source: spec/policy-and-traffic.md §0.2, §1.8, §6.1, §7.1, §7.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshTraffic {
    /// Extension providers.
    pub providers: Vec<ExtensionProvider>,
    /// What is done to paths before anything looks at them; `None` when mesh config says nothing.
    pub path_normalization: Option<PathNormalization>,
    /// `defaultHttpRetryPolicy`; `None` = the built-in one.
    pub default_retries: Option<Retries>,
    /// `connectTimeout`, 10 s.
    pub connect_timeout: Duration,
    /// `tcpKeepalive`.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Plain HTTP ports are spoken to in HTTP/2 unless a rule says otherwise.
    pub h2_upgrade: bool,
    /// `localityLbSetting`.
    pub locality_lb: Option<LocalityLb>,
    /// Idle time of tunnels, 3600 s.
    pub hbone_idle_timeout: Duration,
    /// Default `exportTo` of VirtualServices.
    pub virtual_service_export_to: Vec<Str>,
    /// Default `exportTo` of DestinationRules.
    pub destination_rule_export_to: Vec<Str>,
    /// Default `exportTo` of Services and ServiceEntries.
    pub service_export_to: Vec<Str>,
}

impl Default for MeshTraffic {
    fn default() -> Self {
        let everybody = || vec![arcstr::literal!("*")];
        Self {
            providers: Vec::new(),
            path_normalization: None,
            default_retries: None,
            connect_timeout: Duration::from_secs(10),
            tcp_keepalive: None,
            h2_upgrade: false,
            locality_lb: None,
            hbone_idle_timeout: Duration::from_secs(3600),
            virtual_service_export_to: everybody(),
            destination_rule_export_to: everybody(),
            service_export_to: everybody(),
        }
    }
}

/// Switches of the installation that alter what is computed.
/// Source: spec/workload-discovery.md §0.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Policies marked `istio.io/dry-run` are sent to ztunnel instead of being refused there
    /// (`AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY`, off).
    pub dry_run_policies: bool,
    /// Waypoints get a policy that allows them at what is bound to them
    /// (`PILOT_AUTO_ALLOW_WAYPOINT_POLICY`, off).
    pub allow_waypoint_policies: bool,
    /// Hosts of ServiceEntries without addresses get some (`PILOT_ENABLE_IP_AUTOALLOCATE`, on).
    pub ip_autoallocate: bool,
    /// First range (network base and prefix length) of those addresses
    /// (`PILOT_IP_AUTOALLOCATE_IPV4_PREFIX`).
    pub allocation_v4: (Ipv4Addr, u8),
    /// Second range (`PILOT_IP_AUTOALLOCATE_IPV6_PREFIX`).
    pub allocation_v6: (Ipv6Addr, u8),
    /// Selectors of ServiceEntries select Pods (`PILOT_ENABLE_SERVICEENTRY_SELECT_PODS`, on).
    pub entries_select_pods: bool,
    /// Selectors of Services select WorkloadEntries
    /// (`PILOT_ENABLE_K8S_SELECT_WORKLOAD_ENTRIES`, on).
    pub services_select_entries: bool,
    /// VirtualServices and DestinationRules may claim hosts of other namespaces
    /// (`--allow-foreign-hosts`, on).
    pub foreign_hosts: bool,
    /// Several CUSTOM providers may guard one chain
    /// (`PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS`, off).
    pub many_authorizers: bool,
    /// Traffic whose waypoint cannot be used is refused instead of going directly
    /// (`--waypoint-missing=fail-closed`, off); a Namespace label may say otherwise.
    pub waypoint_missing_denies: bool,
    /// Gateways between networks are run, and proxies take traffic that comes by them
    /// (`AMBIENT_ENABLE_MULTI_NETWORK`, off).
    pub multi_network: bool,
    /// Gateways with addresses that name Services are run by their users
    /// (`ENABLE_GATEWAY_API_MANUAL_DEPLOYMENT`, on); otherwise every Gateway is deployed.
    pub manual_gateways: bool,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            dry_run_policies: false,
            allow_waypoint_policies: false,
            ip_autoallocate: true,
            allocation_v4: (Ipv4Addr::new(240, 240, 0, 0), 16),
            allocation_v6: (Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0), 48),
            entries_select_pods: true,
            services_select_entries: true,
            foreign_hosts: true,
            many_authorizers: false,
            waypoint_missing_denies: false,
            multi_network: false,
            manual_gateways: true,
        }
    }
}

/// Why the hosts of a ServiceEntry are of no use without a waypoint.
/// Source: spec/workload-discovery.md §6 (`istio.io/WaypointMissing`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NeedsWaypoint {
    /// A wildcard host: only a waypoint knows which host is meant.
    Wildcard,
    /// `istio.io/connect-strategy: RACE_FIRST_TCP_CONNECT`, which only Envoy can follow. It
    /// counts over [`Self::Wildcard`].
    RacingConnect,
}

/// Who sees the hosts of a ServiceEntry. Source: spec/workload-discovery.md §3.5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Visibility {
    /// Everybody.
    #[default]
    Public,
    /// Clients of its namespace.
    Namespace,
    /// Nobody: there is no service and no workload.
    None,
}

/// `meshConfig.serviceEntryVisibility`: the first policy that matches a namespace counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryVisibility {
    /// What counts when no policy matches.
    pub default: Visibility,
    /// Policies in order: label selectors of namespaces that must all match (none match every
    /// namespace; `None` is a matcher that is not known and matches nothing), and the outcome.
    pub policies: Vec<(Vec<Option<LabelSelector>>, Visibility)>,
}

impl Default for MeshRow {
    fn default() -> Self {
        Self {
            trust_domain: Str::from(defaults::TRUST_DOMAIN),
            trust_domain_aliases: Vec::new(),
            root_namespace: Str::from(defaults::ROOT_NAMESPACE),
            domain: Str::from(defaults::CLUSTER_DOMAIN),
            cluster_id: Str::from(defaults::CLUSTER_ID),
            network: Str::new(),
            entry_visibility: None,
            discovery_selectors: Vec::new(),
            service_scopes: None,
            traffic: MeshTraffic::default(),
            features: Features::default(),
            discovery_host: Str::new(),
            nobody_jwks: Str::new(),
        }
    }
}

/// Where a gateway is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GatewayAddress {
    /// By the name of its Service.
    Hostname(NamespacedHostname),
    /// By address on a network.
    Ip {
        /// Network.
        network: Str,
        /// Address.
        ip: IpAddr,
    },
}

/// What a waypoint accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaypointFor {
    /// Services (the default).
    Service,
    /// Pods and WorkloadEntries.
    Workload,
    /// Both.
    All,
    /// Neither.
    None,
}

impl WaypointFor {
    /// Whether Services can bind.
    pub fn services(self) -> bool {
        matches!(self, Self::Service | Self::All)
    }

    /// Whether Pods and WorkloadEntries can bind.
    pub fn workloads(self) -> bool {
        matches!(self, Self::Workload | Self::All)
    }
}

/// How a waypoint's instances take tunnelled traffic.
/// Source: spec/workload-discovery.md §4.1 (`ambient.istio.io/waypoint-inbound-binding`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InboundBinding {
    /// PROXY protocol instead of none.
    pub proxy: bool,
    /// Port, 0 when unset or unreadable.
    pub port: u16,
}

/// A Gateway that other objects can name as their waypoint.
/// Source: spec/workload-discovery.md §4.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaypointRow {
    /// The Gateway.
    pub key: ObjectKey,
    /// Its class.
    pub class: Str,
    /// Who controls the class, if we do.
    pub controller: Option<GatewayController>,
    /// It has a status address: the readiness test.
    pub ready: bool,
    /// Where it is reached; `None` when no status address is usable.
    pub address: Option<GatewayAddress>,
    /// Traffic it serves.
    pub serves: WaypointFor,
    /// Namespaces admitted by the HBONE listener.
    pub allowed: AllowedNamespaces,
    /// Name of that listener.
    pub listener: Option<Str>,
    /// Kinds of routes that it takes.
    pub takes: Vec<Kind>,
    /// Service accounts of its instances, sorted and distinct.
    pub service_accounts: Vec<Str>,
    /// How its instances take tunnelled traffic, if it says so.
    pub binding: Option<InboundBinding>,
    /// Applications are told the client's identity in `x-forwarded-client-cert`
    /// (annotation `ambient.istio.io/xfcc-include-client-identity`).
    pub forwards_identity: bool,
}

impl WaypointRow {
    /// Whether its class is one of waypoints.
    pub fn is_mesh_class(&self) -> bool {
        self.controller == Some(GatewayController::Waypoint)
    }
}

/// Layer 7 protocol of a service port. Source: spec/envoy-config.md §2.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AppProtocol {
    /// Undeclared: sniffed.
    Unknown,
    /// HTTP/1.1.
    Http,
    /// HTTP/2 without TLS.
    Http2,
    /// gRPC.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// HTTPS: opaque at a waypoint.
    Https,
    /// TLS: opaque at a waypoint.
    Tls,
    /// Opaque TCP (database protocols included).
    Tcp,
    /// Datagrams: not served.
    Udp,
}

impl AppProtocol {
    /// HTTP chains apply.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Opaque chains apply.
    pub fn is_tcp(self) -> bool {
        matches!(self, Self::Https | Self::Tls | Self::Tcp)
    }

    /// Upstream connections are HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRow {
    /// Name, empty when unset.
    pub name: Str,
    /// Service port.
    pub port: u16,
    /// Target.
    pub target: TargetPort,
    /// Transport protocol.
    pub transport: Transport,
    /// What the waypoint speaks on it.
    pub protocol: AppProtocol,
    /// What WDS says of it. Source: spec/workload-discovery.md §3.3 (the words differ from
    /// `protocol` for well-known ports and database names).
    pub wds_protocol: WdsProtocol,
}

/// `AppProtocol` of WDS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WdsProtocol {
    /// Unknown.
    #[default]
    Unknown,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// TCP.
    Tcp,
    /// TLS.
    Tls,
}

/// An address of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vip {
    /// Network.
    pub network: Str,
    /// Address (of a CIDR: its base).
    pub ip: IpAddr,
    /// Prefix length of a CIDR; `None` for a host.
    pub prefix: Option<u8>,
}

/// How endpoints are preferred. Source: spec/workload-discovery.md §3.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Distribution {
    /// Any endpoint.
    #[default]
    Any,
    /// Same zone first.
    Zone,
    /// Same node first.
    Node,
    /// Same node only.
    NodeStrict,
    /// The original destination, no choice.
    Passthrough,
}

/// A service: a Kubernetes Service, or one host of a ServiceEntry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRow {
    /// `ns/hostname`.
    pub key: NamespacedHostname,
    /// The object behind it.
    pub source: ObjectRef,
    /// Its name.
    pub name: Str,
    /// Creation time of the object, for ordering (see [`crate::Meta::created_s`]).
    pub created_s: Option<i64>,
    /// Addresses.
    pub vips: Vec<Vip>,
    /// Ports.
    pub ports: Vec<PortRow>,
    /// Selector; `None` or empty selects nothing.
    pub selector: Option<Labels>,
    /// How its host resolves (`Static` for Kubernetes Services).
    pub resolution: Resolution,
    /// A host outside the mesh.
    pub external: bool,
    /// The waypoint it is bound to, with its address; `None` = not bound.
    pub waypoint: Option<BoundWaypoint>,
    /// A destination that does not exist: the waypoint cannot be used and its traffic shall be
    /// refused (fail closed). Only without `waypoint`, or when that has no address.
    pub blocked: Option<NamespacedHostname>,
    /// Primary and canary with their weights; empty without a canary.
    pub weighted_waypoints: Vec<WeightedWaypoint>,
    /// Why it is of no use without a waypoint, bound to one or not; `None` for every Service.
    pub needs_waypoint: Option<NeedsWaypoint>,
    /// Ingress gateways go through the waypoint too.
    pub ingress_use_waypoint: bool,
    /// Who sees it.
    pub visibility: Visibility,
    /// Endpoint preference.
    pub distribution: Distribution,
    /// Endpoints that are not ready count too.
    pub publish_not_ready: bool,
    /// Sessions stick to their endpoints (label `istio.io/persistent-session`), so those that
    /// leave are still announced.
    pub persistent_session: bool,
    /// IP families as written.
    pub ip_families: Vec<Str>,
    /// SANs expected of its endpoints.
    pub subject_alt_names: Vec<Str>,
    /// Namespaces whose proxies see it (`.`, `*`, names), the mesh default applied. ztunnel does
    /// not look at it.
    pub export_to: Vec<Str>,
    /// The canonical one of its host name.
    pub canonical: bool,
    /// No service of another namespace with this host name comes before it: a Service before
    /// ServiceEntries, and the older before the younger, whoever sees them.
    pub first_of_host: bool,
    /// Other networks may reach it through gateways between networks. Never without the switch
    /// [`Features::multi_network`]. Source: spec/workload-discovery.md §4.5.
    pub is_global: bool,
}

impl ServiceRow {
    /// The host as it stands in names of chains and clusters. They have no room for namespaces,
    /// so of several services with one host name all but the first add theirs: nobody may take
    /// the place of somebody else's service at a waypoint that both use.
    pub fn wire_host(&self) -> Str {
        if self.first_of_host {
            self.key.hostname.clone()
        } else {
            arcstr::format!("{}~{}", self.key.hostname, self.key.ns)
        }
    }
}

/// A resolved attachment to a waypoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoundWaypoint {
    /// The Gateway.
    pub key: ObjectKey,
    /// Where it is reached; `None` when it has no usable address.
    pub address: Option<GatewayAddress>,
}

/// One of several waypoints that share the traffic of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WeightedWaypoint {
    /// The waypoint.
    pub bound: BoundWaypoint,
    /// Its share, 0 to 100.
    pub weight: u32,
}

/// A gateway that leads to another network. Source: spec/workload-discovery.md §4.5.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkGateway {
    /// Where it is reached.
    pub address: GatewayAddress,
    /// Its HBONE port.
    pub port: u16,
}

/// A port mapping of a workload in a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortMap {
    /// Port of the service.
    pub service_port: u16,
    /// Port of the workload.
    pub target_port: u16,
}

/// The services of a workload, with its port mappings in each.
pub type Memberships = FrozenMap<NamespacedHostname, Vec<PortMap>>;

/// Region, zone and subzone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    /// Region.
    pub region: Str,
    /// Zone.
    pub zone: Str,
    /// Subzone.
    pub subzone: Str,
}

/// A workload: a Pod, WorkloadEntry, ServiceEntry endpoint or EndpointSlice endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadRow {
    /// Resource name.
    pub uid: WorkloadUid,
    /// Name.
    pub name: Str,
    /// Namespace.
    pub ns: Str,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Host name where the address is not an IP.
    pub hostname: Str,
    /// Network.
    pub network: Str,
    /// Reached over HBONE.
    pub hbone: bool,
    /// Terminates HBONE itself.
    pub native_tunnel: bool,
    /// Trust domain, empty when it is `cluster.local`.
    pub trust_domain: Str,
    /// Service account.
    pub service_account: Str,
    /// Waypoint of pod-IP traffic. In a box, as other rare things: most workloads have none.
    pub waypoint: Option<Box<BoundWaypoint>>,
    /// As [`ServiceRow::blocked`].
    pub blocked: Option<NamespacedHostname>,
    /// The gateway of its network.
    pub network_gateway: Option<Box<NetworkGateway>>,
    /// How it takes tunnelled traffic, when it is an instance of a waypoint that says so.
    pub application_tunnel: Option<InboundBinding>,
    /// Node.
    pub node: Str,
    /// Canonical name.
    pub canonical_name: Str,
    /// Canonical revision.
    pub canonical_revision: Str,
    /// Name of the owning workload.
    pub workload_name: Str,
    /// `authorization_policies`: resource names in the order of spec/workload-discovery.md §5.5.
    pub policies: Vec<Str>,
    /// Ready and not terminating.
    pub healthy: bool,
    /// Deletion has begun.
    pub terminating: bool,
    /// Uses the network of its node.
    pub host_network: bool,
    /// Not a Pod: WorkloadType as WDS wants it is DEPLOYMENT (0) instead of POD.
    pub is_slice_endpoint: bool,
    /// Locality.
    pub locality: Arc<Locality>,
    /// Weight, 0 when unset.
    pub capacity: u32,
    /// Cluster id.
    pub cluster_id: Str,
    /// Memberships.
    pub services: Memberships,
    /// Labels, for subsets and findings.
    pub labels: Labels,
}

/// Where an L4 policy applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyScope {
    /// Every workload.
    Global,
    /// Workloads of its namespace.
    Namespace,
    /// Workloads that list it.
    Selector,
}

/// An Authorization resource: an AuthorizationPolicy, or a PeerAuthentication in its converted form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationRow {
    /// Resource name `ns/name`.
    pub key: ObjectKey,
    /// Scope.
    pub scope: PolicyScope,
    /// Refuses what matches (else allows it).
    pub deny: bool,
    /// Evaluated but not enforced.
    pub dry_run: bool,
    /// Groups ORed → rules ANDed → matches ORed.
    pub groups: Vec<Vec<Vec<L4Match>>>,
}

/// A string condition of WDS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringCondition {
    /// Equal.
    Exact(Str),
    /// Starts with.
    Prefix(Str),
    /// Ends with.
    Suffix(Str),
    /// Any non-empty value.
    Presence,
}

/// One match: its kinds are ANDed, the values of a kind ORed, every `not` must match nothing.
/// A match without any field never matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct L4Match {
    /// Source namespaces.
    pub namespaces: Vec<StringCondition>,
    /// Excluded source namespaces.
    pub not_namespaces: Vec<StringCondition>,
    /// Source principals, without scheme.
    pub principals: Vec<StringCondition>,
    /// Excluded principals.
    pub not_principals: Vec<StringCondition>,
    /// Source accounts: namespace, name.
    pub service_accounts: Vec<(Str, Str)>,
    /// Excluded accounts.
    pub not_service_accounts: Vec<(Str, Str)>,
    /// Source addresses: base as written and prefix length.
    pub source_ips: Vec<(IpAddr, u8)>,
    /// Excluded source addresses.
    pub not_source_ips: Vec<(IpAddr, u8)>,
    /// Destination addresses.
    pub destination_ips: Vec<(IpAddr, u8)>,
    /// Excluded destination addresses.
    pub not_destination_ips: Vec<(IpAddr, u8)>,
    /// Destination ports.
    pub destination_ports: Vec<u16>,
    /// Excluded destination ports.
    pub not_destination_ports: Vec<u16>,
}

/// What identity checks must know of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFact {
    /// Kubernetes uid, empty in files that give none.
    pub uid: Str,
    /// Its service account.
    pub service_account: Str,
    /// Its node, empty when it is not scheduled.
    pub node: Str,
    /// The Gateway that it is a proxy of, in its own namespace.
    pub gateway: Option<Str>,
}
