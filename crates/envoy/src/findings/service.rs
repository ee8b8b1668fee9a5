//! Stage `findings::service`: services that their waypoint serves otherwise than expected.
//! Source: spec/policy-and-traffic.md §10.3, §10.6.

use flow::{Output, Reads, View};
use model::input::Resolution;
use model::labels::LABEL_GATEWAY_NAME;
use model::{Finding, NamespacedHostname, ServiceRow, Severity, WorkloadRow, WorkloadUid};

use crate::index::WorkloadByService;

/// Primary: a service.
pub type P = NamespacedHostname;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct ServiceFindingView<'t> {
    /// Services.
    pub services: View<'t, NamespacedHostname, ServiceRow>,
    /// Workloads; index [`WorkloadByService`].
    pub workloads: View<'t, WorkloadUid, WorkloadRow>,
    /// Whether anybody is captured, and whether anybody is not ([`super::captured`]).
    pub captured: View<'t, bool, ()>,
}

/// Findings as notes; the stage has no rows.
pub fn derive(p: &P, view: &ServiceFindingView<'_>, reads: &mut Reads) -> Output<(), (), Finding> {
    let Some(service) = view.services.get(reads, p) else {
        return Output::gone();
    };
    let Some(bound) = &service.waypoint else {
        return Output::none();
    };
    if service.resolution == Resolution::DynamicDns {
        return Output::none().with_note(dynamic_dns(service));
    }
    let mut notes = Vec::new();
    // Gateways that are told to use the waypoint are clients too.
    let uncaptured = view.captured.get(reads, &false).is_some();
    let captured = view.captured.get(reads, &true).is_some();
    if !service.ingress_use_waypoint && uncaptured && !captured {
        notes.push(Finding::new(
            "wp-namespace-not-ambient",
            Severity::Warning,
            service.source.clone(),
            format!(
                "No workload is captured by ztunnel, so no client passes waypoint {} on its way to {}: its policies and routes have no effect",
                bound.key, p.hostname
            ),
            "Enrol the clients' namespaces with istio.io/dataplane-mode: ambient",
        ));
    }
    if service.external || !is_plaintext(p, view, reads) {
        return Output::none().with_notes(notes);
    }
    let note = Finding::new(
        "wp-server-not-ambient",
        Severity::Warning,
        service.source.clone(),
        format!(
            "The endpoints of {} are not in the mesh: waypoint {} reaches them in plaintext, and anybody can without it",
            p.hostname, bound.key
        ),
        "Enrol their namespace with istio.io/dataplane-mode: ambient",
    );
    notes.push(note);
    Output::none().with_notes(notes)
}

/// Whether there are endpoints, and none of them takes HBONE. Instances of a gateway are never
/// captured and do not count.
fn is_plaintext(p: &P, view: &ServiceFindingView<'_>, reads: &mut Reads) -> bool {
    let workloads = view.workloads.by::<WorkloadByService>(reads, p);
    let mut live = workloads
        .map(|(_, row)| row)
        .filter(|row| !row.terminating && !row.labels.contains_key(LABEL_GATEWAY_NAME))
        .peekable();
    live.peek().is_some() && live.all(|row| !row.hbone)
}

fn dynamic_dns(service: &ServiceRow) -> Finding {
    let what = format!(
        "This version does not resolve hosts per request, so {} is not served by its waypoint",
        service.key.hostname
    );
    let fix = "Name the hosts and use resolution DNS";
    let (code, object) = ("se-dynamic-dns-not-supported", service.source.clone());
    Finding::new(code, Severity::Error, object, what, fix).at("spec.resolution")
}
