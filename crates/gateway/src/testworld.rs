//! A world of YAML objects, for the tests of the stages.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::sync::Arc;

use flow::{Derived, Dirty, Key, Output, Reads, Table};
use model::gateway::RouteParents;
use model::object::Object;
use model::ownership::Revisions;
use model::parse::{Recognised, recognise};
use model::status::{StatusKey, StatusRow};
use model::{
    DeploymentRow, Finding, GatewayRow, Kind, MeshRow, NamespacedHostname, ObjectKey, Parsed,
    ServiceRow, WaypointRow, WorkloadRow, WorkloadUid,
};

use crate::deployment::Settings;
use crate::deployments::{self, DeploymentView};
use crate::gateways::{self, GatewayView};
use crate::index::{
    ConfigMapByClass, GatewayByListenerSet, GrantByNamespace, ListenerSetByParent, RouteByListener,
    ServiceByHostname, WorkloadByService,
};
use crate::route_parents::{self, RouteParentView};
use crate::status::gateway::GatewayStatusView;
use crate::status::gateway_class::GatewayClassStatusView;
use crate::status::listener_set::ListenerSetStatusView;
use crate::status::{self, StatusTables};

/// What the stages make of a world.
pub(crate) struct World {
    pub(crate) gateways: Derived<ObjectKey, ObjectKey, GatewayRow, Finding>,
    pub(crate) routes: Derived<(Kind, ObjectKey), (Kind, ObjectKey), RouteParents, Finding>,
    pub(crate) statuses: Vec<(StatusKey, StatusRow)>,
    pub(crate) deployments: Derived<ObjectKey, ObjectKey, DeploymentRow, Finding>,
}

/// Rows of services and workloads, which other stages derive.
#[derive(Default)]
pub(crate) struct Running {
    pub(crate) services: Vec<ServiceRow>,
    pub(crate) workloads: Vec<WorkloadRow>,
    pub(crate) waypoints: Vec<WaypointRow>,
    /// Gateways between networks are switched off.
    pub(crate) one_network: bool,
    /// What is ours; everything by default.
    pub(crate) revisions: Revisions,
}

fn fill<K: Key, V: PartialEq + Send + Sync + 'static>(
    mut table: Table<K, V>,
    rows: impl IntoIterator<Item = (K, Arc<V>)>,
) -> Table<K, V> {
    table.commit(rows.into_iter().map(|(key, row)| (key, Some(row))));
    table
}

fn run<P: Key, K: Key, V: PartialEq + Send + Sync + 'static>(
    mut stage: Derived<P, K, V, Finding>,
    primaries: Vec<P>,
    derive: impl Fn(&P, &mut Reads) -> Output<K, V, Finding> + Sync,
) -> Derived<P, K, V, Finding> {
    let dirty: Dirty<P> = primaries.into_iter().collect();
    stage.update(dirty, derive);
    stage
}

fn keys<T>(table: &Table<ObjectKey, Parsed<T>>) -> Vec<ObjectKey>
where
    Parsed<T>: PartialEq + Send + Sync + 'static,
{
    table.iter().map(|(key, _)| key.clone()).collect()
}

macro_rules! table {
    ($objects:expr, $kind:ident) => {
        table!($objects, $kind, Table::new(stringify!($kind)))
    };
    ($objects:expr, $kind:ident, $table:expr) => {
        fill(
            $table,
            $objects.iter().filter_map(|object| match object {
                Object::$kind(row) => Some((row.meta.key.clone(), Arc::clone(row))),
                _ => None,
            }),
        )
    };
}

fn objects(yaml: &str) -> Vec<Object> {
    let documents: Vec<serde_json::Value> = yaml
        .split("\n---\n")
        .filter(|text| !text.trim().is_empty())
        .map(|text| serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}")))
        .collect();
    let found = documents.iter().map(|doc| match recognise(doc, "test") {
        Recognised::Object(object) => object,
        other => panic!("{other:?}"),
    });
    found.collect()
}

impl World {
    pub(crate) fn new(yaml: &str) -> Self {
        Self::with(yaml, Running::default())
    }

