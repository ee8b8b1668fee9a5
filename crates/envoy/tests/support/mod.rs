//! A small world that runs every stage once, as the pipeline does.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::sync::Arc;

use ambientd_envoy as envoy;
use envoy::backend_tls::{BackendTlsByService, BackendTlsRow};
use envoy::emit::{self, Resource};
use envoy::ir::{
    AttachmentIr, ChainIr, ClassResource, ClusterIr, DirectIr, EncodedChain, EndpointsIr,
    ListenerIr, RouteAt, RouteAtIr, RoutesIr, StaticClusterIr, WaypointResource,
};
use envoy::{
    attachment, chains, clusters, encoded, endpoints, findings, index, listeners, route_configs,
    static_clusters,
};
use flow::{Derived, Key, Row, Table};
use model::census::{CensusKey, Served};
use model::derived::{AppProtocol, BoundWaypoint, PortMap, PortRow, Vip, WaypointFor, WdsProtocol};
use model::gateway::RouteParents;
use model::input::{
    AllowedNamespaces, AuthorizationPolicy, BackendRef, DestinationRule, GrpcRoute, HttpMatch,
    HttpRoute, HttpRule, Namespace, PathMatch, ReferenceGrant, RequestAuthentication, Resolution,
    RouteRef, Service, TargetPort, TargetRef, TcpRoute, TlsRoute, Transport, VirtualService,
};
use model::{
    Finding, FrozenMap, GatewayRow, Kind, MeshRow, Meta, NamespacedHostname, ObjectKey, ObjectRef,
    Parsed, ProxyClass, ServiceRow, Str, WaypointRow, WorkloadRow, WorkloadUid,
};

/// Input tables.
pub struct World {
    pub services: BTreeMap<NamespacedHostname, ServiceRow>,
    pub workloads: BTreeMap<WorkloadUid, WorkloadRow>,
    pub waypoints: BTreeMap<ObjectKey, WaypointRow>,
    pub http_routes: BTreeMap<ObjectKey, Parsed<HttpRoute>>,
    pub grpc_routes: BTreeMap<ObjectKey, Parsed<GrpcRoute>>,
    pub tcp_routes: BTreeMap<ObjectKey, Parsed<TcpRoute>>,
    pub tls_routes: BTreeMap<ObjectKey, Parsed<TlsRoute>>,
    pub policies: BTreeMap<ObjectKey, Parsed<AuthorizationPolicy>>,
    pub destination_rules: BTreeMap<ObjectKey, Parsed<DestinationRule>>,
    pub virtual_services: BTreeMap<ObjectKey, Parsed<VirtualService>>,
    pub reference_grants: BTreeMap<ObjectKey, Parsed<ReferenceGrant>>,
    pub namespaces: BTreeMap<ObjectKey, Parsed<Namespace>>,
    pub mesh: MeshRow,
    pub proxies: Vec<ProxyClass>,
}

/// What the stages made of it.
pub struct Derivation {
    pub attachments: BTreeMap<NamespacedHostname, AttachmentIr>,
    pub chains: BTreeMap<WaypointResource, ChainIr>,
    pub routes: BTreeMap<WaypointResource, RoutesIr>,
    pub clusters: BTreeMap<WaypointResource, ClusterIr>,
    pub endpoints: BTreeMap<WaypointResource, EndpointsIr>,
    pub listeners: BTreeMap<ClassResource, ListenerIr>,
    pub static_clusters: BTreeMap<ClassResource, StaticClusterIr>,
    pub findings: Vec<Finding>,
}

/// Resources of one class.
pub struct Resources {
    pub clusters: Vec<Resource>,
    pub endpoints: Vec<Resource>,
    pub listeners: Vec<Resource>,
    pub routes: Vec<Resource>,
}

fn fill<K: Key, V: Row + Clone>(mut table: Table<K, V>, rows: &BTreeMap<K, V>) -> Table<K, V> {
    table.commit(
        rows.iter()
            .map(|(key, row)| (key.clone(), Some(Arc::new(row.clone())))),
    );
    table
}

fn rows<P: Key, K: Key, V: Row + Clone>(derived: &Derived<P, K, V, Finding>) -> BTreeMap<K, V> {
    derived
        .table()
        .iter()
        .map(|(key, row)| (key.clone(), (**row).clone()))
        .collect()
}

fn notes<P: Key, K: Key, V: Row>(derived: &Derived<P, K, V, Finding>) -> Vec<Finding> {
    derived
        .notes()
        .flat_map(|(_, notes)| notes.to_vec())
        .collect()
}

