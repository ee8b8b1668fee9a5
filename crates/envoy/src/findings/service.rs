//! Stage `findings::service`: services that their waypoint serves otherwise than expected, and
//! entries that lead nowhere.
//! Source: spec/policy-and-traffic.md §10.3, §10.6.

use std::collections::BTreeSet;

use flow::{Output, Reads, View};
use model::census::CensusKey;
use model::derived::Distribution;
use model::input::{AuthorizationPolicy, Resolution};
use model::labels::LABEL_GATEWAY_NAME;
use model::{
    Finding, Kind, MeshRow, NamespacedHostname, ObjectKey, Parsed, ServiceRow, Severity,
    WorkloadRow, WorkloadUid,
};

use crate::attachment::{chains_of, dynamic_host, is_dynamic, mesh_row};
use crate::endpoints::members::is_reached;
use crate::index::{PolicyByTarget, Target, WorkloadByService};
use crate::ingress::waypoint::vip;

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
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
    /// The census: whether anybody is captured, so that anybody could go through a waypoint.
    pub census: View<'t, CensusKey, ()>,
}

/// Findings as notes; the stage has no rows.
pub fn derive(p: &P, view: &ServiceFindingView<'_>, reads: &mut Reads) -> Output<(), (), Finding> {
    let Some(service) = view.services.get(reads, p) else {
        return Output::gone();
    };
    let mut notes = Vec::from_iter(selects_nothing(p, service, view, reads));
    notes.extend(elsewhere(service, view, reads));
    notes.extend(refused_at_ingress(service));
    notes.extend(canary_unseen(service));
    let Some(bound) = &service.waypoint else {
        notes.extend(unmatched(service, view, reads));
        return Output::none().with_notes(notes);
    };
    if service.resolution == Resolution::DynamicDns {
        notes.extend(dynamic_dns(service));
        return Output::none().with_notes(notes);
    }
    notes.extend(node_local(service, &bound.key));
    // Gateways that are told to use the waypoint are clients too.
    let mut is_any = |key| view.census.get(reads, &CensusKey::Captured(key)).is_some();
    let (uncaptured, captured) = (is_any(false), is_any(true));
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

/// A canary that traffic of other networks does not see.
fn canary_unseen(service: &ServiceRow) -> Option<Finding> {
    let [primary, canary] = service.weighted_waypoints.as_slice() else {
        return None;
    };
    service.is_global.then(|| {
        Finding::new(
            "wp-canary-east-west",
            Severity::Warning,
            service.source.clone(),
            format!(
                "What comes for {} from other networks goes to waypoint {} alone: gateways between networks give canary {} no share",
                service.key.hostname, primary.bound.key, canary.bound.key
            ),
            "Judge the canary by traffic of this network, or make it the waypoint when it is known to be good",
        )
    })
}

/// What ingress gateways are to send through a waypoint that cannot be used and is to fail closed.
fn refused_at_ingress(service: &ServiceRow) -> Option<Finding> {
    let is_refused = service.ingress_use_waypoint && service.blocked.is_some();
    (is_refused && vip(service).is_some()).then(|| {
        Finding::new(
            "wp-ingress-refused",
            Severity::Error,
            service.source.clone(),
            format!(
                "Ingress gateways are to reach {} through its waypoint, which cannot be used: they answer 503 (waypoint-missing is fail-closed) until it can",
                service.key.hostname
            ),
            "Mend what is said of istio.io/use-waypoint, or take istio.io/ingress-use-waypoint away",
        )
    })
}

/// Endpoints that waypoints and ingress gateways leave out.
fn elsewhere(
    service: &ServiceRow,
    view: &ServiceFindingView<'_>,
    reads: &mut Reads,
) -> Option<Finding> {
    let mesh = mesh_row(view.mesh, reads);
    let workloads = view.workloads.by::<WorkloadByService>(reads, &service.key);
    let out = workloads.filter(|(_, row)| !is_reached(&mesh, row));
    let networks: BTreeSet<&str> = out.map(|(_, row)| row.network.as_str()).collect();
    if networks.is_empty() {
        return None;
    }
    let networks: Vec<&str> = networks.into_iter().collect();
    let what = format!(
        "Endpoints of {} are on other networks ({}): ztunnel reaches them by their gateways, waypoints and ingress gateways send them nothing",
        service.key.hostname,
        networks.join(", ")
    );
    let fix = "Have an endpoint on this network where a waypoint or an ingress gateway leads to the service";
    let object = service.source.clone();
    Some(Finding::new(
        "net-endpoints-elsewhere",
        Severity::Warning,
        object,
        what,
        fix,
    ))
}

/// Endpoints on the node of the caller, which a waypoint does not know.
fn node_local(service: &ServiceRow, waypoint: &ObjectKey) -> Option<Finding> {
    (service.distribution == Distribution::NodeStrict).then(|| {
        Finding::new(
            "wp-node-local",
            Severity::Warning,
            service.source.clone(),
            format!(
                "internalTrafficPolicy is Local, but waypoint {waypoint} is on a node of its own and sends requests to endpoints on every node",
            ),
            "Take the service out of the waypoint (istio.io/use-waypoint: none), or leave internalTrafficPolicy at Cluster",
        )
    })
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

/// What of hosts that are resolved per request cannot be: those that are no wildcards outside
/// the mesh, and ports that do not speak plain HTTP.
fn dynamic_dns(service: &ServiceRow) -> Vec<Finding> {
    let host = &service.key.hostname;
    let note = |code, what, fix: &'static str, at: String| {
        Finding::new(code, Severity::Error, service.source.clone(), what, fix).at(at)
    };
    if !is_dynamic(service) {
        let what = format!(
            "Only wildcard hosts outside the mesh (*.example.com) are resolved per request, so {host} is not served by its waypoint"
        );
        let fix = "Use resolution DNS";
        let at = "spec.resolution".to_owned();
        return vec![note("se-dynamic-dns-not-supported", what, fix, at)];
    }
    let ports = service.ports.iter();
    let ports = ports.filter(|port| dynamic_host(service, port).is_none());
    ports
        .map(|port| {
            let effect = if chains_of(service, port).is_some() {
                "answered with 503"
            } else {
                "refused"
            };
            let what = format!(
                "Only hosts of plain HTTP requests are resolved: what is sent to port {} of {host} is {effect}",
                port.port
            );
            let at = format!("spec.ports.{}", port.port);
            note("se-dynamic-grpc", what, "Use protocol HTTP", at)
        })
        .collect()
}
