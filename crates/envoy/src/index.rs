//! Index markers: how the stages of this crate look into tables.
//!
//! The owner of a table registers the markers named for it; a view without its index is a
//! programming error.

use flow::Index;
pub use gateway::index::{GrantByNamespace, ServiceByHostname, WorkloadByService};
use model::census::CensusKey;
use model::input::{
    AuthorizationPolicy, Destination, DestinationRule, HttpRoute, L4Route, RequestAuthentication,
    RouteRef, TargetRef, VirtualService,
};
use model::labels::LABEL_GATEWAY_NAME;
use model::{
    NamespacedHostname, ObjectKey, ObjectRef, Parsed, ProxyClass, ServiceRow, Str, WaypointRow,
    WorkloadRow, WorkloadUid,
};

use crate::attachment::waypoints_of;
use crate::ir::{
    AttachmentIr, ChainIr, ClassResource, ClusterIr, DirectIr, EncodedChain, ListenerIr, RoutesIr,
    WaypointResource,
};

/// What kind of object a route has as its parent, or a policy as its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetKind {
    /// core Service.
    Service,
    /// networking.istio.io ServiceEntry.
    ServiceEntry,
    /// gateway.networking.k8s.io Gateway.
    Gateway,
    /// gateway.networking.k8s.io GatewayClass.
    GatewayClass,
}

impl TargetKind {
    /// The kind of a reference, if it is one that waypoints look at.
    pub fn of(group: &str, kind: &str) -> Option<Self> {
        match (group, kind) {
            ("" | "core", "Service") => Some(Self::Service),
            ("networking.istio.io", "ServiceEntry") => Some(Self::ServiceEntry),
            ("gateway.networking.k8s.io", "Gateway") => Some(Self::Gateway),
            ("gateway.networking.k8s.io", "GatewayClass") => Some(Self::GatewayClass),
            _ => None,
        }
    }
}

/// An object that routes or policies point at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Kind.
    pub kind: TargetKind,
    /// Namespace (for a class: that of the policy) and name.
    pub key: ObjectKey,
}

impl Target {
    /// From its parts.
    pub fn new(kind: TargetKind, key: ObjectKey) -> Self {
        Self { kind, key }
    }

    /// The object that a policy of this key is attached to; `None` when it is in another
    /// namespace or of a kind that waypoints do not look at.
    pub fn of_policy(policy: &ObjectKey, target: &TargetRef) -> Option<Self> {
        let ns = target.ns.as_deref().unwrap_or_default();
        if !ns.is_empty() && ns != policy.ns {
            return None;
        }
        let kind = TargetKind::of(&target.group, &target.kind)?;
        Some(Self::new(
            kind,
            ObjectKey::new(policy.ns.clone(), target.name.clone()),
        ))
    }

    /// The object behind a service.
    pub fn of_service(service: &ServiceRow) -> Option<Self> {
        let kind = match service.source.kind.as_str() {
            "Service" => TargetKind::Service,
            "ServiceEntry" => TargetKind::ServiceEntry,
            _ => return None,
        };
        Some(Self::new(kind, service.source.key.clone()))
    }
}

/// Services by the waypoints, primary or canary, that they are bound to. For the table of [`ServiceRow`].
pub struct ServiceByWaypoint;

impl Index<NamespacedHostname, ServiceRow> for ServiceByWaypoint {
    type At = ObjectKey;
    fn keys(_: &NamespacedHostname, row: &ServiceRow, emit: &mut dyn FnMut(&ObjectKey)) {
        waypoints_of(row).for_each(emit);
    }
}

/// Services by the object behind them. For the table of [`ServiceRow`].
pub struct ServiceBySource;

impl Index<NamespacedHostname, ServiceRow> for ServiceBySource {
    type At = ObjectRef;
    fn keys(_: &NamespacedHostname, row: &ServiceRow, emit: &mut dyn FnMut(&ObjectRef)) {
        emit(&row.source);
    }
}

/// Services by the name of the object behind them, whatever its kind and namespace. For the
/// table of [`ServiceRow`].
pub struct ServiceByName;

