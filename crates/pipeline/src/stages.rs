//! All derived tables and their order.

use std::sync::Arc;

use ambient::allocation::{
    self, AllocationClaim, AllocationClaimView, AllocationRow, AllocationView,
};
use ambient::attach::AttachView;
use ambient::authorization::{self, AuthorizationSource, AuthorizationView};
use ambient::census::{
    self, AccountsByNamespace, CensusKey, CensusView, Profile, ServedByPlace, WorkloadsByProfile,
};
use ambient::claim::{self, ClaimKey, ClaimRow, ClaimView, ServiceSource};
use ambient::mesh::{self, MeshDefaults, MeshView};
use ambient::namespace_binding::{self, NamespaceBinding, NamespaceBindingView};
use ambient::network_gateway::{self, GatewaysByNetwork, NetworkGatewayRow, NetworkGatewayView};
use ambient::node_locality::{self, NodeLocalityView};
use ambient::ownership::gateway::ForeignGatewayView;
use ambient::ownership::{self, OwnershipView};
use ambient::peer_binding::{self, PeerBinding, PeerBindingView};
use ambient::pod_link::{self, PodLink, PodLinkKey, PodLinkView};
use ambient::policy_binding::{self, PolicyBinding, PolicyBindingView};
use ambient::service::{self, ServiceView};
use ambient::status;
use ambient::waypoint::{self, WaypointView};
use ambient::workload::{self, WorkloadSource, WorkloadView};
use envoy::authn::wanted::{self, JwksWantedView};
use envoy::backend_tls::{BackendTlsByService, BackendTlsRow};
use envoy::credentials::{GrantByAuthority, GrantByCertificate, GrantByConfigMap};
use envoy::east_west::index::AllCrossings;
use envoy::index::WorkloadByService;
use envoy::ingress::index::{HostByListener, RouteAtByDestination, RouteByHost};
use envoy::ir::{
    AttachmentIr, ChainIr, ClassResource, ClusterIr, CrossingIr, DirectIr, EncodedChain,
    EncodedRoutes, EndpointsIr, HostAt, HostIr, ListenerIr, RouteAt, RouteAtIr, RoutesIr,
    StaticClusterIr, WaypointResource,
};
use flow::{Changes, Derived, Dirty, Reads, Touched};
use gateway::deployment::Settings as DeploymentSettings;
use gateway::gateways::{self, GatewayView};
use gateway::index::{GatewayByListenerSet, GatewayByTarget, RouteByGateway, RouteByListener};
use gateway::route_parents::{self, RouteParentView};
use model::derived::Locality;
use model::gateway::RouteParents;
use model::jwks::Wanted;
use model::ownership::Revisions;
use model::secret::{CredentialGrants, Material, MaterialKey};
use model::status::{StatusKey, StatusRow};
use model::{
    AuthorizationRow, DeploymentRow, Finding, GatewayRow, Kind, MeshRow, NamespacedHostname,
    ObjectKey, ProxyClass, ServiceRow, Str, WaypointRow, WorkloadRow, WorkloadUid,
};

use crate::inputs::{InputChanges, Inputs};
use credentials::CredentialChanges;
use proxies::Origins;

pub(crate) use proxies::ProxyChanges;

/// Updates one stage: its primaries plus whatever read something touched; what it changes
/// is touched for the stages after it.
macro_rules! update {
    ($touched:ident, $stage:expr, $primaries:expr, $derive:path, $view:expr $(,)?) => {{
        let mut dirty: Dirty<_> = $primaries.collect();
        $stage.touched_by(&mut dirty, &$touched);
        let changes = {
            let view = $view;
            $stage.update(dirty, |primary, reads| $derive(primary, &view, reads))
        };
        $touched.add(&changes);
        changes
    }};
}

mod credentials;
mod proxies;
mod reports;

type Stage<P, K, V> = Derived<P, K, V, Finding>;

