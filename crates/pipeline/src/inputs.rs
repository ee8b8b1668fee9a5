//! Input tables: one per kind, changed only by [`Inputs::apply`]. They hold what stages see; what
//! [`discovery`] hides from them is kept aside.

mod discovery;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flow::{Changes, Table, Touched};
use model::input::{
    AuthorizationPolicy, BackendTlsPolicy, DestinationRule, EndpointSlice, Gateway, GatewayClass,
    GrpcRoute, HttpRoute, ListenerSet, MeshConfig, Namespace, Node, PeerAuthentication, Pod,
    ReferenceGrant, RequestAuthentication, Service, ServiceEntry, TcpRoute, TlsRoute,
    VirtualService, WebhookConfiguration, WorkloadEntry,
};
use model::jwks::Jwks;
use model::object::Input;
use model::ownership::Revisions;
use model::rejection::Rejection;
use model::secret::{ConfigMap, Secret};
use model::{Finding, Kind, Object, ObjectKey, Parsed, ProxyClass, Str};

use discovery::{Discovery, Hidden};

type Edits<T> = BTreeMap<ObjectKey, Option<Arc<Parsed<T>>>>;

macro_rules! inputs {
    ($($field:ident: $kind:ident($body:ty) = $table:expr),+ $(,)?) => {
        /// The input tables.
        pub(crate) struct Inputs {
            $(#[doc = concat!("Rows of kind ", stringify!($kind), ".")]
              pub(crate) $field: Table<ObjectKey, Parsed<$body>>,)+
            /// Classes of connected proxies.
            pub(crate) proxies: Table<ProxyClass, ()>,
            /// Key sets of token issuers, by [`model::jwks::JwksSource`].
            pub(crate) jwks: Table<Str, Jwks>,
            /// What clients refuse.
            pub(crate) rejections: Table<ProxyClass, Vec<Rejection>>,
            /// Findings that sources raise themselves, by source.
            pub(crate) source_findings: BTreeMap<&'static str, Vec<Finding>>,
            /// Notes of the rows that have some, so that collecting them costs what there is.
            notes: BTreeMap<(Kind, ObjectKey), Vec<Finding>>,
            waiting: BTreeSet<Kind>,
            discovery: Discovery,
            aside: Aside,
        }

        /// Hidden rows, per kind.
        #[derive(Default)]
        struct Aside {
            $($field: Hidden<$body>,)+
        }

        /// What a batch changed, per table.
        pub(crate) struct InputChanges {
            $(#[doc = concat!("Changes of ", stringify!($kind), " rows.")]
              pub(crate) $field: Changes<ObjectKey, Parsed<$body>>,)+
            /// Changes of connected classes.
            pub(crate) proxies: Changes<ProxyClass, ()>,
            /// Changes of key sets.
            pub(crate) jwks: Changes<Str, Jwks>,
            /// Changes of what clients refuse.
            pub(crate) rejections: Changes<ProxyClass, Vec<Rejection>>,
            /// Objects that became, or are no longer, hidden by their revision.
            pub(crate) revised: BTreeMap<(Kind, ObjectKey), bool>,
            /// Findings of the source or notes of rows changed.
            pub(crate) findings: bool,
        }

        #[derive(Default)]
        struct Batch {
            $($field: Edits<$body>,)+
            proxies: BTreeMap<ProxyClass, Option<Arc<()>>>,
            jwks: BTreeMap<Str, Option<Arc<Jwks>>>,
            rejections: BTreeMap<ProxyClass, Option<Arc<Vec<Rejection>>>>,
        }

        impl Inputs {
            /// Empty tables of a control plane of this revision, which runs in this namespace; an
            /// empty revision sees objects of every one.
            pub(crate) fn new(revision: Str, system_namespace: Str) -> Self {
                Self {
                    $($field: $table,)+
                    proxies: Table::new("proxies")
                        .with_index::<envoy::index::ClassByGateway>()
                        .with_index::<envoy::east_west::index::ClassByRole>(),
                    jwks: Table::new("jwks"),
                    rejections: Table::new("rejections"),
                    source_findings: BTreeMap::new(),
                    notes: BTreeMap::new(),
                    waiting: Kind::ALL.into_iter().collect(),
                    discovery: Discovery::new(revision, system_namespace),
                    aside: Aside::default(),
                }
            }

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
                        let seen = self.$field.iter().map(|(key, _)| key);
                        for key in seen.chain(self.aside.$field.keys()) {
                            batch.$field.insert(key.clone(), None);
                        }
                        for edit in batch.$field.values_mut() {
                            *edit = None;
                        }
                    })+
                }
            }

            fn commit(&mut self, batch: Batch, source_findings: bool) -> InputChanges {
                let flips = self.discovery.update(
                    (&self.mesh_configs, &batch.mesh_configs),
                    (&self.namespaces, &batch.namespaces),
                );
                let mut changes = InputChanges {
                    $($field: {
                        let edits = self.discovery.filter(
                            Kind::$kind,
                            &self.$field,
                            &mut self.aside.$field,
                            batch.$field,
                            &flips,
                        );
                        self.$field.commit(edits)
                    },)+
                    proxies: self.proxies.commit(batch.proxies),
                    jwks: self.jwks.commit(batch.jwks),
                    rejections: self.rejections.commit(batch.rejections),
                    revised: BTreeMap::new(),
                    findings: source_findings,
                };
                changes.revised = self.discovery.take_revised();
                changes.findings |= self.discovery.take_findings_changed();
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
                touched.add(&self.jwks);
                touched.add(&self.rejections);
            }
        }
    };
}

