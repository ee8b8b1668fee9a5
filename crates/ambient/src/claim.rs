//! Stage `claim`: Service or ServiceEntry → the hosts that it claims.
//!
//! Several objects may claim one host; stage [`crate::service`] lets one win. What is said once
//! per object (its waypoint, its endpoint preference) is resolved here.
//! Source: spec/workload-discovery.md §3, §4.3.

use std::collections::BTreeSet;

use flow::{Output, Reads, View};
use model::derived::{BoundWaypoint, Distribution, Visibility};
use model::input::{Resolution, Service, ServiceEntry};
use model::labels::{
    ANNOTATION_EXPORT_TO, ANNOTATION_TRAFFIC_DISTRIBUTION, LABEL_GATEWAY_MANAGED,
    LABEL_USE_WAYPOINT, MANAGED_EAST_WEST, MANAGED_WAYPOINT,
};
use model::{Finding, Kind, Meta, NamespacedHostname, ObjectKey, ObjectRef, Parsed, Severity, Str};

use crate::attach::{self, AttachView, Attachment, FIELD_USE_WAYPOINT, Reach, Subject, Traffic};
use crate::service::parse_vip;
use crate::tables::{self, InputView, MeshTable, error, warning};
use crate::{entry_note, traffic, visibility};

/// The object behind a service. Services sort before ServiceEntries, as they win over them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceSource {
    /// A Kubernetes Service.
    Service(ObjectKey),
    /// A ServiceEntry.
    ServiceEntry(ObjectKey),
}

// === impl ServiceSource ===

impl ServiceSource {
    /// Namespace and name of the object.
    pub fn key(&self) -> &ObjectKey {
        match self {
            Self::Service(key) | Self::ServiceEntry(key) => key,
        }
    }

    /// Reference to the object.
    pub fn object_ref(&self) -> ObjectRef {
        let kind = match self {
            Self::Service(_) => Kind::Service,
            Self::ServiceEntry(_) => Kind::ServiceEntry,
        };
        ObjectRef::new(kind, self.key().clone())
    }
}

/// A host and the object that claims it.
pub type ClaimKey = (NamespacedHostname, ServiceSource);

/// A claim to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRow {
    /// Creation time of the object.
    pub created_s: Option<i64>,
    /// What came of its reference to a waypoint.
    pub attachment: Attachment,
    /// Ingress gateways go through that waypoint too, or nowhere while it is to fail closed.
    pub ingress_use_waypoint: bool,
    /// Who sees it.
    pub visibility: Visibility,
    /// Endpoint preference.
    pub distribution: Distribution,
    /// Other networks may reach it.
    pub is_global: bool,
}

/// The tracked view of claims.
pub type ClaimTable<'t> = View<'t, ClaimKey, ClaimRow>;

/// Index of claims by host within its namespace.
#[derive(Clone, Copy, Debug)]
pub struct ClaimsByHost;

impl flow::Index<ClaimKey, ClaimRow> for ClaimsByHost {
    type At = NamespacedHostname;

    fn keys(key: &ClaimKey, _: &ClaimRow, emit: &mut dyn FnMut(&NamespacedHostname)) {
        emit(&key.0);
    }
}

/// Index of claims by host over all namespaces.
#[derive(Clone, Copy, Debug)]
pub struct ClaimsByHostname;

impl flow::Index<ClaimKey, ClaimRow> for ClaimsByHostname {
    type At = Str;

    fn keys(key: &ClaimKey, _: &ClaimRow, emit: &mut dyn FnMut(&Str)) {
        emit(&key.0.hostname);
    }
}

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct ClaimView<'t> {
    /// Services.
    pub services: InputView<'t, Service>,
    /// ServiceEntries.
    pub service_entries: InputView<'t, ServiceEntry>,
    /// The mesh row.
    pub mesh: MeshTable<'t>,
    /// Waypoints and what leads to them.
    pub attach: AttachView<'t>,
}

/// The claims of an object. An unreadable object claims nothing.
pub fn derive(
    source: &ServiceSource,
    view: &ClaimView<'_>,
    reads: &mut Reads,
) -> Output<ClaimKey, ClaimRow, Finding> {
    match source {
        ServiceSource::Service(key) => match view.services.get(reads, key) {
            None => Output::gone(),
            Some(service) => of_service(source, service, view, reads),
        },
        ServiceSource::ServiceEntry(key) => match view.service_entries.get(reads, key) {
            None => Output::gone(),
            Some(entry) => of_entry(source, entry, view, reads),
        },
    }
}

