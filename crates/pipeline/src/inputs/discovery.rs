//! Which objects stages see: discovery selectors and revisions.
//!
//! A function of the current objects alone: what is hidden is kept aside, so that a changed
//! namespace label or mesh config brings it back. Source: spec/workload-discovery.md §0.1,
//! spec/gateway-api.md §0, spec/control-plane.md §8.6 and §8.7.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flow::Table;
use model::input::{LabelSelector, MeshConfig, Namespace, is_selected};
use model::labels::LABEL_REVISION;
use model::ownership::Revisions;
use model::{Finding, Kind, Meta, ObjectKey, ObjectRef, Parsed, Severity, Str};

use super::Edits;

/// Why an object is hidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// No discovery selector selects its namespace.
    Namespace,
    /// It is for another revision, this one.
    Revision(Str),
}

/// The hidden objects of a kind.
pub(super) type Hidden<T> = BTreeMap<ObjectKey, (Arc<Parsed<T>>, Reason)>;

/// What is in force, and what it hides.
#[derive(Default)]
pub(super) struct Discovery {
    /// Revision of this control plane; empty sees objects of every revision.
    revision: Str,
    /// Namespace of the control plane, which no selector hides: policies of the whole mesh are
    /// usually there.
    system_namespace: Str,
    /// ORed; empty selects every namespace.
    selectors: Vec<LabelSelector>,
    /// The selected namespaces that exist; unused without selectors.
    selected: BTreeSet<Str>,
    /// Number of hidden objects by namespace that is not selected.
    by_namespace: BTreeMap<Str, usize>,
    /// Objects hidden by their revision.
    by_revision: BTreeMap<(Kind, ObjectKey), Str>,
    /// Those that a batch hid so, or brought back.
    revised: BTreeMap<(Kind, ObjectKey), bool>,
    findings_changed: bool,
}

/// Namespaces whose selection a batch changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flips {
    /// Perhaps every one.
    All,
    /// These.
    Some(BTreeSet<Str>),
}

// === impl Flips ===

impl Flips {
    fn includes(&self, ns: &Str) -> bool {
        match self {
            Self::All => true,
            Self::Some(namespaces) => namespaces.contains(ns),
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Some(namespaces) if namespaces.is_empty())
    }
}

// === impl Discovery ===

impl Discovery {
    pub(super) fn new(revision: Str, system_namespace: Str) -> Self {
        Self {
            revision,
            system_namespace,
            ..Self::default()
        }
    }

    /// Takes up the edits of a batch; they are not committed yet.
    pub(super) fn update(
        &mut self,
        (configs, config_edits): (&Table<ObjectKey, Parsed<MeshConfig>>, &Edits<MeshConfig>),
        (namespaces, edits): (&Table<ObjectKey, Parsed<Namespace>>, &Edits<Namespace>),
    ) -> Flips {
        let key = ambient::mesh::config_key();
        let config = match config_edits.get(&key) {
            Some(edit) => edit.as_ref(),
            None => configs.row(&key),
        };
        let selectors = config
            .and_then(|config| config.ok())
            .map(|config| config.discovery_selectors.clone())
            .unwrap_or_default();
        if selectors != self.selectors {
            self.selectors = selectors;
            let all = namespaces.iter().map(|(key, _)| key);
            let all: BTreeSet<&ObjectKey> = all.chain(edits.keys()).collect();
            let labels = |key: &ObjectKey| match edits.get(key) {
                Some(edit) => edit.as_ref().map(|row| &row.meta.labels),
                None => namespaces.row(key).map(|row| &row.meta.labels),
            };
            let selected = all
                .into_iter()
                .filter(|key| is_selected(&self.selectors, labels(key)));
            self.selected = selected.map(|key| key.name.clone()).collect();
            return Flips::All;
        }
        if self.selectors.is_empty() {
            return Flips::Some(BTreeSet::new());
        }
        let mut flips = BTreeSet::new();
        for (key, edit) in edits {
            let labels = edit.as_ref().map(|row| &row.meta.labels);
            let selected = is_selected(&self.selectors, labels);
            let changed = if selected {
                self.selected.insert(key.name.clone())
            } else {
                self.selected.remove(&key.name)
            };
            if changed {
                flips.insert(key.name.clone());
            }
        }
        Flips::Some(flips)
    }

    /// Why an object is hidden, if it is.
    fn reason(&self, kind: Kind, meta: &Meta) -> Option<Reason> {
        let ns = &meta.key.ns;
        let is_seen =
            !kind.is_namespaced() || *ns == self.system_namespace || self.selected.contains(ns);
        if !self.selectors.is_empty() && !is_seen {
            return Some(Reason::Namespace);
        }
        if self.revision.is_empty() || !is_revised(kind) {
            return None;
        }
        let revision = meta.label(LABEL_REVISION)?;
        (*revision != self.revision).then(|| Reason::Revision(revision.clone()))
    }

