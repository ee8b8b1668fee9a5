//! Which VirtualServices concern a service at a waypoint. Source: spec/policy-and-traffic.md §6.1.

use flow::{Reads, View};
use model::input::VirtualService;
use model::{MeshRow, ObjectKey, Parsed, Str};

use super::destination::full_name;
use crate::index::VirtualServiceByNamespace;
use crate::routes::Site;
use crate::traffic::{host_rank, is_visible};

/// The reserved gateway that stands for the mesh.
const MESH: &str = "mesh";

/// A VirtualService that concerns a service.
pub(crate) struct Applied<'t> {
    /// Its key.
    pub(crate) key: &'t ObjectKey,
    /// What it says.
    pub(crate) spec: &'t VirtualService,
}

/// Why a VirtualService whose host is that of a service is not consulted for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is neither in the namespace of the service nor in that of the waypoint.
    ForeignNamespace,
    /// `exportTo` hides it from the waypoint.
    NotExported,
    /// The host is of another namespace, and the installation does not allow that.
    ForeignHost,
}

/// The VirtualServices for a service at its waypoint in order of evaluation: private ones of
/// the waypoint's namespace, those exported to it by name, public ones; inside each, oldest first.
pub(crate) fn applied<'t>(
    site: &Site<'_>,
    table: View<'t, ObjectKey, Parsed<VirtualService>>,
    reads: &mut Reads,
) -> Vec<Applied<'t>> {
    let (home, own) = (&site.waypoint.key.ns, &site.service.key.ns);
    let mut found = Vec::new();
    for ns in [home, own] {
        found.extend(table.by::<VirtualServiceByNamespace>(reads, ns));
    }
    found.sort_by_key(|(key, _)| *key);
    found.dedup_by(|(a, _), (b, _)| a == b);
    let mut out: Vec<_> = found
        .into_iter()
        .filter_map(|(key, parsed)| {
            let spec = parsed.ok()?;
            let concerned = is_of_mesh(&spec.gateways)
                && matches_host(spec, &key.ns, site)
                && refusal(spec, &key.ns, site).is_none();
            concerned.then_some((key, parsed, spec))
        })
        .collect();
    out.sort_by_cached_key(|(key, parsed, spec)| {
        let export_to = export_to(spec, site.mesh);
        (privacy(export_to, &key.ns), parsed.meta.age_order())
    });
    let applied = |(key, _, spec)| Applied { key, spec };
    out.into_iter().map(applied).collect()
}

/// Why a VirtualService with a fitting host is not consulted.
pub(crate) fn refusal(spec: &VirtualService, ns: &Str, site: &Site<'_>) -> Option<Refusal> {
    let (home, own) = (&site.waypoint.key.ns, &site.service.key.ns);
    if ns != home && ns != own {
        Some(Refusal::ForeignNamespace)
    } else if !is_visible(export_to(spec, site.mesh), ns, home) {
        Some(Refusal::NotExported)
    } else if ns != own && !site.mesh.features.foreign_hosts {
        Some(Refusal::ForeignHost)
    } else {
        None
    }
}

/// `exportTo`, or its default.
pub(super) fn export_to<'s>(spec: &'s VirtualService, mesh: &'s MeshRow) -> &'s [Str] {
    if spec.export_to.is_empty() {
        &mesh.traffic.virtual_service_export_to
    } else {
        &spec.export_to
    }
}

/// Sort key: private, then exported by name, then public.
fn privacy(export_to: &[Str], ns: &Str) -> u8 {
    if export_to.is_empty() || export_to.iter().any(|to| to == "*") {
        2
    } else {
        u8::from(!export_to.iter().any(|to| to == "." || to == ns))
    }
}

/// Whether gateways include the mesh; none stand for it.
pub(crate) fn is_of_mesh(gateways: &[Str]) -> bool {
    gateways.is_empty() || gateways.iter().any(|gateway| gateway == MESH)
}

/// Whether some host is that of the service, wildcards on either side.
fn matches_host(spec: &VirtualService, ns: &str, site: &Site<'_>) -> bool {
    let host = &site.service.key.hostname;
    spec.hosts.iter().any(|written| {
        let full = full_name(written, ns, &site.mesh.domain);
        host_rank(&full, host).is_some() || host_rank(host, &full).is_some()
    })
}
