#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod entries;
mod l4;
mod precedence;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flow::{Key, Reads, Row, Table};
use model::derived::{
    AppProtocol, BoundWaypoint, Distribution, PortRow, Visibility, WaypointFor, WdsProtocol,
};
use model::input::*;
use model::{
    Kind, MeshRow, Meta, NamespacedHostname, ObjectKey, ObjectRef, Parsed, ServiceRow, Str,
    WaypointRow,
};

use super::*;
use crate::index as at;
use crate::ir::*;

const WEB: &str = "inbound-vip|80|http|web.app.svc.cluster.local";
const V1: &str = "inbound-vip|80|http|v1.app.svc.cluster.local";
const V2: &str = "inbound-vip|80|http|v2.app.svc.cluster.local";
const FAR: &str = "outbound|80||far.depot.svc.cluster.local";

/// Services `web`, `v1`, `v2` of namespace `app` behind waypoint `app/wp`, and `far` of
/// namespace `depot` behind none.
struct World {
    services: BTreeMap<NamespacedHostname, ServiceRow>,
    http: BTreeMap<ObjectKey, Parsed<HttpRoute>>,
    grpc: BTreeMap<ObjectKey, Parsed<GrpcRoute>>,
    tcp: BTreeMap<ObjectKey, Parsed<TcpRoute>>,
    tls: BTreeMap<ObjectKey, Parsed<TlsRoute>>,
    rules: BTreeMap<ObjectKey, Parsed<DestinationRule>>,
    virtual_services: BTreeMap<ObjectKey, Parsed<VirtualService>>,
    grants: BTreeMap<ObjectKey, Parsed<ReferenceGrant>>,
    mesh: MeshRow,
}

fn fill<K: Key, V: Row + Clone>(mut table: Table<K, V>, rows: &BTreeMap<K, V>) -> Table<K, V> {
    table.commit(
        rows.iter()
            .map(|(key, row)| (key.clone(), Some(Arc::new(row.clone())))),
    );
    table
}

fn parsed<T>(key: &ObjectKey, created_s: i64, body: T) -> Parsed<T> {
    Parsed {
        meta: Meta {
            key: key.clone(),
            created_s: Some(created_s),
            ..Meta::default()
        },
        body: Ok(body),
        notes: Vec::new(),
    }
}

impl World {
    fn new() -> Self {
        let mut services = BTreeMap::new();
        for row in [
            service("app", "web", true),
            service("app", "v1", true),
            service("app", "v2", true),
            service("depot", "far", false),
        ] {
            services.insert(row.key.clone(), row);
        }
        Self {
            services,
            http: BTreeMap::new(),
            grpc: BTreeMap::new(),
            tcp: BTreeMap::new(),
            tls: BTreeMap::new(),
            rules: BTreeMap::new(),
            virtual_services: BTreeMap::new(),
            grants: BTreeMap::new(),
            mesh: MeshRow::default(),
        }
    }

    fn service(&mut self, name: &str) -> &mut ServiceRow {
        self.services.get_mut(&key_of("app", name)).unwrap()
    }

    fn http(&mut self, name: &str, created_s: i64, route: HttpRoute) {
        let key: ObjectKey = name.parse().unwrap();
        self.http
            .insert(key.clone(), parsed(&key, created_s, route));
    }

    fn grpc(&mut self, name: &str, created_s: i64, route: GrpcRoute) {
        let key: ObjectKey = name.parse().unwrap();
        self.grpc
            .insert(key.clone(), parsed(&key, created_s, route));
    }

    /// What `use_` makes of the tables for `app/web`.
    fn at<T>(&self, use_: impl FnOnce(&Site<'_>, &RouteTables<'_>, &mut Reads) -> T) -> T {
        let services = fill(
            Table::new("s").with_index::<at::ServiceByHostname>(),
            &self.services,
        );
        let http = fill(
            Table::new("h").with_index::<at::RouteByParent>(),
            &self.http,
        );
        let grpc = fill(
            Table::new("g").with_index::<at::RouteByParent>(),
            &self.grpc,
        );
        let tcp = fill(
            Table::new("t").with_index::<at::L4RouteByParent>(),
            &self.tcp,
        );
        let tls = fill(
            Table::new("l").with_index::<at::L4RouteByParent>(),
            &self.tls,
        );
        let rules = fill(
            Table::new("d").with_index::<at::DestinationRuleByHost>(),
            &self.rules,
        );
        let virtual_services = fill(
            Table::new("v")
                .with_index::<at::VirtualServiceByNamespace>()
                .with_index::<at::VirtualServiceByDestination>(),
            &self.virtual_services,
        );
        let grants = fill(
            Table::new("r").with_index::<at::GrantByNamespace>(),
            &self.grants,
        );
        let namespaces = Table::new("n");
        let tables = RouteTables {
            services: services.view(),
            http_routes: http.view(),
            grpc_routes: grpc.view(),
            tcp_routes: tcp.view(),
            tls_routes: tls.view(),
            virtual_services: virtual_services.view(),
            destination_rules: rules.view(),
            reference_grants: grants.view(),
            namespaces: namespaces.view(),
        };
        let waypoint = WaypointRow {
            key: waypoint(),
            class: "istio-waypoint".into(),
            controller: Some(model::GatewayController::Waypoint),
            ready: true,
            address: None,
            serves: WaypointFor::All,
            allowed: AllowedNamespaces::Same,
            listener: Some("mesh".into()),
            takes: vec![Kind::HttpRoute, Kind::GrpcRoute],
            service_accounts: Vec::new(),
            binding: None,
            forwards_identity: false,
        };
        let site = Site {
            service: &self.services[&key_of("app", "web")],
            waypoint: &waypoint,
            mesh: &self.mesh,
        };
        use_(&site, &tables, &mut Reads::detached())
    }

