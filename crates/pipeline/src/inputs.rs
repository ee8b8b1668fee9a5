//! Input tables: one per kind, changed only by [`Inputs::apply`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flow::{Changes, Table, Touched};
use model::input::{
    AuthorizationPolicy, EndpointSlice, Gateway, GatewayClass, HttpRoute, MeshConfig, Namespace,
    Node, PeerAuthentication, Pod, ReferenceGrant, Service, ServiceEntry, WorkloadEntry,
};
use model::object::Input;
use model::{Finding, Kind, Object, ObjectKey, Parsed, ProxyClass};

type Edits<T> = BTreeMap<ObjectKey, Option<Arc<Parsed<T>>>>;

macro_rules! inputs {
    ($($field:ident: $kind:ident($body:ty) = $table:expr),+ $(,)?) => {
        /// The input tables.
        pub(crate) struct Inputs {
            $(#[doc = concat!("Rows of kind ", stringify!($kind), ".")]
              pub(crate) $field: Table<ObjectKey, Parsed<$body>>,)+
            /// Classes of connected proxies.
            pub(crate) proxies: Table<ProxyClass, ()>,
            /// Findings that the source raises itself.
            pub(crate) source_findings: Vec<Finding>,
            /// Notes of the rows that have some, so that collecting them costs what there is.
            notes: BTreeMap<(Kind, ObjectKey), Vec<Finding>>,
            waiting: BTreeSet<Kind>,
        }

        /// What a batch changed, per table.
        pub(crate) struct InputChanges {
            $(#[doc = concat!("Changes of ", stringify!($kind), " rows.")]
              pub(crate) $field: Changes<ObjectKey, Parsed<$body>>,)+
            /// Changes of connected classes.
            pub(crate) proxies: Changes<ProxyClass, ()>,
            /// Findings of the source or notes of rows changed.
            pub(crate) findings: bool,
        }

        #[derive(Default)]
        struct Batch {
            $($field: Edits<$body>,)+
            proxies: BTreeMap<ProxyClass, Option<Arc<()>>>,
        }

        impl Default for Inputs {
            fn default() -> Self {
                Self {
                    $($field: $table,)+
                    proxies: Table::new("proxies").with_index::<envoy::index::ClassByGateway>(),
                    source_findings: Vec::new(),
                    notes: BTreeMap::new(),
                    waiting: Kind::ALL.into_iter().collect(),
                }
            }
        }

        impl Inputs {
            fn collect(&self, batch: &mut Batch, object: Object) {
                match object {
                    $(Object::$kind(row) => {
                        batch.$field.insert(row.meta.key.clone(), Some(row));
                    })+
                }
            }

            fn delete(batch: &mut Batch, kind: Kind, key: ObjectKey) {
                match kind { $(Kind::$kind => { batch.$field.insert(key, None); })+ }
            }

            fn delete_all(&self, batch: &mut Batch, kind: Kind) {
                match kind {
                    $(Kind::$kind => {
                        for (key, _) in self.$field.iter() {
                            batch.$field.insert(key.clone(), None);
                        }
                        for edit in batch.$field.values_mut() {
                            *edit = None;
                        }
                    })+
                }
            }

            fn commit(&mut self, batch: Batch, source_findings: bool) -> InputChanges {
                let mut changes = InputChanges {
                    $($field: self.$field.commit(batch.$field),)+
                    proxies: self.proxies.commit(batch.proxies),
                    findings: source_findings,
                };
                $(for change in changes.$field.rows() {
                    let notes = change.new.as_ref().map(|row| row.notes.as_slice());
                    changes.findings |= self.note(Kind::$kind, &change.key, notes.unwrap_or_default());
                })+
                changes
            }
        }

        impl InputChanges {
            /// Adds everything that the batch touched.
            pub(crate) fn add_to(&self, touched: &mut Touched) {
                $(touched.add(&self.$field);)+
                touched.add(&self.proxies);
            }
        }
    };
}

inputs! {
    mesh_configs: MeshConfig(MeshConfig) = Table::new("mesh_configs"),
    namespaces: Namespace(Namespace) = Table::new("namespaces"),
    nodes: Node(Node) = Table::new("nodes"),
    gateway_classes: GatewayClass(GatewayClass) = Table::new("gateway_classes"),
    gateways: Gateway(Gateway) = Table::new("gateways"),
    reference_grants: ReferenceGrant(ReferenceGrant) = Table::new("reference_grants")
        .with_index::<envoy::index::GrantByNamespace>(),
    services: Service(Service) = Table::new("services"),
    service_entries: ServiceEntry(ServiceEntry) = Table::new("service_entries"),
    pods: Pod(Pod) = Table::new("pods")
        .with_index::<ambient::waypoint::PodsByGateway>()
        .with_index::<ambient::tables::PodsByNamespace>(),
    workload_entries: WorkloadEntry(WorkloadEntry) = Table::new("workload_entries"),
    endpoint_slices: EndpointSlice(EndpointSlice) = Table::new("endpoint_slices"),
    authorization_policies: AuthorizationPolicy(AuthorizationPolicy)
        = Table::new("authorization_policies")
            .with_index::<envoy::index::PolicyByTarget>()
            .with_index::<envoy::index::UntargetedPolicyByNamespace>(),
    peer_authentications: PeerAuthentication(PeerAuthentication)
        = Table::new("peer_authentications"),
    http_routes: HttpRoute(HttpRoute) = Table::new("http_routes")
        .with_index::<envoy::index::RouteByParent>(),
}

impl Inputs {
    /// Applies a batch: the last word on each key counts, equal rows change nothing.
    pub(crate) fn apply(&mut self, inputs: Vec<Input>) -> InputChanges {
        let mut batch = Batch::default();
        let mut source_findings = false;
        for input in inputs {
            match input {
                Input::Upsert(object) => self.collect(&mut batch, object),
                Input::Delete(kind, key) => Self::delete(&mut batch, kind, key),
                Input::Resync(kind, objects) => {
                    self.delete_all(&mut batch, kind);
                    for object in objects {
                        self.collect(&mut batch, object);
                    }
                    self.waiting.remove(&kind);
                }
                Input::SourceFindings(findings) => {
                    source_findings |= findings != self.source_findings;
                    self.source_findings = findings;
                }
                Input::Interest(class, connected) => {
                    batch.proxies.insert(class, connected.then(|| Arc::new(())));
                }
            }
        }
        self.commit(batch, source_findings)
    }

    /// Records the notes of a changed row; says whether they differ from the old ones.
    fn note(&mut self, kind: Kind, key: &ObjectKey, notes: &[Finding]) -> bool {
        let at = (kind, key.clone());
        if notes.is_empty() {
            return self.notes.remove(&at).is_some();
        }
        self.notes.insert(at, notes.to_vec()).as_deref() != Some(notes)
    }

    /// Findings of the source, then every input row's own notes.
    pub(crate) fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.source_findings
            .iter()
            .chain(self.notes.values().flatten())
    }

    /// Kinds whose first complete list has not arrived.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Kind> + '_ {
        self.waiting.iter().copied()
    }
}
