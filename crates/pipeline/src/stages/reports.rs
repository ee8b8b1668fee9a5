//! What is said of the configuration and nothing served depends on: findings of their own stages,
//! the status of objects, and the notes of every stage.

use ambient::attach::AttachView;
use ambient::claim::ServiceSource;
use ambient::status;
use ambient::status::allocation::AllocationStatusView;
use ambient::status::policy::PolicyStatusView;
use ambient::status::service::ServiceStatusView;
use ambient::status::workload_entry::WorkloadEntryStatusView;
use envoy::findings;
use envoy::findings::destination_rule::DestinationRuleFindingView;
use envoy::findings::policy::PolicyFindingView;
use envoy::findings::rejected::RejectedView;
use envoy::findings::request_authentication::RequestAuthenticationFindingView;
use envoy::findings::route::RouteFindingView;
use envoy::findings::service::ServiceFindingView;
use envoy::findings::virtual_service::VirtualServiceFindingView;
use envoy::findings::waypoint::WaypointFindingView;
use envoy::status as envoy_status;
use envoy::status::backend_tls::BackendTlsStatusView;
use envoy::status::route::RouteStatusView;
use flow::{Changes, Dirty, Touched};
use gateway::deployments::{self, DeploymentView};
use gateway::status as gateway_status;
use gateway::status::StatusTables;
use gateway::status::gateway::GatewayStatusView;
use gateway::status::gateway_class::GatewayClassStatusView;
use gateway::status::listener_set::ListenerSetStatusView;
use model::status::{StatusKey, StatusRow};
use model::{DeploymentRow, Finding, Kind, NamespacedHostname, ObjectKey, ServiceRow};

use super::Stages;
use super::proxies::route_tables;
use crate::inputs::{InputChanges, Inputs};

impl Stages {
    /// What of routes, policies, services and waypoints does not do what it says.
    pub(super) fn update_findings(
        &mut self,
        inputs: &Inputs,
        changed: &InputChanges,
        services: &Changes<NamespacedHostname, ServiceRow>,
        touched: &mut Touched,
    ) {
        let mesh = self.mesh.view();
        let waypoints = self.waypoints.view();
        let tables = route_tables(&self.services, inputs);
        let routes = RouteFindingView {
            tables,
            route_parents: self.route_parents.view(),
            waypoints,
            gateways: self.gateways.view(),
            backend_tls: self.backend_tls.view(),
            mesh,
        };
        update!(
            touched,
            self.virtual_service_findings,
            changed.virtual_services.keys().cloned(),
            findings::virtual_service::derive,
            VirtualServiceFindingView {
                tables,
                waypoints,
                gateways: inputs.gateways.view(),
                mesh,
            }
        );
        update!(
            touched,
            self.route_findings,
            changed.http_routes.keys().cloned(),
            findings::route::derive,
            routes
        );
        update!(
            touched,
            self.grpc_route_findings,
            changed.grpc_routes.keys().cloned(),
            findings::route::derive_grpc,
            routes
        );
        update!(
            touched,
            self.tcp_route_findings,
            changed.tcp_routes.keys().cloned(),
            findings::l4_route::derive_tcp,
            routes
        );
        update!(
            touched,
            self.tls_route_findings,
            changed.tls_routes.keys().cloned(),
            findings::l4_route::derive_tls,
            routes
        );
        update!(
            touched,
            self.policy_findings,
            changed.authorization_policies.keys().cloned(),
            findings::policy::derive,
            PolicyFindingView {
                policies: inputs.authorization_policies.view(),
                service_objects: inputs.services.view(),
                services: self.services.view(),
                workloads: self.workloads.view(),
                waypoints,
                gateways: self.gateways.view(),
                census: self.census.view(),
                http_routes: inputs.http_routes.view(),
                grpc_routes: inputs.grpc_routes.view(),
                tcp_routes: inputs.tcp_routes.view(),
                tls_routes: inputs.tls_routes.view(),
                authentications: inputs.request_authentications.view(),
                mesh,
            }
        );
        update!(
            touched,
            self.rejected,
            changed.rejections.keys().cloned(),
            findings::rejected::derive,
            RejectedView {
                rejections: inputs.rejections.view(),
                route_configs: self.route_configs.view(),
                clusters: self.clusters.view(),
            }
        );
        update!(
            touched,
            self.authentication_findings,
            changed.request_authentications.keys().cloned(),
            findings::request_authentication::derive,
            RequestAuthenticationFindingView {
                authentications: inputs.request_authentications.view(),
                policies: inputs.authorization_policies.view(),
                services: self.services.view(),
                waypoints,
                gateways: self.gateways.view(),
                workloads: self.workloads.view(),
                jwks: inputs.jwks.view(),
                mesh,
            }
        );
        update!(
            touched,
            self.destination_rule_findings,
            changed.destination_rules.keys().cloned(),
            findings::destination_rule::derive,
            DestinationRuleFindingView {
                destination_rules: inputs.destination_rules.view(),
                services: self.services.view(),
                workloads: self.workloads.view(),
                http_routes: inputs.http_routes.view(),
                grpc_routes: inputs.grpc_routes.view(),
                virtual_services: inputs.virtual_services.view(),
                materials: self.materials.view(),
                mesh,
            }
        );
        update!(
            touched,
            self.service_findings,
            services.keys().cloned(),
            findings::service::derive,
            ServiceFindingView {
                services: self.services.view(),
                workloads: self.workloads.view(),
                policies: inputs.authorization_policies.view(),
                mesh: self.mesh.view(),
                census: self.census.view(),
            }
        );
        update!(
            touched,
            self.waypoint_findings,
            changed.gateways.keys().cloned(),
            findings::waypoint::derive,
            WaypointFindingView {
                waypoints,
                services: self.services.view(),
                workloads: self.workloads.view(),
                http_routes: inputs.http_routes.view(),
                policies: inputs.authorization_policies.view(),
            }
        );
    }

