//! Stage `backend_tls`: a BackendTLSPolicy → [`BackendTlsRow`], what becomes of each of its
//! targets and how connections to them are opened.
//!
//! Clusters and the status of the policy come from the same row. A policy that cannot be applied
//! as written refuses connections to its targets: nothing is sent there in plain text because of
//! it. `tls` of a DestinationRule comes before policies of either kind, and may say plain text.
//! Source: spec/gateway-api.md §4.7; spec/envoy-config.md §3.8.

mod judge;
mod notes;

use std::sync::Arc;

use flow::{Index, Output, Reads, View};
use model::derived::PortRow;
use model::gateway::Defect;
use model::input::{BackendTlsPolicy, BackendTlsTarget, DestinationRule};
use model::secret::ConfigMap;
use model::{
    Finding, GatewayController, GatewayRow, Kind, MeshRow, NamespacedHostname, ObjectKey,
    ObjectRef, Parsed, ServiceRow, Str,
};

use crate::ir::{TlsAuthority, TlsCertificate, UpstreamTlsIr};
use crate::traffic::tls::Backend;

/// Primary: a policy.
pub type P = ObjectKey;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct BackendTlsView<'t> {
    /// Policies; index [`PolicyByBackend`].
    pub policies: View<'t, ObjectKey, Parsed<BackendTlsPolicy>>,
    /// ConfigMaps.
    pub config_maps: View<'t, ObjectKey, Parsed<ConfigMap>>,
    /// Services; index [`crate::index::ServiceBySource`].
    pub services: View<'t, NamespacedHostname, ServiceRow>,
    /// Rules; index [`crate::index::DestinationRuleByHost`].
    pub destination_rules: View<'t, ObjectKey, Parsed<DestinationRule>>,
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
}

/// A policy, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTlsRow {
    /// Targets in the order of the spec.
    pub targets: Vec<TargetRow>,
    /// Why `ResolvedRefs` is false.
    pub refs: Option<Defect>,
    /// What `Accepted` says beside that it is.
    pub remark: Option<Str>,
    /// How connections are opened; `None` where they are refused.
    pub server: Option<BackendServer>,
}

/// A target of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRow {
    /// As it is written.
    pub target: BackendTlsTarget,
    /// Why `Accepted` is false.
    pub defect: Option<Defect>,
    /// Services whose connections the policy decides about; none where it does not.
    pub services: Vec<NamespacedHostname>,
}

/// What a backend must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendServer {
    /// The name that is asked for, and that the certificate is for unless names are listed.
    pub hostname: Str,
    /// Names of which the certificate has one, if any are listed.
    pub subject_alt_names: Vec<Str>,
    /// Who vouches for it.
    pub authority: TlsAuthority,
}

/// Policies by the objects that they target, as `(namespace, group, kind, name)` with the
/// core group empty. For the table of BackendTLSPolicies.
pub struct PolicyByBackend;

impl Index<ObjectKey, Parsed<BackendTlsPolicy>> for PolicyByBackend {
    type At = ObjectRef;
    fn keys(key: &ObjectKey, row: &Parsed<BackendTlsPolicy>, emit: &mut dyn FnMut(&ObjectRef)) {
        for target in judge::targets(row).iter() {
            if let Some(at) = judge::object(&key.ns, target) {
                emit(&at);
            }
        }
    }
}

/// Policies by the services that they decide about. For the table of [`BackendTlsRow`].
pub struct BackendTlsByService;

impl Index<ObjectKey, BackendTlsRow> for BackendTlsByService {
    type At = NamespacedHostname;
    fn keys(_: &ObjectKey, row: &BackendTlsRow, emit: &mut dyn FnMut(&NamespacedHostname)) {
        let services = row.targets.iter().flat_map(|target| &target.services);
        services.for_each(emit);
    }
}

/// The row of a policy.
pub fn derive(
    key: &P,
    view: &BackendTlsView<'_>,
    reads: &mut Reads,
) -> Output<ObjectKey, BackendTlsRow, Finding> {
    let Some(policy) = view.policies.get(reads, key) else {
        return Output::gone();
    };
    let row = judge::judge(policy, view, reads);
    let notes = notes::of(policy, &row, view, reads);
    Output::one(key.clone(), row).with_notes(notes)
}

/// The policy for a port of a service, if there is one: that for the port comes before that for
/// the whole service.
pub(crate) fn of_port<'t>(
    rows: View<'t, ObjectKey, BackendTlsRow>,
    reads: &mut Reads,
    service: &NamespacedHostname,
    port: &str,
) -> Option<&'t BackendTlsRow> {
    let mut whole = None;
    for (_, row) in rows.by::<BackendTlsByService>(reads, service) {
        let row: &Arc<BackendTlsRow> = row;
        let here = row.targets.iter();
        for target in here.filter(|target| target.services.contains(service)) {
            match &target.target.section {
                Some(section) if *section == *port => return Some(row),
                None => {
                    whole = whole.or(Some(&**row));
                }
                Some(_) => {}
            }
        }
    }
    whole
}

/// The ports of a service that a target is about.
fn of_service_port<'s>(
    target: &'s TargetRow,
    service: &'s ServiceRow,
) -> impl Iterator<Item = &'s PortRow> {
    let section = target.target.section.as_ref();
    let ports = service.ports.iter();
    ports.filter(move |port| section.is_none_or(|section| port.name == *section))
}

/// How proxies of a Gateway open connections. One that is to show a certificate that cannot be
/// had opens none: the backend would take it for somebody else.
pub(crate) fn opening(row: &BackendTlsRow, gateway: Option<&GatewayRow>) -> Backend {
    let gateway = gateway.filter(|gateway| gateway.controller == GatewayController::Ingress);
    let is_anonymous = gateway.is_some_and(|gateway| gateway.client_certificate_defect.is_some());
    let Some(server) = row.server.as_ref().filter(|_| !is_anonymous) else {
        return Backend::Refused;
    };
    let certificate = gateway.and_then(|gateway| gateway.client_certificate.clone());
    Backend::Tls(UpstreamTlsIr {
        sni: server.hostname.clone(),
        subject_alt_names: server.subject_alt_names.clone(),
        insecure: false,
        authority: server.authority.clone(),
        certificate: certificate.map(TlsCertificate::Secret),
        h2: false,
    })
}

/// A reference to the policy.
fn reference(key: &ObjectKey) -> ObjectRef {
    ObjectRef::new(Kind::BackendTlsPolicy, key.clone())
}
