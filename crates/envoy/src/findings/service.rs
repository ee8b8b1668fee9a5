//! Stage `findings::service`: services that their waypoint serves otherwise than expected, and
//! entries that lead nowhere.
//! Source: spec/policy-and-traffic.md §10.3, §10.6.

use flow::{Output, Reads, View};
use model::input::{AuthorizationPolicy, Resolution};
use model::labels::LABEL_GATEWAY_NAME;
use model::{
    Finding, Kind, NamespacedHostname, ObjectKey, Parsed, ServiceRow, Severity, WorkloadRow,
    WorkloadUid,
};

use crate::index::{PolicyByTarget, Target, WorkloadByService};

/// Primary: a service.
pub type P = NamespacedHostname;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct ServiceFindingView<'t> {
    /// Services.
    pub services: View<'t, NamespacedHostname, ServiceRow>,
    /// Workloads; index [`WorkloadByService`].
    pub workloads: View<'t, WorkloadUid, WorkloadRow>,
    /// Policies; index [`PolicyByTarget`].
    pub policies: View<'t, ObjectKey, Parsed<AuthorizationPolicy>>,
    /// Whether anybody is captured, and whether anybody is not ([`super::captured`]).
    pub captured: View<'t, bool, ()>,
}

/// Findings as notes; the stage has no rows.
pub fn derive(p: &P, view: &ServiceFindingView<'_>, reads: &mut Reads) -> Output<(), (), Finding> {
    let Some(service) = view.services.get(reads, p) else {
        return Output::gone();
    };
    let mut notes = Vec::from_iter(selects_nothing(p, service, view, reads));
    let Some(bound) = &service.waypoint else {
        notes.extend(unmatched(service, view, reads));
        return Output::none().with_notes(notes);
    };
    if service.resolution == Resolution::DynamicDns {
        notes.push(dynamic_dns(service));
        return Output::none().with_notes(notes);
    }
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

/// An entry whose selector finds no workload. One finding for all hosts of an entry.
fn selects_nothing(
    p: &P,
    service: &ServiceRow,
    view: &ServiceFindingView<'_>,
    reads: &mut Reads,
) -> Option<Finding> {
    let selector = service.selector.as_ref().filter(|all| !all.is_empty())?;
    let code = match service.resolution {
        Resolution::Static => "se-no-endpoints-selector",
        Resolution::Dns | Resolution::DnsRoundRobin => "se-dns-no-endpoints",
        Resolution::None | Resolution::DynamicDns => return None,
    };
    let mut workloads = view.workloads.by::<WorkloadByService>(reads, p);
    if service.source.kind != Kind::ServiceEntry.as_str() || workloads.next().is_some() {
        return None;
    }
    let pairs: Vec<_> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let what = format!(
        "No workload of namespace {} has the labels {}: connections to the hosts of this entry fail",
        p.ns,
        pairs.join(",")
    );
    let fix = "Correct the labels, or add endpoints";
    let note = Finding::new(code, Severity::Error, service.source.clone(), what, fix);
    Some(note.at("spec.workloadSelector"))
}

/// An entry that a policy targets although its traffic cannot be told from any other. Bound to a
/// waypoint, it is reported where services are made.
fn unmatched(
    service: &ServiceRow,
    view: &ServiceFindingView<'_>,
    reads: &mut Reads,
) -> Option<Finding> {
    if service.resolution != Resolution::None || !service.vips.is_empty() {
        return None;
    }
    let target = Target::of_service(service)?;
    let policies = view.policies.by::<PolicyByTarget>(reads, &target);
    let policy = policies.map(|(key, _)| key).min()?;
    let what = format!(
        "{} has resolution NONE and no address by which its traffic could be known: AuthorizationPolicy {policy} is not enforced on it",
        service.key.hostname
    );
    let fix = "Set addresses, or resolution DNS, and bind the entry to a waypoint";
    let object = service.source.clone();
    let note = Finding::new("se-passthrough-policy", Severity::Error, object, what, fix);
    Some(note.at("spec.addresses"))
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