    /// What belongs into the status of objects; nothing that is served depends on it.
    pub(super) fn update_statuses(
        &mut self,
        inputs: &Inputs,
        changed: &InputChanges,
        touched: &mut Touched,
    ) -> Vec<Changes<StatusKey, StatusRow>> {
        let mesh = self.mesh.view();
        let waypoints = self.waypoints.view();
        let services = changed.services.keys().cloned();
        let entries = changed.service_entries.keys().cloned();
        let of_services = update!(
            touched,
            self.service_statuses,
            services
                .map(ServiceSource::Service)
                .chain(entries.map(ServiceSource::ServiceEntry)),
            status::service::derive,
            ServiceStatusView {
                services: inputs.services.view(),
                service_entries: inputs.service_entries.view(),
                claims: self.claims.view(),
                hosts: self.services.view(),
                namespace_bindings: self.namespace_bindings.view(),
                mesh,
            }
        );
        let of_workload_entries = update!(
            touched,
            self.workload_entry_statuses,
            changed.workload_entries.keys().cloned(),
            status::workload_entry::derive,
            WorkloadEntryStatusView {
                workload_entries: inputs.workload_entries.view(),
                attach: AttachView {
                    mesh,
                    waypoints,
                    namespaces: inputs.namespaces.view(),
                    namespace_bindings: self.namespace_bindings.view(),
                },
            }
        );
        let of_policies = update!(
            touched,
            self.policy_statuses,
            changed.authorization_policies.keys().cloned(),
            status::policy::derive,
            PolicyStatusView {
                policies: inputs.authorization_policies.view(),
                gateway_classes: inputs.gateway_classes.view(),
                services: self.services.view(),
                waypoints,
                mesh,
            }
        );
        let of_allocations = update!(
            touched,
            self.allocation_statuses,
            changed.service_entries.keys().cloned(),
            status::allocation::derive,
            AllocationStatusView {
                service_entries: inputs.service_entries.view(),
                allocations: self.allocations.view(),
            }
        );
        let of_attachments = self.update_attachment_statuses(inputs, changed, touched);
        let ambient = [
            of_services,
            of_workload_entries,
            of_policies,
            of_allocations,
        ];
        ambient.into_iter().chain(of_attachments).collect()
    }

    /// What Gateways run as, which only its writer reads.
    pub(super) fn update_deployments(
        &mut self,
        inputs: &Inputs,
        changed: &InputChanges,
        touched: &mut Touched,
    ) -> Changes<ObjectKey, DeploymentRow> {
        update!(
            touched,
            self.deployments,
            changed.gateways.keys().cloned(),
            deployments::derive,
            DeploymentView {
                settings: self.deployment.as_ref(),
                gateways: inputs.gateways.view(),
                rows: self.gateways.view(),
                config_maps: inputs.config_maps.view(),
                mesh_configs: inputs.mesh_configs.view(),
                mesh: self.mesh.view(),
                revisions: self.ownership.view(),
                namespaces: inputs.namespaces.view(),
            }
        )
    }