/// The derived tables, in the order in which they are updated.
pub(crate) struct Stages {
    defaults: MeshDefaults,
    deployment: Option<DeploymentSettings>,
    started: bool,
    notes_seen: u64,
    mesh: Stage<(), (), MeshRow>,
    ownership: Stage<(), (), Revisions>,
    foreign_gateways: Stage<ObjectKey, ObjectKey, ()>,
    node_localities: Stage<ObjectKey, ObjectKey, Locality>,
    network_gateways: Stage<ObjectKey, ObjectKey, NetworkGatewayRow>,
    waypoints: Stage<ObjectKey, ObjectKey, WaypointRow>,
    gateways: Stage<ObjectKey, ObjectKey, GatewayRow>,
    route_parents: Stage<(Kind, ObjectKey), (Kind, ObjectKey), RouteParents>,
    namespace_bindings: Stage<ObjectKey, ObjectKey, NamespaceBinding>,
    allocation_claims: Stage<ObjectKey, ObjectKey, AllocationClaim>,
    allocations: Stage<(), ObjectKey, AllocationRow>,
    claims: Stage<ServiceSource, ClaimKey, ClaimRow>,
    pub(crate) services: Stage<NamespacedHostname, NamespacedHostname, ServiceRow>,
    peer_bindings: Stage<ObjectKey, ObjectKey, PeerBinding>,
    policy_bindings: Stage<ObjectKey, ObjectKey, PolicyBinding>,
    pub(crate) authorizations: Stage<AuthorizationSource, ObjectKey, AuthorizationRow>,
    pod_links: Stage<ObjectKey, PodLinkKey, PodLink>,
    pub(crate) workloads: Stage<WorkloadSource, WorkloadUid, WorkloadRow>,
    census: Stage<Profile, CensusKey, ()>,
    attachments: Stage<NamespacedHostname, NamespacedHostname, AttachmentIr>,
    directs: Stage<WorkloadUid, WorkloadUid, DirectIr>,
    crossings: Stage<NamespacedHostname, NamespacedHostname, CrossingIr>,
    chains: Stage<NamespacedHostname, WaypointResource, ChainIr>,
    encoded: Stage<WaypointResource, WaypointResource, EncodedChain>,
    pub(crate) route_configs: Stage<NamespacedHostname, WaypointResource, RoutesIr>,
    ingress_routes: Stage<(Kind, ObjectKey), RouteAt, RouteAtIr>,
    ingress_hosts: Stage<HostAt, HostAt, HostIr>,
    ingress_configs: Stage<ObjectKey, WaypointResource, EncodedRoutes>,
    backend_tls: Stage<ObjectKey, ObjectKey, BackendTlsRow>,
    pub(crate) clusters: Stage<NamespacedHostname, WaypointResource, ClusterIr>,
    pub(crate) endpoints: Stage<NamespacedHostname, WaypointResource, EndpointsIr>,
    pub(crate) local_endpoints: Stage<NamespacedHostname, ClassResource, EndpointsIr>,
    pub(crate) listeners: Stage<ProxyClass, ClassResource, ListenerIr>,
    pub(crate) static_clusters: Stage<ProxyClass, ClassResource, StaticClusterIr>,
    jwks_wanted: Stage<Str, Str, Wanted>,
    grants: Stage<ObjectKey, ObjectKey, CredentialGrants>,
    materials: Stage<MaterialKey, MaterialKey, Material>,
    route_findings: Stage<ObjectKey, (), ()>,
    grpc_route_findings: Stage<ObjectKey, (), ()>,
    tcp_route_findings: Stage<ObjectKey, (), ()>,
    tls_route_findings: Stage<ObjectKey, (), ()>,
    virtual_service_findings: Stage<ObjectKey, (), ()>,
    policy_findings: Stage<ObjectKey, (), ()>,
    destination_rule_findings: Stage<ObjectKey, (), ()>,
    authentication_findings: Stage<ObjectKey, (), ()>,
    rejected: Stage<ProxyClass, (), ()>,
    service_findings: Stage<NamespacedHostname, (), ()>,
    waypoint_findings: Stage<ObjectKey, (), ()>,
    service_statuses: Stage<ServiceSource, StatusKey, StatusRow>,
    workload_entry_statuses: Stage<ObjectKey, StatusKey, StatusRow>,
    policy_statuses: Stage<ObjectKey, StatusKey, StatusRow>,
    allocation_statuses: Stage<ObjectKey, StatusKey, StatusRow>,
    route_statuses: Stage<(Kind, ObjectKey), StatusKey, StatusRow>,
    gateway_statuses: Stage<ObjectKey, StatusKey, StatusRow>,
    gateway_class_statuses: Stage<ObjectKey, StatusKey, StatusRow>,
    listener_set_statuses: Stage<ObjectKey, StatusKey, StatusRow>,
    backend_tls_statuses: Stage<ObjectKey, StatusKey, StatusRow>,
    deployments: Stage<ObjectKey, ObjectKey, DeploymentRow>,
}