fn of_service(
    source: &ServiceSource,
    object: &Parsed<Service>,
    view: &ClaimView<'_>,
    reads: &mut Reads,
) -> Output<ClaimKey, ClaimRow, Finding> {
    let Ok(service) = &object.body else {
        return Output::none();
    };
    if service.external_name {
        return Output::none().with_notes(external_name_note(source, &object.meta));
    }
    let mut notes = Vec::new();
    let managed = object.meta.label(LABEL_GATEWAY_MANAGED);
    let is_gateway = managed.is_some_and(|by| by == MANAGED_WAYPOINT || by == MANAGED_EAST_WEST);
    let visibility = Visibility::Public;
    let attachment = if is_gateway {
        Attachment::default()
    } else {
        attachment(source, &object.meta, visibility, view, reads, &mut notes)
    };
    let bound = attachment.bound.as_ref();
    if let Some(waypoint) = bound.filter(|_| service.cluster_ips.is_empty()) {
        notes.push(headless_note(source, waypoint));
    }
    notes.extend(export_note(source, &object.meta));
    let distribution = if service.internal_local {
        Distribution::NodeStrict
    } else {
        let word = service.traffic_distribution.as_ref();
        word.and_then(|word| traffic::spec_distribution(word))
            .unwrap_or_else(|| annotated(&object.meta, view, reads))
    };
    let outcome = Outcome {
        attachment,
        visibility,
        distribution,
    };
    let row = claim(source, &object.meta, outcome, view, reads, &mut notes);
    let domain = &tables::mesh(view.mesh, reads).domain;
    let host = NamespacedHostname::service(source.key(), domain);
    Output::one((host, source.clone()), row).with_notes(notes)
}

fn of_entry(
    source: &ServiceSource,
    object: &Parsed<ServiceEntry>,
    view: &ClaimView<'_>,
    reads: &mut Reads,
) -> Output<ClaimKey, ClaimRow, Finding> {
    let Ok(entry) = &object.body else {
        return Output::none();
    };
    let mesh = tables::mesh(view.mesh, reads);
    let visibility =
        visibility::of_namespace(&source.key().ns, &mesh, view.attach.namespaces, reads);
    if visibility == Visibility::None {
        return Output::none().with_note(entry_note::hidden(source.key()));
    }
    if let Some(bad) = entry
        .addresses
        .iter()
        .position(|text| parse_vip(text).is_none())
    {
        let text = entry
            .addresses
            .get(bad)
            .map(Str::as_str)
            .unwrap_or_default();
        return Output::none().with_note(
            error(
                "se-address-invalid",
                source.object_ref(),
                format!("{text} is neither an IP nor a CIDR; none of the entry's hosts is served"),
                "Correct or remove the address",
            )
            .at(format!("spec.addresses[{bad}]")),
        );
    }
    let mut notes = entry_note::of_entry(source.key(), entry);
    let attachment = attachment(source, &object.meta, visibility, view, reads, &mut notes);
    let distribution = if entry.resolution == Resolution::None {
        Distribution::Passthrough
    } else {
        annotated(&object.meta, view, reads)
    };
    let outcome = Outcome {
        attachment,
        visibility,
        distribution,
    };
    let row = claim(source, &object.meta, outcome, view, reads, &mut notes);
    let hosts: BTreeSet<&Str> = entry.hosts.iter().collect();
    let claims = hosts.into_iter().map(|host| {
        let host = NamespacedHostname::new(source.key().ns.clone(), host.clone());
        ((host, source.clone()), row.clone())
    });
    Output::new(claims.collect(), notes)
}

/// What comes of the object's reference to a waypoint; its visibility has a say in it.
fn attachment(
    source: &ServiceSource,
    meta: &Meta,
    visibility: Visibility,
    view: &ClaimView<'_>,
    reads: &mut Reads,
    notes: &mut Vec<Finding>,
) -> Attachment {
    let object = source.object_ref();
    let subject = Subject {
        object: &object,
        ns: &source.key().ns,
        labels: &meta.labels,
        traffic: Traffic::Services,
        reach: match visibility {
            Visibility::Public => Reach::Mesh,
            Visibility::Namespace | Visibility::None => Reach::Namespace,
        },
    };
    view.attach.of_service(reads, &subject, meta, notes)
}

/// What is said once per object.
struct Outcome {
    attachment: Attachment,
    visibility: Visibility,
    distribution: Distribution,
}