impl Index<NamespacedHostname, ServiceRow> for ServiceByName {
    type At = str;
    fn keys(_: &NamespacedHostname, row: &ServiceRow, emit: &mut dyn FnMut(&str)) {
        emit(&row.source.key.name);
    }
}

/// Workloads by the waypoint they are bound to. For the table of [`WorkloadRow`].
pub struct WorkloadByWaypoint;

impl Index<WorkloadUid, WorkloadRow> for WorkloadByWaypoint {
    type At = ObjectKey;
    fn keys(_: &WorkloadUid, row: &WorkloadRow, emit: &mut dyn FnMut(&ObjectKey)) {
        row.waypoint.iter().for_each(|bound| emit(&bound.key));
    }
}

/// Workloads that are instances of a Gateway, by namespace; the empty one holds them all. For
/// the table of [`WorkloadRow`].
pub struct InstanceByNamespace;

impl Index<WorkloadUid, WorkloadRow> for InstanceByNamespace {
    type At = str;
    fn keys(_: &WorkloadUid, row: &WorkloadRow, emit: &mut dyn FnMut(&str)) {
        if row.labels.contains_key(LABEL_GATEWAY_NAME) {
            emit(&row.ns);
            emit("");
        }
    }
}

/// Routes by parent. For the table of HTTPRoutes.
pub struct RouteByParent;

impl Index<ObjectKey, Parsed<HttpRoute>> for RouteByParent {
    type At = Target;
    fn keys(_: &ObjectKey, row: &Parsed<HttpRoute>, emit: &mut dyn FnMut(&Target)) {
        for parent in row.ok().into_iter().flat_map(|route| &route.parents) {
            if let Some(kind) = TargetKind::of(&parent.group, &parent.kind) {
                let key = ObjectKey::new(parent.ns.clone(), parent.name.clone());
                emit(&Target::new(kind, key));
            }
        }
    }
}

/// Routes by parent. For the tables of TCPRoutes and TLSRoutes.
pub struct L4RouteByParent;

impl Index<ObjectKey, Parsed<L4Route>> for L4RouteByParent {
    type At = Target;
    fn keys(_: &ObjectKey, row: &Parsed<L4Route>, emit: &mut dyn FnMut(&Target)) {
        for parent in row.ok().into_iter().flat_map(|route| &route.parents) {
            if let Some(kind) = TargetKind::of(&parent.group, &parent.kind) {
                let key = ObjectKey::new(parent.ns.clone(), parent.name.clone());
                emit(&Target::new(kind, key));
            }
        }
    }
}

/// Routes by the objects that they send requests or connections to. For the tables of routes.
pub struct RouteByBackend;

impl Index<ObjectKey, Parsed<HttpRoute>> for RouteByBackend {
    type At = Target;
    fn keys(_: &ObjectKey, row: &Parsed<HttpRoute>, emit: &mut dyn FnMut(&Target)) {
        let rules = row.ok().into_iter().flat_map(|route| &route.rules);
        let backends = rules.flat_map(|rule| &rule.backends);
        let found = backends.filter_map(|backend| backend_object(&backend.target));
        found.for_each(|target| emit(&target));
    }
}

impl Index<ObjectKey, Parsed<L4Route>> for RouteByBackend {
    type At = Target;
    fn keys(_: &ObjectKey, row: &Parsed<L4Route>, emit: &mut dyn FnMut(&Target)) {
        let rules = row.ok().into_iter().flat_map(|route| &route.rules);
        let backends = rules.flat_map(|rule| &rule.backends);
        let found = backends.filter_map(|backend| backend_object(&backend.target));
        found.for_each(|target| emit(&target));
    }
}

fn backend_object(target: &RouteRef) -> Option<Target> {
    let kind = TargetKind::of(&target.group, &target.kind)?;
    let key = ObjectKey::new(target.ns.clone(), target.name.clone());
    Some(Target::new(kind, key))
}

/// Routes by the host names that they send requests or connections to. For the tables of
/// routes.
pub struct RouteByBackendHost;