macro_rules! stage {
    ($derived:expr, $table:expr, $derive:path, $view:expr) => {{
        let mut derived = $derived;
        let view = $view;
        let dirty = $table.iter().map(|(key, _)| key.clone()).collect();
        derived.update(dirty, |p, reads| $derive(p, &view, reads));
        derived
    }};
}

impl World {
    /// A mesh with one ready waypoint `app/wp` and one connected proxy of it.
    pub fn new() -> Self {
        let key = waypoint_key();
        Self {
            services: BTreeMap::new(),
            workloads: BTreeMap::new(),
            waypoints: BTreeMap::from([(key.clone(), waypoint(&key))]),
            http_routes: BTreeMap::new(),
            grpc_routes: BTreeMap::new(),
            tcp_routes: BTreeMap::new(),
            tls_routes: BTreeMap::new(),
            policies: BTreeMap::new(),
            destination_rules: BTreeMap::new(),
            virtual_services: BTreeMap::new(),
            reference_grants: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            mesh: MeshRow::default(),
            proxies: vec![ProxyClass::waypoint(key)],
        }
    }

    pub fn service(&mut self, row: ServiceRow) -> &mut Self {
        self.services.insert(row.key.clone(), row);
        self
    }

    pub fn workload(&mut self, row: WorkloadRow) -> &mut Self {
        self.workloads.insert(row.uid.clone(), row);
        self
    }

    pub fn route(&mut self, key: &ObjectKey, route: HttpRoute) -> &mut Self {
        self.http_routes.insert(key.clone(), parsed(key, route));
        self
    }

    pub fn policy(&mut self, key: &ObjectKey, policy: AuthorizationPolicy) -> &mut Self {
        self.policies.insert(key.clone(), parsed(key, policy));
        self
    }

