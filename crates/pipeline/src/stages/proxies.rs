//! What proxies of Envoy are sent, from which service, route or Gateway it comes.

use std::sync::Arc;

use envoy::attachment::{self, AttachmentView};
use envoy::backend_tls::{self, BackendTlsView};
use envoy::chains::{self, ChainView, PolicyTables};
use envoy::clusters::{self, ClusterView};
use envoy::east_west::crossings::{self, CrossingView};
use envoy::encoded::{self, EncodedView};
use envoy::endpoints::{self, EndpointView};
use envoy::ingress::IngressTables;
use envoy::ingress::hosts::{self, HostView};
use envoy::ingress::index::hosts_of;
use envoy::ingress::route_configs::{self as ingress_configs, IngressConfigView};
use envoy::ingress::routes::{self as ingress_routes, IngressRouteView};
use envoy::ir::{
    ClassResource, ClusterIr, EncodedRoutes, EndpointsIr, ListenerIr, RoutesIr, StaticClusterIr,
    WaypointResource,
};
use envoy::listeners::{self, ListenerView};
use envoy::local_endpoints::{self, LocalEndpointView};
use envoy::route_configs::{self, RouteConfigView, RouteTables};
use envoy::static_clusters::{self, StaticClusterView};
use flow::{Changes, Dirty, Touched};
use model::gateway::RouteParents;
use model::{
    GatewayRow, Kind, NamespacedHostname, ObjectKey, ServiceRow, WorkloadRow, WorkloadUid,
};

use super::{Stage, Stages};
use crate::inputs::{InputChanges, Inputs};

/// What changed of that from which it comes.
pub(super) struct Origins<'c> {
    pub(super) services: &'c Changes<NamespacedHostname, ServiceRow>,
    pub(super) workloads: &'c Changes<WorkloadUid, WorkloadRow>,
    pub(super) gateways: &'c Changes<ObjectKey, GatewayRow>,
    pub(super) parents: &'c Changes<(Kind, ObjectKey), RouteParents>,
}

/// What of it changed.
pub(crate) struct ProxyChanges {
    pub(crate) route_configs: Changes<WaypointResource, RoutesIr>,
    pub(crate) ingress_configs: Changes<WaypointResource, EncodedRoutes>,
    pub(crate) listeners: Changes<ClassResource, ListenerIr>,
    pub(crate) clusters: Changes<WaypointResource, ClusterIr>,
    pub(crate) endpoints: Changes<WaypointResource, EndpointsIr>,
    pub(crate) local_endpoints: Changes<ClassResource, EndpointsIr>,
    pub(crate) static_clusters: Changes<ClassResource, StaticClusterIr>,
}