impl Index<ObjectKey, Parsed<HttpRoute>> for RouteByBackendHost {
    type At = str;
    fn keys(_: &ObjectKey, row: &Parsed<HttpRoute>, emit: &mut dyn FnMut(&str)) {
        let rules = row.ok().into_iter().flat_map(|route| &route.rules);
        let backends = rules.flat_map(|rule| &rule.backends);
        let found = backends.filter_map(|backend| backend_host(&backend.target));
        found.for_each(emit);
    }
}

impl Index<ObjectKey, Parsed<L4Route>> for RouteByBackendHost {
    type At = str;
    fn keys(_: &ObjectKey, row: &Parsed<L4Route>, emit: &mut dyn FnMut(&str)) {
        let rules = row.ok().into_iter().flat_map(|route| &route.rules);
        let backends = rules.flat_map(|rule| &rule.backends);
        let found = backends.filter_map(|backend| backend_host(&backend.target));
        found.for_each(emit);
    }
}

fn backend_host(target: &RouteRef) -> Option<&str> {
    let kind = (target.group.as_str(), target.kind.as_str());
    (kind == ("networking.istio.io", "Hostname")).then_some(target.name.as_str())
}

/// Served workloads by namespace; the empty one holds them all. For the census.
pub struct ServedByNamespace;

impl Index<CensusKey, ()> for ServedByNamespace {
    type At = str;
    fn keys(key: &CensusKey, (): &(), emit: &mut dyn FnMut(&str)) {
        if let CensusKey::Served(served) = key {
            emit(&served.ns);
            emit("");
        }
    }
}

/// The targets of a policy, as far as they can be read.
fn targets_of<T>(row: &Parsed<T>, targets: impl Fn(&T) -> &Vec<TargetRef>) -> &[TargetRef] {
    match &row.body {
        Ok(body) => targets(body),
        Err(invalid) => &invalid.targets,
    }
}

/// Policies by target; those that cannot be read too. For the table of AuthorizationPolicies.
pub struct PolicyByTarget;

impl Index<ObjectKey, Parsed<AuthorizationPolicy>> for PolicyByTarget {
    type At = Target;
    fn keys(key: &ObjectKey, row: &Parsed<AuthorizationPolicy>, emit: &mut dyn FnMut(&Target)) {
        for target in targets_of(row, |policy| &policy.targets) {
            if let Some(target) = Target::of_policy(key, target) {
                emit(&target);
            }
        }
    }
}

/// Policies without targets by namespace, those among them that cannot be read too. For the table
/// of AuthorizationPolicies.
pub struct UntargetedPolicyByNamespace;

impl Index<ObjectKey, Parsed<AuthorizationPolicy>> for UntargetedPolicyByNamespace {
    type At = str;
    fn keys(key: &ObjectKey, row: &Parsed<AuthorizationPolicy>, emit: &mut dyn FnMut(&str)) {
        if targets_of(row, |policy| &policy.targets).is_empty() {
            emit(&key.ns);
        }
    }
}

/// RequestAuthentications by target; those that cannot be read too. For the table of RequestAuthentications.
pub struct RequestAuthenticationByTarget;

impl Index<ObjectKey, Parsed<RequestAuthentication>> for RequestAuthenticationByTarget {
    type At = Target;
    fn keys(key: &ObjectKey, row: &Parsed<RequestAuthentication>, emit: &mut dyn FnMut(&Target)) {
        for target in targets_of(row, |spec| &spec.targets) {
            if let Some(target) = Target::of_policy(key, target) {
                emit(&target);
            }
        }
    }
}

/// RequestAuthentications without targets by namespace, those among them that cannot be read too.
/// For the table of RequestAuthentications.
pub struct UntargetedAuthenticationByNamespace;

impl Index<ObjectKey, Parsed<RequestAuthentication>> for UntargetedAuthenticationByNamespace {
    type At = str;
    fn keys(key: &ObjectKey, row: &Parsed<RequestAuthentication>, emit: &mut dyn FnMut(&str)) {
        if targets_of(row, |spec| &spec.targets).is_empty() {
            emit(&key.ns);
        }
    }
}

/// RequestAuthentications by the sources of their keys. For the table of RequestAuthentications.
pub struct AuthenticationBySource;