    /// Runs every stage.
    pub fn derive(&self) -> Derivation {
        use index as i;
        let services = fill(
            Table::new("services")
                .with_index::<i::ServiceByWaypoint>()
                .with_index::<i::ServiceBySource>()
                .with_index::<i::ServiceByName>()
                .with_index::<i::ServiceByHostname>(),
            &self.services,
        );
        let workloads = fill(
            Table::new("workloads")
                .with_index::<i::WorkloadByService>()
                .with_index::<i::WorkloadByWaypoint>()
                .with_index::<i::InstanceByNamespace>(),
            &self.workloads,
        );
        let waypoints = fill(
            Table::new("waypoints")
                .with_index::<i::WaypointByClass>()
                .with_index::<i::WaypointByName>()
                .with_index::<i::WaypointByNamespace>(),
            &self.waypoints,
        );
        let service_objects = Table::<ObjectKey, Parsed<Service>>::new("service-objects");
        let http_routes = fill(
            Table::new("routes")
                .with_index::<i::RouteByParent>()
                .with_index::<i::RouteByBackend>()
                .with_index::<i::RouteByBackendHost>(),
            &self.http_routes,
        );
        let served = self.workloads.values().filter(|row| row.hbone).map(|row| {
            let served = Served {
                ns: row.ns.clone(),
                labels: row.labels.clone(),
                waypoints: Vec::new(),
            };
            (CensusKey::Served(served), ())
        });
        let captured = self.workloads.values();
        let captured = captured.map(|row| (CensusKey::Captured(row.hbone), ()));
        let census = fill(
            Table::new("census").with_index::<i::ServedByNamespace>(),
            &served.chain(captured).collect(),
        );
        let policies = fill(
            Table::new("policies")
                .with_index::<i::PolicyByTarget>()
                .with_index::<i::UntargetedPolicyByNamespace>(),
            &self.policies,
        );
        let reference_grants = fill(
            Table::new("grants").with_index::<i::GrantByNamespace>(),
            &self.reference_grants,
        );
        let destination_rules = fill(
            Table::new("destination-rules").with_index::<i::DestinationRuleByHost>(),
            &self.destination_rules,
        );
        let namespaces = fill(Table::new("namespaces"), &self.namespaces);
        let virtual_services = fill(
            Table::new("virtual-services")
                .with_index::<i::VirtualServiceByNamespace>()
                .with_index::<i::VirtualServiceByDestination>(),
            &self.virtual_services,
        );
        let grpc_routes = fill(
            Table::new("grpc-routes")
                .with_index::<i::RouteByParent>()
                .with_index::<i::RouteByBackend>()
                .with_index::<i::RouteByBackendHost>(),
            &self.grpc_routes,
        );
        let tcp_routes = fill(
            Table::new("tcp-routes")
                .with_index::<i::L4RouteByParent>()
                .with_index::<i::RouteByBackend>()
                .with_index::<i::RouteByBackendHost>(),
            &self.tcp_routes,
        );
        let tls_routes = fill(
            Table::new("tls-routes")
                .with_index::<i::L4RouteByParent>()
                .with_index::<i::RouteByBackend>()
                .with_index::<i::RouteByBackendHost>(),
            &self.tls_routes,
        );
        let tables = route_configs::RouteTables {
            services: services.view(),
            http_routes: http_routes.view(),
            grpc_routes: grpc_routes.view(),
            tcp_routes: tcp_routes.view(),
            tls_routes: tls_routes.view(),
            reference_grants: reference_grants.view(),
            namespaces: namespaces.view(),
            virtual_services: virtual_services.view(),
            destination_rules: destination_rules.view(),
        };
        let authentications = Table::<ObjectKey, Parsed<RequestAuthentication>>::new("authn")
            .with_index::<i::RequestAuthenticationByTarget>()
            .with_index::<i::UntargetedAuthenticationByNamespace>();
        let jwks = Table::<Str, model::jwks::Jwks>::new("jwks");
        let policy_tables = chains::PolicyTables {
            policies: policies.view(),
            authentications: authentications.view(),
            jwks: jwks.view(),
            services: services.view(),
        };
        let mesh = fill(
            Table::new("mesh"),
            &BTreeMap::from([((), self.mesh.clone())]),
        );
        let classes = self
            .proxies
            .iter()
            .map(|class| (class.clone(), ()))
            .collect();
        let proxies = fill(
            Table::new("proxies")
                .with_index::<i::ClassByGateway>()
                .with_index::<envoy::east_west::index::ClassByRole>(),
            &classes,
        );

        // Without ingress gateways and those between networks: scenarios are about those.
        let gateways = Table::<ObjectKey, GatewayRow>::new("gateways")
            .with_index::<gateway::index::GatewayByTarget>();
        let crossings = Table::<NamespacedHostname, envoy::ir::CrossingIr>::new("crossings")
            .with_index::<envoy::east_west::index::AllCrossings>();
        let backend_tls = Table::<ObjectKey, BackendTlsRow>::new("backend-tls")
            .with_index::<BackendTlsByService>();
        let route_parents = Table::<(Kind, ObjectKey), RouteParents>::new("route-parents")
            .with_index::<gateway::index::RouteByListener>();
        let ingress_routes = Table::<RouteAt, RouteAtIr>::new("ingress-routes")
            .with_index::<envoy::ingress::index::RouteAtByDestination>();

        let attachments = stage!(
            Derived::new("attachment").with_index::<i::AttachmentByWaypoint>(),
            services,
            attachment::derive,
            attachment::AttachmentView {
                services: services.view(),
                mesh: mesh.view(),
                proxies: proxies.view()
            }
        );
        let directs: Derived<_, _, DirectIr, _> = stage!(
            Derived::new("direct").with_index::<i::DirectByWaypoint>(),
            workloads,
            attachment::workload::derive,
            attachment::workload::DirectView {
                workloads: workloads.view(),
                proxies: proxies.view()
            }
        );
        let chains = stage!(
            Derived::new("chains").with_index::<i::ChainByDestination>(),
            services,
            chains::derive,
            chains::ChainView {
                services: services.view(),
                waypoints: waypoints.view(),
                policies: policy_tables,
                tables,
                mesh: mesh.view(),
                crossings: crossings.view(),
                gateways: gateways.view(),
                proxies: proxies.view(),
            }
        );
        let route_configs = stage!(
            Derived::new("routes").with_index::<i::RoutesByDestination>(),
            services,
            route_configs::derive,
            route_configs::RouteConfigView {
                tables,
                waypoints: waypoints.view(),
                mesh: mesh.view(),
                proxies: proxies.view(),
            }
        );
        let encoded: Derived<_, _, EncodedChain, _> = stage!(
            Derived::new("encoded").with_index::<i::EncodedByWaypoint>(),
            chains.table(),
            encoded::derive,
            encoded::EncodedView {
                chains: chains.view(),
                proxies: proxies.view(),
            }
        );
        let listeners = stage!(
            Derived::new("listeners").with_index::<i::ListenerByDestination>(),
            proxies,
            listeners::derive,
            listeners::ListenerView {
                proxies: proxies.view(),
                mesh: mesh.view(),
                waypoints: waypoints.view(),
                policies: policy_tables,
                attachments: attachments.view(),
                directs: directs.view(),
                encoded: encoded.view(),
                ingress: envoy::ingress::IngressTables {
                    gateways: gateways.view(),
                    services: services.view(),
                    workloads: workloads.view(),
                    route_parents: route_parents.view(),
                    routes: ingress_routes.view(),
                },
                crossings: crossings.view(),
            }
        );
        let clusters = stage!(
            Derived::new("clusters").with_index::<i::ClusterByService>(),
            services,
            clusters::derive,
            clusters::ClusterView {
                services: services.view(),
                workloads: workloads.view(),
                chains: chains.view(),
                route_configs: route_configs.view(),
                listeners: listeners.view(),
                ingress_routes: ingress_routes.view(),
                gateways: gateways.view(),
                backend_tls: backend_tls.view(),
                destination_rules: destination_rules.view(),
                mesh: mesh.view(),
                crossings: crossings.view(),
                proxies: proxies.view(),
            }
        );
        let endpoints = stage!(
            Derived::new("endpoints"),
            services,
            endpoints::derive,
            endpoints::EndpointView {
                services: services.view(),
                workloads: workloads.view(),
                clusters: clusters.view(),
                gateways: gateways.view(),
                mesh: mesh.view(),
            }
        );
        let static_clusters = stage!(
            Derived::new("static"),
            proxies,
            static_clusters::derive,
            static_clusters::StaticClusterView {
                proxies: proxies.view(),
                waypoints: waypoints.view(),
                gateways: gateways.view(),
                mesh: mesh.view(),
            }
        );
        let route_findings_view = findings::route::RouteFindingView {
            tables,
            route_parents: route_parents.view(),
            waypoints: waypoints.view(),
            gateways: gateways.view(),
            backend_tls: backend_tls.view(),
            mesh: mesh.view(),
        };
        let route_findings = stage!(
            Derived::<_, (), (), _>::new("route-findings"),
            http_routes,
            findings::route::derive,
            route_findings_view
        );
        let grpc_route_findings = stage!(
            Derived::<_, (), (), _>::new("grpc-route-findings"),
            grpc_routes,
            findings::route::derive_grpc,
            route_findings_view
        );
        let tcp_route_findings = stage!(
            Derived::<_, (), (), _>::new("tcp-route-findings"),
            tcp_routes,
            findings::l4_route::derive_tcp,
            route_findings_view
        );
        let tls_route_findings = stage!(
            Derived::<_, (), (), _>::new("tls-route-findings"),
            tls_routes,
            findings::l4_route::derive_tls,
            route_findings_view
        );
        let policy_findings = stage!(
            Derived::<_, (), (), _>::new("policy-findings"),
            policies,
            findings::policy::derive,
            findings::policy::PolicyFindingView {
                policies: policies.view(),
                service_objects: service_objects.view(),
                services: services.view(),
                workloads: workloads.view(),
                waypoints: waypoints.view(),
                gateways: gateways.view(),
                census: census.view(),
                http_routes: http_routes.view(),
                grpc_routes: grpc_routes.view(),
                tcp_routes: tcp_routes.view(),
                tls_routes: tls_routes.view(),
                authentications: authentications.view(),
                mesh: mesh.view(),
            }
        );
        let service_findings = stage!(
            Derived::<_, (), (), _>::new("service-findings"),
            services,
            findings::service::derive,
            findings::service::ServiceFindingView {
                services: services.view(),
                workloads: workloads.view(),
                policies: policies.view(),
                mesh: mesh.view(),
                census: census.view(),
            }
        );
        let waypoint_findings = stage!(
            Derived::<_, (), (), _>::new("waypoint-findings"),
            waypoints,
            findings::waypoint::derive,
            findings::waypoint::WaypointFindingView {
                waypoints: waypoints.view(),
                services: services.view(),
                workloads: workloads.view(),
                http_routes: http_routes.view(),
                policies: policies.view(),
            }
        );
        let mut all: Vec<Finding> = notes(&route_findings);
        all.extend(notes(&grpc_route_findings));
        all.extend(notes(&tcp_route_findings));
        all.extend(notes(&tls_route_findings));
        all.extend(notes(&policy_findings));
        all.extend(notes(&waypoint_findings));
        all.extend(notes(&service_findings));
        all.sort();
        Derivation {
            attachments: rows(&attachments),
            chains: rows(&chains),
            routes: rows(&route_configs),
            clusters: rows(&clusters),
            endpoints: rows(&endpoints),
            listeners: rows(&listeners),
            static_clusters: rows(&static_clusters),
            findings: all,
        }
    }
}