fn claim(
    source: &ServiceSource,
    meta: &Meta,
    outcome: Outcome,
    view: &ClaimView<'_>,
    reads: &mut Reads,
    notes: &mut Vec<Finding>,
) -> ClaimRow {
    let Outcome {
        attachment,
        visibility,
        distribution,
    } = outcome;
    let object = source.object_ref();
    let own = attach::ingress_use_waypoint(meta, &object, notes);
    let is_bound = attachment.bound.is_some();
    if own == Some(true) && !is_bound && attachment.refusal.is_none() {
        notes.push(attach::ingress_without_waypoint(&object));
    }
    let inherited = view
        .attach
        .namespace_bindings
        .get(reads, &ObjectKey::cluster(meta.key.ns.clone()))
        .and_then(|binding| binding.ingress_use_waypoint);
    // One that cannot be used and is to fail closed refuses what comes from gateways, too.
    let is_asked = is_bound || attachment.blocked.is_some();
    ClaimRow {
        created_s: meta.created_s,
        attachment,
        ingress_use_waypoint: is_asked && own.or(inherited).unwrap_or(false),
        visibility,
        distribution,
        is_global: is_global(source, meta, view, reads),
    }
}

/// Whether other networks may reach a Service: where mesh config says nothing of scopes, every
/// one, but no gateway between networks, which would lead to itself.
/// Source: spec/workload-discovery.md §4.5.
fn is_global(source: &ServiceSource, meta: &Meta, view: &ClaimView<'_>, reads: &mut Reads) -> bool {
    let mesh = tables::mesh(view.mesh, reads);
    let is_gateway = || {
        let managed = meta.label(LABEL_GATEWAY_MANAGED);
        managed.is_some_and(|by| by == MANAGED_EAST_WEST)
    };
    let is_service = matches!(source, ServiceSource::Service(_));
    if !mesh.features.multi_network || !is_service || is_gateway() {
        return false;
    }
    let Some(scopes) = &mesh.service_scopes else {
        return true;
    };
    let ns = ObjectKey::cluster(meta.key.ns.clone());
    let namespace = view.attach.namespaces.get(reads, &ns);
    let namespace = namespace.map(|row| &row.meta.labels);
    let mut scopes = scopes.iter();
    scopes.any(|scope| scope.opens(namespace, &meta.labels))
}

/// The distribution that annotations ask for: the object's, else the namespace's.
fn annotated(meta: &Meta, view: &ClaimView<'_>, reads: &mut Reads) -> Distribution {
    let own = meta.annotation(ANNOTATION_TRAFFIC_DISTRIBUTION);
    own.and_then(|word| traffic::annotated_distribution(word))
        .or_else(|| {
            let namespace = ObjectKey::cluster(meta.key.ns.clone());
            view.attach
                .namespace_bindings
                .get(reads, &namespace)?
                .distribution
        })
        .unwrap_or_default()
}

fn external_name_note(source: &ServiceSource, meta: &Meta) -> Option<Finding> {
    meta.label(LABEL_USE_WAYPOINT)?;
    Some(
        warning(
            "wp-externalname",
            source.object_ref(),
            "ExternalName Services are not part of the ambient mesh; the waypoint label has no effect",
            "Use a ServiceEntry for the external host",
        )
        .at(FIELD_USE_WAYPOINT),
    )
}

/// Clients of every namespace see every Service, whatever the annotation says.
fn export_note(source: &ServiceSource, meta: &Meta) -> Option<Finding> {
    let list = meta.annotation(ANNOTATION_EXPORT_TO)?;
    let mut places = list.split(',').map(str::trim);
    let is_restricted = !list.trim().is_empty() && places.all(|place| place != "*");
    let note = Finding::new(
        "svc-exportto-ambient",
        Severity::Info,
        source.object_ref(),
        "exportTo does not restrict ambient clients: every namespace sees the Service",
        "Use an AuthorizationPolicy to restrict who may connect",
    );
    let at = format!("metadata.annotations[{ANNOTATION_EXPORT_TO}]");
    is_restricted.then(|| note.at(at))
}

fn headless_note(source: &ServiceSource, waypoint: &BoundWaypoint) -> Finding {
    Finding::new(
        "wp-headless",
        Severity::Info,
        source.object_ref(),
        format!(
            "The Service has no address, so clients connect to its pods and do not pass waypoint {}",
            waypoint.key
        ),
        "Use a waypoint with istio.io/waypoint-for: all or workload for the pods",
    )
}