impl Index<ObjectKey, Parsed<RequestAuthentication>> for AuthenticationBySource {
    type At = str;
    fn keys(_: &ObjectKey, row: &Parsed<RequestAuthentication>, emit: &mut dyn FnMut(&str)) {
        crate::authn::wanted::sources(row).for_each(|source| emit(&source));
    }
}

/// VirtualServices by namespace. For the table of VirtualServices.
pub struct VirtualServiceByNamespace;

impl Index<ObjectKey, Parsed<VirtualService>> for VirtualServiceByNamespace {
    type At = str;
    fn keys(key: &ObjectKey, _: &Parsed<VirtualService>, emit: &mut dyn FnMut(&str)) {
        emit(&key.ns);
    }
}

/// Waypoints by class. For the table of [`WaypointRow`].
pub struct WaypointByClass;

impl Index<ObjectKey, WaypointRow> for WaypointByClass {
    type At = str;
    fn keys(_: &ObjectKey, row: &WaypointRow, emit: &mut dyn FnMut(&str)) {
        emit(&row.class);
    }
}

/// Waypoints by name, whatever their namespace. For the table of [`WaypointRow`].
pub struct WaypointByName;

impl Index<ObjectKey, WaypointRow> for WaypointByName {
    type At = str;
    fn keys(key: &ObjectKey, _: &WaypointRow, emit: &mut dyn FnMut(&str)) {
        emit(&key.name);
    }
}

/// Waypoints by namespace. For the table of [`WaypointRow`].
pub struct WaypointByNamespace;

impl Index<ObjectKey, WaypointRow> for WaypointByNamespace {
    type At = str;
    fn keys(key: &ObjectKey, _: &WaypointRow, emit: &mut dyn FnMut(&str)) {
        emit(&key.ns);
    }
}

/// Classes of connected proxies by gateway. For the table of interest.
pub struct ClassByGateway;

impl Index<ProxyClass, ()> for ClassByGateway {
    type At = ObjectKey;
    fn keys(class: &ProxyClass, (): &(), emit: &mut dyn FnMut(&ObjectKey)) {
        emit(&class.gateway);
    }
}

/// Attached services by waypoint. For the table of [`crate::attachment`].
pub struct AttachmentByWaypoint;

impl Index<NamespacedHostname, AttachmentIr> for AttachmentByWaypoint {
    type At = ObjectKey;
    fn keys(_: &NamespacedHostname, row: &AttachmentIr, emit: &mut dyn FnMut(&ObjectKey)) {
        row.waypoints.iter().for_each(emit);
    }
}

/// Attached workloads by waypoint. For the table of [`crate::attachment::workload`].
pub struct DirectByWaypoint;

impl Index<WorkloadUid, DirectIr> for DirectByWaypoint {
    type At = ObjectKey;
    fn keys(_: &WorkloadUid, row: &DirectIr, emit: &mut dyn FnMut(&ObjectKey)) {
        emit(&row.waypoint);
    }
}

/// Route configurations by a service that they lead to. For the table of
/// [`crate::route_configs`].
pub struct RoutesByDestination;

impl Index<WaypointResource, RoutesIr> for RoutesByDestination {
    type At = NamespacedHostname;
    fn keys(_: &WaypointResource, row: &RoutesIr, emit: &mut dyn FnMut(&NamespacedHostname)) {
        row.outbound.iter().for_each(|to| emit(&to.service));
    }
}

/// Chains by a service that they themselves lead to. For the table of [`crate::chains`].
pub struct ChainByDestination;

impl Index<WaypointResource, ChainIr> for ChainByDestination {
    type At = NamespacedHostname;
    fn keys(_: &WaypointResource, row: &ChainIr, emit: &mut dyn FnMut(&NamespacedHostname)) {
        row.outbound.iter().for_each(|to| emit(&to.service));
    }
}

/// Listeners by a service that their own chains lead to. For the table of
/// [`crate::listeners`].
pub struct ListenerByDestination;