    pub(crate) fn with(yaml: &str, running: Running) -> Self {
        let objects = objects(yaml);
        let gateways = table!(objects, Gateway);
        let classes = table!(objects, GatewayClass);
        let sets_table = Table::new("sets").with_index::<ListenerSetByParent>();
        let sets = table!(objects, ListenerSet, sets_table);
        let grants_table = Table::new("grants").with_index::<GrantByNamespace>();
        let grants = table!(objects, ReferenceGrant, grants_table);
        let secrets = table!(objects, Secret);
        let config_maps = Table::new("config_maps").with_index::<ConfigMapByClass>();
        let config_maps = table!(objects, ConfigMap, config_maps);
        let mesh_configs = table!(objects, MeshConfig);
        let namespaces = table!(objects, Namespace);
        let http_routes = table!(objects, HttpRoute);
        let grpc_routes = table!(objects, GrpcRoute);
        let tcp_routes = table!(objects, TcpRoute);
        let tls_routes = table!(objects, TlsRoute);
        let service_objects = table!(objects, Service);
        let mut settings = MeshRow::default();
        settings.features.multi_network = !running.one_network;
        let mesh = fill(Table::new("mesh"), [((), Arc::new(settings))]);
        let waypoints = running.waypoints.into_iter();
        let waypoints = fill(
            Table::new("waypoints"),
            waypoints.map(|row| (row.key.clone(), Arc::new(row))),
        );
        let services: Table<NamespacedHostname, ServiceRow> = fill(
            Table::new("services").with_index::<ServiceByHostname>(),
            (running.services.into_iter()).map(|row| (row.key.clone(), Arc::new(row))),
        );
        let workloads: Table<WorkloadUid, WorkloadRow> = fill(
            Table::new("workloads").with_index::<WorkloadByService>(),
            (running.workloads.into_iter()).map(|row| (row.uid.clone(), Arc::new(row))),
        );
        let view = GatewayView {
            gateways: gateways.view(),
            gateway_classes: classes.view(),
            listener_sets: sets.view(),
            reference_grants: grants.view(),
            secrets: secrets.view(),
            config_maps: config_maps.view(),
            namespaces: namespaces.view(),
            mesh: mesh.view(),
        };
        let stage = Derived::new("gateways").with_index::<GatewayByListenerSet>();
        let rows = run(stage, keys(&gateways), |p, r| gateways::derive(p, &view, r));
        let view = RouteParentView {
            http_routes: http_routes.view(),
            grpc_routes: grpc_routes.view(),
            tcp_routes: tcp_routes.view(),
            tls_routes: tls_routes.view(),
            gateways: rows.view(),
            waypoints: waypoints.view(),
            namespaces: namespaces.view(),
        };
        let of = |kind: Kind, keys: Vec<ObjectKey>| keys.into_iter().map(move |key| (kind, key));
        let routes = of(Kind::HttpRoute, keys(&http_routes))
            .chain(of(Kind::GrpcRoute, keys(&grpc_routes)))
            .chain(of(Kind::TcpRoute, keys(&tcp_routes)))
            .chain(of(Kind::TlsRoute, keys(&tls_routes)))
            .collect();
        let stage = Derived::new("route_parents").with_index::<RouteByListener>();
        let routes = run(stage, routes, |p, r| route_parents::derive(p, &view, r));
        let revisions = fill(Table::new("revisions"), [((), Arc::new(running.revisions))]);
        let tables = StatusTables {
            rows: rows.view(),
            route_parents: routes.view(),
            services: services.view(),
            service_objects: service_objects.view(),
            revisions: revisions.view(),
            namespaces: namespaces.view(),
            workloads: workloads.view(),
        };
        let of_gateways = GatewayStatusView {
            gateways: gateways.view(),
            tables,
        };
        let of_classes = GatewayClassStatusView {
            gateway_classes: classes.view(),
            mesh: mesh.view(),
        };
        let of_sets = ListenerSetStatusView {
            listener_sets: sets.view(),
            tables,
        };
        let stages = [
            run(Derived::new("s"), keys(&gateways), |p, r| {
                status::gateway::derive(p, &of_gateways, r)
            }),
            run(Derived::new("s"), keys(&classes), |p, r| {
                status::gateway_class::derive(p, &of_classes, r)
            }),
            run(Derived::new("s"), keys(&sets), |p, r| {
                status::listener_set::derive(p, &of_sets, r)
            }),
        ];
        let statuses = stages.iter().flat_map(|stage| {
            let rows = stage.table().iter();
            rows.map(|(key, row)| (key.clone(), StatusRow::clone(row)))
                .collect::<Vec<_>>()
        });
        let mut statuses: Vec<_> = statuses.collect();
        statuses.sort_by(|a, b| a.0.cmp(&b.0));
        let settings = Settings::default();
        let view = DeploymentView {
            settings: Some(&settings),
            gateways: gateways.view(),
            rows: rows.view(),
            config_maps: config_maps.view(),
            mesh_configs: mesh_configs.view(),
            mesh: mesh.view(),
            revisions: revisions.view(),
            namespaces: namespaces.view(),
        };
        let stage = Derived::new("deployments");
        let deployments = run(stage, keys(&gateways), |p, r| {
            deployments::derive(p, &view, r)
        });
        Self {
            gateways: rows,
            routes,
            statuses,
            deployments,
        }
    }