/// What of the derived tables is encoded, and whether notes changed.
pub(crate) struct DerivedChanges {
    pub(crate) services: Changes<NamespacedHostname, ServiceRow>,
    pub(crate) workloads: Changes<WorkloadUid, WorkloadRow>,
    pub(crate) authorizations: Changes<ObjectKey, AuthorizationRow>,
    pub(crate) proxies: ProxyChanges,
    pub(crate) credentials: CredentialChanges,
    /// Classes of which proxies came, or of which the last one left.
    pub(crate) classes: Vec<(ProxyClass, bool)>,
    pub(crate) statuses: Vec<Changes<StatusKey, StatusRow>>,
    pub(crate) deployments: Changes<ObjectKey, DeploymentRow>,
    pub(crate) jwks_wanted: Changes<Str, Wanted>,
    pub(crate) waypoints: Changes<ObjectKey, WaypointRow>,
    pub(crate) mesh: Changes<(), MeshRow>,
    pub(crate) revisions: Changes<(), Revisions>,
    pub(crate) foreign_gateways: Changes<ObjectKey, ()>,
    pub(crate) notes: bool,
}

impl Stages {
    pub(crate) fn new(defaults: MeshDefaults) -> Self {
        use envoy::index as at;
        let deployment = DeploymentSettings {
            revision: defaults.revision.clone(),
            system_namespace: defaults.system_namespace.clone(),
            ..DeploymentSettings::default()
        };
        Self {
            defaults,
            deployment: Some(deployment),
            started: false,
            notes_seen: 0,
            mesh: Derived::new("mesh"),
            ownership: Derived::new("ownership"),
            foreign_gateways: Derived::new("foreign_gateways"),
            node_localities: Derived::new("node_localities"),
            network_gateways: Derived::new("network_gateways").with_index::<GatewaysByNetwork>(),
            waypoints: Derived::new("waypoints")
                .with_index::<at::WaypointByClass>()
                .with_index::<at::WaypointByName>()
                .with_index::<at::WaypointByNamespace>(),
            gateways: Derived::new("gateways")
                .with_index::<GatewayByListenerSet>()
                .with_index::<GatewayByTarget>(),
            route_parents: Derived::new("route_parents")
                .with_index::<RouteByListener>()
                .with_index::<RouteByHost>()
                .with_index::<RouteByGateway>(),
            namespace_bindings: Derived::new("namespace_bindings"),
            allocation_claims: Derived::new("allocation_claims"),
            allocations: Derived::new("allocations"),
            claims: Derived::new("claims")
                .with_index::<claim::ClaimsByHost>()
                .with_index::<claim::ClaimsByHostname>(),
            services: Derived::new("services")
                .with_index::<service::ServicesBySelector>()
                .with_index::<status::ServicesBySource>()
                .with_index::<at::ServiceByWaypoint>()
                .with_index::<at::ServiceBySource>()
                .with_index::<at::ServiceByName>()
                .with_index::<at::ServiceByHostname>(),
            peer_bindings: Derived::new("peer_bindings")
                .with_index::<peer_binding::PeersBySelector>(),
            policy_bindings: Derived::new("policy_bindings")
                .with_index::<policy_binding::PoliciesBySelector>()
                .with_index::<policy_binding::PeerPoliciesByNamespace>(),
            authorizations: Derived::new("authorizations"),
            pod_links: Derived::new("pod_links").with_index::<pod_link::LinksByPod>(),
            workloads: Derived::new("workloads")
                .with_index::<at::WorkloadByService>()
                .with_index::<at::WorkloadByWaypoint>()
                .with_index::<at::InstanceByNamespace>()
                .with_index::<WorkloadsByProfile>(),
            census: Derived::new("census")
                .with_index::<ServedByPlace>()
                .with_index::<AccountsByNamespace>()
                .with_index::<at::ServedByNamespace>(),
            attachments: Derived::new("attachments").with_index::<at::AttachmentByWaypoint>(),
            directs: Derived::new("directs").with_index::<at::DirectByWaypoint>(),
            crossings: Derived::new("crossings").with_index::<AllCrossings>(),
            chains: Derived::new("chains").with_index::<at::ChainByDestination>(),
            encoded: Derived::new("encoded").with_index::<at::EncodedByWaypoint>(),
            route_configs: Derived::new("route_configs").with_index::<at::RoutesByDestination>(),
            ingress_routes: Derived::new("ingress_routes").with_index::<RouteAtByDestination>(),
            ingress_hosts: Derived::new("ingress_hosts").with_index::<HostByListener>(),
            ingress_configs: Derived::new("ingress_configs"),
            backend_tls: Derived::new("backend_tls").with_index::<BackendTlsByService>(),
            clusters: Derived::new("clusters")
                .with_index::<at::ClusterByService>()
                .with_index::<at::ClusterByWaypoint>(),
            endpoints: Derived::new("endpoints"),
            local_endpoints: Derived::new("local_endpoints"),
            listeners: Derived::new("listeners").with_index::<at::ListenerByDestination>(),
            static_clusters: Derived::new("static_clusters"),
            jwks_wanted: Derived::new("jwks_wanted"),
            grants: Derived::new("grants")
                .with_index::<GrantByCertificate>()
                .with_index::<GrantByAuthority>()
                .with_index::<GrantByConfigMap>(),
            materials: Derived::new("materials"),
            route_findings: Derived::new("route_findings"),
            grpc_route_findings: Derived::new("grpc_route_findings"),
            tcp_route_findings: Derived::new("tcp_route_findings"),
            tls_route_findings: Derived::new("tls_route_findings"),
            virtual_service_findings: Derived::new("virtual_service_findings"),
            policy_findings: Derived::new("policy_findings"),
            destination_rule_findings: Derived::new("destination_rule_findings"),
            authentication_findings: Derived::new("authentication_findings"),
            rejected: Derived::new("rejected"),
            service_findings: Derived::new("service_findings"),
            waypoint_findings: Derived::new("waypoint_findings"),
            service_statuses: Derived::new("service_statuses"),
            workload_entry_statuses: Derived::new("workload_entry_statuses"),
            policy_statuses: Derived::new("policy_statuses"),
            allocation_statuses: Derived::new("allocation_statuses"),
            route_statuses: Derived::new("route_statuses"),
            gateway_statuses: Derived::new("gateway_statuses"),
            gateway_class_statuses: Derived::new("gateway_class_statuses"),
            listener_set_statuses: Derived::new("listener_set_statuses"),
            backend_tls_statuses: Derived::new("backend_tls_statuses"),
            deployments: Derived::new("deployments"),
        }
    }