impl Index<ClassResource, ListenerIr> for ListenerByDestination {
    type At = NamespacedHostname;
    fn keys(_: &ClassResource, row: &ListenerIr, emit: &mut dyn FnMut(&NamespacedHostname)) {
        row.outbound().for_each(|to| emit(&to.service));
    }
}

/// Encoded chains by waypoint. For the table of [`crate::encoded`].
pub struct EncodedByWaypoint;

impl Index<WaypointResource, EncodedChain> for EncodedByWaypoint {
    type At = ObjectKey;
    fn keys(key: &WaypointResource, _: &EncodedChain, emit: &mut dyn FnMut(&ObjectKey)) {
        emit(&key.waypoint);
    }
}

/// Clusters by service. For the table of [`crate::clusters`].
pub struct ClusterByService;

impl Index<WaypointResource, ClusterIr> for ClusterByService {
    type At = NamespacedHostname;
    fn keys(_: &WaypointResource, row: &ClusterIr, emit: &mut dyn FnMut(&NamespacedHostname)) {
        emit(&row.service);
    }
}

/// Clusters by waypoint. For the table of [`crate::clusters`], for whoever collects the
/// resources of a class.
pub struct ClusterByWaypoint;

impl Index<WaypointResource, ClusterIr> for ClusterByWaypoint {
    type At = ObjectKey;
    fn keys(key: &WaypointResource, _: &ClusterIr, emit: &mut dyn FnMut(&ObjectKey)) {
        emit(&key.waypoint);
    }
}

/// Where a host is looked for among DestinationRules: a namespace, and what the host begins
/// with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleHost {
    /// Namespace of the rules.
    pub ns: Str,
    /// First label of the host in lower case; `*` for every wildcard.
    pub head: Str,
}

impl RuleHost {
    /// Where a rule stands.
    pub fn of(ns: &Str, host: &str) -> Self {
        let head = match host.split('.').next() {
            Some(head) if !head.starts_with('*') => Str::from(head.to_ascii_lowercase()),
            _ => arcstr::literal!("*"),
        };
        Self {
            ns: ns.clone(),
            head,
        }
    }

    /// Where the rules of a namespace for a host stand, each place once.
    pub fn all(ns: &Str, host: &str) -> impl Iterator<Item = Self> {
        let (exact, any) = (Self::of(ns, host), Self::of(ns, "*"));
        let exact = Some(exact).filter(|exact| *exact != any);
        exact.into_iter().chain([any])
    }
}

/// DestinationRules by namespace and what their host begins with, so that services read only
/// those that could be for them. For the table of DestinationRules.
pub struct DestinationRuleByHost;

impl Index<ObjectKey, Parsed<DestinationRule>> for DestinationRuleByHost {
    type At = RuleHost;
    fn keys(key: &ObjectKey, row: &Parsed<DestinationRule>, emit: &mut dyn FnMut(&RuleHost)) {
        if let Some(rule) = row.ok() {
            emit(&RuleHost::of(&key.ns, &rule.host));
        }
    }
}

/// Where the routes of a VirtualService lead, copies included.
pub(crate) fn destinations(row: &VirtualService) -> impl Iterator<Item = &Destination> {
    let http = row.http.iter().flat_map(|route| {
        let mirrors = route.mirrors.iter().map(|mirror| &mirror.destination);
        let routes = route.routes.iter().map(|to| &to.destination);
        routes.chain(mirrors)
    });
    let opaque = row.tls.iter().chain(&row.tcp);
    let opaque = opaque.flat_map(|route| route.routes.iter().map(|to| &to.destination));
    http.chain(opaque)
}

/// VirtualServices by what the hosts that they lead to begin with (see [`RuleHost::head`]). For
/// the table of VirtualServices.
pub struct VirtualServiceByDestination;

impl Index<ObjectKey, Parsed<VirtualService>> for VirtualServiceByDestination {
    type At = str;
    fn keys(key: &ObjectKey, row: &Parsed<VirtualService>, emit: &mut dyn FnMut(&str)) {
        for to in row.ok().into_iter().flat_map(destinations) {
            emit(&RuleHost::of(&key.ns, &to.host).head);
        }
    }
}