    /// The row of the only Gateway.
    pub(crate) fn row(&self) -> Arc<GatewayRow> {
        let mut rows = self.gateways.table().iter();
        Arc::clone(rows.next().expect("a Gateway of ours").1)
    }

    /// `Type=Status/Reason` of every condition of an object; empty where nothing is said.
    pub(crate) fn conditions(&self, kind: Kind, key: &str) -> Vec<String> {
        let found = self.status(kind, key);
        found.map_or_else(Vec::new, |row| shown(&row.conditions))
    }

    pub(crate) fn status(&self, kind: Kind, key: &str) -> Option<&StatusRow> {
        let is = |status: &&(StatusKey, StatusRow)| {
            status.0.object.kind == kind.as_str() && status.0.object.key.to_string() == key
        };
        self.statuses.iter().find(is).map(|(_, row)| row)
    }

    /// The same of its listeners, each behind name, kinds and count of routes.
    pub(crate) fn listeners(&self, kind: Kind, key: &str) -> Vec<String> {
        let found = self
            .status(kind, key)
            .and_then(|row| row.listeners.as_ref());
        let listeners = found.into_iter().flatten();
        listeners
            .map(|one| {
                let kinds: Vec<&str> = one.supported_kinds.iter().map(|k| k.as_str()).collect();
                let conditions: Vec<String> = shown(&one.conditions)
                    .into_iter()
                    .filter(|text| !GOOD.contains(&text.as_str()))
                    .collect();
                let parts = [kinds.join(","), conditions.join(" ")];
                format!("{} {} {}", one.name, one.attached_routes, parts.join(" "))
                    .trim_end()
                    .to_owned()
            })
            .collect()
    }

    /// What became of a route: `reason`, or the listeners that take it with their hosts.
    pub(crate) fn parents(&self, kind: Kind, key: &str) -> Vec<String> {
        let key: ObjectKey = key.parse().unwrap();
        let Some(row) = self.routes.table().row(&(kind, key)) else {
            return Vec::new();
        };
        let shown = row.parents.iter().map(|parent| {
            if let Some(defect) = &parent.refused {
                format!("{} {}", parent.index, defect.reason)
            } else {
                let taken: Vec<String> = parent
                    .taken
                    .iter()
                    .map(|one| format!("{}:{}", one.listener, one.hostnames.join(",")))
                    .collect();
                format!("{} {}", parent.index, taken.join(" "))
            }
        });
        shown.collect()
    }
}

/// What a listener says that has nothing wrong.
const GOOD: [&str; 4] = [
    "Accepted=True/Accepted",
    "Conflicted=False/NoConflicts",
    "Programmed=True/Programmed",
    "ResolvedRefs=True/ResolvedRefs",
];

fn shown(conditions: &[model::status::Condition]) -> Vec<String> {
    let conditions = conditions.iter();
    conditions
        .map(|one| format!("{}={}/{}", one.ty, one.status.as_str(), one.reason))
        .collect()
}