    /// The status of routes and Gateways.
    fn update_attachment_statuses(
        &mut self,
        inputs: &Inputs,
        changed: &InputChanges,
        touched: &mut Touched,
    ) -> [Changes<StatusKey, StatusRow>; 5] {
        let mesh = self.mesh.view();
        let waypoints = self.waypoints.view();
        let tables = route_tables(&self.services, inputs);
        let of_routes = update!(
            touched,
            self.route_statuses,
            changed_routes(changed),
            envoy_status::route::derive,
            RouteStatusView {
                tables,
                route_parents: self.route_parents.view(),
                waypoints,
                gateway_classes: inputs.gateway_classes.view(),
                revisions: self.ownership.view(),
                mesh,
            }
        );
        let of_backend_tls = update!(
            touched,
            self.backend_tls_statuses,
            changed.backend_tls_policies.keys().cloned(),
            envoy_status::backend_tls::derive,
            BackendTlsStatusView {
                policies: inputs.backend_tls_policies.view(),
                rows: self.backend_tls.view(),
                tables,
                gateways: self.gateways.view(),
                revisions: self.ownership.view(),
                namespaces: inputs.namespaces.view(),
            }
        );
        let tables = StatusTables {
            rows: self.gateways.view(),
            route_parents: self.route_parents.view(),
            services: self.services.view(),
            service_objects: inputs.services.view(),
            revisions: self.ownership.view(),
            namespaces: inputs.namespaces.view(),
            workloads: self.workloads.view(),
        };
        let of_gateways = update!(
            touched,
            self.gateway_statuses,
            changed.gateways.keys().cloned(),
            gateway_status::gateway::derive,
            GatewayStatusView {
                gateways: inputs.gateways.view(),
                tables,
            }
        );
        let of_classes = update!(
            touched,
            self.gateway_class_statuses,
            changed.gateway_classes.keys().cloned(),
            gateway_status::gateway_class::derive,
            GatewayClassStatusView {
                gateway_classes: inputs.gateway_classes.view(),
                mesh: self.mesh.view(),
            }
        );
        let of_sets = update!(
            touched,
            self.listener_set_statuses,
            changed.listener_sets.keys().cloned(),
            gateway_status::listener_set::derive,
            ListenerSetStatusView {
                listener_sets: inputs.listener_sets.view(),
                tables,
            }
        );
        [of_routes, of_gateways, of_classes, of_sets, of_backend_tls]
    }
}

/// Kind and key of every route that changed.
pub(super) fn changed_routes(
    changed: &InputChanges,
) -> impl Iterator<Item = (Kind, ObjectKey)> + '_ {
    let of = |kind: Kind| move |key: &ObjectKey| (kind, key.clone());
    (changed.http_routes.keys().map(of(Kind::HttpRoute)))
        .chain(changed.grpc_routes.keys().map(of(Kind::GrpcRoute)))
        .chain(changed.tcp_routes.keys().map(of(Kind::TcpRoute)))
        .chain(changed.tls_routes.keys().map(of(Kind::TlsRoute)))
}

macro_rules! notes {
    ($($stage:ident),+ $(,)?) => {
        impl Stages {
            pub(super) fn notes_changed(&mut self) -> bool {
                let now = 0 $(+ self.$stage.notes_generation())+;
                std::mem::replace(&mut self.notes_seen, now) != now
            }

            /// How many times all stages together derived a primary so far.
            pub(crate) fn run_count(&self) -> u64 {
                0 $(+ self.$stage.run_count())+
            }

            /// Appends every stage's notes.
            pub(crate) fn collect_notes<'a>(&'a self, out: &mut Vec<&'a Finding>) {
                $(for (_, notes) in self.$stage.notes() { out.extend(notes); })+
            }
        }
    };
}

notes!(
    mesh,
    ownership,
    foreign_gateways,
    node_localities,
    network_gateways,
    waypoints,
    gateways,
    route_parents,
    namespace_bindings,
    allocation_claims,
    allocations,
    claims,
    services,
    peer_bindings,
    policy_bindings,
    authorizations,
    pod_links,
    workloads,
    census,
    attachments,
    directs,
    chains,
    encoded,
    route_configs,
    ingress_routes,
    ingress_hosts,
    ingress_configs,
    clusters,
    endpoints,
    local_endpoints,
    listeners,
    static_clusters,
    jwks_wanted,
    grants,
    materials,
    route_findings,
    grpc_route_findings,
    tcp_route_findings,
    tls_route_findings,
    virtual_service_findings,
    policy_findings,
    destination_rule_findings,
    authentication_findings,
    rejected,
    service_findings,
    waypoint_findings,
    service_statuses,
    workload_entry_statuses,
    policy_statuses,
    allocation_statuses,
    route_statuses,
    gateway_statuses,
    gateway_class_statuses,
    listener_set_statuses,
    backend_tls,
    backend_tls_statuses,
    deployments,
);
