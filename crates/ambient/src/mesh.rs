//! Stage `mesh`: `()` → [`MeshRow`], the defaults overlaid by mesh config.
//!
//! Source: spec/workload-discovery.md §2.7 for the network.

use flow::{Output, Reads};
use model::derived::{Features, MeshTraffic};
use model::input::{MeshConfig, Namespace};
use model::labels::LABEL_NETWORK;
use model::{Finding, Kind, MeshRow, ObjectKey, ObjectRef, Str, defaults};

use crate::tables::{InputView, error};

/// What is configured per installation rather than in the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshDefaults {
    /// Namespace that the control plane runs in.
    pub system_namespace: Str,
    /// Cluster id.
    pub cluster_id: Str,
    /// DNS suffix of the cluster.
    pub domain: Str,
    /// Revision of this control plane; empty takes every object
    /// (spec/workload-discovery.md §0.1).
    pub revision: Str,
    /// Whether no other control plane can be there, as with objects of files. Without a revision,
    /// everything is ours then; otherwise what is the default one's.
    pub is_alone: bool,
    /// Switches.
    pub features: Features,
    /// A key set that no token satisfies, new in each process; empty for none.
    /// See [`MeshRow::nobody_jwks`].
    pub nobody_jwks: Str,
}

impl Default for MeshDefaults {
    fn default() -> Self {
        Self {
            system_namespace: Str::from(defaults::ROOT_NAMESPACE),
            cluster_id: Str::from(defaults::CLUSTER_ID),
            domain: Str::from(defaults::CLUSTER_DOMAIN),
            revision: Str::new(),
            is_alone: true,
            features: Features::default(),
            nobody_jwks: Str::new(),
        }
    }
}

/// Name of the row that holds mesh config, wherever it was read from.
pub fn config_key() -> ObjectKey {
    ObjectKey::new(defaults::ROOT_NAMESPACE, "istio")
}

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct MeshView<'t> {
    /// Settings of the installation.
    pub defaults: &'t MeshDefaults,
    /// Mesh config objects.
    pub mesh_configs: InputView<'t, MeshConfig>,
    /// Namespaces.
    pub namespaces: InputView<'t, Namespace>,
}

/// The mesh row. Unreadable mesh config leaves the defaults in force and is reported.
pub fn derive(_: &(), view: &MeshView<'_>, reads: &mut Reads) -> Output<(), MeshRow, Finding> {
    let mut row = MeshRow {
        domain: view.defaults.domain.clone(),
        cluster_id: view.defaults.cluster_id.clone(),
        features: view.defaults.features,
        nobody_jwks: view.defaults.nobody_jwks.clone(),
        ..MeshRow::default()
    };
    let system = ObjectKey::cluster(view.defaults.system_namespace.clone());
    if let Some(namespace) = view.namespaces.get(reads, &system) {
        row.network = namespace
            .meta
            .label(LABEL_NETWORK)
            .cloned()
            .unwrap_or_default();
    }
    let mut notes = Vec::new();
    if let Some(config) = view.mesh_configs.get(reads, &config_key()) {
        match &config.body {
            Ok(config) => overlay(&mut row, config),
            Err(invalid) => notes.push(
                error(
                    "mesh-config-invalid",
                    ObjectRef::new(Kind::MeshConfig, config.meta.key.clone()),
                    format!(
                        "Mesh config cannot be read ({}); defaults are used",
                        invalid.reason
                    ),
                    "Correct the mesh config",
                )
                .at(invalid.field.clone()),
            ),
        }
    }
    Output::one((), row).with_notes(notes)
}

fn overlay(row: &mut MeshRow, config: &MeshConfig) {
    let set = |value: &Option<Str>| value.clone().filter(|value| !value.is_empty());
    if let Some(trust_domain) = set(&config.trust_domain) {
        row.trust_domain = trust_domain;
    }
    if let Some(root) = set(&config.root_namespace) {
        row.root_namespace = root;
    }
    row.trust_domain_aliases
        .clone_from(&config.trust_domain_aliases);
    row.entry_visibility.clone_from(&config.entry_visibility);
    row.discovery_selectors
        .clone_from(&config.discovery_selectors);
    row.service_scopes.clone_from(&config.service_scopes);
    let discovery = config.default_config.get("discoveryAddress");
    let discovery = discovery.and_then(|address| address.as_str());
    row.discovery_host = discovery.map(host).unwrap_or_default();
    traffic(&mut row.traffic, config);
}

/// The host of an address with or without a port.
fn host(address: &str) -> Str {
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'));
    let is_v6 = address.matches(':').count() > 1;
    Str::from(match (bare, address.rsplit_once(':')) {
        (Some((ip, _)), _) => ip,
        (None, Some((host, _))) if !is_v6 => host,
        (None, _) => address,
    })
}

fn traffic(row: &mut MeshTraffic, config: &MeshConfig) {
    row.providers.clone_from(&config.providers);
    row.default_retries.clone_from(&config.default_retries);
    row.tcp_keepalive = config.tcp_keepalive;
    row.h2_upgrade = config.h2_upgrade;
    row.locality_lb.clone_from(&config.locality_lb);
    row.path_normalization = config.path_normalization;
    if let Some(timeout) = config.connect_timeout {
        row.connect_timeout = timeout;
    }
    if let Some(timeout) = config.hbone_idle_timeout {
        row.hbone_idle_timeout = timeout;
    }
    let lists = [
        (
            &mut row.virtual_service_export_to,
            &config.virtual_service_export_to,
        ),
        (
            &mut row.destination_rule_export_to,
            &config.destination_rule_export_to,
        ),
        (&mut row.service_export_to, &config.service_export_to),
    ];
    for (into, from) in lists {
        if !from.is_empty() {
            into.clone_from(from);
        }
    }
}