impl Derivation {
    /// Everything that a class receives.
    pub fn resources(&self, class: &ProxyClass) -> Resources {
        let waypoint = &class.gateway;
        let mut clusters: Vec<Resource> = self
            .static_clusters
            .iter()
            .filter(|(key, _)| key.class == *class)
            .map(|(_, row)| emit::static_cluster(row))
            .collect();
        let own = self
            .clusters
            .iter()
            .filter(|(key, _)| key.waypoint == *waypoint);
        clusters.extend(own.map(|(_, row)| emit::cluster(row)));
        let endpoints = self
            .endpoints
            .iter()
            .filter(|(key, _)| key.waypoint == *waypoint);
        let listeners = self.listeners.iter().filter(|(key, _)| key.class == *class);
        let routes = self
            .routes
            .iter()
            .filter(|(key, _)| key.waypoint == *waypoint);
        Resources {
            routes: routes.map(|(_, row)| emit::routes(row)).collect(),
            clusters,
            endpoints: endpoints.map(|(_, row)| emit::endpoints(row)).collect(),
            listeners: listeners.map(|(_, row)| emit::listener(row)).collect(),
        }
    }

    /// Codes of the findings about an object, sorted.
    pub fn codes(&self, key: &ObjectKey) -> Vec<&'static str> {
        let about = self
            .findings
            .iter()
            .filter(|finding| finding.object.key == *key);
        about.map(|finding| finding.code).collect()
    }

    /// A chain of the one waypoint.
    pub fn chain(&self, name: &str) -> &ChainIr {
        &self.chains[&WaypointResource::new(waypoint_key(), name)]
    }

    /// The routes of a chain of the one waypoint.
    pub fn routes(&self, name: &str) -> &RoutesIr {
        &self.routes[&WaypointResource::new(waypoint_key(), name)]
    }
}