    /// The edits of a kind as stages shall see them; what is hidden goes aside.
    pub(super) fn filter<T>(
        &mut self,
        kind: Kind,
        table: &Table<ObjectKey, Parsed<T>>,
        hidden: &mut Hidden<T>,
        edits: Edits<T>,
        flips: &Flips,
    ) -> Edits<T>
    where
        Parsed<T>: flow::Row,
    {
        let sees_all = self.selectors.is_empty() && self.revision.is_empty();
        if is_always_seen(kind) || (sees_all && hidden.is_empty()) {
            return edits;
        }
        let mut edits = edits;
        if !flips.is_empty() {
            let seen = table.iter();
            let aside = hidden.iter().map(|(key, (row, _))| (key, row));
            let flipped = seen.chain(aside).filter(|(key, _)| flips.includes(&key.ns));
            for (key, row) in flipped {
                edits
                    .entry(key.clone())
                    .or_insert_with(|| Some(Arc::clone(row)));
            }
        }
        for (key, edit) in &mut edits {
            let reason = edit.as_ref().and_then(|row| self.reason(kind, &row.meta));
            let old = hidden.remove(key).map(|(_, reason)| reason);
            self.tell(kind, key, old.as_ref(), reason.as_ref());
            if let Some(reason) = reason
                && let Some(row) = edit.take()
            {
                hidden.insert(key.clone(), (row, reason));
            }
        }
        edits
    }

    /// Keeps what findings are made of.
    fn tell(&mut self, kind: Kind, key: &ObjectKey, old: Option<&Reason>, new: Option<&Reason>) {
        if old == new {
            return;
        }
        match old {
            Some(Reason::Namespace) => {
                if let Some(count) = self.by_namespace.get_mut(&key.ns) {
                    *count -= 1;
                    if *count == 0 {
                        self.by_namespace.remove(&key.ns);
                        self.findings_changed = true;
                    }
                }
            }
            Some(Reason::Revision(_)) => {
                let at = (kind, key.clone());
                self.by_revision.remove(&at);
                self.revised.insert(at, false);
                self.findings_changed = true;
            }
            None => {}
        }
        match new {
            Some(Reason::Namespace) => {
                let count = self.by_namespace.entry(key.ns.clone()).or_default();
                self.findings_changed |= *count == 0;
                *count += 1;
            }
            Some(Reason::Revision(revision)) => {
                let at = (kind, key.clone());
                self.by_revision.insert(at.clone(), revision.clone());
                self.revised.insert(at, true);
                self.findings_changed = true;
            }
            None => {}
        }
    }

    /// Whether findings may have changed since the last call.
    pub(super) fn take_findings_changed(&mut self) -> bool {
        std::mem::take(&mut self.findings_changed)
    }

    /// Objects that became, or are no longer, hidden by their revision since the last call.
    pub(super) fn take_revised(&mut self) -> BTreeMap<(Kind, ObjectKey), bool> {
        std::mem::take(&mut self.revised)
    }

    /// One finding per namespace that is not selected and has objects, and one per object of
    /// another revision.
    pub(super) fn findings<'a>(
        &'a self,
        revisions: &'a Revisions,
    ) -> impl Iterator<Item = Finding> + 'a {
        let namespaces = self.by_namespace.keys().map(|ns| {
            Finding::new(
                "object-not-discovered",
                Severity::Info,
                ObjectRef::new(Kind::Namespace, ObjectKey::cluster(ns.clone())),
                format!("No discoverySelectors of mesh config select namespace {ns}; its objects have no effect"),
                "Label the namespace so that a selector selects it, or leave it out of the mesh",
            )
            .at("metadata.labels")
        });
        let objects = self.by_revision.iter().map(|((kind, key), revision)| {
            let ours = &self.revision;
            let message = if revisions.has_tag(revision) {
                format!(
                    "The object names {revision}, a tag of this control plane's revision {ours}; objects other than Gateways must name the revision itself, so it is not applied"
                )
            } else {
                format!(
                    "The object is for revision {revision}; this control plane has revision {ours} and does not apply it"
                )
            };
            Finding::new(
                "object-other-revision",
                Severity::Info,
                ObjectRef::new(*kind, key.clone()),
                message,
                format!("Remove the label {LABEL_REVISION}, or set it to {ours} if the object is for this control plane"),
            )
            .at(format!("metadata.labels[{LABEL_REVISION}]"))
        });
        namespaces.chain(objects)
    }
}

/// Kinds that nothing hides.
fn is_always_seen(kind: Kind) -> bool {
    !is_revised(kind) && (!kind.is_namespaced() || kind == Kind::MeshConfig)
}

/// Kinds that belong to one control plane of several: configuration, except Gateways, whose proxies
/// every control plane serves.
fn is_revised(kind: Kind) -> bool {
    match kind {
        Kind::GatewayClass
        | Kind::ListenerSet
        | Kind::BackendTlsPolicy
        | Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::TcpRoute
        | Kind::TlsRoute
        | Kind::ReferenceGrant
        | Kind::AuthorizationPolicy
        | Kind::PeerAuthentication
        | Kind::RequestAuthentication
        | Kind::VirtualService
        | Kind::DestinationRule
        | Kind::ServiceEntry
        | Kind::WorkloadEntry => true,
        Kind::Gateway
        | Kind::Namespace
        | Kind::Node
        | Kind::Pod
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::Secret
        | Kind::ConfigMap
        | Kind::MutatingWebhookConfiguration
        | Kind::ValidatingWebhookConfiguration
        | Kind::MeshConfig => false,
    }
}