inputs! {
    mesh_configs: MeshConfig(MeshConfig) = Table::new("mesh_configs"),
    namespaces: Namespace(Namespace) = Table::new("namespaces"),
    nodes: Node(Node) = Table::new("nodes"),
    mutating_webhooks: MutatingWebhookConfiguration(WebhookConfiguration)
        = Table::new("mutating_webhooks").with_index::<ambient::ownership::TagsByRevision>(),
    validating_webhooks: ValidatingWebhookConfiguration(WebhookConfiguration)
        = Table::new("validating_webhooks"),
    gateway_classes: GatewayClass(GatewayClass) = Table::new("gateway_classes"),
    gateways: Gateway(Gateway) = Table::new("gateways"),
    listener_sets: ListenerSet(ListenerSet) = Table::new("listener_sets")
        .with_index::<gateway::index::ListenerSetByParent>(),
    backend_tls_policies: BackendTlsPolicy(BackendTlsPolicy) = Table::new("backend_tls_policies")
        .with_index::<envoy::backend_tls::PolicyByBackend>(),
    reference_grants: ReferenceGrant(ReferenceGrant) = Table::new("reference_grants")
        .with_index::<envoy::index::GrantByNamespace>(),
    secrets: Secret(Secret) = Table::new("secrets"),
    config_maps: ConfigMap(ConfigMap) = Table::new("config_maps")
        .with_index::<gateway::index::ConfigMapByClass>(),
    services: Service(Service) = Table::new("services")
        .with_index::<ambient::ownership::TagServices>(),
    service_entries: ServiceEntry(ServiceEntry) = Table::new("service_entries"),
    pods: Pod(Pod) = Table::new("pods")
        .with_index::<ambient::waypoint::PodsByGateway>(),
    workload_entries: WorkloadEntry(WorkloadEntry) = Table::new("workload_entries"),
    endpoint_slices: EndpointSlice(EndpointSlice) = Table::new("endpoint_slices"),
    authorization_policies: AuthorizationPolicy(AuthorizationPolicy)
        = Table::new("authorization_policies")
            .with_index::<ambient::authorization::AllowPoliciesByNamespace>()
            .with_index::<envoy::index::PolicyByTarget>()
            .with_index::<envoy::index::UntargetedPolicyByNamespace>(),
    peer_authentications: PeerAuthentication(PeerAuthentication)
        = Table::new("peer_authentications"),
    http_routes: HttpRoute(HttpRoute) = Table::new("http_routes")
        .with_index::<envoy::index::RouteByParent>()
        .with_index::<envoy::index::RouteByBackend>()
        .with_index::<envoy::index::RouteByBackendHost>(),
    grpc_routes: GrpcRoute(GrpcRoute) = Table::new("grpc_routes")
        .with_index::<envoy::index::RouteByParent>()
        .with_index::<envoy::index::RouteByBackend>()
        .with_index::<envoy::index::RouteByBackendHost>(),
    tcp_routes: TcpRoute(TcpRoute) = Table::new("tcp_routes")
        .with_index::<envoy::index::L4RouteByParent>()
        .with_index::<envoy::index::RouteByBackend>()
        .with_index::<envoy::index::RouteByBackendHost>(),
    tls_routes: TlsRoute(TlsRoute) = Table::new("tls_routes")
        .with_index::<envoy::index::L4RouteByParent>()
        .with_index::<envoy::index::RouteByBackend>()
        .with_index::<envoy::index::RouteByBackendHost>(),
    virtual_services: VirtualService(VirtualService) = Table::new("virtual_services")
        .with_index::<envoy::index::VirtualServiceByNamespace>()
        .with_index::<envoy::index::VirtualServiceByDestination>(),
    destination_rules: DestinationRule(DestinationRule) = Table::new("destination_rules")
        .with_index::<envoy::index::DestinationRuleByHost>(),
    request_authentications: RequestAuthentication(RequestAuthentication)
        = Table::new("request_authentications")
            .with_index::<envoy::index::RequestAuthenticationByTarget>()
            .with_index::<envoy::index::UntargetedAuthenticationByNamespace>()
            .with_index::<envoy::index::AuthenticationBySource>(),
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
                Input::SourceFindings(source, findings) => {
                    let told = self.source_findings.entry(source).or_default();
                    source_findings |= *told != findings;
                    *told = findings;
                }
                Input::Interest(class, connected) => {
                    batch.proxies.insert(class, connected.then(|| Arc::new(())));
                }
                Input::Jwks(source, keys) => {
                    batch.jwks.insert(source, keys);
                }
                Input::Rejected(class, list) => {
                    let list = (!list.is_empty()).then(|| Arc::new(list));
                    batch.rejections.insert(class, list);
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

    /// Findings of the sources, then every visible row's own notes.
    pub(crate) fn findings(&self) -> impl Iterator<Item = &Finding> {
        let told = self.source_findings.values().flatten();
        told.chain(self.notes.values().flatten())
    }

    /// Findings of what is hidden.
    pub(crate) fn hidden<'a>(
        &'a self,
        revisions: &'a Revisions,
    ) -> impl Iterator<Item = Finding> + 'a {
        self.discovery.findings(revisions)
    }

    /// Kinds whose first complete list has not arrived.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Kind> + '_ {
        self.waiting.iter().copied()
    }
}
