//! Every stage wired in order over the objects of a YAML text.

use std::collections::BTreeMap;
use std::sync::Arc;

use flow::{Derived, Output, Reads, Table};
use model::derived::Features;
use model::input::AuthorizationPolicy;
use model::parse::{Recognised, recognise};
use model::{
    AuthorizationRow, Finding, MeshRow, NamespacedHostname, Object, ObjectKey, Parsed, ServiceRow,
    WaypointRow, WorkloadRow,
};

use crate::allocation::{self, AllocationClaimView, AllocationRow, AllocationView};
use crate::attach::AttachView;
use crate::authorization::{
    self, AllowPoliciesByNamespace, AuthorizationSource, AuthorizationView,
};
use crate::census::{
    self, AccountsByNamespace, CensusView, Profile, ServedByPlace, WorkloadsByProfile,
};
use crate::claim::{self, ClaimView, ClaimsByHost, ClaimsByHostname, ServiceSource};
use crate::mesh::{self, MeshDefaults, MeshView};
use crate::namespace_binding::{self, NamespaceBindingView};
use crate::network_gateway::{self, GatewaysByNetwork, NetworkGatewayView};
use crate::node_locality::{self, NodeLocalityView};
use crate::peer_binding::{self, PeerBindingView, PeersBySelector};
use crate::pod_link::{self, LinksByPod, PodLinkView};
use crate::policy_binding::{self, PeerPoliciesByNamespace, PoliciesBySelector, PolicyBindingView};
use crate::service::{self, ServiceView, ServicesBySelector};
use crate::tables::InputTable;
use crate::waypoint::{self, PodsByGateway, WaypointView};
use crate::workload::{self, WorkloadSource, WorkloadView};

/// What the stages made of a text.
pub(super) struct World {
    pub(super) mesh: MeshRow,
    pub(super) waypoints: BTreeMap<String, WaypointRow>,
    pub(super) allocations: BTreeMap<String, AllocationRow>,
    pub(super) services: BTreeMap<String, ServiceRow>,
    pub(super) authorizations: BTreeMap<String, AuthorizationRow>,
    pub(super) workloads: BTreeMap<String, WorkloadRow>,
    pub(super) findings: Vec<Finding>,
}

impl World {
    /// `code kind/key` of each finding, sorted.
    pub(super) fn codes(&self) -> Vec<String> {
        let one = |f: &Finding| format!("{} {} {}", f.code, f.object.kind, f.object.key);
        let mut codes: Vec<String> = self.findings.iter().map(one).collect();
        codes.sort();
        codes
    }

    pub(super) fn pod(&self, key: &str) -> &WorkloadRow {
        &self.workloads[&format!("Kubernetes//Pod/{key}")]
    }

    /// The service `name` of namespace `ns`, given as `ns/name`.
    pub(super) fn service(&self, key: &str) -> &ServiceRow {
        let (ns, name) = key.split_once('/').unwrap();
        &self.services[&format!("{ns}/{name}.{ns}.svc.cluster.local")]
    }
}

#[derive(Default)]
struct Objects {
    all: Vec<Object>,
}

fn objects(yaml: &str) -> Objects {
    let mut objects = Objects::default();
    for text in yaml.split("\n---\n").filter(|text| !text.trim().is_empty()) {
        let value: serde_json::Value = serde_saphyr::from_str(text).expect(text);
        match recognise(&value, "test") {
            Recognised::Object(object) => objects.all.push(object),
            other => panic!("{other:?}"),
        }
    }
    objects
}

macro_rules! input {
    ($objects:ident, $kind:ident $(, $index:ty)*) => {{
        let mut table = Table::new(stringify!($kind))$(.with_index::<$index>())*;
        table.commit($objects.all.iter().filter_map(|object| match object {
            Object::$kind(row) => Some((row.meta.key.clone(), Some(row.clone()))),
            _ => None,
        }));
        table
    }};
}

fn run<P: flow::Key, K: flow::Key, V: flow::Row>(
    mut stage: Derived<P, K, V, Finding>,
    primaries: impl IntoIterator<Item = P>,
    findings: &mut Vec<Finding>,
    derive: impl Fn(&P, &mut Reads) -> Output<K, V, Finding> + Sync,
) -> Derived<P, K, V, Finding> {
    stage.update(primaries.into_iter().collect(), derive);
    findings.extend(stage.notes().flat_map(|(_, notes)| notes.iter().cloned()));
    stage
}

fn keys<T: PartialEq + Send + Sync + 'static>(table: &InputTable<T>) -> Vec<ObjectKey> {
    table
        .iter()
        .map(|(key, _): (_, &std::sync::Arc<Parsed<T>>)| key.clone())
        .collect()
}