impl Stages {
    /// Nothing is made for Gateways without a proxy that is connected.
    pub(super) fn update_proxies(
        &mut self,
        inputs: &Inputs,
        changed: &InputChanges,
        origins: &Origins<'_>,
        touched: &mut Touched,
    ) -> ProxyChanges {
        let Origins {
            services,
            workloads,
            gateways,
            parents,
        } = *origins;
        let mesh = self.mesh.view();
        let waypoints = self.waypoints.view();
        let proxies = inputs.proxies.view();
        update!(
            touched,
            self.attachments,
            services.keys().cloned(),
            attachment::derive,
            AttachmentView {
                services: self.services.view(),
                mesh,
                proxies
            }
        );
        update!(
            touched,
            self.directs,
            may_be_direct(workloads),
            attachment::workload::derive,
            attachment::workload::DirectView {
                workloads: self.workloads.view(),
                proxies
            }
        );
        update!(
            touched,
            self.crossings,
            services.keys().cloned(),
            crossings::derive,
            CrossingView {
                services: self.services.view(),
                gateways: self.gateways.view(),
                proxies
            }
        );
        let policies = PolicyTables {
            policies: inputs.authorization_policies.view(),
            authentications: inputs.request_authentications.view(),
            jwks: inputs.jwks.view(),
            services: self.services.view(),
        };
        let tables = route_tables(&self.services, inputs);
        let chain_changes = update!(
            touched,
            self.chains,
            services.keys().cloned(),
            chains::derive,
            ChainView {
                services: self.services.view(),
                waypoints,
                policies,
                tables,
                mesh,
                crossings: self.crossings.view(),
                gateways: self.gateways.view(),
                proxies,
            }
        );
        update!(
            touched,
            self.encoded,
            chain_changes.keys().cloned(),
            encoded::derive,
            EncodedView {
                chains: self.chains.view(),
                proxies,
            }
        );
        let route_configs = update!(
            touched,
            self.route_configs,
            services.keys().cloned(),
            route_configs::derive,
            RouteConfigView {
                tables,
                waypoints,
                mesh,
                proxies,
            }
        );
        update!(
            touched,
            self.ingress_routes,
            parents.keys().cloned(),
            ingress_routes::derive,
            IngressRouteView {
                route_parents: self.route_parents.view(),
                gateways: self.gateways.view(),
                tables,
                mesh,
                proxies,
            }
        );
        let now = parents.rows().iter().filter_map(|one| one.new.as_deref());
        update!(
            touched,
            self.ingress_hosts,
            now.flat_map(hosts_of),
            hosts::derive,
            HostView {
                route_parents: self.route_parents.view(),
                gateways: self.gateways.view(),
                routes: self.ingress_routes.view(),
                proxies,
            }
        );
        let served = changed.proxies.keys().map(|class| class.gateway.clone());
        let ingress_configs = update!(
            touched,
            self.ingress_configs,
            gateways.keys().cloned().chain(served),
            ingress_configs::derive,
            IngressConfigView {
                gateways: self.gateways.view(),
                services: self.services.view(),
                workloads: self.workloads.view(),
                hosts: self.ingress_hosts.view(),
                proxies,
            }
        );
        let listeners = update!(
            touched,
            self.listeners,
            changed.proxies.keys().cloned(),
            listeners::derive,
            ListenerView {
                proxies,
                mesh,
                waypoints,
                policies,
                attachments: self.attachments.view(),
                directs: self.directs.view(),
                encoded: self.encoded.view(),
                ingress: IngressTables {
                    gateways: self.gateways.view(),
                    services: self.services.view(),
                    workloads: self.workloads.view(),
                    route_parents: self.route_parents.view(),
                    routes: self.ingress_routes.view(),
                },
                crossings: self.crossings.view(),
            }
        );
        update!(
            touched,
            self.backend_tls,
            changed.backend_tls_policies.keys().cloned(),
            backend_tls::derive,
            BackendTlsView {
                policies: inputs.backend_tls_policies.view(),
                config_maps: inputs.config_maps.view(),
                services: self.services.view(),
                destination_rules: inputs.destination_rules.view(),
                mesh,
            }
        );
        let clusters = update!(
            touched,
            self.clusters,
            services.keys().cloned(),
            clusters::derive,
            ClusterView {
                services: self.services.view(),
                workloads: self.workloads.view(),
                chains: self.chains.view(),
                route_configs: self.route_configs.view(),
                listeners: self.listeners.view(),
                ingress_routes: self.ingress_routes.view(),
                gateways: self.gateways.view(),
                backend_tls: self.backend_tls.view(),
                destination_rules: inputs.destination_rules.view(),
                mesh,
                crossings: self.crossings.view(),
                proxies,
            }
        );
        let endpoints = update!(
            touched,
            self.endpoints,
            services.keys().cloned(),
            endpoints::derive,
            EndpointView {
                services: self.services.view(),
                workloads: self.workloads.view(),
                clusters: self.clusters.view(),
                gateways: self.gateways.view(),
                mesh,
            }
        );
        let local_endpoints = update!(
            touched,
            self.local_endpoints,
            services.keys().cloned(),
            local_endpoints::derive,
            LocalEndpointView {
                services: self.services.view(),
                workloads: self.workloads.view(),
                clusters: self.clusters.view(),
                proxies,
                mesh,
            }
        );
        let static_clusters = update!(
            touched,
            self.static_clusters,
            changed.proxies.keys().cloned(),
            static_clusters::derive,
            StaticClusterView {
                proxies,
                waypoints,
                gateways: self.gateways.view(),
                mesh
            }
        );
        ProxyChanges {
            route_configs,
            ingress_configs,
            listeners,
            clusters,
            endpoints,
            local_endpoints,
            static_clusters,
        }
    }
}

/// What routes are read from.
pub(super) fn route_tables<'t>(
    services: &'t Stage<NamespacedHostname, NamespacedHostname, ServiceRow>,
    inputs: &'t Inputs,
) -> RouteTables<'t> {
    RouteTables {
        services: services.view(),
        http_routes: inputs.http_routes.view(),
        grpc_routes: inputs.grpc_routes.view(),
        tcp_routes: inputs.tcp_routes.view(),
        tls_routes: inputs.tls_routes.view(),
        reference_grants: inputs.reference_grants.view(),
        namespaces: inputs.namespaces.view(),
        virtual_services: inputs.virtual_services.view(),
        destination_rules: inputs.destination_rules.view(),
    }
}

/// Changed workloads that a waypoint may be in front of, or was: the others yield nothing,
/// whatever else changes.
fn may_be_direct(
    workloads: &Changes<WorkloadUid, WorkloadRow>,
) -> impl Iterator<Item = WorkloadUid> + '_ {
    let is_bound = |row: &Arc<WorkloadRow>| row.waypoint.is_some();
    let rows = workloads.rows().iter();
    rows.filter(move |change| change.old.iter().chain(&change.new).any(is_bound))
        .map(|change| change.key.clone())
}