/// `app/wp`.
pub fn waypoint_key() -> ObjectKey {
    ObjectKey::new("app", "wp")
}

pub fn waypoint(key: &ObjectKey) -> WaypointRow {
    WaypointRow {
        key: key.clone(),
        class: "istio-waypoint".into(),
        controller: Some(model::GatewayController::Waypoint),
        ready: true,
        address: None,
        serves: WaypointFor::All,
        allowed: AllowedNamespaces::Same,
        listener: Some("mesh".into()),
        takes: vec![Kind::HttpRoute, Kind::GrpcRoute],
        service_accounts: vec!["wp".into()],
        binding: None,
        forwards_identity: false,
    }
}

pub fn parsed<T>(key: &ObjectKey, body: T) -> Parsed<T> {
    let meta = Meta {
        key: key.clone(),
        created_s: Some(1),
        ..Default::default()
    };
    Parsed {
        meta,
        body: Ok(body),
        notes: Vec::new(),
    }
}

pub fn port(number: u16, protocol: AppProtocol) -> PortRow {
    PortRow {
        name: Str::new(),
        port: number,
        target: TargetPort::Number(number + 8000),
        transport: if protocol == AppProtocol::Udp {
            Transport::Udp
        } else {
            Transport::Tcp
        },
        protocol,
        wds_protocol: WdsProtocol::default(),
    }
}

/// A Kubernetes Service that is not bound.
pub fn unbound(ns: &str, name: &str, vip: &str, ports: Vec<PortRow>) -> ServiceRow {
    let object = ObjectKey::new(ns, name);
    ServiceRow {
        key: NamespacedHostname::service(&object, "cluster.local"),
        source: ObjectRef::new(Kind::Service, object),
        name: name.into(),
        created_s: Some(1),
        vips: vec![Vip {
            network: Str::new(),
            ip: vip.parse().unwrap(),
            prefix: None,
        }],
        ports,
        selector: None,
        resolution: Resolution::Static,
        external: false,
        waypoint: None,
        blocked: None,
        weighted_waypoints: Vec::new(),
        visibility: model::derived::Visibility::Public,
        ingress_use_waypoint: false,
        distribution: model::derived::Distribution::Any,
        publish_not_ready: false,
        persistent_session: false,
        ip_families: Vec::new(),
        needs_waypoint: None,
        subject_alt_names: Vec::new(),
        canonical: true,
        first_of_host: true,
        is_global: false,
        export_to: vec!["*".into()],
    }
}