fn rows<P: flow::Key, K: flow::Key + std::fmt::Display, V: flow::Row + Clone>(
    stage: &Derived<P, K, V, Finding>,
) -> BTreeMap<String, V> {
    let rows = stage.table().iter();
    rows.map(|(key, row)| (key.to_string(), row.as_ref().clone()))
        .collect()
}

/// Runs every stage over the objects of the text.
pub(super) fn world(yaml: &str) -> World {
    world_edited(yaml, |_| ())
}

/// The same with these switches.
pub(super) fn world_with(yaml: &str, features: Features) -> World {
    let defaults = MeshDefaults {
        features,
        ..MeshDefaults::default()
    };
    world_of(yaml, &defaults, |_| ())
}

/// The same with its valid AuthorizationPolicies edited: parsing refuses what the stages guard
/// against all the same.
pub(super) fn world_edited(yaml: &str, edit: impl Fn(&mut AuthorizationPolicy)) -> World {
    world_of(yaml, &MeshDefaults::default(), edit)
}

fn world_of(yaml: &str, defaults: &MeshDefaults, edit: impl Fn(&mut AuthorizationPolicy)) -> World {
    let mut objects = objects(yaml);
    for object in &mut objects.all {
        if let Object::AuthorizationPolicy(row) = object
            && let Ok(policy) = &mut Arc::make_mut(row).body
        {
            edit(policy);
        }
    }
    let mesh_configs = input!(objects, MeshConfig);
    let namespaces = input!(objects, Namespace);
    let nodes = input!(objects, Node);
    let gateways = input!(objects, Gateway);
    let gateway_classes = input!(objects, GatewayClass);
    let services = input!(objects, Service);
    let service_entries = input!(objects, ServiceEntry);
    let pods = input!(objects, Pod, PodsByGateway);
    let workload_entries = input!(objects, WorkloadEntry);
    let endpoint_slices = input!(objects, EndpointSlice);
    let policies = input!(objects, AuthorizationPolicy, AllowPoliciesByNamespace);
    let peers = input!(objects, PeerAuthentication);
    let mut findings: Vec<Finding> = objects
        .all
        .iter()
        .flat_map(|object| object.notes().iter().cloned())
        .collect();
    let notes = &mut findings;

    let view = MeshView {
        defaults,
        mesh_configs: mesh_configs.view(),
        namespaces: namespaces.view(),
    };
    let mesh = run(Derived::new("mesh"), [()], notes, |p, r| {
        mesh::derive(p, &view, r)
    });

    let view = NodeLocalityView {
        nodes: nodes.view(),
    };
    let localities = run(
        Derived::new("node_locality"),
        keys(&nodes),
        notes,
        |p, r| node_locality::derive(p, &view, r),
    );

    let view = NetworkGatewayView {
        gateways: gateways.view(),
        gateway_classes: gateway_classes.view(),
    };
    let stage = Derived::new("network_gateway").with_index::<GatewaysByNetwork>();
    let network_gateways = run(stage, keys(&gateways), notes, |p, r| {
        network_gateway::derive(p, &view, r)
    });

    let view = WaypointView {
        gateways: gateways.view(),
        gateway_classes: gateway_classes.view(),
        pods: pods.view(),
        mesh: mesh.view(),
    };
    let waypoints = run(Derived::new("waypoint"), keys(&gateways), notes, |p, r| {
        waypoint::derive(p, &view, r)
    });

    let view = NamespaceBindingView {
        mesh: mesh.view(),
        namespaces: namespaces.view(),
        waypoints: waypoints.view(),
    };
    let bindings = run(
        Derived::new("namespace_binding"),
        keys(&namespaces),
        notes,
        |p, r| namespace_binding::derive(p, &view, r),
    );

    let attach = AttachView {
        mesh: mesh.view(),
        waypoints: waypoints.view(),
        namespaces: namespaces.view(),
        namespace_bindings: bindings.view(),
    };
    let view = ClaimView {
        services: services.view(),
        service_entries: service_entries.view(),
        mesh: mesh.view(),
        attach,
    };
    let stage = Derived::new("claim").with_index::<ClaimsByHost>();
    let sources = keys(&services).into_iter().map(ServiceSource::Service);
    let sources = sources.chain(
        keys(&service_entries)
            .into_iter()
            .map(ServiceSource::ServiceEntry),
    );
    let claims = run(
        stage.with_index::<ClaimsByHostname>(),
        sources,
        notes,
        |p, r| claim::derive(p, &view, r),
    );

    let view = AllocationClaimView {
        service_entries: service_entries.view(),
        mesh: mesh.view(),
    };
    let allocation_claims = run(
        Derived::new("allocation_claim"),
        keys(&service_entries),
        notes,
        |p, r| allocation::claim(p, &view, r),
    );

    let view = AllocationView {
        claims: allocation_claims.view(),
        mesh: mesh.view(),
    };
    let allocations = run(Derived::new("allocation"), [()], notes, |p, r| {
        allocation::derive(p, &view, r)
    });

    let view = ServiceView {
        claims: claims.view(),
        services: services.view(),
        service_entries: service_entries.view(),
        allocations: allocations.view(),
        mesh: mesh.view(),
    };
    let hosts: Vec<NamespacedHostname> = claims
        .table()
        .iter()
        .map(|(key, _)| service::primary(key))
        .collect();
    let stage = Derived::new("service").with_index::<ServicesBySelector>();
    let service_rows = run(stage, hosts, notes, |p, r| service::derive(p, &view, r));

    let view = PeerBindingView {
        peers: peers.view(),
    };
    let stage = Derived::new("peer_binding").with_index::<PeersBySelector>();
    let peer_bindings = run(stage, keys(&peers), notes, |p, r| {
        peer_binding::derive(p, &view, r)
    });

    let view = PolicyBindingView {
        policies: policies.view(),
        mesh: mesh.view(),
    };
    let stage = Derived::new("policy_binding")
        .with_index::<PoliciesBySelector>()
        .with_index::<PeerPoliciesByNamespace>();
    let policy_bindings = run(stage, keys(&policies), notes, |p, r| {
        policy_binding::derive(p, &view, r)
    });

    let view = PodLinkView {
        endpoint_slices: endpoint_slices.view(),
        services: service_rows.view(),
        mesh: mesh.view(),
    };
    let stage = Derived::new("pod_link").with_index::<LinksByPod>();
    let pod_links = run(stage, keys(&endpoint_slices), notes, |p, r| {
        pod_link::derive(p, &view, r)
    });

    let view = WorkloadView {
        mesh: mesh.view(),
        pods: pods.view(),
        workload_entries: workload_entries.view(),
        service_entries: service_entries.view(),
        endpoint_slices: endpoint_slices.view(),
        node_localities: localities.view(),
        network_gateways: network_gateways.view(),
        services: service_rows.view(),
        pod_links: pod_links.view(),
        attach,
        policy_bindings: policy_bindings.view(),
        peer_bindings: peer_bindings.view(),
    };
    let sources = keys(&pods).into_iter().map(WorkloadSource::Pod);
    let sources = sources
        .chain(
            keys(&workload_entries)
                .into_iter()
                .map(WorkloadSource::WorkloadEntry),
        )
        .chain(
            keys(&service_entries)
                .into_iter()
                .map(WorkloadSource::ServiceEntry),
        )
        .chain(
            keys(&endpoint_slices)
                .into_iter()
                .map(WorkloadSource::EndpointSlice),
        )
        .chain(
            keys(&gateways)
                .into_iter()
                .map(WorkloadSource::NetworkGateway),
        );
    let stage = Derived::new("workload").with_index::<WorkloadsByProfile>();
    let workloads = run(stage, sources, notes, |p, r| workload::derive(p, &view, r));

    let view = CensusView {
        workloads: workloads.view(),
        services: service_rows.view(),
    };
    let stage = Derived::new("census").with_index::<ServedByPlace>();
    let stage = stage.with_index::<AccountsByNamespace>();
    let profiles: Vec<_> = (workloads.table().iter())
        .map(|(uid, row)| Profile::of(uid, row))
        .collect();
    let census = run(stage, profiles, notes, |p, r| census::derive(p, &view, r));

    let view = AuthorizationView {
        policies: policies.view(),
        peers: peers.view(),
        peer_bindings: peer_bindings.view(),
        mesh: mesh.view(),
        namespaces: namespaces.view(),
        census: census.view(),
        services: service_rows.view(),
        waypoints: waypoints.view(),
    };
    let sources = std::iter::once(AuthorizationSource::Static)
        .chain(keys(&peers).into_iter().map(AuthorizationSource::Peer))
        .chain(keys(&policies).into_iter().map(AuthorizationSource::Policy))
        .chain(
            keys(&gateways)
                .into_iter()
                .map(AuthorizationSource::Waypoint),
        );
    let authorizations = run(Derived::new("authorization"), sources, notes, |p, r| {
        authorization::derive(p, &view, r)
    });

    World {
        mesh: mesh.table().row(&()).unwrap().as_ref().clone(),
        waypoints: rows(&waypoints),
        allocations: rows(&allocations),
        services: rows(&service_rows),
        authorizations: rows(&authorizations),
        workloads: rows(&workloads),
        findings,
    }
}