    fn routes(&self) -> RoutesIr {
        self.at(|site, tables, reads| for_port(site, tables, reads, 80, &WEB.into()))
    }

    /// The one route of the service's own route with one rule.
    fn only(rule: HttpRule) -> RouteIr {
        let mut world = Self::new();
        world.http("app/r", 1, own(vec![rule]));
        let mut found = world.routes().routes;
        assert_eq!(found.len(), 1);
        found.remove(0)
    }
}

fn waypoint() -> ObjectKey {
    ObjectKey::new("app", "wp")
}

fn key_of(ns: &str, name: &str) -> NamespacedHostname {
    NamespacedHostname::service(&ObjectKey::new(ns, name), "cluster.local")
}

fn service(ns: &str, name: &str, bound: bool) -> ServiceRow {
    ServiceRow {
        key: key_of(ns, name),
        source: ObjectRef::new(Kind::Service, ObjectKey::new(ns, name)),
        name: name.into(),
        created_s: Some(1),
        vips: Vec::new(),
        ports: vec![PortRow {
            name: Str::new(),
            port: 80,
            target: TargetPort::Number(8080),
            transport: Transport::Tcp,
            protocol: AppProtocol::Http,
            wds_protocol: WdsProtocol::Unknown,
        }],
        selector: None,
        resolution: Resolution::Static,
        external: false,
        waypoint: bound.then(|| BoundWaypoint {
            key: waypoint(),
            address: None,
        }),
        blocked: None,
        weighted_waypoints: Vec::new(),
        needs_waypoint: None,
        ingress_use_waypoint: false,
        visibility: Visibility::Public,
        distribution: Distribution::Any,
        publish_not_ready: false,
        persistent_session: false,
        ip_families: Vec::new(),
        subject_alt_names: Vec::new(),
        export_to: Vec::new(),
        canonical: true,
        first_of_host: true,
        is_global: false,
    }
}

fn reference(kind: &str, ns: &str, name: &str, port: Option<u16>) -> RouteRef {
    let group = match kind {
        "Service" => "",
        "Hostname" => "networking.istio.io",
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

fn backend(name: &str, weight: u32) -> BackendRef {
    let (ns, name) = name.split_once('/').unwrap_or(("app", name));
    BackendRef {
        target: reference("Service", ns, name, Some(80)),
        weight,
        filters: Vec::new(),
    }
}

fn route(parent: RouteRef, rules: Vec<HttpRule>) -> HttpRoute {
    HttpRoute {
        parents: vec![parent],
        hostnames: Vec::new(),
        rules,
    }
}

/// With the service as parent.
fn own(rules: Vec<HttpRule>) -> HttpRoute {
    route(reference("Service", "app", "web", None), rules)
}

/// With the waypoint as parent.
fn of_gateway(rules: Vec<HttpRule>) -> HttpRoute {
    route(reference("Gateway", "app", "wp", None), rules)
}

fn with_path(path: PathMatch) -> HttpMatch {
    HttpMatch {
        path: Some(path),
        ..HttpMatch::default()
    }
}

fn prefix(path: &str) -> HttpMatch {
    with_path(PathMatch::Prefix(path.into()))
}

/// To `v1`, under a prefix.
fn rule(path: &str, filters: Vec<RouteFilter>) -> HttpRule {
    HttpRule {
        matches: vec![prefix(path)],
        filters,
        backends: vec![backend("v1", 1)],
        ..HttpRule::default()
    }
}

fn edits(set: &[(&str, &str)]) -> HeaderEdits {
    HeaderEdits {
        set: set
            .iter()
            .map(|(name, value)| (Str::from(*name), Str::from(*value)))
            .collect(),
        ..HeaderEdits::default()
    }
}

fn forward(route: &RouteIr) -> &ForwardIr {
    match &route.action {
        RouteAction::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
}

/// Cluster and weight of each destination.
fn sent(route: &RouteIr) -> Vec<(&str, u32)> {
    let clusters = forward(route).clusters.iter();
    clusters
        .map(|to| (to.cluster.as_str(), to.weight))
        .collect()
}

/// Names of routes in order.
fn names(ir: &RoutesIr) -> Vec<&str> {
    ir.routes.iter().map(|route| route.name.as_str()).collect()
}