/// A Kubernetes Service behind `app/wp`.
pub fn service(ns: &str, name: &str, vip: &str, ports: Vec<PortRow>) -> ServiceRow {
    let waypoint = Some(BoundWaypoint {
        key: waypoint_key(),
        address: None,
    });
    ServiceRow {
        waypoint,
        ..unbound(ns, name, vip, ports)
    }
}

/// A captured pod in a service, each port mapped to itself + 8000.
pub fn pod(ns: &str, name: &str, ip: &str, service: Option<&ServiceRow>) -> WorkloadRow {
    let map = |port: &PortRow| PortMap {
        service_port: port.port,
        target_port: port.port + 8000,
    };
    WorkloadRow {
        uid: WorkloadUid::pod("Kubernetes", &ObjectKey::new(ns, name)),
        name: name.into(),
        ns: ns.into(),
        addresses: vec![ip.parse().unwrap()],
        hostname: Str::new(),
        network: Str::new(),
        hbone: true,
        native_tunnel: false,
        trust_domain: Str::new(),
        service_account: "default".into(),
        waypoint: None,
        blocked: None,
        network_gateway: None,
        application_tunnel: None,
        node: "n1".into(),
        canonical_name: name.into(),
        canonical_revision: "v1".into(),
        workload_name: name.into(),
        policies: Vec::new(),
        healthy: true,
        terminating: false,
        host_network: false,
        is_slice_endpoint: false,
        locality: Arc::default(),
        capacity: 0,
        cluster_id: "Kubernetes".into(),
        services: service
            .map(|row| (row.key.clone(), row.ports.iter().map(map).collect()))
            .into_iter()
            .collect(),
        labels: FrozenMap::new(),
    }
}

pub fn reference(kind: &str, ns: &str, name: &str, port: Option<u16>) -> RouteRef {
    let group = match kind {
        "Service" => "",
        "ServiceEntry" => "networking.istio.io",
        _ => "gateway.networking.k8s.io",
    };
    RouteRef {
        group: group.into(),
        kind: kind.into(),
        ns: ns.into(),
        name: name.into(),
        port,
        ..RouteRef::default()
    }
}

pub fn backend(ns: &str, name: &str, port: u16, weight: u32) -> BackendRef {
    BackendRef {
        target: reference("Service", ns, name, Some(port)),
        weight,
        filters: Vec::new(),
    }
}

pub fn prefix(path: &str) -> HttpMatch {
    HttpMatch {
        path: Some(PathMatch::Prefix(path.into())),
        ..Default::default()
    }
}

pub fn rule(matches: Vec<HttpMatch>, backends: Vec<BackendRef>) -> HttpRule {
    HttpRule {
        matches,
        backends,
        ..Default::default()
    }
}

pub fn route(parent: RouteRef, rules: Vec<HttpRule>) -> HttpRoute {
    HttpRoute {
        parents: vec![parent],
        hostnames: Vec::new(),
        rules,
    }
}

pub fn target(kind: &str, name: &str) -> TargetRef {
    let reference = reference(kind, "", name, None);
    TargetRef {
        group: reference.group,
        kind: reference.kind,
        name: reference.name,
        ns: None,
    }
}

/// One string per route: name, what it matches, where it goes.
pub fn shown(routes: &RoutesIr) -> Vec<String> {
    use envoy::ir::{RouteAction, RoutePath};
    let one = |route: &envoy::ir::RouteIr| {
        let path = match &route.path {
            RoutePath::Any => "*".to_owned(),
            RoutePath::Exact(path) => format!("={path}"),
            RoutePath::Prefix(path) => format!("{path}/*"),
            RoutePath::TextPrefix(path) => format!("{path}*"),
            RoutePath::Regex(path) => format!("~{path}"),
            RoutePath::Template(path) => format!("{{{path}}}"),
        };
        let action = match &route.action {
            RouteAction::Respond(status, _) => status.to_string(),
            RouteAction::Redirect(to) => format!("redirect {}", to.status),
            RouteAction::Forward(to) => {
                let clusters = to.clusters.iter();
                let shown = clusters.map(|c| format!("{}@{}", c.cluster, c.weight));
                shown.collect::<Vec<_>>().join(" ")
            }
        };
        format!("{} {path} -> {action}", route.name)
    };
    routes.routes.iter().map(one).collect()
}