    /// What the configuration says of deployed proxies; `None` where none are.
    pub(crate) fn set_deployments(&mut self, settings: Option<DeploymentSettings>) {
        self.deployment = settings;
    }

    /// The mesh row in force.
    pub(crate) fn mesh_row(&self) -> MeshRow {
        self.mesh
            .table()
            .row(&())
            .map(|row| MeshRow::clone(row))
            .unwrap_or_default()
    }

    /// What this control plane owns.
    pub(crate) fn revisions(&self) -> Revisions {
        let row = self.ownership.table().row(&());
        row.map(|row| Revisions::clone(row)).unwrap_or_default()
    }

    /// The workloads of a service.
    pub(crate) fn members(
        &self,
        host: &NamespacedHostname,
    ) -> impl Iterator<Item = (WorkloadUid, Arc<WorkloadRow>)> {
        // Encoding is not a derivation: it is told of every change, so nothing need be recorded.
        let members = self
            .workloads
            .view()
            .by::<WorkloadByService>(&mut Reads::detached(), host);
        members.map(|(uid, row)| (uid.clone(), Arc::clone(row)))
    }

    /// Every stage, top to bottom. Reading it is reading the architecture.
    pub(crate) fn update(
        &mut self,
        inputs: &Inputs,
        changed: &InputChanges,
        mut touched: Touched,
    ) -> DerivedChanges {
        let first = !std::mem::replace(&mut self.started, true);
        let mesh_changes = update!(
            touched,
            self.mesh,
            first.then_some(()).into_iter(),
            mesh::derive,
            MeshView {
                defaults: &self.defaults,
                mesh_configs: inputs.mesh_configs.view(),
                namespaces: inputs.namespaces.view(),
            }
        );
        let revisions = update!(
            touched,
            self.ownership,
            first.then_some(()).into_iter(),
            ownership::derive,
            OwnershipView {
                defaults: &self.defaults,
                mutating_webhooks: inputs.mutating_webhooks.view(),
                validating_webhooks: inputs.validating_webhooks.view(),
                services: inputs.services.view(),
            }
        );
        let mesh = self.mesh.view();
        update!(
            touched,
            self.node_localities,
            changed.nodes.keys().cloned(),
            node_locality::derive,
            NodeLocalityView {
                nodes: inputs.nodes.view()
            }
        );
        let network_gateways = update!(
            touched,
            self.network_gateways,
            changed.gateways.keys().cloned(),
            network_gateway::derive,
            NetworkGatewayView {
                gateways: inputs.gateways.view(),
                gateway_classes: inputs.gateway_classes.view(),
            }
        );
        let waypoint_changes = update!(
            touched,
            self.waypoints,
            changed.gateways.keys().cloned(),
            waypoint::derive,
            WaypointView {
                gateways: inputs.gateways.view(),
                gateway_classes: inputs.gateway_classes.view(),
                pods: inputs.pods.view(),
                mesh,
            }
        );
        let waypoints = self.waypoints.view();
        let gateways = update!(
            touched,
            self.gateways,
            changed.gateways.keys().cloned(),
            gateways::derive,
            GatewayView {
                gateways: inputs.gateways.view(),
                gateway_classes: inputs.gateway_classes.view(),
                listener_sets: inputs.listener_sets.view(),
                reference_grants: inputs.reference_grants.view(),
                secrets: inputs.secrets.view(),
                config_maps: inputs.config_maps.view(),
                namespaces: inputs.namespaces.view(),
                mesh,
            }
        );
        let parents = update!(
            touched,
            self.route_parents,
            reports::changed_routes(changed),
            route_parents::derive,
            RouteParentView {
                http_routes: inputs.http_routes.view(),
                grpc_routes: inputs.grpc_routes.view(),
                tcp_routes: inputs.tcp_routes.view(),
                tls_routes: inputs.tls_routes.view(),
                gateways: self.gateways.view(),
                waypoints,
                namespaces: inputs.namespaces.view(),
            }
        );
        let foreign_gateways = update!(
            touched,
            self.foreign_gateways,
            changed.gateways.keys().cloned(),
            ownership::gateway::derive,
            ForeignGatewayView {
                revisions: self.ownership.view(),
                gateways: inputs.gateways.view(),
                namespaces: inputs.namespaces.view(),
                waypoints,
            }
        );
        update!(
            touched,
            self.namespace_bindings,
            changed.namespaces.keys().cloned(),
            namespace_binding::derive,
            NamespaceBindingView {
                mesh,
                namespaces: inputs.namespaces.view(),
                waypoints,
            }
        );
        let attach = AttachView {
            mesh,
            waypoints,
            namespaces: inputs.namespaces.view(),
            namespace_bindings: self.namespace_bindings.view(),
        };
        update!(
            touched,
            self.allocation_claims,
            changed.service_entries.keys().cloned(),
            allocation::claim,
            AllocationClaimView {
                service_entries: inputs.service_entries.view(),
                mesh,
            }
        );
        update!(
            touched,
            self.allocations,
            first.then_some(()).into_iter(),
            allocation::derive,
            AllocationView {
                claims: self.allocation_claims.view(),
                mesh,
            }
        );
        let service_sources = changed
            .services
            .keys()
            .cloned()
            .map(ServiceSource::Service)
            .chain(
                changed
                    .service_entries
                    .keys()
                    .cloned()
                    .map(ServiceSource::ServiceEntry),
            );
        let claimed = update!(
            touched,
            self.claims,
            service_sources,
            claim::derive,
            ClaimView {
                services: inputs.services.view(),
                service_entries: inputs.service_entries.view(),
                mesh,
                attach,
            }
        );
        let services = update!(
            touched,
            self.services,
            claimed.keys().map(|(host, _)| host.clone()),
            service::derive,
            ServiceView {
                claims: self.claims.view(),
                services: inputs.services.view(),
                service_entries: inputs.service_entries.view(),
                allocations: self.allocations.view(),
                mesh,
            }
        );
        update!(
            touched,
            self.peer_bindings,
            changed.peer_authentications.keys().cloned(),
            peer_binding::derive,
            PeerBindingView {
                peers: inputs.peer_authentications.view()
            }
        );
        update!(
            touched,
            self.policy_bindings,
            changed.authorization_policies.keys().cloned(),
            policy_binding::derive,
            PolicyBindingView {
                policies: inputs.authorization_policies.view(),
                mesh,
            }
        );
        update!(
            touched,
            self.pod_links,
            changed.endpoint_slices.keys().cloned(),
            pod_link::derive,
            PodLinkView {
                endpoint_slices: inputs.endpoint_slices.view(),
                services: self.services.view(),
                mesh,
            }
        );
        let workload_sources = changed
            .pods
            .keys()
            .cloned()
            .map(WorkloadSource::Pod)
            .chain(
                changed
                    .workload_entries
                    .keys()
                    .cloned()
                    .map(WorkloadSource::WorkloadEntry),
            )
            .chain(
                changed
                    .service_entries
                    .keys()
                    .cloned()
                    .map(WorkloadSource::ServiceEntry),
            )
            .chain(
                changed
                    .endpoint_slices
                    .keys()
                    .cloned()
                    .map(WorkloadSource::EndpointSlice),
            )
            .chain(
                network_gateways
                    .keys()
                    .cloned()
                    .map(WorkloadSource::NetworkGateway),
            );
        let workloads = update!(
            touched,
            self.workloads,
            workload_sources,
            workload::derive,
            WorkloadView {
                mesh,
                pods: inputs.pods.view(),
                workload_entries: inputs.workload_entries.view(),
                service_entries: inputs.service_entries.view(),
                endpoint_slices: inputs.endpoint_slices.view(),
                node_localities: self.node_localities.view(),
                network_gateways: self.network_gateways.view(),
                services: self.services.view(),
                pod_links: self.pod_links.view(),
                attach,
                policy_bindings: self.policy_bindings.view(),
                peer_bindings: self.peer_bindings.view(),
            }
        );
        update!(
            touched,
            self.census,
            Profile::changed(&workloads),
            census::derive,
            CensusView {
                workloads: self.workloads.view(),
                services: self.services.view(),
            }
        );
        let policy_sources = first
            .then_some(AuthorizationSource::Static)
            .into_iter()
            .chain(
                changed
                    .peer_authentications
                    .keys()
                    .cloned()
                    .map(AuthorizationSource::Peer),
            )
            .chain(
                changed
                    .authorization_policies
                    .keys()
                    .cloned()
                    .map(AuthorizationSource::Policy),
            )
            .chain(
                waypoint_changes
                    .keys()
                    .cloned()
                    .map(AuthorizationSource::Waypoint),
            );
        let authorizations = update!(
            touched,
            self.authorizations,
            policy_sources,
            authorization::derive,
            AuthorizationView {
                policies: inputs.authorization_policies.view(),
                peers: inputs.peer_authentications.view(),
                peer_bindings: self.peer_bindings.view(),
                mesh,
                namespaces: inputs.namespaces.view(),
                census: self.census.view(),
                services: self.services.view(),
                waypoints,
            }
        );
        let proxies = self.update_proxies(
            inputs,
            changed,
            &Origins {
                services: &services,
                workloads: &workloads,
                gateways: &gateways,
                parents: &parents,
            },
            &mut touched,
        );
        let jwks_wanted = update!(
            touched,
            self.jwks_wanted,
            named_sources(changed),
            wanted::derive,
            JwksWantedView {
                authentications: inputs.request_authentications.view()
            }
        );
        let credentials = self.update_credentials(inputs, changed, &gateways, &mut touched);
        self.update_findings(inputs, changed, &services, &mut touched);
        let statuses = self.update_statuses(inputs, changed, &mut touched);
        let deployments = self.update_deployments(inputs, changed, &mut touched);
        let classes = changed
            .proxies
            .rows()
            .iter()
            .map(|change| (change.key.clone(), change.new.is_some()))
            .collect();
        let notes = self.notes_changed();
        DerivedChanges {
            services,
            workloads,
            authorizations,
            proxies,
            credentials,
            classes,
            statuses,
            deployments,
            jwks_wanted,
            waypoints: waypoint_changes,
            mesh: mesh_changes,
            revisions,
            foreign_gateways,
            notes,
        }
    }
}

/// Sources of keys that changed RequestAuthentications name now; those that they named before
/// are touched.
fn named_sources(changed: &InputChanges) -> impl Iterator<Item = Str> + '_ {
    let rows = changed.request_authentications.rows().iter();
    rows.filter_map(|change| change.new.as_deref())
        .flat_map(wanted::sources)
}
